"""Changing the policy: proposed, approved by whom the policy names, and live; or live at once where it demands nobody.

The rules about changes are policy themselves. Whoever makes a change live asks `policy.activate` on `policy/main`, with what
the change touches as attributes (`change.production`, `change.administration`, …: `pdp.change.facts`); the allow may carry
the obligation `approvals=N`. Each approval is a decision on `policy.approve` with the same attributes, and binds to the
digest of the exact change. A proposal compared with an older policy is carried over by itself where its rows still fit.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pdp.change.proposal import Change, Proposal
from pdp.change.trial import Ended, Mode, Scope, Stop, Trial
from pdp.engine.casbin_text import Row
from pdp.errors import BadRequestError, PortcullisError, Reason
from pdp.model.names import Action, printable
from pdp.model.request import Party
from pdp.service.access import is_request
from pdp.service.desk import NOTHING, REJECT, Acting, Desk, Weighed, approvals, words
from pdp.world import Policy, World

ACTIVATE: Final = Action.parse("policy.activate")
PROPOSE: Final = Action.parse("policy.propose")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A change worth considering: how to make it from the world, why, and what is odd about it."""

    make: Callable[[World], dict[str, Any]]
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


def _nothing(_: Trial) -> Mapping[str, Any]:
    return NOTHING


