"""The traps that a Casbin policy contains: where pycasbin reads it in another sense than its author, or than we do.

Works on any text that pycasbin would load, also on models that our compiler refuses. Each trap has the number of its
divergence (CASBIN.md section 2), the code if there is one, its place, and our answer: refused, a warning, accepted with a
narrower (N) or wider (A) meaning, or a note about what only the running application can show.
"""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pdp.engine.casbin_codes import CODES, divergence_of
from pdp.engine.casbin_loose import Entry, LooseModel, LooseRow, read_model, read_rows
from pdp.engine.casbin_text import OPEN
from pdp.engine.expression import Call, Compare, Expression, ExpressionError, Field, Literal, parse, walk
from pdp.engine.findings import NAMES, WARNINGS
from pdp.engine.patterns import PatternError, parse_time
from pdp.engine.text import check_characters


class Answer(StrEnum):
    """What becomes of a text that holds a trap, when it is imported: some are refused that a compiler could read."""

    REFUSED = "refused"
    NARROWER = "narrower"
    WIDER = "wider"
    WARNED = "warned"
    NOTED = "noted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trap:
    """One trap at its place; `code` is empty where there is none."""

    file: str
    line: int
    column: int
    divergence: str
    code: str
    answer: Answer
    message: str

    @property
    def name(self) -> str:
        """The name of the code."""
        return NAMES.get(self.code, "")

    def __str__(self) -> str:
        told = " ".join(word for word in (self.divergence, self.code, self.name) if word)
        return f"{self.file}:{self.line}:{self.column}: {told}: {self.message} ({self.answer})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What the detectors look at: a model and rows, loosely read, and the texts that they come from."""

    model: LooseModel
    rows: tuple[LooseRow, ...]
    model_text: str
    rows_file: str
    rows_text: str

    def rows_of(self, section: str) -> tuple[LooseRow, ...]:
        """Return the rows of one type."""
        return tuple(row for row in self.rows if row.section == section)

    def matchers(self) -> Iterator[tuple[Entry, str]]:
        """Yield each matcher with the number of its set."""
        for key in self.model.keys("m"):
            yield self.model.entries[key], key[1:]

    def denies(self, row: LooseRow) -> bool:
        """Tell whether a row says `deny`."""
        names = self.model.columns(row.section)
        return "eft" in names and row.fields[names.index("eft") : names.index("eft") + 1] == ("deny",)


def read_files(model_text: str, policy_text: str, *, model_file: str, policy_file: str) -> Files:
    """Return a model and its rows as pycasbin takes them."""
    model = read_model(model_text.removeprefix("\ufeff"), file=model_file)
    return Files(
        model=model,
        # Rows for a model of ours are quoted as ours: pycasbin's way to split them is no trap of theirs.
        rows=read_rows(policy_text, file=policy_file, split=_as_ours if model.own else None),
        model_text=model_text,
        rows_file=policy_file,
        rows_text=policy_text,
    )


def _as_ours(line: str) -> list[tuple[str, int]]:
    """Split a line by RFC 4180, without the places; where it is none, our own reader says so."""
    cells = next(csv.reader([line], skipinitialspace=True), [line])
    return [(cell.strip(), 0) for cell in cells]


def at_code(code: str, message: str, *, file: str, line: int = 1, column: int = 1) -> Trap:
    """Return the trap that a code stands for."""
    answer = Answer.WARNED if code in WARNINGS else Answer.REFUSED
    return Trap(
        file=file, line=line, column=column, divergence=divergence_of(code), code=code, answer=answer, message=message
    )


def at_row(row: LooseRow, code: str, message: str, position: int = -1) -> Trap:
    """Return the trap that a code stands for, at a field of a row."""
    return at_code(code, message, file=row.file, line=row.line, column=row.column(position))


def accepted(divergence: str, answer: Answer, message: str, *, file: str, line: int = 1, column: int = 1) -> Trap:
    """Return a trap that has no code: the text is accepted, with another meaning or none that a file can show."""
    return Trap(file=file, line=line, column=column, divergence=divergence, code="", answer=answer, message=message)


