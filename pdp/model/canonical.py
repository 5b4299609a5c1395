"""Canonical bytes: one value, one spelling, so that digests, signatures and cache keys mean the value.

The form is JSON with sorted keys, no blanks and ASCII escapes, over null, booleans, integers, finite floats, strings,
lists and string-keyed objects. `loads` accepts nothing that `dumps` would not have written, which closes duplicate keys,
alternative escapes and number spellings at once.
"""

import hashlib
import json
import math
from typing import Any, Final

from pdp.errors import BadRequestError

_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"`{text}` is not a number")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)


def dumps(value: Any) -> bytes:
    """Return the canonical bytes of `value`.

    Raises:
        ValueError: the value holds something that has no canonical form (NaN, a non-string key, an unknown type).
    """
    _check(value)
    return _ENCODER.encode(value).encode("ascii")


def dumps_trusted(value: Any) -> bytes:
    """Return the canonical bytes of a value that our own code has just built; skips the walk over its types."""
    return _ENCODER.encode(value).encode("ascii")


def loads(raw: bytes) -> Any:
    """Return the value whose canonical bytes are exactly `raw`.

    Raises:
        BadRequestError: `raw` is not canonical.
    """
    try:
        value = _DECODER.decode(raw.decode("ascii"))
        canonical = dumps_trusted(value)  # the parser makes nothing that `dumps` would refuse, but for an infinity
    except (ValueError, RecursionError) as error:
        raise BadRequestError("not canonical JSON") from error
    if canonical != raw:
        raise BadRequestError("JSON that is not in canonical form")
    return value


def digest(domain: str, *parts: bytes) -> bytes:
    """Return SHA-256 over a domain tag and length-prefixed parts, so that no two part lists share a digest."""
    hasher = hashlib.sha256()
    for part in (domain.encode(), *parts):
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)
    return hasher.digest()


def _check(value: Any) -> None:
    """Refuse what JSON would fold (`True` as a key, tuples of odd types, NaN)."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return
    if kind is float:
        if not math.isfinite(value):
            raise ValueError("a float must be finite")
    elif kind in (list, tuple):
        for item in value:
            _check(item)
    elif kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise ValueError("object keys are strings")
            _check(item)
    else:
        raise ValueError(f"`{kind.__name__}` has no canonical form")
