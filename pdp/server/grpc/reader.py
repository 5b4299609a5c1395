"""Messages to questions: who is meant is verified here, or believed of those who may assert it.

A batch is read in one go. Whether its caller may assert is decided when the first question needs it, and holds for those
that follow; a credential that must be verified makes reading wait, and behind it the right is looked at again, for the world
may have moved on meanwhile.

Names are parsed by functions of the exact text that remember what they have seen (`Action`, `Resource`, `Principal`,
`party_of`). An asserted question without attributes is kept under the exact bytes of its message (`_plain`), and with it
what was said to it (`Question.settled`). Key: the text or the bytes, which decide everything about the result; bounded;
nothing to invalidate. Who may ask it is decided each time. No credential is ever kept as a key, nor bytes in which one
could hide (`_is_plain`).
"""

from collections.abc import Mapping, Sequence

from pdp.errors import BadRequestError, PortcullisError, Reason
from pdp.identity.proof import BoundRequest
from pdp.identity.types import AssertedIdentity, Refusal, VerifiedIdentity
from pdp.limits import MAX_ATTRIBUTES, QUESTION_CACHE_BYTES, QUESTION_CACHE_ENTRIES
from pdp.model.attributes import NO_ATTRIBUTES, Attributes, AttributeType, Value
from pdp.model.names import Action, Principal, Resource, printable
from pdp.model.recent import Recent
from pdp.model.request import NO_FACTS, Party, Question
from pdp.replica import Replica
from pdp.server.callers import ASSERT, Caller, Gate
from pdp.server.grpc.convert import party_of, value_of
from pdp.service.authenticate import Authenticator
from pdp.v1 import decision_pb2, types_pb2


