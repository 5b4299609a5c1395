"""The digest of a row set: independent of order, and cheap to bring up to date when a few rows change."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pdp.engine.casbin_text import Row
from pdp.model.canonical import digest, dumps_trusted

_BUCKETS: Final = 256
"""Rows are spread by the first byte of their own digest, so that one changed row touches one bucket."""
_SIZE: Final = 32
"""Bytes of one digest."""


@dataclass(frozen=True, slots=True)
class RowBuckets:
    """The digests of rows by bucket, and the digest of each bucket.

    A bucket is the digests of its rows in order, end to end: a fifth of the memory of a set of them.
    """

    members: tuple[bytes, ...]
    digests: tuple[bytes, ...]

    @property
    def digest(self) -> bytes:
        """The digest of the whole set."""
        return digest("rows", *self.digests)

    def changed(self, added: Iterable[Row], removed: Iterable[Row]) -> "RowBuckets":
        """Return the buckets after a change; only those that it touches are hashed anew."""
        plus, minus = _spread(added), _spread(removed)
        members, digests = list(self.members), list(self.digests)
        for number in range(_BUCKETS):
            if plus[number] or minus[number]:
                after = (set(_split(members[number])) - minus[number]) | plus[number]
                members[number], digests[number] = _bucket(after)
        return RowBuckets(tuple(members), tuple(digests))


def bucket_rows(rows: Iterable[Row]) -> RowBuckets:
    """Return the buckets of a set of rows: of their text and their place, since answers name the place."""
    members, digests = zip(*map(_bucket, _spread(rows)), strict=True)
    return RowBuckets(members, digests)


def rows_digest(rows: Iterable[Row]) -> bytes:
    """Return the digest of a set of rows."""
    return bucket_rows(rows).digest


def _bucket(digests: Iterable[bytes]) -> tuple[bytes, bytes]:
    ordered = sorted(digests)
    return b"".join(ordered), digest("bucket", *ordered)


def _split(members: bytes) -> Iterable[bytes]:
    return (members[at : at + _SIZE] for at in range(0, len(members), _SIZE))


def _spread(rows: Iterable[Row]) -> list[set[bytes]]:
    buckets: list[set[bytes]] = [set() for _ in range(_BUCKETS)]
    for row in rows:
        own = digest("row", dumps_trusted(row.to_json()))
        buckets[own[0]].add(own)
    return buckets