def at_entry(model: LooseModel, entry: Entry, code: str, message: str, offset: int = 0) -> Trap:
    """Return the trap that a code stands for, at a key of the model."""
    return at_code(code, message, file=model.file, line=entry.line, column=entry.column + offset)


# --- the model -------------------------------------------------------------------------------------------------------

_EFFECTS: Final = frozenset(
    {
        "some(where(p.eft==allow))",
        "some(where(p.eft==allow))&&!some(where(p.eft==deny))",
        "priority(p.eft)||deny",
        "subjectPriority(p.eft)||deny",
    }
)
_DENY_OVERRIDE: Final = "!some(where(p.eft==deny))"
_STRING: Final = re.compile(r""""[^"\n]*"|'[^'\n]*'""")
_REWRITTEN: Final = re.compile(r"&&|\|\||!|#|\b[rp]\d*\.")


def _effects(files: Files) -> Iterator[Trap]:
    model = files.model
    first = model.entries.get("e")
    for key in model.keys("e"):
        entry = model.entries[key]
        if entry.flat == _DENY_OVERRIDE:
            yield at_entry(model, entry, "PC120", "whatever no deny row matches is allowed; a lost policy allows all")
        elif entry.flat not in _EFFECTS:
            yield at_entry(model, entry, "PC102", f"`{entry.value}` is no effect")
        elif first is not None and entry.flat != first.flat:
            message = f"pycasbin applies `e` in this context as well; here `{key}` counts, and answers change"
            yield accepted("D-05", Answer.WIDER, message, file=model.file, line=entry.line, column=entry.column)


def _sections(files: Files) -> Iterator[Trap]:
    model = files.model
    for name, line in model.unknown_headers:
        yield at_code("PC203", f"no section `[{name}]`; pycasbin passes over all of it", file=model.file, line=line)
    for letter in "rpem":
        if letter not in model.entries:
            yield at_code("PC104", f"no `{letter}`; pycasbin fails when it is asked", file=model.file)
    for entry in model.repeated:
        yield at_entry(model, entry, "PC118", f"`{entry.key}` is defined before; in pycasbin the last one wins")
    for key, entry in model.entries.items():
        number = int(key[1:]) if key[1:].isdigit() else 1
        before = key[0] + ("" if number <= 2 else str(number - 1))  # noqa: PLR2004 - `p`, then `p2`
        if number > 1 and before not in model.entries:
            yield at_entry(
                model, entry, "PC111", f"`{key}` without `{before}`: pycasbin stops before it, its rows vanish"
            )
        for part in "rpem" if key[1:] and key[0] in "rpem" else "":
            if part + key[1:] not in model.entries:
                yield at_entry(model, entry, "PC103", f"`{key}` without `{part}{key[1:]}`")


def _matchers(files: Files) -> Iterator[Trap]:
    for entry, suffix in files.matchers():
        yield from _literals(files.model, entry)
        try:
            tree = parse(entry.value)
        except ExpressionError as error:
            divergence = "" if error.code == "PC202" else divergence_of(error.code)
            at = at_entry(files.model, entry, error.code, error.message, error.at)
            yield Trap(
                file=at.file,
                line=at.line,
                column=at.column,
                divergence=divergence,
                code=error.code,
                answer=Answer.REFUSED,
                message=error.message,
            )
            continue
        yield from _values(files.model, entry, tree)
        yield from _fields(files.model, entry, tree, suffix)


def _literals(model: LooseModel, entry: Entry) -> Iterator[Trap]:
    for match in _STRING.finditer(entry.value):
        if _REWRITTEN.search(match[0]):
            message = f"pycasbin rewrites the text {match[0]}; here it means what it says"
            column = entry.column + match.start()
            yield accepted("D-19", Answer.WIDER, message, file=model.file, line=entry.line, column=column)


