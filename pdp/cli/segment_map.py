"""The map of segments as pictures: DOT for tools that lay out graphs, SVG to look at as it is."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from pdp.cli.pages import short, text
from pdp.model.names import NO_SEGMENT, counted
from pdp.reach import Hop, Terrain

_RADIUS: Final = (240, 46)
"""Of the circle: at least so much, and so much for each segment."""
_BOX: Final = (170, 58)
_MARGIN: Final = 150
_VERBS_SHOWN: Final = 2
_NAME_CHARS: Final = 19
_TIGHT: Final = 16
"""From so many characters on, a name is fitted to its box: sixteen wide letters are wider than that."""
_LABEL_CHARS: Final = 36
_TIP: Final = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 L8 4 L0 8 z" fill="#2f6f4f"/></marker></defs>'
)
_STYLE: Final = """
svg { max-width: 100%; height: auto }
text { font: 12px system-ui, sans-serif; fill: #1b2a3a; text-anchor: middle }
.name { font-weight: 600; font-size: 14px }
.note { fill: #52667a }
.box { fill: #f4f7fb; stroke: #4a6785; stroke-width: 1.5; rx: 8px }
.way { fill: none; stroke: #2f6f4f; stroke-width: 1.6 }
.maybe { stroke: #b0792a; stroke-dasharray: 6 4 }
.label { font-size: 11px; paint-order: stroke; stroke: #fff; stroke-width: 3px }
"""


def ways(terrain: Terrain) -> dict[tuple[str, str], tuple[Hop, ...]]:
    """Return for each pair of segments between which something passes its hops."""
    found: dict[tuple[str, str], list[Hop]] = {}
    for segment in terrain.segments:
        for hop in terrain.hops_from(segment):
            found.setdefault((segment, hop.to), []).append(hop)
    return {pair: tuple(hops) for pair, hops in found.items()}


def summary(hops: Sequence[Hop]) -> tuple[str, bool]:
    """Return the actions that pass as a row writes them, and whether any of them surely does."""
    by_type: dict[str, set[str]] = {}
    for hop in hops:
        for action in hop.actions:
            kind, _, verb = action.partition(".")
            by_type.setdefault(kind, set()).add(verb)
    parts = [f"{kind}.{_verbs(verbs)}" for kind, verbs in sorted(by_type.items())]
    return ", ".join(parts), any(not hop.depends_on for hop in hops)


def _verbs(verbs: set[str]) -> str:
    return "|".join(sorted(verbs)) if len(verbs) <= _VERBS_SHOWN else f"({counted(len(verbs), 'verb')})"


def dot(terrain: Terrain) -> str:
    """Return the map in the DOT language."""
    lines = ["digraph segments {", "  rankdir=LR; node [shape=box, style=rounded, fontname=Helvetica];"]
    lines += [
        f"  {_quoted(one)} [label={_quoted(one + chr(10) + _population(terrain, one))}];" for one in terrain.segments
    ]
    for (source, target), hops in ways(terrain).items():
        label, sure = summary(hops)
        style = "solid" if sure else "dashed"
        lines.append(f"  {_quoted(source)} -> {_quoted(target)} [label={_quoted(label)}, style={style}];")
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _population(terrain: Terrain, segment: str) -> str:
    workloads = len(terrain.workloads.get(segment, ()))
    assets = sum(segment in each for each in terrain.placed.values())
    return f"{counted(workloads, 'workload')}, {counted(assets, 'asset')}"


def svg(terrain: Terrain) -> str:
    """Return the map as one self-contained SVG: segments on a circle, what passes between them as arrows."""
    between = ways(terrain)
    shown = _shown(terrain, between)
    radius = max(_RADIUS[0], _RADIUS[1] * len(shown))
    places = _places(shown, radius)
    size = 2 * (radius + _MARGIN)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" width="{size}" height="{size}">',
        f"<title>What may reach what</title><style>{_STYLE}</style>",
        _TIP,
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    labels: list[str] = []
    for (source, target), hops in between.items():
        arrow, label = _arrow(places[source], places[target], *summary(hops))
        parts.append(arrow)
        labels.append(label)
    parts += [_box(one, _population(terrain, one), places[one]) for one in shown]
    parts += labels
    legend = "dashed: depends on what the question brings; grants are asked besides"
    told = legend if shown else "no segment has a workload or an asset in it"
    parts.append(f'<text class="note" x="{size / 2}" y="{size - 16}">{told}</text></svg>')
    return "\n".join(parts) + "\n"


def _shown(terrain: Terrain, between: Mapping[tuple[str, str], tuple[Hop, ...]]) -> list[str]:
    """Return the segments worth a box: `segment:none` only if something stands in it or passes there."""
    busy = {name for pair in between for name in pair} | set(terrain.workloads)
    busy |= {one for each in terrain.placed.values() for one in each}
    return [name for name in terrain.segments if name != NO_SEGMENT or name in busy]


def _places(segments: Sequence[str], radius: float) -> Mapping[str, tuple[float, float]]:
    middle = radius + _MARGIN
    count = max(1, len(segments))
    turn = [2 * math.pi * number / count - math.pi / 2 for number in range(count)]
    return {
        name: (middle + radius * math.cos(angle), middle + radius * math.sin(angle))
        for name, angle in zip(segments, turn, strict=False)
    }


def _box(name: str, note: str, at: tuple[float, float]) -> str:
    (x, y), (width, height) = at, _BOX
    shown = short(name.removeprefix("segment:"), _NAME_CHARS)
    fitted = f' textLength="{width - 16}" lengthAdjust="spacingAndGlyphs"' if len(shown) >= _TIGHT else ""
    return (
        f'<rect class="box" x="{x - width / 2:.0f}" y="{y - height / 2:.0f}" width="{width}" height="{height}"/>'
        f'<text class="name" x="{x:.0f}" y="{y - 4:.0f}"{fitted}><title>{text(name)}</title>{text(shown)}</text>'
        f'<text class="note" x="{x:.0f}" y="{y + 16:.0f}">{text(note)}</text>'
    )


def _arrow(source: tuple[float, float], target: tuple[float, float], label: str, sure: bool) -> tuple[str, str]:
    """Return the curve and, apart from it so that no curve crosses it, the label."""
    kind = "way" if sure else "way maybe"
    if source == target:
        x, y = source[0], source[1] - _BOX[1] / 2
        path = f"M{x - 30:.0f} {y:.0f} C{x - 60:.0f} {y - 70:.0f} {x + 60:.0f} {y - 70:.0f} {x + 30:.0f} {y:.0f}"
        at = (x, y - 56)
    else:
        (x1, y1), (x2, y2) = _edge(source, target), _edge(target, source)
        # Bent to one side, so that the way back does not lie on the way there.
        bend = ((x1 + x2) / 2 + (y2 - y1) * 0.14, (y1 + y2) / 2 - (x2 - x1) * 0.14)
        path = f"M{x1:.0f} {y1:.0f} Q{bend[0]:.0f} {bend[1]:.0f} {x2:.0f} {y2:.0f}"
        at = ((x1 + x2) / 4 + bend[0] / 2, (y1 + y2) / 4 + bend[1] / 2)
    curve = f'<path class="{kind}" d="{path}" marker-end="url(#tip)"/>'
    shown = f"<title>{text(label)}</title>{text(_label(label))}"
    return curve, f'<text class="label" x="{at[0]:.0f}" y="{at[1]:.0f}">{shown}</text>'


def _label(told: str) -> str:
    """Return what fits beside an arrow, in whole parts, and how many more there are: none is left out unsaid."""
    parts = told.split(", ")
    shown = parts[:1]
    while len(shown) < len(parts) and len(", ".join(parts[: len(shown) + 1])) <= _LABEL_CHARS:
        shown = parts[: len(shown) + 1]
    more = len(parts) - len(shown)
    return ", ".join(shown) + (f" +{more} more" if more else "")


def _edge(inside: tuple[float, float], towards: tuple[float, float]) -> tuple[float, float]:
    """Return where the line from the middle of a box to another leaves it."""
    dx, dy = towards[0] - inside[0], towards[1] - inside[1]
    scale = min(_BOX[0] / 2 / abs(dx) if dx else math.inf, _BOX[1] / 2 / abs(dy) if dy else math.inf)
    return inside[0] + dx * scale, inside[1] + dy * scale
