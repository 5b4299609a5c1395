"""The audit chain: how records are framed and linked. Bytes in, values out; no file is touched here.

Theory of operation. A chain is the sequence of one process's records, numbered from 1 over all its segments. `seal` writes
a record as canonical JSON with three fields of its own: `n` (its number), `prev` (the digest of its predecessor, zeros for
the first) and `digest` (SHA-256 over the canonical bytes with zeros in its place). On disk one record is one frame and one line:
the length of its content in six hex digits, a blank, the content, a line feed. The length tells a torn tail from a changed
record; the digests tell a change, a removal, an insertion or another order anywhere in the chain. What they cannot tell is
an end cut off at a record's boundary, or a chain written anew: for that the writer signs *checkpoints* (`checkpoint.py`) over the
Merkle tree of its records, and puts them into the chain as records of their own. How all of it is verified: `verify.py`.

A segment starts with an `open` record that continues the chain and carries the tree of all before it, so that whoever holds only
the newer segments can go on from there. Where it says `failure` or `broken`, the segment before it
may hold records behind the link: they were never acknowledged, so the chain goes on from the last one that was.
"""

import hashlib
import json
import string
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NamedTuple

from pdp.audit.merkle import Frontier, Tree, frontier_of
from pdp.audit.quick import quick
from pdp.errors import BadRequestError
from pdp.limits import MAX_AUDIT_RECORD_BYTES
from pdp.model.canonical import dumps_trusted, loads
from pdp.model.names import counted

_DOMAIN: Final = b"portcullis audit record"
_HASHER: Final = hashlib.sha256(len(_DOMAIN).to_bytes(8, "big") + _DOMAIN)
_OWN: Final = ("n", "prev", "digest")
"""The fields that `seal` adds to a record."""
_LENGTH_DIGITS: Final = 6
_OVERHEAD_BYTES: Final = _LENGTH_DIGITS + 2  # the blank and the line feed
_HEX: Final = frozenset(string.digits.encode() + b"abcdef")
_DIGEST_CHARS: Final = 64


class Verdict(IntEnum):
    """What a verification found; the number is the exit code of `pdp audit verify` (FAILURE.md S7)."""

    OK = 0
    BROKEN = 1
    UNREADABLE = 2
    SHORT = 3
    PRUNED = 4


_HOLDS: Final = frozenset({Verdict.OK, Verdict.PRUNED})


class Link(NamedTuple):
    """A position in a chain: the number of a record and its digest in hex. One is made for every record, hence a tuple."""

    n: int
    digest: str


_BLANK: Final = "0" * _DIGEST_CHARS
_ZEROS: Final = _BLANK.encode("ascii")
START: Final = Link(n=0, digest=_BLANK)
"""Where every chain begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a verification: `head` is the last record that holds, `where` and `detail` say what is wrong.

    `signed` is how many records the last checkpoint covers, `key` whose it is. `gaps` are what was removed by policy, in words.
    """

    verdict: Verdict
    records: int
    head: Link
    where: str = ""
    detail: str = ""
    signed: int = 0
    key: str = ""
    gaps: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.verdict not in _HOLDS:
            return f"{self.where}: {self.detail}" if self.where else self.detail
        signed = f", signed to record {self.signed} by {self.key.partition('+')[0]}" if self.signed else ""
        held = f"{counted(self.records, 'record')} verified, head {self.head.n}:{self.head.digest}{signed}"
        return "; ".join((*self.gaps, held))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """What the end of a segment looks like: where it is still valid, whether that is all, or what follows is a torn write.

    `torn` is False if a whole valid record stands behind the damage: then it is no torn write but a changed file, which
    is evidence and is not cut. `tree` is the chain's up to `head`, and `key` what signs it, as the first record has it; None and
    empty in the chain of an earlier version. `before` is the tree before the segment, `leaves` are what it adds.
    """

    head: Link
    valid_bytes: int
    torn: bool
    whole: bool
    tree: Frontier | None = None
    key: str = ""
    before: Frontier | None = None
    leaves: tuple[bytes, ...] = ()

    def holds(self, size: int, root: str) -> bool:
        """Tell whether the chain's first `size` records may have this root (hex); what lies before the segment is not seen."""
        if self.before is None or size > self.head.n:
            return False
        return size < self.before.size or Tree(self.before, self.leaves).root(size).hex() == root


class Malformed(ValueError):  # noqa: N818 - a finding about bytes, not an error of ours
    """Bytes that are no record."""


class Broken(ValueError):  # noqa: N818 - as above
    """A record that does not continue its chain."""


