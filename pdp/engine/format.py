"""The one way to write rows: a blank after each comma, quotes only where they are needed, nothing at the end of a line.

Lines stay where they are, comments and blank ones too: a row's name in answers and records is its file and line.
Law (tests/spec/test_format.py): reading what was formatted gives the rows that were there, and formatting it again nothing new.
"""

from pdp.engine.casbin_text import Model, Row, parse_rows, print_row


def format_rows(text: str, *, file: str, model: Model) -> str:
    """Return the text of a file of rows as it should stand; one with findings is returned as it is."""
    rows, found = parse_rows(text, file=file, model=model)
    if any(item.severity == "error" for item in found):
        return text
    by_line = {row.line: row for row in rows}
    lines = [_line(line, by_line.get(number)) for number, line in enumerate(text.split("\n"), start=1)]
    while lines and not lines[-1]:
        lines.pop()
    return "\n".join(lines) + "\n" if lines else ""


def _line(line: str, row: Row | None) -> str:
    return line.strip(" \t") if row is None else print_row(row)
