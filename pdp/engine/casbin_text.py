"""The strict reader of Casbin's two formats: `model.conf`, and rows of comma-separated values.

Both readers report every problem at once, each with its place and code, and return nothing that is half understood. A row
is checked against the model for its shape only (type, number of fields, blanks, effect): what its fields mean is the
compiler's business, which checks rows from a log entry as it checks those from a file.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from sys import intern
from types import MappingProxyType
from typing import Any, Final

from pdp.engine.conf_text import Entry, check_sets, read_entries
from pdp.engine.expression import Call, Expression, ExpressionError, Field, parse, walk
from pdp.engine.findings import Finding, errors, finding, in_order, suggest
from pdp.engine.functions import OWN_FUNCTIONS
from pdp.engine.matcher import Scope, check_expression
from pdp.engine.patterns import PATH_FUNCTIONS, PATTERN_FUNCTIONS
from pdp.engine.text import check_characters
from pdp.errors import BadRequestError

LocalFunction = Callable[..., object]

OPEN: Final = "_"
"""In a time column of a role row: no bound on this side."""


class EffectRule(StrEnum):
    """How the effects of the matching rows become one answer.

    Deny-override allows where nothing matches: it is read for analysis only, and never served (D-01).
    """

    ALLOW_OVERRIDE = "allow_override"
    ALLOW_AND_DENY = "allow_and_deny"
    DENY_OVERRIDE = "deny_override"
    PRIORITY = "priority"
    SUBJECT_PRIORITY = "subject_priority"

    @property
    def ordered(self) -> bool:
        """Whether the first matching row decides, and rows so have an order."""
        return self in {EffectRule.PRIORITY, EffectRule.SUBJECT_PRIORITY}


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleDefinition:
    """A role section: names a row holds (two, or three with a domain), and whether a link may have a start and an end.

    `plain` is a model whose names are any text: there the left side of a link, or its domain, is a pattern only if
    `matches`, or `domain_matches`, names the function that reads it. In a model of our own names, patterns are those of
    POLICY.md, and the domain `*` is every one.
    """

    places: int
    temporal: bool
    plain: bool = False
    matches: str = ""
    domain_matches: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One numbered set `r p e m`: what is asked, what a row holds, and how the two meet.

    `condition_columns` are the columns that the matcher hands to `when`, `eval_columns` those it hands to `eval`.
    `subject` is the field of the request that `g` is asked about, `hierarchy` the role section that ranks subjects, and
    `paths` are the positions of the request's fields that a function reads as a path.
    """

    suffix: str
    request: tuple[str, ...]
    policy: tuple[str, ...]
    effect: EffectRule
    matcher: Expression
    condition_columns: frozenset[str]
    line: int
    eval_columns: frozenset[str] = frozenset()
    subject: str = ""
    hierarchy: str = ""
    paths: tuple[int, ...] = ()

    @property
    def section(self) -> str:
        """The type of this set's rows: `p`, `p2`."""
        return f"p{self.suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A PERM model: its contexts by suffix (`""`, `"2"`), and its role sections by name (`g`, `g2`).

    `plain` tells whether names are any text: a matcher that calls a function of ours has names of ours (POLICY.md
    section 1), each checked against the vocabulary. `local` are functions that the caller brought; such a model is for
    its own process only and is never published.
    """

    contexts: Mapping[str, Context]
    roles: Mapping[str, RoleDefinition]
    file: str
    plain: bool = False
    local: Mapping[str, "LocalFunction"] = field(default_factory=dict)

    @property
    def sections(self) -> tuple[str, ...]:
        """Every type that a row may have."""
        return (*(context.section for context in self.contexts.values()), *self.roles)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a policy: its type, its fields in canonical form (blanks kept as ""), and where it stands."""

    section: str
    fields: tuple[str, ...]
    file: str
    line: int
    columns: tuple[int, ...] = field(default=(), compare=False, repr=False)
    """Where each field starts, for messages; not part of the row, and unknown for one that comes from the log."""

    @property
    def id(self) -> str:
        """The name of this row in answers and audit records: `grants.csv:6`."""
        return f"{self.file}:{self.line}"

    def to_json(self) -> list[Any]:
        """Return the row as a canonical-JSON value."""
        return [self.section, list(self.fields), self.file, self.line]

    @classmethod
    def from_json(cls, raw: Any) -> "Row":
        """Return the row that `to_json` wrote.

        Raises:
            BadRequestError: it is none.
        """
        match raw:
            case [str(section), [*fields], str(file), int(line)] if all(type(item) is str for item in fields):
                if file.isprintable() and line is not True and line is not False:
                    return cls(intern(section), tuple(intern(item) for item in fields), intern(file), line)
        raise BadRequestError("a row is `[section, [fields], file, line]`")

    def problem(self, code: str, message: str, position: int = -1, offset: int = 0) -> Finding:
        """Return a finding at the field in `position`, `offset` characters into it; -1 is the row itself."""
        column = self.columns[position] + offset if 0 <= position < len(self.columns) else 1
        return finding(code, message, file=self.file, line=self.line, column=column)


