"""DecisionService: questions in, decisions out. A deny is a normal answer; an error says that there is no answer."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from pdp.adapters.telemetry import Metrics
from pdp.errors import BadRequestError, PortcullisError, Reason
from pdp.identity.types import AssertedIdentity, Refusal, VerifiedIdentity
from pdp.limits import MAX_ATTRIBUTES, MAX_BATCH
from pdp.model.attributes import Attributes, AttributeType, Value
from pdp.model.decision import Answer
from pdp.model.names import Action, Principal, Resource, printable
from pdp.model.request import CredentialFacts, Party, Question
from pdp.ports import Clock
from pdp.replica import Replica
from pdp.server.callers import ASK, ASSERT, CALLER, Caller, Gate
from pdp.server.grpc.convert import decision_message, party_of, value_of, wait_s
from pdp.server.grpc.search import Searches
from pdp.service.authenticate import Authenticator
from pdp.service.decide import Decider
from pdp.service.lists import Lists
from pdp.service.watch import watch
from pdp.service.watch_index import Watches
from pdp.v1 import decision_pb2, decision_pb2_grpc, types_pb2

DOOR: Final = "grpc"
_ENDS: Final = frozenset({Reason.TOKEN_EXPIRED})


class Reader:
    """Turns a message into a question: who is meant is verified here, or believed of those who may assert it."""

    def __init__(self, *, gate: Gate, authenticator: Authenticator, replica: Replica) -> None:
        self._gate = gate
        self._authenticator = authenticator
        self._replica = replica

    async def read(self, message: decision_pb2.Question, caller: Caller) -> Question | Refusal:
        """Return the question, or why the credential inside it does not hold.

        Raises:
            PortcullisError: it is malformed, or says what this caller may not assert.
        """
        who = await self.who(message.subject, caller, action=message.action)
        if isinstance(who, Refusal):
            return who
        verified = who if isinstance(who, VerifiedIdentity) else None
        return Question(
            subject=who.party,
            actors=who.actors,
            action=Action.parse(message.action),
            resource=Resource.parse(message.resource),
            workload=await self._workload(message, caller, verified),
            serves=Resource.parse(message.serves) if message.serves else None,
            attributes=await self.attributes(message.attributes, caller),
            claims=verified.attributes if verified else {},
            credential=verified.facts if verified else CredentialFacts(),
            supports=None if message.supports_all else frozenset(message.supports),
        )

    async def who(
        self, subject: decision_pb2.Subject, caller: Caller, *, action: str = ""
    ) -> VerifiedIdentity | AssertedIdentity | Refusal:
        """Return whom a message means: the caller itself, whom it may assert, or whose credential it shows for `action`."""
        kind = subject.WhichOneof("who")
        if kind is None:
            return caller.identity
        if kind == "asserted":
            return await self._asserted(subject.asserted, caller)
        credential = subject.credential
        if credential == caller.authorization:
            return caller.identity
        locks = self._replica.world.locks
        return await self._authenticator.authenticate(credential, None, locks=locks, action=action)

    async def _asserted(self, message: decision_pb2.AssertedSubject, caller: Caller) -> AssertedIdentity:
        await self._gate.authorise(caller, ASSERT)
        actors: list[Party] = [party_of(actor.principal, actor.groups) for actor in message.actors]
        return AssertedIdentity(
            by=caller.identity, party=party_of(message.principal, message.groups), actors=tuple(actors)
        )

    async def _workload(
        self, message: decision_pb2.Question, caller: Caller, verified: VerifiedIdentity | None
    ) -> Principal | None:
        """Return where the access starts: at the workload of whoever is meant, never of who asks for another."""
        own = verified.workload if verified else None
        if not message.workload:
            return own
        named = Principal.parse(message.workload)
        if named != own:
            await self._gate.authorise(caller, ASSERT)
        return named

    async def attributes(self, message: Mapping[str, types_pb2.Value], caller: Caller) -> Attributes:
        """Return the request attributes of a message, each of which its caller may assert."""
        if len(message) > MAX_ATTRIBUTES:
            raise BadRequestError(f"a question has at most {MAX_ATTRIBUTES} attributes")
        found: dict[str, Value] = {}
        for name in message:
            kind, value = value_of(printable(name), message[name])
            await self._check_asserted(name, kind, caller)
            found[name] = value
        return found

    async def _check_asserted(self, name: str, kind: AttributeType, caller: Caller) -> None:
        """Refuse an attribute that is not this caller's to say; `decide` refuses one that nobody knows."""
        snapshot = self._replica.world.snapshot
        info = snapshot.vocabulary.attributes.get(name) if snapshot else None
        if info is None:
            return
        if kind is not info.type:
            raise BadRequestError(f"attribute `{name}` must be of type {info.type.value}")
        if "caller" in info.asserted_by:
            return
        if "enforcement_point" not in info.asserted_by:
            raise BadRequestError(f"attribute `{name}` cannot be asserted in a question")
        await self._gate.authorise(caller, ASSERT)


