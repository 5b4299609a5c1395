"""A trace as one page, with a timeline."""

from collections.abc import Iterable, Sequence
from typing import Final

from pdp.cli.audit_trace import event_row, reach_rows, reasons, timeline_row, timeline_rows
from pdp.cli.options import instant_text
from pdp.cli.pages import document, short, table, text
from pdp.model.names import counted
from pdp.service.trace import Access, Trace

_WIDTH: Final = 1080
_LABEL: Final = 290
_RIGHT: Final = 30
_LANE: Final = 26
_TOP: Final = 34
_LANES: Final = 40
_LABEL_CHARS: Final = 40
_STYLE: Final = """
svg { width: 100%; min-width: 720px; height: auto; } svg text { font-size: 11px; fill: var(--ink); }
svg .soft { fill: var(--soft); } svg line { stroke: var(--line); }
svg .change { stroke: var(--change); stroke-dasharray: 3 3; } svg .changed { fill: var(--change); }
svg circle { stroke: var(--back); } svg .a { fill: var(--allow); } svg .d { fill: var(--deny); }
@media print { svg { min-width: 0; } }
"""


def page(told: Trace) -> str:
    """Return the page of a trace."""
    left_out = f" {counted(told.not_shown, 'older one is', 'older ones are')} left out." if told.not_shown else ""
    sections = [
        f"<p>{_summary(told.accesses)}{left_out}</p>",
        _timeline(told),
        _section("Accesses", ("time", "effect", "subject", "through", "action", "resource", "reason", "world"),
                 timeline_rows(told.accesses)),
        _section("Why: the rows that they stood on", ("row", "text", "brought by", "at", "approved by", "message"),
                 reasons(told.accesses)),
        _section("Lineage", ("asset", "comes from", "registered", "by", "entry"),
                 [(a.name, a.told, instant_text(a.time_ms), a.author, str(a.seq)) for a in told.lineage]),
        _section("Within reach, and not in this trace", ("subject", "world", "resource", "actions"), reach_rows(told)),
    ]  # fmt: skip
    return document(f"Trace of {told.name}", sections, _STYLE)


def _summary(accesses: Sequence[Access]) -> str:
    if not accesses:
        return "No decision in this log is about it. Names are compared letter by letter; what retention removed is not searched."
    allowed = sum(map(_allowed, accesses))
    return f"{counted(len(accesses), 'decision')}: {allowed} allowed, {len(accesses) - allowed} denied."


def _section(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    shown = table(columns, rows)
    return shown and f"<h2>{title}</h2>{shown}"


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
        _mark(at(event["time_ms"]), shown[r], " ".join(filter(None, event_row(a, event))))
        for a in told.accesses if (r := str(a.record["resource"])) in shown for event in a.events
    ]  # fmt: skip
    # Allowed ones last, and smaller: who is refused a hundred times in the same second covers nothing with it.
    parts += [
        _dot(at(a.record["time_ms"]), shown[r], a)
        for a in sorted(told.accesses, key=_allowed) if (r := str(a.record["resource"])) in shown
    ]  # fmt: skip
    ends = (
        f'<text class="soft" x="{_LABEL}" y="{height - 4}">{instant_text(first)}</text>'
        f'<text class="soft" x="{_WIDTH - _RIGHT}" y="{height - 4}" text-anchor="end">{instant_text(first + span)}</text>'
    )
    more = f"<p>{len(lanes) - _LANES} more resources are in the table.</p>" if len(lanes) > _LANES else ""
    drawing = f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Timeline">{"".join(parts)}{ends}</svg>'
    legend = "A dot is a decision, a bar the end of a stream, a dashed line a change of the policy that one stood on."
    return f'<h2>Timeline</h2><p>{legend}</p><div class="scroll">{drawing}</div>{more}'


def _lane(name: str, number: int) -> str:
    y = _TOP + number * _LANE
    return (
        f'<line x1="{_LABEL}" y1="{y}" x2="{_WIDTH - _RIGHT}" y2="{y}"/>'
        f'<text x="0" y="{y + 4}"><title>{text(name)}</title>{text(short(name, _LABEL_CHARS))}</text>'
    )


def _change(x: int, height: int, told: str) -> str:
    return (
        f'<g><title>{text(told)}</title><line class="change" x1="{x}" y1="12" x2="{x}" y2="{height - 18}"/>'
        f'<rect class="changed" x="{x - 4}" y="6" width="8" height="8"/></g>'
    )


def _mark(x: int, lane: int, told: str) -> str:
    y = _TOP + lane * _LANE
    return f'<rect class="d" x="{x - 2}" y="{y - 11}" width="4" height="22"><title>{text(told)}</title></rect>'


def _allowed(one: Access) -> bool:
    return bool(one.record["effect"] == "allow")


def _dot(x: int, lane: int, one: Access) -> str:
    kind, radius = ("a", 4) if _allowed(one) else ("d", 6)
    told = " ".join(part for part in timeline_row(one) if part)
    y = _TOP + lane * _LANE
    return f'<circle class="{kind}" cx="{x}" cy="{y}" r="{radius}"><title>{text(told)}</title></circle>'
