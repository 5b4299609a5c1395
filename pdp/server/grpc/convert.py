"""Messages to values and back, for the services that share them. What is malformed is refused, never repaired."""

import math
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Any, Final

from pdp.errors import BadRequestError, PortcullisError, Reason
from pdp.limits import (
    DEFAULT_DEADLINE_S,
    MAX_DEADLINE_S,
    PARTY_CACHE_ENTRIES,
    PARTY_CACHE_GROUPS,
)
from pdp.model.attributes import AttributeType, Value
from pdp.model.decision import Answer, Decision
from pdp.model.names import Principal
from pdp.model.request import Party
from pdp.v1 import decision_pb2, types_pb2

_PATIENCE: Final = 0.9
"""How much of a caller's time may pass in waiting, so that the answer still reaches it."""

KINDS: Final[Mapping[str, AttributeType]] = {
    "bool_value": AttributeType.BOOL,
    "int_value": AttributeType.INT,
    "double_value": AttributeType.DOUBLE,
    "string_value": AttributeType.STRING,
    "list_value": AttributeType.LIST,
    "timestamp_value": AttributeType.TIMESTAMP,
}


def value_of(name: str, message: types_pb2.Value) -> tuple[AttributeType, Value]:
    """Return type and value of an attribute.

    Raises:
        BadRequestError: none is set, or it is a number that JSON has no word for, so that no record could hold it.
    """
    field = message.WhichOneof("kind")
    if field is None:
        raise BadRequestError(f"attribute `{name}` has no value")
    if field == "list_value":
        return AttributeType.LIST, tuple(message.list_value.items)
    if field == "double_value" and not math.isfinite(message.double_value):
        raise BadRequestError(f"attribute `{name}` must be finite")
    return KINDS[field], getattr(message, field)


def value_message(value: Value, kind: AttributeType | None = None) -> types_pb2.Value:
    """Return the message of a value; `kind` tells a timestamp from other text."""
    if isinstance(value, bool):
        return types_pb2.Value(bool_value=value)
    if isinstance(value, int):
        return types_pb2.Value(int_value=value)
    if isinstance(value, float):
        return types_pb2.Value(double_value=value)
    if isinstance(value, str):
        if kind is AttributeType.TIMESTAMP:
            return types_pb2.Value(timestamp_value=value)
        return types_pb2.Value(string_value=value)
    return types_pb2.Value(list_value=types_pb2.StringList(items=value))


def party_of(principal: str, groups: Iterable[str]) -> Party:
    """Return the party that an asserting caller names."""
    held = tuple(groups)
    return _party(principal, held) if len(held) <= PARTY_CACHE_GROUPS else _new_party(principal, held)


def _new_party(principal: str, groups: tuple[str, ...]) -> Party:
    return Party(principal=Principal.parse(principal), groups=frozenset(groups))


_party = lru_cache(maxsize=PARTY_CACHE_ENTRIES)(_new_party)
"""Key: the exact texts, of which a party is a pure function; one with many groups is made anew, so that memory is bounded."""


def decision_message(answer: Answer) -> decision_pb2.Decision:
    """Return an answer as it leaves."""
    return decision_pb2.Decision.FromString(decision_bytes(answer))


def decision_bytes(answer: Answer) -> bytes:
    """Return the message of an answer: one decision answers many questions, and what all show of it is written once.

    Encoded messages put one behind the other are the encoding of both merged.
    """
    decision, decision_id = answer
    try:
        shown = decision.shown
    except AttributeError:  # of what is set nearly always, this asks soonest
        shown = _shown(decision).SerializeToString()
        object.__setattr__(decision, "shown", shown)
    return shown + _ids_start(len(decision_id)) + decision_id.encode("ascii")


@cache
def _ids_start(length: int) -> bytes:
    """Return what stands before an id of that length in a message that shows nothing else."""
    return decision_pb2.Decision(decision_id="x" * length).SerializeToString()[: -length or None]


def _shown(decision: Decision) -> decision_pb2.Decision:
    """Return a decision's message, but for the id."""
    message = decision_pb2.Decision(
        effect=types_pb2.EFFECT_ALLOW if decision.allowed else types_pb2.EFFECT_DENY,
        reason=decision.reason.value,
        obligations=[types_pb2.Obligation(name=item.name, value=item.value) for item in decision.obligations],
        world_seq=decision.world_seq,
        determining=decision.determining,
        role_path=decision.role_path,
        detail=decision.detail,
        candidate=decision.candidate,
    )
    # Of a deny it is for our own looks alone: to a caller it would tell of a role or a lock that is not theirs to know.
    if decision.recheck_after_s is not None and decision.allowed:
        message.recheck_after_ms = _recheck_ms(decision.recheck_after_s)
    miss = decision.nearest_miss
    if miss is not None:
        message.nearest_miss.CopyFrom(types_pb2.NearestMiss(rule=miss.rule, failed=miss.failed, text=miss.text))
    return message


def _recheck_ms(seconds: float) -> int:
    """Return the bound in milliseconds, never later and never the zero that says there is none."""
    return max(1, math.floor(seconds * 1000))


def wait_s(context: Any) -> float:
    """Return how long an answer may wait for something, in seconds, within the caller's deadline and our ceiling."""
    left = context.time_remaining()
    return _PATIENCE * min(DEFAULT_DEADLINE_S if left is None else max(0.0, left), MAX_DEADLINE_S)


def need(text: str, what: str) -> str:
    """Return `text`, or refuse that it is empty."""
    if not text:
        raise PortcullisError(Reason.BAD_REQUEST, f"`{what}` is missing")
    return text
