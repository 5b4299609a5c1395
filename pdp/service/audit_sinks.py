"""Copies of the decision log for other systems: each sink follows the chains with a cursor of its own.

Theory of operation. The chains are the queue. A sink is brought what follows its cursor, a batch at a time; when it has taken
it, the cursor moves, durably. So nothing is ever put aside in memory, deciding waits for no sink, one that is away for a day is
brought the day, and after a crash a batch may come twice. Only durable records are brought: what a sink holds stands in a
chain. What a sink must not see is masked on the way to it, whatever it is.
"""

import asyncio
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pdp.adapters.audit_file import segments
from pdp.adapters.audit_reader import ChainReader
from pdp.errors import PortcullisError
from pdp.limits import AUDIT_SHIP_RECORDS, AUDIT_SINK_BATCH_BYTES, AUDIT_SINK_IDLE_S, RECONNECT_MAX_S, RECONNECT_MIN_S

Batch = Sequence[tuple[str, Mapping[str, Any]]]
Shape = Callable[[str, Mapping[str, Any]], Mapping[str, Any] | None]
"""What a sink is shown of a chain's record; None: nothing."""


class Sink(Protocol):
    """Where records go."""

    @property
    def rejected(self) -> int:
        """Records that it has refused for good."""
        ...

    async def deliver(self, batch: Batch) -> None:
        """Take a batch whole.

        Raises:
            PortcullisError: it did not.
        """
        ...


class Cursor(Protocol):
    """How far a sink is in each chain."""

    def get(self, chain: str) -> int:
        """Return the number of the last record that was delivered."""
        ...

    def put(self, chain: str, n: int) -> None:
        """Remember it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Chains in one directory; `until` says how far each may be read: to its last durable record."""

    directory: Path
    until: Callable[[str], int]


class SinkFollower:
    """Brings one sink what the chains hold; `run` it, cancel it. Its counters are for whoever looks."""

    def __init__(
        self,
        *,
        name: str,
        sink: Sink,
        sources: Iterable[Source],
        cursor: Cursor,
        shape: Shape,
        pause: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self.name = name
        self.delivered = 0
        self.failures = 0
        self.last_error = ""
        self._sink = sink
        self._sources = tuple(sources)
        self._cursor = cursor
        self._shape = shape
        self._pause = pause
        self._readers: dict[tuple[Path, str], ChainReader] = {}

    @property
    def rejected(self) -> int:
        """Records that the sink has refused for good."""
        return self._sink.rejected

    @property
    def trouble(self) -> str:
        """What is wrong with it, in words for the operator; empty: nothing."""
        return f"the audit sink `{self.name}` does not take records: {self.last_error}" if self.last_error else ""

    def behind(self, chain: str, n: int) -> int:
        """Return how many of the `n` records of a chain it has not been brought."""
        return max(0, n - self._cursor.get(chain))

    async def run(self) -> None:
        """Bring records until cancelled; a sink that does not take them is tried again, later each time."""
        delay_s = RECONNECT_MIN_S
        while True:
            try:
                moved = await self.round()
            except (PortcullisError, OSError, ValueError) as error:
                self.failures += 1
                self.last_error = str(error)
                await self._pause(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
                delay_s = min(delay_s * 2, RECONNECT_MAX_S)
                continue
            self.last_error, delay_s = "", RECONNECT_MIN_S
            if not moved:
                await self._pause(AUDIT_SINK_IDLE_S)

    async def round(self) -> bool:
        """Bring one batch of each chain that has grown; tells whether any had.

        Raises:
            PortcullisError: the sink did not take a batch.
        """
        moved = False
        for source in self._sources:
            for chain in sorted({segment.chain for segment in await asyncio.to_thread(segments, source.directory)}):
                moved = await self._bring(source, chain) or moved
        return moved

    async def _bring(self, source: Source, chain: str) -> bool:
        after, until = self._cursor.get(chain), source.until(chain)
        if after >= until:
            return False
        reader = self._readers.setdefault((source.directory, chain), ChainReader(source.directory, chain))
        last, batch = await asyncio.to_thread(self._read, reader, chain, after, until)
        if last <= after:
            return False
        if batch:
            await self._sink.deliver(batch)
            self.delivered += len(batch)
        await asyncio.to_thread(self._cursor.put, chain, last)
        return True

    def _read(self, reader: ChainReader, chain: str, after: int, until: int) -> tuple[int, Batch]:
        """Return the number of the last record read, and what the sink is shown of those up to it."""
        contents = reader.read(after=after, until=until, limit=AUDIT_SHIP_RECORDS, limit_bytes=AUDIT_SINK_BATCH_BYTES)
        records = [json.loads(content) for content in contents]
        shown = [(chain, made) for record in records if (made := self._shape(chain, record)) is not None]
        return (int(records[-1]["n"]) if records else after), shown
