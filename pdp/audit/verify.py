"""Verifying a chain: every byte read, every record the successor of the one before, every checkpoint that of these records.

Theory of operation. Segments are read in order, and a Merkle tree over the records grows along. At each checkpoint its
signature is checked, and that it is of exactly this tree: so whoever rewrites a record before it must forge a signature. What
stands behind the last checkpoint is linked and not signed; how far it must go, a reader knows who brings a checkpoint from
elsewhere. Where the oldest segments are gone, a *tombstone* must say so: a note over the tree of exactly the removed records,
which the trees that remain go on from (`prune.py`). Any other gap is a broken chain.

A failed write may leave records behind that were never acknowledged; the next segment then goes on from an earlier record. It
may not go on from before a checkpoint: a writer signs only what is durable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pdp.audit.chain import START, Broken, Link, Malformed, Report, Verdict, frames, read_on, tree_before, unseal
from pdp.audit.checkpoint import BadNote, Checkpoint, VerifierKey, opened_note, origin_of
from pdp.audit.merkle import Frontier, Tree
from pdp.audit.prune import Gap, gaps_of

_REJOINS: Final = frozenset({"failure", "broken"})
_HASH_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a reader knows of a chain from elsewhere.

    Args:
        link: a record that the chain must reach.
        notes: signed checkpoints of it, in any order.
        keys: who may sign its checkpoints and what was removed; empty: whoever the chain itself names, which is no proof of who
            wrote it.
        tombstones: the notes that lie beside it, the oldest first.
    """

    link: Link | None = None
    notes: tuple[str, ...] = ()
    keys: tuple[VerifierKey, ...] = ()
    tombstones: tuple[tuple[str, str], ...] = ()


NOTHING: Final = Known()


def verify(segments: Sequence[tuple[str, bytes]], *, checkpoint: Link | None = None, known: Known = NOTHING) -> Report:
    """Verify a whole chain, segment by segment in order; the verdict is `OK` only if every byte was read and holds.

    Args:
        segments: name (for messages) and bytes of each segment.
        checkpoint: short for `known.link`.
        known: what the chain must agree with.
    """
    known = known if checkpoint is None else replace(known, link=checkpoint)
    reading = Reading(known)
    for name, data in segments:
        try:
            reading.segment(name, data)
        except Stop as stop:
            return reading.report(stop.verdict, where=stop.where, detail=str(stop))
    try:
        reading.end()
    except Stop as stop:
        return reading.report(stop.verdict, detail=str(stop))
    return reading.report(Verdict.PRUNED if reading.gaps else Verdict.OK)


class Stop(Exception):  # noqa: N818 - a verdict on its way out
    """Why a chain was read no further."""

    def __init__(self, verdict: Verdict, detail: str, where: str = "") -> None:
        super().__init__(detail)
        self.verdict = verdict
        self.where = where


