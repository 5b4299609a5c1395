"""PolicyService: changes come in whole, are checked whole, and become the live policy as the live policy says."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from pdp.change.proposal import Proposal
from pdp.change.signoff import SignOff
from pdp.change.trial import Mode, Trial
from pdp.engine.casbin_text import Row
from pdp.errors import BadRequestError
from pdp.model.attributes import Attributes
from pdp.model.decision import Obligation
from pdp.model.names import Action, Resource, printable
from pdp.server.callers import CALLER, Gate, Right
from pdp.server.grpc.convert import need
from pdp.server.grpc.trials import asked_canary, event_message, mode_of, trial_message
from pdp.service.access import Access, asked, is_request, lent
from pdp.service.break_glass import review
from pdp.service.desk import POLICY, Acting, Desk
from pdp.service.drafts import from_history, from_pack, from_rows
from pdp.service.history import History, Revision
from pdp.service.policy import Draft, Policies
from pdp.service.replicate import Publisher
from pdp.service.sign_off import sign_off
from pdp.service.trials import Board, shown, totals
from pdp.v1 import policy_pb2, policy_pb2_grpc

_REVISIONS: Final = 100
_READ: Final = Action.parse("policy.read")
_READ_AUDIT: Final = Action.parse("audit.read")
_AUDIT: Final = Resource.parse("audit/all")


class PolicyServicer(policy_pb2_grpc.PolicyServiceServicer):
    """The RPCs of PolicyService, behind the guard; what a change itself needs is asked here, with what it touches."""

    def __init__(self, *, desk: Desk, publisher: Publisher, history: History, gate: Gate, shown: Board) -> None:
        self._publisher = publisher
        self._desk = desk
        self._policies = Policies(desk)
        self._access = Access(desk)
        self._history = history
        self._gate = gate
        self._shown = shown

    async def Propose(self, request: policy_pb2.ProposeRequest, _context: Any) -> policy_pb2.ProposeResponse:  # noqa: N802 - gRPC's name
        """Check a change and keep it, or make it live."""
        draft = await self._draft(request)
        way = self._policies.apply if request.activate else self._policies.propose
        outcome = await way(draft, self._acting())
        return policy_pb2.ProposeResponse(
            proposal_id=outcome.proposal.id if outcome.proposal else "",
            warnings=outcome.warnings,
            rows_added=len(outcome.change["added"]),
            rows_removed=len(outcome.change["removed"]),
            base_seq=outcome.base_seq,
            digest=outcome.proposal.digest if outcome.proposal else "",
            approvals_needed=outcome.needed,
            world_seq=outcome.world.seq if outcome.world else 0,
            revision=outcome.world.revision if outcome.world else "",
        )

    async def _draft(self, request: policy_pb2.ProposeRequest) -> Draft:
        given = (bool(request.files), request.HasField("edit"), bool(request.restore_seq))
        if sum(given) > 1:
            raise BadRequestError("a change is files, an edit, or a restored policy: one of them")
        if request.HasField("edit"):
            return from_rows(request.edit.add, request.edit.remove, message=request.message)
        if request.restore_seq:
            return from_history(await self._history.at(request.restore_seq), message=request.message)
        files: dict[str, bytes] = {}
        for file in request.files:
            if file.path in files:
                raise BadRequestError(f"the file `{printable(file.path)}` stands twice")
            files[file.path] = file.content
        return await from_pack(files, message=request.message)

    async def Activate(self, request: policy_pb2.ActivateRequest, _context: Any) -> policy_pb2.ActivateResponse:  # noqa: N802 - gRPC's name
        """Make a proposal live."""
        proposal_id = need(request.proposal_id, "proposal_id")
        world = await self._policies.activate(proposal_id, who=self._acting())
        return policy_pb2.ActivateResponse(world_seq=world.seq, revision=world.revision)

    async def Approve(self, request: policy_pb2.ApproveRequest, _context: Any) -> policy_pb2.ApproveResponse:  # noqa: N802 - gRPC's name
        """Say yes to a proposal."""
        proposal = self._desk.proposal(need(request.proposal_id, "proposal_id"))
        expected, who = need(request.digest, "digest"), self._acting()
        if is_request(proposal):
            approved, world = await self._access.approve(
                proposal.id, expected=expected, message=request.message, who=who
            )
            live = self._desk.world.proposals.get(proposal.id) is None
            return policy_pb2.ApproveResponse(world_seq=world.seq, approved_by=approved, live=live)
        proposal, world = await self._policies.approve(proposal.id, expected=expected, message=request.message, who=who)
        return policy_pb2.ApproveResponse(world_seq=world.seq, approved_by=proposal.approvers())

    async def Reject(self, request: policy_pb2.RejectRequest, _context: Any) -> policy_pb2.RejectResponse:  # noqa: N802 - gRPC's name
        """End a proposal."""
        proposal_id = need(request.proposal_id, "proposal_id")
        world = await self._desk.reject(proposal_id, message=request.message, who=self._acting())
        return policy_pb2.RejectResponse(world_seq=world.seq)

    async def ListProposals(  # noqa: N802 - gRPC's name
        self, request: policy_pb2.ListProposalsRequest, _context: Any
    ) -> policy_pb2.ListProposalsResponse:
        """Show what waits."""
        world = self._policies.live()
        whole = bool(request.proposal_id)
        found = [self._desk.proposal(request.proposal_id)] if whole else self._desk.waiting()
        proposals = [_proposal(one, current=one.revision == world.revision, whole=whole) for one in found]
        return policy_pb2.ListProposalsResponse(proposals=proposals, world_seq=world.seq)

    async def Get(self, _request: policy_pb2.GetPolicyRequest, _context: Any) -> policy_pb2.GetPolicyResponse:  # noqa: N802 - gRPC's name
        """Show the live policy."""
        world = self._policies.live()
        policy = world.policy
        return policy_pb2.GetPolicyResponse(
            revision=world.revision,
            world_seq=world.seq,
            model=policy.model_text if policy else "",
            vocabulary=policy.vocabulary_text if policy else "",
            rows=_rows(policy.snapshot.rows if policy else ()),
        )

    async def ListRevisions(  # noqa: N802 - gRPC's name
        self, request: policy_pb2.ListRevisionsRequest, _context: Any
    ) -> policy_pb2.ListRevisionsResponse:
        """Show the changes that became live."""
        found = [revision async for revision in self._history.revisions()]
        tried = [one async for one in self._history.trials()]
        limit = request.limit or _REVISIONS
        return policy_pb2.ListRevisionsResponse(
            revisions=map(_revision, found[::-1][:limit]), trials=map(event_message, tried[::-1][:limit])
        )

    async def Blame(self, _request: policy_pb2.BlameRequest, _context: Any) -> policy_pb2.BlameResponse:  # noqa: N802 - gRPC's name
        """Show who brought each live row."""
        rows = [
            policy_pb2.BlamedRow(row=_rows((row,))[0], revision=_revision(revision))
            for row, revision in await self._history.blame()
        ]
        return policy_pb2.BlameResponse(rows=rows)

    async def RequestAccess(  # noqa: N802 - gRPC's name
        self, request: policy_pb2.RequestAccessRequest, _context: Any
    ) -> policy_pb2.RequestAccessResponse:
        """Ask for a role for oneself."""
        proposal, wish = await self._access.request(
            role=need(request.role, "role"),
            environment=need(request.environment, "environment"),
            duration_ms=request.duration_s * 1000,
            reason=request.reason,
            who=self._acting(),
        )
        return policy_pb2.RequestAccessResponse(proposal_id=proposal.id, approvals_needed=wish.needed)

    async def ListAccess(  # noqa: N802 - gRPC's name
        self, request: policy_pb2.ListAccessRequest, _context: Any
    ) -> policy_pb2.ListAccessResponse:
        """Show what was asked for, and what is held for a time."""
        caller = CALLER.get()
        if request.all:
            await self._gate.permit(caller, Right(action=_READ, resource=POLICY), {})
        world = self._policies.live()
        waiting = [one for one in self._desk.waiting() if is_request(one)]
        return policy_pb2.ListAccessResponse(
            requests=[
                _proposal(one, current=True, whole=False)
                for one in waiting
                if request.all or caller.name in one.authors
            ],
            live=[
                policy_pb2.TimedAccess(who=row.fields[0], role=row.fields[1], environment=row.fields[2], end_ms=end_ms)
                for row, end_ms in lent(world, self._desk.now_ms())
                if request.all or row.fields[0] == caller.name
            ],
            world_seq=world.seq,
        )

    async def StartTrial(self, request: policy_pb2.StartTrialRequest, _context: Any) -> policy_pb2.StartTrialResponse:  # noqa: N802 - gRPC's name
        """Try a proposal."""
        proposal_id, who = need(request.proposal_id, "proposal_id"), self._acting()
        duration_ms = request.duration_s * 1000
        if mode_of(request.mode) is Mode.SHADOW:
            trial = await self._policies.shadow(proposal_id, duration_ms=duration_ms, who=who)
        else:
            scope, stop = asked_canary(request)
            trial = await self._policies.canary(proposal_id, duration_ms=duration_ms, scope=scope, stop=stop, who=who)
        return policy_pb2.StartTrialResponse(world_seq=trial.seq, end_ms=trial.end_ms)

    async def EndTrial(self, request: policy_pb2.EndTrialRequest, _context: Any) -> policy_pb2.EndTrialResponse:  # noqa: N802 - gRPC's name
        """End a trial."""
        proposal_id, mode = need(request.proposal_id, "proposal_id"), mode_of(request.mode)
        tallies = await asyncio.to_thread(shown, self._shown)

        def told(trial: Trial) -> Mapping[str, Any]:
            return {"shown": totals(tallies[trial.seq])} if trial.seq in tallies else {}

        world = await self._policies.end(proposal_id, mode, who=self._acting(), told=told)
        return policy_pb2.EndTrialResponse(world_seq=world.seq)

    async def ListTrials(  # noqa: N802 - gRPC's name
        self, request: policy_pb2.ListTrialsRequest, _context: Any
    ) -> policy_pb2.ListTrialsResponse:
        """Show what is tried, and what that has shown so far."""
        if request.differences:
            await self._gate.permit(CALLER.get(), Right(action=_READ_AUDIT, resource=_AUDIT), {})
        world = self._policies.live()
        tallies = await asyncio.to_thread(shown, self._shown)
        trials = [trial_message(one, tallies.get(one.seq), whole=request.differences) for one in world.trials]
        return policy_pb2.ListTrialsResponse(trials=trials, world_seq=world.seq)

    async def ListBreakGlass(  # noqa: N802 - gRPC's name
        self, _request: policy_pb2.ListBreakGlassRequest, _context: Any
    ) -> policy_pb2.ListBreakGlassResponse:
        """Show what waits for its review."""
        world = self._policies.live()
        waiting = [policy_pb2.BreakGlass(**asdict(one)) for one in world.glass]
        return policy_pb2.ListBreakGlassResponse(waiting=waiting, world_seq=world.seq)

    async def ReviewBreakGlass(  # noqa: N802 - gRPC's name
        self, request: policy_pb2.ReviewBreakGlassRequest, _context: Any
    ) -> policy_pb2.ReviewBreakGlassResponse:
        """Take note of a review."""
        world = await review(self._desk, self._publisher, request.seq, message=request.message, who=self._acting())
        return policy_pb2.ReviewBreakGlassResponse(world_seq=world.seq)

    async def SignOff(self, request: policy_pb2.SignOffRequest, _context: Any) -> policy_pb2.SignOffResponse:  # noqa: N802 - gRPC's name
        """Take note of who looked at a review of access."""
        who = self._acting()
        signed = SignOff(
            by=who.chain,
            report=request.report,
            world_seq=request.world_seq,
            since_ms=request.since_ms,
            findings=request.findings,
            message=request.message,
        )
        seq = await sign_off(self._desk, self._publisher, signed, who=who)
        return policy_pb2.SignOffResponse(world_seq=seq)

    def _acting(self) -> Acting:
        caller = CALLER.get()

        async def may(action: Action, attributes: Attributes) -> Sequence[Obligation]:
            return await self._gate.permit(caller, Right(action=action, resource=POLICY), attributes)

        def would(action: Action, attributes: Attributes) -> Sequence[Obligation] | None:
            return self._gate.would(caller, Right(action=action, resource=POLICY), attributes)

        return Acting(parties=(caller.identity.party, *caller.identity.actors), may=may, would=would)


def _rows(rows: Iterable[Row]) -> list[policy_pb2.PolicyRow]:
    return [policy_pb2.PolicyRow(id=row.id, section=row.section, fields=row.fields) for row in rows]


def _proposal(proposal: Proposal, *, current: bool, whole: bool) -> policy_pb2.Proposal:
    change = proposal.change
    message = policy_pb2.Proposal(
        id=proposal.id,
        digest=proposal.digest,
        authors=proposal.authors,
        message=proposal.message,
        time_ms=proposal.time_ms,
        expires_ms=proposal.expires_ms,
        approved_by=proposal.approvers(),
        rows_added=len(change["added"]),
        rows_removed=len(change["removed"]),
        current=current,
    )
    if is_request(proposal):
        wish = asked(proposal)
        message.access.CopyFrom(
            policy_pb2.TimedAccess(
                who=wish.who,
                role=wish.role,
                environment=wish.environment,
                duration_s=wish.duration_ms // 1000,
                approvals_needed=wish.needed,
            )
        )
    if whole:
        message.added.extend(_rows(map(Row.from_json, change["added"])))
        message.removed.extend(_rows(map(Row.from_json, change["removed"])))
        if change["model"] is not None:
            message.model = change["model"]
        if change["vocabulary"] is not None:
            message.vocabulary = change["vocabulary"]
    return message


def _revision(revision: Revision) -> policy_pb2.Revision:
    return policy_pb2.Revision(
        seq=revision.seq,
        time_ms=revision.time_ms,
        author=revision.author,
        authors=revision.authors,
        approved_by=[chain[0] for chain in revision.approvals],
        proposal_id=revision.proposal,
        message=revision.message,
        rows_added=len(revision.added),
        rows_removed=len(revision.removed),
        language=revision.model is not None or revision.vocabulary is not None,
    )
