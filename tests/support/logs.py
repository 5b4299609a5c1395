"""A world log in memory: an authority that signs, a clock that is set by hand, carriers that can be tampered with."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pdp.errors import ConflictError, PortcullisError, Reason
from pdp.model import canonical
from pdp.replica import Prepared, Replica
from pdp.trust.entry import (
    EMPTY,
    EntryHeader,
    Head,
    SignedEntry,
    SignedHeartbeat,
    SignedSnapshot,
    payload_digest,
    seal,
    seal_heartbeat,
    seal_snapshot,
)
from pdp.trust.keys import PdpKeys, PublicKey, Role, RootFile, Ruling, SigningKey, sign_root
from pdp.trust.verifier import TrustVerifier
from pdp.world import empty_world, to_state

TENANT = "main"
START_MS = 1_790_000_000_000


@dataclass
class HandClock:
    """A clock that moves only when told."""

    wall_ms: int = START_MS
    mono: float = 100.0

    def now_ms(self) -> int:
        return self.wall_ms

    def mono_s(self) -> float:
        return self.mono

    def advance(self, seconds: float) -> None:
        self.wall_ms += round(seconds * 1000)
        self.mono += seconds


@dataclass
class Authority:
    """Owns the keys of one tenant and signs whatever a test asks for, honest or not."""

    tenant: str = TENANT
    root_key: SigningKey = field(default_factory=SigningKey.generate)
    publish: SigningKey = field(default_factory=SigningKey.generate)
    timestamp: SigningKey = field(default_factory=SigningKey.generate)

    @property
    def keys(self) -> PdpKeys:
        return PdpKeys(publish=self.publish, timestamp=self.timestamp)

    def root(
        self,
        *,
        publish: Sequence[PublicKey] | None = None,
        thresholds: Mapping[Role, int] | None = None,
        version: int = 1,
        ruling: Ruling | None = None,
    ) -> RootFile:
        roles = {
            Role.ROOT: [self.root_key.public],
            Role.PUBLISH: [self.publish.public] if publish is None else publish,
            Role.TIMESTAMP: [self.timestamp.public],
        }
        return sign_root(
            tenant=self.tenant,
            version=version,
            time_ms=START_MS,
            roles=roles,
            signing=[self.root_key],
            thresholds=thresholds,
            ruling=ruling,
        )

    def verifier(self, **root: Any) -> TrustVerifier:
        return TrustVerifier(self.root(**root), self.tenant)

    def replica(self, **root: Any) -> Replica:
        return Replica(verifier=self.verifier(**root), world=empty_world(self.tenant))

    def entry(
        self,
        after: Head = EMPTY,
        *,
        payload: Any = None,
        kind: str = "lock",
        keys: Sequence[SigningKey] | None = None,
        **header: Any,
    ) -> SignedEntry:
        """Sign a successor of `after`, a lock unless told otherwise; `header` overrides single fields."""
        content = lock_payload(after.seq + 1) if payload is None else payload
        plain = EntryHeader(
            tenant=self.tenant,
            seq=after.seq + 1,
            prev=after.digest.hex(),
            kind=kind,
            payload_digest=payload_digest(canonical.dumps(content)),
            time_ms=START_MS,
        )
        return seal(header=replace(plain, **header), payload=content, keys=keys or [self.publish])

    def chain(self, length: int) -> list[SignedEntry]:
        """Sign `length` entries from the beginning."""
        entries: list[SignedEntry] = []
        head = EMPTY
        for _ in range(length):
            entries.append(self.entry(head))
            head = Head(seq=head.seq + 1, digest=entries[-1].digest)
        return entries

    def heartbeat(self, head: Head, *, time_ms: int = START_MS, key: SigningKey | None = None) -> SignedHeartbeat:
        return seal_heartbeat(tenant=self.tenant, head=head, time_ms=time_ms, key=key or self.timestamp)

    def snapshot(self, replica: Replica, *, key: SigningKey | None = None) -> SignedSnapshot:
        return seal_snapshot(
            tenant=self.tenant,
            head=replica.head,
            state=to_state(replica.world),
            time_ms=START_MS,
            keys=[key or self.publish],
        )


def lock_payload(number: int, **changes: Any) -> dict[str, Any]:
    """Return the payload of a lock: the cheapest entry that changes a world."""
    payload = {
        "id": f"lock-{number}",
        "target": {"kind": "principal", "principal": f"user:mallory{number}"},
        "reason": "test",
        "source": "user:test",
        "start_ms": START_MS,
        "end_ms": 0,
    }
    return payload | changes


def head_of(entries: Sequence[SignedEntry]) -> Head:
    """Return the head of a chain."""
    return Head(seq=len(entries), digest=entries[-1].digest) if entries else EMPTY


def take(replica: Replica, entries: Sequence[SignedEntry], *, now_ms: int = START_MS) -> Replica:
    """Put entries in force that must all be good."""
    for entry in entries:
        prepared = replica.prepare(entry, now_ms=now_ms)
        assert isinstance(prepared, Prepared), prepared
        replica.commit(prepared)
    return replica


class MemoryLog:
    """A `WorldLog` that a test can read, tamper with and cut off (`down`)."""

    def __init__(self) -> None:
        self.entries: list[SignedEntry] = []
        self.kept: SignedSnapshot | None = None
        self.down = False
        self.snapshotted = asyncio.Event()
        self._nudge = asyncio.Event()

    async def head(self) -> Head:
        self._check()
        return head_of(self.entries)

    async def append(self, entry: SignedEntry, *, seq: int, prev: bytes) -> None:
        self._check()
        if head_of(self.entries) != Head(seq=seq - 1, digest=prev):
            raise ConflictError(len(self.entries))
        self.entries.append(entry)
        self.wake()

    async def read(self, *, after: int, limit: int) -> Sequence[SignedEntry]:
        self._check()
        return self.entries[after : after + limit]

    async def follow(self, *, after: int) -> AsyncIterator[SignedEntry]:
        while True:
            nudge = self._nudge
            self._check()
            for entry in self.entries[after:]:
                yield entry
                after += 1
            await nudge.wait()

    async def save_snapshot(self, snapshot: SignedSnapshot, *, seq: int) -> None:  # noqa: ARG002
        self._check()
        self.kept = snapshot
        self.snapshotted.set()

    async def snapshot(self) -> SignedSnapshot | None:
        self._check()
        return self.kept

    async def close(self) -> None:
        self.down = True

    def wake(self) -> None:
        nudge, self._nudge = self._nudge, asyncio.Event()
        nudge.set()

    def _check(self) -> None:
        if self.down:
            raise PortcullisError(Reason.STORE_UNAVAILABLE, "the store is down")


class MemoryShared(MemoryLog):
    """A `SharedLog` in memory, whose entries, mark and board a test can read and lose; also an `Archive`."""

    def __init__(self) -> None:
        super().__init__()
        self.mark = b""
        self.board: dict[str, bytes] = {}

    async def forked(self) -> bytes:
        self._check()
        return self.mark

    async def mark_fork(self, told: bytes) -> None:
        self._check()
        self.mark = (self.mark or told) if told else b""

    async def refill(self, entries: AsyncIterator[tuple[int, SignedEntry]], snapshot: SignedSnapshot | None) -> int:
        self._check()
        self.entries = [entry async for _, entry in entries]
        self.kept = snapshot
        return len(self.entries)

    async def post(self, name: str, raw: bytes) -> None:
        self._check()
        self.board[name] = raw

    async def posted(self) -> Mapping[str, bytes]:
        self._check()
        return dict(self.board)

    async def truncate(self, *, after: int) -> None:
        del self.entries[after:]
        self.wake()


class MemoryStore:
    """A `ReplicaStore` in memory; `journal` tells in which order things were made durable."""

    def __init__(self) -> None:
        self.kept: SignedSnapshot | None = None
        self.tail: dict[int, SignedEntry] = {}
        self.heartbeat: SignedHeartbeat | None = None
        self.mark = 0
        self.journal: list[str] = []
        self.root_files: dict[int, bytes] = {}

    async def save(self, entry: SignedEntry, *, seq: int) -> None:
        self.tail[seq] = entry
        self.mark = max(self.mark, seq)
        self.journal.append(f"saved {seq}")

    async def save_snapshot(self, snapshot: SignedSnapshot, *, seq: int) -> None:
        self.kept = snapshot
        self.tail = {number: entry for number, entry in self.tail.items() if number > seq}
        self.mark = max(self.mark, seq)
        self.journal.append(f"saved snapshot {seq}")

    async def save_heartbeat(self, heartbeat: SignedHeartbeat) -> None:
        self.heartbeat = heartbeat

    async def save_root(self, raw: bytes, *, version: int) -> None:
        self.root_files[version] = raw

    async def roots(self) -> Sequence[bytes]:
        return [self.root_files[version] for version in sorted(self.root_files)]

    async def reset(self, *, after: int) -> None:
        self.kept, self.tail, self.heartbeat, self.mark = None, {}, None, 0
        self.journal.append(f"reset {after}")

    async def load(self) -> tuple[SignedSnapshot | None, Sequence[SignedEntry], SignedHeartbeat | None, int]:
        return self.kept, [self.tail[seq] for seq in sorted(self.tail)], self.heartbeat, self.mark
