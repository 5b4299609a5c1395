"""Cursors: how a list goes on. Opaque, MACed, and good for one query on one world only.

A list is cut into pages by position. Position, world number and the instant of the first page travel to the caller and
back under an HMAC together with the query, so that a page can neither be asked of another query nor mixed with one of
another world: that would be a list of which no world is true.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pdp.errors import BadRequestError
from pdp.model.canonical import digest, dumps, loads

_MAC_BYTES: Final = 32
_MAX_TEXT: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """Where a list goes on: `offset` entries were told of world `world_seq`, as it was at `now_ms`."""

    offset: int
    world_seq: int
    now_ms: int


def write_cursor(cursor: Cursor, *, query: Mapping[str, Any], secret: bytes) -> str:
    """Return the text of `cursor` for `query` (canonical JSON values), sealed with `secret`."""
    body = dumps([cursor.offset, cursor.world_seq, cursor.now_ms])
    return base64.urlsafe_b64encode(_mac(body, query, secret) + body).decode("ascii")


def read_cursor(text: str, *, query: Mapping[str, Any], secret: bytes) -> Cursor:
    """Return the cursor that `text` writes.

    Raises:
        BadRequestError: it is not one of ours, or belongs to another query.
    """
    try:
        raw = base64.b64decode(text[:_MAX_TEXT], altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequestError("not a cursor") from error
    mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(body, query, secret)):
        raise BadRequestError("this cursor is not ours, or belongs to another query; start from the first page")
    offset, world_seq, now_ms = loads(body)
    return Cursor(offset=offset, world_seq=world_seq, now_ms=now_ms)


def _mac(body: bytes, query: Mapping[str, Any], secret: bytes) -> bytes:
    return hmac.digest(secret, digest("cursor", body, dumps(dict(query))), "sha256")
