"""Role graphs: who stands for whom, closed once at compile time (CASBIN.md D-39 to D-45).

A section (`g`, `g2`, `g3`) is a graph of links. A link may belong to a domain, where `*` is every domain, and may have a
start and an end, both exclusive. Its left side may be a pattern (`workload:spiffe://prod.example/ns/web/**`,
`dataset/finance/*`), which is then a node of its own, found from a name through a trie.

For each name on a left side the compiler keeps a `Reach`: the names that it always stands for, and those that it stands
for between two instants. Reaches are kept for `*`, and for another domain only where they differ from that. So a decision
looks up each of the subject's names at most twice, unites a few shared frozensets, and compares instants only where there
are any. Nothing is inserted on lookup.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Final

from pdp.engine.casbin_text import OPEN, RoleDefinition, Row
from pdp.engine.findings import Finding
from pdp.engine.functions import ANY
from pdp.engine.patterns import covers, parse_time
from pdp.engine.role_closure import ALWAYS, FOREVER, TOO_DEAR, Closure, Link, Reach, Window, too_dear
from pdp.engine.tables import Table, Trie, is_pattern, split_version, table_of
from pdp.limits import MAX_CLOSURE_STEPS, ROLE_NODES_KEPT

_WITHOUT_DOMAIN: Final = 2
"""Names that a role row holds where there are no domains."""


class Timed(Enum):
    """How links with a start or an end count: by the clock; where that is not to be trusted, none of them, or all."""

    CLOCK = "clock"
    NONE = "none"
    ALL = "all"


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
    steps: int = 0
    """What closing it takes."""
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

    def ever(self, names: Iterable[str]) -> set[str]:
        """Return all that `names` stand for, themselves included, in some domain and at some time."""
        found = set(names)
        if not self.walked:
            reaches = (each[node] for each in self.reaches.values() for node in self.nodes(names) if node in each)
            return found.union(*((*reach.always, *(target for target, _ in reach.timed)) for reach in reaches))
        queue = list(found)
        for name in queue:
            further = {link.target for node in self.nodes((name,)) for link in self.links.get(node, ())} - found
            found |= further
            queue.extend(further)
        return found

    def windows(self, names: Iterable[str]) -> set[Window]:
        """Return each window within which `names` stand for something, in whichever domain, and not always."""
        if self.walked:
            return {link.window for links in self.links.values() for link in links} - {ALWAYS}
        nodes = tuple(self.nodes(names))
        found = (reaches[node] for reaches in self.reaches.values() for node in nodes if node in reaches)
        return {window for reach in found for _, window in reach.timed}

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
    walked = bool(definition.matches or definition.domain_matches)
    concerned = {} if walked else _concerned(links, plain=plain)
    domains = sorted({link.domain for each in links.values() for link in each} - (set() if plain else {ANY}))
    general: Closure | None = None
    steps = 0
    for domain in domains if plain else (ANY, *domains):
        only, base = concerned.get(domain), general if concerned and not plain else None
        closed = Closure(
            links, domain, first, found, plain=plain, definition=definition, only=only, base=base, spent=steps
        )
        general, steps = general or closed, closed.spent
        if not walked:
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
        steps=steps,
    )


def _concerned(links: Mapping[str, Sequence[Link]], *, plain: bool) -> dict[str, list[str]]:
    """Return, for each domain but `*`, the names that a link of it concerns: to look at all in each would be a square."""
    names: dict[str, list[str]] = {}
    for name, each in links.items():
        for domain in {link.domain for link in each} - (set() if plain else {ANY}):
            names.setdefault(domain, []).append(name)
    if plain:
        return names
    above = _above(links)
    return {domain: list(_reaching(above, those, {domain, ANY})) for domain, those in names.items()}


def _above(links: Mapping[str, Sequence[Link]]) -> dict[str, list[Link]]:
    """Return the links to each target that is, or may be, itself a name."""
    found: dict[str, list[Link]] = {}
    for each in links.values():
        for link in each:
            found.setdefault(link.target, []).append(link)
    return found


def _reaching(
    above: Mapping[str, Sequence[Link]], names: Iterable[str], domains: Collection[str] | None = None
) -> dict[str, None]:
    """Return `names` and all from which links, at whatever time, of `domains` or of all, lead to one of them."""
    found = dict.fromkeys(names)
    waiting = list(found)
    while waiting:
        for link in above.get(waiting.pop(), ()):
            if link.name not in found and (domains is None or link.domain in domains):
                found[link.name] = None
                waiting.append(link.name)
    return found


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
    touched = _below(graph, links, names)
    domains = {link.domain for link in (*gone, *new)}
    domains = {*graph.reaches, *domains} if ANY in domains else {ANY, *domains}
    reaches = dict(graph.reaches)
    shared: dict[Reach, Reach] = {}
    first = _Blamed(added[0] if added else None)
    first.update({(link.name, link.target): row for link, row in zip(new, added, strict=True)})
    steps = graph.steps
    for domain in domains:
        close_touched = partial(Closure, plain=False, definition=graph.definition, only=touched)
        before, closed = close_touched(graph.links, domain, first, []), close_touched(links, domain, first, found)
        steps += closed.steps(touched) - before.steps(touched)
        after = dict(closed.reaches(shared))
        known = dict(reaches.get(domain, {}))
        for name in touched:
            known.pop(name, None)
            if name in after:
                known[name] = after[name]
        reaches[domain] = known
    if steps > MAX_CLOSURE_STEPS and added and all(item.code != TOO_DEAR for item in found):
        found.append(too_dear(added[0]))
    named = any(":" not in name.partition("/")[0] for name in names)
    return replace(
        graph,
        reaches=reaches,
        links=links,
        patterns=_patterns(links) if any(is_pattern(name) for name in names) else graph.patterns,
        named_resources=any(":" not in name.partition("/")[0] for name in links) if named else graph.named_resources,
        general=reaches[ANY],
        targets=graph.targets | {link.target for link in new},
        steps=steps,
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


def _below(graph: RoleGraph, links: Mapping[str, Sequence[Link]], names: set[str]) -> list[str]:
    """Return `names` and all from which links lead to one of them, before the change or after it."""
    if not names & graph.targets:
        return sorted(names)
    found = _reaching(_above(links), sorted(names))
    return list(found | _reaching(_above(graph.links), sorted(names)))


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
