"""Compaction: snapshots at numbers that everybody knows, so that no disk grows with the log but the archive.

Theory of operation. At every multiple of `SNAPSHOT_EVERY_ENTRIES`, and at every entry so large that it comes in chunks, each
process pins the world that it holds there; worlds are immutable and share what they have in common, so a pin costs little. A
PDP spells its pinned world out, signs it and keeps it: as snapshot of the log and in place of the entries before it in its
own replica's file. Followers are sent the *seal* alone, header and signatures: each spells out the world that it has pinned
itself, and only if that is what was signed, digest for digest, drops the entries before it. So a replica's disk holds one
snapshot and a short tail, nothing is sent twice, and a replica whose world differed from its PDP's would be found out.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress

from pdp.errors import BadRequestError, PortcullisError
from pdp.limits import COMPACT_SPREAD_S, PINNED_WORLDS, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_EVERY_ENTRIES
from pdp.ports import Clock, ReplicaStore, WorldLog
from pdp.replica import Replica
from pdp.trust.entry import Head, SignedEntry, SignedSnapshot, SnapshotHeader, seal_state
from pdp.trust.feed import Seal
from pdp.trust.keys import SigningKey
from pdp.trust.verifier import Refused
from pdp.world import World, spell_state


class Pins:
    """The worlds at the newest snapshot points.

    Args:
        every: the numbers at which there is one.
        keep: how many are kept.
    """

    def __init__(self, *, every: int = SNAPSHOT_EVERY_ENTRIES, keep: int = PINNED_WORLDS) -> None:
        self._every = every
        self._keep = keep
        self._worlds: OrderedDict[int, World] = OrderedDict()

    def passed(self, world: World, entry: SignedEntry) -> bool:
        """Note the world that `entry` has made; True if a snapshot stands at it."""
        if world.seq % self._every and len(entry.payload) <= SNAPSHOT_CHUNK_BYTES:
            return False
        self._worlds[world.seq] = world
        if len(self._worlds) > self._keep:
            self._worlds.popitem(last=False)
        return True

    def at(self, seq: int) -> World | None:
        """Return the world pinned at `seq`."""
        return self._worlds.get(seq)

    def clear(self) -> None:
        """Forget every one."""
        self._worlds.clear()

    @property
    def newest(self) -> World | None:
        """The world pinned last."""
        return next(reversed(self._worlds.values()), None)


class Compactor:
    """The PDP's side: writes snapshots, and hands their seals to the followers.

    Args:
        log: where snapshots are kept.
        replica: whose worlds they are.
        clock: wall clock, for the header.
        store: this PDP's own file; None only in tests.
        key: the publish key in force.
        pins: the snapshot points.
    """

    def __init__(
        self,
        log: WorldLog,
        replica: Replica,
        clock: Clock,
        *,
        store: ReplicaStore | None,
        key: Callable[[], SigningKey],
        pins: Pins | None = None,
    ) -> None:
        self._log = log
        self._replica = replica
        self._clock = clock
        self._store = store
        self._key = key
        self._pins = pins or Pins()
        self._grown = asyncio.Event()
        self._written = 0
        self._listeners: list[Callable[[Seal], None]] = []

    def on_seal(self, listener: Callable[[Seal], None]) -> None:
        """Call `listener` with the seal of every snapshot."""
        self._listeners.append(listener)

    def passed(self, entry: SignedEntry, _seq: int, _accepted_mono_s: float) -> None:
        """Look at an entry that has come into force."""
        if self._pins.passed(self._replica.world, entry):
            self._grown.set()

    async def run(self) -> None:
        """Write a snapshot at every point, for ever; one that the next has overtaken is left out."""
        while True:
            await self._grown.wait()
            self._grown.clear()
            world = self._pins.newest
            if world is not None and world.seq > self._written:
                try:
                    await self.snapshot(world)
                except PortcullisError as error:  # the next point tries again
                    self._replica.failed(error.reason.value, error.message)

    async def snapshot(self, world: World | None = None) -> int:
        """Write a signed snapshot of `world`, by default that in force; returns its number."""
        held = world or self._replica.world
        signed = await asyncio.to_thread(self._signed, held)
        await self._log.save_snapshot(signed, seq=held.seq)
        if self._store is not None:
            await self._store.save_snapshot(signed, seq=held.seq)
        self._written = held.seq
        for listener in self._listeners:
            listener(Seal(header=signed.header, signatures=signed.signatures))
        return held.seq

    def _signed(self, world: World) -> SignedSnapshot:
        return seal_state(
            tenant=world.tenant,
            head=Head(seq=world.seq, digest=world.head),
            raw=spell_state(world),
            time_ms=self._replica.now_ms(self._clock.now_ms()),
            keys=(self._key(),),
        )


class Keeper:
    """The follower's side: puts its own spelling of a sealed world in place of the entries before it.

    INVARIANT: what the disk holds is never replaced by an older snapshot, nor by one of a world that a root file has ruled dead.

    Args:
        replica: whose worlds are pinned.
        store: its disk.
        clock: wall clock, against which the seal is verified.
        pins: the snapshot points.
        jitter: a random number from 0 to 1.
        sleep: how to wait.
    """

    def __init__(
        self,
        replica: Replica,
        store: ReplicaStore,
        clock: Clock,
        *,
        pins: Pins | None = None,
        jitter: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._replica = replica
        self._store = store
        self._clock = clock
        self._pins = pins or Pins()
        self._jitter = jitter
        self._sleep = sleep
        self._floor = 0
        self._waiting: Seal | None = None
        self._task: asyncio.Task[None] | None = None

    def passed(self, entry: SignedEntry) -> None:
        """Look at an entry that has come into force."""
        self._pins.passed(self._replica.world, entry)

    def stored(self, seq: int) -> None:
        """Know that the disk is about to hold a snapshot at `seq` that was received whole."""
        self._floor = max(self._floor, seq)

    def forget(self) -> None:
        """Leave every world pinned so far: a root file has ruled what they hold dead."""
        self._pins.clear()
        self._floor, self._waiting = 0, None

    def later(self, seal: Seal) -> None:
        """Compact to what `seal` names within `COMPACT_SPREAD_S`, beside the feed; of seals that wait the newest counts.

        Spelling out 100,000 rows takes a tenth of a second and more. The seal reaches a whole fleet at once, and while each
        compacted before it read on, a lock that came next was enforced seconds late.
        """
        self._waiting = seal
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._compact(), name="compaction")

    async def _compact(self) -> None:
        while self._waiting is not None:
            await self._sleep(self._jitter() * COMPACT_SPREAD_S)
            seal, self._waiting = self._waiting, None
            if seal is not None:
                try:
                    await self.take(seal)
                except PortcullisError as error:  # the next seal tries again
                    self._replica.failed(error.reason.value, error.message)

    async def stop(self) -> None:
        """End what waits."""
        self._waiting = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def take(self, seal: Seal) -> bool:
        """Compact the disk to the world that `seal` names; False if we did not hold it, or it is another than ours."""
        world = None
        with suppress(BadRequestError):
            # Peeked at only to find the world; nothing is believed before the signature is checked.
            world = self._pins.at(SnapshotHeader.decode(seal.header).seq)
        if world is None:
            self._replica.counters["seals_passed_over"] += 1  # from before we came: the next one will do
            return False
        signed = await asyncio.to_thread(self._spelled, seal, world)
        # Meanwhile the feed went on: a snapshot may have come whole, or a root file that leaves this world.
        if signed is None or world.seq <= self._floor or self._pins.at(world.seq) is not world:
            return False
        self._floor = world.seq
        await self._store.save_snapshot(signed, seq=world.seq)
        self._replica.counters["compacted"] += 1
        return True

    def _spelled(self, seal: Seal, world: World) -> SignedSnapshot | None:
        """Spell `world` out and verify that it is what was signed."""
        signed = SignedSnapshot(header=seal.header, state=spell_state(world), signatures=seal.signatures)
        refused = isinstance(self._replica.sealed(signed, world, now_ms=self._clock.now_ms()), Refused)
        return None if refused else signed
