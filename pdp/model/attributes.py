"""Attributes: flat, dotted, exactly typed values that conditions may read.

`resource.*` comes from the inventory, `request.*` from the enforcement point, `signal.*` from the log. A value enters only
with the type its vocabulary declares; nothing is converted (FAILURE.md G7, CASBIN.md D-21, D-25).
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from pdp.errors import BadRequestError
from pdp.limits import MAX_ATTRIBUTE_BYTES, MAX_LIST_ITEMS, MAX_SAFE_INTEGER

Value = bool | int | float | str | tuple[str, ...]
"""What an attribute can be; an instant is carried as an RFC 3339 string and typed `timestamp`."""
Attributes = Mapping[str, Value]

NO_ATTRIBUTES: Final[Attributes] = MappingProxyType({})


class AttributeType(StrEnum):
    """The types that a vocabulary may declare."""

    BOOL = "bool"
    INT = "int"
    DOUBLE = "double"
    STRING = "string"
    LIST = "list"
    TIMESTAMP = "timestamp"


_EXACT: Final = {
    AttributeType.BOOL: bool,
    AttributeType.INT: int,
    AttributeType.DOUBLE: float,
    AttributeType.STRING: str,
    AttributeType.LIST: tuple,
    AttributeType.TIMESTAMP: str,
}


_STRING: Final = AttributeType.STRING
_SHORT_CHARS: Final = MAX_ATTRIBUTE_BYTES // 4
"""So many characters fit the bound on bytes, whatever they are."""

_INSTANT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?Z")


def check_value(name: str, value: object, kind: AttributeType) -> None:
    """Refuse a value that is not exactly of type `kind` and within bounds.

    Raises:
        BadRequestError: the type or size is wrong; the message names the attribute, not the value.
    """
    if kind is _STRING and type(value) is str and len(value) <= _SHORT_CHARS and value.isprintable():
        return  # what most are, and each decision checks some of them
    if type(value) is not _EXACT[kind]:
        raise BadRequestError(f"attribute `{name}` must be of type {kind.value}")
    if isinstance(value, str):
        _check_text(name, value)
    elif isinstance(value, tuple):
        _check_list(name, value)
    elif isinstance(value, int) and abs(value) > MAX_SAFE_INTEGER:
        raise BadRequestError(f"attribute `{name}` is beyond 2^53 - 1")
    elif isinstance(value, float) and not abs(value) < float("inf"):
        raise BadRequestError(f"attribute `{name}` must be finite")
    if kind is AttributeType.TIMESTAMP:
        parse_instant(str(value))


def parse_instant(text: str) -> datetime:
    """Return the UTC instant of an RFC 3339 text that ends in `Z`.

    Raises:
        BadRequestError: anything else, local times and offsets included (CASBIN.md D-38).
    """
    try:
        if not _INSTANT.fullmatch(text):  # the library also reads week dates, blanks, commas: spellings nobody reviews
            raise ValueError(text)
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError as error:
        raise BadRequestError("an instant is RFC 3339 in UTC, such as `2026-11-20T08:00:00Z`") from error


def instant_ms(text: str) -> int:
    """Return the instant of `text` in milliseconds since the epoch."""
    return round(parse_instant(text).timestamp() * 1000)


def has_come(value: Value, now_ms: int) -> bool:
    """Return whether the instant that `value` spells has come; what spells none counts as come, so that somebody notices."""
    try:
        return instant_ms(str(value)) <= now_ms
    except BadRequestError:
        return True


def instant_of(time_ms: int) -> str:
    """Return the text of an instant, to the second and never later than it."""
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _check_text(name: str, value: str) -> None:
    if len(value.encode(errors="surrogatepass")) > MAX_ATTRIBUTE_BYTES or not value.isprintable():
        raise BadRequestError(f"attribute `{name}` must be printable and at most {MAX_ATTRIBUTE_BYTES} bytes")


def _check_list(name: str, value: tuple[object, ...]) -> None:
    if len(value) > MAX_LIST_ITEMS:
        raise BadRequestError(f"attribute `{name}` has more than {MAX_LIST_ITEMS} items")
    for item in value:
        if type(item) is not str:
            raise BadRequestError(f"attribute `{name}` must be a list of strings")
        _check_text(name, item)
