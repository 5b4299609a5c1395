"""What our pages have in common: they load nothing, run nothing, and every name in them is text.

What stands in a log was partly written by whoever asked, an attacker included. So each text is escaped where it enters a page,
there is no script to confuse, and a page forbids itself anything but its own style sheet. They are read on wide and narrow
screens, light and dark, and on paper; no name, however long, pushes another out of sight.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from pdp.cli.output import safe

_KINDS: Final = {"allow": "allow", "deny": "deny", "cut": "deny"}
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2733; --soft: #5b6876; --line: #d7dde4; --allow: #1a7f4b; --deny: #c62f2f;
  --change: #6b4fc0; --back: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf1; --soft: #9aa7b5; --line: #36414d; --allow: #4cc38a;
  --deny: #ff6b6b; --change: #a891f0; --back: #161c23; } }
body { font: 14px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 1280px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; break-after: avoid; }
p { color: var(--soft); } .scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 12.5px; } tr { break-inside: avoid; }
th { text-align: left; color: var(--soft); font-weight: 600; white-space: nowrap; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem .3rem 0; vertical-align: top; }
td { max-width: 22rem; overflow-wrap: break-word; } td:first-child { min-width: 5.5rem; }
.allow { color: var(--allow); font-weight: 600; } .deny { color: var(--deny); font-weight: 600; }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --line: #bbb; --allow: #1a7f4b; --deny: #c62f2f;
  --change: #6b4fc0; --back: #fff; } body { margin: 0; max-width: none; } .scroll { overflow: visible; }
  table { font-size: 9px; } td { overflow-wrap: anywhere; } }
"""


def document(title: str, sections: Iterable[str], style: str = "") -> str:
    """Return a page; `sections` are markup already, the title is text."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{_STYLE}{style}</style></head>"
        f"<body><h1>{text(title)}</h1>{''.join(sections)}</body></html>\n"
    )


def text(shown: object) -> str:
    """Return text as a page may hold it: no markup, no control character, nothing that turns the direction of reading."""
    return escape(safe(str(shown)), quote=True)


def short(name: str, most: int) -> str:
    """Return a name without its middle, if it is long: names of one kind differ at the end."""
    if len(name) <= most:
        return name
    tail = (most - 1) // 2
    return f"{name[: most - 1 - tail]}…{name[-tail:]}"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, or nothing if there are no rows."""
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    if not body:
        return ""
    head = "".join(f"<th>{column}</th>" for column in columns)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(shown: str) -> str:
    kind = f' class="{_KINDS[shown]}"' if shown in _KINDS else ""
    return f"<td{kind}>{text(shown)}</td>"
