"""Messages to values and back, for the services that share them. What is malformed is refused, never repaired."""

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from pdp.errors import BadRequestError, PortcullisError, Reason
from pdp.limits import (
    DECISION_MESSAGES_KEPT,
    DEFAULT_DEADLINE_S,
    MAX_DEADLINE_S,
    PARTY_CACHE_ENTRIES,
    PARTY_CACHE_GROUPS,
)
from pdp.model.attributes import AttributeType, Value
from pdp.model.decision import Answer, Effect, Obligation
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
    message = decision_pb2.Decision()
    _fill(message, answer)
    return message


def batch_response(answers: Iterable[Answer]) -> decision_pb2.EvaluateBatchResponse:
    """Return the answers of a batch as they leave."""
    response = decision_pb2.EvaluateBatchResponse()
    add = response.decisions.add
    for answer in answers:
        _fill(add(), answer)
    return response


def _fill(message: decision_pb2.Decision, answer: Answer) -> None:
    decision = answer.decision
    message.CopyFrom(
        _template(
            decision.effect,
            decision.reason,
            decision.obligations,
            decision.world_seq,
            decision.determining,
            decision.role_path,
            decision.detail,
        )
    )
    message.decision_id = answer.decision_id
    if decision.candidate:
        message.candidate = decision.candidate
    # Of a deny it is for our own looks alone: to a caller it would tell of a role or a lock that is not theirs to know.
    if decision.recheck_after_s is not None and decision.effect is Effect.ALLOW:
        message.recheck_after_ms = _recheck_ms(decision.recheck_after_s)
    miss = decision.nearest_miss
    if miss is not None:
        message.nearest_miss.CopyFrom(types_pb2.NearestMiss(rule=miss.rule, failed=miss.failed, text=miss.text))


@lru_cache(maxsize=DECISION_MESSAGES_KEPT)
def _template(  # noqa: PLR0917 - the key of its cache: everything that the message shows
    effect: Effect,
    reason: Reason,
    obligations: tuple[Obligation, ...],
    world_seq: int,
    determining: tuple[str, ...],
    role_path: tuple[str, ...],
    detail: str,
) -> decision_pb2.Decision:
    """Return the part of a decision's message that others share; it is copied, which takes a fifth of making it."""
    return decision_pb2.Decision(
        effect=types_pb2.EFFECT_ALLOW if effect is Effect.ALLOW else types_pb2.EFFECT_DENY,
        reason=reason.value,
        obligations=[types_pb2.Obligation(name=item.name, value=item.value) for item in obligations],
        world_seq=world_seq,
        determining=determining,
        role_path=role_path,
        detail=detail,
    )


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
