"""The replica's side of the log, for sidecars and SDKs: start from disk, follow a PDP, acknowledge what is enforced.

    restore (verify again what the disk kept)
      -> subscribe from the position held -> verify -> persist -> swap -> order the cuts -> acknowledge
      -> connection lost, silent or refused: back off with jitter, subscribe again

The world in force outlives the connection for as long as its last heartbeat allows (`max_staleness`), and not longer.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from pdp.adapters.keys_files import load_root, save_root
from pdp.errors import BadRequestError, ConfigError, PortcullisError, Reason
from pdp.limits import RECONNECT_MAX_S, RECONNECT_MIN_S
from pdp.ports import Clock, Feed, FeedSource, ReplicaStore
from pdp.replica import Prepared, Replica
from pdp.service.aside import prepare
from pdp.service.compact import Keeper
from pdp.trust.entry import SignedEntry, SignedHeartbeat, SignedSnapshot, peek_seq
from pdp.trust.feed import Ack, FeedItem, Hello, Resync, RootFiles, Seal
from pdp.trust.keys import RootFile
from pdp.trust.verifier import Fault, Refused
from pdp.world import World

Sleep = Callable[[float], Awaitable[None]]


async def _nothing(_world: World) -> None:
    return None


def _no_audit() -> bytes:
    return b""


async def restore(replica: Replica, store: ReplicaStore, clock: Clock) -> None:
    """Put the stored world in force, verified as if it came from anywhere; what is refused is left out."""
    _restore_roots(replica, await store.roots())
    snapshot, tail, heartbeat, mark = await store.load()
    replica.remember(mark)
    now_ms = clock.now_ms()
    if heartbeat is not None:
        # Before the world, so that the stored snapshot too is believed only up to the head it names.
        replica.restore_heartbeat(heartbeat, now_ms=now_ms, mono_s=clock.mono_s())
    if snapshot is not None:
        _put(replica, await prepare(replica, snapshot, now_ms=now_ms, stored=True))
    for entry in tail:
        if peek_seq(entry) > replica.world.seq and not _put(replica, await prepare(replica, entry, now_ms=now_ms)):
            return


def _restore_roots(replica: Replica, files: Sequence[bytes]) -> None:
    """Go from the pinned root file to the newest accepted one; a damaged one ends the way, and the PDP sends it again."""
    for raw in files:
        root = _parsed(raw)
        if root is None or root.version <= replica.verifier.root.version:
            continue
        if isinstance(replica.trust(root), Refused):
            return


def _parsed(raw: bytes) -> RootFile | None:
    try:
        return RootFile.parse(raw)
    except BadRequestError:
        return None


def _put(replica: Replica, prepared: Prepared | Refused) -> bool:
    if isinstance(prepared, Refused):
        return False
    replica.commit(prepared)
    return True


async def give_up(replica: Replica, store: ReplicaStore, root: RootFile) -> None:
    """Leave a world that a root file has ruled dead: off the disk first, so that no restart revives it."""
    after = root.ruling.seq - 1 if root.ruling is not None else 0
    await store.reset(after=after)
    await store.save_root(root.raw, version=root.version)
    replica.forget()


class Follower:
    """Keeps a replica in step with a PDP.

    Args:
        replica: the mutable cell of this process.
        store: where it persists before it swaps.
        source: where it subscribes.
        clock: wall and monotonic time.
        hello: how it introduces itself; the position is filled in.
        on_commit: awaited with every new world before it is acknowledged: returns when the cuts it causes are ordered.
        audit_head: head of the process's audit chain, for the acknowledgement.
        jitter: a random number from 0 to 1.
        sleep: how to wait between two attempts.
    """

    def __init__(
        self,
        replica: Replica,
        store: ReplicaStore,
        source: FeedSource,
        *,
        clock: Clock,
        hello: Hello,
        on_commit: Callable[[World], Awaitable[None]] = _nothing,
        audit_head: Callable[[], bytes] = _no_audit,
        jitter: Callable[[], float] = random.random,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._replica = replica
        self._store = store
        self._source = source
        self._clock = clock
        self._hello = hello
        self._on_commit = on_commit
        self._audit_head = audit_head
        self._jitter = jitter
        self._sleep = sleep
        self._keeper = Keeper(replica, store, clock, jitter=jitter, sleep=sleep)
        self._kept: SignedHeartbeat | None = None
        self._attempts = 0
        self.connected = False

    async def run(self) -> None:
        """Restore what the disk holds, then follow for ever."""
        await restore(self._replica, self._store, self._clock)
        self._kept = self._replica.proof
        try:
            while True:
                await self.follow()
                await self._sleep(self._pause_s())
        finally:
            await self._keeper.stop()

    def _pause_s(self) -> float:
        """Return how long to wait: doubling, capped, and jittered, so that a fleet does not return all at once."""
        self._attempts += 1
        ceiling_s: float = min(RECONNECT_MAX_S, RECONNECT_MIN_S * 2 ** min(self._attempts, 16))
        return ceiling_s * (0.5 + self._jitter() / 2)

    async def follow(self) -> None:
        """Follow one subscription to its end; why it ended stands in the replica's `last_error`."""
        head = self._replica.head
        try:
            feed = self._source.open(replace(self._hello, seq=head.seq, head=head.digest))
        except PortcullisError as error:  # a credential that cannot be read now may be there at the next attempt
            self._replica.failed(error.reason.value, error.message)
            return
        try:
            async for item in feed:
                self.connected = True
                if not await self._handle(item, feed):
                    return
        except PortcullisError as error:
            self._replica.failed(error.reason.value, error.message)
        finally:
            self.connected = False
            await feed.close()

    async def _handle(self, item: FeedItem, feed: Feed) -> bool:
        """Take one item; False ends the subscription."""
        if isinstance(item, SignedHeartbeat):
            fresh = self._replica.heard(item, now_ms=self._clock.now_ms(), mono_s=self._clock.mono_s())
            if fresh is True:
                await self._confirm(feed)
            return await self._renewed(feed)
        if isinstance(item, RootFiles):
            return await self._trusted(item)
        if isinstance(item, Seal):
            self._keeper.later(item)
            return True
        if isinstance(item, Resync):
            self._attempts = 0
            return False
        return await self._advance(item, feed)

    async def _renewed(self, feed: Feed) -> bool:
        """Show the PDP a credential that was exchanged, long before it would end the feed for the old one's expiry."""
        if await feed.renew():
            return True
        self._attempts = 0
        return False

    async def _trusted(self, roots: RootFiles) -> bool:
        """Go on only with a PDP that builds on our root of trust, and take over each root file that succeeds it."""
        if self._replica.verifier.root.raw not in roots.files:
            self._replica.failed("root_unknown", "the PDP does not serve the root file that this replica is pinned to")
            return False
        for raw in roots.files[roots.files.index(self._replica.verifier.root.raw) + 1 :]:
            root = _parsed(raw)
            if root is None:
                self._replica.refused(Refused(reason=Fault.ROOT_REFUSED, detail="not a root file"))
                return False
            dead = self._replica.trust(root)
            if isinstance(dead, Refused):
                return False
            if dead is True:
                self._keeper.forget()
                await give_up(self._replica, self._store, root)
                return False  # subscribe again, from the beginning
            await self._store.save_root(raw, version=root.version)
        return True

    async def _advance(self, item: SignedEntry | SignedSnapshot, feed: Feed) -> bool:
        if isinstance(item, SignedEntry) and item.digest == self._replica.world.head:
            return True  # sent twice around a reconnect
        prepared = await prepare(self._replica, item, now_ms=self._clock.now_ms())
        if isinstance(prepared, Refused):
            return False
        # INVARIANT (V9): on disk first, then in force; and acknowledged only when the cuts it causes are ordered.
        if isinstance(item, SignedEntry):
            await self._store.save(item, seq=prepared.seq)
        else:
            self._keeper.stored(prepared.seq)
            await self._store.save_snapshot(item, seq=prepared.seq)
        self._replica.commit(prepared)
        if isinstance(item, SignedEntry):
            self._keeper.passed(item)
        await self._on_commit(prepared.world)
        await self._confirm(feed)
        return True

    async def _confirm(self, feed: Feed) -> None:
        """Keep the newest proof of freshness and tell the PDP where we are."""
        proof = self._replica.proof
        if proof is not None and proof is not self._kept:
            await self._store.save_heartbeat(proof)
            self._kept = proof
            self._attempts = 0
        await feed.acknowledge(
            Ack(seq=self._replica.world.seq, heartbeat_ms=self._replica.heartbeat_ms, audit_head=self._audit_head())
        )


