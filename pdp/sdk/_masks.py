"""Column masks on Arrow arrays, by the names of Iceberg's `read-restrictions`. Null stays null, and the type stays the type.

A mask that does not fit a column's type is `CannotApply`. Where the names leave room, the stricter reading holds: a value of
four characters or fewer is masked whole by `show-first-4` and `show-last-4`, since they would show all of it.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from pdp.sdk._row_filter import CannotApply

_SHOWN: Final = 4
# Letters of every script first, then digits: the other way round the `n` of a digit would become an `x`.
_LETTERS: Final = r"[^\p{Nd} -/:-@\[-\x60{-~]"
_DIGITS: Final = r"\p{Nd}"

Mask = Callable[[pa.Array, bytes], pa.Array]


def mask(name: str, column: pa.Array, salt: bytes) -> pa.Array:
    """Return `column` masked.

    Args:
        name: of the mask.
        column: without a dictionary.
        salt: random, one for each open dataset: for `sha-256-query-local`.

    Raises:
        CannotApply: there is no such mask, or it does not fit the column's type.
    """
    made = _MASKS.get(name)
    if made is None:
        raise CannotApply(f"column_masks: unknown mask `{name}`")
    fits, apply = made
    if not fits(column.type):
        raise CannotApply(f"column_masks: `{name}` does not fit a column of type {column.type}")
    return apply(column, salt)


def _text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _text_or_binary(kind: pa.DataType) -> bool:
    return _text(kind) or bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))


def _nothing(column: pa.Array, _salt: bytes) -> pa.Array:
    return pa.nulls(len(column), column.type)


def _alphanum(column: pa.Array, _salt: bytes = b"") -> pa.Array:
    letters = pc.replace_substring_regex(column, _LETTERS, "x")
    return pc.replace_substring_regex(letters, _DIGITS, "n")


def _show_first(column: pa.Array, _salt: bytes) -> pa.Array:
    shown = pc.utf8_slice_codeunits(column, 0, _SHOWN)
    rest = _alphanum(pc.utf8_slice_codeunits(column, _SHOWN))
    return _unless_short(column, pc.binary_join_element_wise(shown, rest, pa.scalar("", column.type)))


def _show_last(column: pa.Array, _salt: bytes) -> pa.Array:
    shown = pc.utf8_slice_codeunits(column, -_SHOWN)
    rest = _alphanum(pc.utf8_slice_codeunits(column, 0, -_SHOWN))
    return _unless_short(column, pc.binary_join_element_wise(rest, shown, pa.scalar("", column.type)))


def _unless_short(column: pa.Array, joined: pa.Array) -> pa.Array:
    return pc.if_else(pc.less_equal(pc.utf8_length(column), _SHOWN), _alphanum(column), joined)


def _truncate(unit: str) -> Mask:
    def apply(column: pa.Array, _salt: bytes) -> pa.Array:
        return pc.cast(pc.floor_temporal(column, unit=unit), column.type)

    return apply


def _hashed(column: pa.Array, salt: bytes) -> pa.Array:
    """Return the SHA-256 of each value, in hexadecimal digits for text and as bytes for bytes."""
    text = _text(column.type)

    def one(value: str | bytes | None) -> str | bytes | None:
        if value is None:
            return None
        digest = hashlib.sha256(salt + (value.encode() if isinstance(value, str) else value))
        return digest.hexdigest() if text else digest.digest()

    return pa.array(map(one, column.to_pylist()), column.type)


_MASKS: Final[Mapping[str, tuple[Callable[[pa.DataType], bool], Mask]]] = {
    "replace-with-null": (lambda _kind: True, _nothing),
    "mask-alphanum": (_text, _alphanum),
    "show-first-4": (_text, _show_first),
    "show-last-4": (_text, _show_last),
    "truncate-to-year": (_time, _truncate("year")),
    "truncate-to-month": (_time, _truncate("month")),
    "sha-256-global": (_text_or_binary, lambda column, _salt: _hashed(column, b"")),
    "sha-256-query-local": (_text_or_binary, _hashed),
}
