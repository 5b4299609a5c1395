"""The policy that an enforcer holds: one immutable value, replaced whole by every change."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

from pdp.casbin_compat._sources import POLICY_NAME
from pdp.engine.casbin_loose import read_model
from pdp.engine.casbin_text import Model, Row, parse_model
from pdp.engine.compiler import Snapshot, compile_policy
from pdp.engine.expression import Call, Expression, ExpressionError, Field, parse, walk
from pdp.engine.findings import PackRefused, errors
from pdp.engine.functions import FUNCTIONS
from pdp.errors import PortcullisError, Reason
from pdp.model.vocabulary import Vocabulary

Rule = tuple[str, tuple[str, ...]]
"""A row without a place: type and fields."""
Function = Callable[..., Any]
Paths = frozenset[tuple[str, ...]]
"""Which attributes of a request's value are read: `(("address", "city"), ("age",))`."""

MODEL_NAME: Final = "model.conf"
NOTHING: Final = Vocabulary(types=MappingProxyType({}), attributes=MappingProxyType({}))
_BUILT_IN: Final = frozenset({*FUNCTIONS, "when", "eval", "timeMatch"})
_EMPTY: Final = "PC501"


@dataclass(frozen=True, kw_only=True)
class State:
    """A model, functions that were brought, and rules; compiled. An enforcer holds one of these and swaps it."""

    text: str
    rules: tuple[Rule, ...] = ()
    functions: Mapping[str, Function] = field(default_factory=dict)
    matching: Mapping[str, str] = field(default_factory=dict)
    vocabulary: Vocabulary = NOTHING
    local: bool = False

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """The functions that a matcher calls, and that nobody has brought yet."""
        return tuple(sorted(_called(self.text) - self.functions.keys()))

    @cached_property
    def model(self) -> Model:
        """The model; a function that is still missing stands there by its name, and never answers.

        Raises:
            PackRefused: the text is no model; every finding is told.
        """
        local = dict.fromkeys(self.missing, _absent) | dict(self.functions)
        model, found = parse_model(self.full_text, file=MODEL_NAME, local=MappingProxyType(local))
        if model is None:
            if any(one.code == "PC120" for one in found):
                raise refused_by_default()
            raise PackRefused(found)
        return model

    @property
    def full_text(self) -> str:
        """The model with the matching functions of its role sections written down."""
        if not self.matching:
            return self.text
        lines = [f"{key} = {function}" for key, function in sorted(self.matching.items())]
        return "\n".join((self.text, "[role_matching]", *lines, ""))

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The rules as rows, numbered in their order."""
        return tuple(Row(section, fields, POLICY_NAME, line) for line, (section, fields) in enumerate(self.rules, 1))

    @cached_property
    def paths(self) -> Mapping[str, Mapping[str, Paths]]:
        """For each set and field of its request, the attributes that the matcher, or the text of a row, reads."""
        found: dict[str, dict[str, set[tuple[str, ...]]]] = {}
        for suffix, context in self.model.contexts.items():
            columns = [context.policy.index(name) for name in context.eval_columns]
            texts = {fields[at] for section, fields in self.rules if section == context.section for at in columns}
            into = found.setdefault(suffix, {})
            for tree in (context.matcher, *_trees(texts)):
                for node in walk(tree):
                    if isinstance(node, Field) and node.rest:
                        into.setdefault(node.name, set()).add(node.rest)
        return {suffix: {name: frozenset(read) for name, read in into.items()} for suffix, into in found.items()}

    @cached_property
    def snapshot(self) -> Snapshot | None:
        """The compiled policy; None where there is not one `p` row, which denies everything (D-02).

        Raises:
            PackRefused: the rows do not compile; every finding is told.
        """
        compiled = compile_policy(self.model, self.vocabulary, self.rows)
        if isinstance(compiled, Snapshot):
            return compiled
        if {one.code for one in errors(compiled)} == {_EMPTY}:
            return None
        raise PackRefused(compiled)

    def of(self, section: str) -> list[list[str]]:
        """Return the rules of one type, as lists."""
        return [list(fields) for own, fields in self.rules if own == section]

    def having(self, rules: Iterable[Rule]) -> "State":
        """Return this state with other rules, not yet compiled."""
        made = replace(self, rules=tuple(rules))
        made.__dict__.update(missing=self.missing, model=self.model)  # the same text gives the same model
        return made

    def checked(self) -> "State":
        """Return this state, compiled.

        Raises:
            PackRefused: it is no policy.
        """
        _ = self.snapshot
        return self

    def admitting(self, new: Sequence[Rule]) -> "State":
        """Return this state after `new`, which is part of it, is compiled together with the links that meet it.

        A policy rule is right or wrong by itself, and a link by those above and below it (cycles, depth): so this refuses
        what compiling everything would, at the cost of what is new.

        Raises:
            PackRefused: a new rule is none of this policy.
        """
        sections = {section for section, _ in new if section in self.model.roles}
        links = [rule for section in sections for rule in self._meeting(section, new)]
        rules = dict.fromkeys((*new, *links))
        rows = [Row(section, fields, POLICY_NAME, line) for line, (section, fields) in enumerate(rules, 1)]
        compiled = compile_policy(self.model, self.vocabulary, rows)
        if isinstance(compiled, tuple) and {one.code for one in errors(compiled)} - {_EMPTY}:
            raise PackRefused(compiled)
        return self

    def _meeting(self, section: str, new: Sequence[Rule]) -> Iterator[Rule]:
        """Yield the links of a section that lie above or below the new ones; all of them where names may be patterns."""
        definition = self.model.roles[section]
        held = [rule for rule in self.rules if rule[0] == section and len(rule[1]) > 1]
        if not definition.plain or definition.matches:
            yield from held
            return
        for start, end in ((0, 1), (1, 0)):
            beside: dict[str, list[Rule]] = {}
            for rule in held:
                beside.setdefault(rule[1][start], []).append(rule)
            queue = [fields[end] for own, fields in new if own == section and len(fields) > 1]
            seen = set(queue)
            for name in queue:
                for rule in beside.get(name, ()):
                    yield rule
                    if rule[1][end] not in seen:
                        seen.add(rule[1][end])
                        queue.append(rule[1][end])


def refused_by_default() -> PortcullisError:
    """Return the error for a model that allows what nothing denies."""
    return PortcullisError(
        Reason.POLICY_REFUSED,
        "D-01: a model that allows whatever no row denies is not enforced: an empty or cut policy would allow everyone",
        advice="e = some(where (p.eft == allow)) && !some(where (p.eft == deny)), and an allow row for what is open",
    )


def _absent(*_: Any) -> bool:
    raise LookupError


def _trees(texts: Iterable[str]) -> Iterator[Expression]:
    for text in texts:
        try:
            yield parse(text)
        except ExpressionError:
            continue  # the compiler refuses the row


def _called(text: str) -> set[str]:
    """Return the names that the matchers of a model call, and that are neither built in nor a role section."""
    loose = read_model(text, file=MODEL_NAME)
    names: set[str] = set()
    for key in loose.keys("m"):
        try:
            tree = parse(loose.entries[key].value)
        except ExpressionError:
            continue  # told with its place when the model is read
        names.update(node.function for node in walk(tree) if isinstance(node, Call))
    return names - _BUILT_IN - set(loose.keys("g"))
