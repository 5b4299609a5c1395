"""Trials of proposals as an administrator sees them, and their messages."""

from dataclasses import dataclass
from typing import Final

from pdp.change.trial import Mode
from pdp.limits import MAX_PACK_DEADLINE_S
from pdp.sdk._core import Rpc
from pdp.v1 import policy_pb2

START_TRIAL: Final = Rpc(
    "/pdp.v1.PolicyService/StartTrial",
    policy_pb2.StartTrialRequest,
    policy_pb2.StartTrialResponse,
    MAX_PACK_DEADLINE_S,
)
END_TRIAL: Final = Rpc("/pdp.v1.PolicyService/EndTrial", policy_pb2.EndTrialRequest, policy_pb2.EndTrialResponse)
LIST_TRIALS: Final = Rpc(
    "/pdp.v1.PolicyService/ListTrials", policy_pb2.ListTrialsRequest, policy_pb2.ListTrialsResponse
)
_MODES: Final = {policy_pb2.TRIAL_MODE_SHADOW: Mode.SHADOW, policy_pb2.TRIAL_MODE_CANARY: Mode.CANARY}
CODES: Final = {mode: code for code, mode in _MODES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One side of a difference."""

    effect: str
    reason: str
    determining: tuple[str, ...]
    obligations: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Decisions that differ alike (`gains`, `loses`, `obliged otherwise`): how many, and the first of them."""

    change: str
    subject: str
    action: str
    resource: str
    before: Said
    after: Said
    count: int
    decision_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What a trial has shown so far; `differences` only where they were asked for.

    Of the `compared` decisions, `gains` are allowed that the live policy denies, `loses` the reverse, `obliged` oblige
    otherwise, and `errors` are denied since a condition of the candidate's own fails. `skipped` were passed over to keep up,
    `unreadable` cannot be decided again, `others` differ in kinds for which there was no room. `newest_ms` is how far the
    decision log has been read, `trouble` why that does not go on.
    """

    compared: int
    gains: int
    loses: int
    obliged: int
    errors: int
    skipped: int
    unreadable: int
    others: int
    newest_ms: int
    trouble: str
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A proposal that is tried: in the shadow, or as a canary for `share` percent of subjects or at `points`.

    A canary is rolled back by itself above `max_loses` percent of losses, and with `no_gains` at the first gain. `tally` is
    None before the PDP's first look.
    """

    proposal_id: str
    mode: Mode
    seq: int
    by: tuple[str, ...]
    start_ms: int
    end_ms: int
    revision: str
    share: int
    points: tuple[str, ...]
    max_loses: int
    no_gains: bool
    tally: Tally | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEvent:
    """A trial that `started`, or ended by an entry of its own: `stopped`, at its `time`, or by `rollback`, and then why."""

    seq: int
    time_ms: int
    author: str
    proposal_id: str
    mode: str
    why: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """What is asked of a canary: see `Trial`."""

    share: int = 0
    points: tuple[str, ...] = ()
    max_loses: int
    no_gains: bool = False


def start_message(proposal_id: str, duration_s: int, canary: Canary | None) -> policy_pb2.StartTrialRequest:
    """Return the request that begins a trial."""
    if canary is None:
        return policy_pb2.StartTrialRequest(
            proposal_id=proposal_id, mode=policy_pb2.TRIAL_MODE_SHADOW, duration_s=duration_s
        )
    return policy_pb2.StartTrialRequest(
        proposal_id=proposal_id,
        mode=policy_pb2.TRIAL_MODE_CANARY,
        duration_s=duration_s,
        share=canary.share,
        points=canary.points,
        max_loses=canary.max_loses,
        no_gains=canary.no_gains,
    )


def trial(message: policy_pb2.Trial) -> Trial:
    """Return the trial in `message`."""
    return Trial(
        proposal_id=message.proposal_id,
        mode=_MODES[message.mode],
        seq=message.seq,
        by=tuple(message.by),
        start_ms=message.start_ms,
        end_ms=message.end_ms,
        revision=message.revision,
        share=message.share,
        points=tuple(message.points),
        max_loses=message.max_loses,
        no_gains=message.no_gains,
        tally=_tally(message.tally) if message.HasField("tally") else None,
    )


def event(message: policy_pb2.TrialEvent) -> TrialEvent:
    """Return the begin or the end of a trial in `message`."""
    return TrialEvent(
        seq=message.seq,
        time_ms=message.time_ms,
        author=message.author,
        proposal_id=message.proposal_id,
        mode=message.mode,
        why=message.why,
        detail=message.detail,
    )


def _tally(message: policy_pb2.Tally) -> Tally:
    return Tally(
        compared=message.compared,
        gains=message.gains,
        loses=message.loses,
        obliged=message.obliged,
        errors=message.errors,
        skipped=message.skipped,
        unreadable=message.unreadable,
        others=message.others,
        newest_ms=message.newest_ms,
        trouble=message.trouble,
        differences=tuple(map(_difference, message.differences)),
    )


def _difference(message: policy_pb2.Difference) -> Difference:
    return Difference(
        change=message.change,
        subject=message.subject,
        action=message.action,
        resource=message.resource,
        before=_said(message.before),
        after=_said(message.after),
        count=message.count,
        decision_id=message.decision_id,
    )


def _said(message: policy_pb2.Said) -> Said:
    return Said(
        effect=message.effect,
        reason=message.reason,
        determining=tuple(message.determining),
        obligations=tuple(message.obligations),
    )
