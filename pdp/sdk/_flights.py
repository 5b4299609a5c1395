"""Concurrent checks that travel together, without their I/O.

A check becomes an `Asked`. Whoever carries (a thread in `_threads.py`, a task in `_loop.py`) takes what waits, and steps
through `fly`: it yields calls and is sent their outcomes, until every question is settled. Rules that hold for both:

- questions of two credentials never share a call (K6), and one alone is an `Evaluate`, as if nothing were batched;
- a question that the PDP refuses to read fails alone: the batch is halved until the bad one is found;
- all that waits has a deadline of its own, and the call ends with the last of them.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from pdp.errors import Reason
from pdp.limits import COALESCE_BYTES, MAX_BATCH
from pdp.sdk._cache import DecisionCache, Key, question_digest
from pdp.sdk._core import BATCH, EVALUATE, Core, Rpc, call_error
from pdp.sdk.errors import BadQuestion, NotPermitted, PdpError, PdpFault
from pdp.sdk.values import Decision, Dpop, Question
from pdp.v1 import decision_pb2

Outcome = Decision | PdpError


@dataclass(slots=True, kw_only=True, eq=False)
class Asked:
    """One check on its way: what is asked, by which credential, until when; and its outcome, once it has one."""

    question: Question
    message: decision_pb2.Question
    token: str = field(repr=False)
    key: Key | None
    deadline_s: float
    wake: Callable[[], object]
    outcome: Outcome | None = None

    def settle(self, outcome: Outcome) -> None:
        """Take the first outcome, and wake whoever waits for it."""
        if self.outcome is None:
            self.outcome = outcome
            self.wake()

    def result(self) -> Decision:
        """Return the decision, or raise the error that stands in its place."""
        if isinstance(self.outcome, PdpError):
            raise copy(self.outcome)  # one failed call has many waiters, and a traceback grows where it is raised
        if self.outcome is None:
            raise PdpFault(Reason.INTERNAL_ERROR, "a check ended without an answer", advice="treat it as denied")
        return self.outcome

    @property
    def alone(self) -> bool:
        """True if it may not be asked twice, and so never with others, whose faults would have it asked again."""
        return isinstance(self.question.subject, Dpop)

    @property
    def asserts(self) -> bool:
        """True if the question says something that not every caller may say."""
        question = self.question
        return question.subject is not None or bool(question.workload or question.attributes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that a flight wants made."""

    rpc: Rpc[Any, Any]
    message: Any
    token: str = field(repr=False)
    deadline_s: float


class Desk:
    """Where checks are written down and answered: the core, the clock and the cache of one client."""

    def __init__(self, core: Core, *, mono_s: Callable[[], float]) -> None:
        self.core = core
        self.mono_s = mono_s
        self.cache = DecisionCache(life_s=core.settings.cache_s)

    def ask(self, question: Question, *, token: str | None = None) -> Asked | Decision:
        """Return the check, ready to travel, or the decision that is still good.

        Args:
            question: what is asked.
            token: our credential, where it was read already.

        Raises:
            PdpError: the client cannot be used, has no credential to show, or the question is malformed.
        """
        self.core.check_usable()
        shown = self.core.settings.read_token() if token is None else token
        message = self.core.message(question)
        now_s, key = self.mono_s(), None
        # An allow that is kept would let a proof in for the second time.
        if self.cache.enabled and not isinstance(question.subject, Dpop):
            key = (self.core.world_seq, question_digest(self.core.settings.server, shown, question))
            kept = self.cache.get(key, now_s=now_s)
            if kept is not None:
                return kept
        return Asked(
            question=question,
            message=message,
            token=shown,
            key=key,
            deadline_s=now_s + self.core.settings.timeout_s,
            wake=_nobody,
        )

    def late(self) -> PdpError:
        """Return the error of a check whose time is up."""
        return call_error("DEADLINE_EXCEEDED", server=self.core.settings.server)

    def fly(self, asks: Sequence[Asked]) -> Generator[Call, Any, None]:
        """Yield each call that is wanted and take its outcome, a message or a `PdpError`, until all `asks` are settled."""
        groups = [list(asks)]
        while groups:
            group = [asked for asked in groups.pop() if asked.outcome is None]
            if not group:
                continue
            at_least, sent_s = self.core.world_seq, self.mono_s()
            outcome = yield _call(group, at_least)
            if not isinstance(outcome, PdpError):
                self._land(group, at_least, sent_s, outcome)
            elif _one_spoils_all(outcome, group):
                groups += [group[: len(group) // 2], group[len(group) // 2 :]]
            else:
                for asked in group:
                    asked.settle(outcome)

    def _land(self, group: list[Asked], at_least: int, sent_s: float, told: Any) -> None:
        """Settle a group with what the PDP answered."""
        one = isinstance(told, decision_pb2.EvaluateResponse)
        try:
            answers = (told.decision,) if one else self.core.counted(told, len(group))
        except PdpFault as fault:
            for asked in group:
                asked.settle(fault)
            return
        for asked, message in zip(group, answers, strict=True):
            decision = self.core.answer(asked.question, at_least, message)
            if asked.key is not None:
                self.cache.put(asked.key, decision, sent_s=sent_s)
            asked.settle(decision)


def take(queue: deque[Asked]) -> list[Asked]:
    """Remove and return what travels together: the first that waits, and all of its credential that fit into one message."""
    taken: list[Asked] = []
    others: list[Asked] = []
    size = 0
    while queue and len(taken) < MAX_BATCH:
        asked = queue.popleft()
        if asked.outcome is not None:
            continue
        if taken and (asked.token != taken[0].token or asked.alone or taken[0].alone):
            others.append(asked)
            continue
        size += asked.message.ByteSize() + 8
        if taken and size > COALESCE_BYTES:
            others.append(asked)
            break
        taken.append(asked)
    queue.extendleft(reversed(others))
    return taken


def _nobody() -> None:
    """Wake nobody: the check is carried by the one who asks."""


def _call(group: list[Asked], at_least: int) -> Call:
    message: decision_pb2.EvaluateRequest | decision_pb2.EvaluateBatchRequest
    if len(group) == 1:
        message = decision_pb2.EvaluateRequest(question=group[0].message, at_least=at_least)
    else:
        questions = [asked.message for asked in group]
        message = decision_pb2.EvaluateBatchRequest(questions=questions, at_least=at_least)
    deadline_s = max(asked.deadline_s for asked in group)
    return Call(
        rpc=EVALUATE if len(group) == 1 else BATCH, message=message, token=group[0].token, deadline_s=deadline_s
    )


def _one_spoils_all(error: PdpError, group: list[Asked]) -> bool:
    """Tell whether a batch may have been refused for one question in it, so that the others deserve another call.

    A right that every question needs is missing for all of them alike; only `decision.assert` is some questions' alone.
    """
    if len(group) == 1:
        return False
    return isinstance(error, BadQuestion) or (isinstance(error, NotPermitted) and any(asked.asserts for asked in group))
