"""Finding decisions for auditors who ask over the network: a page at a time, newest first, through the index beside the chains.

The index is brought up to date by each question, in a thread; the first one after a long time takes the longest. A page ends at a
time and a count of records of that very millisecond: so the next one goes on there, also if the index was made anew meanwhile.
What comes back late (a sidecar that was away) may stand before where a list has come to: its reader starts again.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pdp.adapters.audit_index import AuditIndex, Hit
from pdp.audit.query import Wanted
from pdp.engine.cursor import Cursor, read_cursor, write_cursor
from pdp.errors import BadRequestError, ConfigError, PortcullisError, Reason
from pdp.limits import AUDIT_QUERY_LIMIT, MAX_AUDIT_PAGE, MAX_AUDIT_PAGE_BYTES, MAX_SAFE_INTEGER
from pdp.model.canonical import dumps_trusted


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """Decisions, newest first, and what was noted of the streams that they opened; `next_cursor` is empty on the last page."""

    hits: tuple[Hit, ...]
    events: tuple[Hit, ...]
    next_cursor: str


class AuditSearch:
    """Finds decisions in and below the directory of a PDP's decision log; `secret` seals the cursors."""

    def __init__(self, directory: Path, *, secret: bytes) -> None:
        self._directory = directory
        self._secret = secret
        self._one = asyncio.Lock()

    async def page(self, wanted: Wanted, *, size: int, cursor: str, events: bool) -> AuditPage:
        """Return a page of what is wanted.

        Args:
            wanted: which decisions.
            size: at most so many; 0: the usual number.
            cursor: where the page before ended; empty: from the newest.
            events: look for the streams of the decisions, too.

        Raises:
            BadRequestError: the page is too large, or the cursor is of another question.
            PortcullisError: `store_unavailable` if the log cannot be read.
        """
        if not 0 <= size <= MAX_AUDIT_PAGE:
            raise BadRequestError(f"a page has at most {MAX_AUDIT_PAGE} decisions")
        if max(wanted.world_seq, wanted.since_ms, wanted.until_ms) > MAX_SAFE_INTEGER:
            raise BadRequestError(f"a number is at most {MAX_SAFE_INTEGER}")
        query: dict[str, Any] = {"list": "audit", **asdict(wanted), "events": events}
        start = (
            read_cursor(cursor, query=query, secret=self._secret) if cursor else Cursor(offset=0, world_seq=0, now_ms=0)
        )
        narrowed = replace(wanted, until_ms=start.now_ms) if start.now_ms else wanted
        try:
            return await self._alone(
                partial(self._page, narrowed, query, start, size or AUDIT_QUERY_LIMIT, events=events)
            )
        except ConfigError as error:
            raise PortcullisError(Reason.STORE_UNAVAILABLE, f"the decision log cannot be searched: {error}") from error

    async def _alone(self, read: Callable[[], AuditPage]) -> AuditPage:
        """Read in a thread, one at a time: a second reader would only wait for the first one's index.

        INVARIANT: the next begins when the thread has ended, not when its caller has gone away. Else who asks and hangs up while
        an index is made would take every thread, also those that make new worlds.
        """
        await self._one.acquire()
        reading = asyncio.ensure_future(asyncio.to_thread(read))
        reading.add_done_callback(self._done)
        return await asyncio.shield(reading)

    def _done(self, reading: asyncio.Future[AuditPage]) -> None:
        self._one.release()
        if not reading.cancelled():
            reading.exception()  # whoever still waits has it too; if nobody does, it is no news to anybody

    def _page(self, wanted: Wanted, query: dict[str, Any], start: Cursor, size: int, *, events: bool) -> AuditPage:
        with AuditIndex.open(self._directory) as index:
            found = index.find(wanted, limit=size + 1, skip=start.offset)[::-1]
            hits = _fitting(found[:size])
            streams = index.events(hits) if events else []
        following = ""
        if len(hits) < len(found):
            following = write_cursor(_behind(hits, start), query=query, secret=self._secret)
        return AuditPage(hits=tuple(hits), events=tuple(streams), next_cursor=following)


def _fitting(hits: Sequence[Hit]) -> list[Hit]:
    """Return as many of `hits` as one message may hold: at least one."""
    size, fitting = 0, list[Hit]()
    for hit in hits:
        size += len(dumps_trusted(hit.record)) if hit.record else 0
        if fitting and size > MAX_AUDIT_PAGE_BYTES:
            break
        fitting.append(hit)
    return fitting


def _behind(hits: Sequence[Hit], start: Cursor) -> Cursor:
    """Return where the list goes on behind `hits`: at the time of the last one, past those of this time that were told."""
    last = hits[-1].time_ms
    told = sum(1 for hit in hits if hit.time_ms == last)
    return Cursor(offset=told + (start.offset if last == start.now_ms else 0), world_seq=0, now_ms=last)
