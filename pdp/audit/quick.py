"""Reading a decision's record fast, for whoever reads a whole chain: by its shape, without making a value of it.

Theory of operation. A decision's record has the same fields in the same order each time, so one regular expression tells
that the bytes are such a record in canonical form and where its number and digests stand. Parts that the expression cannot
judge (attributes, claims, credential, actors) are judged by the canonical reader, and remembered: most are alike.

INVARIANT: what is accepted here, `chain.unseal` accepts, with the same number and digests; anything else is not refused but
left to it. A property test holds this (tests/unit/audit/test_quick.py).
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from pdp.errors import BadRequestError
from pdp.limits import AUDIT_PART_ENTRIES
from pdp.model.canonical import loads

_PLAIN: Final = rb'"[ !#-\[\]-~]*+"'  # a text without an escape; one that has some is left to the canonical reader
_COUNT: Final = rb"(?:0|[1-9][0-9]{0,14}+)"
_LIST: Final = rb"\[(?:%b(?:,%b)*+)?\]" % (_PLAIN, _PLAIN)
_PART: Final = rb"(\{[^{}]*+\})"
_ACTORS: Final = rb"(\[(?:\{[^{}]*+\},?)*+\])"
_HASH: Final = rb'"([0-9a-f]{64})"'
_FIELDS: Final = (
    ("action", _PLAIN),
    ("actors", _ACTORS),
    ("attributes", _PART),
    ("caller", _PLAIN),
    ("candidate", _PLAIN),
    ("claims", _PART),
    ("clock_off", rb"(?:true|false)"),
    ("credential", _PART),
    ("decision_id", _PLAIN),
    ("detail", _PLAIN),
    ("determining", _LIST),
    ("digest", _HASH),
    ("door", _PLAIN),
    ("effect", _PLAIN),
    ("groups", _LIST),
    ("kind", rb'"decision"'),
    ("n", rb"([1-9][0-9]{0,14}+)"),
    ("now_ms", _COUNT),
    ("obligations", _LIST),
    ("prev", _HASH),
    ("principal", _PLAIN),
    ("reason", _PLAIN),
    ("resource", _PLAIN),
    ("resource_digest", _PLAIN),
    ("serves", _PLAIN),
    ("staleness_ms", _COUNT),
    ("supports", rb"(?:null|%b)" % _LIST),
    ("time_ms", _COUNT),
    ("trace", _PLAIN),
    ("v", rb"1"),
    ("version", _PLAIN),
    ("workload", _PLAIN),
    ("world_seq", _COUNT),
)
_FRAME: Final = re.compile(
    rb"([0-9a-f]{6}) (\{%b\})\n" % b",".join(b'"%b":%b' % (name.encode(), value) for name, value in _FIELDS)
)
_DIGEST_CHARS: Final = 64
_ZEROS: Final = b"0" * _DIGEST_CHARS
_EMPTY: Final = frozenset({b"{}", b"[]"})

Digest = Callable[[bytes], str]


def quick(data: bytes, start: int, digest: Digest) -> tuple[int, int, str, str] | None:
    """Return (end of its frame, number, predecessor, own digest) of the decision's record at `start`, if it is a sound one.

    None: another kind of record, an unusual one, or damage; the strict reader tells which. `digest` makes the digest of a
    record with zeros in its place.
    """
    match = _FRAME.match(data, start)
    if match is None:
        return None
    size, _, actors, attributes, claims, credential, own, n, prev = match.groups()
    begin, end = match.span(2)
    if int(size, 16) != end - begin:
        return None
    for part in (actors, attributes, claims, credential):
        if part not in _EMPTY and not _canonical(part):
            return None
    at = match.start(7)
    if digest(data[begin:at] + _ZEROS + data[at + _DIGEST_CHARS : end]) != own.decode("ascii"):
        return None
    return match.end(), int(n), prev.decode("ascii"), own.decode("ascii")


@lru_cache(maxsize=AUDIT_PART_ENTRIES)
def _canonical(part: bytes) -> bool:
    try:
        loads(part)
    except BadRequestError:
        return False
    return True
