"""The log as use cases: publishing a change, proving it fresh, following it. The theory stands in `pdp.trust.entry`.

A change becomes real in this order, and each step can fail without leaving a trace in the next: verify and fold it *before*
it is appended (a payload that makes no valid world never enters the log), append with compare-and-set, read it back,
persist, swap the reference, tell the followers.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pdp.errors import ConflictError, PortcullisError, Reason
from pdp.limits import CONFLICT_ATTEMPTS, HEARTBEAT_INTERVAL_S, LOG_READ_ENTRIES, STORE_RETRY_S
from pdp.ports import Clock, ReplicaStore, WorldLog
from pdp.replica import Prepared, Replica
from pdp.service.aside import prepare
from pdp.service.compact import Compactor
from pdp.service.follow import Follower, give_up, obtain_root, restore
from pdp.service.positions import Positions
from pdp.service.subscribers import Receipt, ReplicaInfo, Subscribers, Subscription
from pdp.trust.entry import Head, SignedEntry, SignedHeartbeat, peek_seq, seal_heartbeat, seal_next
from pdp.trust.keys import PdpKeys, RootFile, SigningKey
from pdp.trust.verifier import Fault, Refused

__all__ = [
    "Publisher", "HeartbeatLoop", "Replication",
    "Follower", "obtain_root", "restore",
    "Subscribers", "Subscription", "Receipt", "ReplicaInfo",
]  # fmt: skip

EntryListener = Callable[[SignedEntry, int, float], None]
"""Called with an entry in force, its number, and the monotonic time in seconds at which its write was accepted."""

_CALLERS_FAULTS: Final = {Fault.FOLD_REFUSED, Fault.OVERSIZED}
_LARGE: Final = {"policy", "assets"}
"""Kinds of entries whose payload may be large."""


class Publisher:
    """The one writer of a PDP's replica: from its own changes and from those of others in the same log.

    Args:
        log: the world log.
        replica: the mutable cell of this process.
        keys: the PDP's online keys.
        clock: wall and monotonic time.
        store: what this PDP keeps for itself, with the high-water mark; None only in tests.
    """

    def __init__(
        self, log: WorldLog, replica: Replica, keys: PdpKeys, clock: Clock, store: ReplicaStore | None = None
    ) -> None:
        self._log = log
        self._replica = replica
        self._keys = keys
        self._clock = clock
        self._store = store
        self._lock = asyncio.Lock()
        self._listeners: list[EntryListener] = []
        self._under_way: set[asyncio.Task[int]] = set()

    def on_entry(self, listener: EntryListener) -> None:
        """Call `listener` with every entry that comes into force."""
        self._listeners.append(listener)

    async def publish(self, kind: str, payload: Any, *, author: str, expected_seq: int | None = None) -> int:
        """Make a change real; returns its number once it is durable, read back and in force here.

        Once begun it is carried to its end, whether or not its caller still waits: a call that is cancelled between the log
        and our own world would leave us behind an entry that we wrote, with nothing to vouch for. One begins at a time; who
        goes away before has written nothing, and leaves nothing behind a slow store.

        Args:
            kind: the kind of entry (`policy`, `assets`, `lock`, `unlock`).
            payload: its canonical-JSON value.
            author: who asked for it; stands inside the signed bytes.
            expected_seq: the world that the payload was computed on; None if it depends on none.

        Raises:
            ConflictError: another change came first; nothing was written.
            PortcullisError: `policy_refused` if the change makes no valid world, `store_unavailable` if the log failed;
                then it may or may not have been written, and the next look at the log tells.
        """
        await self._lock.acquire()
        task = asyncio.create_task(self._published(kind, payload, author, expected_seq))
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    async def publish_behind(self, kind: str, payload: Any, *, author: str) -> int:
        """Publish as `publish`, behind whatever comes first: for what depends on no world, and a revocation must not wait.

        Raises:
            ConflictError: too many changes came first, one after the other.
        """
        for _ in range(CONFLICT_ATTEMPTS - 1):
            with contextlib.suppress(ConflictError):  # what came first has been taken in
                return await self.publish(kind, payload, author=author)
        return await self.publish(kind, payload, author=author)

    def _done(self, task: asyncio.Task[int]) -> None:
        self._lock.release()
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # whoever still waits has it too; if nobody does, it is no news to anybody

    async def finish(self) -> None:
        """Return when what has begun is carried to its end."""
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _published(self, kind: str, payload: Any, author: str, expected_seq: int | None) -> int:
        """Publish; the lock is held, and let go when this has ended."""
        if expected_seq not in (None, self._replica.world.seq):
            raise ConflictError(self._replica.world.seq)
        if self._replica.world.seq < self._replica.mark:  # a number that was used would be used for something else
            advice = "put back what is missing: `pdp log recover`"
            raise PortcullisError(Reason.STORE_UNAVAILABLE, _below_mark(self._replica), advice=advice)
        entry, prepared = await self._prepare(kind, payload, author)
        try:
            await self._log.append(entry, seq=prepared.seq, prev=prepared.base.head)
        except ConflictError:
            await self._read_log()
            raise
        accepted_mono_s = self._clock.mono_s()
        await self._read_back(entry, prepared.seq)
        await self._settle(entry, prepared, accepted_mono_s)
        return prepared.seq

    @property
    def log(self) -> WorldLog:
        """The log that is written, to read what stands in it."""
        return self._log

    async def _prepare(self, kind: str, payload: Any, author: str) -> tuple[SignedEntry, Prepared]:
        """Seal the successor of our head and fold it, before anyone else sees it."""
        now_ms = self._clock.now_ms()
        sealing = partial(
            seal_next,
            tenant=self._replica.world.tenant,
            head=self._replica.head,
            kind=kind,
            payload=payload,
            author=author,
            time_ms=self._replica.now_ms(now_ms),
            keys=(self._keys.publish,),
        )
        # Spelling out and hashing 100,000 rows takes a second, a lock nothing.
        entry = await asyncio.to_thread(sealing) if kind in _LARGE else sealing()
        prepared = await prepare(self._replica, entry, now_ms=now_ms)
        if isinstance(prepared, Refused):
            reason = Reason.POLICY_REFUSED if prepared.reason in _CALLERS_FAULTS else Reason.INTERNAL_ERROR
            raise PortcullisError(reason, prepared.detail, advice=_advice(prepared))
        return entry, prepared

    async def _read_back(self, entry: SignedEntry, seq: int) -> None:
        """Success follows only what the store shows (FAILURE.md S5): a store that answers and forgets is found out."""
        stored = await self._log.read(after=seq - 1, limit=1)
        if list(stored) != [entry]:
            raise PortcullisError(Reason.STORE_UNAVAILABLE, f"the log does not show entry {seq} as it was written")

    async def _settle(self, entry: SignedEntry, prepared: Prepared, accepted_mono_s: float) -> None:
        # INVARIANT (V9): on disk first, then in force.
        if self._store is not None:
            await self._store.save(entry, seq=prepared.seq)
        self._replica.commit(prepared)
        for listener in self._listeners:
            listener(entry, prepared.seq, accepted_mono_s)

    @property
    def signing(self) -> SigningKey:
        """The key that signs what this PDP publishes."""
        return self._keys.publish

    async def catch_up(self) -> None:
        """Bring the replica to the head of the log: from its own disk, from a snapshot, from the entries after it.

        Raises:
            PortcullisError: `store_unavailable`; what the disk gave is in force all the same.
        """
        async with self._lock:
            if self._store is not None:
                await self._obey_ruling()
                await restore(self._replica, self._store, self._clock)
            await self._load_snapshot()
            await self._read_log()

    async def _obey_ruling(self) -> None:
        """Leave what a root file, put in place while this PDP was down, has ruled dead: before anything is restored."""
        root, store = self._replica.verifier.root, self._store
        if store is None:
            return
        known = await store.roots()
        if known and known[-1] == root.raw:
            return
        ruling = root.ruling
        if ruling is not None and known:
            held = await self._log.read(after=ruling.seq - 1, limit=1)
            if not held or held[0].digest.hex() != ruling.digest:
                await store.reset(after=ruling.seq - 1)
        await store.save_root(root.raw, version=root.version)

    async def trust(self, root: RootFile, keys: PdpKeys) -> bool:
        """Take the next root file and this PDP's keys under it; False if it does not succeed the one in force."""
        async with self._lock:
            dead = self._replica.trust(root)
            if isinstance(dead, Refused):
                return False
            self._keys = keys
            if self._store is not None and not dead:
                await self._store.save_root(root.raw, version=root.version)
            if dead and self._store is not None:
                await give_up(self._replica, self._store, root)
        if dead:
            await self.catch_up()
        return True

    async def _load_snapshot(self, *, behind: bool = False) -> None:
        """Start from the log's snapshot; `behind`: the entries after our head are gone from the log."""
        if self._replica.world.seq and not behind:
            return
        snapshot = await self._log.snapshot()
        if snapshot is None:
            return
        prepared = await prepare(self._replica, snapshot, now_ms=self._clock.now_ms())
        if isinstance(prepared, Refused):
            return  # counted; the log itself still leads here, entry by entry
        if self._store is not None:
            await self._store.save_snapshot(snapshot, seq=prepared.seq)
        self._replica.commit(prepared)

    async def _read_log(self) -> None:
        """Take in every entry after our head, until one is refused."""
        while entries := await self._log.read(after=self._replica.world.seq, limit=LOG_READ_ENTRIES):
            if peek_seq(entries[0]) > self._replica.world.seq + 1:
                before = self._replica.world.seq
                await self._load_snapshot(behind=True)
                if self._replica.world.seq == before:
                    return
                continue
            for entry in entries:
                if not await self._take(entry):
                    return

    async def _take(self, entry: SignedEntry) -> bool:
        """Verify, fold, persist and commit one entry of the log; False if it was refused and the old world stays."""
        prepared = await prepare(self._replica, entry, now_ms=self._clock.now_ms())
        if isinstance(prepared, Refused):
            return False
        await self._settle(entry, prepared, self._clock.mono_s())
        return True

    async def follow(self) -> None:
        """Take in what other processes append, for ever; a refused entry or a failing store is tried again, never skipped."""
        while True:
            with suppress(_FollowError):
                await self._follow_until_stuck()
            await asyncio.sleep(STORE_RETRY_S)
            with suppress(
                PortcullisError
            ):  # what is missing may be in the store's snapshot; the failure stands already
                async with self._lock:
                    await self._read_log()

    async def _follow_until_stuck(self) -> None:
        try:
            start = self._replica.world.seq
            # By place and by digest, not by the number that an entry claims: one that lies about it is refused, not passed over.
            place = start
            async for entry in self._log.follow(after=start):
                place += 1
                async with self._lock:
                    if place <= self._replica.world.seq and self._replica.has_passed(entry):
                        continue  # our own publish, already in force
                    if not await self._take(entry):
                        raise _FollowError
        except PortcullisError as error:
            self._replica.failed(error.reason.value, error.message)
            raise _FollowError from error


