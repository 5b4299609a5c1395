"""What a replica believes, and why: bytes in, verified values or refusals out.

Pure. The numbered steps are the rules V1-V6 of FAILURE.md section 3, in that order; each comment names the attack that the
step blocks. The caller reads no content before this module has returned a `Verified…`. V8 (the fold) and V9 (persist before
use) are `pdp.replica`'s and its caller's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from pdp.errors import BadRequestError
from pdp.limits import (
    MAX_ENTRY_BYTES,
    MAX_HEADER_BYTES,
    MAX_SEQ_JUMP,
    MAX_SIGNATURES,
    MAX_SIGNED_AHEAD_S,
    MAX_SNAPSHOT_BYTES,
)
from pdp.model import canonical
from pdp.trust.entry import (
    ENGINE,
    EntryHeader,
    Head,
    HeartbeatBody,
    Signature,
    SignedEntry,
    SignedHeartbeat,
    SignedSnapshot,
    SnapshotHeader,
    VerifiedEntry,
    VerifiedHeartbeat,
    VerifiedSnapshot,
    entry_message,
    heartbeat_message,
    payload_digest,
    snapshot_message,
    state_digest,
)
from pdp.trust.keys import PublicKey, Role, RootFile, signers

_Signed = TypeVar("_Signed", EntryHeader, HeartbeatBody, SnapshotHeader)


class Fault(StrEnum):
    """Why something from a carrier is refused. The codes are stable: counters and `doctor` show them."""

    OVERSIZED = "oversized"
    BAD_SIGNATURE = "bad_signature"
    KEY_EXPIRED = "key_expired"
    MALFORMED = "malformed"
    PAYLOAD_MISMATCH = "payload_mismatch"
    WRONG_TENANT = "wrong_tenant"
    ROLLBACK = "rollback"
    DUPLICATE = "duplicate"
    EQUIVOCATION = "equivocation"
    GAP = "gap"
    JUMP = "jump"
    AHEAD_OF_HEARTBEAT = "ahead_of_heartbeat"
    EXPIRED = "expired"
    TIME_REVERSED = "time_reversed"
    FROM_THE_FUTURE = "from_the_future"
    ENGINE_TOO_OLD = "engine_too_old"
    FOLD_REFUSED = "fold_refused"
    ROOT_REFUSED = "root_refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A refusal: a stable reason, and a sentence for an operator. It never moves the world."""

    reason: Fault
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)