class Reader:
    """Turns messages into questions for one caller at a time."""

    def __init__(self, *, gate: Gate, authenticator: Authenticator, replica: Replica) -> None:
        self._gate = gate
        self._authenticator = authenticator
        self._replica = replica
        self._plain: Recent[bytes, Question] = Recent(QUESTION_CACHE_ENTRIES)

    async def read(self, message: decision_pb2.Question, caller: Caller) -> Question | Refusal:
        """Return the question, or why the credential inside it does not hold; see `read_many`."""
        (item,) = await self.read_many((message.SerializeToString(),), caller)
        return item

    async def read_many(self, messages: Sequence[bytes], caller: Caller) -> list[Question | Refusal]:
        """Return what each message asks, or why the credential inside it does not hold; in order.

        Raises:
            PortcullisError: one is malformed (its position is in the message), or says what this caller may not assert.
        """
        found: list[Question | Refusal] = []
        entitled = False
        for position, raw in enumerate(messages):
            question, asserts = self._plain.find(raw), True
            if question is None:
                message = _parsed(position, raw)
                subject, who = message.subject, None
                _check_bound(subject)
                if not subject.HasField("asserted"):
                    who = self._known(subject, caller)
                    if who is None:
                        verified, entitled = await self._verified(subject, message.action), False
                        if isinstance(verified, Refusal):
                            found.append(verified)
                            continue
                        who = verified
                question, asserts = self._question(position, message, who)
                if who is None and _is_plain(message, raw):
                    self._plain.keep(raw, question)
            if asserts and not entitled:
                await self._gate.authorise(caller, ASSERT)
                entitled = True
            found.append(question)
        return found

    async def who(
        self, subject: decision_pb2.Subject, caller: Caller, *, action: str = ""
    ) -> VerifiedIdentity | AssertedIdentity | Refusal:
        """Return whom a message means: the caller itself, whom it may assert, or whose credential it shows for `action`."""
        _check_bound(subject)
        if subject.HasField("asserted"):
            await self._gate.authorise(caller, ASSERT)
            party, actors = _parties(subject.asserted)
            return AssertedIdentity(by=caller.identity, party=party, actors=actors)
        return self._known(subject, caller) or await self._verified(subject, action)

    async def attributes(self, message: Mapping[str, types_pb2.Value], caller: Caller) -> Attributes:
        """Return the request attributes of a message, each of which its caller may assert."""
        found, asserts = self._attributes(message)
        if asserts:
            await self._gate.authorise(caller, ASSERT)
        return found

    @staticmethod
    def _known(subject: decision_pb2.Subject, caller: Caller) -> VerifiedIdentity | None:
        """Return the caller, if a subject that is not asserted means it, by silence or by the credential it came with."""
        if subject.HasField("request"):
            return None  # a proof of its own is looked at, whoever shows it
        own = not subject.HasField("credential") or subject.credential == caller.authorization
        return caller.identity if own else None

    async def _verified(self, subject: decision_pb2.Subject, action: str) -> VerifiedIdentity | Refusal:
        locks, request = self._replica.world.locks, None
        if subject.HasField("request"):
            bound = subject.request
            request = BoundRequest(method=bound.method, uri=bound.url, proof=bound.proof or None)
        return await self._authenticator.authenticate(
            subject.credential, None, locks=locks, request=request, action=action
        )

    def nonce(self) -> str:
        """Return the nonce for the next DPoP proof of a subject; empty if none are issued."""
        return self._authenticator.nonce()

    def _question(
        self, position: int, message: decision_pb2.Question, who: VerifiedIdentity | None
    ) -> tuple[Question, bool]:
        """Return what a message asks of `who` (None: of whom it asserts), and whether only an asserter may ask it."""
        try:
            if who is not None:
                return self._own(message, who)
            return self._asserted(message), True
        except (BadRequestError, ValueError) as error:
            reason = error.reason if isinstance(error, PortcullisError) else Reason.BAD_REQUEST
            raise PortcullisError(reason, f"question {position}: {error}") from error

    def _asserted(self, message: decision_pb2.Question) -> Question:
        """Return what a message asks of whom it asserts."""
        party, actors = _parties(message.subject.asserted)
        workload, serves = message.workload, message.serves
        return Question(
            subject=party,
            actors=actors,
            action=Action.parse(message.action),
            resource=Resource.parse(message.resource),
            workload=Principal.parse(workload) if workload else None,
            serves=Resource.parse(serves) if serves else None,
            attributes=self._attributes(message.attributes)[0] if message.attributes else NO_ATTRIBUTES,
            claims=NO_ATTRIBUTES,
            credential=NO_FACTS,
            supports=None if message.supports_all else frozenset(message.supports),
        )

    def _own(self, message: decision_pb2.Question, who: VerifiedIdentity) -> tuple[Question, bool]:
        """Return what is asked of a verified identity: its access starts at its own workload, never at who asks for it."""
        start, serves = message.workload, message.serves
        workload = Principal.parse(start) if start else who.workload
        attributes, asserts = self._attributes(message.attributes) if message.attributes else (NO_ATTRIBUTES, False)
        question = Question(
            subject=who.party,
            actors=who.actors,
            action=Action.parse(message.action),
            resource=Resource.parse(message.resource),
            workload=workload,
            serves=Resource.parse(serves) if serves else None,
            attributes=attributes,
            claims=who.attributes,
            credential=who.facts,
            supports=None if message.supports_all else frozenset(message.supports),
        )
        return question, asserts or (bool(start) and workload != who.workload)

    def _attributes(self, message: Mapping[str, types_pb2.Value]) -> tuple[Attributes, bool]:
        """Return the attributes of a message, and whether one of them is only an asserter's to say."""
        if len(message) > MAX_ATTRIBUTES:
            raise BadRequestError(f"a question has at most {MAX_ATTRIBUTES} attributes")
        found: dict[str, Value] = {}
        asserts = False
        for name in message:
            kind, value = value_of(printable(name), message[name])
            asserts = self._reserved(name, kind) or asserts
            found[name] = value
        return found, asserts

    def _reserved(self, name: str, kind: AttributeType) -> bool:
        """Tell whether an attribute is only an asserter's to say; `decide` refuses one that nobody knows."""
        snapshot = self._replica.world.snapshot
        info = snapshot.vocabulary.attributes.get(name) if snapshot else None
        if info is None:
            return False
        if kind is not info.type:
            raise BadRequestError(f"attribute `{name}` must be of type {info.type.value}")
        if "caller" in info.asserted_by:
            return False
        if "enforcement_point" not in info.asserted_by:
            raise BadRequestError(f"attribute `{name}` cannot be asserted in a question")
        return True


def _parsed(position: int, raw: bytes) -> decision_pb2.Question:
    """Return the message in `raw`.

    Raises:
        BadRequestError: there is none.
    """
    try:
        return decision_pb2.Question.FromString(raw)
    except Exception as error:  # outermost boundary: the parser's own exceptions differ between backends
        raise BadRequestError(f"question {position}: not a message") from error


def _is_plain(message: decision_pb2.Question, raw: bytes) -> bool:
    """Tell whether `raw`, which asserts whom it is about, may be a key: it is short, and holds what the message says alone.

    A field that comes twice counts once, and one that nobody knows not at all: a credential could stand in bytes of which the
    message shows nothing.
    """
    if message.attributes or len(raw) > QUESTION_CACHE_BYTES:
        return False
    message.DiscardUnknownFields()
    return message.ByteSize() == len(raw)


def _check_bound(subject: decision_pb2.Subject) -> None:
    """Refuse a proof that comes with no credential to prove.

    Raises:
        BadRequestError: there is one.
    """
    if subject.HasField("request") and not subject.HasField("credential"):
        raise BadRequestError("a bound request belongs to a credential")


def _parties(message: decision_pb2.AssertedSubject) -> tuple[Party, tuple[Party, ...]]:
    """Return whom a message asserts, and the actors that it says act for it."""
    actors = tuple([party_of(actor.principal, actor.groups) for actor in message.actors]) if message.actors else ()
    return party_of(message.principal, message.groups), actors
