"""A trace as one page: it loads nothing, runs nothing, and every name in it is text.

What stands in a decision log was partly written by whoever asked, an attacker included. So each text is escaped where it enters
the page, there is no script to confuse, and the page forbids itself anything but its own style sheet.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from pdp.cli.audit_trace import event_row, reach_rows, reasons, timeline_row, timeline_rows
from pdp.cli.options import instant_text
from pdp.cli.output import safe
from pdp.service.trace import Access, Trace

_WIDTH: Final = 1080
_LABEL: Final = 290
_RIGHT: Final = 30
_LANE: Final = 26
_TOP: Final = 34
_LANES: Final = 40
_LABEL_CHARS: Final = 40
_KINDS: Final = {"allow": "allow", "deny": "deny", "cut": "deny"}
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2733; --soft: #5b6876; --line: #d7dde4; --allow: #1a7f4b; --deny: #c62f2f;
  --change: #6b4fc0; --back: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf1; --soft: #9aa7b5; --line: #36414d; --allow: #4cc38a;
  --deny: #ff6b6b; --change: #a891f0; --back: #161c23; } }
body { font: 14px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 1280px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { color: var(--soft); } table { border-collapse: collapse; width: 100%; font-size: 12.5px; }
th { text-align: left; color: var(--soft); font-weight: 600; } th, td { border-bottom: 1px solid var(--line);
  padding: .3rem .6rem .3rem 0; vertical-align: top; overflow-wrap: anywhere; }
th, td:first-child { white-space: nowrap; } td { min-width: 4rem; }
.allow { color: var(--allow); font-weight: 600; } .deny { color: var(--deny); font-weight: 600; }
svg { width: 100%; height: auto; } svg text { font-size: 11px; fill: var(--ink); } svg .soft { fill: var(--soft); }
svg line { stroke: var(--line); } svg .change { stroke: var(--change); stroke-dasharray: 3 3; }
svg .changed { fill: var(--change); } svg circle { stroke: var(--back); } svg .a { fill: var(--allow); }
svg .d { fill: var(--deny); }
"""


def page(told: Trace) -> str:
    """Return the page of a trace."""
    title = f"Trace of {_text(told.name)}"
    left_out = f" {told.not_shown} older ones are left out." if told.not_shown else ""
    sections = [
        f"<h1>{title}</h1><p>{_summary(told.accesses)}{left_out}</p>",
        _timeline(told),
        _section("Accesses", ("time", "effect", "subject", "through", "action", "resource", "reason", "world"),
                 timeline_rows(told.accesses)),
        _section("Why: the rows that they stood on", ("row", "text", "brought by", "at", "approved by", "message"),
                 reasons(told.accesses)),
        _section("Lineage", ("asset", "comes from", "registered", "by", "entry"),
                 [(a.name, a.told, instant_text(a.time_ms), a.author, str(a.seq)) for a in told.lineage]),
        _section("Within reach, and not in this trace", ("subject", "world", "resource", "actions"), reach_rows(told)),
    ]  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body>{''.join(sections)}</body></html>\n"
    )


def _text(text: object) -> str:
    """Return text as the page may hold it: no markup, no control character, nothing that turns the direction of reading."""
    return escape(safe(str(text)), quote=True)


def _summary(accesses: Sequence[Access]) -> str:
    allowed = sum(one.record["effect"] == "allow" for one in accesses)
    return f"{len(accesses)} decisions: {allowed} allowed, {len(accesses) - allowed} denied."


def _section(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    if not body:
        return ""
    head = "".join(f"<th>{column}</th>" for column in columns)
    return f"<h2>{title}</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str) -> str:
    kind = f' class="{_KINDS[text]}"' if text in _KINDS else ""
    return f"<td{kind}>{_text(text)}</td>"


def _timeline(told: Trace) -> str:
    """Draw a lane for each resource, a dot for each decision, and a line for each change that a decision stood on."""
    if not told.accesses:
        return ""
    lanes = list(dict.fromkeys(str(one.record["resource"]) for one in told.accesses))
    shown = {name: number for number, name in enumerate(lanes[:_LANES])}
    changes = {b.revision.seq: b.revision for one in told.accesses for b in one.because if b.revision is not None}
    times: list[int] = [one.record["time_ms"] for one in told.accesses]
    times += [event["time_ms"] for one in told.accesses for event in one.events]
    times += [change.time_ms for change in changes.values()]
    first, span = min(times), max(max(times) - min(times), 1)
    height = _TOP + len(shown) * _LANE + 22

    def at(time_ms: int) -> int:
        return _LABEL + (time_ms - first) * (_WIDTH - _LABEL - _RIGHT) // span

    parts = [_lane(name, number) for name, number in shown.items()]
    parts += [
        _change(at(one.time_ms), height, f"entry {one.seq}: {one.message} ({one.author})") for one in changes.values()
    ]
    parts += [
        _dot(at(a.record["time_ms"]), shown[r], a) for a in told.accesses if (r := str(a.record["resource"])) in shown
    ]
    parts += [
        _mark(at(event["time_ms"]), shown[r], " ".join(filter(None, event_row(a, event))))
        for a in told.accesses if (r := str(a.record["resource"])) in shown for event in a.events
    ]  # fmt: skip
    ends = (
        f'<text class="soft" x="{_LABEL}" y="{height - 4}">{instant_text(first)}</text>'
        f'<text class="soft" x="{_WIDTH - _RIGHT}" y="{height - 4}" text-anchor="end">{instant_text(first + span)}</text>'
    )
    more = f"<p>{len(lanes) - _LANES} more resources are in the table.</p>" if len(lanes) > _LANES else ""
    drawing = f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Timeline">{"".join(parts)}{ends}</svg>'
    legend = "A dot is a decision, a bar the end of a stream, a dashed line a change of the policy that one stood on."
    return f"<h2>Timeline</h2><p>{legend}</p>{drawing}{more}"


def _lane(name: str, number: int) -> str:
    y = _TOP + number * _LANE
    label = name if len(name) <= _LABEL_CHARS else name[: _LABEL_CHARS - 1] + "…"
    return (
        f'<line x1="{_LABEL}" y1="{y}" x2="{_WIDTH - _RIGHT}" y2="{y}"/>'
        f'<text x="0" y="{y + 4}"><title>{_text(name)}</title>{_text(label)}</text>'
    )


def _change(x: int, height: int, told: str) -> str:
    return (
        f'<g><title>{_text(told)}</title><line class="change" x1="{x}" y1="12" x2="{x}" y2="{height - 18}"/>'
        f'<rect class="changed" x="{x - 4}" y="6" width="8" height="8"/></g>'
    )


def _mark(x: int, lane: int, told: str) -> str:
    y = _TOP + lane * _LANE
    return f'<rect class="d" x="{x - 2}" y="{y - 7}" width="4" height="14"><title>{_text(told)}</title></rect>'


def _dot(x: int, lane: int, one: Access) -> str:
    kind = "a" if one.record["effect"] == "allow" else "d"
    told = " ".join(part for part in timeline_row(one) if part)
    return f'<circle class="{kind}" cx="{x}" cy="{_TOP + lane * _LANE}" r="5"><title>{_text(told)}</title></circle>'
