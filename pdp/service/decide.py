"""Deciding as a use case: pin the world, decide, bound by staleness, record, answer. Every door goes through here.

An allow leaves only after its record is durable; a record that cannot be written turns the answer into deny
`audit_unavailable`. A deny is recorded too, but never waits (FAILURE.md S1).
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from pdp import decide as engine
from pdp.audit.record import Circumstances, DecisionRecord, refusal_record, stream_record
from pdp.errors import PortcullisError, Reason
from pdp.limits import MAX_CLOCK_SKEW_S
from pdp.model.decision import Answer, Decision, deny
from pdp.model.names import Resource
from pdp.model.request import Question
from pdp.model.trace import TRACE
from pdp.ports import AuditTrail, Clock
from pdp.replica import Replica
from pdp.world import World

_UNKNOWN_AGE_S: Final = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """All that a decision reads beside its question: pinned once, and noted in the record, so that it can be replayed.

    `staleness_ms` is rounded up *before* anything is compared with it, so that the record holds what was compared. `point` is
    the name of this enforcement point; of a canary at named points the record says whether it decided.
    """

    world: World
    now_ms: int
    staleness_ms: int
    clock_off: bool
    point: str = ""

    def decide(self, question: Question, *, explain: bool = False) -> Decision:
        """Decide `question` in this moment, bounded by the age of the world."""
        judge = engine.explain if explain else engine.decide
        decision = judge(self.world, question, self.now_ms, clock_off=self.clock_off, point=self.point)
        return engine.bounded(decision, self.world, question, self.staleness_ms / 1000)


class Decider:
    """Answers questions from the replica of this process; `point` names the enforcement point that it is."""

    def __init__(
        self, *, replica: Replica, audit: AuditTrail, clock: Clock, new_id: Callable[[], str], point: str = ""
    ) -> None:
        self._replica = replica
        self._audit = audit
        self._clock = clock
        self._new_id = new_id
        self._point = point

    async def answer(
        self,
        question: Question,
        *,
        at_least: int = 0,
        wait_s: float = 0.0,
        explain: bool = False,
        caller: str = "",
        door: str = "grpc",
    ) -> Answer:
        """Decide and record one question; see `answer_many`."""
        answers = await self.answer_many(
            (question,), at_least=at_least, wait_s=wait_s, explain=explain, caller=caller, door=door
        )
        return answers[0]

    async def answer_many(
        self,
        questions: Sequence[Question],
        *,
        at_least: int = 0,
        wait_s: float = 0.0,
        explain: bool = False,
        caller: str = "",
        door: str = "grpc",
    ) -> Sequence[Answer]:
        """Decide all `questions` on one world and record them as one group.

        Args:
            questions: what is asked, already verified.
            at_least: the world number that the caller has seen; 0 = any.
            wait_s: how long to wait for that world, in seconds.
            explain: add the nearest miss to denies.
            caller: who asks, for the record.
            door: where the question came in, for the record.

        Raises:
            PortcullisError: `world_behind` if the world did not arrive in time.
        """
        await self.reach(at_least, wait_s)
        moment = self.moment()  # INVARIANT: one for all; every answer of this call is of the same world and time.
        around = _around(moment, door=door, caller=caller)
        answers, records = [], []
        for question in questions:
            answer = Answer(moment.decide(question, explain=explain), self._new_id())
            answers.append(answer)
            records.append(_record(answer, question, moment, around))
        return await self._release(answers, records)

    async def reach(self, at_least: int, wait_s: float) -> bool:
        """Wait until the replica holds a world of number `at_least`; False if it did already.

        Raises:
            PortcullisError: `world_behind` after `wait_s` seconds.
        """
        if self._replica.world.seq >= at_least:
            return False
        arrived = asyncio.Event()
        stop = self._replica.on_change(lambda world: arrived.set() if world.seq >= at_least else None)
        try:
            async with asyncio.timeout(wait_s):
                await arrived.wait()
        except TimeoutError:
            message = f"this PDP holds world {self._replica.world.seq}, not yet {at_least}"
            raise PortcullisError(Reason.WORLD_BEHIND, message, advice="ask again") from None
        finally:
            stop()
        return True

    def recheck(self, question: Question) -> Decision:
        """Decide again on the current world, without a record: for accesses that last."""
        return self.moment().decide(question)

    def moment(self) -> Moment:
        """Return the world, the time and how far both can be trusted, as of now."""
        wall_ms, mono_s = self._clock.now_ms(), self._clock.mono_s()
        return Moment(
            world=self._replica.world,
            now_ms=self._replica.now_ms(wall_ms),
            staleness_ms=ceil(min(self._replica.staleness_s(now_ms=wall_ms, mono_s=mono_s), _UNKNOWN_AGE_S) * 1000),
            clock_off=abs(self._replica.skew_s(now_ms=wall_ms, mono_s=mono_s)) > MAX_CLOCK_SKEW_S,
            point=self._point,
        )

    def patience_s(self, question: Question) -> float:
        """Return for how many more seconds the held world may decide on the asset in question."""
        return engine.max_staleness_s(self._replica.world, question) - self._staleness_s()

    def digest(self, resource: Resource) -> str:
        """Return the digest that the inventory holds for `resource`; empty: none."""
        asset = self._replica.world.asset(resource)
        return asset.digest if asset else ""

    async def confirm(
        self, question: Question, decision: Decision, moment: Moment, *, caller: str, door: str
    ) -> Answer:
        """Record a decision that was made in `moment` and is about to take effect."""
        answer = Answer(decision, self._new_id())
        record = _record(answer, question, moment, _around(moment, door=door, caller=caller))
        return (await self._release((answer,), (record,)))[0]

    async def refuse(
        self,
        reason: Reason,
        *,
        detail: str = "",
        door: str,
        action: str = "",
        resource: str = "",
        caller: str = "",
    ) -> Answer:
        """Record a refusal that came before there was a question: a bad credential, an unmapped route."""
        decision = deny(reason, world_seq=self._replica.world.seq, detail=detail)
        answer = Answer(decision=decision, decision_id=self._new_id())
        record = refusal_record(
            decision_id=answer.decision_id,
            reason=reason,
            detail=detail,
            door=door,
            action=action,
            resource=resource,
            caller=caller,
            world_seq=decision.world_seq,
            time_ms=self._clock.now_ms(),
            trace=TRACE.get(),
        )
        return (await self._release((answer,), [record]))[0]

    async def note(self, event: str, *, decision_id: str, **fields: str | int) -> None:
        """Record a change of state of a running access: cut, ended. It never waits and never fails."""
        record = stream_record(
            decision_id=decision_id,
            event=event,
            world_seq=self._replica.world.seq,
            time_ms=self._clock.now_ms(),
            fields=fields,
        )
        with suppress(PortcullisError):  # the trail counts and shows what it could not write
            await self._audit.record([record], durable=False)

    async def _release(self, answers: Sequence[Answer], records: Sequence[Mapping[str, Any]]) -> Sequence[Answer]:
        """Let the answers go once the records of the allows among them are durable."""
        allows = any(answer.decision.allowed for answer in answers)
        try:
            await self._audit.record(records, durable=allows)
        except PortcullisError as error:
            return [_unrecorded(answer, error) for answer in answers]
        return answers

    def _staleness_s(self) -> float:
        return self._replica.staleness_s(now_ms=self._clock.now_ms(), mono_s=self._clock.mono_s())


def _unrecorded(answer: Answer, error: PortcullisError) -> Answer:
    """A deny stands unrecorded; an allow does not."""
    if not answer.decision.allowed:
        return answer
    decision = answer.decision.refused(Reason.AUDIT_UNAVAILABLE, error.message)
    return Answer(decision=decision, decision_id=answer.decision_id)


def _around(moment: Moment, *, door: str, caller: str) -> Circumstances:
    """Return what the records of decisions made in one moment share."""
    return Circumstances(
        now_ms=moment.now_ms,
        staleness_ms=moment.staleness_ms,
        clock_off=moment.clock_off,
        door=door,
        caller=caller,
        time_ms=moment.now_ms,
        trace=TRACE.get(),
    )


def _record(answer: Answer, question: Question, moment: Moment, around: Circumstances) -> DecisionRecord:
    """Return the record of an answer to `question` that was made in `moment`."""
    decision, decision_id = answer
    settled = question.settled
    if settled is not None and (settled.world is not moment.world.mark or not settled.says(decision)):
        settled = None
    if settled is not None and settled.text is not None:
        digest = ""  # stands in that text
    else:
        asset = moment.world.asset(question.serves or question.resource)
        digest = asset.digest if asset else ""
    return DecisionRecord(
        decision_id=decision_id, decision=decision, question=question, digest=digest, around=around, settled=settled
    )
