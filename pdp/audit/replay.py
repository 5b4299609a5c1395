"""What a record says of a decision, read back: the question as it was asked, the moment, and the answer that was given.

The reverse of `record.DecisionRecord`; law: what a decision's record says, decided again in the world that it names, is the
same answer, bit for bit. Nothing is decided here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Final, NamedTuple

from pdp.errors import BadNameError, BadRequestError
from pdp.model.attributes import NO_ATTRIBUTES, Attributes, Value
from pdp.model.decision import Decision
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import NO_FACTS, CredentialFacts, Party, Question

_FACTS: Final = frozenset(fact.name for fact in fields(CredentialFacts))
_PARTIES: Final = 4_096
NO_QUESTION: Final = "refused before there was a question"
"""Such a refusal read nothing of the world: there is nothing to decide again."""
_MALFORMED: Final = (BadNameError, BadRequestError, AttributeError, KeyError, TypeError, ValueError)
"""What a record of another shape makes our own code raise."""


class Said(NamedTuple):
    """An answer, as far as it has to be the same again. Named tuples here: one is made for every record replayed."""

    effect: str
    reason: str
    determining: tuple[str, ...]
    obligations: tuple[str, ...]
    candidate: str = ""

    @classmethod
    def of(cls, decision: Decision) -> "Said":
        """Return what `decision` says."""
        effect = "allow" if decision.allowed else "deny"
        duties = tuple(map(str, decision.obligations))
        return cls(effect, decision.reason.value, decision.determining, duties, decision.candidate)


class Logged(NamedTuple):
    """A logged decision: the question, the moment in which it was decided, and what was said."""

    decision_id: str
    question: Question
    now_ms: int
    clock_off: bool
    staleness_s: float
    world_seq: int
    said: Said


@dataclass(frozen=True, slots=True)
class Lost:
    """Why a record cannot be decided again."""

    why: str


def logged(record: Mapping[str, Any]) -> Logged | Lost | None:
    """Return what a record says of a decision; None if it is of another kind."""
    if record.get("kind") != "decision":
        return None
    try:
        return _logged(record) if record["principal"] else Lost(NO_QUESTION)
    except _MALFORMED as error:
        return Lost(f"not a decision's record: {error}")


def _logged(record: Mapping[str, Any]) -> Logged | Lost:
    attributes, claims = _attributes(record["attributes"]), _attributes(record["claims"])
    if attributes is None or claims is None:
        return Lost("its attributes were too long to be kept: the record holds their digest")
    supports = record["supports"]
    question = Question(
        subject=_party(record["principal"], tuple(record["groups"])),
        action=Action.parse(record["action"]),
        resource=Resource.parse(record["resource"]),
        actors=tuple(_party(actor["principal"], tuple(actor["groups"])) for actor in record["actors"]),
        workload=Principal.parse(record["workload"]) if record["workload"] else None,
        serves=Resource.parse(record["serves"]) if record["serves"] else None,
        attributes=attributes,
        claims=claims,
        credential=_credential(record["credential"]),
        supports=None if supports is None else frozenset(supports),
    )
    said = Said(
        record["effect"],
        record["reason"],
        tuple(record["determining"]),
        tuple(record["obligations"]),
        record.get("candidate", ""),  # records of before there were canaries have none
    )
    return Logged(
        record["decision_id"],
        question,
        _number(record["now_ms"]),
        record["clock_off"] is not False,
        _number(record["staleness_ms"]) / 1000,
        _number(record["world_seq"]),
        said,
    )


def _number(value: Any) -> int:
    if type(value) is not int:
        raise TypeError("a number is an integer")
    return value


@lru_cache(maxsize=_PARTIES)
def _party(name: str, groups: tuple[str, ...]) -> Party:
    return Party(principal=Principal.parse(name), groups=frozenset(groups))


def _attributes(held: Mapping[str, Any]) -> Attributes | None:
    """Return attributes as they were; None where only their digest was kept (their own names have a dot)."""
    if not held:
        return NO_ATTRIBUTES
    if held.keys() == {"sha256"}:
        return None
    return {name: _value(value) for name, value in held.items()}


def _value(value: Any) -> Value:
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, bool | int | float | str):
        return value
    raise TypeError("an attribute is a bool, a number, a text or a list")


def _credential(held: Mapping[str, Any]) -> CredentialFacts:
    if not held:
        return NO_FACTS
    if not held.keys() <= _FACTS:
        raise ValueError("it names facts of a credential that this version does not know")
    return CredentialFacts(**held)
