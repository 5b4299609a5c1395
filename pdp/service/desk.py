"""The desk where changes of the policy lie: weighed on exactly one world, published on it, and judged by others.

What each kind of change needs is its own use case (`policy.py`, `access.py`); here is what they share, so that there is one way
to open a proposal, one way to approve it, and one compare-and-set.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from pdp.change.facts import Facts, nothing_touched
from pdp.change.proposal import Change, Proposal
from pdp.change.trial import Ended, Trial
from pdp.decide import decide
from pdp.errors import ConflictError, PortcullisError, Reason
from pdp.limits import PROPOSAL_LIFE_S
from pdp.model.attributes import Attributes
from pdp.model.canonical import digest
from pdp.model.decision import Obligation
from pdp.model.names import Action, Resource, printable
from pdp.model.request import Party, Question
from pdp.ports import Clock
from pdp.replica import Replica
from pdp.service.replicate import Publisher
from pdp.world import Policy, World, policy_after

KIND: Final = "policy"
PROPOSAL: Final = "proposal"
VERDICT: Final = "verdict"
TRIAL: Final = "trial"
TRIAL_END: Final = "trial_end"
APPROVE: Final = Action.parse("policy.approve")
REJECT: Final = Action.parse("policy.reject")
POLICY: Final = Resource.parse("policy/main")
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_OF_HEADER: Final = {"seq", "start_ms"}
"""What the header of an entry says of a trial, and its payload does not."""

_TAKEN_BACK: Final = frozenset({Reason.LOCKED, Reason.NO_GRANT, Reason.DENIED_BY_RULE, Reason.DELEGATION_DENIED})

May = Callable[[Action, Attributes], Awaitable[Sequence[Obligation]]]
"""Decides and records whether the caller may; returns what an allow obliges to, or raises."""
Would = Callable[[Action, Attributes], Sequence[Obligation] | None]
"""The same, asked only to tell: nothing is recorded, and None is no."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acting:
    """Who changes the policy: the subject, then the actors, as their credential says; and what they may."""

    parties: tuple[Party, ...]
    may: May
    would: Would

    @property
    def chain(self) -> tuple[str, ...]:
        """The names, subject first."""
        return tuple(str(party.principal) for party in self.parties)

    @property
    def groups(self) -> tuple[str, ...]:
        """What their issuers vouch for."""
        return tuple(sorted({group for party in self.parties for group in party.groups}))


@dataclass(frozen=True, slots=True)
class Weighed:
    """A change on exactly one world: what it touches, and how long it lasts, if it ends by itself.

    `revision` names the policy that it makes.
    """

    world: World
    change: Change
    facts: Facts | None
    lasts_s: int = 0
    revision: str = ""

    def attributes(self, parties: Sequence[Party]) -> Attributes:
        """Return what the change touches, as attributes of a question; nobody of `parties` may gain by it."""
        return self.facts.attributes(parties, lasts_s=self.lasts_s) if self.facts else {}


