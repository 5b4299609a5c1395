"""Watching: the current decision on a question, and every change of it, until the access can last no longer."""

import asyncio
from collections.abc import AsyncGenerator

from pdp.errors import Reason
from pdp.limits import AUDIT_RETRY_S, HEARTBEAT_INTERVAL_S, WATCH_FLOOR_S
from pdp.model.decision import Answer, Decision, deny
from pdp.model.request import Question
from pdp.ports import Clock
from pdp.service.decide import Decider, Moment
from pdp.service.watch_index import Watches

DOOR = "watch"


async def watch(
    decider: Decider,
    watches: Watches,
    clock: Clock,
    question: Question,
    *,
    at_least: int = 0,
    wait_s: float = 0.0,
    caller: str = "",
    caller_expires_at_s: int = 0,
) -> AsyncGenerator[Answer]:
    """Yield the decision on `question` now, and again whenever it changes.

    Ends after a deny `token_expired` when the watched credential expires, and silently when the caller's own does
    (`caller_expires_at_s`, seconds since the epoch; 0 = with the connection): the caller opens a new watch.

    Raises:
        PortcullisError: `world_behind` if the world `at_least` did not arrive within `wait_s` seconds.
    """
    with watches.watching(question) as changed:
        looked_s = clock.mono_s()
        answer = await decider.answer(question, at_least=at_least, wait_s=wait_s, caller=caller, door=DOOR)
        yield answer
        while True:
            # What the record and a slow reader took is part of the time that the decision may stand.
            due_s = _due_s(
                decider,
                clock,
                question,
                answer.decision,
                caller_expires_at_s=caller_expires_at_s,
                spent_s=clock.mono_s() - looked_s,
            )
            await _until_due(changed, due_s)
            changed.clear()
            if _expired(clock, caller_expires_at_s):
                return
            moment, looked_s = decider.moment(), clock.mono_s()
            decision = _look(moment, clock, question)
            if _same(decision, answer.decision):
                answer = Answer(decision=decision, decision_id=answer.decision_id)
                continue
            before = answer.decision
            answer = await decider.confirm(question, decision, moment, caller=caller, door=DOOR)
            if _same(answer.decision, before):
                continue  # an allow that still cannot be recorded
            yield answer
            if answer.decision.reason is Reason.TOKEN_EXPIRED:
                return


def _look(moment: Moment, clock: Clock, question: Question) -> Decision:
    decision = moment.decide(question)
    if _expired(clock, question.credential.expires_at_s):
        return deny(Reason.TOKEN_EXPIRED, world_seq=decision.world_seq, detail="the watched credential has expired")
    return decision


def _expired(clock: Clock, expires_at_s: int) -> bool:
    return bool(expires_at_s) and clock.now_ms() >= expires_at_s * 1000


def _due_s(
    decider: Decider,
    clock: Clock,
    question: Question,
    decision: Decision,
    *,
    caller_expires_at_s: int,
    spent_s: float,
) -> float | None:
    """Return when to look again without a new world, in seconds; None = only at a new world."""
    bounds = [] if decision.recheck_after_s is None else [decision.recheck_after_s - spent_s]
    now_s = clock.now_ms() / 1000
    bounds += [end - now_s for end in (question.credential.expires_at_s, caller_expires_at_s) if end]
    if decision.allowed:
        bounds.append(decider.patience_s(question))
    elif decision.reason is Reason.WORLD_STALE:  # a heartbeat makes no new world, so nothing else would wake us
        bounds.append(HEARTBEAT_INTERVAL_S)
    elif decision.reason is Reason.AUDIT_UNAVAILABLE:  # nor does a decision log that is written again
        bounds.append(AUDIT_RETRY_S)
    # The floor: by signed time a credential may be over while by our own clock it is not, and then the bound stays nought.
    return max(WATCH_FLOOR_S, min(bounds)) if bounds else None


async def _until_due(changed: asyncio.Event, due_s: float | None) -> None:
    try:
        async with asyncio.timeout(due_s):
            await changed.wait()
    except TimeoutError:
        return


def _same(one: Decision, other: Decision) -> bool:
    """Tell whether a caller would act alike on both."""
    return (one.effect, one.reason, one.obligations) == (other.effect, other.reason, other.obligations)