class TrustVerifier:
    """Verifies for one tenant against one root file.

    Args:
        root: the root file, already trusted (by its pinned digest, or as the successor of a trusted one).
        tenant: whose log this is.
        engine: the level of this engine.
    """

    def __init__(self, root: RootFile, tenant: str, *, engine: int = ENGINE) -> None:
        if root.tenant != tenant:
            raise BadRequestError(f"the root file is that of tenant `{root.tenant}`, not of `{tenant}`")
        self._root = root
        self._tenant = tenant
        self._engine = engine

    @property
    def tenant(self) -> str:
        """Whose log this verifies."""
        return self._tenant

    @property
    def root(self) -> RootFile:
        """What this verifier trusts."""
        return self._root

    def verify_entry(
        self, signed: SignedEntry, *, head: Head, now_ms: int, not_before_ms: int = 0
    ) -> VerifiedEntry | Refused:
        """Verify the entry that shall follow `head`.

        Args:
            signed: the entry as the carrier gave it.
            head: number and digest of the newest entry held.
            now_ms: wall clock, in milliseconds since the epoch.
            not_before_ms: signed time of the newest entry held; the log's time never goes back.
        """
        # V1: nothing larger than its cap is hashed, checked or parsed (endless data, amplification).
        if _too_large(signed.header, signed.payload, MAX_ENTRY_BYTES, signed.signatures):
            return Refused(reason=Fault.OVERSIZED, detail="an entry beyond its caps")
        # V2: the exact bytes, by distinct keys of the publish role, before any content is read (arbitrary installation,
        # threshold by repeating one key).
        opened = self._opened(EntryHeader, Role.PUBLISH, signed.header, entry_message(signed.header), signed.signatures)
        if isinstance(opened, Refused):
            return opened
        header, keys = opened
        refusal = (
            # V2, second half: inside each key's validity (a key found after its retirement).
            self._in_force(Role.PUBLISH, keys, time_ms=header.time_ms, seq=header.seq)
            # The payload is the one that the header names (tampering in the store, payloads exchanged).
            or _names(header.payload_digest, payload_digest(signed.payload), f"entry {header.seq}")
            # V3: our tenant inside the signed bytes (another tenant's entry replayed to us).
            or self._ours(header.tenant)
            # V4: the successor of our head by number and by digest (rollback, omission, a forked log).
            or _succeeds(header, signed.digest, head)
            # Where the root keys have ruled between two entries under one number, the other one is dead.
            or self._ruled(header.seq, signed.digest)
            # V5: in time (expired content served on; a clock that ran away; a backdated entry).
            or _timely(header, now_ms=now_ms, not_before_ms=not_before_ms)
            # V6: an engine that does not know what an entry means refuses it (engine downgrade).
            or self._understood(header.min_engine)
        )
        payload = _content(signed.payload) if refusal is None else refusal
        if isinstance(payload, Refused):
            return payload
        return VerifiedEntry(header=header, payload=payload, digest=signed.digest, signed=signed)

    def verify_heartbeat(self, signed: SignedHeartbeat, *, now_ms: int) -> VerifiedHeartbeat | Refused:
        """Verify a heartbeat. How old it may be depends on what is asked; `pdp.replica` keeps its age."""
        # V1 (endless data).
        if len(signed.body) > MAX_HEADER_BYTES:
            return Refused(reason=Fault.OVERSIZED, detail="a heartbeat beyond its cap")
        # V2: only timestamp keys, so a stolen publish key cannot vouch for what it wrote.
        message = heartbeat_message(signed.body)
        opened = self._opened(HeartbeatBody, Role.TIMESTAMP, signed.body, message, (signed.signature,))
        if isinstance(opened, Refused):
            return opened
        body, keys = opened
        refusal = (
            self._in_force(Role.TIMESTAMP, keys, time_ms=body.time_ms, seq=body.seq)
            # V3 (another tenant's heartbeat would keep our old world fresh).
            or self._ours(body.tenant)
            # V5 (a clock that ran away would keep this world fresh for as long).
            or _not_ahead(body.time_ms, now_ms)
        )
        if refusal is not None:
            return refusal
        return VerifiedHeartbeat(
            head=Head(seq=body.seq, digest=bytes.fromhex(body.head)), time_ms=body.time_ms, signed=signed
        )

    def verify_snapshot(
        self, signed: SignedSnapshot, *, head: Head, mark: int, heartbeat: VerifiedHeartbeat | None, now_ms: int
    ) -> VerifiedSnapshot | Refused:
        """Verify a snapshot that shall replace a world at `head`.

        Args:
            signed: the snapshot as the carrier gave it.
            head: number and digest of the newest entry held.
            mark: the highest number that this replica has ever held, as its disk remembers it.
            heartbeat: the newest heartbeat, if one was heard.
            now_ms: wall clock, in milliseconds since the epoch.
        """
        header = self.verify_seal(signed, head=head, mark=mark, heartbeat=heartbeat, now_ms=now_ms)
        state = header if isinstance(header, Refused) else _content(signed.state)
        if isinstance(header, Refused) or isinstance(state, Refused):
            return state
        return VerifiedSnapshot(
            header=header, state=state, head=Head(seq=header.seq, digest=bytes.fromhex(header.head)), signed=signed
        )

    def verify_seal(
        self, signed: SignedSnapshot, *, head: Head, mark: int, heartbeat: VerifiedHeartbeat | None, now_ms: int
    ) -> SnapshotHeader | Refused:
        """Verify all of a snapshot but that its state can be read: enough where we have spelled it out ourselves."""
        # V1 (endless data).
        if _too_large(signed.header, signed.state, MAX_SNAPSHOT_BYTES, signed.signatures):
            return Refused(reason=Fault.OVERSIZED, detail="a snapshot beyond its caps")
        # V2 (arbitrary installation).
        opened = self._opened(
            SnapshotHeader, Role.PUBLISH, signed.header, snapshot_message(signed.header), signed.signatures
        )
        if isinstance(opened, Refused):
            return opened
        header, keys = opened
        refusal = (
            self._in_force(Role.PUBLISH, keys, time_ms=header.time_ms, seq=header.seq)
            # The state is the one that the header names (mix-and-match).
            or _names(header.state_digest, state_digest(signed.state), f"snapshot {header.seq}")
            # V3 (another tenant's world).
            or self._ours(header.tenant)
            # V4: not below what was ever held, not above what a heartbeat names (rollback, fast-forward).
            or _placed(header, head=head, mark=mark, heartbeat=heartbeat)
            # V5 (a clock that ran away).
            or _not_ahead(header.time_ms, now_ms)
            # V6 (engine downgrade).
            or self._understood(header.min_engine)
        )
        return header if refusal is None else refusal

    def _opened(
        self, kind: type[_Signed], role: Role, raw: bytes, message: bytes, signatures: Iterable[Signature]
    ) -> tuple[_Signed, frozenset[PublicKey]] | Refused:
        """Check the signatures first, and only then parse what they cover."""
        keys = signers(self._root, role, message, signatures)
        if len(keys) < self._root.roles[role].threshold:
            return Refused(reason=Fault.BAD_SIGNATURE, detail=f"not signed by enough {role} keys of the root file")
        try:
            return kind.decode(raw), keys
        except BadRequestError as error:
            return Refused(reason=Fault.MALFORMED, detail=error.message)

    def _in_force(self, role: Role, keys: Iterable[PublicKey], *, time_ms: int, seq: int) -> Refused | None:
        if sum(key.valid(time_ms=time_ms, seq=seq) for key in keys) >= self._root.roles[role].threshold:
            return None
        return Refused(reason=Fault.KEY_EXPIRED, detail=f"signed with a {role} key outside its validity")

    def _ours(self, tenant: str) -> Refused | None:
        if tenant == self._tenant:
            return None
        return Refused(reason=Fault.WRONG_TENANT, detail=f"signed for tenant `{tenant}`, we are `{self._tenant}`")

    def _ruled(self, seq: int, digest: bytes) -> Refused | None:
        ruling = self._root.ruling
        if ruling is None or seq != ruling.seq or digest.hex() == ruling.digest:
            return None
        return Refused(reason=Fault.EQUIVOCATION, detail=f"the root keys chose another entry {seq}")

    def succeeded_by(self, root: RootFile) -> "TrustVerifier":
        """Return the verifier of the next root file; the caller has checked that it succeeds ours."""
        return TrustVerifier(root, self._tenant, engine=self._engine)

    def _understood(self, min_engine: int) -> Refused | None:
        if min_engine <= self._engine:
            return None
        return Refused(
            reason=Fault.ENGINE_TOO_OLD, detail=f"it needs engine {min_engine}, this is {self._engine}: upgrade"
        )


