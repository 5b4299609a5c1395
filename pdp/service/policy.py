"""Changing the policy: proposed, approved by whom the policy names, and live; or live at once where it demands nobody.

The rules about changes are policy themselves. Whoever makes a change live asks `policy.activate` on `policy/main`, with what
the change touches as attributes (`change.production`, `change.administration`, …: `pdp.change.facts`); the allow may carry
the obligation `approvals=N`. Each approval is a decision on `policy.approve` with the same attributes, and binds to the
digest of the exact change. A proposal compared with an older policy is carried over by itself where its rows still fit.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pdp.change.facts import Facts
from pdp.change.proposal import Change, Proposal
from pdp.engine.casbin_text import Row
from pdp.errors import ConflictError, PortcullisError, Reason
from pdp.limits import PROPOSAL_LIFE_S
from pdp.model.attributes import Attributes
from pdp.model.canonical import digest
from pdp.model.decision import Obligation
from pdp.model.names import Action, Principal, Resource, printable
from pdp.model.request import Party, Question
from pdp.ports import Clock
from pdp.replica import Replica
from pdp.service.replicate import Publisher
from pdp.world import Policy, World, policy_after

KIND: Final = "policy"
PROPOSAL: Final = "proposal"
VERDICT: Final = "verdict"
ACTIVATE: Final = Action.parse("policy.activate")
APPROVE: Final = Action.parse("policy.approve")
REJECT: Final = Action.parse("policy.reject")
POLICY: Final = Resource.parse("policy/main")

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A change worth considering: how to make it from the live policy, why, and what is odd about it."""

    make: Callable[[Policy | None], dict[str, Any]]
    message: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a draft: live in `world`, or a proposal that waits for `needed` approvals."""

    change: Change
    warnings: tuple[str, ...]
    base_seq: int
    world: World | None = None
    proposal: Proposal | None = None
    needed: int = 0


@dataclass(frozen=True, slots=True)
class _Weighed:
    """A change on exactly one world: the policy it makes, and what it touches."""

    world: World
    change: Change
    facts: Facts | None

    def attributes(self, parties: Sequence[Party]) -> Attributes:
        return self.facts.attributes(parties) if self.facts else {}


class Policies:
    """Proposes, judges, activates and shows the policy."""

    def __init__(self, *, replica: Replica, publisher: Publisher, clock: Clock) -> None:
        self._replica = replica
        self._publisher = publisher
        self._clock = clock

    # --- what is there -----------------------------------------------------------------------------------------------

    def live(self) -> World:
        """Return the world whose policy is live.

        Raises:
            PortcullisError: `not_found` before genesis.
        """
        world = self._replica.world
        if world.policy is None:
            raise PortcullisError(Reason.NOT_FOUND, "no policy is held yet", advice="run `pdp init`")
        return world

    def waiting(self) -> tuple[Proposal, ...]:
        """Return the proposals that are open, oldest first."""
        now_ms = self._now_ms()
        return tuple(one for one in self._replica.world.proposals if one.expires_ms > now_ms)

    def proposal(self, proposal_id: str, expected: str = "") -> Proposal:
        """Return an open proposal; `expected` is the digest of the change that the caller has looked at.

        Raises:
            PortcullisError: `not_found`, or `conflict` if it is another change.
        """
        proposal = self._replica.world.proposals.get(proposal_id)
        if proposal is None or proposal.expires_ms <= self._now_ms():
            message = f"no proposal `{printable(proposal_id)}` is open"
            raise PortcullisError(Reason.NOT_FOUND, message, advice="`pdp policy status` lists those that are")
        if expected and proposal.digest != expected:
            message = f"proposal {proposal.id} is another change than the one that was looked at"
            raise PortcullisError(Reason.CONFLICT, message, advice=f"look again: `pdp policy show {proposal.id}`")
        return proposal

    def _now_ms(self) -> int:
        return self._replica.now_ms(self._clock.now_ms())

    # --- proposing ---------------------------------------------------------------------------------------------------

    async def propose(self, draft: Draft, who: Acting) -> Outcome:
        """Put a change before others; it waits until it is activated, rejected, or too old. What is live already is live.

        Raises:
            PortcullisError: `bad_request` if too many wait, `policy_refused` if it does not compile.
        """
        while True:
            weighed = await self._weigh(self._replica.world, draft.make(self._replica.world.policy), draft.message)
            if not _changes(weighed.change):
                return _outcome(weighed, draft, world=weighed.world)
            proposal = await self._opened(weighed, who)
            if proposal is not None:
                attributes = await asyncio.to_thread(weighed.attributes, who.parties)
                would = who.would(ACTIVATE, attributes)
                return _outcome(weighed, draft, proposal=proposal, needed=1 if would is None else _approvals(would))

    async def apply(self, draft: Draft, who: Acting) -> Outcome:
        """Make a change live at once, or a proposal of it where the policy demands approvals.

        Raises:
            PortcullisError: as `propose`; and where the caller may not activate it.
        """
        while True:
            weighed = await self._weigh(self._replica.world, draft.make(self._replica.world.policy), draft.message)
            needed = await self._needed(weighed, who, who.parties)
            if not _changes(weighed.change):
                return _outcome(weighed, draft, world=weighed.world)
            if not needed and await self._published(weighed, who, {}):
                return _outcome(weighed, draft, world=self._replica.world)
            proposal = await self._opened(weighed, who) if needed else None
            if proposal is not None:
                return _outcome(weighed, draft, proposal=proposal, needed=needed)

    async def _opened(self, weighed: _Weighed, who: Acting) -> Proposal | None:
        """Publish a proposal on exactly the world it was weighed on; None if another entry came first."""
        world = weighed.world
        payload = {
            "change": dict(weighed.change),
            "revision": world.revision,
            "words": _words(world.policy),
            "authors": list(who.chain),
            "groups": list(who.groups),
            "expires_ms": self._now_ms() + int(PROPOSAL_LIFE_S * 1000),
        }
        if not await self._publish(PROPOSAL, payload, who, world):
            return None
        return self.proposal(f"p{world.seq + 1}")

    # --- judging -----------------------------------------------------------------------------------------------------

    async def approve(self, proposal_id: str, *, expected: str, message: str, who: Acting) -> tuple[Proposal, World]:
        """Say yes to exactly the change that `expected` names; whether it is then enough, `activate` asks.

        Raises:
            PortcullisError: `not_found`, `conflict`, `self_approval` if the caller had a hand in it or gains by it; and
                where the caller may not approve such a change.
        """
        while True:
            world = self._replica.world
            proposal = self.proposal(proposal_id, expected)
            if proposal.written_by(who.chain):
                message_ = f"{who.chain[0]} had a hand in {proposal.id}: its author never approves it"
                raise PortcullisError(Reason.SELF_APPROVAL, message_, advice="ask somebody else")
            weighed = await self._weigh(world, self._carried(proposal, world.policy), proposal.message)
            attributes = await asyncio.to_thread(weighed.attributes, proposal.parties())
            await who.may(APPROVE, attributes)
            if weighed.facts is not None and await asyncio.to_thread(_favours, weighed.facts, who.parties):
                message_ = f"{who.chain[0]} gains by {proposal.id}, so their yes does not count"
                raise PortcullisError(Reason.SELF_APPROVAL, message_, advice="ask somebody who does not")
            if await self._judged(proposal, who, world, approves=True, message=message):
                return self.proposal(proposal_id), self._replica.world

    async def reject(self, proposal_id: str, *, message: str, who: Acting) -> World:
        """End a proposal. Its author may always withdraw it.

        Raises:
            PortcullisError: `not_found`; and where the caller may not reject it.
        """
        while True:
            world, proposal = self._replica.world, self.proposal(proposal_id)
            if not proposal.written_by(who.chain):
                await who.may(REJECT, {})
            if await self._judged(proposal, who, world, approves=False, message=message):
                return self._replica.world

    async def _judged(self, proposal: Proposal, who: Acting, world: World, *, approves: bool, message: str) -> bool:
        payload = {
            "proposal": proposal.id,
            "digest": proposal.digest,
            "approves": approves,
            "by": list(who.chain),
            "message": message,
        }
        return await self._publish(VERDICT, payload, who, world)

    # --- activating --------------------------------------------------------------------------------------------------

    async def activate(self, proposal_id: str, *, who: Acting) -> World:
        """Make a proposal the live policy and return the world that holds it.

        Raises:
            PortcullisError: `not_found`; `conflict` if the live policy has changed so that it no longer fits;
                `approval_missing` with who approved and how many are wanted; and where the caller may not.
        """
        while True:
            world = self._replica.world
            proposal = self.proposal(proposal_id)
            weighed = await self._weigh(world, self._carried(proposal, world.policy), proposal.message)
            needed = await self._needed(weighed, who, proposal.parties())
            approved = [name for name in proposal.approvers() if not self._locked(name, world)]
            if len(approved) < needed:
                raise PortcullisError(
                    Reason.APPROVAL_MISSING,
                    f"{proposal.id} has {len(approved)} of {needed} approvals{_by(approved)}",
                    advice=f"ask for one: `pdp policy approve {proposal.id}`",
                )
            history = {
                "proposal": proposal.id,
                "authors": list(proposal.authors),
                "approvals": [{"by": list(one.by), "seq": one.seq} for one in proposal.verdicts],
            }
            if await self._published(weighed, who, history):
                return self._replica.world

    def _carried(self, proposal: Proposal, policy: Policy | None) -> dict[str, Any]:
        """Return the change of a proposal as it fits the live policy: rebased, where rows alone moved and none collide.

        Raises:
            PortcullisError: `conflict`, which names the rows, or the texts.
        """
        if policy is None or policy.revision == proposal.revision:
            return dict(proposal.change)
        if proposal.change["model"] is not None or proposal.change["vocabulary"] is not None:
            raise _conflict(proposal, "it changes the model or the vocabulary, and another policy is live since")
        if proposal.words != _words(policy):
            raise _conflict(proposal, "the model or the vocabulary has changed since")
        collisions = _collisions(proposal.change, policy)
        if collisions:
            raise _conflict(proposal, f"these rows have changed since: {', '.join(collisions)}")
        return dict(proposal.change)

    @staticmethod
    def _locked(name: str, world: World) -> bool:
        """Whoever is locked out now has no say in what happens now."""
        party = Party(principal=Principal.parse(name))
        return world.locks.match(Question(subject=party, action=APPROVE, resource=POLICY), world.signed_ms) is not None

    # --- weighing ----------------------------------------------------------------------------------------------------

    async def _weigh(self, world: World, change: Mapping[str, Any], message: str) -> _Weighed:
        """Compile what a change makes of a world's policy, in a thread, and find out what it touches.

        Raises:
            PortcullisError: `policy_refused` if it does not compile.
        """
        return await asyncio.to_thread(_weighed, world, {**change, "message": message}, self._now_ms())

    async def _needed(self, weighed: _Weighed, who: Acting, parties: Sequence[Party]) -> int:
        """Return how many approvals this change needs; raises if the caller may not activate it."""
        attributes = await asyncio.to_thread(weighed.attributes, parties)
        return _approvals(await who.may(ACTIVATE, attributes))

    async def _published(self, weighed: _Weighed, who: Acting, history: Mapping[str, Any]) -> bool:
        """Publish the policy on exactly the world it was weighed on, so that nothing unseen is live beside it."""
        return await self._publish(KIND, {"authors": list(who.chain), **weighed.change, **history}, who, weighed.world)

    async def _publish(self, kind: str, payload: Mapping[str, Any], who: Acting, world: World) -> bool:
        try:
            await self._publisher.publish(kind, dict(payload), author=who.chain[0], expected_seq=world.seq)
        except ConflictError:
            if self._replica.world is world:
                raise  # what came first cannot be taken in here: asking again would not end
            return False
        return True


def _weighed(world: World, change: dict[str, Any], now_ms: int) -> _Weighed:
    policy = policy_after(world.policy, change)
    change["rows_digest"] = policy.snapshot.digest.hex()
    if world.policy is None:
        return _Weighed(world, change, None)
    words = _words(world.policy) != _words(policy)
    return _Weighed(world, change, Facts(world.policy.snapshot, policy.snapshot, words, now_ms))


def _outcome(
    weighed: _Weighed, draft: Draft, *, world: World | None = None, proposal: Proposal | None = None, needed: int = 0
) -> Outcome:
    return Outcome(
        change=weighed.change,
        warnings=draft.warnings,
        base_seq=weighed.world.seq,
        world=world,
        proposal=proposal,
        needed=needed,
    )


def _words(policy: Policy | None) -> str:
    """Return what names a policy's model and vocabulary."""
    texts = (policy.model_text.encode(), policy.vocabulary_text.encode()) if policy else ()
    return digest("words", *texts).hex()