def _values(model: LooseModel, entry: Entry, tree: Expression) -> Iterator[Trap]:
    if isinstance(tree, Field) and tree.scope[0] == "r":
        message = "pycasbin raises unless this is true, false or a float; here only a truth value counts"
        yield accepted("D-20", Answer.NOTED, message, file=model.file, line=entry.line, column=entry.column)
    elif isinstance(tree, Field) or (isinstance(tree, Literal) and type(tree.value) is not bool):
        yield at_entry(model, entry, "PC205", "a matcher is true or false; this is a value", tree.at)
    for node in walk(tree):
        if isinstance(node, Compare):
            sides = (node.left, node.right)
            row = any(isinstance(side, Field) and side.scope[0] == "p" for side in sides)
            if row and any(isinstance(side, Literal) and type(side.value) is not str for side in sides):
                message = (
                    f"a field of a row is text: `{node.operator}` with a number never means a comparison of numbers"
                )
                yield at_entry(model, entry, "PC206", message, node.at)
        elif isinstance(node, Field) and node.rest:
            message = f"a request without `{'.'.join(node.rest)}` raises in pycasbin; here the row does not grant"
            column = entry.column + node.at
            yield accepted("D-24", Answer.NOTED, message, file=model.file, line=entry.line, column=column)


def _fields(model: LooseModel, entry: Entry, tree: Expression, suffix: str) -> Iterator[Trap]:
    for node in walk(tree):
        if isinstance(node, Field):
            known = model.columns(node.scope)
            if node.scope not in {f"r{suffix}", f"p{suffix}"} or node.name not in known:
                message = f"`{node.scope}.{node.name}` is not defined; pycasbin fails when it is asked"
                yield at_entry(model, entry, "PC203", message, node.at)
        elif isinstance(node, Call) and re.fullmatch(r"g\d*", node.function):
            places, _ = model.places(node.function)
            if places and len(node.arguments) != places:
                message = f"`{node.function}` takes {places} arguments, not {len(node.arguments)}"
                yield at_entry(model, entry, "PC202", message, node.at)


def _characters(files: Files) -> Iterator[Trap]:
    for file, text in ((files.model.file, files.model_text), (files.rows_file, files.rows_text)):
        for found in check_characters(text, file=file):
            told = found.message
            if text.startswith("\ufeff") and (found.line, found.column) == (1, 1):
                told += "; in pycasbin the first row vanishes"
                yield at_code("PC110", told, file=file)
            elif found.code in CODES:
                yield at_code(found.code, told, file=file, line=found.line, column=found.column)


# --- rows ------------------------------------------------------------------------------------------------------------


def _shapes(files: Files) -> Iterator[Trap]:
    model = files.model
    for row in files.rows:
        names = model.columns(row.section)
        places, conditions = model.places(row.section) if row.section[:1] == "g" else (0, 0)
        if row.section not in model.entries or row.section[:1] not in {"p", "g"}:
            yield at_row(row, "PC110", f"no row type `{row.section[:40]}` is defined; in pycasbin this row vanishes")
        elif row.section[0] == "p" and len(row.fields) != len(names):
            message = f"`{row.section}` has {len(names)} fields, this row {len(row.fields)}; pycasbin raises if it comes so far"
            yield at_row(row, "PC112", message)
        elif row.section[0] == "g" and len(row.fields) not in {places, places + conditions}:
            message = (
                f"`{row.section}` has {places} names, this row {len(row.fields)} fields; in pycasbin the rest is lost"
            )
            yield at_row(row, "PC113", message, min(places, len(row.fields) - 1))
        yield from _cells(row, names, model.may_be_blank(row.section))