class Drafted(Mapping[str, Any]):
    """A record that writes its own canonical text, faster than an encoder that knows nothing of it; read, it is a mapping.

    INVARIANT: the text of `draft` is what `dumps` makes of the mapping; a property test holds each kind to it.
    """

    __slots__ = ()

    @abstractmethod
    def draft(self, n: int, prev: str) -> tuple[bytes, bytes]:
        """Return the text of the record as number `n`, whose predecessor has the digest `prev`: before and behind its own."""

    def plain(self) -> dict[str, Any]:
        """Return the record as a dictionary, read back from its text."""
        record: dict[str, Any] = json.loads(b"".join(self.draft(0, "")))
        for name in _OWN:
            del record[name]
        return record

    def __getitem__(self, name: str) -> Any:
        return self.plain()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.plain())

    def __len__(self) -> int:
        return len(self.plain())


def seal(record: Mapping[str, Any], after: Link) -> tuple[bytes, Link]:
    """Return the content of `record` as the successor of `after`, and its own link.

    Raises:
        Malformed: the record holds what is no JSON, or is longer than a record may be.
    """
    draft: Callable[[int, str], tuple[bytes, bytes]] | None = getattr(record, "draft", None)
    if draft is not None:  # to ask whether it is of an abstract class would take as long as its digest
        return _seal_draft(draft, after)
    n = after.n + 1
    try:
        blank = dumps_trusted({**record, "n": n, "prev": after.digest, "digest": _BLANK})
    except (TypeError, ValueError) as error:
        raise Malformed("a record holds JSON values only") from error
    own = _digest(blank)
    return _exchanged(blank, _BLANK, own), Link(n=n, digest=own)


def _seal_draft(draft: Callable[[int, str], tuple[bytes, bytes]], after: Link) -> tuple[bytes, Link]:
    n = after.n + 1
    try:
        before, behind = draft(n, after.digest)
    except (TypeError, ValueError) as error:
        raise Malformed("a record holds JSON values only") from error
    own = _digest(b"".join((before, _ZEROS, behind)))
    return b"".join((before, own.encode("ascii"), behind)), Link(n, own)


def _digest(blank: bytes) -> str:
    """Return the digest of a record from its bytes with zeros in its place: `canonical.digest`, its domain hashed once.

    Raises:
        Malformed: it is longer than a record may be.
    """
    if len(blank) > MAX_AUDIT_RECORD_BYTES:
        raise Malformed(f"a record has at most {MAX_AUDIT_RECORD_BYTES} bytes")
    hasher = _HASHER.copy()
    hasher.update(len(blank).to_bytes(8, "big") + blank)
    return hasher.hexdigest()


def _exchanged(content: bytes, old: str, new: str) -> bytes:
    """Return `content` with its own digest `old` exchanged for `new`, at the top level and nowhere else."""
    held = b'"digest":"%b"' % old.encode()
    if content.count(held) == 1:  # inside a text its quotes would be escaped, so this one is the record's own
        return content.replace(held, b'"digest":"%b"' % new.encode())
    return dumps_trusted({**json.loads(content), "digest": new})


def unseal(content: bytes, after: Link | None = None) -> tuple[dict[str, Any], Link]:
    """Return the record that `content` holds and its link, verified as the successor of `after`, if given.

    Raises:
        Malformed: no canonical JSON object, or without the fields of a chain.
        Broken: its digest is not its own, or it does not follow `after`.
    """
    record, own = _read(content)
    if _digest(_exchanged(content, own.digest, _BLANK)) != own.digest:
        raise Broken(f"record {own.n} was changed: its digest does not match")
    if after is not None:
        check_follows(own, record["prev"], after)
    return record, own


def check_follows(own: Link, prev: str, after: Link) -> None:
    """Refuse the record at `own`, whose predecessor has the digest `prev`, if it is not the successor of `after`.

    Raises:
        Broken: it is not.
    """
    if (own.n, prev) != (after.n + 1, after.digest):
        raise Broken(f"record {own.n} does not follow record {after.n}")


def examine(content: bytes) -> tuple[dict[str, Any] | None, str, Link]:
    """Return (record, digest of its predecessor, link) of a record, verified by itself.

    The record is None for most decisions, whose bytes alone were looked at.

    Raises:
        Malformed: as `unseal`.
        Broken: as `unseal`.
    """
    seen = quick(frame(content), 0, _digest)
    if seen is not None:
        _, n, prev, own = seen
        return None, prev, Link(n, own)
    record, link = unseal(content)
    return record, record["prev"], link


