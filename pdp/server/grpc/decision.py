"""DecisionService: questions in, decisions out. A deny is a normal answer; an error says that there is no answer."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Final

import grpc

from pdp.adapters.telemetry import Metrics
from pdp.errors import BadRequestError, Reason
from pdp.identity.types import Refusal
from pdp.limits import MAX_BATCH
from pdp.model.decision import Answer, Effect
from pdp.model.names import printable
from pdp.model.request import Question
from pdp.ports import Clock
from pdp.replica import Replica
from pdp.server.callers import ASK, CALLER, Caller, Gate
from pdp.server.discretion import Discretion
from pdp.server.grpc.convert import decision_bytes, decision_message, wait_s
from pdp.server.grpc.reader import Reader
from pdp.server.grpc.search import Searches
from pdp.service.decide import Decider
from pdp.service.lists import Lists
from pdp.service.watch import watch
from pdp.service.watch_index import Watches
from pdp.v1 import decision_pb2, decision_pb2_grpc
from pdp.v1.batch_pb2 import DecisionsAsBytes, QuestionsAsBytes

DOOR: Final = "grpc"
_ENDS: Final = frozenset({Reason.TOKEN_EXPIRED})
_NONCE: Final = Reason.DPOP_NONCE_REQUIRED  # a member of an enumeration takes 50 ns to look up


class DecisionServicer(decision_pb2_grpc.DecisionServiceServicer):
    """The RPCs of DecisionService, behind the guard. A batch is taken and given with its items as bytes (`batches`)."""

    def __init__(
        self,
        *,
        reader: Reader,
        gate: Gate,
        decider: Decider,
        lists: Lists,
        replica: Replica,
        clock: Clock,
        metrics: Metrics,
        discretion: Discretion,
        watches: Watches,
    ) -> None:
        self._discretion = discretion
        self._searches = Searches(reader=reader, gate=gate, decider=decider, lists=lists)
        self._reader = reader
        self._gate = gate
        self._decider = decider
        self._replica = replica
        self._watches = watches
        self._clock = clock
        self._metrics = metrics

    async def Evaluate(self, request: decision_pb2.EvaluateRequest, context: Any) -> decision_pb2.EvaluateResponse:  # noqa: N802 - gRPC's name
        """Decide one question."""
        return await self._one(request, context, explain=False)

    async def Explain(self, request: decision_pb2.EvaluateRequest, context: Any) -> decision_pb2.EvaluateResponse:  # noqa: N802 - gRPC's name
        """Decide one question, and say what came nearest to granting it."""
        return await self._one(request, context, explain=True)

    async def EvaluateBatch(self, request: QuestionsAsBytes, context: Any) -> DecisionsAsBytes:  # noqa: N802 - gRPC's name
        """Decide many questions on one world, in order."""
        return await self._batch(request, wait_s(context))

    async def EvaluateStream(  # noqa: N802 - gRPC's name
        self, request_iterator: AsyncIterator[QuestionsAsBytes], context: Any
    ) -> AsyncIterator[DecisionsAsBytes]:
        """Decide batch after batch; whether the caller may ask is looked at for each."""
        async for request in request_iterator:
            await self._gate.authorise(CALLER.get(), ASK)
            yield await self._batch(request, wait_s(context))

    async def Watch(  # noqa: N802 - gRPC's name
        self, request: decision_pb2.WatchRequest, context: Any
    ) -> AsyncIterator[decision_pb2.WatchResponse]:
        """Tell the decision on a question, and every change of it."""
        caller = CALLER.get()
        await self._reach(request.at_least, wait_s(context), caller)
        question = await self._reader.read(request.question, caller)
        if isinstance(question, Refusal):
            answer = await self._refuse(question, request.question.SerializeToString(), caller)
            decision = self._with_nonce(decision_message(answer))
            yield decision_pb2.WatchResponse(decision=decision, ended=True)
            return
        answers = watch(
            self._decider,
            self._watches,
            self._clock,
            question,
            at_least=request.at_least,
            wait_s=wait_s(context),
            caller=caller.name,
            caller_expires_at_s=caller.identity.expires_at_s,
        )
        async for answer in self._as_seen(answers, question, caller):
            ended = answer.decision.reason in _ENDS
            yield decision_pb2.WatchResponse(decision=decision_message(answer), ended=ended)

    async def _as_seen(
        self, answers: AsyncIterator[Answer], question: Question, caller: Caller
    ) -> AsyncIterator[Answer]:
        """Yield what the caller may see; who was once allowed knows the asset, and one reason hidden is like another."""
        told: Answer | None = None
        known = False
        async for answer in answers:
            self._count((answer,))
            known = known or answer.decision.allowed
            seen = answer if known else self._discretion.over((answer,), (question,), caller)[0]
            hidden = seen.decision != answer.decision
            if not (hidden and told is not None and told.decision.reason is seen.decision.reason):
                yield seen
            told = seen

    async def SearchSubjects(  # noqa: N802 - gRPC's name
        self, request: decision_pb2.SearchSubjectsRequest, context: Any
    ) -> decision_pb2.SearchResponse:
        """List who can."""
        return await self._searches.subjects(request, wait_s(context))

    async def SearchResources(  # noqa: N802 - gRPC's name
        self, request: decision_pb2.SearchResourcesRequest, context: Any
    ) -> decision_pb2.SearchResponse:
        """List what a subject can."""
        return await self._searches.resources(request, wait_s(context))

    async def SearchActions(  # noqa: N802 - gRPC's name
        self, request: decision_pb2.SearchActionsRequest, context: Any
    ) -> decision_pb2.SearchResponse:
        """List what a subject can do to one resource."""
        return await self._searches.actions(request, wait_s(context))

    async def _one(
        self, request: decision_pb2.EvaluateRequest, context: Any, *, explain: bool
    ) -> decision_pb2.EvaluateResponse:
        asked = (request.question.SerializeToString(),)
        (answer,) = await self._answers(asked, request.at_least, wait_s(context), explain=explain)
        return decision_pb2.EvaluateResponse(decision=self._with_nonce(decision_message(answer)))

    async def _batch(self, request: QuestionsAsBytes, patience_s: float) -> DecisionsAsBytes:
        if len(request.questions) > MAX_BATCH:
            raise BadRequestError(f"a batch has at most {MAX_BATCH} questions")
        answers = await self._answers(request.questions, request.at_least, patience_s)
        return DecisionsAsBytes(decisions=[self._leaving(answer) for answer in answers])

    def _leaving(self, answer: Answer) -> bytes:
        if answer.decision.reason is _NONCE:
            return self._with_nonce(decision_message(answer)).SerializeToString()
        return decision_bytes(answer)

    def _with_nonce(self, message: decision_pb2.Decision) -> decision_pb2.Decision:
        """Give whoever needs a nonce for its next proof one (RFC 9449 section 8)."""
        if message.reason == _NONCE:
            message.dpop_nonce = self._reader.nonce()
        return message

    async def _answers(
        self,
        messages: Sequence[bytes],
        at_least: int,
        patience_s: float,
        *,
        explain: bool = False,
    ) -> Sequence[Answer]:
        """Return one answer for each question's message, in order: each is decided, or its bad credential is the answer."""
        caller = CALLER.get()
        await self._reach(at_least, patience_s, caller)
        read = await self._reader.read_many(messages, caller)
        questions = [item for item in read if isinstance(item, Question)]
        decided: Sequence[Answer] = await self._decider.answer_many(
            questions, at_least=at_least, wait_s=patience_s, explain=explain, caller=caller.name, door=DOOR
        )
        self._count(decided)
        decided = self._discretion.over(decided, questions, caller)
        if len(questions) < len(read):
            following = iter(decided)
            decided = [
                next(following) if isinstance(item, Question) else await self._refuse(item, message, caller)
                for item, message in zip(read, messages, strict=True)
            ]
        return decided

    async def _reach(self, at_least: int, patience_s: float, caller: Caller) -> None:
        """Wait for the world asked for, before anything is read: it may lock the caller out, or take what it asserts."""
        if at_least > self._replica.world.seq:
            await self._decider.reach(at_least, patience_s)
            await self._gate.authorise(caller, ASK)

    async def _refuse(self, refusal: Refusal, raw: bytes, caller: Caller) -> Answer:
        """Record a question whose credential does not hold; the caller learns the code, the record the detail."""
        message = decision_pb2.Question.FromString(raw)
        answer = await self._decider.refuse(
            refusal.reason,
            detail=refusal.detail,
            door=DOOR,
            action=printable(message.action),
            resource=printable(message.resource),
            caller=caller.name,
        )
        self._count((answer,))
        return Answer(decision=answer.decision.refused(refusal.reason), decision_id=answer.decision_id)

    def _count(self, answers: Iterable[Answer]) -> None:
        counts = Counter([(decision.effect, decision.reason) for decision, _ in answers])
        for (effect, reason), count in counts.items():
            self._metrics.decided("allow" if effect is Effect.ALLOW else "deny", reason.value, count)


def batches(servicer: DecisionServicer) -> dict[str, Any]:
    """Return the handlers, by name, of the RPCs whose messages are read and written with their items as bytes.

    On the wire they are those of decision.proto. A question met again is then known by its bytes without being parsed, and a
    decision told again is put into its place without being made: the greater part of the time of a large batch.
    """
    how: dict[str, Callable[..., Any]] = {
        "request_deserializer": QuestionsAsBytes.FromString,
        "response_serializer": DecisionsAsBytes.SerializeToString,
    }
    return {
        "EvaluateBatch": grpc.unary_unary_rpc_method_handler(servicer.EvaluateBatch, **how),
        "EvaluateStream": grpc.stream_stream_rpc_method_handler(servicer.EvaluateStream, **how),
    }
