"""The values of the world log: entries, heartbeats, snapshots, each signed over its exact bytes.

Theory of operation
-------------------
Everything that can change an answer is one *entry* of one ordered log. An entry is two byte strings: a small **header**
(tenant, number, digest of the previous entry, kind, digest of the payload, time, expiry, minimum engine, author) and the
**payload** it names. Signatures cover a domain tag and the exact header bytes, which are never re-encoded: so what was
signed is what is parsed, and an entry's digest does not depend on who signed it. Number and previous digest make the log a
chain in which nothing can be left out, exchanged or repeated unnoticed.

A **heartbeat** says "at this time the head of the log was this": signed by a key of its own (the timestamp role), it is
what makes a held world *fresh*, and its absence what makes a world stale. A **snapshot** is the fold of the log up to a
number, signed like an entry, so that a new replica need not read the log from its beginning.

Whoever carries these bytes (SQLite, Redis, the network, a replica's disk) is not trusted with them: `pdp.trust.verifier`
alone turns them into `VerifiedEntry`, `VerifiedHeartbeat` and `VerifiedSnapshot`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Protocol, Self

from pdp.errors import BadRequestError
from pdp.limits import MAX_NAME_BYTES, MAX_SAFE_INTEGER
from pdp.model import canonical

ENGINE: Final = 1
"""The level of this engine. An entry that needs a higher one is refused: an old engine does not guess (V6)."""

_ENTRY: Final = "portcullis/entry/1"
_PAYLOAD: Final = "portcullis/payload/1"
_HEARTBEAT: Final = "portcullis/heartbeat/1"
_SNAPSHOT: Final = "portcullis/snapshot/1"
_STATE: Final = "portcullis/state/1"
_HEX_DIGEST_CHARS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature, and the id of the key that is said to have made it: a hint, never a proof."""

    key_id: str
    signature: bytes


class Signer(Protocol):
    """What `seal` needs of a key."""

    def sign(self, message: bytes) -> Signature:
        """Sign `message`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where a log or a replica stands: number and digest of its newest entry."""

    seq: int
    digest: bytes