def _below_mark(replica: Replica) -> str:
    return f"the log stands at {replica.world.seq}, and this PDP has held {replica.mark}"


class _FollowError(Exception):
    """Following stopped; the replica's `last_error` says why."""


class HeartbeatLoop:
    """Signs heartbeats, and only over a head that it has just read back from the store and holds itself.

    A PDP that cannot reach its store signs none: its followers go stale, and deny, rather than trust a PDP that cannot
    know what the others have written (ARCHITECTURE section 7).
    """

    def __init__(
        self,
        log: WorldLog,
        replica: Replica,
        keys: PdpKeys,
        clock: Clock,
        store: ReplicaStore | None = None,
        *,
        on_heartbeat: Callable[[SignedHeartbeat, Head], None] | None = None,
    ) -> None:
        self._log = log
        self._replica = replica
        self._keys = keys
        self._clock = clock
        self._store = store
        self._on_heartbeat = on_heartbeat

    def trust(self, keys: PdpKeys) -> None:
        """Sign with these keys from now on."""
        self._keys = keys

    async def beat(self) -> bool:
        """Read the head, sign it, take it ourselves, send it; False if there was nothing to vouch for."""
        # The time is the start of the read: whatever was written after it, the heartbeat does not speak of.
        read_ms, mono_s, before = self._clock.now_ms(), self._clock.mono_s(), self._replica.head
        try:
            head = await self._log.head()
        except PortcullisError as error:
            self._replica.failed(error.reason.value, error.message)
            return False
        if head not in (before, self._replica.head):
            if head.seq <= before.seq:
                self._replica.failed(Fault.ROLLBACK, f"the store stands at {head.seq}, this PDP holds {before.seq}")
            return False  # ahead of us: not ours to vouch for before it is verified
        # A log restored from an old backup: nobody who held more may be told that it is all there is.
        if head.seq < self._replica.mark:
            self._replica.failed(Fault.ROLLBACK, _below_mark(self._replica))
            return False
        # Never before what we signed last, or followers would take a clock set back for a replay.
        time_ms = max(read_ms, self._replica.signed_ms + 1)
        heartbeat = seal_heartbeat(
            tenant=self._replica.world.tenant, head=head, time_ms=time_ms, key=self._keys.timestamp
        )
        fresh = self._replica.heard(heartbeat, now_ms=read_ms, mono_s=mono_s)
        if fresh is not True:
            return False
        if self._on_heartbeat is not None:
            self._on_heartbeat(heartbeat, head)
        await self._keep(heartbeat)
        return True

    async def _keep(self, heartbeat: SignedHeartbeat) -> None:
        if self._store is None:
            return
        try:
            await self._store.save_heartbeat(heartbeat)
        except PortcullisError as error:  # costs only a fresh start without the log, so the heartbeat goes out
            self._replica.failed(error.reason.value, error.message)

    async def run(self, interval_s: float = HEARTBEAT_INTERVAL_S) -> None:
        """Beat every `interval_s` seconds, for ever; what could not be vouched for is looked at again sooner.

        Where others write many times a second, the head is often one that is only just on its way to us.
        """
        while True:
            vouched = await self.beat()
            await asyncio.sleep(interval_s if vouched else min(interval_s, STORE_RETRY_S))


