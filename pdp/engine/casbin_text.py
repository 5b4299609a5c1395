"""The strict reader of Casbin's two formats: `model.conf`, and rows of comma-separated values.

Both readers report every problem at once, each with its place and code, and return nothing that is half understood. A row
is checked against the model for its shape only (type, number of fields, blanks, effect): what its fields mean is the
compiler's business, which checks rows from a log entry as it checks those from a file.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from sys import intern
from types import MappingProxyType
from typing import Any, Final

from pdp.engine.expression import Call, Expression, ExpressionError, Field, parse, walk
from pdp.engine.findings import Finding, errors, finding, in_order, suggest
from pdp.engine.functions import FUNCTIONS
from pdp.engine.text import check_characters
from pdp.errors import BadRequestError

OPEN: Final = "_"
"""In a time column of a role row: no bound on this side."""


class EffectRule(StrEnum):
    """How the effects of the matching rows become one answer."""

    ALLOW_OVERRIDE = "allow_override"
    ALLOW_AND_DENY = "allow_and_deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleDefinition:
    """A role section: names a row holds (two, or three with a domain), and whether a link may have a start and an end."""

    places: int
    temporal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One numbered set `r p e m`: what is asked, what a row holds, and how the two meet.

    `condition_columns` are the columns that the matcher hands to `when`.
    """

    suffix: str
    request: tuple[str, ...]
    policy: tuple[str, ...]
    effect: EffectRule
    matcher: Expression
    condition_columns: frozenset[str]
    line: int

    @property
    def section(self) -> str:
        """The type of this set's rows: `p`, `p2`."""
        return f"p{self.suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A PERM model: its contexts by suffix (`""`, `"2"`), and its role sections by name (`g`, `g2`)."""

    contexts: Mapping[str, Context]
    roles: Mapping[str, RoleDefinition]
    file: str

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