# --- model.conf ------------------------------------------------------------------------------------------------------

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EFFECTS: Final = MappingProxyType(
    {
        "some(where(p.eft==allow))": EffectRule.ALLOW_OVERRIDE,
        "some(where(p.eft==allow))&&!some(where(p.eft==deny))": EffectRule.ALLOW_AND_DENY,
        "!some(where(p.eft==deny))": EffectRule.DENY_OVERRIDE,
        "priority(p.eft)||deny": EffectRule.PRIORITY,
        "subjectPriority(p.eft)||deny": EffectRule.SUBJECT_PRIORITY,
    }
)
_OWN_CALLS: Final = frozenset({*OWN_FUNCTIONS, "when"})


def parse_model(
    text: str, *, file: str, served: bool = True, local: Mapping[str, LocalFunction] = MappingProxyType({})
) -> tuple[Model | None, tuple[Finding, ...]]:
    """Return the model that `text` writes, or None and every reason why it is none.

    `served` refuses an effect that allows where nothing matches (D-01); analysis and tests may read one. `local` are
    functions by name that the caller vouches for; a model with any is never published.
    """
    found = list(check_characters(text, file=file))
    if found:
        return None, in_order(found)
    entries = read_entries(text, file, found)
    found.extend(check_sets(entries, file))
    reader = _ModelReader(entries, file, found, served=served, local=local)
    roles = {key: reader.role(entry) for key, entry in entries.items() if key[0] == "g"}
    contexts = {
        suffix: reader.context(suffix, roles)
        for suffix in (key[1:] for key in entries if key[0] == "m")
        if all(part + suffix in entries for part in "rpe")
    }
    whole = {suffix: context for suffix, context in contexts.items() if context is not None}
    plain = not any(True for context in whole.values() for _ in _calls(context.matcher, _OWN_CALLS))
    roles = {key: reader.matching(key, replace(role, plain=plain)) for key, role in roles.items()}
    if errors(found):
        return None, in_order(found)
    model = Model(contexts=MappingProxyType(whole), roles=MappingProxyType(roles), file=file, plain=plain, local=local)
    return model, in_order(found)


def _calls(matcher: Expression, functions: frozenset[str]) -> Iterator[Call]:
    return (node for node in walk(matcher) if isinstance(node, Call) and node.function in functions)


