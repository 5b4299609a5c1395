"""The decision log in use: group commit for answers that wait, shipping of a chain to a PDP, and reading of all chains.

Theory of operation. All state lives on the event loop; one thread does the writing. While it writes a group, further
records collect, and together they are the next group: one fdatasync releases every answer that waits for it. To hand a group
to the thread and back costs more than a record does: with `gather_s` the next group waits a moment for as many callers as
the last one had, so that many share the cost and a lone caller never waits. A refusal never waits. An allow waits a bounded
time for room in the line, then as long for the disk, and is then refused; its record, if not yet taken by the thread, is
withdrawn. So callers who outrun the disk are slowed to its pace before any is refused.
When a group fails, refusals among it are kept and tried again while there is room, and what could not be kept is counted
in a `lost` record, so that silence never looks like peace (FAILURE.md S1, F8, F10, F29).
"""

import asyncio
import contextlib
import heapq
import json
import random
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from pdp.adapters.audit_file import AuditChain, segments
from pdp.adapters.audit_reader import ChainReader
from pdp.adapters.audit_received import ReceivedChain
from pdp.audit.chain import Link, Malformed
from pdp.audit.record import lost_record
from pdp.errors import PortcullisError, Reason
from pdp.limits import (
    AUDIT_CHECKPOINT_S,
    AUDIT_COMMIT_TIMEOUT_S,
    AUDIT_FOLLOW_S,
    AUDIT_GATHERED,
    AUDIT_RETRY_S,
    AUDIT_SHIP_LINGER_S,
    AUDIT_SHIP_RECORDS,
    MAX_AUDIT_WAITING,
    MAX_CHAINS,
    MAX_RPC_BYTES,
    RECONNECT_MAX_S,
    RECONNECT_MIN_S,
    TIMER_GRAIN_S,
)

Record = Mapping[str, Any]


class Chain(Protocol):
    """What the trail writes to; `adapters.audit_file.AuditChain` is one."""

    @property
    def name(self) -> str:
        """Its name, as its files have it."""
        ...

    @property
    def head(self) -> Link:
        """The last durable record."""
        ...

    @property
    def degraded(self) -> str:
        """What of the writing is weaker than it could be; empty: nothing."""
        ...

    def append(self, records: Sequence[Record]) -> Link:
        """Append durably or raise OSError; raise Malformed for what can never be written."""
        ...

    def close(self) -> None:
        """Release the chain."""
        ...


@dataclass(slots=True, eq=False)
class _Group:
    """Records of one caller; `done` is what the caller waits on, if it waits, and `until_s` how long, by the loop's time."""

    records: Sequence[Record]
    done: asyncio.Future[None] | None
    until_s: float

    @property
    def withdrawn(self) -> bool:
        """Whether nobody waits any more: the caller went away, or has been told that it took too long."""
        return self.done is not None and self.done.done()