def _too_large(header: bytes, content: bytes, max_bytes: int, signatures: tuple[Signature, ...]) -> bool:
    return len(header) > MAX_HEADER_BYTES or len(content) > max_bytes or len(signatures) > MAX_SIGNATURES


def _names(named: str, found: str, what: str) -> Refused | None:
    if named == found:
        return None
    return Refused(reason=Fault.PAYLOAD_MISMATCH, detail=f"{what} came with another content than it names")


def _content(raw: bytes) -> Any | Refused:
    """Parse what is signed by now; a publisher's defect is refused like an attack."""
    try:
        return canonical.loads(raw)
    except BadRequestError as error:
        return Refused(reason=Fault.MALFORMED, detail=error.message)


def _succeeds(header: EntryHeader, digest: bytes, head: Head) -> Refused | None:
    if header.seq == head.seq + 1:
        if header.prev == head.digest.hex():
            return None
        return Refused(
            reason=Fault.EQUIVOCATION,
            detail=f"entry {header.seq} follows {header.prev[:16]}, we hold {head.digest.hex()[:16]} under {head.seq}",
        )
    if header.seq > head.seq:
        return Refused(reason=Fault.GAP, detail=f"entry {header.seq} came while we hold {head.seq}")
    if header.seq < head.seq:
        return Refused(reason=Fault.ROLLBACK, detail=f"entry {header.seq} came while we hold {head.seq}")
    if digest == head.digest:
        return Refused(reason=Fault.DUPLICATE, detail=f"entry {header.seq} is held already")
    return Refused(
        reason=Fault.EQUIVOCATION,
        detail=f"two entries under number {head.seq}: {digest.hex()[:16]} and {head.digest.hex()[:16]}",
    )


def _timely(header: EntryHeader, *, now_ms: int, not_before_ms: int) -> Refused | None:
    if header.expires_ms and max(now_ms, not_before_ms) >= header.expires_ms:  # a clock set back revives nothing
        return Refused(reason=Fault.EXPIRED, detail=f"entry {header.seq} has expired")
    if header.time_ms < not_before_ms:
        return Refused(reason=Fault.TIME_REVERSED, detail=f"entry {header.seq} is dated before its predecessor")
    return _not_ahead(header.time_ms, now_ms)


def _not_ahead(time_ms: int, now_ms: int) -> Refused | None:
    if time_ms - now_ms <= MAX_SIGNED_AHEAD_S * 1000:
        return None
    ahead_s = (time_ms - now_ms) // 1000
    return Refused(reason=Fault.FROM_THE_FUTURE, detail=f"signed {ahead_s} s ahead of this machine's clock")


def _placed(header: SnapshotHeader, *, head: Head, mark: int, heartbeat: VerifiedHeartbeat | None) -> Refused | None:
    if header.seq < max(head.seq, mark):
        return Refused(reason=Fault.ROLLBACK, detail=f"snapshot {header.seq} is below {max(head.seq, mark)}, once held")
    for known in (head, heartbeat.head if heartbeat else head):
        if header.seq == known.seq and header.head != known.digest.hex():
            return Refused(reason=Fault.EQUIVOCATION, detail=f"another world under number {known.seq}")
    if heartbeat is not None and header.seq > heartbeat.head.seq:
        return Refused(
            reason=Fault.AHEAD_OF_HEARTBEAT, detail=f"snapshot {header.seq}, the head is {heartbeat.head.seq}"
        )
    if header.seq - head.seq > MAX_SEQ_JUMP:
        return Refused(reason=Fault.JUMP, detail=f"snapshot {header.seq} is too far above {head.seq}")
    return None
