"""The SDK without its I/O: questions to messages, messages to decisions, refusals to typed errors.

`Client` and `AsyncClient` only carry these messages. So every rule that must hold for both stands here, once: names are
checked before they are sent; the highest `world_seq` seen is asked for again, so that a client never goes back in time
(FAILURE.md P5); and whatever we do not fully understand is a deny (P12, F28).
"""

import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

from google.protobuf.message import DecodeError, Message

from pdp.errors import BadNameError, BadRequestError, Reason
from pdp.limits import MAX_ATTRIBUTES, MAX_BATCH
from pdp.model import decision as model
from pdp.model.attributes import AttributeType, Value, check_value
from pdp.model.names import Action, Principal, Resource, check_grouping_name, printable
from pdp.sdk._settings import Settings
from pdp.sdk._trace import carried
from pdp.sdk.errors import BadQuestion, ClientUnusable, PdpError, PdpFault, error_class
from pdp.sdk.values import Asserted, AttributeValue, Bearer, Decision, Dpop, Question, Subject
from pdp.v1 import decision_pb2, types_pb2

Ask = TypeVar("Ask", bound=Message)
Told = TypeVar("Told", bound=Message)

ERROR_KEY: Final = "pdp-error-bin"
_REASONS: Final = {reason.value: reason for reason in Reason}
_EFFECTS: Final = {types_pb2.EFFECT_ALLOW: model.Effect.ALLOW}
"""What is no allow that we know is a deny."""
_EXACT_TYPES: Final = {
    bool: AttributeType.BOOL,
    int: AttributeType.INT,
    float: AttributeType.DOUBLE,
    str: AttributeType.STRING,
    tuple: AttributeType.LIST,
}


@dataclass(frozen=True, slots=True)
class Rpc(Generic[Ask, Told]):
    """One method of the PDP, as its transport needs it: the path and the two message types.

    `least_s`: a deadline below which it is not called, in seconds: what carries a whole policy takes longer than a question.
    """

    path: str
    ask: type[Ask]
    told: type[Told]
    least_s: float = 0.0


_SERVICE: Final = "/pdp.v1.DecisionService"
EVALUATE: Final = Rpc(f"{_SERVICE}/Evaluate", decision_pb2.EvaluateRequest, decision_pb2.EvaluateResponse)
EXPLAIN: Final = Rpc(f"{_SERVICE}/Explain", decision_pb2.EvaluateRequest, decision_pb2.EvaluateResponse)
BATCH: Final = Rpc(f"{_SERVICE}/EvaluateBatch", decision_pb2.EvaluateBatchRequest, decision_pb2.EvaluateBatchResponse)
WATCH: Final = Rpc(f"{_SERVICE}/Watch", decision_pb2.WatchRequest, decision_pb2.WatchResponse)
WHO_CAN: Final = Rpc(f"{_SERVICE}/SearchSubjects", decision_pb2.SearchSubjectsRequest, decision_pb2.SearchResponse)
WHAT_CAN: Final = Rpc(f"{_SERVICE}/SearchResources", decision_pb2.SearchResourcesRequest, decision_pb2.SearchResponse)
ACTIONS: Final = Rpc(f"{_SERVICE}/SearchActions", decision_pb2.SearchActionsRequest, decision_pb2.SearchResponse)


