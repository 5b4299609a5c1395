"""The answer: effect, reason, obligations, and what determined it."""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Final, NamedTuple

from pdp.errors import Reason


class Effect(IntEnum):
    """Deny is zero: a forgotten, unset or unknown effect denies."""

    DENY = 0
    ALLOW = 1


_ALLOW: Final = Effect.ALLOW  # a member of an enumeration takes 50 ns to look up


@dataclass(frozen=True, slots=True, kw_only=True)
class Obligation:
    """A duty that comes with an allow: name and value as the rule writes it, canonical (ENFORCEMENT.md section 5.3)."""

    name: str
    value: str

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NearestMiss:
    """The rule that came closest to granting, and the part of it that failed.

    `rule` is a row id (`grants.csv:6`), `failed` the failed conjunct (`environment`, `role`, `resource`, `condition`,
    `action`, `segment`), `text` a sentence for people.
    """

    rule: str
    failed: str
    text: str


class _Shown:
    """Where the message of a decision lies, as bytes, but for the id: for the next answer that shows it (`server.grpc.convert`).

    No field: not part of the decision, and nothing that a client of the SDK finds in its own.
    """

    __slots__ = ("shown",)
    shown: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(_Shown):
    """What `decide` answers.

    `recheck_after_s` is when an access that lasts must be decided again, or when time alone may turn a deny around;
    None = no bound.
    `determining` holds row ids (`grants.csv:6`), `role_path` the links from the subject to the determining rule's role.
    `candidate` is the revision of the canary that decided; empty: the live policy of world `world_seq` did.
    """

    effect: Effect
    reason: Reason
    world_seq: int
    obligations: tuple[Obligation, ...] = ()
    determining: tuple[str, ...] = ()
    role_path: tuple[str, ...] = ()
    recheck_after_s: float | None = None
    nearest_miss: NearestMiss | None = None
    detail: str = ""
    candidate: str = ""

    @property
    def allowed(self) -> bool:
        """True only for an allow."""
        return self.effect is _ALLOW

    def refused(self, reason: Reason, detail: str = "") -> "Decision":
        """Return this decision turned into a deny, as when its audit record could not be written."""
        return replace(self, effect=Effect.DENY, reason=reason, obligations=(), recheck_after_s=None, detail=detail)


def deny(reason: Reason, *, world_seq: int, detail: str = "") -> Decision:
    """Return a deny that no rule determined."""
    return Decision(effect=Effect.DENY, reason=reason, world_seq=world_seq, detail=detail)


class Answer(NamedTuple):
    """A decision as it leaves a PDP: with the id under which the audit chain holds it.

    A named tuple because one is made for every question: a frozen dataclass takes three times as long.
    """

    decision: Decision
    decision_id: str


class Settled:
    """A decision that stands as long as a world does: neither time nor a lock could make it another one.

    But for its next look, which the end of the question's credential may bring forward. It lies with the very question that it
    answers, and dies with it. `world` is the mark of the world that decided: not that world, which a question must not keep
    alive. `text` is for whoever writes its records (`audit.record`).
    """

    __slots__ = ("decision", "text", "world")

    def __init__(self, world: object, decision: Decision) -> None:
        self.world = world
        self.decision = decision
        self.text: Any = None

    def says(self, decision: Decision) -> bool:
        """Tell whether a record of `decision` says what one of the settled decision does: it may be looked at again sooner."""
        own = self.decision
        return own is decision or (
            own.effect is decision.effect
            and own.reason is decision.reason
            and own.world_seq == decision.world_seq
            and own.obligations == decision.obligations
            and own.determining == decision.determining
            and own.detail == decision.detail
            and own.candidate == decision.candidate
        )