def _cells(row: LooseRow, names: Sequence[str], may_be_blank: frozenset[str]) -> Iterator[Trap]:
    for position, value in enumerate(row.fields):
        if not row.text and value:  # not split by pycasbin: any text may stand here
            if not value.isprintable():
                yield at_row(row, "PC116", "a line break or control character: saved and loaded, a new rule", position)
            continue
        if '"' in value:
            message = "a quote stays in the value, and a quoted comma splits, in pycasbin; here it quotes"
            yield at_row(row, "PC114", message, position)
        elif re.search(r"\s#", value):
            yield at_row(row, "PC114", "the note behind `#` is part of the value in pycasbin", position)
        elif re.search(r"[\[(][^\])]*,|[\])]{2}", value):
            yield at_row(row, "PC114", "brackets swallow the comma in pycasbin; quote the value", position)
        elif not value and not may_be_blank.intersection(names[position : position + 1]):
            yield at_row(row, "PC115", "a blank field", position)
    if row.text.count("(") + row.text.count("[") < row.text.count(")") + row.text.count("]"):
        yield at_row(row, "PC114", "pycasbin raises at a bracket that nothing opens")


def _effect_cells(files: Files) -> Iterator[Trap]:
    for key in files.model.keys("p"):
        names = files.model.columns(key)
        if "eft" not in names:
            continue
        at = names.index("eft")
        for row in files.rows_of(key):
            if len(row.fields) == len(names) and row.fields[at] not in {"allow", "deny"}:
                message = f"`{row.fields[at]}` is no effect: in pycasbin this row does nothing"
                yield at_row(row, "PC101", message, at)


def _repeated(files: Files) -> Iterator[Trap]:
    seen: dict[tuple[str, tuple[str, ...]], LooseRow] = {}
    for row in files.rows:
        first = seen.setdefault((row.section, row.fields), row)
        if first is not row:
            yield at_row(row, "PC117", f"the same row as in line {first.line}")


def _emptiness(files: Files) -> Iterator[Trap]:
    if not files.rows_of("p"):
        message = "no `p` row: pycasbin asks the matcher about blanks, and may allow everyone"
        yield at_code("PC501", message, file=files.rows_file)


def _priorities(files: Files) -> Iterator[Trap]:
    for _, suffix in files.matchers():
        effect = files.model.entries.get(f"e{suffix}")
        section = f"p{suffix}"
        names = files.model.columns(section)
        if effect is None or section not in files.model.entries:
            continue
        if effect.flat.startswith("subjectPriority"):
            yield from _subject_priority(files, section, names)
        elif effect.flat.startswith("priority") and "priority" in names:
            yield from _explicit_priority(files, section, names)


def _explicit_priority(files: Files, section: str, names: tuple[str, ...]) -> Iterator[Trap]:
    at = names.index("priority")
    effects: dict[str, tuple[bool, LooseRow]] = {}
    for row in files.rows_of(section):
        value = row.fields[at] if at < len(row.fields) else ""
        if not re.fullmatch(r"\d{1,9}", value):
            how = "sorts as text" if re.fullmatch(r"-\d+", value) else "raises, or goes last,"
            answer = "PC140" if not re.fullmatch(r"-\d{1,9}", value) else ""
            message = f"the priority `{value}` {how} in pycasbin"
            if answer:
                yield at_row(row, answer, message, at)
            else:
                yield accepted("D-07", Answer.NOTED, message, file=row.file, line=row.line, column=row.column(at))
            continue
        denies = files.denies(row)
        other, first = effects.setdefault(value, (denies, row))
        if other is not denies:
            message = f"priority {value} both allows and denies (line {first.line}): the order in the file decides"
            yield at_row(row, "PC143", message, at)


def _subject_priority(files: Files, section: str, names: tuple[str, ...]) -> Iterator[Trap]:
    entry = files.model.entries[section]
    if "sub" not in names:
        yield at_entry(files.model, entry, "PC141", "subjectPriority ranks by the column `sub`, and there is none")
        return
    if names[0] != "sub":
        message = f"pycasbin ranks by column 0, here `{names[0]}`; here `sub` ranks, and answers change"
        yield accepted("D-08", Answer.WIDER, message, file=files.model.file, line=entry.line, column=entry.column)
    at = names.index("sub")
    known = {name for row in files.rows_of("g") for name in row.fields[:2]}
    for row in files.rows_of(section):
        if at < len(row.fields) and row.fields[at] not in known:
            yield at_row(
                row, "PC144", f"`{row.fields[at]}` stands in no role row: its level is 0, above all others", at
            )