class Core:
    """What a client is between two calls: its settings, the highest world it has seen, and whether it may still be used."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._process = os.getpid()
        self._closed = False
        self._seen = 0
        self._lock = threading.Lock()

    @property
    def world_seq(self) -> int:
        """The highest world that any answer came from."""
        return self._seen

    @property
    def forked(self) -> bool:
        """True in a child of the process that made the client."""
        return os.getpid() != self._process

    def check_usable(self) -> None:
        """Refuse to use a channel that is gone or that belongs to our parent process.

        Raises:
            ClientUnusable: closed, or forked (FAILURE.md F31: gRPC's threads do not follow a fork; a call would hang).
        """
        if self.forked:
            raise ClientUnusable(
                Reason.BAD_REQUEST,
                "this client was made before a fork and cannot be used in the child process",
                advice="make the client in each worker, after the fork",
            )
        if self._closed:
            raise closed_error()

    @property
    def closed(self) -> bool:
        """True once the client was closed."""
        return self._closed

    def close(self) -> bool:
        """Mark the client closed; return True if the caller has to close the channel."""
        first = not self._closed and not self.forked
        self._closed = True
        return first

    def metadata(self, token: str | None = None) -> tuple[tuple[str, str], ...]:
        """Return what goes along with every call: our credential, read again each time unless it was read for this call."""
        shown = self.settings.read_token() if token is None else token
        return (*((("authorization", f"Bearer {shown}"),) if shown else ()), *carried())

    def seen(self, world_seq: int) -> None:
        """Remember that an answer, or a change of ours, came from world `world_seq`."""
        with self._lock:
            self._seen = max(self._seen, world_seq)

    # Questions.

    def message(self, question: Question) -> decision_pb2.Question:
        """Return the message that asks `question`.

        Raises:
            BadQuestion: a name, attribute or list that no PDP would accept; the message says where.
        """
        try:
            return _question(question)
        except (BadNameError, BadRequestError) as error:
            raise BadQuestion(error.reason, error.message) from error

    def ask(self, question: Question) -> decision_pb2.EvaluateRequest:
        """Return the message for Evaluate or Explain."""
        return decision_pb2.EvaluateRequest(question=self.message(question), at_least=self._seen)

    def ask_many(self, questions: Sequence[Question]) -> decision_pb2.EvaluateBatchRequest:
        """Return the message for EvaluateBatch."""
        if len(questions) > MAX_BATCH:
            raise BadQuestion(Reason.BAD_REQUEST, f"at most {MAX_BATCH} questions are asked at once")
        messages = [self.message(question) for question in questions]
        return decision_pb2.EvaluateBatchRequest(questions=messages, at_least=self._seen)

    # Answers.

    def answer(self, question: Question, at_least: int, message: decision_pb2.Decision) -> Decision:
        """Return the decision that `message` carries; an allow only if every part of it is understood."""
        decision = parse_decision(message, supports=question.supports, at_least=at_least)
        self.seen(decision.world_seq)
        return decision

    def answers(
        self, questions: Sequence[Question], at_least: int, message: decision_pb2.EvaluateBatchResponse
    ) -> tuple[Decision, ...]:
        """Return one decision for each question, in order.

        Raises:
            PdpFault: the PDP answered another number of questions, so that none can be told apart.
        """
        pairs = zip(questions, self.counted(message, len(questions)), strict=True)
        return tuple(self.answer(question, at_least, decision) for question, decision in pairs)

    def counted(self, message: decision_pb2.EvaluateBatchResponse, asked: int) -> Sequence[decision_pb2.Decision]:
        """Return the decisions in `message` if they are as many as were asked for.

        Raises:
            PdpFault: they are not.
        """
        if len(message.decisions) != asked:
            told = f"{asked} questions were asked and {len(message.decisions)} answered"
            raise PdpFault(Reason.INTERNAL_ERROR, told, advice="treat every access as denied; report this")
        return message.decisions


def closed_error() -> ClientUnusable:
    """Return what a closed client says."""
    return ClientUnusable(Reason.BAD_REQUEST, "this client is closed", advice="make a new one")


@dataclass(slots=True)
class Watching:
    """One watch over however many calls it takes: what was told last, and whether it is over."""

    core: Core
    question: Question
    ended: bool = field(default=False, init=False)
    pause: bool = field(default=False, init=False)
    _heard: bool = field(default=False, init=False)
    _at_least: int = field(default=0, init=False)
    _last: Decision | None = field(default=None, init=False)
    _cancel: Callable[[], object] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.core.check_usable()
        if isinstance(self.question.subject, Dpop):
            # A watch is opened again and again, and a proof is taken once.
            raise BadQuestion(Reason.BAD_REQUEST, "a DPoP proof is of one request and cannot be watched: check it")
        self.core.message(self.question)

    @property
    def begun(self) -> bool:
        """True once a decision is known: only then is it worth waiting for a connection."""
        return self._last is not None

    def open(self) -> decision_pb2.WatchRequest:
        """Return the message that opens the watch, or opens it again where the last call left off."""
        self._heard, self._at_least = False, self.core.world_seq
        return decision_pb2.WatchRequest(question=self.core.message(self.question), at_least=self._at_least)

    def hear(self, response: decision_pb2.WatchResponse) -> Decision | None:
        """Take one message; return the decision if it differs from the last one told."""
        self._heard = True
        self.ended = self.ended or response.ended
        decision = self.core.answer(self.question, self._at_least, response.decision)
        if self._last is not None and same_access(decision, self._last):
            return None
        self._last = decision
        return decision

    def calling(self, cancel: Callable[[], object]) -> None:
        """Take how the call under way is cancelled, for `stop`."""
        self._cancel = cancel
        if self.ended:
            cancel()

    def stop(self) -> None:
        """End the watch, from whatever thread."""
        self.ended = True
        if self._cancel is not None:
            self._cancel()

    def closed(self, error: PdpError | None = None) -> None:
        """Take the end of a call: return if the watch goes on with a new call or has ended, else raise.

        A call that told us something may be opened again; one that told nothing is the end of our knowledge.
        """
        if self.ended:
            return
        if not self._heard:
            raise error or call_error("UNAVAILABLE", server=self.core.settings.server, said="the watch told nothing")
        if error is not None and error.reason not in {Reason.PDP_UNREACHABLE, Reason.DEADLINE_EXCEEDED}:
            raise error
        self.pause = error is None or error.reason is Reason.PDP_UNREACHABLE


def same_access(one: Decision, other: Decision) -> bool:
    """Tell whether two answers mean the same to an access that runs: the id and number of the answer do not count."""
    return (one.effect, one.reason, one.obligations) == (other.effect, other.reason, other.obligations)


# Questions to messages.


def _question(question: Question) -> decision_pb2.Question:
    supports = question.supports
    return decision_pb2.Question(
        subject=subject_message(question.subject),
        action=Action.parse(question.action).text,
        resource=Resource.parse(question.resource).text,
        workload=Principal.parse(question.workload).text if question.workload else None,
        serves=Resource.parse(question.serves).text if question.serves else None,
        attributes=request_attributes(question.attributes) if question.attributes else None,
        supports=None if supports is None else _texts(supports, "supports"),
        supports_all=supports is None,
    )


def subject_message(subject: Subject) -> decision_pb2.Subject | None:
    if subject is None:
        # Unset, the subject is the caller, whose credential comes with the call. Repeated in the message, a token file
        # that rotates in between would make us two identities.
        return None
    if isinstance(subject, Bearer):
        return decision_pb2.Subject(credential=f"Bearer {subject.token.removeprefix('Bearer ')}")
    if isinstance(subject, Dpop):
        request = decision_pb2.BoundRequest(proof=subject.proof, method=subject.method, url=subject.url)
        return decision_pb2.Subject(credential=f"DPoP {subject.token.removeprefix('DPoP ')}", request=request)
    asserted = Asserted(principal=subject) if isinstance(subject, str) else subject
    return decision_pb2.Subject(asserted=_asserted(asserted))


def _asserted(asserted: Asserted) -> decision_pb2.AssertedSubject:
    actors = [
        decision_pb2.AssertedActor(principal=str(Principal.parse(actor.principal)), groups=_groups(actor.groups))
        for actor in asserted.actors
    ]
    principal = str(Principal.parse(asserted.principal))
    return decision_pb2.AssertedSubject(principal=principal, groups=_groups(asserted.groups), actors=actors)


def _groups(groups: Collection[str]) -> list[str]:
    names = _texts(groups, "groups")
    for name in names:
        check_grouping_name(name)
    return sorted(names)


def _texts(texts: Collection[str], what: str) -> list[str]:
    # A lone string is a collection of letters to Python, and never what the caller means.
    if isinstance(texts, str):
        raise BadRequestError(f"`{what}` is a list of names, not one text")
    return list(texts)


def request_attributes(attributes: Mapping[str, AttributeValue]) -> dict[str, types_pb2.Value]:
    """Return `request.*` attributes as they travel.

    Raises:
        BadRequestError: too many, a name without its prefix, or a value of another type or size.
    """
    if len(attributes) > MAX_ATTRIBUTES:
        raise BadRequestError(f"a question has at most {MAX_ATTRIBUTES} attributes")
    for name in attributes:
        if not name.startswith("request."):
            shown = printable(name)
            raise BadRequestError(f"`{shown}`: a caller asserts `request.` attributes only, such as `request.purpose`")
    return {name: value_message(name, value) for name, value in attributes.items()}


def value_message(name: str, value: AttributeValue) -> types_pb2.Value:
    """Return an attribute's value as it travels, of exactly the type it has in Python.

    Raises:
        BadRequestError: a type that no attribute has, or a value beyond its bounds.
    """
    if isinstance(value, datetime):
        return types_pb2.Value(timestamp_value=_instant(name, value))
    plain: Value = tuple(value) if isinstance(value, list) else value
    kind = _EXACT_TYPES.get(type(plain))
    if kind is None:
        raise BadRequestError(f"attribute `{printable(name)}` has no type that an attribute can have")
    check_value(name, plain, kind)
    if isinstance(plain, bool):
        return types_pb2.Value(bool_value=plain)
    if isinstance(plain, int):
        return types_pb2.Value(int_value=plain)
    if isinstance(plain, float):
        return types_pb2.Value(double_value=plain)
    if isinstance(plain, str):
        return types_pb2.Value(string_value=plain)
    return types_pb2.Value(list_value=types_pb2.StringList(items=plain))


def plain_value(message: types_pb2.Value) -> Value:
    """Return the value that `message` carries; an unset or unknown kind is an empty text."""
    kind = message.WhichOneof("kind")
    if kind is None:
        return ""
    if kind == "list_value":
        return tuple(message.list_value.items)
    value: Value = getattr(message, kind)
    return value


def _instant(name: str, value: datetime) -> str:
    if value.tzinfo is None:
        raise BadRequestError(f"attribute `{printable(name)}` is an instant without a time zone")
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


# Messages to decisions.


def parse_decision(
    message: decision_pb2.Decision, *, supports: Collection[str] | None = None, at_least: int = 0
) -> Decision:
    """Return the decision in `message`. Never raises, and allows only what is understood in every part (F28).

    Args:
        message: as it came; an unset one denies.
        supports: the obligations that the caller carries out; None: all.
        at_least: the number of the world we asked for.
    """
    reason = _reason(message.reason)
    decision = Decision(
        effect=_EFFECTS.get(message.effect, model.Effect.DENY),
        reason=reason or Reason.INTERNAL_ERROR,
        world_seq=message.world_seq,
        obligations=tuple([model.Obligation(name=duty.name, value=duty.value) for duty in message.obligations]),
        determining=tuple(message.determining),
        role_path=tuple(message.role_path),
        recheck_after_s=message.recheck_after_ms / 1000 if message.recheck_after_ms else None,
        nearest_miss=_nearest_miss(message),
        detail=message.detail,
        candidate=message.candidate,
        decision_id=message.decision_id,
        dpop_nonce=message.dpop_nonce,
    )
    problem = _doubt(message, decision, reason, supports, at_least)
    return decision if problem is None else _denied(decision, *problem)


def _doubt(
    message: decision_pb2.Decision,
    decision: Decision,
    reason: Reason | None,
    supports: Collection[str] | None,
    at_least: int,
) -> tuple[Reason, str] | None:
    """Say why an answer cannot be taken as it stands, or None."""
    if message.effect not in (types_pb2.EFFECT_DENY, types_pb2.EFFECT_ALLOW):
        return Reason.INTERNAL_ERROR, "the PDP answered with an effect this client does not know: upgrade the client"
    if reason is None:
        shown = printable(message.reason)
        return (
            Reason.INTERNAL_ERROR,
            f"the PDP answered with reason `{shown}`, unknown to this client: upgrade the client",
        )
    if decision.allowed != (reason is Reason.GRANTED):
        return Reason.INTERNAL_ERROR, f"the PDP answered {decision.effect.name.lower()} with reason `{reason}`"
    if decision.allowed and decision.world_seq < at_least:
        return Reason.WORLD_BEHIND, f"asked for world {at_least}, answered from {decision.world_seq}"
    undone = [] if supports is None else [str(duty) for duty in decision.obligations if duty.name not in supports]
    if decision.allowed and undone:
        return Reason.OBLIGATION_UNSUPPORTED, f"the caller does not carry out {', '.join(undone)}"
    return None


def _denied(decision: Decision, reason: Reason, detail: str) -> Decision:
    refused = decision.refused(reason, detail)
    return refused if isinstance(refused, Decision) else Decision(effect=model.Effect.DENY, reason=reason, world_seq=0)


def _reason(text: str) -> Reason | None:
    return _REASONS.get(text)


def _nearest_miss(message: decision_pb2.Decision) -> model.NearestMiss | None:
    if not message.HasField("nearest_miss"):
        return None
    miss = message.nearest_miss
    return model.NearestMiss(rule=miss.rule, failed=miss.failed, text=miss.text)


# Refusals to errors.

_WITHOUT_DETAIL: Final[dict[str, tuple[Reason, str]]] = {
    "INVALID_ARGUMENT": (Reason.BAD_REQUEST, "the PDP does not accept the message"),
    "UNAUTHENTICATED": (Reason.VERIFIER_ERROR, "the server refused our credential without saying why"),
    "PERMISSION_DENIED": (Reason.NO_GRANT, "the server does not permit this call"),
    "ABORTED": (Reason.CONFLICT, "another change came first"),
    "NOT_FOUND": (Reason.NOT_FOUND, "there is nothing of that name"),
    "FAILED_PRECONDITION": (Reason.POLICY_REFUSED, "the server refused the change"),
    "RESOURCE_EXHAUSTED": (Reason.BUDGET_EXCEEDED, "the message or the load is beyond the server's limits"),
    "UNAVAILABLE": (Reason.PDP_UNREACHABLE, "the PDP cannot be reached"),
    "DEADLINE_EXCEEDED": (Reason.DEADLINE_EXCEEDED, "the PDP did not answer in time"),
    "CANCELLED": (Reason.PDP_UNREACHABLE, "the call was cancelled"),
    "UNIMPLEMENTED": (Reason.PDP_UNREACHABLE, "the server does not know this call"),
}
_ADVICE: Final[dict[Reason, str]] = {
    Reason.PDP_UNREACHABLE: "check that `pdp serve` runs, its address, and the CA; `pdp doctor` looks at each",
    Reason.DEADLINE_EXCEEDED: "check the server's load, or give timeout_s",
}


def call_error(status: str, *, server: str, said: str = "", detail: bytes | None = None) -> PdpError:
    """Return the typed error for a call that failed.

    Args:
        status: the gRPC status' name.
        server: the address called, for the reader.
        said: the status' text; shown only for failures of the connection, which our own stack words.
        detail: `pdp-error-bin` from the trailing metadata.
    """
    refusal = _detail(detail)
    reason = _reason(refusal.reason)
    if reason is None or reason is Reason.GRANTED:
        return _bare_error(status, server=server, said=said, correlation_id=refusal.correlation_id)
    return error_class(reason)(
        reason,
        refusal.message or reason.value,
        advice=refusal.advice,
        correlation_id=refusal.correlation_id,
        findings=tuple(refusal.findings),
        head_seq=refusal.head_seq,
    )


def _bare_error(status: str, *, server: str, said: str, correlation_id: str) -> PdpError:
    unforeseen = (Reason.INTERNAL_ERROR, f"the PDP failed ({status.lower()})")
    reason, told = _WITHOUT_DETAIL.get(status, unforeseen)
    shown = f": {printable(said)}" if said and reason is Reason.PDP_UNREACHABLE else ""
    advice = _ADVICE.get(reason, "")
    return error_class(reason)(reason, f"{server}: {told}{shown}", advice=advice, correlation_id=correlation_id)


def _detail(raw: bytes | None) -> types_pb2.ErrorDetail:
    """Read the detail; a peer's garbage is no detail, never a crash."""
    try:
        return types_pb2.ErrorDetail.FromString(raw) if raw else types_pb2.ErrorDetail()
    except DecodeError:
        return types_pb2.ErrorDetail()


def find_detail(metadata: Iterable[Any] | None) -> bytes | None:
    """Return the value of `pdp-error-bin` among trailing metadata, if it is there."""
    for key, value in metadata or ():
        if key == ERROR_KEY and isinstance(value, bytes):
            return value
    return None