def _read(content: bytes) -> tuple[dict[str, Any], Link]:
    try:
        record = loads(content)
    except BadRequestError as error:
        raise Malformed("a record is canonical JSON") from error
    if not isinstance(record, dict):
        raise Malformed("a record is a JSON object")
    n, own, prev = record.get("n"), record.get("digest"), record.get("prev")
    if type(n) is not int or n < 1 or not isinstance(prev, str) or not isinstance(own, str):
        raise Malformed("a record has its number, its digest and the one before it")
    return record, Link(n=n, digest=own)


def frame(content: bytes) -> bytes:
    """Return the frame of one record: its line in a segment."""
    return framed((content,))


def framed(contents: Iterable[bytes]) -> bytes:
    """Return the frames of records, one behind the other."""
    parts: list[bytes] = []
    for content in contents:
        parts += (b"%06x " % len(content), content, b"\n")
    return b"".join(parts)


def frames(data: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield (offset behind the frame, content) of each frame from `start`.

    Raises:
        Malformed: the rest is not a whole frame.
    """
    while start < len(data):
        end = _frame_end(data, start)
        yield end, data[start + _LENGTH_DIGITS + 1 : end - 1]
        start = end


def _frame_end(data: bytes, start: int) -> int:
    digits = data[start : start + _LENGTH_DIGITS]
    if len(digits) < _LENGTH_DIGITS or not _HEX.issuperset(digits):
        raise Malformed("a frame starts with its length")
    size = int(digits, 16)
    end = start + _OVERHEAD_BYTES + size
    # The declared length is compared with the bytes that are there; nothing is allocated by it (FAILURE.md L4).
    if size > MAX_AUDIT_RECORD_BYTES or end > len(data):
        raise Malformed("a frame is cut short")
    if data[start + _LENGTH_DIGITS] != ord(" ") or data[end - 1] != ord("\n"):
        raise Malformed("a frame's length does not fit its content")
    return end


def scan(data: bytes) -> Tail | None:
    """Return how far a segment is valid by itself, and what its end looks like; None if its first record is not."""
    try:
        start, content = next(frames(data))
        record, first = unseal(content)
        tree = tree_before(record, first)
    except (StopIteration, Malformed, Broken):
        return None
    held = [(start, first)]
    try:
        held.extend((end, link) for end, _, link in read_on(data, start, first))
    except (Malformed, Broken):
        torn = not _any_record(data[held[-1][0] :])
    else:
        torn = False
    leaves = tuple(bytes.fromhex(link.digest) for _, link in held)
    before = tree.copy() if tree is not None else None
    if tree is not None:
        tree.extend(leaves)
    valid, head = held[-1]
    return Tail(
        head=head,
        valid_bytes=valid,
        torn=torn,
        whole=valid == len(data),
        tree=tree,
        key=str(record.get("key", "")),
        before=before,
        leaves=leaves,
    )


def read_on(data: bytes, start: int, after: Link) -> Iterator[tuple[int, dict[str, Any] | None, Link]]:
    """Yield (offset behind its frame, record, link) of each record from `start`, each the verified successor of the one before.

    The record is None for most decisions, whose bytes alone were looked at.

    Raises:
        Malformed: as `frames` and `unseal`.
        Broken: as `unseal`.
    """
    end, head = start, after
    while end < len(data):
        record = None
        seen = quick(data, end, _digest)
        if seen is None:
            begin, end = end, _frame_end(data, end)
            record, head = unseal(data[begin + _LENGTH_DIGITS + 1 : end - 1], head)
        else:
            end, n, prev, digest = seen
            own = Link(n, digest)
            check_follows(own, prev, head)
            head = own
        yield end, record, head


def tree_before(record: Mapping[str, Any], own: Link) -> Frontier | None:
    """Return the tree of the records before `record`, as it says itself; None if it does not.

    Raises:
        Malformed: what it says is no tree of so many records.
    """
    held = record.get("tree")
    if held is None:
        return Frontier() if own.n == 1 else None
    try:
        tree = frontier_of(held["size"], held["peaks"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Malformed("the tree of an `open` record is none") from error
    if tree.size != own.n - 1:
        raise Malformed("the tree of an `open` record is not that of the records before it")
    return tree


def _any_record(rest: bytes) -> bool:
    """Tell whether a whole record, valid by itself, stands anywhere at a line's start in `rest`."""
    start = 0
    while start < len(rest):
        try:
            unseal(next(frames(rest, start))[1])
        except (Malformed, Broken):
            feed = rest.find(b"\n", start)
            start = len(rest) if feed < 0 else feed + 1
        else:
            return True
    return False
