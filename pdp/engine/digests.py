"""The digest of a row set: independent of order, and cheap to bring up to date when a few rows change."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pdp.engine.casbin_text import Row
from pdp.model.canonical import digest, dumps_trusted

_BUCKETS: Final = 256
"""Rows are spread by the first byte of their own digest, so that one changed row touches one bucket."""


@dataclass(frozen=True, slots=True)
class RowBuckets:
    """The digests of rows by bucket, and the digest of each bucket."""

    members: tuple[frozenset[bytes], ...]
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
                members[number] = (members[number] - minus[number]) | plus[number]
                digests[number] = digest("bucket", *sorted(members[number]))
        return RowBuckets(tuple(members), tuple(digests))


def bucket_rows(rows: Iterable[Row]) -> RowBuckets:
    """Return the buckets of a set of rows: of their text and their place, since answers name the place."""
    members = tuple(frozenset(bucket) for bucket in _spread(rows))
    return RowBuckets(members, tuple(digest("bucket", *sorted(bucket)) for bucket in members))


def rows_digest(rows: Iterable[Row]) -> bytes:
    """Return the digest of a set of rows."""
    return bucket_rows(rows).digest


def _spread(rows: Iterable[Row]) -> list[set[bytes]]:
    buckets: list[set[bytes]] = [set() for _ in range(_BUCKETS)]
    for row in rows:
        own = digest("row", dumps_trusted(row.to_json()))
        buckets[own[0]].add(own)
    return buckets