# --- roles -----------------------------------------------------------------------------------------------------------

_DEPTH: Final = 9
"""Links over which pycasbin still inherits; it gives up at the tenth (D-39)."""


def _roles(files: Files) -> Iterator[Trap]:
    conditional = [key for key in files.model.keys("g") if files.model.places(key)[1]]
    for key in files.model.keys("g"):
        entry = files.model.entries[key]
        if conditional and key not in conditional:
            message = f"`{conditional[0]}` has conditions, so in pycasbin `{key}` only compares names"
            yield accepted("D-41", Answer.WIDER, message, file=files.model.file, line=entry.line, column=entry.column)
        yield from _graph(files, key)
        yield from _times(files, key)
    yield from _shared_names(files)


def _graph(files: Files, key: str) -> Iterator[Trap]:
    places, _ = files.model.places(key)
    above: dict[tuple[str, ...], dict[str, LooseRow]] = {}
    for row in files.rows_of(key):
        if len(row.fields) >= max(places, 2):
            name, target, *domain = row.fields[: max(places, 2)]
            above.setdefault((name, *domain), {})[target] = row
    for start in above:
        yield from _climb(start, above)


def _climb(start: tuple[str, ...], above: Mapping[tuple[str, ...], Mapping[str, LooseRow]]) -> Iterator[Trap]:
    """Walk up from one name, level by level, as pycasbin does; tell a circle back to it, and what lies too high."""
    domain = start[1:]
    level, seen = [start[0]], {start[0]}
    depth = 0
    while level:
        depth += 1
        following = []
        for name in level:
            for target, row in above.get((name, *domain), {}).items():
                if target == start[0]:
                    yield at_row(row, "PC402", f"roles in a circle through `{target}`", 1)
                if target in seen:
                    continue
                seen.add(target)
                following.append(target)
                if depth == _DEPTH + 1:
                    message = f"`{target}` lies {depth} links above `{start[0]}`: pycasbin does not inherit it, here it counts"
                    column = row.column(1)
                    yield accepted("D-39", Answer.WIDER, message, file=row.file, line=row.line, column=column)
        level = following


def _times(files: Files, key: str) -> Iterator[Trap]:
    places, conditions = files.model.places(key)
    if not conditions:
        return
    for row in files.rows_of(key):
        for position, value in enumerate(row.fields[places:], start=places):
            if value != OPEN:
                yield from local_time(row, position, value)
        if len(row.fields) > places:
            message = "in pycasbin this link counts until code attaches its condition, and again after each reload"
            yield accepted("D-42", Answer.NOTED, message, file=row.file, line=row.line)


def local_time(row: LooseRow, position: int, value: str) -> Iterator[Trap]:
    """Yield the trap of a time that pycasbin takes for local, or cannot read."""
    try:
        parse_time(value)
    except PatternError:
        yield at_row(row, "PC212", f"`{value}` is no instant in UTC", position)
        return
    if not value.endswith("Z"):
        message = f"pycasbin takes `{value}` for local time; here it is UTC"
        yield accepted("D-38", Answer.NOTED, message, file=row.file, line=row.line, column=row.column(position))


def _shared_names(files: Files) -> Iterator[Trap]:
    """Note once that names of roles are names that a user could bear."""
    for row in files.rows_of("g"):
        if len(row.fields) > 1 and ":" not in row.fields[1]:
            message = f"who logs in as `{row.fields[1]}` has that role in pycasbin; here such a subject is denied"
            yield accepted("D-44", Answer.NOTED, message, file=row.file, line=row.line, column=row.column(1))
            return


DETECTORS: Final[Sequence[Callable[[Files], Iterator[Trap]]]] = (
    _effects,
    _sections,
    _matchers,
    _shapes,
    _effect_cells,
    _repeated,
    _emptiness,
    _priorities,
    _roles,
    _characters,
)
"""What looks for traps outside of patterns."""
