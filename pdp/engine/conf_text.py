"""`model.conf` as keys with values, each with its place: sections, comments, lines that go on in the next.

What a value means is `casbin_text.py`'s business. A value that ends with a backslash goes on in the following line, as in
pycasbin; where pycasbin would end it in silence (at a blank line or a comment), or take its rest for a section, it is refused.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pdp.engine.findings import Finding, finding, suggest

SECTIONS: Final = MappingProxyType(
    {
        "request_definition": "r",
        "policy_definition": "p",
        "role_definition": "g",
        "policy_effect": "e",
        "matchers": "m",
        "role_matching": "f",
    }
)
"""The sections, each with the letter that its keys begin with (those of `role_matching` are stored under `f`)."""
_KEY: Final = re.compile(r"([rpgem])([2-9]|[1-9][0-9])?")
_MATCHING_KEY: Final = re.compile(r"g([2-9]|[1-9][0-9])?(_domain)?")
_COMMENTS: Final = "#;"
_GOES_ON: Final = "\\"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One line, or several joined by backslashes: its text, and for each part where it begins in the text and in the file."""

    text: str
    parts: tuple[tuple[int, int, int], ...]

    @property
    def number(self) -> int:
        return self.parts[0][1]

    def problem(self, code: str, message: str, file: str) -> Finding:
        return finding(code, message, file=file, line=self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A key of `model.conf` with its value, and where each part of that stands."""

    key: str
    value: str
    line: int
    parts: tuple[tuple[int, int, int], ...]

    def place(self, at: int = 0) -> tuple[int, int]:
        """Return line and column of a character of the value."""
        start, line, column = next(part for part in reversed(self.parts) if part[0] <= at)
        return line, column + at - start


def read_entries(text: str, file: str, found: list[Finding]) -> dict[str, Entry]:
    """Return the entries of a model by key; what cannot be one is added to `found`."""
    entries: dict[str, Entry] = {}
    letter = ""
    for line in _lines(text, file, found):
        if line.text.lstrip().startswith("["):
            letter = _header(line, file, found)
        elif letter != "?":
            _read_entry(line, letter, file, entries, found)
    return entries


def _lines(text: str, file: str, found: list[Finding]) -> Iterator[_Line]:
    """Yield the lines that say something, continued ones joined by a blank."""
    held = _Line(text="", parts=())
    for number, raw in enumerate(text.split("\n"), start=1):
        stripped = raw.strip()
        if held.parts and stripped[:1] in {"", "[", *_COMMENTS}:
            message = f"`{_GOES_ON}` at the end of a line needs the rest of the value in the next"
            found.append(held.problem("PC201", message, file))
            held = _Line(text="", parts=())
        if stripped[:1] in {"", *_COMMENTS}:
            continue
        indent = len(raw) - len(raw.lstrip())
        part = (len(held.text), number, 1 + indent)
        if stripped.endswith(_GOES_ON):
            held = _Line(text=f"{held.text}{stripped[:-1].rstrip()} ", parts=(*held.parts, part))
        else:
            yield _Line(text=held.text + stripped, parts=(*held.parts, part))
            held = _Line(text="", parts=())
    if held.parts:
        found.append(held.problem("PC201", "the file ends in the middle of a value", file))


def _header(line: _Line, file: str, found: list[Finding]) -> str:
    """Return the letter of a section; an unknown one is reported, and its keys are then not looked at ("?")."""
    name = line.text.removeprefix("[").removesuffix("]").strip()
    letter = SECTIONS.get(name) if line.text.endswith("]") else None
    if letter is None:
        found.append(line.problem("PC203", f"no section `{name}`{suggest(name, SECTIONS)}", file))
    return letter or "?"


def _read_entry(line: _Line, letter: str, file: str, entries: dict[str, Entry], found: list[Finding]) -> None:
    key, equals, value = line.text.partition("=")
    start = len(key) + 1 + len(value) - len(value.lstrip())
    key, value = key.strip(), value.strip()
    match = (_MATCHING_KEY if letter == "f" else _KEY).fullmatch(key)
    if letter == "f" and match is not None:
        key = f"f{key}"
    if not equals or not value:
        found.append(line.problem("PC201", "a line is `key = value`", file))
    elif not letter:
        found.append(line.problem("PC104", "a key before the first section", file))
    elif match is None or (letter != "f" and match[1] != letter):
        found.append(line.problem("PC203", f"no key `{key}` in this section; it is `{letter}`, `{letter}2`, …", file))
    elif key in entries:
        found.append(line.problem("PC118", f"`{key}` is already defined in line {entries[key].line}", file))
    else:
        entries[key] = Entry(key=key, value=value, line=line.number, parts=tuple(_shifted(line, start)))


def _shifted(line: _Line, start: int) -> Iterator[tuple[int, int, int]]:
    """Yield the parts of a line as parts of its value, which begins at `start`."""
    for at, number, column in line.parts:
        if at >= start:
            yield at - start, number, column
        else:
            yield 0, number, column + start - at


def check_sets(entries: Mapping[str, Entry], file: str) -> Iterator[Finding]:
    """Check that each section is there, each set complete, and no number left out (D-05, D-09)."""
    for name, letter in SECTIONS.items():
        if letter not in {"g", "f"} and letter not in entries:
            yield finding("PC104", f"no `{letter}` in section `[{name}]`", file=file)
    for key, entry in entries.items():
        if key[0] == "f":
            continue
        number = int(key[1:] or 1)
        before = key[0] + ("" if number == 2 else str(number - 1))  # noqa: PLR2004 - `p`, then `p2`
        if number > 1 and before not in entries:
            yield finding("PC111", f"`{key}` without `{before}`", file=file, line=entry.line)
        for part in "rpem" if key[0] != "g" else "":
            if part + key[1:] not in entries and (part != key[0] and key[1:]):
                yield finding("PC103", f"`{key}` without `{part}{key[1:]}`", file=file, line=entry.line)
