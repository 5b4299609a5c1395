"""The one mutable cell of a process: the world it holds, and how fresh that world is.

    prepare (verify, fold)  ->  the caller persists  ->  commit (swap one reference, tell the listeners)

A reader takes `world` once and pins it; it is immutable, and a swap never disturbs whoever holds the old one. Whatever is
refused leaves the world as it was, is counted, and stands in `last_error`. Freshness comes from heartbeats alone: a world is
as stale as the newest heartbeat that named it (or that it has passed), and infinitely stale before the first.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pdp.errors import PortcullisError, Reason
from pdp.limits import MAX_CLOCK_SKEW_S, RECEIPTS_KEPT
from pdp.trust.entry import (
    Head,
    SignedEntry,
    SignedHeartbeat,
    SignedSnapshot,
    SnapshotHeader,
    VerifiedHeartbeat,
    peek_seq,
)
from pdp.trust.keys import RootFile
from pdp.trust.verifier import Fault, Refused, TrustVerifier
from pdp.world import World, empty_world, fold, from_state

NEVER: Final = float("inf")

Listener = Callable[[World], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A verified next world, not yet in force: persist `signed`, then `commit` this."""

    base: World
    world: World
    signed: SignedEntry | SignedSnapshot

    @property
    def seq(self) -> int:
        """The number of the next world."""
        return self.world.seq


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """A heartbeat, with its age when it was heard and the monotonic time of that moment."""

    heartbeat: VerifiedHeartbeat
    age_s: float
    mono_s: float


