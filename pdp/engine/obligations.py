"""Obligations: the duties that come with an allow. A closed list, each with its form and its way to merge to the stricter.

Source: ENFORCEMENT.md section 5.3. A rule writes `name=value`, several joined by `; `; a value that is JSON ends where its
JSON ends. Whoever enforces and does not know an obligation denies, so an unknown one is a compile error here.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from pdp.engine.findings import suggest
from pdp.limits import MAX_EXPRESSION_DEPTH, MAX_SAFE_INTEGER
from pdp.model.canonical import dumps
from pdp.model.decision import Obligation

MASKS: Final = frozenset(
    {
        "mask-alphanum",
        "replace-with-null",
        "show-first-4",
        "show-last-4",
        "truncate-to-year",
        "truncate-to-month",
        "sha-256-global",
        "sha-256-query-local",
    }
)
"""Column masks of the Iceberg REST `read-restrictions`."""

_AUDIT_LEVELS: Final = ("normal", "full")
_SECONDS: Final = MappingProxyType({"s": 1, "m": 60, "h": 3600})


class ObligationError(Exception):
    """A text that is no list of obligations: message and offset."""

    def __init__(self, message: str, at: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.at = at


@dataclass(frozen=True, slots=True, kw_only=True)
class ObligationKind:
    """How one obligation is written and merged; `merge` gets distinct values in order, and returns None on conflict."""

    canonical: Callable[[str], str]
    merge: Callable[[Sequence[str]], str | None]
    is_json: bool = False


# --- forms -----------------------------------------------------------------------------------------------------------


def _count(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,16}", text) or int(text) > MAX_SAFE_INTEGER:
        raise ObligationError("a whole number is wanted")
    return str(int(text))


def _duration(text: str) -> str:
    match = re.fullmatch(r"([0-9]{1,9})([smh])", text)
    if match is None or int(match[1]) == 0:
        raise ObligationError("a time is wanted, such as `10s`, `5m` or `1h`")
    return f"{int(match[1]) * _SECONDS[match[2]]}s"


def _token(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._~:/-]{0,255}", text):
        raise ObligationError("letters, digits and `.`, `_`, `~`, `:`, `/`, `-` are wanted")
    return text


def _digest(text: str) -> str:
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        raise ObligationError("a digest is `sha256:` and 64 hexadecimal digits")
    return text


def _names(text: str) -> str:
    names = {name.strip() for name in text.split(",")}
    if not all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*", name) for name in names):
        raise ObligationError("names joined by commas are wanted")
    return ",".join(sorted(names))


def _outputs(text: str) -> str:
    names = {name.strip() for name in text.split(",")}
    if not all(re.fullmatch(r"probabilities|logprobs|all-but-top-1|round:[0-9]", name) for name in names):
        raise ObligationError("`probabilities`, `logprobs`, `all-but-top-1` or `round:<digits>` are wanted")
    return _strictest_outputs([",".join(names)])


def _audit_level(text: str) -> str:
    if text not in _AUDIT_LEVELS:
        raise ObligationError(f"one of {', '.join(_AUDIT_LEVELS)} is wanted")
    return text


def _filter(text: str) -> str:
    value = _json(text)
    if type(value.get("type")) is not str:
        raise ObligationError("an Iceberg expression as JSON is wanted, an object with a `type`")
    return dumps(value).decode()


def _masks(text: str) -> str:
    value = _json(text)
    if not value or not all(type(mask) is str and mask in MASKS for mask in value.values()):
        raise ObligationError(f"an object of columns and masks is wanted; masks are {', '.join(sorted(MASKS))}")
    return dumps(value).decode()


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_unique)
        dumps(value)
    except (ValueError, RecursionError) as error:
        raise ObligationError("not JSON, or a key twice") from error
    if type(value) is not dict:
        raise ObligationError("a JSON object is wanted")
    if _depth(value) > MAX_EXPRESSION_DEPTH:
        # It is read again when it is merged, on a stack that may hold less than the compiler's: `decide` raises nothing.
        raise ObligationError(f"JSON nested more than {MAX_EXPRESSION_DEPTH} deep")
    return value


def _depth(value: object) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level = [child for children in inner for child in children]
    return depth


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


# --- merging to the stricter -----------------------------------------------------------------------------------------


def _least(values: Sequence[str]) -> str:
    return min(values, key=lambda value: int(value.removesuffix("s")))


def _most(values: Sequence[str]) -> str:
    return max(values, key=int)


def _union(values: Sequence[str]) -> str:
    return ",".join(sorted({name for value in values for name in value.split(",")}))


def _agreed(values: Sequence[str]) -> str | None:
    return values[0] if len(set(values)) == 1 else None


def _strictest_outputs(values: Sequence[str]) -> str:
    names = {name for value in values for name in value.split(",")}
    rounds = {name for name in names if name.startswith("round:")}
    return ",".join(sorted(names - rounds | ({min(rounds)} if rounds else set())))


def _highest_level(values: Sequence[str]) -> str:
    return max(values, key=_AUDIT_LEVELS.index)


def _all_filters(values: Sequence[str]) -> str:
    filters: list[dict[str, Any]] = [json.loads(value) for value in sorted(set(values))]
    # In pairs, so that the depth grows with the logarithm: a chain of a thousand would end a decision in a RecursionError.
    while len(filters) > 1:
        pairs = [filters[at : at + 2] for at in range(0, len(filters), 2)]
        filters = [{"type": "and", "left": pair[0], "right": pair[1]} if len(pair) > 1 else pair[0] for pair in pairs]
    return dumps(filters[0]).decode()


def _strictest_masks(values: Sequence[str]) -> str:
    merged: dict[str, str] = {}
    for value in values:
        for column, mask in json.loads(value).items():
            merged[column] = mask if merged.get(column, mask) == mask else "replace-with-null"
    return dumps(merged).decode()


_LIMIT: Final = ObligationKind(canonical=_count, merge=_least)
_TIME: Final = ObligationKind(canonical=_duration, merge=_least)
_PIN: Final = ObligationKind(canonical=_token, merge=_agreed)
_SET: Final = ObligationKind(canonical=_names, merge=_union)

OBLIGATIONS: Final[Mapping[str, ObligationKind]] = MappingProxyType(
    {
        "row_filter": ObligationKind(canonical=_filter, merge=_all_filters, is_json=True),
        "column_masks": ObligationKind(canonical=_masks, merge=_strictest_masks, is_json=True),
        "deny_columns": _SET,
        "pin_snapshot": _PIN,
        "pin_version": _PIN,
        "require_digest": ObligationKind(canonical=_digest, merge=_agreed),
        "purpose": _PIN,
        "credential_ttl": _TIME,
        "max_rows": _LIMIT,
        "max_bytes": _LIMIT,
        "max_tokens": _LIMIT,
        "max_messages": _LIMIT,
        "recheck_after": _TIME,
        "recheck_messages": _LIMIT,
        "recheck_tokens": _LIMIT,
        "strip_outputs": ObligationKind(canonical=_outputs, merge=_strictest_outputs),
        "audit_level": ObligationKind(canonical=_audit_level, merge=_highest_level),
        "notify": _SET,
        "approvals": ObligationKind(canonical=_count, merge=_most),
    }
)
"""The closed list."""


def parse_then(text: str) -> tuple[Obligation, ...]:
    """Return the obligations that `text` writes, in canonical form and by name; blank is none.

    Raises:
        ObligationError: an unknown or repeated name, or a value of another form; the message says which, `at` where.
    """
    found: dict[str, Obligation] = {}
    at = 0
    while at < len(text):
        name, start = _name(text, at)
        kind = OBLIGATIONS[name]
        value, end = _json_value(text, start) if kind.is_json else _plain_value(text, start)
        if name in found:
            raise ObligationError(f"`{name}` stands twice", at)
        try:
            found[name] = Obligation(name=name, value=kind.canonical(value))
        except ObligationError as error:
            raise ObligationError(f"`{name}`: {error.message}", start) from error
        at = _after(text, end)
    return tuple(found[name] for name in sorted(found))


def _name(text: str, at: int) -> tuple[str, int]:
    match = re.compile(r"\s*([a-z_]+)\s*=\s*").match(text, at)
    if match is None:
        raise ObligationError("an obligation is `name=value`; several are joined by `; `", at)
    if match[1] not in OBLIGATIONS:
        raise ObligationError(f"no obligation `{match[1]}`{suggest(match[1], OBLIGATIONS)}", match.start(1))
    return match[1], match.end()


def _plain_value(text: str, start: int) -> tuple[str, int]:
    end = text.find(";", start)
    end = len(text) if end < 0 else end
    return text[start:end].strip(), end


def _json_value(text: str, start: int) -> tuple[str, int]:
    try:
        _, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        raise ObligationError("not JSON", start) from error
    return text[start:end], end


def _after(text: str, end: int) -> int:
    """Return where the next obligation starts; a `;` at the very end is one too many."""
    rest = text[end:].lstrip()
    if not rest:
        return len(text)
    if rest[0] != ";" or not rest[1:].strip():
        raise ObligationError("obligations are joined by `; `", end)
    return len(text) - len(rest) + 1


def merge(obligations: Iterable[Obligation]) -> tuple[Obligation, ...] | None:
    """Return the obligations with each name once, conflicts resolved to the stricter value; None if that is to deny."""
    values: dict[str, list[str]] = {}
    for item in obligations:
        values.setdefault(item.name, []).append(item.value)
    merged = []
    for name in sorted(values):
        value = OBLIGATIONS[name].merge(values[name])
        if value is None:
            return None
        merged.append(Obligation(name=name, value=value))
    return tuple(merged)


def recheck_after_s(obligations: Iterable[Obligation]) -> float | None:
    """Return the `recheck_after` among `obligations` in seconds, if there is one."""
    for item in obligations:
        if item.name == "recheck_after":
            return float(item.value.removesuffix("s"))
    return None