async def obtain_root(
    *, state_dir: Path, pinned: str, source: FeedSource, hello: Hello, sleep: Sleep = asyncio.sleep
) -> RootFile:
    """Return the root file whose SHA-256 is `pinned`: from disk, else from the PDP, as soon as it can be reached.

    The PDP is not trusted with it: whatever it sends either has the pinned digest or is worth nothing.

    Raises:
        ConfigError: the PDP serves another root file.
    """
    root = load_root(state_dir)
    if root is not None and root.digest == pinned:
        return root
    attempts = 0
    while True:
        files = await _offered_roots(source, hello)
        for raw in files or ():
            if sha256(raw).hexdigest() == pinned:
                root = RootFile.parse(raw)
                save_root(state_dir, root)
                return root
        if files is not None:
            raise ConfigError(
                f"the PDP's root file is not the one with digest {pinned[:16]}…",
                advice="compare --root-digest with `sha256sum root.json` on the PDP",
            )
        attempts += 1
        await sleep(min(RECONNECT_MAX_S, RECONNECT_MIN_S * 2 ** min(attempts, 16)))


async def _offered_roots(source: FeedSource, hello: Hello) -> tuple[bytes, ...] | None:
    """Return the root files a PDP begins its feed with, or None if it cannot be reached."""
    feed = source.open(hello)
    try:
        async for item in feed:
            return item.files if isinstance(item, RootFiles) else ()
    except PortcullisError as error:
        if error.reason is not Reason.PDP_UNREACHABLE:
            raise
    finally:
        await feed.close()
    return None
