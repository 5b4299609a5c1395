"""Role graphs: who stands for whom, closed once at compile time (CASBIN.md D-39 to D-45).

A section (`g`, `g2`, `g3`) is a graph of links. A link may belong to a domain, where `*` is every domain, and may have a
start and an end, both exclusive. Its left side may be a pattern (`workload:spiffe://prod.example/ns/web/**`,
`dataset/finance/*`), which is then a node of its own, found from a name through a trie.

For each name on a left side the compiler keeps a `Reach`: the names that it always stands for, and those that it stands
for between two instants. Reaches are kept for `*`, and for another domain only where they differ from that. So a decision
looks up each of the subject's names at most twice, unites a few shared frozensets, and compares instants only where there
are any. Nothing is inserted on lookup.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Final, NamedTuple

from pdp.engine.casbin_text import OPEN, RoleDefinition, Row
from pdp.engine.findings import Finding
from pdp.engine.functions import ANY
from pdp.engine.patterns import covers, parse_time
from pdp.engine.tables import Table, Trie, is_pattern, split_version, table_of
from pdp.limits import MAX_ROLE_DEPTH, ROLE_NODES_KEPT

_WITHOUT_DOMAIN: Final = 2
"""Names that a role row holds where there are no domains."""
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


@dataclass(frozen=True, slots=True)
class Reach:
    """What a name stands for: always, or within a window (a target may have several)."""

    always: tuple[str, ...]
    """In order; a tuple, since most names hold one role, and a set of one takes four times its memory."""
    timed: tuple[tuple[str, Window], ...] = ()
    direct: bool = False
    """Whether every target is one link away, and none is timed: then the role path needs no search."""


_Windows = dict[str, tuple[Window, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleGraph:
    """One role section, closed. `reaches` is by domain, then by name; `links` by name; `patterns` finds pattern nodes."""

    reaches: Mapping[str, Mapping[str, Reach]]
    links: Mapping[str, tuple[Link, ...]]
    patterns: Trie | None
    named_resources: bool
    definition: RoleDefinition
    general: Mapping[str, Reach]
    """The reaches that hold in every domain."""
    loose: Table | None = None
    """Left sides by the model's own matching function (`[role_matching]`): such a graph is walked, not closed."""
    timed: Timed = Timed.CLOCK
    targets: frozenset[str] = field(default=frozenset(), repr=False, compare=False)
    """Right sides of links, also of links that are gone: a name that was never one has nobody below it."""
    walked: bool = field(init=False)
    """Whether links are followed at each decision, since a function of the model matches names or domains."""
    literal: bool = field(init=False)
    """Whether a name is its own and only node: no patterns, no versions."""

    _nodes: Callable[[str], tuple[str, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Remembered by name alone: the graph is of one world. Segmentation asks for the same two names three times in one
        # decision, and a sidecar for the same workload in each; a look-up in the trie takes 2.5 us.
        object.__setattr__(self, "_nodes", lru_cache(ROLE_NODES_KEPT)(partial(_nodes_of, self.patterns)))
        object.__setattr__(self, "walked", bool(self.definition.matches or self.definition.domain_matches))
        object.__setattr__(self, "literal", self.loose is None and not self.named_resources and self.patterns is None)

    def standing(self, names: Iterable[str], domain: str, now_ms: int) -> tuple[set[str], int | None]:
        """Return all that `names` stand for now, themselves included, and the next instant at which that may change."""
        if self.walked:
            return self._walk(names, domain, now_ms)
        found = set(names)
        until: int | None = None
        general = self.general
        special = self.reaches.get(domain, general)
        for name in names if self.literal else self.nodes(names):
            reach = special.get(name) or general.get(name)
            if reach is None:
                continue
            found.update(reach.always)
            if reach.timed:
                if self.timed is Timed.CLOCK:
                    until = _timed(reach, now_ms, found, until)
                elif self.timed is Timed.ALL:
                    found.update(target for target, _ in reach.timed)
        return found, until

    def windowed(self, names: Iterable[str], domain: str, now_ms: int) -> bool:
        """Tell whether a link with a start or an end, in whichever domain, leads on from what `names` stand for."""
        standing, _ = self.standing(names, domain, now_ms)
        return any(link.window != ALWAYS for node in self.nodes(standing) for link in self.links.get(node, ()))

    def _walk(self, names: Iterable[str], domain: str, now_ms: int) -> tuple[set[str], int | None]:
        """Follow links from `names`: patterns of names and of domains are too many to be closed beforehand."""
        found = set(names)
        queue = list(found)
        until: int | None = None
        for name in queue:
            for node in self.nodes((name,)):
                for link in self.links.get(node, ()):
                    if not self._in_domain(link, domain):
                        continue
                    change, holds = self._change(link.window, now_ms)
                    if change is not None and (until is None or change < until):
                        until = change
                    if holds and link.target not in found:
                        found.add(link.target)
                        queue.append(link.target)
        return found, until

    def _change(self, window: Window, now_ms: int) -> tuple[int | None, bool]:
        """Return when a window opens or closes next, and whether it holds; without a clock, as `timed` says."""
        if self.timed is Timed.CLOCK or window == ALWAYS:
            return _change(window, now_ms)
        return None, self.timed is Timed.ALL

    def _in_domain(self, link: Link, domain: str) -> bool:
        if link.domain == domain or (link.domain == ANY and self._everywhere()):
            return True
        matches = self.definition.domain_matches
        return bool(matches) and covers(matches, domain, link.domain) is True

    def _everywhere(self) -> bool:
        return not self.definition.plain or self.definition.places == _WITHOUT_DOMAIN

    def nodes(self, names: Iterable[str]) -> Iterable[str]:
        """Return the nodes of the graph that may stand for `names`: themselves, unversioned, and patterns."""
        if self.loose is not None:
            return [node for name in names for node in self._covering(name)]
        if self.literal:
            return names
        return [node for name in names for node in (self._nodes(name) if "/" in name else (name,))]

    def _covering(self, name: str) -> list[str]:
        found = [name]
        if self.loose is not None:
            self.loose.find(name, found)
        return list(dict.fromkeys(found))

    def path(self, names: Sequence[str], target: str, domain: str, now_ms: int) -> tuple[str, ...]:
        """Return a shortest chain of links from one of `names` to `target` that holds now; empty if there is none."""
        direct = () if self.walked else self._direct(names, target, domain)
        if direct:
            return direct
        for name in names:
            for link in self.links.get(name, ()):
                if link.target == target and self._holds(link, domain, now_ms):
                    return (name, target)
        return self._path(names, target, domain, now_ms)

    def _direct(self, names: Sequence[str], target: str, domain: str) -> tuple[str, ...]:
        """Return the path of one link, the usual one, without a look at the links; empty if it takes more to say."""
        special, general = self.reaches.get(domain, self.general), self.general
        for name in names:
            reach = special.get(name) or general.get(name)
            if reach is not None:
                if not reach.direct:
                    return ()
                if target in reach.always:
                    return (name, target)
        if self.literal or target in names:
            return ()
        for trail in ((name, node) for name in names for node in self._nodes(name) if node != name):
            reach = special.get(trail[1]) or general.get(trail[1])
            if reach is not None:
                if not reach.direct:
                    return ()
                if target in reach.always:
                    return (*trail, target)
        return ()

    def _holds(self, link: Link, domain: str, now_ms: int) -> bool:
        return self._in_domain(link, domain) and link.window.start_ms < now_ms < link.window.end_ms

    def _path(self, names: Sequence[str], target: str, domain: str, now_ms: int) -> tuple[str, ...]:
        if target in names:
            return (target,)
        queue: list[tuple[str, ...]] = [
            (name,) if node == name else (name, node) for name in names for node in self.nodes((name,))
        ]
        seen = {trail[-1] for trail in queue}
        for trail in queue:
            for link in self.links.get(trail[-1], ()):
                if not self._holds(link, domain, now_ms):
                    continue
                if link.target == target:
                    return (*trail, target)
                if link.target not in seen:
                    seen.add(link.target)
                    queue.append((*trail, link.target))
        return ()


def _nodes_of(patterns: Trie | None, name: str) -> tuple[str, ...]:
    base, version = split_version(name)
    nodes = [name, base] if version else [name]
    if patterns is not None:
        patterns.find(base.split("/"), version, nodes)
    return tuple(nodes)


def _timed(reach: Reach, now_ms: int, found: set[str], until: int | None) -> int | None:
    for target, window in reach.timed:
        change, holds = _change(window, now_ms)
        if holds:
            found.add(target)
        if change is not None and (until is None or change < until):
            until = change
    return until


def _change(window: Window, now_ms: int) -> tuple[int | None, bool]:
    """Return when a window opens or closes next, if ever, and whether it holds now."""
    if now_ms <= window.start_ms:
        return window.start_ms + 1, False
    holds = now_ms < window.end_ms
    return (window.end_ms if holds and window.end_ms < FOREVER else None), holds


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
    plain = definition.plain and definition.places > _WITHOUT_DOMAIN
    domains = sorted({link.domain for each in links.values() for link in each} - (set() if plain else {ANY}))
    for domain in domains if plain else (ANY, *domains):
        closed = _Closure(links, domain, first, found, plain=plain, definition=definition)
        if not definition.matches and not definition.domain_matches:
            reaches[domain] = dict(closed.reaches(shared))
    return RoleGraph(
        reaches=reaches,
        links={name: tuple(each) for name, each in links.items()},
        patterns=None if definition.plain else _patterns(links),
        named_resources=not definition.plain and any(":" not in name.partition("/")[0] for name in links),
        definition=definition,
        general=MappingProxyType({}) if plain else reaches[ANY],
        loose=_loose(links, definition.matches),
        targets=frozenset(link.target for each in links.values() for link in each),
    )


def changed(graph: RoleGraph, added: Sequence[Row], removed: Sequence[Row], found: list[Finding]) -> RoleGraph:
    """Return the graph of our own names after a change of rows, closed anew only for the names that it touches."""
    links = dict(graph.links)
    gone = [_link(row, graph.definition) for row in removed]
    new = [_link(row, graph.definition) for row in added]
    for link in gone:
        kept = list(links.get(link.name, ()))
        if link in kept:
            kept.remove(link)
        links[link.name] = tuple(kept)
    for link in new:
        links[link.name] = (*links.get(link.name, ()), link)
    names = {link.name for link in (*gone, *new)}
    links = {name: each for name, each in links.items() if each} if gone else links
    touched = _below(graph, names)
    domains = {link.domain for link in (*gone, *new)}
    domains = {*graph.reaches, *domains} if ANY in domains else {ANY, *domains}
    reaches = dict(graph.reaches)
    shared: dict[Reach, Reach] = {}
    first = _Blamed(added[0] if added else None)
    first.update({(link.name, link.target): row for link, row in zip(new, added, strict=True)})
    for domain in domains:
        closed = _Closure(links, domain, first, found, plain=False, definition=graph.definition, only=touched)
        after = dict(closed.reaches(shared))
        known = dict(reaches.get(domain, {}))
        for name in touched:
            known.pop(name, None)
            if name in after:
                known[name] = after[name]
        reaches[domain] = known
    named = any(":" not in name.partition("/")[0] for name in names)
    return replace(
        graph,
        reaches=reaches,
        links=links,
        patterns=_patterns(links) if any(is_pattern(name) for name in names) else graph.patterns,
        named_resources=any(":" not in name.partition("/")[0] for name in links) if named else graph.named_resources,
        general=reaches[ANY],
        targets=graph.targets | {link.target for link in new},
    )


class _Blamed(dict[tuple[str, str], Row]):
    """The row that a finding names; a link that was there before is blamed on what was added."""

    def __init__(self, fallback: Row | None) -> None:
        super().__init__()
        self._fallback = fallback

    def __missing__(self, key: tuple[str, str]) -> Row:
        if self._fallback is None:
            raise KeyError(key)
        return self._fallback


def _below(graph: RoleGraph, names: set[str]) -> list[str]:
    """Return `names` and all that stand for one of them, in any domain."""
    inner = names & graph.targets
    touched = dict.fromkeys(sorted(names))
    if inner:
        for each in graph.reaches.values():
            for name, reach in each.items():
                if not inner.isdisjoint(reach.always) or any(target in inner for target, _ in reach.timed):
                    touched[name] = None
    return list(touched)


def _loose(names: Iterable[str], function: str) -> Table | None:
    if not function:
        return None
    table = table_of(function)
    for name in names:
        table.put(name, name)
    return table


def _link(row: Row, definition: RoleDefinition) -> Link:
    name, target, *rest = row.fields
    domain = rest[0] if definition.places > _WITHOUT_DOMAIN else ANY
    return Link(name, target, domain, _window(row.fields[definition.places :]))


def _window(bounds: Sequence[str]) -> Window:
    """Return the window that a role row writes; nearly every one is the one that is always open."""
    start, end = bounds or (OPEN, OPEN)
    if start == end == OPEN:
        return ALWAYS
    return Window(-FOREVER if start == OPEN else parse_time(start), FOREVER if end == OPEN else parse_time(end))


def _patterns(names: Iterable[str]) -> Trie | None:
    trie = Trie()
    written = [name for name in names if is_pattern(name)]
    for name in written:
        trie.put(name, name)
    return trie if written else None


class _Closure:
    """The closure of one domain: links of the domain itself and of `*`."""

    def __init__(
        self,
        links: Mapping[str, Sequence[Link]],
        domain: str,
        first: Mapping[tuple[str, str], Row],
        found: list[Finding],
        *,
        plain: bool,
        definition: RoleDefinition,
        only: Iterable[str] | None = None,
    ) -> None:
        self._links = links
        self._domain = domain
        self._plain = plain
        self._definition = definition
        self._first = first
        self._found = found
        self._closed: dict[str, tuple[_Windows, int, bool]] = {}
        """For each inner name: what it stands for and when, its height, and whether a link of the domain itself counts."""
        for name in links if only is None else only:
            if any(link.target in links for link in links.get(name, ())):
                self._close(name)
            else:
                # Most names are subjects, one link below a role that is no subject itself.
                self._finish(name)

    def reaches(self, shared: dict[Reach, Reach]) -> Iterator[tuple[str, Reach]]:
        """Yield each name with its reach; for a domain, only where a link of that domain takes part."""
        for name, (windows, _, special) in self._closed.items():
            if windows and (special or self._plain or self._domain == ANY):
                reach = _reach(windows, self._counting(name))
                yield name, shared.setdefault(reach, reach)

    def _counting(self, name: str) -> list[Link]:
        links = self._links.get(name, ())
        matches = self._definition.domain_matches
        if matches:
            return [link for link in links if link.domain == self._domain or covers(matches, self._domain, link.domain)]
        if self._plain:
            return [link for link in links if link.domain == self._domain]
        return [link for link in links if link.domain in (self._domain, ANY)]

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


def _reach(windows: _Windows, links: Sequence[Link]) -> Reach:
    always = tuple(sorted(target for target, those in windows.items() if ALWAYS in those))
    timed = tuple((target, window) for target in sorted(windows) if target not in always for window in windows[target])
    direct = not timed and {link.target for link in links if link.window == ALWAYS}.issuperset(always)
    return Reach(always, timed, direct)
