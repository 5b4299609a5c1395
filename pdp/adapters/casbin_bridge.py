"""The bridge to pycasbin: a source of policies, and an oracle. The one module that imports it, off the decision path.

Theory of operation. `read` lets pycasbin load a model file and rows, from a CSV file or through any adapter, exactly as an
application does. `Oracle` asks pycasbin what it would answer to a question to our engine. It cannot be asked about our
packs as they are (CASBIN.md D-41: one conditional `g` turns every plain one into name equality), so they are *projected*
first, for one instant:

    links outside their window                are dropped
    g = _, _, _, (_, _)                       is declared without its condition columns, which go from the rows too
    actionMatch, resourceMatch, envMatch      are registered as functions
    timeMatch                                 likewise, at the one instant
    when(p.when)                              likewise; what errs counts for a deny row and not for an allow row (D-24)
    a left side that is a pattern, domain `*` become pycasbin's matching functions of that role section
    groups that a question brings             become links, for that question

Every oracle is fresh and used by one thread: what pycasbin does on reload or under threads (D-45 to D-48) is out of view.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import casbin

from pdp.adapters.casbin_shape import is_adapter
from pdp.engine.casbin_text import OPEN, Context, Model, Row
from pdp.engine.conditions import Conditions
from pdp.engine.evaluate import EngineRequest
from pdp.engine.expression import Call, Expression, Field, Literal, walk
from pdp.engine.functions import action_match, env_match, member_match, resource_match
from pdp.engine.patterns import parse_time
from pdp.errors import ConfigError
from pdp.model.attributes import NO_ATTRIBUTES, Attributes
from pdp.model.vocabulary import Vocabulary

_FUNCTIONS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "actionMatch": action_match,
    "resourceMatch": resource_match,
    "envMatch": env_match,
}
_FUNCTIONS_OF_ROLES: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "keyMatch": casbin.util.key_match_func,
    "keyMatch2": casbin.util.key_match2_func,
    "keyMatch3": casbin.util.key_match3_func,
    "keyMatch4": casbin.util.key_match4_func,
    "keyMatch5": casbin.util.key_match5_func,
    "regexMatch": casbin.util.regex_match_func,
    "globMatch": casbin.util.glob_match_func,
    "ipMatch": casbin.util.ip_match_func,
}
"""pycasbin's own functions, by the names that `[role_matching]` has for them."""
_EFFECTS: Final = {
    text.replace(" ", ""): text
    for text in (
        "some(where (p.eft == allow))",
        "!some(where (p.eft == deny))",
        "some(where (p.eft == allow)) && !some(where (p.eft == deny))",
        "priority(p.eft) || deny",
        "subjectPriority(p.eft) || deny",
    )
}
"""The spellings that pycasbin compares with, by what is left of them without blanks."""
_ROLE_LINE: Final = re.compile(r"(?m)^(\s*g\d*\s*=\s*_\s*(?:,\s*_\s*){1,2}),\s*\([^)]*\)")
_CONTINUED: Final = re.compile(r"\\[ \t]*\n[ \t]*")
_EFFECT_LINE: Final = re.compile(r"(?m)^(\s*e(\d*)\s*=\s*)(.*?)[ \t]*$")
_MARK: Final = "\x1f"
"""Between the effect and the condition of a projected row; no condition can hold it."""


def read(model_path: Path, source: Any) -> tuple[Row, ...]:
    """Return the rows that pycasbin loads under a model file: from a CSV file, or through an adapter.

    Rows are numbered in the order of pycasbin, each section by itself; what it drops (D-09) is not there.

    Raises:
        ConfigError: pycasbin cannot read the model or the rows; its words are passed on.
    """
    adapter = source if is_adapter(source) else casbin.persist.adapters.FileAdapter(str(source))
    try:
        enforcer = casbin.Enforcer(str(model_path), adapter)
    except Exception as error:  # foreign code, at our boundary to it
        raise ConfigError(f"pycasbin cannot read this policy: {type(error).__name__}: {error}") from error
    return tuple(_rows_of(enforcer.get_model(), file=source.name if isinstance(source, Path) else "policy"))


def _rows_of(model: Any, *, file: str) -> Iterator[Row]:
    line = 0
    for letter in ("p", "g"):
        for section, assertion in (model.model.get(letter) or {}).items():
            for fields in assertion.policy:
                line += 1
                yield Row(section, tuple(fields), file, line)


# --- the oracle ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Testimony:
    """What pycasbin answers: a truth value, or the exception that it raised instead."""

    allowed: bool | None
    error: str = ""


