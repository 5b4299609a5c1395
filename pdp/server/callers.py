"""Who calls, and whether they may: the same two steps before every RPC.

Portcullis protects itself with its own policy: each RPC is an action on a built-in resource, decided by the same engine.
Whether someone may *ask* is decided without a record of its own when the answer is yes, since the record of each question
names its caller; every refusal, and every administrative allow, is recorded before anything happens.
"""

import contextvars
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from pdp.errors import MEANINGS, PortcullisError, Reason, Side
from pdp.identity.certificates import PeerCertificate
from pdp.identity.challenge import Header, challenge
from pdp.identity.proof import BoundRequest
from pdp.identity.types import Refusal, VerifiedIdentity
from pdp.limits import HEARTBEAT_INTERVAL_S
from pdp.model.attributes import NO_ATTRIBUTES, Attributes
from pdp.model.decision import Answer, Obligation
from pdp.model.names import Action, Resource
from pdp.model.request import Question
from pdp.replica import Replica
from pdp.service.authenticate import Authenticator
from pdp.service.decide import Decider

DOOR: Final = "admin"


class Refused(PortcullisError):  # noqa: N818 - a door's word, as `PackRefused`
    """A caller that may not, or whose credential does not hold; `decision_id` names the record of it."""

    def __init__(
        self, reason: Reason, message: str, *, decision_id: str, advice: str = "", challenge: tuple[Header, ...] = ()
    ) -> None:
        super().__init__(reason, message, advice=advice)
        self.decision_id = decision_id
        self.challenge = challenge


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """What a caller needs: an action on a built-in resource. `recorded` is False where an allow is no event of its own."""

    action: Action
    resource: Resource
    recorded: bool = True

    def __str__(self) -> str:
        return f"{self.action} on {self.resource}"


def right(action: str, resource: str, *, recorded: bool = True) -> Right:
    """Return the right that two names spell."""
    return Right(action=Action.parse(action), resource=Resource.parse(resource), recorded=recorded)


ASK: Final = right("decision.ask", "decision/main", recorded=False)
ASSERT: Final = right("decision.assert", "decision/main", recorded=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An authenticated caller; `authorization` is what it sent, to know its own credential again in a question."""

    identity: VerifiedIdentity
    authorization: str = field(default="", repr=False)
    peer: PeerCertificate | None = None

    @property
    def name(self) -> str:
        """The principal, as records name it."""
        return str(self.identity.party.principal)

    def question(self, wanted: Right, attributes: Attributes = NO_ATTRIBUTES) -> Question:
        """Return the question whether this caller holds `wanted`, where `attributes` say what it would be used for."""
        identity = self.identity
        return Question(
            subject=identity.party,
            action=wanted.action,
            resource=wanted.resource,
            actors=identity.actors,
            attributes=attributes,
            workload=identity.workload,
            claims=identity.attributes,
            credential=identity.facts,
        )


CALLER: Final[contextvars.ContextVar[Caller]] = contextvars.ContextVar("caller")
"""The caller of the RPC that this task serves; set by the guard before any servicer runs."""


RENEW: Final[contextvars.ContextVar[Callable[[str], Awaitable[None]]]] = contextvars.ContextVar("renew")
"""`await RENEW.get()(authorization)`: the stream that this task serves goes on with a fresh credential; set by the guard."""


class Gate:
    """Authenticates callers and decides what they may do here."""

    def __init__(self, *, authenticator: Authenticator, decider: Decider, replica: Replica, origin: str = "") -> None:
        """Prepare; `origin` is the scheme and authority that a DPoP proof must name, empty where none can hold."""
        self._origin = origin
        self._authenticator = authenticator
        self._decider = decider
        self._replica = replica

    async def admit(
        self, authorization: str | None, peer: PeerCertificate | None, *, method: str, proof: str | None = None
    ) -> Caller:
        """Return who calls; `proof` is the value of the `dpop` metadata.

        Raises:
            Refused: the credential is missing or does not hold; the record says why, the caller learns the code only.
        """
        # gRPC is always a POST; the authority is ours by configuration, and never what the client called us (PR-3).
        request = BoundRequest(method="POST", uri=self._origin + method if self._origin else "", proof=proof)
        identity = await self._authenticator.authenticate(
            authorization, peer, locks=self._replica.world.locks, request=request
        )
        if isinstance(identity, Refusal):
            answer = await self.refuse(identity, method=method)
            message = f"the caller's credential is refused: {identity.reason.value}"
            headers = challenge(identity, nonce=self._authenticator.nonce())
            raise Refused(identity.reason, message, decision_id=answer.decision_id, challenge=headers)
        return Caller(identity=identity, authorization=authorization or "", peer=peer)

    async def refuse(self, refusal: Refusal, *, method: str) -> Answer:
        """Record a refused credential."""
        return await self._decider.refuse(refusal.reason, detail=f"{method}: {refusal.detail}", door=DOOR)

    async def authorise(self, caller: Caller, wanted: Right) -> None:
        """Return if `caller` holds `wanted`.

        Raises:
            Refused: it does not, or we cannot decide.
        """
        if not wanted.recorded and self._decider.recheck(caller.question(wanted)).allowed:
            return
        await self.permit(caller, wanted, NO_ATTRIBUTES)

    async def permit(self, caller: Caller, wanted: Right, attributes: Attributes) -> tuple[Obligation, ...]:
        """Return what an allow of `wanted` obliges to; it is recorded.

        Raises:
            Refused: `caller` does not hold it, or we cannot decide.
        """
        answer = await self._decider.answer(caller.question(wanted, attributes), caller=caller.name, door=DOOR)
        if not answer.decision.allowed:
            raise _refused(answer, wanted)
        return answer.decision.obligations

    def would(self, caller: Caller, wanted: Right, attributes: Attributes) -> tuple[Obligation, ...] | None:
        """Return what an allow of `wanted` would oblige to, None for a deny; only to tell, so nothing is recorded."""
        decision = self._decider.recheck(caller.question(wanted, attributes))
        return decision.obligations if decision.allowed else None

    def lost(self, caller: Caller, wanted: Right) -> Reason | None:
        """Return why `caller` no longer holds `wanted` in the world of now; None if it does, or if we cannot tell.

        A world that is merely stale takes no stream from anybody: replicas would lose us when they need us most.
        """
        decision = self._decider.recheck(caller.question(wanted))
        spoken = MEANINGS[decision.reason].side is Side.POLICY
        return decision.reason if spoken and not decision.allowed else None

    def holds_for_s(self, caller: Caller, wanted: Right) -> float | None:
        """Return for how many seconds `caller` surely holds `wanted` in the world of now; None: until a new world."""
        decision = self._decider.recheck(caller.question(wanted))
        # A stale world tells nothing, and a heartbeat that ends its staleness makes no new one.
        return decision.recheck_after_s if decision.allowed else HEARTBEAT_INTERVAL_S


def _refused(answer: Answer, wanted: Right) -> Refused:
    reason = answer.decision.reason
    # A refusal that no policy speaks (a stale world, a lost log) is ours to mend, not the caller's to be granted.
    policy = MEANINGS[reason].side is Side.POLICY
    advice = f"ask an administrator for {wanted}" if policy else "try again; see the PDP's readiness page"
    return Refused(reason, f"not allowed: {wanted}", decision_id=answer.decision_id, advice=advice)