class _ModelReader:
    """What the entries of a model mean, each with what is wrong with it."""

    def __init__(
        self,
        entries: Mapping[str, Entry],
        file: str,
        found: list[Finding],
        *,
        served: bool,
        local: Mapping[str, LocalFunction],
    ) -> None:
        self._entries = entries
        self._file = file
        self._found = found
        self._served = served
        self._local = frozenset(local)

    def _report(self, entry: Entry, code: str, message: str, at: int = 0) -> None:
        line, column = entry.place(at)
        self._found.append(finding(code, message, file=self._file, line=line, column=column))

    def role(self, entry: Entry) -> RoleDefinition:
        match = re.fullmatch(r"(_(?:,_){1,2})(,\(_,_\))?", entry.value.replace(" ", ""))
        if match is None:
            message = (
                "a role definition is `_, _` or `_, _, _`, and `(_, _)` behind it if links may have a start and an end"
            )
            self._report(entry, "PC201", message)
            return RoleDefinition(places=2, temporal=False)
        return RoleDefinition(places=match[1].count("_"), temporal=match[2] is not None)

    def matching(self, key: str, role: RoleDefinition) -> RoleDefinition:
        """Return a role section with the functions that `[role_matching]` names for its names and domains."""
        found = {"": "", "_domain": ""}
        for part in found:
            entry = self._entries.get(f"f{key}{part}")
            if entry is None:
                continue
            if not role.plain or entry.value not in PATTERN_FUNCTIONS or (part and role.places == 2):  # noqa: PLR2004 - no domain
                hint = suggest(entry.value, PATTERN_FUNCTIONS)
                self._report(entry, "PC202", f"`{entry.value}` does not match the names of `{key}`{hint}")
            found[part] = entry.value
        return replace(role, matches=found[""], domain_matches=found["_domain"])

    def context(self, suffix: str, roles: Mapping[str, RoleDefinition]) -> Context | None:
        request, policy = self._names(self._entries[f"r{suffix}"]), self._names(self._entries[f"p{suffix}"])
        effect = self._effect(self._entries[f"e{suffix}"], suffix, policy)
        entry = self._entries[f"m{suffix}"]
        try:
            matcher = parse(entry.value)
        except ExpressionError as error:
            self._report(entry, error.code, error.message, error.at)
            return None
        scope = Scope(
            {f"r{suffix}": request, f"p{suffix}": policy},
            {name: role.places for name, role in roles.items()},
            self._local,
        )
        problems = tuple(check_expression(matcher, scope))
        for code, message, at in problems:
            self._report(entry, code, message, at)
        if effect is None or problems:
            return None
        return Context(
            suffix=suffix,
            request=request,
            policy=policy,
            effect=effect,
            matcher=matcher,
            condition_columns=_columns(matcher, "when"),
            eval_columns=_columns(matcher, "eval"),
            line=entry.line,
            subject=_subject(matcher),
            hierarchy=_hierarchy(matcher, roles),
            paths=tuple(sorted(request.index(name) for name in _path_fields(matcher))),
        )

    def _names(self, entry: Entry) -> tuple[str, ...]:
        names = tuple(name.strip() for name in entry.value.split(","))
        for name in names:
            if not _NAME.fullmatch(name):
                self._report(entry, "PC201", f"`{name}` is not the name of a field")
        if len(set(names)) < len(names):
            self._report(entry, "PC118", "a field is named twice")
        return names

    def _effect(self, entry: Entry, suffix: str, policy: tuple[str, ...]) -> EffectRule | None:
        flat = entry.value.replace(" ", "").replace("p_eft", "p.eft").replace(f"p{suffix}.eft", "p.eft")
        effect = _EFFECTS.get(flat)
        if effect is None:
            self._report(entry, "PC102", f"not an effect that is supported: `{' || '.join(_EFFECTS)}`")
        elif effect is EffectRule.DENY_OVERRIDE and self._served:
            # D-01: with this effect an empty or cut policy allows everyone.
            message = "an effect that allows where nothing matches cannot be served; say `some allow && !some deny`"
            self._report(entry, "PC120", message)
        elif effect is EffectRule.SUBJECT_PRIORITY and "sub" not in policy:
            self._report(entry, "PC141", "`subjectPriority` ranks rows by their column `sub`, and there is none")
        return effect


def _columns(matcher: Expression, function: str) -> frozenset[str]:
    arguments = (node.arguments[0] for node in _calls(matcher, frozenset({function})))
    return frozenset(argument.name for argument in arguments if isinstance(argument, Field))


def _subject(matcher: Expression) -> str:
    """Return the field of the request that `g` is asked about first: who bears a role's name there is refused (D-44)."""
    for call in _calls(matcher, frozenset({"g"})):
        name = call.arguments[0]
        if isinstance(name, Field) and name.scope.startswith("r") and not name.rest:
            return name.name
    return ""


def _hierarchy(matcher: Expression, roles: Mapping[str, RoleDefinition]) -> str:
    for call in _calls(matcher, frozenset(roles)):
        role = call.arguments[1]
        if isinstance(role, Field) and role.scope.startswith("p") and role.name == "sub":
            return call.function
    return "g" if "g" in roles else ""


def _path_fields(matcher: Expression) -> set[str]:
    names = (call.arguments[0] for call in _calls(matcher, PATH_FUNCTIONS))
    return {name.name for name in names if isinstance(name, Field) and name.scope.startswith("r") and not name.rest}


# --- rows ------------------------------------------------------------------------------------------------------------


def parse_rows(text: str, *, file: str, model: Model) -> tuple[tuple[Row, ...], tuple[Finding, ...]]:
    """Return the rows of one file, and everything that is wrong with it."""
    found = list(check_characters(text, file=file))
    if found:
        return (), in_order(found)
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.lstrip(" \t")
        if not stripped or stripped[0] == "#":
            continue
        row = _read_row(line, file, number, found)
        if row is None:
            continue
        problems = tuple(check_shape(row, model))
        found.extend(problems)
        if not problems:
            rows.append(_canonical(row, model))
    return tuple(rows), in_order(found)


