"""What flows between a PDP and its replicas, as values: position and acknowledgements up, entries and heartbeats down."""

from dataclasses import dataclass

from pdp.trust.entry import Signature, SignedEntry, SignedHeartbeat, SignedSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """How a replica introduces itself.

    `seq` and `head` are its position (0 and empty: none), `role` is `sidecar`, `sdk` or `pdp`, `instance` a random name kept
    on its disk, so that one that comes back is not counted twice. `chunked`: it takes large entries in chunks, and seals.
    """

    seq: int
    head: bytes
    version: str
    role: str
    tenant: str
    instance: str = ""
    chunked: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """Everything up to `seq` is enforced: folded, on disk, and the cuts it causes are ordered.

    `heartbeat_ms` is the signed time of the newest heartbeat that counts for it, `audit_head` the head of its audit chain.
    """

    seq: int
    heartbeat_ms: int
    audit_head: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class RootFiles:
    """The signed root files, oldest first."""

    files: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resync:
    """The feed ends here; subscribe again from the position held."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """Header and signatures of a snapshot, whose state the replica spells out itself from the world that it held there."""

    header: bytes
    signatures: tuple[Signature, ...]


FeedItem = RootFiles | SignedEntry | SignedSnapshot | SignedHeartbeat | Seal | Resync
