"""Who follows this PDP: what each is sent, what each has acknowledged, and what may be promised about all of them.

Every subscriber has a bounded queue. One that does not read is evicted and told to subscribe again: memory stays bounded and the
others are not held up (FAILURE.md F26). A *receipt* says who enforces a change: an enforcement point counts as connected as
long as it has acknowledged a heartbeat within the longest `max_staleness`, also after its stream broke, because for so
long it may still be deciding by an old world.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from pdp.errors import BadRequestError, PortcullisError, Reason
from pdp.limits import (
    LOG_READ_ENTRIES,
    MAX_STALENESS_S,
    RECEIPTS_KEPT,
    SUBSCRIBER_QUEUE_BYTES,
    SUBSCRIBER_QUEUE_ENTRIES,
)
from pdp.ports import Clock, WorldLog
from pdp.replica import Replica
from pdp.trust.entry import Head, SignedEntry, SignedHeartbeat, SignedSnapshot, SnapshotHeader
from pdp.trust.feed import Ack, FeedItem, Hello, Resync, RootFiles, Seal

CONNECTED_S = max(MAX_STALENESS_S.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Who holds a change: enforcement points connected, those holding it, names of the others, and the slowest's time."""

    world_seq: int
    connected: int
    holding: int
    missing: tuple[str, ...]
    slowest_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaInfo:
    """One enforcement point as `pdp replicas` shows it."""

    identity: str
    role: str
    version: str
    seq: int
    staleness_s: float
    connected: bool
    audit_head: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """What one PDP shows the others of a follower."""

    identity: str
    instance: str
    role: str
    version: str
    seq: int
    heartbeat_ms: int
    audit_head: bytes = b""

    @property
    def name(self) -> str:
        """How a receipt names this enforcement point."""
        return f"{self.identity} ({self.role})"

    def to_json(self) -> dict[str, Any]:
        """Return it as a posting holds it."""
        return {**asdict(self), "audit_head": self.audit_head.hex()}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; anything else raises `TypeError`, `KeyError` or `ValueError`."""
        item = cls(**{**raw, "audit_head": bytes.fromhex(raw["audit_head"])})
        texts = (item.identity, item.instance, item.role, item.version)
        if (
            not all(type(text) is str for text in texts)
            or type(item.seq) is not int
            or type(item.heartbeat_ms) is not int
        ):
            raise TypeError("a posting of other types")
        return item


@dataclass(slots=True, kw_only=True, eq=False)
class Subscription:
    """One follower: its position, its queue, its last acknowledgement. Changed by `Subscribers` alone."""

    identity: str
    hello: Hello
    queue: asyncio.Queue[tuple[int, FeedItem]] = field(repr=False)
    position: int
    waiting_bytes: int = 0
    acknowledged_seq: int = 0
    heartbeat_ms: int = 0
    audit_head: bytes = b""
    open: bool = True
    evicted: bool = False

    @property
    def name(self) -> str:
        """How a receipt names this enforcement point."""
        return f"{self.identity} ({self.hello.role})"


class Subscribers:
    """The registry of a PDP's followers.

    Args:
        log: where the tail and the snapshots are read.
        replica: what is verified, hence what may be sent.
        roots: the signed root files, oldest first.
        clock: wall clock for freshness, monotonic for receipts.
        queue_entries, queue_bytes: how much may wait for one follower.
    """

    def __init__(
        self,
        *,
        log: WorldLog,
        replica: Replica,
        roots: Sequence[bytes],
        clock: Clock,
        queue_entries: int = SUBSCRIBER_QUEUE_ENTRIES,
        queue_bytes: int = SUBSCRIBER_QUEUE_BYTES,
    ) -> None:
        self._log = log
        self._replica = replica
        self._roots = RootFiles(files=tuple(roots))
        self._clock = clock
        self._queue_entries = queue_entries
        self._queue_bytes = queue_bytes
        self._known: dict[tuple[str, str], Subscription] = {}
        self._latest: tuple[Head, SignedHeartbeat] | None = None
        self._accepted: OrderedDict[int, float] = OrderedDict()
        self._slowest_ms: dict[int, float] = {}
        self._moved = asyncio.Event()
        self._others: dict[tuple[str, str], Posted] = {}
        self.waiting = 0

    @property
    def moved(self) -> asyncio.Event:
        """Set at the next acknowledgement, heartbeat, coming or going; read it anew each time."""
        return self._moved

    def trust(self, roots: Sequence[bytes]) -> None:
        """Serve these root files from now on, and tell every follower."""
        self._roots = RootFiles(files=tuple(roots))
        self._send(0, self._roots)

    def open(self, hello: Hello, identity: str) -> Subscription:
        """Register a follower that has been authorised as `identity`.

        Raises:
            BadRequestError: it follows another tenant.
        """
        if hello.tenant != self._replica.world.tenant:
            raise BadRequestError(f"this PDP serves another tenant than `{hello.tenant}`")
        queue: asyncio.Queue[tuple[int, FeedItem]] = asyncio.Queue(maxsize=self._queue_entries)
        subscription = Subscription(identity=identity, hello=hello, queue=queue, position=hello.seq)
        self._forget_expired()
        # The same instance coming back is not a second enforcement point; its identity is part of the key, so that
        # nobody can take another's place.
        self._known[identity, hello.instance or f"{id(subscription):x}"] = subscription
        return subscription

    def close(self, subscription: Subscription, *, clean: bool) -> None:
        """End a subscription; one that did not say goodbye goes on counting until it must have gone stale."""
        if not subscription.open:
            return
        subscription.open = False
        _end(subscription, "closed")
        if clean:
            self._known = {key: item for key, item in self._known.items() if item is not subscription}
        self._wake()

    async def items(self, subscription: Subscription) -> AsyncGenerator[FeedItem, None]:
        """Yield what this follower needs: roots, newest heartbeat, snapshot or tail, then what comes; ends at a `Resync`."""
        yield self._roots
        async for item in self._backlog(subscription):
            yield item
        while True:
            seq, item = await subscription.queue.get()
            subscription.waiting_bytes -= _size_bytes(item)
            if seq and seq <= subscription.position:
                continue  # sent with the tail already
            subscription.position = max(subscription.position, seq)
            yield item
            if isinstance(item, Resync):
                return

    async def _backlog(self, subscription: Subscription) -> AsyncGenerator[FeedItem, None]:
        if self._latest is not None:
            yield self._latest[1]  # first: a snapshot is believed only up to the head that a heartbeat names (V4)
        snapshot = await self._useful_snapshot(subscription.position)
        if snapshot is not None:
            subscription.position = snapshot[0]
            yield snapshot[1]
        while subscription.position < self._replica.world.seq:
            entries = await self._log.read(after=subscription.position, limit=LOG_READ_ENTRIES)
            held = self._replica.world.seq - subscription.position  # INVARIANT: only what we have verified is sent
            for entry in entries[:held]:
                subscription.position += 1
                yield entry
            if not entries:
                raise PortcullisError(Reason.STORE_UNAVAILABLE, "the log has lost entries that this PDP holds")

    async def _useful_snapshot(self, after: int) -> tuple[int, SignedSnapshot] | None:
        """Return number and snapshot if that saves the follower more than one read of the log."""
        if after > 0 and self._replica.world.seq - after <= LOG_READ_ENTRIES:
            return None
        snapshot = await self._log.snapshot()
        if snapshot is None:
            return None
        try:
            seq = SnapshotHeader.decode(snapshot.header).seq
        except BadRequestError:
            return None  # damaged in the store: the tail does as well
        named = self._latest[0].seq if self._latest is not None else self._replica.world.seq
        return (seq, snapshot) if after < seq <= min(named, self._replica.world.seq) else None

    def announce(self, entry: SignedEntry, seq: int, accepted_mono_s: float) -> None:
        """Send a committed entry to every follower; `accepted_mono_s` is when the write was accepted."""
        self._accepted[seq] = accepted_mono_s
        while len(self._accepted) > RECEIPTS_KEPT:
            self._slowest_ms.pop(self._accepted.popitem(last=False)[0], None)
        self._send(seq, entry)

    def sealed(self, seal: Seal) -> None:
        """Send the seal of a snapshot to every follower."""
        self._send(0, seal)

    def heartbeat(self, heartbeat: SignedHeartbeat, head: Head) -> None:
        """Send a heartbeat to every follower."""
        self._latest = (head, heartbeat)
        self._send(0, heartbeat)
        self._wake()

    def _send(self, seq: int, item: FeedItem) -> None:
        size = _size_bytes(item)
        for subscription in self._known.values():
            if not subscription.open or subscription.evicted:
                continue
            try:
                if subscription.waiting_bytes + size > self._queue_bytes:
                    raise asyncio.QueueFull
                subscription.queue.put_nowait((seq, item))
            except asyncio.QueueFull:
                _end(subscription, "too slow: subscribe again")
            else:
                subscription.waiting_bytes += size

    def acknowledge(self, subscription: Subscription, ack: Ack) -> None:
        """Note what a follower enforces."""
        now_ms = self._clock.now_ms()
        subscription.heartbeat_ms = max(subscription.heartbeat_ms, min(ack.heartbeat_ms, now_ms))
        subscription.audit_head = ack.audit_head
        reached = min(ack.seq, self._replica.world.seq)
        self._reached(subscription.acknowledged_seq, reached)
        subscription.acknowledged_seq = max(subscription.acknowledged_seq, reached)
        self._wake()

    def _reached(self, before: int, reached: int) -> None:
        """Note how long the changes after `before`, up to `reached`, took to one more enforcement point."""
        mono_s = self._clock.mono_s()
        for seq in range(max(before, reached - RECEIPTS_KEPT) + 1, reached + 1):
            if seq in self._accepted:
                took_ms = (mono_s - self._accepted[seq]) * 1000
                self._slowest_ms[seq] = max(self._slowest_ms.get(seq, 0.0), took_ms)

    async def wait_all(self, seq: int, timeout_s: float) -> Receipt:
        """Wait until every connected enforcement point holds `seq`, at most `timeout_s` seconds; say who does not."""
        self.waiting += 1
        self._wake()  # whoever reads other PDPs' postings does so more often now
        try:
            async with asyncio.timeout(timeout_s):
                while self._surely_missing(seq) or self.receipt(seq).missing:
                    await self._moved.wait()
        except TimeoutError:
            pass  # the receipt names who is missing: that is the answer, not an error
        finally:
            self.waiting -= 1
        return self.receipt(seq)

    def _surely_missing(self, seq: int) -> bool:
        """Tell cheaply what is asked at every acknowledgement: does a follower that we alone serve not hold `seq` yet?"""
        return any(
            item.open and item.acknowledged_seq < seq and key not in self._others and self._connected(item)
            for key, item in self._known.items()
        )

    def posting(self) -> tuple[Posted, ...]:
        """Return what this PDP knows of its own followers."""
        return tuple(
            Posted(
                identity=identity,
                instance=instance,
                role=item.hello.role,
                version=item.hello.version,
                seq=item.acknowledged_seq,
                heartbeat_ms=item.heartbeat_ms,
                audit_head=item.audit_head,
            )
            for (identity, instance), item in sorted(self._known.items())
            if self._age_s(item.heartbeat_ms) <= CONNECTED_S
        )

    def take(self, others: Sequence[Posted]) -> None:
        """Take in what the other PDPs know of theirs; of one that has moved between PDPs the newest heartbeat counts."""
        found: dict[tuple[str, str], Posted] = {}
        for item in others:
            key = (item.identity, item.instance)
            if key not in found or found[key].heartbeat_ms < item.heartbeat_ms:
                found[key] = item
        for key, item in found.items():
            before = self._others.get(key)
            self._reached(before.seq if before else item.seq, min(item.seq, self._replica.world.seq))
        if found != self._others:
            self._others = found
            self._wake()

    def _everyone(self) -> dict[tuple[str, str], Posted]:
        """Return every enforcement point that any PDP knows, by identity and instance."""
        everyone = dict(self._others)
        for item in self.posting():
            key = (item.identity, item.instance)
            if key not in everyone or everyone[key].heartbeat_ms <= item.heartbeat_ms:
                everyone[key] = item
        return {key: item for key, item in everyone.items() if self._age_s(item.heartbeat_ms) <= CONNECTED_S}

    def receipt(self, seq: int) -> Receipt:
        """Return who holds `seq` now."""
        connected = self._everyone().values()
        missing = tuple(sorted(item.name for item in connected if item.seq < seq))
        return Receipt(
            world_seq=seq,
            connected=len(connected),
            holding=len(connected) - len(missing),
            missing=missing,
            slowest_ms=self._slowest_ms.get(seq, 0.0),
        )

    def list(self) -> tuple[ReplicaInfo, ...]:
        """Return every follower known, open or lately gone."""
        self._forget_expired()
        own = set(self._known)
        elsewhere = [item for key, item in self._everyone().items() if key not in own]
        return self._own() + tuple(
            ReplicaInfo(
                identity=item.identity,
                role=item.role,
                version=item.version,
                seq=item.seq,
                staleness_s=self._age_s(item.heartbeat_ms),
                connected=True,
                audit_head=item.audit_head,
            )
            for item in sorted(elsewhere, key=lambda item: item.name)
        )

    def _own(self) -> tuple[ReplicaInfo, ...]:
        return tuple(
            ReplicaInfo(
                identity=item.identity,
                role=item.hello.role,
                version=item.hello.version,
                seq=item.acknowledged_seq,
                staleness_s=self._age_s(item.heartbeat_ms),
                connected=self._connected(item),
                audit_head=item.audit_head,
            )
            for item in sorted(self._known.values(), key=lambda item: item.name)
        )

    def _age_s(self, heartbeat_ms: int) -> float:
        if not heartbeat_ms:
            return float("inf")
        return max(0.0, (self._clock.now_ms() - heartbeat_ms) / 1000)

    def _connected(self, subscription: Subscription) -> bool:
        return self._age_s(subscription.heartbeat_ms) <= CONNECTED_S

    def _forget_expired(self) -> None:
        self._known = {key: item for key, item in self._known.items() if item.open or self._connected(item)}

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


def _end(subscription: Subscription, reason: str) -> None:
    """Drop what waits and leave word; whoever serves the stream ends it."""
    subscription.evicted = True
    while not subscription.queue.empty():
        subscription.queue.get_nowait()
    subscription.waiting_bytes = 0
    subscription.queue.put_nowait((0, Resync(reason=reason)))


def _size_bytes(item: FeedItem) -> int:
    """Return what an item weighs in a queue; what is small and rare counts nothing."""
    return len(item.header) + len(item.payload) if isinstance(item, SignedEntry) else 0