_SECTIONS: Final = MappingProxyType(
    {
        "request_definition": "r",
        "policy_definition": "p",
        "role_definition": "g",
        "policy_effect": "e",
        "matchers": "m",
    }
)
_KEY: Final = re.compile(r"([rpgem])([2-9]|[1-9][0-9])?")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EFFECTS: Final = MappingProxyType(
    {
        "some(where(p.eft==allow))": EffectRule.ALLOW_OVERRIDE,
        "some(where(p.eft==allow))&&!some(where(p.eft==deny))": EffectRule.ALLOW_AND_DENY,
    }
)
_DENY_OVERRIDE: Final = "!some(where(p.eft==deny))"
_NOT_YET: Final = frozenset({"priority(p.eft)||deny", "subjectPriority(p.eft)"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A key of `model.conf` with its value, and where each stands."""

    key: str
    value: str
    line: int
    column: int


def parse_model(text: str, *, file: str) -> tuple[Model | None, tuple[Finding, ...]]:
    """Return the model that `text` writes, or None and every reason why it is none."""
    found = list(check_characters(text, file=file))
    if found:
        return None, in_order(found)
    entries = _read_entries(text, file, found)
    found.extend(_check_sets(entries, file))
    roles = {key: _role(entry, file, found) for key, entry in entries.items() if key[0] == "g"}
    contexts = {
        suffix: _context(suffix, entries, roles, file, found)
        for suffix in (key[1:] for key in entries if key[0] == "m")
        if all(part + suffix in entries for part in "rpe")
    }
    if errors(found):
        return None, in_order(found)
    whole = {suffix: context for suffix, context in contexts.items() if context is not None}
    return Model(contexts=MappingProxyType(whole), roles=MappingProxyType(roles), file=file), in_order(found)


def _read_entries(text: str, file: str, found: list[Finding]) -> dict[str, _Entry]:
    entries: dict[str, _Entry] = {}
    letter = ""
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if not stripped or stripped[0] in "#;":
            continue
        if stripped[0] == "[":
            letter = _header(stripped, file, number, found)
        else:
            _read_entry(line, letter, _Place(file=file, line=number), entries, found)
    return entries


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    file: str
    line: int

    def problem(self, code: str, message: str, column: int = 1) -> Finding:
        return finding(code, message, file=self.file, line=self.line, column=column)


def _header(stripped: str, file: str, line: int, found: list[Finding]) -> str:
    """Return the letter of a section; an unknown one is reported, and its keys are then not looked at ("?")."""
    name = stripped.removeprefix("[").removesuffix("]").strip()
    letter = _SECTIONS.get(name) if stripped.endswith("]") else None
    if letter is None:
        found.append(finding("PC203", f"no section `{name}`{suggest(name, _SECTIONS)}", file=file, line=line))
    return letter or "?"


def _read_entry(line: str, letter: str, place: _Place, entries: dict[str, _Entry], found: list[Finding]) -> None:
    if letter == "?":
        return
    key, equals, value = line.partition("=")
    column = len(key) + 2 + len(value) - len(value.lstrip())
    key, value = key.strip(), value.strip()
    match = _KEY.fullmatch(key)
    if not equals or not value:
        found.append(place.problem("PC201", "a line is `key = value`"))
    elif not letter:
        found.append(place.problem("PC104", "a key before the first section"))
    elif match is None or match[1] != letter:
        found.append(place.problem("PC203", f"no key `{key}` in this section; it is `{letter}`, `{letter}2`, …"))
    elif value.endswith("\\"):
        found.append(place.problem("PC201", "a value stands on one line"))
    elif key in entries:
        found.append(place.problem("PC118", f"`{key}` is already defined in line {entries[key].line}"))
    else:
        entries[key] = _Entry(key=key, value=value, line=place.line, column=column)


def _check_sets(entries: Mapping[str, _Entry], file: str) -> Iterator[Finding]:
    """Check that each section is there, each set complete, and no number left out (D-05, D-09)."""
    for name, letter in _SECTIONS.items():
        if letter != "g" and letter not in entries:
            yield finding("PC104", f"no `{letter}` in section `[{name}]`", file=file)
    for key, entry in entries.items():
        number = int(key[1:] or 1)
        before = key[0] + ("" if number == 2 else str(number - 1))  # noqa: PLR2004 - `p`, then `p2`
        if number > 1 and before not in entries:
            yield finding("PC111", f"`{key}` without `{before}`", file=file, line=entry.line)
        for part in "rpem" if key[0] != "g" else "":
            if part + key[1:] not in entries and (part != key[0] and key[1:]):
                yield finding("PC103", f"`{key}` without `{part}{key[1:]}`", file=file, line=entry.line)


def _role(entry: _Entry, file: str, found: list[Finding]) -> RoleDefinition:
    flat = entry.value.replace(" ", "")
    match = re.fullmatch(r"(_(?:,_){1,2})(,\(_,_\))?", flat)
    if match is None:
        message = (
            "a role definition is `_, _` or `_, _, _`, and `(_, _)` behind it if links may have a start and an end"
        )
        found.append(finding("PC201", message, file=file, line=entry.line, column=entry.column))
        return RoleDefinition(places=2, temporal=False)
    return RoleDefinition(places=match[1].count("_"), temporal=match[2] is not None)


def _context(
    suffix: str, entries: Mapping[str, _Entry], roles: Mapping[str, RoleDefinition], file: str, found: list[Finding]
) -> Context | None:
    request = _names(entries[f"r{suffix}"], file, found)
    policy = _names(entries[f"p{suffix}"], file, found)
    effect = _effect(entries[f"e{suffix}"], suffix, file, found)
    entry = entries[f"m{suffix}"]
    try:
        matcher = parse(entry.value)
    except ExpressionError as error:
        at = entry.column + error.at
        found.append(finding(error.code, error.message, file=file, line=entry.line, column=at))
        return None
    known = {f"r{suffix}": request, f"p{suffix}": policy}
    for code, message, at in _check_matcher(matcher, known, roles):
        found.append(finding(code, message, file=file, line=entry.line, column=entry.column + at))
    if effect is None:
        return None
    return Context(
        suffix=suffix,
        request=request,
        policy=policy,
        effect=effect,
        matcher=matcher,
        condition_columns=_condition_columns(matcher),
        line=entry.line,
    )


def _condition_columns(matcher: Expression) -> frozenset[str]:
    return frozenset(
        argument.name
        for node in walk(matcher)
        if isinstance(node, Call) and node.function == "when"
        for argument in node.arguments
        if isinstance(argument, Field)
    )


def _names(entry: _Entry, file: str, found: list[Finding]) -> tuple[str, ...]:
    names = tuple(name.strip() for name in entry.value.split(","))
    for name in names:
        if not _NAME.fullmatch(name):
            message = f"`{name}` is not the name of a field"
            found.append(finding("PC201", message, file=file, line=entry.line, column=entry.column))
    if len(set(names)) < len(names):
        message = "a field is named twice"
        found.append(finding("PC118", message, file=file, line=entry.line, column=entry.column))
    return names


def _effect(entry: _Entry, suffix: str, file: str, found: list[Finding]) -> EffectRule | None:
    flat = entry.value.replace(" ", "").replace("p_eft", "p.eft").replace(f"p{suffix}.eft", "p.eft")
    code, message = "PC102", f"not an effect that is supported: `{' || '.join(_EFFECTS)}`"
    if flat in _EFFECTS:
        return _EFFECTS[flat]
    if flat == _DENY_OVERRIDE:
        # D-01: with this effect an empty or cut policy allows everyone.
        code, message = (
            "PC120",
            "an effect that allows where nothing matches cannot be served; say `some allow && !some deny`",
        )
    elif flat in _NOT_YET:
        message = "priority effects are not supported yet"
    found.append(finding(code, message, file=file, line=entry.line, column=entry.column))
    return None


def _check_matcher(
    matcher: Expression, known: Mapping[str, tuple[str, ...]], roles: Mapping[str, RoleDefinition]
) -> Iterator[tuple[str, str, int]]:
    """Yield code, message and offset for each name that the model does not define, and each call of a wrong shape."""
    for node in walk(matcher):
        if isinstance(node, Field):
            if node.scope not in known:
                yield "PC203", f"`{node.scope}` is not defined here; it is {' or '.join(known)}", node.at
            elif node.name not in known[node.scope]:
                hint = suggest(node.name, known[node.scope])
                yield "PC203", f"`{node.scope}` has no field `{node.name}`{hint}", node.at
        elif isinstance(node, Call):
            wanted = _arity(node.function, roles)
            if wanted == 0:
                hint = suggest(node.function, (*FUNCTIONS, *roles, "when"))
                yield "PC202", f"the function `{node.function}` is not supported{hint}", node.at
            elif len(node.arguments) != wanted:
                yield "PC202", f"`{node.function}` takes {wanted} arguments, not {len(node.arguments)}", node.at


def _arity(function: str, roles: Mapping[str, RoleDefinition]) -> int:
    """Return how many arguments a function takes; 0 if there is no such function."""
    if function in roles:
        return roles[function].places
    if function == "when":
        return 1
    return 2 if function in FUNCTIONS else 0


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
