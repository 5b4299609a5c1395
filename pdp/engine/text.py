"""Text before it means anything: decoding, the characters that no pack may hold, and places in it."""

import unicodedata
from collections.abc import Iterator

from pdp.engine.findings import Finding, finding
from pdp.limits import MAX_LINE_BYTES, MAX_PACK_FILE_BYTES

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that a reader cannot see: control, format (zero width, direction), surrogates, separators."""


def decode(raw: bytes, *, file: str) -> str | Finding:
    """Return the text of a file, which is UTF-8 without a byte-order mark and of bounded size."""
    if len(raw) > MAX_PACK_FILE_BYTES:
        return finding("PC506", f"a file of a pack has at most {MAX_PACK_FILE_BYTES} bytes", file=file)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        return finding("PC115", "not UTF-8", file=file, line=line, column=column)


def check_characters(text: str, *, file: str) -> Iterator[Finding]:
    """Yield a finding for the first bad character of each line, and one for each line that is too long.

    Bad is what a reader cannot see or would take for something else (CASBIN.md D-13): control and zero-width
    characters, a byte-order mark, carriage returns, text that is not in Unicode normal form C.
    """
    if text.isascii() and text.isprintable() and len(text) <= MAX_LINE_BYTES:
        return
    for number, line in enumerate(text.split("\n"), start=1):
        # One fast test clears almost every line; `isprintable` is false for all that is looked for, and for tabs.
        if line.isascii() and line.isprintable() and len(line) <= MAX_LINE_BYTES:
            continue
        yield from _check_line(line, file=file, number=number)


def _check_line(line: str, *, file: str, number: int) -> Iterator[Finding]:
    if len(line) > MAX_LINE_BYTES:
        yield finding("PC506", f"a line has at most {MAX_LINE_BYTES} bytes", file=file, line=number)
        return
    for column, character in enumerate(line, start=1):
        if character != "\t" and unicodedata.category(character) in _INVISIBLE:
            yield finding("PC115", _describe(character), file=file, line=number, column=column)
            return
    if not unicodedata.is_normalized("NFC", line):
        yield finding("PC115", "text is not in Unicode normal form C (NFC)", file=file, line=number)


def _describe(character: str) -> str:
    if character == "\ufeff":
        return "a byte-order mark; save the file as UTF-8 without one"
    if character == "\r":
        return "a carriage return; lines end in a line feed alone"
    return f"the invisible character U+{ord(character):04X}"
