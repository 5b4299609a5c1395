"""What commands print: tables for people, JSON for programs. Colour only on a terminal."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

Style = str
ALLOW: Final[Style] = "bold green"
DENY: Final[Style] = "bold red"
WARN: Final[Style] = "yellow"
QUIET: Final[Style] = "dim"

STYLES: Final[Mapping[str, Style]] = {
    "allow": ALLOW, "ok": ALLOW, "passed": ALLOW, "deny": DENY, "error": DENY, "failed": DENY, "warning": WARN,
}  # fmt: skip


def on_terminal() -> bool:
    """True if standard output is a terminal."""
    return sys.stdout.isatty()


def write_json(value: Any) -> None:
    """Print one JSON value: on one line for programs, indented for somebody who looks."""
    indent = 2 if on_terminal() else None
    sys.stdout.write(json.dumps(value, indent=indent, ensure_ascii=False, default=_plain) + "\n")


def write_json_line(value: Any) -> None:
    """Print one JSON value of a stream on one line, at once."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=_plain) + "\n")
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple | frozenset | set):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def write_line(text: str = "") -> None:
    """Print a line, at once."""
    sys.stdout.write(safe(text) + "\n")
    sys.stdout.flush()


def write_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: ruled and coloured on a terminal, plain aligned columns otherwise, nothing ever cut off."""
    cells = [[safe(str(cell)) for cell in row] for row in rows]
    if on_terminal():
        _ruled(columns, cells)
    else:
        _aligned(columns, cells)


def write_fields(title: str, fields: Mapping[str, str]) -> None:
    """Print a title, and under it one line for each field that is not empty."""
    if on_terminal():
        _coloured(title)
    else:
        write_line(title)
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        if value:
            write_line(f"  {name:<{width}}  {value}")


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = [[column.upper() for column in columns], *rows]
    widths = [max(len(row[position]) for row in table) for position in range(len(columns))]
    for row in table:
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


def _ruled(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    # Imported where a person looks on: `rich` takes longer to load than most commands to answer.
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        # `Text` and not markup: a name in square brackets is a name.
        table.add_row(*(Text(cell, style=STYLES.get(cell, ""), overflow="fold") for cell in row))
    Console().print(table)


def _coloured(title: str) -> None:
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415

    word = safe(title)
    Console().print(Text(word, style=STYLES.get(word.partition(" ")[0].lower(), "bold")))


def safe(text: str) -> str:
    """Return `text` with control characters escaped: what a server or a log says must not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