def _changes(change: Change) -> bool:
    """Tell whether anything would be other than it is."""
    return bool(change["added"] or change["removed"]) or any(
        change[text] is not None for text in ("model", "vocabulary")
    )


def _favours(facts: Facts, parties: Sequence[Party]) -> bool:
    return any(facts.favours(party) for party in parties)


def _approvals(obligations: Sequence[Obligation]) -> int:
    return next((int(one.value) for one in obligations if one.name == "approvals"), 0)


def _collisions(change: Change, policy: Policy) -> list[str]:
    """Return the rows of a change that no longer fit: gone, there already, or at a place that another row has taken."""
    live = {(row.id, row.section, row.fields) for row in policy.snapshot.rows}
    removed = {(row.id, row.section, row.fields) for row in map(Row.from_json, change["removed"])}
    added = [(row.id, row.section, row.fields) for row in map(Row.from_json, change["added"])]
    taken = {key[0] for key in live - removed}
    found = [key[0] for key in removed if key not in live]
    found += [key[0] for key in added if key in live or key[0] in taken]
    return sorted(set(found))[:10]


def _conflict(proposal: Proposal, why: str) -> PortcullisError:
    return PortcullisError(Reason.CONFLICT, f"{proposal.id} no longer fits: {why}", advice="propose the change again")


def _by(names: Sequence[str]) -> str:
    return f" (by {', '.join(names)})" if names else ""
