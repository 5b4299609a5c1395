"""Trials as messages."""

from typing import Final

from pdp.audit.replay import Said
from pdp.change.trial import Mode, Scope, Stop, Trial
from pdp.errors import BadRequestError
from pdp.limits import TRIAL_SHOWN
from pdp.service.history import Tried
from pdp.service.redecide import GAINS, LOSES, OBLIGED
from pdp.service.tally import Tally
from pdp.v1 import policy_pb2

_MODES: Final = {policy_pb2.TRIAL_MODE_SHADOW: Mode.SHADOW, policy_pb2.TRIAL_MODE_CANARY: Mode.CANARY}
_CODES: Final = {mode: code for code, mode in _MODES.items()}


def mode_of(code: policy_pb2.TrialMode) -> Mode:
    """Return the mode that a request names.

    Raises:
        BadRequestError: none, or one that this version does not know.
    """
    mode = _MODES.get(code)
    if mode is None:
        raise BadRequestError("a trial is a shadow or a canary")
    return mode


def asked_canary(request: policy_pb2.StartTrialRequest) -> tuple[Scope, Stop]:
    """Return for whom a canary is asked, and when it is to be rolled back.

    Raises:
        BadRequestError: it is malformed.
    """
    scope = Scope(share=request.share, points=tuple(request.points))
    return scope, Stop(loses=request.max_loses, gains=request.no_gains)


def trial_message(trial: Trial, tally: Tally | None, *, whole: bool) -> policy_pb2.Trial:
    """Return a trial as it leaves; with `whole`, also what differs."""
    message = policy_pb2.Trial(
        proposal_id=trial.proposal,
        mode=_CODES[trial.mode],
        seq=trial.seq,
        by=trial.by,
        start_ms=trial.start_ms,
        end_ms=trial.end_ms,
        revision=trial.revision,
        share=trial.scope.share if trial.scope else 0,
        points=trial.scope.points if trial.scope else (),
        max_loses=trial.stop.loses if trial.stop else 0,
        no_gains=trial.stop.gains if trial.stop else False,
    )
    if tally is not None:
        message.tally.CopyFrom(_tally(tally, whole=whole))
    return message


def event_message(tried: Tried) -> policy_pb2.TrialEvent:
    """Return the begin or the end of a trial as it leaves."""
    return policy_pb2.TrialEvent(
        seq=tried.seq,
        time_ms=tried.time_ms,
        author=tried.author,
        proposal_id=tried.proposal,
        mode=tried.mode,
        why=tried.why,
        detail=tried.detail,
    )


def _tally(tally: Tally, *, whole: bool) -> policy_pb2.Tally:
    most = sorted(tally.kinds.items(), key=lambda kind: -kind[1].count)
    shown, left = (most[:TRIAL_SHOWN], most[TRIAL_SHOWN:]) if whole else ([], [])
    message = policy_pb2.Tally(
        compared=tally.compared,
        gains=tally.changes[GAINS],
        loses=tally.changes[LOSES],
        obliged=tally.changes[OBLIGED],
        errors=tally.errors,
        skipped=tally.skipped,
        unreadable=tally.unreadable,
        others=tally.others + sum(seen.count for _, seen in left),
        newest_ms=tally.newest_ms,
        trouble=tally.trouble,
    )
    for flip, seen in shown:
        message.differences.add(
            change=flip.change,
            subject=flip.subject,
            action=flip.action,
            resource=flip.resource,
            before=_said(flip.before),
            after=_said(flip.after),
            count=seen.count,
            decision_id=seen.decision_id,
        )
    return message


def _said(said: Said) -> policy_pb2.Said:
    return policy_pb2.Said(
        effect=said.effect, reason=said.reason, determining=said.determining, obligations=said.obligations
    )
