"""Access just in time: a role asked for by whoever needs it, for a time, with a reason; somebody else says yes.

A request is a proposal of one row that is not written yet: its time starts when the last approval comes, not when it was asked
for. Whether somebody may ask for this role at all, and how many must say yes, is `policy.request` on `policy/main`, asked with
what the row touches and `change.duration_s`; at least one yes is always wanted. It ends by itself, running streams included,
and rows that have ended are cleared away by the next one.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from pdp.change.proposal import Change, Proposal
from pdp.engine.casbin_text import OPEN, Row
from pdp.errors import BadRequestError, PortcullisError, Reason
from pdp.limits import MAX_ACCESS_S
from pdp.model.attributes import instant_ms, instant_of
from pdp.model.names import Action, check_grouping_name
from pdp.service.desk import Acting, Desk, Weighed, approvals, taken_back
from pdp.world import Policy, World

REQUEST: Final = Action.parse("policy.request")
ACCESS_FILE: Final = "access.csv"
"""The file under which rows stand that end by themselves."""
_TIMED: Final = 5
"""Fields of such a row: who, role, environment, start, end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request is for: `who` would hold `role` in `environment` for `duration_ms`, once `needed` others say yes."""

    who: str
    role: str
    environment: str
    duration_ms: int
    needed: int

    def row(self, end_ms: int, line: int) -> Row:
        """Return the row that a granted request becomes."""
        fields = (self.who, self.role, self.environment, OPEN, instant_of(end_ms))
        return Row("g", fields, ACCESS_FILE, line)


def is_request(proposal: Proposal) -> bool:
    """Tell whether a proposal asks for access, and not for a change as it is written."""
    return proposal.asks_access


def asked(proposal: Proposal) -> Asked:
    """Return what a request is for."""
    return Asked(**proposal.change["access"])


def lent(world: World, now_ms: int) -> Iterator[tuple[Row, int]]:
    """Yield each row that is held for a time and has not ended, with its end in milliseconds since the epoch."""
    for row in world.snapshot.rows if world.snapshot else ():
        end_ms = _end_ms(row)
        if end_ms is not None and end_ms > now_ms:
            yield row, end_ms


class Access:
    """Takes requests and grants them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def request(
        self, *, role: str, environment: str, duration_ms: int, reason: str, who: Acting
    ) -> tuple[Proposal, Asked]:
        """Ask for a role for oneself.

        Raises:
            BadRequestError: no reason, no role, or a time that is none.
            PortcullisError: the policy does not let the caller ask for this one, or too many requests wait.
        """
        if not reason.strip():
            raise BadRequestError("say why: whoever is asked to approve it will want to know")
        if not 0 < duration_ms <= MAX_ACCESS_S * 1000:
            raise BadRequestError(f"access is asked for at most {MAX_ACCESS_S // 3600:.0f} hours")
        check_grouping_name(role)
        wish = Asked(who=who.chain[0], role=role, environment=environment, duration_ms=duration_ms, needed=1)
        while True:
            weighed = await self._weigh(wish, self._desk.world, reason)
            attributes = await asyncio.to_thread(weighed.attributes, who.parties)
            needed = max(1, approvals(await who.may(REQUEST, attributes)))
            final = Asked(**{**_plain(wish), "needed": needed})
            proposal = await self._desk.open(_unwritten(final, reason), weighed.world, who)
            if proposal is not None:
                return proposal, final

    async def approve(self, proposal_id: str, *, expected: str, message: str, who: Acting) -> tuple[list[str], World]:
        """Say yes to a request; the last yes that is wanted makes it live. Returns who approved it, and the world.

        Raises:
            PortcullisError: as `Policies.approve`.
        """
        while True:
            world, proposal = self._desk.world, self._desk.proposal(proposal_id, expected)
            weighed = await self._weigh(asked(proposal), world, proposal.message)
            await self._check_asker(proposal, weighed)
            if await self._desk.approve(proposal, weighed, message=message, who=who):
                break
        return await self._grant(proposal_id, who)

    async def _grant(self, proposal_id: str, who: Acting) -> tuple[list[str], World]:
        while True:
            world, proposal = self._desk.world, self._desk.proposal(proposal_id)
            weighed = await self._weigh(asked(proposal), world, proposal.message)
            await self._check_asker(proposal, weighed)
            approved = await self._desk.approvers(proposal, weighed)
            if len(approved) < asked(proposal).needed:
                return approved, world
            if await self._desk.publish(weighed, who, proposal.history()):
                return approved, self._desk.world

    async def _check_asker(self, proposal: Proposal, weighed: Weighed) -> None:
        """Refuse if the policy of now would not let them ask: the role may have come to mean more since."""
        parties = proposal.parties()
        attributes = await asyncio.to_thread(weighed.attributes, parties)
        reason = taken_back(REQUEST, parties, weighed.world, attributes, self._desk.now_ms())
        if reason is not None:
            message = f"{parties[0].principal} may no longer ask for what {proposal.id} asks for"
            raise PortcullisError(reason, message, advice=f"`pdp policy reject {proposal.id}`")

    async def _weigh(self, wish: Asked, world: World, reason: str) -> Weighed:
        if world.policy is None:
            raise PortcullisError(Reason.NOT_FOUND, "no policy is held yet", advice="run `pdp init`")
        weighed = await self._desk.weigh(world, _written(wish, world.policy, self._desk.now_ms()), reason)
        return replace(weighed, lasts_s=wish.duration_ms // 1000)


def _plain(wish: Asked) -> dict[str, Any]:
    return {
        "who": wish.who,
        "role": wish.role,
        "environment": wish.environment,
        "duration_ms": wish.duration_ms,
        "needed": wish.needed,
    }


def _unwritten(wish: Asked, reason: str) -> Change:
    """Return the change of a request, as it waits: what is asked for, and no row yet."""
    nothing: dict[str, Any] = {"model": None, "vocabulary": None, "added": [], "removed": [], "rows_digest": ""}
    return {**nothing, "message": reason, "access": _plain(wish)}


def _written(wish: Asked, policy: Policy, now_ms: int) -> dict[str, Any]:
    """Return the change that grants a request now, and clears away what has ended."""
    rows = [row for row in policy.snapshot.rows if row.file == ACCESS_FILE]
    ended = [row for row in rows if (end_ms := _end_ms(row)) is not None and end_ms <= now_ms]
    line = max((row.line for row in rows), default=0) + 1
    return {
        "model": None,
        "vocabulary": None,
        "added": [wish.row(now_ms + wish.duration_ms, line).to_json()],
        "removed": [row.to_json() for row in ended],
        "rows_digest": "",
    }


def _end_ms(row: Row) -> int | None:
    """Return when a row of ours ends; None for any other, which a pack may have put into the file."""
    if row.file != ACCESS_FILE or row.section != "g" or len(row.fields) != _TIMED or row.fields[-1] == OPEN:
        return None
    return instant_ms(row.fields[-1])
