"""Removing the oldest segments of a chain by policy, so that the gap can be proved: a tombstone takes their place.

A tombstone is a signed note as a checkpoint is: over the Merkle tree of exactly the records that are gone, with who removed
them, when and why. The next segment's first record carries the same tree, and every later checkpoint grows out of it: so a gap
without a tombstone, a wider one, or one over other records is found out, and what remains is proved as before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pdp.audit.checkpoint import BadNote, Checkpoint, NoteSigner, VerifierKey, opened_note, signed_note
from pdp.audit.merkle import Frontier
from pdp.audit.record import one_line

_LINES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Records that were removed by policy: which, when (RFC 3339), by whom and why."""

    first: int
    last: int
    at: str
    by: str
    why: str

    def __str__(self) -> str:
        return f"records {self.first} to {self.last} were removed by policy at {self.at} by {self.by}: {self.why}"


def tombstone(gap: Gap, chain: str, tree: Frontier, signer: NoteSigner) -> str:
    """Return the note that says that all records in `tree` are gone, the last of them with `gap`."""
    lines = (f"removed {gap.first} at {gap.at}", f"by {one_line(gap.by)}", f"because {one_line(gap.why)}")
    checkpoint = Checkpoint(origin=_origin(signer.key, chain), size=tree.size, root=tree.root(), lines=lines)
    return signed_note(checkpoint, signer)


def gaps_of(
    tombstones: Sequence[tuple[str, str]], chain: str, tree: Frontier | None, keys: Sequence[VerifierKey]
) -> tuple[Gap, ...]:
    """Return what the tombstones of a chain prove to be removed, up to the records in `tree`.

    Args:
        tombstones: spelled key and note of each, the oldest first.
        chain: its name, as its `open` records have it.
        tree: what the first record that remains says of those before it.
        keys: who may remove records; empty: whoever the tombstones name.

    Raises:
        BadNote: they do not prove it.
    """
    gaps: list[Gap] = []
    last: Checkpoint | None = None
    for spelled, note in tombstones:
        key = VerifierKey.parse(spelled)
        if keys and key not in keys:
            raise BadNote("a tombstone is signed by a key that you did not name")
        last, _ = opened_note(note, [key])
        if last.origin != _origin(key, chain):
            raise BadNote(f"a tombstone is of another chain: {last.origin}")
        gaps.append(_gap(last, gaps[-1].last if gaps else 0))
    if last is None or tree is None or (last.size, last.root) != (tree.size, tree.root()):
        raise BadNote("no tombstone is over exactly the records that are missing")
    return tuple(gaps)


def _gap(held: Checkpoint, before: int) -> Gap:
    if len(held.lines) != _LINES:
        raise BadNote("a tombstone says what was removed, by whom and why")
    what, by, why = held.lines
    _, first, _, at = [*what.split(" ", 3), "", "", ""][:4]
    if first != str(before + 1) or held.size <= before:
        raise BadNote("a tombstone does not go on from the one before it")
    return Gap(first=before + 1, last=held.size, at=at, by=by.removeprefix("by "), why=why.removeprefix("because "))


def _origin(key: VerifierKey, chain: str) -> str:
    # Another origin than that of a checkpoint: neither can be shown in the place of the other.
    return f"{key.name}/removed/{chain}"