class Desk:
    """Weighs, publishes and judges."""

    def __init__(self, *, replica: Replica, publisher: Publisher, clock: Clock) -> None:
        self._replica = replica
        self._publisher = publisher
        self._clock = clock

    @property
    def world(self) -> World:
        """The world of now."""
        return self._replica.world

    def now_ms(self) -> int:
        """Return the time that decisions go by."""
        return self._replica.now_ms(self._clock.now_ms())

    def untouched(self) -> Attributes:
        """Return the attributes of a question about changes that itself changes nothing."""
        snapshot = self.world.snapshot
        return nothing_touched(snapshot.vocabulary) if snapshot else {}

    def waiting(self) -> tuple[Proposal, ...]:
        """Return the proposals that are open, oldest first."""
        now_ms = self.now_ms()
        return tuple(one for one in self.world.proposals if one.expires_ms > now_ms)

    def proposal(self, proposal_id: str, expected: str = "") -> Proposal:
        """Return an open proposal; `expected` is the digest of the change that the caller has looked at.

        Raises:
            PortcullisError: `not_found`, or `conflict` if it is another change.
        """
        proposal = self.world.proposals.get(proposal_id)
        if proposal is None or proposal.expires_ms <= self.now_ms():
            message = f"no proposal `{printable(proposal_id)}` is open"
            raise PortcullisError(Reason.NOT_FOUND, message, advice="`pdp policy status` lists those that are")
        if expected and proposal.digest != expected:
            message = f"proposal {proposal.id} is another change than the one that was looked at"
            raise PortcullisError(Reason.CONFLICT, message, advice=f"look again: `pdp policy show {proposal.id}`")
        return proposal

    # --- publishing --------------------------------------------------------------------------------------------------

    async def weigh(self, world: World, change: Mapping[str, Any], message: str) -> Weighed:
        """Compile what a change makes of a world's policy, in a thread, and find out what it touches.

        Raises:
            PortcullisError: `policy_refused` if it does not compile.
        """
        return await asyncio.to_thread(_weighed, world, {**change, "message": message}, self.now_ms())

    async def open(self, change: Change, world: World, who: Acting) -> Proposal | None:
        """Publish a proposal on exactly the world it was weighed on; None if another entry came first."""
        payload = {
            "change": dict(change),
            "revision": world.revision,
            "words": words(world.policy),
            "authors": list(who.chain),
            "groups": list(who.groups),
            "expires_ms": self.now_ms() + int(PROPOSAL_LIFE_S * 1000),
        }
        if not await self._publish(PROPOSAL, payload, who.chain[0], world):
            return None
        return self.proposal(f"p{world.seq + 1}")

    async def publish(self, weighed: Weighed, who: Acting, history: Mapping[str, Any]) -> bool:
        """Publish the policy on exactly the world it was weighed on, so that nothing unseen is live beside it."""
        payload = {"authors": list(who.chain), **weighed.change, **history}
        return await self._publish(KIND, payload, who.chain[0], weighed.world)

    async def begin(self, trial: Trial, proposal: Proposal, who: Acting, world: World) -> bool:
        """Publish the begin of a trial on exactly the world it was weighed on; False if another entry came first."""
        said = trial.to_json()
        payload = {name: said[name] for name in said if name not in _OF_HEADER}
        return await self._publish(
            TRIAL, {**payload, "approvals": proposal.history()["approvals"]}, who.chain[0], world
        )

    async def end(
        self, trial: Trial, why: Ended, by: Sequence[str], world: World, *, told: Mapping[str, Any] = NOTHING
    ) -> bool:
        """Publish the end of a trial, why, and in `told` what it has shown; False if another entry came first."""
        payload = {"trial": trial.seq, "proposal": trial.proposal, "why": why.value, "by": list(by), **told}
        return await self._publish(TRIAL_END, payload, by[0], world)

    async def _publish(self, kind: str, payload: Mapping[str, Any], author: str, world: World) -> bool:
        try:
            await self._publisher.publish(kind, dict(payload), author=author, expected_seq=world.seq)
        except ConflictError:
            if self.world is world:
                raise  # what came first cannot be taken in here: asking again would not end
            return False
        return True

    # --- judging -----------------------------------------------------------------------------------------------------

    async def approve(self, proposal: Proposal, weighed: Weighed, *, message: str, who: Acting) -> bool:
        """Say yes to a proposal as it is weighed on the world of now; False if another entry came first.

        Raises:
            PortcullisError: `self_approval` if the caller had a hand in it or gains by it; and where they may not approve
                such a change.
        """
        if proposal.written_by(who.chain):
            told = f"{who.chain[0]} had a hand in {proposal.id}: its author never approves it"
            raise PortcullisError(Reason.SELF_APPROVAL, told, advice="ask somebody else")
        attributes = await asyncio.to_thread(weighed.attributes, proposal.parties())
        await who.may(APPROVE, attributes)
        if weighed.facts is not None and await asyncio.to_thread(_favours, weighed.facts, who.parties):
            told = f"{who.chain[0]} gains by {proposal.id}, so their yes does not count"
            raise PortcullisError(Reason.SELF_APPROVAL, told, advice="ask somebody who does not")
        return await self._judged(proposal, who, weighed.world, approves=True, message=message)

    async def reject(self, proposal_id: str, *, message: str, who: Acting) -> World:
        """End a proposal. Its author may always withdraw it.

        Raises:
            PortcullisError: `not_found`; and where the caller may not reject it.
        """
        while True:
            world, proposal = self.world, self.proposal(proposal_id)
            if not proposal.written_by(who.chain):
                await who.may(REJECT, self.untouched())
            if await self._judged(proposal, who, world, approves=False, message=message):
                return self.world

    async def _judged(self, proposal: Proposal, who: Acting, world: World, *, approves: bool, message: str) -> bool:
        payload = {
            "proposal": proposal.id,
            "digest": proposal.digest,
            "approves": approves,
            "by": list(who.chain),
            "groups": list(who.groups),
            "message": message,
        }
        return await self._publish(VERDICT, payload, who.chain[0], world)

    async def approvers(self, proposal: Proposal, weighed: Weighed) -> list[str]:
        """Return who approved it and counts: who is locked out by now, or may no longer approve it, has no say any more."""
        attributes = await asyncio.to_thread(weighed.attributes, proposal.parties())
        world, now_ms = weighed.world, self.now_ms()
        counting = [
            one for one in proposal.verdicts if not taken_back(APPROVE, one.parties(), world, attributes, now_ms)
        ]
        return list(replace(proposal, verdicts=tuple(counting)).approvers())


def taken_back(
    action: Action, parties: Sequence[Party], world: World, attributes: Attributes, now_ms: int
) -> Reason | None:
    """Return why the policy of now would surely refuse what it once let these parties do; None if it may not.

    A condition that reads what their token said then cannot be asked again, and takes nothing back.
    """
    subject, *actors = parties
    question = Question(subject=subject, actors=tuple(actors), action=action, resource=POLICY, attributes=attributes)
    decision = decide(world, question, now_ms)
    return decision.reason if not decision.allowed and decision.reason in _TAKEN_BACK else None


def _weighed(world: World, change: dict[str, Any], now_ms: int) -> Weighed:
    policy = policy_after(world.policy, change)
    change["rows_digest"] = policy.snapshot.digest.hex()
    if world.policy is None:
        return Weighed(world, change, None, revision=policy.revision)
    changed = words(world.policy) != words(policy)
    facts = Facts(world.policy.snapshot, policy.snapshot, changed, now_ms)
    return Weighed(world, change, facts, revision=policy.revision)


def words(policy: Policy | None) -> str:
    """Return what names a policy's model and vocabulary."""
    texts = (policy.model_text.encode(), policy.vocabulary_text.encode()) if policy else ()
    return digest("words", *texts).hex()


def _favours(facts: Facts, parties: Sequence[Party]) -> bool:
    return any(facts.favours(party) for party in parties)


def approvals(obligations: Sequence[Obligation]) -> int:
    """Return how many approvals an allow obliges to."""
    return next((int(one.value) for one in obligations if one.name == "approvals"), 0)
