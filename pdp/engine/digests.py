"""The digest of a row set: independent of order, and cheap to bring up to date when a few rows change."""

from collections.abc import Iterable
from typing import Final

from pdp.engine.casbin_text import Row
from pdp.model.canonical import digest, dumps_trusted

_BUCKETS: Final = 256
"""Rows are spread by the first byte of their own digest, so that one changed row touches one bucket."""


def rows_digest(rows: Iterable[Row]) -> bytes:
    """Return the digest of a set of rows: of their text and their place, since answers name the place."""
    buckets: list[set[bytes]] = [set() for _ in range(_BUCKETS)]
    for row in rows:
        own = digest("row", dumps_trusted(row.to_json()))
        buckets[own[0]].add(own)
    return digest("rows", *(digest("bucket", *sorted(bucket)) for bucket in buckets))
