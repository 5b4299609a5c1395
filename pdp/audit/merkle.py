"""Merkle trees over the records of a chain: roots, and proofs that take nothing but a root to check.

Theory of operation. The leaves of a chain's tree are the digests of its records, in order. A tree that only grows is told by
the roots of its perfect subtrees alone (`Frontier`): a writer carries some twenty hashes for a million records, and a
reader whose older records were removed by policy goes on from them. Two proofs are made of other subtrees' roots: that a
record stands in the tree of a root (`inclusion`), and that a later tree holds an earlier one unchanged (`consistency`).

Source: RFC 6962 section 2.1 (hashing, paths), RFC 9162 section 2.1.3.2 and 2.1.4.2 (checking them).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"
_HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of a leaf: told apart from a node's, so that no node can be passed off as a record."""
    return hashlib.sha256(_LEAF + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node over its two children."""
    return hashlib.sha256(_NODE + left + right).digest()


@dataclass(slots=True)
class Frontier:
    """A growing tree: its size, and the roots of its perfect subtrees from the largest to the smallest."""

    size: int = 0
    peaks: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.size.bit_count() != len(self.peaks) or any(len(peak) != _HASH_BYTES for peak in self.peaks):
            raise ValueError("a tree of a size has as many perfect subtrees as its size has ones")

    def add(self, leaf: bytes) -> None:
        """Append one leaf."""
        self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Append leaves in their order: level by level, two neighbours become one of the next."""
        row = list(map(leaf_hash, leaves))
        size, self.size = self.size, self.size + len(row)
        odd = []
        while row:
            if size & 1:
                row.insert(0, self.peaks.pop())
            if len(row) & 1:
                odd.append(row.pop())
            row = list(map(node_hash, row[::2], row[1::2]))
            size >>= 1
        self.peaks.extend(reversed(odd))

    def copy(self) -> Self:
        """Return a tree that grows apart from this one."""
        return type(self)(self.size, list(self.peaks))

    def root(self) -> bytes:
        """Return the root of the tree as it is."""
        if not self.peaks:
            return EMPTY_ROOT
        *others, root = self.peaks
        for peak in reversed(others):
            root = node_hash(peak, root)
        return root

    def spans(self) -> dict[tuple[int, int], bytes]:
        """Return the roots of the perfect subtrees by the leaves that each is over, `start` to `end`."""
        found, start = {}, 0
        for peak, bit in zip(self.peaks, _ones(self.size), strict=True):
            found[start, start + bit] = peak
            start += bit
        return found


class Tree:
    """A tree to make proofs from: the frontier of what is no longer held, and the leaves behind it."""

    def __init__(self, before: Frontier, leaves: Sequence[bytes]) -> None:
        self.first = before.size
        self.size = before.size + len(leaves)
        self._leaves = leaves
        self._known: dict[tuple[int, int], bytes] = before.spans()

    def root(self, size: int) -> bytes:
        """Return the root of the tree as it was at `size`, which is not before its first leaf."""
        return self._over(0, size) if size else EMPTY_ROOT

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Return the path that proves leaf `index` in the tree of `size`. Source: RFC 6962 section 2.1.1."""
        start, end, path = 0, size, []
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(self._over(middle, end))
                end = middle
            else:
                path.append(self._over(start, middle))
                start = middle
        return path[::-1]

    def consistency(self, old: int, size: int) -> list[bytes]:
        """Return the path that proves the tree of `old` to be a part of that of `size`. Source: RFC 6962 section 2.1.2."""
        if old in (0, size):
            return []
        start, end, path = 0, size, []
        while end != old:
            middle = start + _split(end - start)
            if old <= middle:
                path.append(self._over(middle, end))
                end = middle
            else:
                path.append(self._over(start, middle))
                start = middle
        return [*([self._over(start, end)] if start else []), *reversed(path)]

    def _over(self, start: int, end: int) -> bytes:
        known = self._known.get((start, end))
        if known is not None:
            return known
        if end - start == 1:
            return leaf_hash(self._leaves[start - self.first])
        middle = start + _split(end - start)
        # Not as a loop over leaves: what was removed is known by its subtrees alone, and this stops at them.
        made = self._known[start, end] = node_hash(self._over(start, middle), self._over(middle, end))
        return made


def root_by_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that `path` leads to from `leaf`; None if no path of a tree of `size` is like it."""
    if not 0 <= index < size:
        return None
    number, last, node = index, size - 1, leaf_hash(leaf)
    for step in path:
        if last == 0:
            return None
        if number & 1 or number == last:
            node = node_hash(step, node)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            node = node_hash(node, step)
        number, last = number >> 1, last >> 1
    return node if last == 0 else None


def consistent(old: tuple[int, bytes], new: tuple[int, bytes], path: Sequence[bytes]) -> bool:
    """Tell whether `path` proves that the tree of `new` (size, root) begins with the tree of `old`."""
    (old_size, old_root), (size, root) = old, new
    if old_size in (0, size):
        return not path and (old_root == root if old_size else old_root == EMPTY_ROOT)
    if not 0 < old_size < size or not path:
        return False
    steps = [old_root, *path] if old_size.bit_count() == 1 else list(path)
    return _roots_of(old_size, size, steps) == (old_root, root)


def _roots_of(old_size: int, size: int, steps: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    number, last = old_size - 1, size - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    old = new = steps[0]
    for step in steps[1:]:
        if last == 0:
            return None
        if number & 1 or number == last:
            old, new = node_hash(step, old), node_hash(step, new)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            new = node_hash(new, step)
        number, last = number >> 1, last >> 1
    return (old, new) if last == 0 else None


def frontier_of(size: int, peaks: Sequence[str]) -> Frontier:
    """Return the frontier that a record holds, its hashes in hex.

    Raises:
        ValueError: it is none.
    """
    return Frontier(size, [bytes.fromhex(peak) for peak in peaks])


def spelled(tree: Frontier) -> Mapping[str, object]:
    """Return a frontier as a record holds it."""
    return {"size": tree.size, "peaks": [peak.hex() for peak in tree.peaks]}


def _split(count: int) -> int:
    """Return the largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


def _ones(size: int) -> list[int]:
    """Return the powers of two that make up `size`, the largest first."""
    return [1 << bit for bit in reversed(range(size.bit_length())) if size >> bit & 1]