class Replica:
    """Holds the world of this process.

    Args:
        verifier: what it believes.
        world: what it starts from, usually `empty_world(tenant)`.
    """

    def __init__(self, *, verifier: TrustVerifier, world: World) -> None:
        self._verifier = verifier
        self._world = world
        self._mark = world.seq
        self._newest: _Heard | None = None
        self._fresh: _Heard | None = None
        self._passed: OrderedDict[int, bytes] = OrderedDict()
        self._listeners: dict[object, Listener] = {}
        self.last_error = ""
        self.counters: Counter[str] = Counter()

    @property
    def world(self) -> World:
        """The world in force. Read it once per request and pin it."""
        return self._world

    @property
    def head(self) -> Head:
        """Number and digest of the newest entry in force."""
        return Head(seq=self._world.seq, digest=self._world.head)

    @property
    def verifier(self) -> TrustVerifier:
        """What this replica believes."""
        return self._verifier

    @property
    def mark(self) -> int:
        """The highest number ever held, also before the last restart."""
        return max(self._mark, self._world.seq)

    def has_passed(self, entry: SignedEntry) -> bool:
        """Tell whether exactly this entry has been in force here, lately."""
        return self._passed.get(peek_seq(entry)) == entry.digest

    def trust(self, root: RootFile) -> bool | Refused:
        """Take the next root file; True if it rules that our world stands on a dead entry: persist that, then `forget`.

        A root file of another version than the next, or not signed by the roots of the one held, changes nothing.
        """
        held = self._verifier.root
        if not root.succeeds(held):
            detail = f"root file {root.version} does not succeed {held.version}"
            return self.refused(Refused(reason=Fault.ROOT_REFUSED, detail=detail))
        self._verifier = self._verifier.succeeded_by(root)
        self.counters["roots"] += 1
        ruling = root.ruling
        if ruling is None or ruling == held.ruling or self._world.seq < ruling.seq:
            return False
        passed = self._world.head if self._world.seq == ruling.seq else self._passed.get(ruling.seq)
        return passed is None or passed.hex() != ruling.digest  # not known: begin anew rather than guess

    def forget(self) -> None:
        """Give up the world for an empty one, which allows nothing, and begin again: only a root file's ruling does."""
        self._world = empty_world(self._verifier.tenant)
        self._mark = 0
        self._newest = self._fresh = None
        self._passed.clear()
        self.counters["forgotten"] += 1
        for listener in tuple(self._listeners.values()):
            listener(self._world)

    def remember(self, mark: int) -> None:
        """Take over the high-water mark that the disk remembers; nothing below it ever counts as fresh."""
        self._mark = max(self._mark, mark)

    def prepare(self, entry: SignedEntry, *, now_ms: int) -> Prepared | Refused:
        """Verify `entry` and fold it into the next world, without putting that in force."""
        base = self._world
        verified = self._verifier.verify_entry(
            entry,
            head=Head(seq=base.seq, digest=base.head),
            now_ms=now_ms,
            not_before_ms=base.signed_ms,
        )
        if isinstance(verified, Refused):
            return self.refused(verified)
        try:
            return Prepared(base=base, world=fold(base, verified), signed=entry)
        except PortcullisError as error:  # a signed entry that makes no valid world is poison, not an attack (F19)
            return self.refused(Refused(reason=Fault.FOLD_REFUSED, detail=error.message))

    def prepare_snapshot(self, snapshot: SignedSnapshot, *, now_ms: int) -> Prepared | Refused:
        """Verify a snapshot and load the world in it, without putting that in force."""
        heartbeat = self._newest.heartbeat if self._newest else None
        return self._load(snapshot, mark=self.mark, heartbeat=heartbeat, now_ms=now_ms)

    def prepare_stored(self, snapshot: SignedSnapshot, *, now_ms: int) -> Prepared | Refused:
        """The same for the snapshot that our own disk kept: the mark lies above it by the tail that follows it.

        Nothing below the mark counts as fresh, so an older snapshot put in its place decides nothing.
        """
        return self._load(snapshot, mark=0, heartbeat=None, now_ms=now_ms)

    def sealed(self, snapshot: SignedSnapshot, world: World, *, now_ms: int) -> SnapshotHeader | Refused:
        """Verify that a snapshot whose state we have spelled out ourselves is what was signed of `world`, once ours."""
        head = Head(seq=world.seq, digest=world.head)
        header = self._verifier.verify_seal(snapshot, head=head, mark=0, heartbeat=None, now_ms=now_ms)
        return self.refused(header) if isinstance(header, Refused) else header

    def _load(
        self, snapshot: SignedSnapshot, *, mark: int, heartbeat: VerifiedHeartbeat | None, now_ms: int
    ) -> Prepared | Refused:
        verified = self._verifier.verify_snapshot(
            snapshot, head=self.head, mark=mark, heartbeat=heartbeat, now_ms=now_ms
        )
        if isinstance(verified, Refused):
            return self.refused(verified)
        try:
            world = from_state(verified.state)
        except PortcullisError as error:
            return self.refused(Refused(reason=Fault.FOLD_REFUSED, detail=error.message))
        if (world.tenant, world.seq, world.head) != (self._verifier.tenant, verified.head.seq, verified.head.digest):
            # The state is another position's than the header around it (mix-and-match).
            return self.refused(Refused(reason=Fault.PAYLOAD_MISMATCH, detail="the state is not of its header's head"))
        if world.signed_ms > verified.header.time_ms:
            # The header's time is bounded (V5); a later one inside would push `now` away behind its back.
            return self.refused(Refused(reason=Fault.PAYLOAD_MISMATCH, detail="the state is later than its header"))
        return Prepared(base=self._world, world=world, signed=snapshot)

    def commit(self, prepared: Prepared) -> None:
        """Put a prepared world in force, once the caller has persisted it, and tell the listeners.

        Raises:
            PortcullisError: `conflict`: another world was committed since `prepare`.
        """
        if prepared.base is not self._world:
            raise PortcullisError(Reason.CONFLICT, f"world {self._world.seq} came first")
        # INVARIANT: the one place where the reference is swapped.
        self._world = prepared.world
        self._passed[prepared.world.seq] = prepared.world.head
        if len(self._passed) > RECEIPTS_KEPT:
            self._passed.popitem(last=False)
        self.counters["committed"] += 1
        self._promote()
        for listener in tuple(self._listeners.values()):
            listener(prepared.world)

    def heard(self, heartbeat: SignedHeartbeat, *, now_ms: int, mono_s: float) -> bool | Refused:
        """Take a heartbeat: True if it makes our world fresher, False if it says nothing new or names a head to come.

        Args:
            heartbeat: as the carrier gave it.
            now_ms: wall clock, in milliseconds since the epoch.
            mono_s: monotonic clock, in seconds.
        """
        return self._hear(heartbeat, now_ms=now_ms, mono_s=mono_s, stored=False)

    def restore_heartbeat(self, heartbeat: SignedHeartbeat, *, now_ms: int, mono_s: float) -> bool | Refused:
        """Take the heartbeat that the disk kept: its age is wall time, and a clock behind it makes it stale (F12)."""
        return self._hear(heartbeat, now_ms=now_ms, mono_s=mono_s, stored=True)

    def _hear(self, heartbeat: SignedHeartbeat, *, now_ms: int, mono_s: float, stored: bool) -> bool | Refused:
        verified = self._verifier.verify_heartbeat(heartbeat, now_ms=now_ms)
        if isinstance(verified, Refused):
            return self.refused(verified)
        refusal = self._contradicted(verified)
        if refusal is not None:
            return self.refused(refusal)
        if self._newest is not None and verified.time_ms <= self._newest.heartbeat.time_ms:
            return False  # heard before: repeating it makes nothing fresher (indefinite freeze)
        age_s = (now_ms - verified.time_ms) / 1000
        if stored and age_s < 0:
            age_s = NEVER
        self._newest = _Heard(heartbeat=verified, age_s=max(0.0, age_s), mono_s=mono_s)
        return self._promote()

    def _contradicted(self, heartbeat: VerifiedHeartbeat) -> Refused | None:
        """Refuse a heartbeat over another history than ours: a store that lost or exchanged entries (F4, F5)."""
        head, named = self.head, heartbeat.head
        held = head.digest if named.seq == head.seq else self._passed.get(named.seq, named.digest)
        if held != named.digest:
            return Refused(reason=Fault.EQUIVOCATION, detail=f"the store holds another entry under number {named.seq}")
        if named.seq < head.seq and heartbeat.time_ms > self._world.signed_ms + MAX_CLOCK_SKEW_S * 1000:
            detail = f"the store is back at {named.seq}, we hold {head.seq}"
            return Refused(reason=Fault.ROLLBACK, detail=detail)
        return None

    def _promote(self) -> bool:
        """Let the newest heartbeat count if the world has reached the head it names; tell whether it did."""
        newest = self._newest
        if newest is None or newest is self._fresh or newest.heartbeat.head.seq > self._world.seq:
            return False
        named = newest.heartbeat.head
        if named.seq == self._world.seq and named.digest != self._world.head:
            self.refused(Refused(reason=Fault.EQUIVOCATION, detail=f"the heartbeat names another entry {named.seq}"))
            return False
        self._fresh = newest
        if named.seq == self._world.seq:
            self.last_error = ""  # we hold what the log holds: whatever was refused has not kept us behind
        return True

    def staleness_s(self, *, now_ms: int, mono_s: float) -> float:  # noqa: ARG002 - part of the seam
        """Return how old our newest proof of freshness is, in seconds; infinite before the first.

        Its age on arrival is wall time (a delayed heartbeat is old when it comes), from then on it ages by the
        monotonic clock, which no one can set back.
        """
        fresh = self._fresh  # read once: the SDK's local mode decides in its callers' threads
        if fresh is None or self._world.seq < self._mark:
            return NEVER
        return fresh.age_s + max(0.0, mono_s - fresh.mono_s)

    def skew_s(self, *, now_ms: int, mono_s: float) -> float:
        """Return by how much the local clock is ahead of signed time, in seconds (negative: behind); 0 if unknown."""
        newest = self._newest
        if newest is None:
            return 0.0
        signed_ms = newest.heartbeat.time_ms + max(0.0, mono_s - newest.mono_s) * 1000
        return (now_ms - signed_ms) / 1000

    @property
    def signed_ms(self) -> int:
        """The newest signed time known, in milliseconds since the epoch."""
        newest = self._newest
        return max(self._world.signed_ms, newest.heartbeat.time_ms if newest else 0)

    @property
    def heartbeat_ms(self) -> int:
        """Signed time of the heartbeat that proves our world fresh; 0 before the first."""
        return self._fresh.heartbeat.time_ms if self._fresh else 0

    @property
    def proof(self) -> SignedHeartbeat | None:
        """The heartbeat that proves our world fresh, to be kept on disk."""
        return self._fresh.heartbeat.signed if self._fresh else None

    def now_ms(self, wall_ms: int) -> int:
        """Return the time for policy: the wall clock, never before the newest signed time."""
        return max(wall_ms, self.signed_ms)

    def on_change(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every new world; returns the function that ends it. A listener must not raise."""
        key = object()
        self._listeners[key] = listener

        def unsubscribe() -> None:
            self._listeners.pop(key, None)

        return unsubscribe

    def refused(self, refusal: Refused) -> Refused:
        """Count a refusal and remember it as the last error; returns it."""
        self.counters[f"refused_{refusal.reason.value}"] += 1
        self.last_error = str(refusal)
        return refusal

    def failed(self, reason: str, detail: str) -> None:
        """Remember a failure around the replica (store, feed) for `doctor` and health."""
        self.counters[f"failed_{reason}"] += 1
        self.last_error = f"{reason}: {detail}"