class AuditTrail:
    """The audit port over a chain; made on a running loop and used from it alone."""

    def __init__(
        self,
        chain: Chain,
        *,
        now_ms: Callable[[], int],
        commit_timeout_s: float = AUDIT_COMMIT_TIMEOUT_S,
        max_waiting: int = MAX_AUDIT_WAITING,
        waits: bool = True,
        gather_s: float = 0.0,
    ) -> None:
        """Prepare; without `waits` a group asked to be durable is only put in line (a degradation, P13).

        `gather_s` is how long at most a group waits for as many callers as the last one had.
        """
        self._loop = asyncio.get_running_loop()
        self.link = chain.head
        self.name = chain.name
        self.last_error = ""
        self.written = 0
        self.failures = 0
        self.lost = 0
        self._chain = chain
        self._now_ms = now_ms
        self._timeout_s = commit_timeout_s
        self._max_waiting = max_waiting
        self._waits = waits
        self._gather_s = gather_s
        self._gathering: asyncio.TimerHandle | None = None
        self._callers = 0  # of the last group
        self._waiting: deque[_Group] = deque()
        self._taken: Sequence[_Group] = ()  # what the thread is writing; all of it older than what waits
        self._impatience: asyncio.TimerHandle | None = None
        self._size = 0
        self._outside = 0  # records that wait for room in the line
        self._unreported = 0
        self._busy = False
        self._retry: asyncio.TimerHandle | None = None
        self._signing: asyncio.TimerHandle | None = None
        self._grown = asyncio.Event()
        self._moved = asyncio.Event()  # the line became shorter, or the disk failed
        self._writer = _Writer()

    @property
    def head(self) -> bytes:
        """Digest of the last durable record."""
        return bytes.fromhex(self.link.digest)

    @property
    def degraded(self) -> str:
        """What of the writing is weaker than it could be, in words for the operator; empty: nothing."""
        return self.last_error or self._chain.degraded

    async def record(self, records: Sequence[Record], *, durable: bool) -> None:
        """Append one group of records; with `durable`, return only once they are on disk.

        Raises:
            PortcullisError: `audit_unavailable` if a durable group could not be written in time.
        """
        count = len(records)
        if durable and not self._fits(count):
            await self._room(count)
        refused = self._refused(count, durable=durable)
        if refused:
            self._lose(count)
            if durable:
                raise _unavailable(refused)
            return
        done = self._line_up(records, waits=durable and self._waits)
        if done is not None:
            await done  # cancelled or refused in time it withdraws the group, if the thread has not taken it

    async def grown(self, after: int) -> None:
        """Return once a record of a number above `after` is durable."""
        while self.link.n <= after:
            await self._grown.wait()

    async def close(self) -> None:
        """Write what waits, within the commit time, then release the chain and the thread."""
        done = self._line_up((), waits=True)
        with contextlib.suppress(PortcullisError):  # what could not be written has been counted
            if done is not None:
                await done
        for timer in (self._retry, self._signing, self._impatience, self._gathering):
            if timer is not None:
                timer.cancel()
        self._writer.submit(self._chain.close, lambda _result, _error: None)
        await self._writer.stop(self._timeout_s)

    def _fits(self, count: int) -> bool:
        return self._size + count <= self._max_waiting

    def _refused(self, count: int, *, durable: bool) -> str:
        """Why so many records cannot stand in line now; empty: they can."""
        if durable and not self._waits and self.last_error:
            # Nobody waits for a disk that works; from one that does not, no allow comes either way.
            return self.last_error
        return "" if self._fits(count) else "too many records wait for the decision log"

    async def _room(self, count: int) -> None:
        """Wait until so many records fit in line, no longer than a commit may take; for a disk that fails nobody waits."""
        if self._outside + count > self._max_waiting:
            return  # as many again wait already
        self._outside += count
        try:
            async with asyncio.timeout(self._timeout_s):
                while not (self.last_error or self._fits(count)):
                    await self._moved.wait()
        except TimeoutError:
            return  # refused, by whoever finds that there still is no room
        finally:
            self._outside -= count

    def _line_up(self, records: Sequence[Record], *, waits: bool) -> asyncio.Future[None] | None:
        """Put a group in line; returns what to wait on, if somebody does."""
        done = self._loop.create_future() if waits else None
        self._waiting.append(_Group(records, done, self._loop.time() + self._timeout_s))
        self._size += len(records)
        if waits and self._impatience is None:
            self._impatience = self._loop.call_later(self._timeout_s, self._refuse_late)
        self._kick()
        return done

    def _refuse_late(self) -> None:
        """Refuse whoever has waited too long. One timer for all: a timer for each was a twentieth of a decision's time."""
        self._impatience, now_s = None, self._loop.time() + TIMER_GRAIN_S
        for group in (*self._taken, *self._waiting):
            if group.done is None or group.done.done():
                continue
            if group.until_s > now_s:
                self._impatience = self._loop.call_at(group.until_s, self._refuse_late)
                return
            group.done.set_exception(_unavailable("the decision log did not take the record in time"))

    def _kick(self) -> None:
        """Begin the next group, at once or when enough have gathered."""
        if self._busy or not self._waiting:
            return
        if not self._gather_s or len(self._waiting) >= min(self._callers, AUDIT_GATHERED):
            self._begin()
        elif self._gathering is None:
            self._gathering = self._loop.call_later(self._gather_s, self._begin)

    def _begin(self) -> None:
        """Give all that waits to the thread."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        self._busy, self._callers = True, len(self._waiting)
        groups = [group for group in self._waiting if not group.withdrawn]
        self._lose(sum(len(group.records) for group in self._waiting if group.withdrawn))
        self._waiting.clear()
        self._taken, self._size = groups, 0
        self._tell_moved()
        told = self._unreported
        notice = [lost_record(time_ms=self._now_ms(), count=told)] if told else []
        self._writer.submit(
            lambda: _write(self._chain, notice, groups),
            lambda bad, error: _call(self._loop, self._finish, groups, told, bad, error),
        )

    def _finish(self, groups: list[_Group], told: int, bad: frozenset[int] | None, error: BaseException | None) -> None:
        self._busy, self._taken = False, ()
        if error is None:
            self._accept(groups, told, bad or frozenset())
            self._kick()
        else:
            self._fail(groups, error)

    def _accept(self, groups: list[_Group], told: int, bad: frozenset[int]) -> None:
        self.link = self._chain.head
        self.last_error = ""
        self._unreported -= told  # what was lost while this was being written waits for the next notice
        for position, group in enumerate(groups):
            if position in bad:
                self._lose(len(group.records))
                _settle(group, _unavailable("a record could not be written"))
            else:
                self.written += len(group.records)
                _settle(group, None)
        if self._signing is None and any(group.records for group in groups):
            self._signing = self._loop.call_later(AUDIT_CHECKPOINT_S, self._let_sign)
        self._grown.set()
        self._grown = asyncio.Event()

    def _let_sign(self) -> None:
        """Give the chain an empty group: it signs what is due, also while nobody asks anything."""
        self._signing = None
        self._line_up((), waits=False)

    def _fail(self, groups: list[_Group], error: BaseException) -> None:
        self.failures += 1
        self.last_error = f"the decision log cannot be written: {error}"
        self._tell_moved()
        for group in reversed(groups):
            if group.done is None and self._size + len(group.records) <= self._max_waiting:
                self._waiting.appendleft(group)
                self._size += len(group.records)
            else:
                self._lose(len(group.records))
                _settle(group, _unavailable("the decision log cannot be written"))
        if self._retry is not None:
            self._retry.cancel()
        self._retry = self._loop.call_later(AUDIT_RETRY_S, self._kick)

    def _tell_moved(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    def _lose(self, count: int) -> None:
        self.lost += count
        self._unreported += count


def _write(chain: Chain, notice: Sequence[Record], groups: Sequence[_Group]) -> frozenset[int]:
    """Write all groups as one; in the writer's thread. Return the groups that can never be written."""
    try:
        chain.append([*notice, *(record for group in groups for record in group.records)])
    except Malformed:
        return _write_apart(chain, notice, groups)
    return frozenset()