EMPTY: Final = Head(seq=0, digest=b"")
"""The head of a log without entries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedEntry:
    """An entry as it is stored and sent: the exact bytes, never re-encoded."""

    header: bytes
    payload: bytes
    signatures: tuple[Signature, ...]

    @property
    def digest(self) -> bytes:
        """Digest of the header, which names everything else but the signatures."""
        return canonical.digest(_ENTRY, self.header)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryHeader:
    """What is signed of an entry. `prev` and `payload_digest` are hex; `expires_ms` 0 means never."""

    tenant: str
    seq: int
    prev: str
    kind: str
    payload_digest: str
    time_ms: int
    expires_ms: int = 0
    min_engine: int = ENGINE
    author: str = ""

    def __post_init__(self) -> None:
        _check_texts(self.tenant, self.kind, self.author, self.prev)
        _check_numbers(self.seq, self.time_ms, self.expires_ms, self.min_engine)
        _check_digest(self.payload_digest)
        # INVARIANT: the first entry, and only it, has no predecessor: no chain can be grafted onto another.
        if self.seq == 0 or (self.seq == 1 and self.prev):
            raise BadRequestError("a log begins with entry 1, which has no predecessor")
        if self.seq > 1:
            _check_digest(self.prev)

    def encode(self) -> bytes:
        """Return the canonical bytes to sign."""
        return canonical.dumps(asdict(self))

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Return the header in `raw`, or raise `BadRequestError` for anything but exactly its fields."""
        return cls(**_fields(raw, tuple(field.name for field in fields(cls))))


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedEntry:
    """An entry that passed every rule. Only `pdp.trust.verifier` makes one; an architecture test holds it."""

    header: EntryHeader
    payload: Any
    digest: bytes
    signed: SignedEntry

    @property
    def head(self) -> Head:
        """The head of a log that ends with this entry."""
        return Head(seq=self.header.seq, digest=self.digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedHeartbeat:
    """A heartbeat as it is stored and sent."""

    body: bytes
    signature: Signature


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatBody:
    """What a heartbeat says: at `time_ms` (the start of the read) the store's head was `seq`, `head` (hex)."""

    tenant: str
    seq: int
    head: str
    time_ms: int

    def __post_init__(self) -> None:
        _check_texts(self.tenant)
        _check_numbers(self.seq, self.time_ms)
        if self.seq or self.head:
            _check_digest(self.head)

    def encode(self) -> bytes:
        """Return the canonical bytes to sign."""
        return canonical.dumps(asdict(self))

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Return the body in `raw`, or raise `BadRequestError`."""
        return cls(**_fields(raw, tuple(field.name for field in fields(cls))))


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedHeartbeat:
    """A heartbeat whose signature holds, made only by `pdp.trust.verifier`."""

    head: Head
    time_ms: int
    signed: SignedHeartbeat


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedSnapshot:
    """A snapshot as it is stored and sent."""

    header: bytes
    state: bytes
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotHeader:
    """What is signed of a snapshot: the number and digest it stands at, and the digest of the state."""

    tenant: str
    seq: int
    head: str
    state_digest: str
    time_ms: int
    min_engine: int = ENGINE

    def __post_init__(self) -> None:
        _check_texts(self.tenant)
        _check_numbers(self.seq, self.time_ms, self.min_engine)
        _check_digest(self.head)
        _check_digest(self.state_digest)

    def encode(self) -> bytes:
        """Return the canonical bytes to sign."""
        return canonical.dumps(asdict(self))

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Return the header in `raw`, or raise `BadRequestError`."""
        return cls(**_fields(raw, tuple(field.name for field in fields(cls))))


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedSnapshot:
    """A snapshot that passed every rule, made only by `pdp.trust.verifier`."""

    header: SnapshotHeader
    state: Any
    head: Head
    signed: SignedSnapshot


def peek_seq(entry: SignedEntry) -> int:
    """Return the number that an *unverified* entry claims, or 0: to skip what is held already, never to believe."""
    try:
        return EntryHeader.decode(entry.header).seq
    except BadRequestError:
        return 0


def peek_kind(entry: SignedEntry) -> str:
    """Return the kind that an *unverified* entry claims, or nothing: to plan the work, never to believe."""
    try:
        return EntryHeader.decode(entry.header).kind
    except BadRequestError:
        return ""


def payload_digest(payload: bytes) -> str:
    """Return the digest under which a header names `payload`."""
    return canonical.digest(_PAYLOAD, payload).hex()


def state_digest(state: bytes) -> str:
    """Return the digest under which a snapshot's header names its state."""
    return canonical.digest(_STATE, state).hex()


def entry_message(header: bytes) -> bytes:
    """Return the bytes that an entry's signatures cover: a tag of their own, so no signature fits another message."""
    return _message(_ENTRY, header)


def heartbeat_message(body: bytes) -> bytes:
    """Return the bytes that a heartbeat's signature covers."""
    return _message(_HEARTBEAT, body)


def snapshot_message(header: bytes) -> bytes:
    """Return the bytes that a snapshot's signatures cover."""
    return _message(_SNAPSHOT, header)


def seal(*, header: EntryHeader, payload: Any, keys: Iterable[Signer]) -> SignedEntry:
    """Return the signed entry of `header` and `payload`.

    Raises:
        BadRequestError: the header names another payload.
    """
    raw = canonical.dumps(payload)
    if header.payload_digest != payload_digest(raw):
        raise BadRequestError("the header names another payload")
    encoded = header.encode()
    message = entry_message(encoded)
    return SignedEntry(header=encoded, payload=raw, signatures=tuple(key.sign(message) for key in keys))


def seal_next(
    *, tenant: str, head: Head, kind: str, payload: Any, author: str, time_ms: int, keys: Iterable[Signer]
) -> SignedEntry:
    """Return the signed successor of `head`."""
    header = EntryHeader(
        tenant=tenant,
        seq=head.seq + 1,
        prev=head.digest.hex(),
        kind=kind,
        payload_digest=payload_digest(canonical.dumps(payload)),
        time_ms=time_ms,
        author=author,
    )
    return seal(header=header, payload=payload, keys=keys)


def seal_heartbeat(*, tenant: str, head: Head, time_ms: int, key: Signer) -> SignedHeartbeat:
    """Return a heartbeat over `head`; `time_ms` is when the read that found it began."""
    body = HeartbeatBody(tenant=tenant, seq=head.seq, head=head.digest.hex(), time_ms=time_ms).encode()
    return SignedHeartbeat(body=body, signature=key.sign(heartbeat_message(body)))


def seal_snapshot(
    *, tenant: str, head: Head, state: Mapping[str, Any], time_ms: int, keys: Iterable[Signer]
) -> SignedSnapshot:
    """Return the signed snapshot of `state`, the fold of the log up to `head`."""
    return seal_state(tenant=tenant, head=head, raw=canonical.dumps(dict(state)), time_ms=time_ms, keys=keys)


def seal_state(*, tenant: str, head: Head, raw: bytes, time_ms: int, keys: Iterable[Signer]) -> SignedSnapshot:
    """Return the signed snapshot of a state that is spelled out already, in canonical bytes."""
    header = SnapshotHeader(
        tenant=tenant, seq=head.seq, head=head.digest.hex(), state_digest=state_digest(raw), time_ms=time_ms
    ).encode()
    message = snapshot_message(header)
    return SignedSnapshot(header=header, state=raw, signatures=tuple(key.sign(message) for key in keys))


def _message(domain: str, signed: bytes) -> bytes:
    return domain.encode() + b"\x00" + signed


def _fields(raw: bytes, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the object in `raw` if it has exactly these fields: an unknown one could change the meaning of the rest."""
    value = canonical.loads(raw)
    if not isinstance(value, dict) or set(value) != set(names):
        raise BadRequestError("not the fields of this format")
    return value


def _check_texts(*texts: object) -> None:
    for text in texts:
        if type(text) is not str or len(text.encode(errors="surrogatepass")) > MAX_NAME_BYTES:
            raise BadRequestError(f"a text of a header has at most {MAX_NAME_BYTES} bytes")


def _check_numbers(*numbers: object) -> None:
    for number in numbers:
        # `True` is an int to Python, and 2^53 + 1 another number to some readers (FAILURE.md G7).
        if type(number) is not int or not 0 <= number <= MAX_SAFE_INTEGER:
            raise BadRequestError("a number of a header is an integer from 0 to 2^53 - 1")


def _check_digest(text: object) -> None:
    if type(text) is not str or len(text) != _HEX_DIGEST_CHARS or not set(text) <= set("0123456789abcdef"):
        raise BadRequestError("a digest is 64 lower-case hex digits")
