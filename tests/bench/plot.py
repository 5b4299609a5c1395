"""The flatness figure: time of one decision over the number of rules, both axes logarithmic, as one small SVG.

Drawn by hand: six lines on two axes are some forty lines of code. matplotlib would bring 60 MB, pygal scripts, a style sheet
that not every viewer reads, and no logarithmic axis for the number of rules. An SVG in a document runs nothing and needs no
font of its own.
"""

import re
from collections.abc import Iterator, Sequence
from math import log10
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from tests.bench.report import Figure

_NAME = re.compile(r"(\w+) (allow|deny), ([\d,]+)")
_COLOURS = {"portcullis": "#0b6e4f", "pycasbin": "#c1440e", "cedarpy": "#30638e"}
_WIDTH, _HEIGHT = 860, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 690, 50, 400
_RULES, _TIME_US = (1, 6), (0, 6)
"""Ends of the axes, as powers of ten: 10 to 1,000,000 rules, 1 us to 1 s."""
_TIMES = ("1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s")


def draw(figures: Sequence[Figure], path: Path) -> None:
    """Write the figure of all decisions among `figures` to `path`."""
    svg = Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img")
    svg.set("font-family", "system-ui, sans-serif")
    SubElement(svg, "title").text = "Time of one decision over the number of rules"
    SubElement(svg, "rect", width="100%", height="100%", fill="white")
    _text(svg, _LEFT, 26, "One decision in process, over the number of rules", size=17, anchor="start")
    for power in range(_RULES[0], _RULES[1] + 1):
        _line(svg, [(power, _TIME_US[0]), (power, _TIME_US[1])], colour="#e4e4e4", width=1)
        _text(svg, _x(power), _BOTTOM + 20, f"{10**power:,}")
    for power, label in enumerate(_TIMES):
        _line(svg, [(_RULES[0], power), (_RULES[1], power)], colour="#e4e4e4", width=1)
        _text(svg, _LEFT - 10, _y(power) + 4, label, anchor="end")
    _text(svg, (_LEFT + _RIGHT) / 2, _BOTTOM + 44, "rules, and as many assignments")
    for row, (engine, kind, points) in enumerate(_lines(figures)):
        dashes = {"stroke-dasharray": "7 4"} if kind == "deny" else {}
        _line(svg, points, colour=_COLOURS[engine], width=2.5, **dashes)
        for power, time in points:
            SubElement(svg, "circle", cx=f"{_x(power):.1f}", cy=f"{_y(time):.1f}", r="3.5", fill=_COLOURS[engine])
        height = _TOP + 14 + 24 * row
        stroke = {"stroke": _COLOURS[engine], "stroke-width": "2.5", **dashes}
        SubElement(svg, "path", d=f"M{_RIGHT + 20} {height} h34", **stroke)
        _text(svg, _RIGHT + 62, height + 5, f"{engine}, {kind}", anchor="start")
    indent(svg)
    ElementTree(svg).write(path, encoding="utf-8", xml_declaration=True)


def _lines(figures: Sequence[Figure]) -> Iterator[tuple[str, str, list[tuple[float, float]]]]:
    """Yield engine, kind and points of each line, in the order in which they were measured."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for figure in figures:
        match = _NAME.fullmatch(figure.name)
        if match is not None:
            place = (log10(int(match[3].replace(",", ""))), log10(figure.value))
            found.setdefault((match[1], match[2]), []).append(place)
    for (engine, kind), points in found.items():
        yield engine, kind, sorted(points)


def _x(power: float) -> float:
    return _LEFT + (power - _RULES[0]) / (_RULES[1] - _RULES[0]) * (_RIGHT - _LEFT)


def _y(power: float) -> float:
    return _BOTTOM - (power - _TIME_US[0]) / (_TIME_US[1] - _TIME_US[0]) * (_BOTTOM - _TOP)


def _line(svg: Element, points: Sequence[tuple[float, float]], *, colour: str, width: float, **style: str) -> None:
    places = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points)
    style = {"stroke": colour, "stroke-width": str(width), "fill": "none", **style}
    SubElement(svg, "polyline", points=places, **style)


def _text(svg: Element, x: float, y: float, text: str, *, size: int = 13, anchor: str = "middle") -> None:
    style = {"font-size": str(size), "text-anchor": anchor, "fill": "#333"}
    SubElement(svg, "text", x=f"{x:.1f}", y=f"{y:.1f}", **style).text = text