def _write_apart(chain: Chain, notice: Sequence[Record], groups: Sequence[_Group]) -> frozenset[int]:
    """Write group by group, so that one record that cannot be written does not take its neighbours along."""
    chain.append(notice)
    bad = set()
    for position, group in enumerate(groups):
        try:
            chain.append(group.records)
        except Malformed:
            bad.add(position)
    return frozenset(bad)


def _settle(group: _Group, error: PortcullisError | None) -> None:
    if group.done is None or group.done.done():
        return
    if error is None:
        group.done.set_result(None)
    else:
        group.done.set_exception(error)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop ended before the thread did: nobody waits any more
        loop.call_soon_threadsafe(function, *arguments)


def _unavailable(message: str) -> PortcullisError:
    return PortcullisError(Reason.AUDIT_UNAVAILABLE, message, advice="look at the PDP's readiness page and its disk")


class _Writer:
    """One daemon thread that runs jobs in order: a sink that blocks for ever does not keep the process."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Callable[[Any, BaseException | None], None]] | None]
        self._jobs = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        self._jobs.put((job, done))

    async def stop(self, timeout_s: float) -> None:
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join, timeout_s)

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            try:
                result = job()
            except Exception as error:  # noqa: BLE001 - outermost boundary: whatever failed, the group was not written
                done(None, error)
            else:
                done(result, None)


class AuditSink(Protocol):
    """Where a chain is shipped: `AuditService.Append` of a PDP."""

    async def append(self, chain: str, records: Sequence[bytes]) -> tuple[bytes, int]:
        """Store records of `chain` and return (digest, number) of the last one stored; with none, just tell.

        Raises:
            PortcullisError: they were not stored.
        """
        ...


class AuditShipper:
    """Ships this process's chain to its PDP, from the record after the last that the PDP acknowledged.

    The local files are the queue: nothing is lost while the PDP is away, and after a restart of either side the PDP is
    asked where it stands.
    """

    def __init__(
        self,
        *,
        trail: AuditTrail,
        chain: AuditChain,
        sink: AuditSink,
        pause: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self.acknowledged = Link(n=0, digest="")
        self.last_error = ""
        self._trail = trail
        self._name = chain.name
        self._reader = ChainReader(chain.directory, chain.name)
        self._sink = sink
        self._pause = pause
        self._moved = asyncio.Event()

    @property
    def behind(self) -> int:
        """Durable records that the PDP has not acknowledged."""
        return max(0, self._trail.link.n - self.acknowledged.n)

    async def run(self) -> None:
        """Ship until cancelled; failures are shown in `last_error` and tried again."""
        delay_s = RECONNECT_MIN_S
        while True:
            try:
                await self._ship()
            except PortcullisError as error:
                self.last_error = str(error)
            await self._pause(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            delay_s = RECONNECT_MIN_S if not self.last_error else min(delay_s * 2, RECONNECT_MAX_S)

    async def drained(self, timeout_s: float) -> bool:
        """Wait until everything durable is acknowledged; False if it was not in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.behind:
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    async def _ship(self) -> None:
        await self._send(())
        while True:
            await self._trail.grown(self.acknowledged.n)
            await self._pause(AUDIT_SHIP_LINGER_S)
            until = self._trail.link.n
            records = await asyncio.to_thread(
                self._reader.read,
                after=self.acknowledged.n,
                until=until,
                limit=AUDIT_SHIP_RECORDS,
                limit_bytes=MAX_RPC_BYTES // 4,
            )
            if not records:
                raise PortcullisError(Reason.STORE_UNAVAILABLE, f"record {self.acknowledged.n + 1} cannot be read")
            await self._send(records)

    async def _send(self, records: Sequence[bytes]) -> None:
        digest, stored = await self._sink.append(self._name, records)
        self.acknowledged = Link(n=stored, digest=digest.hex())
        self.last_error = ""
        self._moved.set()
        self._moved = asyncio.Event()