@dataclass(frozen=True, slots=True, kw_only=True)
class NextRoot:
    """A root file that has been put in place, this PDP's keys, and every root file that replicas may start from."""

    root: RootFile
    keys: PdpKeys
    files: Sequence[bytes]


class Replication:
    """All of it for one PDP: what `pdp serve` starts and stops, and what its doors ask.

    Args:
        log, replica, keys, clock, store: as for `Publisher`.
        roots: the signed root files, oldest first; the replica's own if not given.
        positions: shows the PDPs of a cluster each other's enforcement points.
        watch_root: looks whether a new root file has come; None if not.
    """

    def __init__(
        self,
        *,
        log: WorldLog,
        replica: Replica,
        keys: PdpKeys,
        clock: Clock,
        store: ReplicaStore | None = None,
        roots: Sequence[bytes] = (),
        positions: Positions | None = None,
        watch_root: Callable[[], Awaitable[NextRoot | None]] | None = None,
    ) -> None:
        self.subscribers = Subscribers(
            log=log, replica=replica, roots=roots or (replica.verifier.root.raw,), clock=clock
        )
        self.publisher = Publisher(log, replica, keys, clock, store)
        self.publisher.on_entry(self.subscribers.announce)
        self.compactor = Compactor(log, replica, clock, store=store, key=lambda: self.publisher.signing)
        self.publisher.on_entry(self.compactor.passed)
        self.compactor.on_seal(self.subscribers.sealed)
        self.heartbeats = HeartbeatLoop(log, replica, keys, clock, store, on_heartbeat=self.subscribers.heartbeat)
        self._replica = replica
        self._positions = positions
        self._watch_root = watch_root
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Catch up with the log, prove it fresh, and go on doing both; a store that is down is waited for."""
        try:
            await self.publisher.catch_up()
        except PortcullisError as error:  # services start in any order (P12): not ready, but there
            self._replica.failed(error.reason.value, error.message)
        await self.heartbeats.beat()
        loops = [self.publisher.follow(), self.heartbeats.run(), self.compactor.run()]
        if self._positions is not None:
            loops.append(self._positions.run(self.subscribers))
        if self._watch_root is not None:
            loops.append(self._follow_root(self._watch_root))
        self._tasks = [asyncio.create_task(loop) for loop in loops]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    async def _follow_root(self, look: Callable[[], Awaitable[NextRoot | None]]) -> None:
        while True:
            try:
                found = await look()
                if found is not None and await self.publisher.trust(found.root, found.keys):
                    self.heartbeats.trust(found.keys)
                    self.subscribers.trust(found.files)
                    if self._positions is not None:
                        self._positions.trust(found.keys.timestamp)
            except PortcullisError as error:
                self._replica.failed(error.reason.value, error.message)
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A loop never ends by itself: if one does, it is our defect, and the world goes stale rather than wrong."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._replica.failed(Reason.INTERNAL_ERROR.value, f"{type(error).__name__} in the log's loops")

    async def stop(self) -> None:
        """End the loops, once what is being published is done; the log and the stores stay open, they are the caller's."""
        await self.publisher.finish()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []


def _advice(refused: Refused) -> str:
    if refused.reason in _CALLERS_FAULTS:
        return "correct the change; nothing was written"
    return "are this PDP's keys those of its root file, and is its clock right?"
