"""Lists as a use case: pin the world, list, cut into pages. A list is whole or an error; it never ends early in silence.

All pages of a list are of one world and one instant: both travel in the cursor. When the world moves on meanwhile, the next
page is refused and the list is asked for again, since no world holds the pages of two. The whole list is made for the first
page and kept for the next ones.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pdp import ask
from pdp.ask import Terms
from pdp.engine.cursor import Cursor, read_cursor, write_cursor
from pdp.errors import BadRequestError, PortcullisError, Reason
from pdp.limits import LISTS_KEPT, MAX_CLOCK_SKEW_S, MAX_PAGE, READY_STALENESS_S
from pdp.model.canonical import dumps
from pdp.model.listed import Listed
from pdp.model.names import Action, Resource
from pdp.model.request import Party
from pdp.ports import Clock
from pdp.replica import Replica
from pdp.world import World

_TURN: Final = 64
"""Candidates between two looks at the event loop: a list of 100,000 must not hold up decisions."""

_Key = tuple[bytes, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """Which page is wanted: at most `size` entries (0: as many as there may be), from `cursor` on (empty: from the start)."""

    size: int = 0
    cursor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some entries of a list of `total`; an empty `next_cursor` says that these were the last."""

    entries: tuple[Listed, ...]
    next_cursor: str
    world_seq: int
    total: int


class Lists:
    """Answers who can, what can and which actions from the replica of this process."""

    def __init__(self, *, replica: Replica, clock: Clock, secret: bytes) -> None:
        self._replica = replica
        self._clock = clock
        self._secret = secret
        self._kept: OrderedDict[_Key, tuple[Listed, ...]] = OrderedDict()

    async def who_can(self, action: Action, resource: Resource, terms: Terms, wanted: PageRequest) -> Page:
        """Return a page of those who can do `action` to `resource`.

        Raises:
            PortcullisError: no such action or resource, a cursor of another list or world, or a world that is stale.
        """
        query = {"list": "who-can", "action": str(action), "resource": str(resource), **_terms(terms)}
        return await self._page(
            query, wanted, lambda world, now_ms: ask.who_can(world, action, resource, now_ms, terms)
        )

    async def what_can(self, party: Party, terms: Terms, wanted: PageRequest) -> Page:
        """Return a page of what `party` can do, to every registered asset. Raises as `who_can`."""
        query = {"list": "what-can", **_party(party), **_terms(terms)}
        return await self._page(query, wanted, lambda world, now_ms: ask.what_can(world, party, now_ms, terms))

    async def actions(self, party: Party, resource: Resource, terms: Terms, wanted: PageRequest) -> Page:
        """Return a page of what `party` can do to `resource`. Raises as `who_can`."""
        query = {"list": "actions", "resource": str(resource), **_party(party), **_terms(terms)}
        return await self._page(query, wanted, lambda world, now_ms: ask.actions(world, party, resource, now_ms, terms))

    async def _page(self, query: Mapping[str, Any], wanted: PageRequest, make: "_Make") -> Page:
        if not 0 <= wanted.size <= MAX_PAGE:
            raise BadRequestError(f"a page has at most {MAX_PAGE} entries")
        world = self._replica.world
        start = self._start(world, query, wanted.cursor)
        whole = await self._whole((dumps(dict(query)), world.seq, start.now_ms), make(world, start.now_ms))
        if start.offset > len(whole):
            raise BadRequestError("a cursor beyond the end of its list; start from the first page")
        end = start.offset + (wanted.size or MAX_PAGE)
        following = Cursor(offset=end, world_seq=world.seq, now_ms=start.now_ms)
        return Page(
            entries=whole[start.offset : end],
            next_cursor=write_cursor(following, query=query, secret=self._secret) if end < len(whole) else "",
            world_seq=world.seq,
            total=len(whole),
        )

    def _start(self, world: World, query: Mapping[str, Any], cursor: str) -> Cursor:
        """Return where the page starts; the first one at the clock's now, all others at that of the first."""
        clock_ms, mono_s = self._clock.now_ms(), self._clock.mono_s()
        if self._replica.staleness_s(now_ms=clock_ms, mono_s=mono_s) > READY_STALENESS_S:
            raise PortcullisError(Reason.WORLD_STALE, "the world is stale; a list of it might no longer be true")
        if abs(self._replica.skew_s(now_ms=clock_ms, mono_s=mono_s)) > MAX_CLOCK_SKEW_S:
            raise PortcullisError(Reason.WORLD_STALE, "the clock is off: which roles are in force cannot be listed")
        if not cursor:
            return Cursor(offset=0, world_seq=world.seq, now_ms=self._replica.now_ms(clock_ms))
        found = read_cursor(cursor, query=query, secret=self._secret)
        if found.world_seq != world.seq:
            message = f"the list was of world {found.world_seq}, and this is {world.seq}"
            raise PortcullisError(Reason.CONFLICT, message, advice="start again from the first page")
        return found

    async def _whole(self, key: _Key, entries: Iterator[Listed | None]) -> tuple[Listed, ...]:
        if key not in self._kept:
            found = []
            for number, entry in enumerate(entries, start=1):
                if entry is not None:
                    found.append(entry)
                if number % _TURN == 0:
                    await asyncio.sleep(0)
            self._kept[key] = tuple(found)
            while len(self._kept) > LISTS_KEPT:
                self._kept.popitem(last=False)
        return self._kept[key]


class _Make(Protocol):
    """Makes the entries of a list of a world at an instant."""

    def __call__(self, world: World, now_ms: int) -> Iterator[Listed | None]: ...


def _party(party: Party) -> dict[str, Any]:
    return {"subject": str(party.principal), "groups": sorted(party.groups)}


def _terms(terms: Terms) -> dict[str, Any]:
    workload = "" if terms.anywhere else str(terms.workload or ask.NOWHERE)
    return {"attributes": dict(terms.attributes), "workload": workload}