class AuditReceiver:
    """Keeps the chains that enforcement points ship to this PDP."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._chains: dict[tuple[str, str], ReceivedChain] = {}
        self._lock = asyncio.Lock()
        self._grown = asyncio.Event()

    async def append(self, *, owner: str, chain: str, records: Sequence[bytes]) -> Link:
        """Store records of the chain that `owner` calls `chain`; return its head.

        Raises:
            PortcullisError: `conflict`, `bad_request` or `store_unavailable`, as `ReceivedChain.append` says.
        """
        async with self._lock:
            stored = await self._chain(owner, chain)
            head = await asyncio.to_thread(stored.append, records)
        if records:
            self._grown.set()
            self._grown = asyncio.Event()
        return head

    async def grown(self) -> None:
        """Return when another record has come."""
        await self._grown.wait()

    async def close(self) -> None:
        """Release every chain."""
        async with self._lock:
            for chain in self._chains.values():
                chain.close()
            self._chains.clear()

    async def _chain(self, owner: str, chain: str) -> ReceivedChain:
        key = (owner, chain)
        if key not in self._chains:
            if len(self._chains) >= MAX_CHAINS:  # the oldest is opened again when it is needed
                self._chains.pop(next(iter(self._chains))).close()
            opened = await asyncio.to_thread(ReceivedChain, self.directory, owner=owner, chain=chain)
            self._chains[key] = opened
        return self._chains[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which records to read: of one chain (empty: all), since a time, the newest so many (0: all)."""

    chain: str = ""
    since_ms: int = 0
    last: int = 0