@dataclass(slots=True)
class Reading:
    """A chain as far as it was read; after the last segment, what proofs are made from."""

    known: Known = NOTHING
    before: Link = START
    head: Link = START
    records: int = 0
    key: VerifierKey | None = None
    chain: str = ""
    base: Frontier = field(default_factory=Frontier)
    tree: Frontier = field(default_factory=Frontier)
    leaves: bytearray = field(default_factory=bytearray)
    signed: int = 0
    note: str = ""
    gaps: tuple[Gap, ...] = ()

    def segment(self, name: str, data: bytes) -> None:
        """Read one segment after those before."""
        if not data:
            raise Stop(Verdict.UNREADABLE, "the segment is empty", name)
        line = 1
        try:
            start = self._open(data)
            line = 2
            for _, record, head in read_on(data, start, self.head):
                if record is not None:
                    self._look(record)
                self._add(head)
                line += 1
        except Broken as error:
            raise Stop(Verdict.BROKEN, str(error), f"{name}:{line}") from error
        except Malformed as error:
            raise Stop(Verdict.UNREADABLE, str(error), f"{name}:{line}") from error

    def end(self) -> None:
        """Compare the whole with what is known from elsewhere."""
        if self.records == 0:
            raise Stop(Verdict.UNREADABLE, "there is no record")
        if self.known.keys and not self.signed:
            raise Stop(Verdict.BROKEN, "no checkpoint in it is signed by a key that you named")
        if self.known.link is not None:
            self._at_link(self.known.link)
        for note in self.known.notes:
            self._at_note(note)

    def report(self, verdict: Verdict, *, where: str = "", detail: str = "") -> Report:
        """Return what was found."""
        return Report(
            verdict=verdict,
            records=self.records,
            head=self.head,
            where=where,
            detail=detail,
            signed=self.signed,
            key=str(self.key or ""),
            gaps=tuple(map(str, self.gaps)),
        )

    def proofs(self) -> Tree:
        """Return the tree of what was read, to make proofs from."""
        leaves = self.leaves
        held = [bytes(leaves[at : at + _HASH_BYTES]) for at in range(0, len(leaves), _HASH_BYTES)]
        return Tree(self.base, held)

    # --- a segment's first record ----------------------------------------------------------------------------------------

    def _open(self, data: bytes) -> int:
        """Read the first record of a segment: the head's successor, or after a failed write an earlier record's."""
        start, content = next(frames(data))
        record, own = unseal(content)
        if record.get("kind") != "open":
            raise Broken("a segment starts with an `open` record")
        before = Link(n=own.n - 1, digest=str(record["prev"]))
        tree = tree_before(record, own)
        if self.records == 0 and own.n > 1:
            self._go_on_from(before, tree, str(record.get("chain", "")))
        elif record.get("reason") in _REJOINS and self._passed(before):
            self._back_to(before)
        if before != self.head:
            raise Broken(f"record {own.n} does not follow record {self.head.n}")
        if record.get("tree") is not None and tree != self.tree:
            raise Broken(f"record {own.n} carries another tree than that of the records before it")
        self._look(record)
        self._add(own)
        return start

    def _go_on_from(self, before: Link, tree: Frontier | None, chain: str) -> None:
        """Start behind records that are gone, if a tombstone says so."""
        try:
            self.gaps = gaps_of(self.known.tombstones, chain, tree, self.known.keys)
        except BadNote as error:
            raise Broken(f"records 1 to {before.n} are missing: {error}") from error
        if tree is not None:
            self.base, self.tree, self.head, self.before = tree.copy(), tree.copy(), before, before

    def _passed(self, before: Link) -> bool:
        return self.base.size < before.n < self.head.n and self._digest_of(before.n) == before.digest

    def _back_to(self, before: Link) -> None:
        if before.n < self.signed:
            raise Broken(f"it goes on from record {before.n}, but {self.signed} records were signed")
        del self.leaves[(before.n - self.base.size) * _HASH_BYTES :]
        self.tree = self.base.copy()
        self.tree.extend(bytes(self.leaves[at : at + _HASH_BYTES]) for at in range(0, len(self.leaves), _HASH_BYTES))
        self.head = before

    # --- any record --------------------------------------------------------------------------------------------------

    def _add(self, head: Link) -> None:
        leaf = bytes.fromhex(head.digest)
        self.head = head
        self.leaves += leaf
        self.tree.add(leaf)
        self.records += 1

    def _look(self, record: Mapping[str, Any]) -> None:
        """Take note of what a record other than a decision says of its chain."""
        kind = record.get("kind")
        try:
            if kind == "open":
                self._look_at_key(record)
            elif kind == "checkpoint":
                self._look_at_checkpoint(record)
        except BadNote as error:
            raise Broken(f"record {record['n']}: {error}") from error

    def _look_at_key(self, record: Mapping[str, Any]) -> None:
        chain, spelled = str(record.get("chain", "")), str(record.get("key", ""))
        key = VerifierKey.parse(spelled) if spelled else None
        if self.records and (key, chain) != (self.key, self.chain):
            raise Broken(f"record {record['n']} names another key or chain than the first one")
        if self.known.keys and key not in self.known.keys:
            raise Broken(f"record {record['n']} names no key, or none that you named")
        self.key, self.chain = key, chain

    def _look_at_checkpoint(self, record: Mapping[str, Any]) -> None:
        if self.key is None:
            raise Broken(f"record {record['n']} is a checkpoint, but the chain names no key")
        note = str(record.get("note", ""))
        held, _ = opened_note(note, [self.key])
        if held != Checkpoint(origin=origin_of(self.key, self.chain), size=self.tree.size, root=self.tree.root()):
            raise Broken(f"record {record['n']} is a checkpoint of other records than those before it")
        self.signed, self.note = held.size, note

    # --- what is known from elsewhere ----------------------------------------------------------------------------------

    def _at_link(self, link: Link) -> None:
        self._reaches(link.n)
        if self._digest_of(link.n) != link.digest:
            raise Stop(Verdict.BROKEN, f"record {link.n} is not the known one: the chain was rewritten")

    def _at_note(self, note: str) -> None:
        try:
            held, _ = opened_note(note, self.known.keys or ([self.key] if self.key else []))
        except BadNote as error:
            raise Stop(Verdict.UNREADABLE, f"the known checkpoint: {error}") from error
        if self.key is None or held.origin != origin_of(self.key, self.chain):
            raise Stop(Verdict.UNREADABLE, f"the known checkpoint is of another chain: {held.origin}")
        self._reaches(held.size)
        if self.proofs().root(held.size) != held.root:
            raise Stop(Verdict.BROKEN, f"its first {held.size} records are not those that were signed: a fork")

    def _reaches(self, n: int) -> None:
        if n > self.head.n:
            detail = f"the chain ends at record {self.head.n}, before the known record {n}"
            raise Stop(Verdict.SHORT, detail)
        if n < self.base.size:
            detail = f"record {n} was removed by policy: what is known of it cannot be compared any more"
            raise Stop(Verdict.UNREADABLE, detail)

    def _digest_of(self, n: int) -> str:
        """Return the digest of a record that was read, or of the last one that was removed."""
        at = (n - self.base.size - 1) * _HASH_BYTES
        return self.leaves[at : at + _HASH_BYTES].hex() if at >= 0 else self.before.digest