class DecisionServicer(decision_pb2_grpc.DecisionServiceServicer):
    """The RPCs of DecisionService, behind the guard."""

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
    ) -> None:
        self._searches = Searches(reader=reader, gate=gate, decider=decider, lists=lists)
        self._reader = reader
        self._gate = gate
        self._decider = decider
        self._replica = replica
        self._watches = Watches(replica)
        self._clock = clock
        self._metrics = metrics

    async def Evaluate(self, request: decision_pb2.EvaluateRequest, context: Any) -> decision_pb2.EvaluateResponse:  # noqa: N802 - gRPC's name
        """Decide one question."""
        return await self._one(request, context, explain=False)

    async def Explain(self, request: decision_pb2.EvaluateRequest, context: Any) -> decision_pb2.EvaluateResponse:  # noqa: N802 - gRPC's name
        """Decide one question, and say what came nearest to granting it."""
        return await self._one(request, context, explain=True)

    async def EvaluateBatch(  # noqa: N802 - gRPC's name
        self, request: decision_pb2.EvaluateBatchRequest, context: Any
    ) -> decision_pb2.EvaluateBatchResponse:
        """Decide many questions on one world, in order."""
        return await self._batch(request, wait_s(context))

    async def EvaluateStream(  # noqa: N802 - gRPC's name
        self, request_iterator: AsyncIterator[decision_pb2.EvaluateBatchRequest], context: Any
    ) -> AsyncIterator[decision_pb2.EvaluateBatchResponse]:
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
            answer = await self._refuse(question, request.question, caller)
            yield decision_pb2.WatchResponse(decision=decision_message(answer), ended=True)
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
        async for answer in answers:
            self._count(answer)
            ended = answer.decision.reason in _ENDS
            yield decision_pb2.WatchResponse(decision=decision_message(answer), ended=ended)

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
        (answer,) = await self._answers((request.question,), request.at_least, wait_s(context), explain=explain)
        return decision_pb2.EvaluateResponse(decision=decision_message(answer))

    async def _batch(
        self, request: decision_pb2.EvaluateBatchRequest, patience_s: float
    ) -> decision_pb2.EvaluateBatchResponse:
        if len(request.questions) > MAX_BATCH:
            raise BadRequestError(f"a batch has at most {MAX_BATCH} questions")
        answers = await self._answers(request.questions, request.at_least, patience_s)
        return decision_pb2.EvaluateBatchResponse(decisions=map(decision_message, answers))

    async def _answers(
        self,
        messages: Sequence[decision_pb2.Question],
        at_least: int,
        patience_s: float,
        *,
        explain: bool = False,
    ) -> list[Answer]:
        """Return one answer for each message, in order: each is decided, or its bad credential is the answer."""
        caller = CALLER.get()
        await self._reach(at_least, patience_s, caller)
        read = [await self._read(position, message, caller) for position, message in enumerate(messages)]
        questions = [item for item in read if isinstance(item, Question)]
        decided = iter(
            await self._decider.answer_many(
                questions, at_least=at_least, wait_s=patience_s, explain=explain, caller=caller.name, door=DOOR
            )
        )
        answers = []
        for item, message in zip(read, messages, strict=True):
            answer = next(decided) if isinstance(item, Question) else await self._refuse(item, message, caller)
            self._count(answer)
            answers.append(answer)
        return answers

    async def _reach(self, at_least: int, patience_s: float, caller: Caller) -> None:
        """Wait for the world asked for, before anything is read: it may lock the caller out, or take what it asserts."""
        if at_least > self._replica.world.seq:
            await self._decider.reach(at_least, patience_s)
            await self._gate.authorise(caller, ASK)

    async def _read(self, position: int, message: decision_pb2.Question, caller: Caller) -> Question | Refusal:
        try:
            return await self._reader.read(message, caller)
        except (BadRequestError, ValueError) as error:
            reason = error.reason if isinstance(error, PortcullisError) else Reason.BAD_REQUEST
            raise PortcullisError(reason, f"question {position}: {error}") from error

    async def _refuse(self, refusal: Refusal, message: decision_pb2.Question, caller: Caller) -> Answer:
        """Record a question whose credential does not hold; the caller learns the code, the record the detail."""
        answer = await self._decider.refuse(
            refusal.reason,
            detail=refusal.detail,
            door=DOOR,
            action=printable(message.action),
            resource=printable(message.resource),
            caller=caller.name,
        )
        return Answer(decision=answer.decision.refused(refusal.reason), decision_id=answer.decision_id)

    def _count(self, answer: Answer) -> None:
        self._metrics.decided("allow" if answer.decision.allowed else "deny", answer.decision.reason.value)