def _read_row(line: str, file: str, number: int, found: list[Finding]) -> Row | None:
    try:
        cells = split_csv(line)
    except _BadCsvError as error:
        found.append(finding("PC114", error.message, file=file, line=number, column=error.at + 1))
        return None
    (section, _), *rest = cells
    fields = tuple(intern(value) for value, _ in rest)
    columns = tuple(at + 1 for _, at in rest)
    return Row(intern(section), fields, intern(file), number, columns)


class _BadCsvError(Exception):
    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.message = message
        self.at = at


_BARE: Final = re.compile(r'[ \t]*([^,"]*)(,|$)')
_QUOTED: Final = re.compile(r'[ \t]*"((?:[^"]|"")*)"[ \t]*(,|$)')


def split_csv(line: str) -> list[tuple[str, int]]:
    """Return the values of one line with the offset of each: RFC 4180 quoting, blanks around a value dropped.

    Blanks are dropped before an opening quote as well (`p, "a,b"` is two values, D-12); within quotes all is kept.

    Raises:
        _BadCsvError: a quote in the middle of a value, or one that is never closed.
    """
    cells, at = [], 0
    while True:
        quoted = _QUOTED.match(line, at)
        match = quoted or _BARE.match(line, at)
        if match is None:
            raise _BadCsvError("a quote opens a value, closes it at its end, and is doubled within", line.find('"', at))
        value = match[1].replace('""', '"') if quoted else match[1].rstrip(" \t")
        cells.append((value, match.start(1)))
        if not match[2]:
            return cells
        at = match.end()


def check_shape(row: Row, model: Model) -> Iterator[Finding]:
    """Yield what is wrong with a row's type, number of fields, blanks and effect."""
    context = next((one for one in model.contexts.values() if one.section == row.section), None)
    if context is not None:
        yield from _check_policy_row(row, context)
    elif row.section in model.roles:
        yield from _check_role_row(row, model.roles[row.section])
    else:
        # D-09: in pycasbin such a row vanishes, and a deny that is lost allows.
        hint = suggest(row.section, model.sections)
        yield row.problem("PC110", f"no row type `{row.section[:40]}`; it is {', '.join(model.sections)}{hint}")


def _check_policy_row(row: Row, context: Context) -> Iterator[Finding]:
    names = context.policy
    if len(row.fields) != len(names):
        yield row.problem(
            "PC112", f"`{row.section}` has {len(names)} fields ({', '.join(names)}), not {len(row.fields)}"
        )
        return
    blank_allowed = context.condition_columns | {"then"}
    for position, (name, value) in enumerate(zip(names, row.fields, strict=True)):
        if name == "eft" and value not in {"allow", "deny"}:
            yield row.problem("PC101", f"`{value[:40]}` is not an effect; it is `allow` or `deny`", position)
        elif not value and name not in blank_allowed:
            yield row.problem("PC115", f"`{name}` is blank", position)


def _check_role_row(row: Row, definition: RoleDefinition) -> Iterator[Finding]:
    full = definition.places + 2 * definition.temporal
    if len(row.fields) not in {definition.places, full}:
        times = ", and may have a start and an end" if definition.temporal else ""
        yield row.problem(
            "PC113", f"`{row.section}` has {definition.places} names{times}; not {len(row.fields)} fields"
        )
        return
    for position, value in enumerate(row.fields):
        if not value:
            yield row.problem("PC115", "a blank field; an open bound is `_`", position)


def _canonical(row: Row, model: Model) -> Row:
    """Drop time columns that say nothing, so that equal links are equal rows."""
    definition = model.roles.get(row.section)
    if definition is None or row.fields[definition.places :] != (OPEN, OPEN):
        return row
    return Row(row.section, row.fields[: definition.places], row.file, row.line, row.columns)


def print_row(row: Row) -> str:
    """Return the row as one line of CSV; reading it gives the row again."""
    return ", ".join((row.section, *(_quoted(value) for value in row.fields)))


def _quoted(value: str) -> str:
    plain = value == value.strip(" \t") and not {",", '"'} & set(value)
    return value if plain else '"' + value.replace('"', '""') + '"'


def rows_of(rows: Sequence[Row], section: str) -> tuple[Row, ...]:
    """Return the rows of one section, in order."""
    return tuple(row for row in rows if row.section == section)
