"""How a role graph is closed, once at compile time, at a cost that is counted (CASBIN.md D-39 to D-42, FAILURE.md V8).

Theory of operation. Closing walks the links of one domain depth first and unites, for each name, what its targets stand for.
What that takes is the *steps*: one for a link and one for each name, or each window of a name, that it leads on to. They
are a property of the graph, not of the machine nor of the way that led to it: so a policy that is too dear is so for every
replica, and folded row by row as much as compiled whole. A clock would have one PDP take what another refuses.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pdp.engine.casbin_text import RoleDefinition, Row
from pdp.engine.findings import Finding
from pdp.engine.functions import ANY
from pdp.engine.patterns import covers
from pdp.limits import MAX_CLOSURE_STEPS, MAX_ROLE_DEPTH, TIMED_STEPS

TOO_DEAR: Final = "PC404"
FOREVER: Final = 1 << 62
"""Beyond any instant, in milliseconds."""


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


_Windows = dict[str, list[Window]]


@dataclass(frozen=True, slots=True, eq=False)
class _Closed:
    """What a name stands for, always and at times; its height; whether a link of the domain itself counts; what it took."""

    reach: Reach
    always: frozenset[str] = frozenset()
    timed: Mapping[str, Sequence[Window]] = field(default_factory=dict)
    height: int = 0
    special: bool = False
    steps: int = 0

    @property
    def width(self) -> int:
        """How many steps it takes to lead on from here."""
        return len(self.always) + TIMED_STEPS * sum(len(those) for those in self.timed.values())


_NOTHING: Final = _Closed(Reach(()))


class Closure:
    """The closure of one domain: links of the domain itself and of `*`.

    Args:
        links: every link of the section, by name.
        domain: the domain.
        first: the row of each link, for findings.
        found: where circles, chains that are too long, and a closure that is too dear are told.
        plain: domains are apart: links of `*` do not count in others.
        definition: the section.
        only: the names to close; all if None.
        base: the closure of `*`, where the names that are not among `only` are the same.
        spent: steps that other domains of the section have taken.
    """

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
        base: "Closure | None" = None,
        spent: int = 0,
    ) -> None:
        self._links = links
        self._domain = domain
        self._plain = plain
        self._definition = definition
        self._first = first
        self._found = found
        self._base: Mapping[str, _Closed] = base.closed if base else {}
        self._own = frozenset(only) if base and only is not None else None
        self.closed: dict[str, _Closed] = {}
        self._alike: dict[tuple[object, ...], _Closed] = {}
        """Most names are subjects with the same few roles: what they stand for is made once."""
        self.spent = spent
        for name in links if only is None else only:
            if self.spent > MAX_CLOSURE_STEPS:
                return
            if any(link.target in links for link in links.get(name, ())):
                self._close(name)
            else:
                # Most names are subjects, one link below a role that is no subject itself.
                self._finish(name)

    def reaches(self, shared: dict[Reach, Reach]) -> Iterator[tuple[str, Reach]]:
        """Yield each name with its reach; for a domain, only where a link of that domain takes part."""
        for name, closed in self.closed.items():
            if (closed.reach.always or closed.reach.timed) and self._counts(closed):
                yield name, shared.setdefault(closed.reach, closed.reach)

    def steps(self, names: Iterable[str] | None = None) -> int:
        """Return what closing took, of `names` or of all."""
        chosen = self.closed.values() if names is None else [self.closed.get(name, _NOTHING) for name in names]
        return sum(closed.steps for closed in chosen if self._counts(closed))

    def _counts(self, closed: _Closed) -> bool:
        return closed.special or self._plain or self._domain == ANY

    def _of(self, name: str) -> _Closed | None:
        found = self.closed.get(name)
        if found is None and self._own is not None and name not in self._own:
            return self._base.get(name, _NOTHING)
        return found

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
        while trail and self.spent <= MAX_CLOSURE_STEPS:
            name, rest = trail[-1]
            link = next(rest, None) if name not in self.closed else None
            if link is None:
                self._finish(name)
                trail.pop()
                on_trail.pop(name)
            elif link.target in on_trail:
                self._report_cycle(link, list(on_trail))
            elif self._of(link.target) is None:
                trail.append((link.target, iter(self._counting(link.target))))
                on_trail[link.target] = None

    def _finish(self, name: str) -> None:
        if name in self.closed:
            return
        links = self._counting(name)
        key = tuple((link.target, link.domain, link.window) for link in links)
        alike = self._alike.get(key)
        if alike is None:
            alike = self._alike[key] = self._united(name, links)
        elif alike.height == MAX_ROLE_DEPTH + 1:
            self._report_depth(name)
        self.closed[name] = alike
        self.spent += alike.steps
        if self.spent > MAX_CLOSURE_STEPS:
            self._found.append(too_dear(self._first[name, links[0].target]))

    def _united(self, name: str, links: Sequence[Link]) -> _Closed:
        """Return what `links` lead to, one after the other."""
        always: set[str] = set()
        timed: _Windows = defaultdict(list)
        height, special, steps = 0, False, 0
        for link in links:
            below = self._of(link.target) or _NOTHING
            height = max(height, below.height + 1)
            special = special or below.special or link.domain != ANY
            steps += 1
            if height > MAX_ROLE_DEPTH:
                # Refused anyway: a chain of ten thousand links must not cost ten thousand squared.
                continue
            if link.window == ALWAYS:
                steps += below.width
                always.add(link.target)
                always |= below.always
                for target, those in below.timed.items():
                    timed[target] += those
            else:
                steps += TIMED_STEPS * (1 + below.width)
                _add_within(timed, link, below)
        if height == MAX_ROLE_DEPTH + 1:
            self._report_depth(name)
        kept = {target: widest(those) for target, those in timed.items() if target not in always}
        kept = {target: those for target, those in kept.items() if those}
        reach = _reach(always, kept, links)
        return _Closed(reach, frozenset(always), kept, height, special, steps)

    def _report_cycle(self, link: Link, trail: list[str]) -> None:
        path = [*trail[trail.index(link.target) :], link.target]
        message = f"roles in a circle: {' -> '.join(path)}"
        self._found.append(self._first[link.name, link.target].problem("PC402", message, 0))

    def _report_depth(self, name: str) -> None:
        row = self._first[name, self._counting(name)[0].target]
        self._found.append(row.problem("PC401", f"more than {MAX_ROLE_DEPTH} links above `{name}`", 0))


def too_dear(row: Row) -> Finding:
    """Return the refusal of a section whose closure takes too many steps; `row` is where they were used up."""
    told = f"who stands for whom takes more than {MAX_CLOSURE_STEPS:,} steps: many names below many roles below many others"
    return row.problem(TOO_DEAR, told, 0)


def _add_within(timed: _Windows, link: Link, below: _Closed) -> None:
    """Add what a link with a start or an end leads to, for as long as it counts."""
    timed[link.target].append(link.window)
    for target in below.always:
        timed[target].append(link.window)
    for target, those in below.timed.items():
        timed[target] += [_both(window, link.window) for window in those]


def widest(windows: Sequence[Window]) -> tuple[Window, ...]:
    """Return the windows that are not empty and in no other, by their start."""
    kept: list[Window] = []
    for window in sorted(windows, key=lambda one: (one.start_ms, -one.end_ms)):
        if window.end_ms - window.start_ms >= 2 and (not kept or window.end_ms > kept[-1].end_ms):  # noqa: PLR2004 - both bounds are exclusive
            kept.append(window)
    return tuple(kept)


def _both(one: Window, other: Window) -> Window:
    return Window(max(one.start_ms, other.start_ms), min(one.end_ms, other.end_ms))


def _reach(always: set[str], timed: Mapping[str, Sequence[Window]], links: Sequence[Link]) -> Reach:
    at_times = tuple((target, window) for target in sorted(timed) for window in timed[target])
    direct = not at_times and {link.target for link in links if link.window == ALWAYS}.issuperset(always)
    return Reach(tuple(sorted(always)), at_times, direct)
