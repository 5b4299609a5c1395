"""Casbin's two formats as pycasbin reads them: whatever it takes, with the places. For finding traps, never for deciding.

The strict reader is `casbin_text.py`. This one never refuses: unknown sections are passed over, values may go on after a
backslash, a repeated key overrides, a comma within brackets does not split. What is doubtful about that is the business of
`casbin_traps.py`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

_LETTERS: Final = MappingProxyType(
    {
        "request_definition": "r",
        "policy_definition": "p",
        "role_definition": "g",
        "policy_effect": "e",
        "matchers": "m",
    }
)
_OWN: Final = re.compile(r"\b(?:when|actionMatch|resourceMatch|envMatch)\(")
_WHEN: Final = re.compile(r"\bwhen\(\s*p\d*\.(\w+)\s*\)")
_INTERESTING: Final = re.compile(r"[,\[\]()]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A key of a model file: its value, where that stands, and whether it overrides an earlier one."""

    key: str
    value: str
    line: int
    column: int
    again: bool = False

    @property
    def flat(self) -> str:
        """The value without blanks, its fields spelled with a dot and without a number."""
        return re.sub(r"\bp\d*[._]eft", "p.eft", self.value.replace(" ", ""))

    @property
    def names(self) -> tuple[str, ...]:
        """The value as a list of field names."""
        return tuple(name.strip() for name in self.value.split(","))


@dataclass(frozen=True, slots=True, kw_only=True)
class LooseModel:
    """What stands in a model file: entries by key, and headers that pycasbin passes over."""

    file: str
    entries: Mapping[str, Entry]
    repeated: tuple[Entry, ...] = ()
    unknown_headers: tuple[tuple[str, int], ...] = ()

    def keys(self, letter: str) -> tuple[str, ...]:
        """Return the keys of one section: `p`, `p2`."""
        return tuple(key for key in self.entries if key[0] == letter)

    def columns(self, section: str) -> tuple[str, ...]:
        """Return the names of the fields of a policy section; none if it is not defined."""
        entry = self.entries.get(section)
        return entry.names if entry else ()

    @property
    def own(self) -> bool:
        """Whether a matcher calls a function of ours: then the rows were written for our reader."""
        return any(_OWN.search(self.entries[key].value) for key in self.keys("m"))

    def may_be_blank(self, section: str) -> frozenset[str]:
        """Return the columns in which a blank means something: obligations, and what `when` is handed."""
        return frozenset({"then"}.union(*(_WHEN.findall(self.entries[key].value) for key in self.keys("m")))) & {
            *self.columns(section)
        }

    def places(self, section: str) -> tuple[int, int]:
        """Return how many names a role section has, and how many condition columns."""
        entry = self.entries.get(section)
        if entry is None:
            return 0, 0
        conditions = re.search(r"\((.*?)\)", entry.value)
        count = len(conditions[1].split(",")) if conditions else 0
        return len(entry.value.split(",")) - count, count


@dataclass(frozen=True, slots=True, kw_only=True)
class LooseRow:
    """A row as pycasbin splits it; `columns` is where each field starts."""

    section: str
    fields: tuple[str, ...]
    file: str
    line: int
    text: str = ""
    columns: tuple[int, ...] = field(default=(), compare=False)

    def column(self, position: int) -> int:
        """Return where a field starts; 1 if that is not known, as for a row that comes from an adapter."""
        return self.columns[position] if 0 <= position < len(self.columns) else 1


def read_model(text: str, *, file: str) -> LooseModel:
    """Return what pycasbin finds in a model file."""
    entries: dict[str, Entry] = {}
    repeated: list[Entry] = []
    headers: list[tuple[str, int]] = []
    letter = ""
    for number, column, line in _logical_lines(text):
        if line[:1] == "[" and line[-1:] == "]":
            name = line[1:-1]
            letter = _LETTERS.get(name, "")
            if not letter and name != "role_matching":  # a section of ours: pycasbin is told by code
                headers.append((name, number))
            continue
        key, equals, value = line.partition("=")
        if not letter or not equals or not key.strip().startswith(letter):
            continue
        at = column + len(key) + 1 + len(value) - len(value.lstrip())
        entry = Entry(key=key.strip(), value=value.strip(), line=number, column=at, again=key.strip() in entries)
        if entry.again:
            repeated.append(entry)
        entries[entry.key] = entry
    return LooseModel(
        file=file, entries=MappingProxyType(entries), repeated=tuple(repeated), unknown_headers=tuple(headers)
    )


def _logical_lines(text: str) -> Sequence[tuple[int, int, str]]:
    """Return number, first column and text of each line, continuations joined, comments and blanks left out."""
    lines: list[tuple[int, int, str]] = []
    held = ""
    start = 0
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        start = start or number
        if line.endswith("\\"):
            held += line[:-1].strip() + " "
            continue
        lines.append((start, 1 + len(raw) - len(raw.lstrip()), held + line))
        held, start = "", 0
    return lines


def read_rows(
    text: str, *, file: str, split: Callable[[str], list[tuple[str, int]]] | None = None
) -> tuple[LooseRow, ...]:
    """Return the rows that pycasbin splits a policy file into; `split` reads a line in another way."""
    rows = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        if not line or line[0] == "#":
            continue
        cells = (split or _split)(line)
        indent = 1 + len(raw) - len(raw.lstrip())
        (section, _), *rest = cells
        rows.append(
            LooseRow(
                section=section,
                fields=tuple(value for value, _ in rest),
                file=file,
                line=number,
                text="" if split else line,
                columns=tuple(indent + at for _, at in rest),
            )
        )
    return tuple(rows)


def _split(line: str) -> list[tuple[str, int]]:
    """Split at commas outside of brackets; a stray closer, at which pycasbin raises, is passed over."""
    cells: list[tuple[str, int]] = []
    depth = start = 0
    for match in _INTERESTING.finditer(line):
        if match[0] in "[(":
            depth += 1
        elif match[0] in "])":
            depth = max(0, depth - 1)
        elif not depth:
            cells.append(_cell(line, start, match.start()))
            start = match.end()
    cells.append(_cell(line, start, len(line)))
    return cells


def _cell(line: str, start: int, end: int) -> tuple[str, int]:
    raw = line[start:end]
    return raw.strip(), start + len(raw) - len(raw.lstrip())