class Oracle:
    """pycasbin over one projected policy at one instant."""

    def __init__(
        self, *, model_text: str, model: Model, vocabulary: Vocabulary, rows: Sequence[Row], now_ms: int
    ) -> None:
        self._text = project_model(model_text)
        self._model = model
        self._conditions = Conditions(vocabulary)
        self._now_ms = now_ms
        self._rows = tuple(project_rows(rows, model, now_ms))
        self._attributes: Attributes = NO_ATTRIBUTES
        self._plain: Any = None

    def ask(self, request: EngineRequest) -> Testimony:
        """Return what pycasbin says to a question to our engine."""
        self._attributes = request.attributes
        try:
            enforcer = self._enforcer(request)
            context = enforcer.new_enforce_context(request.context)
            # D-05: pycasbin applies `e` in every context, and knows no other.
            return Testimony(allowed=bool(enforcer.enforce(context, *request.values)))
        except Exception as error:  # noqa: BLE001 - foreign code: that it raised is the testimony
            return Testimony(allowed=None, error=f"{type(error).__name__}: {error}")

    def _enforcer(self, request: EngineRequest) -> Any:
        links = tuple(_links_of(request, self._model, self._rows))
        if links:
            return self._made((*self._rows, *links))
        if self._plain is None:
            self._plain = self._made(self._rows)
        return self._plain

    def _made(self, rows: Sequence[tuple[str, tuple[str, ...]]]) -> Any:
        enforcer = casbin.Enforcer(casbin.Enforcer.new_model(text=self._text))
        for name, function in _FUNCTIONS.items():
            enforcer.add_function(name, function)
        enforcer.add_function("when", self._when)
        enforcer.add_function("timeMatch", lambda start, end: _within((start, end), self._now_ms))
        for section in self._model.roles:
            names = {fields[0] for own, fields in rows if own == section}
            definition = self._model.roles[section]
            names_match = _FUNCTIONS_OF_ROLES.get(definition.matches) if definition.plain else member_match
            domains_match = _FUNCTIONS_OF_ROLES.get(definition.domain_matches) if definition.plain else env_match
            if names_match is not None:
                # A name that no link starts from is never a pattern, wherever it stands.
                enforcer.add_named_matching_func(section, _matching(frozenset(names), names_match))
            if domains_match is not None and definition.places > len(("name", "target")):
                enforcer.add_named_domain_matching_func(section, domains_match)
        enforcer.set_adapter(_Rows(rows))
        enforcer.load_policy()
        return enforcer

    def _when(self, marked: str) -> bool:
        effect, _, text = marked.partition(_MARK)
        if not text:
            return True
        verdict = self._conditions.compiled(text).holds(self._attributes, self._now_ms)
        return effect == "deny" if verdict is None else verdict


class _Rows(casbin.persist.Adapter):  # type: ignore[misc]  # pycasbin has no types
    """Hands rows to pycasbin as they are, past its CSV reader (D-12)."""

    def __init__(self, rows: Sequence[tuple[str, tuple[str, ...]]]) -> None:
        self._rows = rows

    def load_policy(self, model: Any) -> None:
        for section, fields in self._rows:
            model.model[section[0]][section].policy.append(list(fields))


def _matching(lefts: frozenset[str], function: Callable[[str, str], bool]) -> Callable[[str, str], bool]:
    def matches(name: str, pattern: str) -> bool:
        return name == pattern or (pattern in lefts and function(name, pattern))

    return matches


def project_model(text: str) -> str:
    """Return a model that pycasbin reads as we do: values on one line, no condition columns, effects in its spelling."""
    bare = _ROLE_LINE.sub(r"\1", _CONTINUED.sub(" ", text))
    return _EFFECT_LINE.sub(_spelled, bare)


def _spelled(match: re.Match[str]) -> str:
    flat = match[3].replace(" ", "").replace("p_eft", "p.eft").replace(f"p{match[2]}.eft", "p.eft")
    return match[1] + _EFFECTS.get(flat, match[3])


def project_rows(rows: Sequence[Row], model: Model, now_ms: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield type and fields of each row as pycasbin is to see them at `now_ms`."""
    contexts = {context.section: context for context in model.contexts.values()}
    for row in rows:
        definition = model.roles.get(row.section)
        if definition is None:
            yield row.section, _marked(row.fields, contexts[row.section])
        elif _within(row.fields[definition.places :], now_ms):
            yield row.section, row.fields[: definition.places]


def _within(times: tuple[str, ...], now_ms: int) -> bool:
    start, end = times or (OPEN, OPEN)
    return (start == OPEN or parse_time(start) < now_ms) and (end == OPEN or now_ms < parse_time(end))


def _marked(fields: tuple[str, ...], context: Context) -> tuple[str, ...]:
    """Write the row's effect in front of its conditions: `when` is told only the text, and an error counts by effect."""
    effect = fields[context.policy.index("eft")] if "eft" in context.policy else "allow"
    return tuple(
        f"{effect}{_MARK}{value}" if name in context.condition_columns else value
        for name, value in zip(context.policy, fields, strict=True)
    )


def _links_of(
    request: EngineRequest, model: Model, rows: Sequence[tuple[str, tuple[str, ...]]]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield a link for each further name of a question, in every role section that its matcher asks about that field."""
    context = model.contexts[request.context]
    if len(request.values) != len(context.request):
        return  # pycasbin has its own word on that
    values = dict(zip(context.request, request.values, strict=True))
    for node in walk(context.matcher):
        if not isinstance(node, Call) or node.function not in model.roles:
            continue
        field, _, *domain = node.arguments
        if isinstance(field, Field):
            for name in request.memberships.get(field.name, ()):
                for where in _domains(domain, values, context, rows):
                    yield node.function, (values[field.name], name, *where)


def _domains(
    domain: Sequence[Expression],
    values: Mapping[str, Any],
    context: Context,
    rows: Sequence[tuple[str, tuple[str, ...]]],
) -> Iterator[tuple[str, ...]]:
    """Yield the domains in which a link must stand to be found: the one asked for, or all that a column of the rows names."""
    match domain:
        case [Field(scope=scope, name=name)] if scope.startswith("p"):
            position = context.policy.index(name)
            yield from {(fields[position],) for section, fields in rows if section == context.section}
        case [Field(name=name)]:
            yield (values[name],)
        case [Literal(value=value)]:
            yield (str(value),)
        case _:
            yield ()