class Policies:
    """Proposes, approves, activates and shows the policy."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def live(self) -> World:
        """Return the world whose policy is live.

        Raises:
            PortcullisError: `not_found` before genesis.
        """
        world = self._desk.world
        if world.policy is None:
            raise PortcullisError(Reason.NOT_FOUND, "no policy is held yet", advice="run `pdp init`")
        return world

    # --- proposing ---------------------------------------------------------------------------------------------------

    async def propose(self, draft: Draft, who: Acting) -> Outcome:
        """Put a change before others; it waits until it is activated, rejected, or too old. What is live already is live.

        Raises:
            PortcullisError: `policy_refused` if it does not compile, or if too many proposals wait.
        """
        while True:
            weighed = await self._drawn(draft)
            if not _changes(weighed.change):
                return _outcome(weighed, draft, world=weighed.world)
            proposal = await self._desk.open(weighed.change, weighed.world, who)
            if proposal is not None:
                attributes = await asyncio.to_thread(weighed.attributes, who.parties)
                would = who.would(ACTIVATE, attributes)
                return _outcome(weighed, draft, proposal=proposal, needed=1 if would is None else approvals(would))

    async def apply(self, draft: Draft, who: Acting) -> Outcome:
        """Make a change live at once, or a proposal of it where the policy demands approvals.

        Raises:
            PortcullisError: as `propose`; and where the caller may not activate it.
        """
        while True:
            weighed = await self._drawn(draft)
            needed = await self._needed(weighed, who, who.parties)
            if not _changes(weighed.change):
                return _outcome(weighed, draft, world=weighed.world)
            if not needed and await self._desk.publish(weighed, who, {}):
                return _outcome(weighed, draft, world=self._desk.world)
            proposal = await self._desk.open(weighed.change, weighed.world, who) if needed else None
            if proposal is not None:
                return _outcome(weighed, draft, proposal=proposal, needed=needed)

    async def _drawn(self, draft: Draft) -> Weighed:
        world = self._desk.world
        return await self._desk.weigh(world, draft.make(world), draft.message)

    async def _needed(self, weighed: Weighed, who: Acting, parties: Sequence[Party]) -> int:
        """Return how many approvals this change needs; raises if the caller may not activate it."""
        attributes = await asyncio.to_thread(weighed.attributes, parties)
        return approvals(await who.may(ACTIVATE, attributes))

    # --- approving and activating ------------------------------------------------------------------------------------

    async def approve(self, proposal_id: str, *, expected: str, message: str, who: Acting) -> tuple[Proposal, World]:
        """Say yes to exactly the change that `expected` names; whether it is then enough, `activate` asks.

        Raises:
            PortcullisError: `not_found`, `conflict`; and as `Desk.approve`.
        """
        while True:
            world, proposal = self._desk.world, self._desk.proposal(proposal_id, expected)
            weighed = await self._desk.weigh(world, carried(proposal, world.policy), proposal.message)
            if await self._desk.approve(proposal, weighed, message=message, who=who):
                return self._desk.proposal(proposal_id), self._desk.world

    async def activate(self, proposal_id: str, *, who: Acting) -> World:
        """Make a proposal the live policy and return the world that holds it.

        Raises:
            PortcullisError: `not_found`; `conflict` if the live policy has changed so that it no longer fits;
                `approval_missing` with who approved and how many are wanted; and where the caller may not.
        """
        while True:
            world, proposal = self._desk.world, self._desk.proposal(proposal_id)
            if is_request(proposal):
                message = f"{proposal.id} asks for access: it is live once enough others approve it"
                raise PortcullisError(Reason.APPROVAL_MISSING, message, advice=f"pdp access approve {proposal.id}")
            weighed = await self._desk.weigh(world, carried(proposal, world.policy), proposal.message)
            await self._check_approved(proposal, weighed, who)
            if await self._desk.publish(weighed, who, proposal.history()):
                return self._desk.world

    async def _check_approved(self, proposal: Proposal, weighed: Weighed, who: Acting) -> None:
        """Refuse if the caller may not let this change answer anybody, or if it has not the approvals for that."""
        needed = await self._needed(weighed, who, proposal.parties())
        approved = await self._desk.approvers(proposal, weighed)
        if len(approved) < needed:
            by = f" (by {', '.join(approved)})" if approved else ""
            raise PortcullisError(
                Reason.APPROVAL_MISSING,
                f"{proposal.id} has {len(approved)} of {needed} approvals{by}",
                advice=f"ask for one: `pdp policy approve {proposal.id}`",
            )

    # --- trying ------------------------------------------------------------------------------------------------------

    async def shadow(self, proposal_id: str, *, duration_ms: int, who: Acting) -> Trial:
        """Let a proposal decide beside the live policy, for nobody. Whoever may propose may.

        Raises:
            PortcullisError: `not_found`; `policy_refused` if it, or as many as may, are tried already; and where the caller may
                not propose.
        """
        while True:
            world, proposal = self._desk.world, self._desk.proposal(proposal_id)
            await who.may(PROPOSE, self._desk.untouched())
            trial = _trial(proposal, Mode.SHADOW, who, start_ms=self._desk.now_ms(), duration_ms=duration_ms)
            if await self._desk.begin(trial, proposal, who, world):
                return _begun(self._desk.world, world.seq + 1)

    async def canary(self, proposal_id: str, *, duration_ms: int, scope: Scope, stop: Stop, who: Acting) -> Trial:
        """Let a proposal answer for those in `scope`: under the rights and approvals with which it could be made live.

        Raises:
            PortcullisError: as `activate`; `policy_refused` if another canary runs, or it changes model or vocabulary.
        """
        while True:
            world, proposal = self._desk.world, self._desk.proposal(proposal_id)
            if is_request(proposal):
                raise BadRequestError(f"{proposal.id} asks for access: there is nothing to try")
            weighed = await self._desk.weigh(world, carried(proposal, world.policy), proposal.message)
            await self._check_approved(proposal, weighed, who)
            trial = replace(
                _trial(proposal, Mode.SHADOW, who, start_ms=self._desk.now_ms(), duration_ms=duration_ms),
                mode=Mode.CANARY,
                revision=weighed.revision,
                scope=scope,
                stop=stop,
            )
            if await self._desk.begin(trial, proposal, who, world):
                return _begun(self._desk.world, world.seq + 1)

    async def end(
        self, proposal_id: str, mode: Mode, *, who: Acting, told: Callable[[Trial], Mapping[str, Any]] = _nothing
    ) -> World:
        """End a trial before its time. Whoever began it may, whoever proposed it, and whoever may reject proposals.

        `told` returns what the entry says beside that, such as what it has shown.

        Raises:
            PortcullisError: `not_found`; and where the caller may not.
        """
        while True:
            world = self._desk.world
            trial = next((one for one in world.trials if (one.proposal, one.mode) == (proposal_id, mode)), None)
            if trial is None:
                message = f"`{printable(proposal_id)}` does not run as a {mode}"
                raise PortcullisError(Reason.NOT_FOUND, message, advice="`pdp policy status` lists what does")
            proposal = world.proposals.get(proposal_id)
            if set(who.chain).isdisjoint({*trial.by, *(proposal.authors if proposal else ())}):
                await who.may(REJECT, self._desk.untouched())
            if await self._desk.end(trial, Ended.STOPPED, who.chain, world, told=told(trial)):
                return self._desk.world


def _trial(proposal: Proposal, mode: Mode, who: Acting, *, start_ms: int, duration_ms: int) -> Trial:
    return Trial(
        seq=0,
        mode=mode,
        proposal=proposal.id,
        digest=proposal.digest,
        by=who.chain,
        start_ms=start_ms,
        end_ms=min(start_ms + duration_ms, proposal.expires_ms),
    )


def _begun(world: World, seq: int) -> Trial:
    """Return the trial of that entry as it was folded."""
    found = next((one for one in world.trials if one.seq == seq), None)
    if found is None:
        raise PortcullisError(Reason.NOT_FOUND, "the trial has ended already", advice="`pdp policy status`")
    return found


def carried(proposal: Proposal, policy: Policy | None) -> dict[str, Any]:
    """Return the change of a proposal as it fits the live policy: rebased, where rows alone moved and none collide.

    Raises:
        PortcullisError: `conflict`, which names the rows, or the texts.
    """
    if policy is None or policy.revision == proposal.revision:
        return dict(proposal.change)
    if proposal.change["model"] is not None or proposal.change["vocabulary"] is not None:
        raise _conflict(proposal, "it changes the model or the vocabulary, and another policy is live since")
    if proposal.words != words(policy):
        raise _conflict(proposal, "the model or the vocabulary has changed since")
    collisions = _collisions(proposal.change, policy)
    if collisions:
        raise _conflict(proposal, f"these rows have changed since: {', '.join(collisions)}")
    return dict(proposal.change)


def _outcome(
    weighed: Weighed, draft: Draft, *, world: World | None = None, proposal: Proposal | None = None, needed: int = 0
) -> Outcome:
    return Outcome(
        change=weighed.change,
        warnings=draft.warnings,
        base_seq=weighed.world.seq,
        world=world,
        proposal=proposal,
        needed=needed,
    )


def _changes(change: Change) -> bool:
    """Tell whether anything would be other than it is."""
    return bool(change["added"] or change["removed"]) or any(
        change[text] is not None for text in ("model", "vocabulary")
    )


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
