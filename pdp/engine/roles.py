"""Role graphs: who stands for whom, closed once at compile time (CASBIN.md D-39 to D-45).

A section (`g`, `g2`, `g3`) is a graph of links. A link may belong to a domain, where `*` is every domain, and may have a
start and an end, both exclusive. Its left side may be a pattern (`workload:spiffe://prod.example/ns/web/**`,
`dataset/finance/*`), which is then a node of its own, found from a name through a trie.

For each name on a left side the compiler keeps a `Reach`: the names that it always stands for, and those that it stands
for between two instants. Reaches are kept for `*`, and for another domain only where they differ from that. So a decision
looks up each of the subject's names at most twice, unites a few shared frozensets, and compares instants only where there
are any. Nothing is inserted on lookup.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from pdp.engine.casbin_text import OPEN, RoleDefinition, Row
from pdp.engine.findings import Finding
from pdp.engine.functions import ANY
from pdp.engine.index import Trie, is_pattern, split_version
from pdp.limits import MAX_ROLE_DEPTH
from pdp.model.attributes import instant_ms

FOREVER: Final = 1 << 62
"""Beyond any instant, in milliseconds."""


class Timed(Enum):
    """How links with a start or an end count: by the clock; where that is not to be trusted, none of them, or all."""

    CLOCK = "clock"
    NONE = "none"
    ALL = "all"


class Window(NamedTuple):
    """When a link counts: strictly after `start_ms` and strictly before `end_ms`."""

    start_ms: int
    end_ms: int


ALWAYS: Final = Window(-FOREVER, FOREVER)


@dataclass(frozen=True, slots=True)
class Link:
    """One role row: `name` stands for `target`, in `domain`, within `window`."""

    name: str
    target: str
    domain: str
    window: Window

    def holds(self, domain: str, now_ms: int) -> bool:
        """Tell whether the link counts in `domain` at `now_ms`."""
        return self.domain in (domain, ANY) and self.window.start_ms < now_ms < self.window.end_ms


@dataclass(frozen=True, slots=True)
class Reach:
    """What a name stands for: always, or within a window (a target may have several)."""

    always: frozenset[str]
    timed: tuple[tuple[str, Window], ...] = ()


NOTHING: Final = Reach(frozenset())

_Windows = dict[str, tuple[Window, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleGraph:
    """One role section, closed. `reaches` is by domain, then by name; `links` by name; `patterns` finds pattern nodes."""

    reaches: Mapping[str, Mapping[str, Reach]]
    links: Mapping[str, tuple[Link, ...]]
    patterns: Trie | None
    named_resources: bool
    timed: Timed = Timed.CLOCK

    def standing(self, names: Iterable[str], domain: str, now_ms: int) -> tuple[set[str], int | None]:
        """Return all that `names` stand for now, themselves included, and the next instant at which that may change."""
        found = set(names)
        until: int | None = None
        general = self.reaches[ANY]
        special = self.reaches.get(domain, general)
        for name in self.nodes(names):
            reach = special.get(name) or general.get(name)
            if reach is None:
                continue
            found |= reach.always
            if reach.timed:
                if self.timed is Timed.CLOCK:
                    until = _timed(reach, now_ms, found, until)
                elif self.timed is Timed.ALL:
                    found.update(target for target, _ in reach.timed)
        return found, until

    def nodes(self, names: Iterable[str]) -> Iterable[str]:
        """Return the nodes of the graph that may stand for `names`: themselves, unversioned, and patterns."""
        if not self.named_resources and self.patterns is None:
            return names
        return [node for name in names for node in self._nodes(name)]

    def _nodes(self, name: str) -> list[str]:
        base, version = split_version(name)
        nodes = [name, base] if version else [name]
        if self.patterns is not None:
            self.patterns.find(base.split("/"), version, nodes)
        return nodes

    def path(self, names: Sequence[str], target: str, domain: str, now_ms: int) -> tuple[str, ...]:
        """Return a shortest chain of links from one of `names` to `target` that holds now; empty if there is none."""
        for name in names:
            for link in self.links.get(name, ()):
                if link.target == target and link.holds(domain, now_ms):
                    return (name, target)
        return self._path(names, target, domain, now_ms)

    def _path(self, names: Sequence[str], target: str, domain: str, now_ms: int) -> tuple[str, ...]:
        if target in names:
            return (target,)
        queue: list[tuple[str, ...]] = [
            (name,) if node == name else (name, node) for name in names for node in self.nodes((name,))
        ]
        seen = {trail[-1] for trail in queue}
        for trail in queue:
            for link in self.links.get(trail[-1], ()):
                if not link.holds(domain, now_ms):
                    continue
                if link.target == target:
                    return (*trail, target)
                if link.target not in seen:
                    seen.add(link.target)
                    queue.append((*trail, link.target))
        return ()


def _timed(reach: Reach, now_ms: int, found: set[str], until: int | None) -> int | None:
    for target, (start_ms, end_ms) in reach.timed:
        change = None
        if now_ms <= start_ms:
            change = start_ms + 1
        elif now_ms < end_ms:
            found.add(target)
            change = end_ms
        if change is not None and change < FOREVER and (until is None or change < until):
            until = change
    return until


def close(rows: Iterable[Row], definition: RoleDefinition, found: list[Finding]) -> RoleGraph:
    """Return the closed graph of one section; cycles and chains that are too long are added to `found`."""
    links: dict[str, list[Link]] = {}
    first: dict[tuple[str, str], Row] = {}
    for row in rows:
        link = _link(row, definition)
        links.setdefault(link.name, []).append(link)
        first.setdefault((link.name, link.target), row)
    reaches: dict[str, dict[str, Reach]] = {ANY: {}}
    # A reach that many names share is kept once.
    shared: dict[Reach, Reach] = {}
    domains = sorted({link.domain for each in links.values() for link in each} - {ANY})
    for domain in (ANY, *domains):
        closed = _Closure(links, domain, first, found)
        reaches[domain] = dict(closed.reaches(shared))
    return RoleGraph(
        reaches=reaches,
        links={name: tuple(each) for name, each in links.items()},
        patterns=_patterns(links),
        named_resources=any(":" not in name.partition("/")[0] for name in links),
    )


def _link(row: Row, definition: RoleDefinition) -> Link:
    name, target, *rest = row.fields
    domain = rest[0] if definition.places > len(("name", "target")) else ANY
    start, end = row.fields[definition.places :] or (OPEN, OPEN)
    window = Window(
        -FOREVER if start == OPEN else instant_ms(start),
        FOREVER if end == OPEN else instant_ms(end),
    )
    return Link(name, target, domain, window)


def _patterns(names: Iterable[str]) -> Trie | None:
    trie = Trie()
    written = [name for name in names if is_pattern(name)]
    for name in written:
        values, key = trie.slot(name)
        values[key] = name
    return trie if written else None


class _Closure:
    """The closure of one domain: links of the domain itself and of `*`."""

    def __init__(
        self, links: Mapping[str, list[Link]], domain: str, first: Mapping[tuple[str, str], Row], found: list[Finding]
    ) -> None:
        self._links = links
        self._domain = domain
        self._first = first
        self._found = found
        self._closed: dict[str, tuple[_Windows, int, bool]] = {}
        """For each inner name: what it stands for and when, its height, and whether a link of the domain itself counts."""
        for name in links:
            self._close(name)

    def reaches(self, shared: dict[Reach, Reach]) -> Iterator[tuple[str, Reach]]:
        """Yield each name with its reach; for a domain, only where a link of that domain takes part."""
        for name, (windows, _, special) in self._closed.items():
            if windows and (special or self._domain == ANY):
                reach = _reach(windows)
                yield name, shared.setdefault(reach, reach)

    def _counting(self, name: str) -> list[Link]:
        return [link for link in self._links.get(name, ()) if link.domain in (self._domain, ANY)]

    def _close(self, start: str) -> None:
        """Close `start` and all below it, depth first, without recursion: a chain may be longer than Python's stack."""
        trail = [(start, iter(self._counting(start)))]
        on_trail = {start: None}
        while trail:
            name, rest = trail[-1]
            link = next(rest, None) if name not in self._closed else None
            if link is None:
                self._finish(name)
                trail.pop()
                on_trail.pop(name)
            elif link.target in on_trail:
                self._report_cycle(link, list(on_trail))
            elif link.target not in self._closed:
                trail.append((link.target, iter(self._counting(link.target))))
                on_trail[link.target] = None

    def _finish(self, name: str) -> None:
        if name in self._closed:
            return
        windows: _Windows = {}
        height, special = 0, False
        for link in self._counting(name):
            below, below_height, below_special = self._closed.get(link.target, ({}, 0, False))
            height = max(height, below_height + 1)
            special = special or below_special or link.domain != ANY
            if height > MAX_ROLE_DEPTH:
                # Refused anyway: a chain of ten thousand links must not cost ten thousand squared.
                continue
            _add(windows, link.target, link.window)
            for target, those in below.items():
                for window in those:
                    _add(windows, target, _both(window, link.window))
        if height == MAX_ROLE_DEPTH + 1:
            self._report_depth(name)
        self._closed[name] = (windows, height, special)

    def _report_cycle(self, link: Link, trail: list[str]) -> None:
        path = [*trail[trail.index(link.target) :], link.target]
        message = f"roles in a circle: {' -> '.join(path)}"
        self._found.append(self._first[link.name, link.target].problem("PC402", message, 0))

    def _report_depth(self, name: str) -> None:
        row = self._first[name, self._counting(name)[0].target]
        self._found.append(row.problem("PC401", f"more than {MAX_ROLE_DEPTH} links above `{name}`", 0))


def _both(one: Window, other: Window) -> Window:
    return Window(max(one.start_ms, other.start_ms), min(one.end_ms, other.end_ms))


def _add(windows: _Windows, target: str, window: Window) -> None:
    """Add a window to those of `target`, unless it is empty or within one that is there; drop those within it."""
    known = windows.get(target, ())
    if window.end_ms - window.start_ms < 2 or any(_both(window, other) == window for other in known):  # noqa: PLR2004 - both bounds are exclusive
        return
    windows[target] = (*(other for other in known if _both(window, other) != other), window)


def _reach(windows: _Windows) -> Reach:
    always = frozenset(target for target, those in windows.items() if ALWAYS in those)
    timed = tuple((target, window) for target in sorted(windows) if target not in always for window in windows[target])
    return Reach(always, timed)
