"""A proof that one record stands in a decision log, which takes nothing but the writer's public key to check.

It holds the record, a signed checkpoint, and the path from the one to the other: some twenty hashes for a million records. With
an earlier checkpoint, known to whoever checks, it also shows that the log has only grown since then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from pdp.audit.chain import Broken, Malformed, unseal
from pdp.audit.checkpoint import BadNote, Checkpoint, VerifierKey, opened_note
from pdp.audit.merkle import consistent, root_by_inclusion
from pdp.audit.verify import Reading

_FIELDS: Final = {"record", "checkpoint", "key", "inclusion", "since", "consistency"}
_MAX_PATH: Final = 128


class Unproven(ValueError):  # noqa: N818 - a finding about a proof, not an error of ours
    """A proof that proves nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """`record` is in the tree of `checkpoint`, by `inclusion`; which holds the tree of `since` unchanged, by `consistency`."""

    record: str
    checkpoint: str
    key: str
    inclusion: tuple[str, ...]
    since: str = ""
    consistency: tuple[str, ...] = ()

    @classmethod
    def made(cls, reading: Reading, content: bytes, n: int, since: str = "") -> Self:
        """Return the proof for record `n` of a chain that was read whole; `since` is an earlier checkpoint of it.

        Raises:
            Unproven: there is no checkpoint over it yet, or `since` is none of this chain's.
        """
        if n > reading.signed or reading.key is None:
            raise Unproven(f"record {n} is not signed yet: the last checkpoint covers {reading.signed} records")
        tree, size = reading.proofs(), reading.signed
        earlier = _opened(since, [reading.key]).size if since else 0
        if earlier > size or (since and earlier < reading.base.size):
            raise Unproven(f"the earlier checkpoint is over {earlier} records, and so cannot be compared")
        return cls(
            record=content.decode("ascii"),
            checkpoint=reading.note,
            key=str(reading.key),
            inclusion=tuple(step.hex() for step in tree.inclusion(n - 1, size)),
            since=since,
            consistency=tuple(step.hex() for step in tree.consistency(earlier, size)),
        )

    def to_json(self) -> dict[str, Any]:
        """Return what a file of this proof holds."""
        return {name: getattr(self, name) for name in sorted(_FIELDS)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Read such a file.

        Raises:
            Unproven: it holds something else.
        """
        try:
            if set(raw) != _FIELDS:
                raise TypeError
            inclusion, consistency = (tuple(map(str, raw[name])) for name in ("inclusion", "consistency"))
        except TypeError as error:
            raise Unproven("not a proof: it has other fields") from error
        if len(inclusion) > _MAX_PATH or len(consistency) > _MAX_PATH:
            raise Unproven("not a proof: its paths are too long for any log")
        record, checkpoint, key, since = (str(raw[name]) for name in ("record", "checkpoint", "key", "since"))
        return cls(
            record=record,
            checkpoint=checkpoint,
            key=key,
            inclusion=inclusion,
            since=since,
            consistency=consistency,
        )

    def check(self, keys: Sequence[VerifierKey], since: str = "") -> tuple[dict[str, Any], Checkpoint]:
        """Return the record and the checkpoint that it stands under.

        Args:
            keys: who may sign; empty: the key that the proof itself names, which is no proof of who wrote the log.
            since: the checkpoint that the checker holds, which the log must have grown from.

        Raises:
            Unproven: something of it does not hold.
        """
        try:
            trusted = list(keys) or [VerifierKey.parse(self.key)]
            record, own = unseal(self.record.encode())
        except (BadNote, Malformed, Broken) as error:
            raise Unproven(str(error)) from error
        held = _opened(self.checkpoint, trusted)
        root = root_by_inclusion(bytes.fromhex(own.digest), own.n - 1, held.size, _path(self.inclusion))
        if root != held.root:
            raise Unproven(f"record {own.n} does not stand under this checkpoint")
        if since or self.since:
            self._check_grown(_opened(since or self.since, trusted), held)
        return record, held

    def _check_grown(self, earlier: Checkpoint, held: Checkpoint) -> None:
        path = _path(self.consistency)
        if earlier.origin != held.origin:
            raise Unproven(f"the earlier checkpoint is of another chain: {earlier.origin}")
        if not consistent((earlier.size, earlier.root), (held.size, held.root), path):
            raise Unproven(f"the log of {held.size} records is not shown to go on from that of {earlier.size}")


def _opened(note: str, keys: Sequence[VerifierKey]) -> Checkpoint:
    try:
        return opened_note(note, keys)[0]
    except BadNote as error:
        raise Unproven(str(error)) from error


def _path(steps: Sequence[str]) -> list[bytes]:
    try:
        return [bytes.fromhex(step) for step in steps]
    except ValueError as error:
        raise Unproven("a path is a list of hashes in hex") from error
