"""Questions in local mode: who we are, what we may ask, and whom we may speak for. The PDP's own rules, in our process.

An `Admitted` is our verified identity in one world, holding `decision.ask`. It is good until the world moves, a minute has
passed, or the credential or the right ends; then it is made anew. So nothing that it remembers outlives what it stands on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pdp.discretion import discreet, sees, telling
from pdp.errors import BadNameError, BadRequestError, Reason
from pdp.identity.types import AssertedIdentity, Refusal, VerifiedIdentity
from pdp.limits import DECISION_CACHE_ENTRIES, TOKEN_CACHE_LIFE_S
from pdp.model import decision as model
from pdp.model.attributes import AttributeType, Value
from pdp.model.decision import Answer
from pdp.model.names import Action, Principal, Resource, printable
from pdp.model.request import NO_FACTS, Party
from pdp.model.request import Question as Engine
from pdp.sdk._core import plain_value, request_attributes
from pdp.sdk._machine import Machine
from pdp.sdk.errors import BadQuestion, CredentialRefused, NotPermitted
from pdp.sdk.values import Asserted, AttributeValue, Bearer, Decision, Dpop, Question, Subject
from pdp.v1 import types_pb2
from pdp.world import World

DOOR: Final = "sdk"
_ASK: Final = (Action.parse("decision.ask"), Resource.parse("decision/main"))
_ASSERT: Final = (Action.parse("decision.assert"), Resource.parse("decision/main"))
_ASSET_READ: Final = (Action.parse("asset.read"), Resource.parse("asset/all"))
_POLICY_READ: Final = (Action.parse("policy.read"), Resource.parse("policy/main"))
_KINDS: Final[Mapping[str, AttributeType]] = {
    "bool_value": AttributeType.BOOL,
    "int_value": AttributeType.INT,
    "double_value": AttributeType.DOUBLE,
    "string_value": AttributeType.STRING,
    "list_value": AttributeType.LIST,
    "timestamp_value": AttributeType.TIMESTAMP,
}
Right = tuple[Action, Resource]


@dataclass(slots=True, eq=False)
class Prepared:
    """A question as the engine reads it, with the last allow that was recorded for it."""

    question: Engine
    told: Decision | None = None
    until_s: float = 0.0


@dataclass(slots=True, kw_only=True, eq=False)
class Admitted:
    """Who we are in one world."""

    token: str = field(repr=False)
    world: World
    identity: VerifiedIdentity
    until_s: float
    prepared: dict[tuple[str, str], Prepared] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Our principal, as records name it."""
        return str(self.identity.party.principal)

    def own(self, right: Right) -> Engine:
        """Return the question whether we hold a right."""
        identity = self.identity
        return Engine(
            subject=identity.party,
            actors=identity.actors,
            action=right[0],
            resource=right[1],
            workload=identity.workload,
            claims=identity.attributes,
            credential=identity.facts,
        )

    def remember(self, name: tuple[str, str], prepared: Prepared) -> None:
        """Keep a plain question, prepared; a full memory begins anew."""
        if len(self.prepared) >= DECISION_CACHE_ENTRIES:
            self.prepared.clear()
        self.prepared[name] = prepared