class AuditBook:
    """All chains this PDP holds, read as one: its own, those it received, and those of its other workers (`others`)."""

    def __init__(self, *, own: Path, trail: AuditTrail, received: AuditReceiver, others: Sequence[Path] = ()) -> None:
        self._own = own
        self._trail = trail
        self._received = received
        self._others = tuple(others)

    @property
    def directories(self) -> tuple[Path, ...]:
        """Where the chains lie."""
        return (self._own, self._received.directory, *self._others)

    async def read(self, query: Query, *, follow: bool = False) -> AsyncIterator[tuple[str, bytes]]:
        """Yield (chain, record) oldest first; with `follow`, go on with new records as they come."""
        own_n = self._trail.link.n
        grown = self._grown(own_n)
        readers: dict[str, ChainReader] = {}
        try:
            rows = await asyncio.to_thread(self._merged, query, readers, own_n)
            if query.last:
                rows = iter(await asyncio.to_thread(deque, rows, query.last))
            while chunk := await asyncio.to_thread(_chunk, rows):
                for row in chunk:
                    yield row
            while follow:
                await grown
                own_n = self._trail.link.n
                grown = self._grown(own_n)
                for row in await asyncio.to_thread(self._new, query, readers, own_n):
                    yield row
        finally:
            grown.cancel()

    def _grown(self, after: int) -> asyncio.Task[None]:
        """Return a task that ends when a chain has grown; made before reading, so that no growth is missed."""
        grown = [self._trail.grown(after), self._received.grown()]
        if self._others:  # another process tells nobody here that its chain has grown
            grown.append(asyncio.sleep(AUDIT_FOLLOW_S))
        return asyncio.create_task(_first(*grown))

    def _new(self, query: Query, readers: dict[str, ChainReader], own_n: int) -> list[tuple[str, bytes]]:
        return list(self._merged(query, readers, own_n))

    def _merged(self, query: Query, readers: dict[str, ChainReader], own_n: int) -> Iterator[tuple[str, bytes]]:
        """Return what all chains hold beyond `readers`, oldest first; read as it is taken, in whichever thread."""
        streams = []
        elsewhere = (self._received.directory, *self._others)
        for directory in (self._own, *elsewhere):
            for name in sorted({segment.chain for segment in segments(directory, query.chain)}):
                reader = readers.setdefault(name, ChainReader(directory, name))
                until = own_n if name == self._trail.name else sys.maxsize  # an earlier chain of ours has ended
                streams.append(_timed(name, reader.rest(until=until), query.since_ms))
        return ((name, content) for _, name, content in heapq.merge(*streams, key=lambda row: row[0]))


def _timed(name: str, contents: Iterator[bytes], since_ms: int) -> Iterator[tuple[int, str, bytes]]:
    for content in contents:
        time_ms = json.loads(content)["time_ms"]
        if time_ms >= since_ms:
            yield time_ms, name, content


def _chunk(rows: Iterator[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    return list(islice(rows, AUDIT_SHIP_RECORDS))


async def _first(*waits: Coroutine[Any, Any, None]) -> None:
    """Return when the first of `waits` does, and end the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
