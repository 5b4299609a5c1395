"""Administration over gRPC: policy, assets, locks, audit, replicas. The command line and the demo stand on it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from pdp.audit.query import Wanted
from pdp.change.trial import Mode
from pdp.errors import BadNameError, BadRequestError
from pdp.sdk import _admin_core as core
from pdp.sdk import _admin_trials as trials
from pdp.sdk._admin_core import (
    Activation,
    Approval,
    Asset,
    Assets,
    BreakGlass,
    ChainRecord,
    FoundRecord,
    FoundRecords,
    HeldAccess,
    Locked,
    Locks,
    Policy,
    PolicyRow,
    Proposal,
    Proposed,
    Receipt,
    Replica,
    Replicas,
    Revision,
    TimedAccess,
)
from pdp.sdk._admin_trials import Canary, Difference, Tally, Trial, TrialEvent
from pdp.sdk._core import Core
from pdp.sdk._settings import Settings
from pdp.sdk._transport import Transport
from pdp.sdk.errors import BadQuestion
from pdp.sdk.values import AttributeValue
from pdp.signals.locks import Lock, LockKind, LockTarget
from pdp.v1 import asset_pb2, audit_pb2, lock_pb2, policy_pb2, replication_pb2

__all__ = [
    "Activation",
    "AdminClient",
    "Approval",
    "Asset",
    "Assets",
    "BreakGlass",
    "Canary",
    "ChainRecord",
    "Difference",
    "FoundRecord",
    "FoundRecords",
    "HeldAccess",
    "Lock",
    "LockKind",
    "LockTarget",
    "Locked",
    "Locks",
    "Mode",
    "Policy",
    "PolicyRow",
    "Proposal",
    "Proposed",
    "Receipt",
    "Replica",
    "Replicas",
    "Revision",
    "Tally",
    "TimedAccess",
    "Trial",
    "TrialEvent",
]


class AdminClient:
    """Administers a PDP. Arguments, environment and rules as in `Client`; what a call may do, the policy decides.

    Every method raises `PdpError`: `NotPermitted` where the policy refuses, `Conflict` where another change came first.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        token: str | Path | Callable[[], str] | None = None,
        ca: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        timeout_s: float | None = None,
    ) -> None:
        settings = Settings.resolve(server, token=token, ca=ca, cert=cert, key=key, timeout_s=timeout_s)
        self._core = Core(settings)
        self._transport = Transport(self._core)

    # Policy.

    def propose(self, files: Mapping[str, bytes], *, message: str = "", activate: bool = False) -> Proposed:
        """Have a pack checked whole, and kept as a proposal or made live.

        Args:
            files: content by path relative to the pack.
            message: why, for the log.
            activate: make it live at once where the policy demands no approval; else it waits as a proposal.

        Raises:
            PolicyRefused: the pack has errors; `findings` holds every one.
        """
        return core.proposed(self._transport.unary(core.PROPOSE, core.pack_message(files, message, activate=activate)))

    def edit(
        self, *, add: Iterable[str] = (), remove: Iterable[str] = (), message: str = "", activate: bool = True
    ) -> Proposed:
        """Add and remove single rows, each written as a line of CSV; as `propose` otherwise.

        Raises:
            PolicyRefused: a row does not parse, or what comes of it does not compile.
            NotFound: a row to remove is not live.
        """
        message_ = core.edit_message(add, remove, message, activate=activate)
        return core.proposed(self._transport.unary(core.PROPOSE, message_))

    def restore(self, seq: int, *, message: str = "", activate: bool = True) -> Proposed:
        """Bring back the policy that was live at entry `seq`: a new change with an old content.

        Raises:
            NotFound: no policy was live then.
        """
        request = policy_pb2.ProposeRequest(restore_seq=seq, message=message, activate=activate)
        return core.proposed(self._transport.unary(core.PROPOSE, request))

    def approve(self, proposal_id: str, *, digest: str, message: str = "") -> Approval:
        """Say yes to exactly the change that `digest` names; the last yes to a request for access makes it live.

        Raises:
            NotPermitted: the caller may not, or had a hand in it.
            Conflict: the proposal is another change.
        """
        request = policy_pb2.ApproveRequest(proposal_id=proposal_id, digest=digest, message=message)
        told = self._transport.unary(core.APPROVE, request)
        return Approval(approved_by=tuple(told.approved_by), live=told.live)

    def request_access(self, role: str, *, environment: str, duration_s: int, reason: str) -> tuple[str, int]:
        """Ask for a role for oneself, for a time that counts from the last approval.

        Returns the request's id, and how many approvals are wanted.

        Raises:
            NotPermitted: the policy does not let the caller ask for this one.
        """
        request = policy_pb2.RequestAccessRequest(
            role=role, environment=environment, duration_s=duration_s, reason=reason
        )
        told = self._transport.unary(core.REQUEST_ACCESS, request)
        return told.proposal_id, told.approvals_needed

    def access(self, *, everybody: bool = False) -> HeldAccess:
        """Return what the caller asked for and holds for a time; with `everybody`, what all do."""
        told = self._transport.unary(core.LIST_ACCESS, policy_pb2.ListAccessRequest(all=everybody))
        return HeldAccess(
            requests=tuple(map(core.proposal, told.requests)), live=tuple(map(core.timed_access, told.live))
        )

    def break_glass(self) -> tuple[BreakGlass, ...]:
        """Return what broken glass let in and nobody has reviewed."""
        told = self._transport.unary(core.LIST_BREAK_GLASS, policy_pb2.ListBreakGlassRequest())
        return tuple(
            BreakGlass(
                seq=one.seq,
                who=one.who,
                role=one.role,
                environment=one.environment,
                end_ms=one.end_ms,
                reason=one.reason,
            )
            for one in told.waiting
        )

    def review_break_glass(self, seq: int, *, message: str = "") -> None:
        """Say that one has looked at what was done under a broken glass.

        Raises:
            NotPermitted: the caller may not, or was the one let in.
        """
        self._transport.unary(core.REVIEW_BREAK_GLASS, policy_pb2.ReviewBreakGlassRequest(seq=seq, message=message))

    def sign_off(self, report: str, *, world_seq: int, since_ms: int, findings: int, message: str = "") -> int:
        """Say for the log that one looked at a review of access; return the entry that says so.

        Args:
            report: SHA-256 of the report's bytes, in hex.
            world_seq: the world that it is of.
            since_ms: the start of its window, milliseconds since the epoch; 0: the beginning.
            findings: how many it has.
            message: what came of it.

        Raises:
            NotPermitted: the caller may not approve changes.
        """
        request = policy_pb2.SignOffRequest(
            report=report, world_seq=world_seq, since_ms=since_ms, findings=findings, message=message
        )
        return self._transport.unary(core.SIGN_OFF, request).world_seq

    def reject(self, proposal_id: str, *, message: str = "") -> None:
        """End a proposal; its author withdraws it so."""
        self._transport.unary(core.REJECT, policy_pb2.RejectRequest(proposal_id=proposal_id, message=message))

    def proposals(self) -> tuple[Proposal, ...]:
        """Return what waits, oldest first, without the changes themselves."""
        told = self._transport.unary(core.LIST_PROPOSALS, policy_pb2.ListProposalsRequest())
        return tuple(map(core.proposal, told.proposals))

    def proposal(self, proposal_id: str) -> Proposal:
        """Return one proposal with its change.

        Raises:
            NotFound: it is not open.
        """
        request = policy_pb2.ListProposalsRequest(proposal_id=proposal_id)
        return core.proposal(self._transport.unary(core.LIST_PROPOSALS, request).proposals[0])

    def revisions(self, limit: int = 0) -> tuple[Revision, ...]:
        """Return the changes that became live, newest first, at most `limit` (0: 100)."""
        told = self._transport.unary(core.LIST_REVISIONS, policy_pb2.ListRevisionsRequest(limit=limit))
        return tuple(map(core.revision, told.revisions))

    def blame(self) -> tuple[tuple[PolicyRow, Revision], ...]:
        """Return each live row with the change that brought it."""
        told = self._transport.unary(core.BLAME, policy_pb2.BlameRequest())
        return tuple((core.policy_row(one.row), core.revision(one.revision)) for one in told.rows)

    def activate(self, proposal_id: str) -> Activation:
        """Make a proposal the live policy.

        Raises:
            ApprovalMissing: the policy demands more approvals than it has.
            Conflict: the live policy has changed so that it no longer fits.
        """
        told = self._transport.unary(core.ACTIVATE, policy_pb2.ActivateRequest(proposal_id=proposal_id))
        return Activation(world_seq=told.world_seq, revision=told.revision)

    def start_trial(self, proposal_id: str, *, duration_s: int, canary: Canary | None = None) -> int:
        """Try a proposal for a time, in the shadow or as a canary; return the entry that says so.

        Raises:
            ApprovalMissing: a canary of a change that has not the approvals to be made live.
            Conflict: a canary of a change that no longer fits the live policy.
            PolicyRefused: it, or as many as may, are tried already.
        """
        request = trials.start_message(proposal_id, duration_s, canary)
        return self._transport.unary(trials.START_TRIAL, request).world_seq

    def end_trial(self, proposal_id: str, mode: Mode) -> int:
        """End a trial before its time; return the entry that says so.

        Raises:
            NotFound: it does not run.
        """
        request = policy_pb2.EndTrialRequest(proposal_id=proposal_id, mode=trials.CODES[mode])
        return self._transport.unary(trials.END_TRIAL, request).world_seq

    def trial_events(self, limit: int = 0) -> tuple[TrialEvent, ...]:
        """Return the newest begins and ends of trials that the log holds, newest first; 0: the newest 100."""
        told = self._transport.unary(core.LIST_REVISIONS, policy_pb2.ListRevisionsRequest(limit=limit))
        return tuple(map(trials.event, told.trials))

    def trials(self, *, differences: bool = False) -> tuple[Trial, ...]:
        """Return what is tried, with what that has shown; `differences` (needs `audit.read`) by subject and resource."""
        told = self._transport.unary(trials.LIST_TRIALS, policy_pb2.ListTrialsRequest(differences=differences))
        return tuple(map(trials.trial, told.trials))

    def policy(self) -> Policy:
        """Return the live policy."""
        return core.policy(self._transport.unary(core.GET_POLICY, policy_pb2.GetPolicyRequest()))

    # Assets.

    def register(self, name: str, attributes: Mapping[str, AttributeValue], *, revive: bool = False) -> int:
        """Register an asset, or change its attributes; return the world that holds it.

        Args:
            name: `<type>/<path>[@<version>]`.
            attributes: `environment`, `segment`, `sensitivity`, … without the prefix `resource.`.
            revive: bring it back into use if it was retired; without, that is a `Conflict`.
        """
        return self.register_all({name: attributes}, revive=revive)

    def register_all(self, assets: Mapping[str, Mapping[str, AttributeValue]], *, revive: bool = False) -> int:
        """Register assets by name, or change their attributes, all or none; return the world that holds them."""
        try:
            messages = [core.asset_message(name, attributes) for name, attributes in assets.items()]
        except (BadNameError, BadRequestError) as error:
            raise BadQuestion(error.reason, error.message) from error
        request = asset_pb2.RegisterRequest(assets=messages, revive=revive)
        return self._transport.unary(core.REGISTER, request).world_seq

    def retire(self, names: Sequence[str], *, reason: str) -> int:
        """Take assets out of use, all or none: every access is refused, and what runs on them is cut.

        Returns:
            The world that refuses them; the one they were retired in, or a later one, if all were retired already.

        Raises:
            NotFound: one of them is not registered.
        """
        request = asset_pb2.RetireRequest(names=names, reason=reason)
        return self._transport.unary(core.RETIRE, request).world_seq

    def asset(self, name: str) -> Asset:
        """Return one asset.

        Raises:
            NotFound: no asset of that name is registered.
        """
        return core.asset(self._transport.unary(core.GET_ASSET, asset_pb2.GetAssetRequest(name=name)).asset)

    def assets(self, pattern: str = "") -> Assets:
        """Return the assets whose names match `pattern`; all of them if it is empty."""
        told = self._transport.unary(core.LIST_ASSETS, asset_pb2.ListAssetsRequest(pattern=pattern))
        return Assets(assets=tuple(core.asset(message) for message in told.assets), world_seq=told.world_seq)

    # Locks.

    def lock(self, target: LockTarget | str, *, reason: str, end_ms: int = 0, wait_all: bool = False) -> Locked:
        """Lock out what `target` names, from now on.

        Args:
            target: whom or what; a text as for `pdp lock add`: `user:sam@example.com`, `resource:dataset/wages`.
            reason: why, for people.
            end_ms: when the lock ends by itself, milliseconds since the epoch; 0: when it is removed.
            wait_all: return only when every connected enforcement point holds it, or the deadline is near.

        Raises:
            BadQuestion: a text that names nothing.
        """
        message = lock_pb2.LockRequest(
            target=core.target_message(core.target_of(target)), reason=reason, end_ms=end_ms, wait_all=wait_all
        )
        told = self._transport.unary(core.LOCK, message)
        return Locked(lock=core.lock(told.lock), receipt=core.receipt(told.receipt))

    def unlock(self, lock_id: str) -> int:
        """Remove a lock; return the world without it.

        Raises:
            NotFound: there is no such lock.
        """
        return self._transport.unary(core.UNLOCK, lock_pb2.UnlockRequest(id=lock_id)).world_seq

    def locks(self) -> Locks:
        """Return every lock."""
        told = self._transport.unary(core.LIST_LOCKS, lock_pb2.ListLocksRequest())
        return Locks(locks=tuple(core.lock(message) for message in told.locks), world_seq=told.world_seq)

    # Audit.

    def audit_records(
        self, *, chain: str = "", since_ms: int = 0, last: int = 0, follow: bool = False
    ) -> Iterator[ChainRecord]:
        """Yield records of all chains the PDP holds, oldest first.

        Args:
            chain: one chain only.
            since_ms: nothing older, milliseconds since the epoch.
            last: the newest so many; 0: all.
            follow: go on with new records until the iterator is closed; only then is there no deadline.
        """
        message = audit_pb2.ReadRequest(chain=chain, since_ms=since_ms, follow=follow, last=last)
        timeout_s = None if follow else self._core.settings.timeout_s
        for told in self._transport.stream(core.READ_AUDIT, message, timeout_s=timeout_s):
            yield ChainRecord(chain=told.chain, record=told.record)

    def audit_query(
        self, wanted: Wanted, *, page_size: int = 0, cursor: str = "", events: bool = False
    ) -> FoundRecords:
        """Return a page of the decisions that fit, newest first.

        Args:
            wanted: which decisions.
            page_size: at most so many; 0: the usual number.
            cursor: `next_cursor` of the page before, with the same question.
            events: also what was noted of the streams that they opened.
        """
        message = core.query_message(wanted, page_size=page_size, cursor=cursor, events=events)
        return core.found_records(self._transport.unary(core.QUERY_AUDIT, message))

    # Replicas.

    def replicas(self) -> Replicas:
        """Return the enforcement points the PDP knows."""
        told = self._transport.unary(core.LIST_REPLICAS, replication_pb2.ListReplicasRequest())
        return Replicas(replicas=core.replicas(told.replicas), head_seq=told.head_seq)

    def close(self) -> None:
        """Close the connection. A closed client refuses further calls."""
        self._transport.close()

    def __enter__(self) -> Self:
        self._core.check_usable()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