class Reader:
    """Admits us, and turns what a caller of the SDK asks into a question of the engine. Runs on the machine's loop."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    async def admit(self, token: str) -> Admitted:
        """Return who we are in the world of now.

        Raises:
            CredentialRefused: our credential does not hold.
            NotPermitted: we may not ask.
        """
        machine, world = self._machine, self._machine.replica.world
        shown = f"Bearer {token}" if token else None
        identity = await machine.authenticator.authenticate(shown, machine.peer, locks=world.locks)
        if isinstance(identity, Refusal):
            answer = await machine.decider.refuse(identity.reason, detail=identity.detail, door=DOOR)
            raise CredentialRefused(
                identity.reason, f"our credential is refused: {identity.reason}, decision {answer.decision_id}"
            )
        admitted = Admitted(token=token, world=world, identity=identity, until_s=0.0)
        decision = await self.authorise(admitted, _ASK)
        bounds = [TOKEN_CACHE_LIFE_S, decision.recheck_after_s, self._left_s(identity.expires_at_s)]
        left_s = min(bound for bound in bounds if bound is not None)
        admitted.until_s = machine.clock.mono_s() + left_s
        return admitted

    async def authorise(self, admitted: Admitted, right: Right) -> model.Decision:
        """Return the decision that grants us `right`; only a refusal is recorded.

        Raises:
            NotPermitted: it is not granted.
        """
        question = admitted.own(right)
        decision = self._machine.decider.recheck(question)
        if decision.allowed:
            return decision
        answer = await self._machine.decider.answer(question, caller=admitted.name, door=DOOR)
        if answer.decision.allowed:
            return answer.decision
        raise NotPermitted(
            answer.decision.reason,
            f"not allowed: {right[0]} on {right[1]}, decision {answer.decision_id}",
            advice=f"ask an administrator for {right[0]} on {right[1]}",
        )

    async def may_read_policy(self, admitted: Admitted) -> None:
        """Return if we may list who can."""
        await self.authorise(admitted, _POLICY_READ)

    def seen(self, answer: Answer, question: Engine, admitted: Admitted) -> Answer:
        """Return an answer as the PDP would tell it us: what exists is not told to who may not see it (FAILURE.md N10)."""
        decider = self._machine.decider
        if not telling(answer.decision) or self._machine.trust.development:
            return answer
        if any(decider.recheck(admitted.own(right)).allowed for right in (_ASSET_READ, _ASSERT)):
            return answer
        moment = decider.moment()
        known = sees(moment.world, question, moment.now_ms, clock_off=moment.clock_off)
        return answer._replace(decision=discreet(answer.decision, known=known))

    async def read(self, question: Question, admitted: Admitted) -> Engine | Refusal:
        """Return the question as the engine reads it, or why the credential inside it does not hold.

        Raises:
            BadQuestion: it is malformed.
            NotPermitted: it says what we may not assert.
        """
        try:
            who = await self.who(question.subject, admitted)
            if isinstance(who, Refusal):
                return who
            return await self._engine(question, who, admitted)
        except (BadNameError, BadRequestError) as error:
            raise BadQuestion(error.reason, error.message) from error

    async def who(self, subject: Subject, admitted: Admitted) -> VerifiedIdentity | AssertedIdentity | Refusal:
        """Return whom a question means: ourselves, whom we may assert, or whose credential it shows."""
        if subject is None:
            return admitted.identity
        if isinstance(subject, Dpop):
            # Whoever answers under one name must share what was used, and processes do not share a replica.
            raise BadRequestError("local mode takes no DPoP proof, for it cannot know whether it was used: ask a PDP")
        if isinstance(subject, Bearer):
            shown = f"Bearer {subject.token.removeprefix('Bearer ')}"
            return await self._machine.authenticator.authenticate(shown, None, locks=admitted.world.locks)
        await self.authorise(admitted, _ASSERT)
        asserted = Asserted(principal=subject) if isinstance(subject, str) else subject
        actors = tuple(_party(actor.principal, actor.groups) for actor in asserted.actors)
        party = _party(asserted.principal, asserted.groups)
        return AssertedIdentity(by=admitted.identity, party=party, actors=actors)

    async def attributes(self, given: Mapping[str, AttributeValue], admitted: Admitted) -> dict[str, Value]:
        """Return request attributes, each of which we may assert."""
        messages = request_attributes(given)
        for name, message in messages.items():
            await self._check_asserted(name, message, admitted)
        return {name: plain_value(message) for name, message in messages.items()}

    async def _engine(self, question: Question, who: VerifiedIdentity | AssertedIdentity, admitted: Admitted) -> Engine:
        verified = who if isinstance(who, VerifiedIdentity) else None
        if isinstance(question.supports, str):
            raise BadRequestError("`supports` is a list of names, not one text")
        return Engine(
            subject=who.party,
            actors=who.actors,
            action=Action.parse(question.action),
            resource=Resource.parse(question.resource),
            workload=await self._workload(question.workload, verified, admitted),
            serves=Resource.parse(question.serves) if question.serves else None,
            attributes=await self.attributes(question.attributes, admitted),
            claims=verified.attributes if verified else {},
            credential=verified.facts if verified else NO_FACTS,
            supports=None if question.supports is None else frozenset(question.supports),
        )

    async def _workload(self, name: str, verified: VerifiedIdentity | None, admitted: Admitted) -> Principal | None:
        own = verified.workload if verified else None
        if not name:
            return own
        named = Principal.parse(name)
        if named != own:
            await self.authorise(admitted, _ASSERT)
        return named

    async def _check_asserted(self, name: str, message: types_pb2.Value, admitted: Admitted) -> None:
        """Refuse an attribute that is not ours to say; `decide` refuses one that nobody knows."""
        snapshot = admitted.world.snapshot
        info = snapshot.vocabulary.attributes.get(name) if snapshot else None
        if info is None:
            return
        if _KINDS[message.WhichOneof("kind") or "string_value"] is not info.type:
            raise BadRequestError(f"attribute `{printable(name)}` must be of type {info.type.value}")
        if "caller" in info.asserted_by:
            return
        if "enforcement_point" not in info.asserted_by:
            raise BadRequestError(f"attribute `{printable(name)}` cannot be asserted in a question")
        await self.authorise(admitted, _ASSERT)

    def _left_s(self, expires_at_s: int) -> float | None:
        return max(0.0, expires_at_s - self._machine.clock.now_ms() / 1000) if expires_at_s else None


def told(decision: model.Decision, decision_id: str) -> Decision:
    """Return a decision as a client has it: what a PDP tells of a deny, and no more."""
    return Decision(
        effect=decision.effect,
        reason=decision.reason,
        world_seq=decision.world_seq,
        obligations=decision.obligations,
        determining=decision.determining,
        role_path=decision.role_path,
        recheck_after_s=decision.recheck_after_s if decision.allowed else None,
        nearest_miss=decision.nearest_miss,
        detail=decision.detail,
        candidate=decision.candidate,
        decision_id=decision_id,
    )


def refused(reason: Reason, world_seq: int, decision_id: str) -> Decision:
    """Return the deny of a question whose own credential does not hold."""
    return Decision(effect=model.Effect.DENY, reason=reason, world_seq=world_seq, decision_id=decision_id)


def _party(principal: str, groups: object) -> Party:
    if isinstance(groups, str):
        raise BadRequestError("`groups` is a list of names, not one text")
    return Party(principal=Principal.parse(principal), groups=frozenset(groups))  # type: ignore[call-overload]
