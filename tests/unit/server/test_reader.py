"""Messages to questions: the right to assert is looked at once for a batch, and again where the world may have moved on."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from pdp.errors import PortcullisError, Reason
from pdp.identity.types import Refusal
from pdp.model.names import Principal
from pdp.model.request import CredentialFacts, Party, Question
from pdp.replica import Replica
from pdp.server.callers import ASSERT, Caller, Gate, Right
from pdp.server.grpc.reader import Reader
from pdp.service.authenticate import Authenticator
from pdp.v1 import decision_pb2, types_pb2
from tests.support.worlds import make_world

BOB = decision_pb2.Subject(asserted=decision_pb2.AssertedSubject(principal="user:bob@x", groups=["group:a"]))
SPOILED = decision_pb2.Subject(credential="Bearer spoiled")


@dataclass
class Entitled:
    """A gate that lets callers assert as often as it is told to, and counts how often it was asked."""

    asked: list[Right] = field(default_factory=list)
    until: int = 1_000

    async def authorise(self, _caller: Caller, wanted: Right) -> None:
        self.asked.append(wanted)
        if len(self.asked) > self.until:
            raise PortcullisError(Reason.NO_GRANT, "not any more")


@dataclass
class Known:
    """An identity as the reader needs one: the real one can be made by `pdp.identity` alone."""

    party: Party = field(default_factory=lambda: Party(principal=Principal.parse("user:gate@x")))
    actors: tuple[Party, ...] = ()
    workload: Principal | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    facts: CredentialFacts = field(default_factory=CredentialFacts)


class Refusing:
    """An authenticator to whom no credential is good."""

    async def authenticate(self, *_: Any, **__: Any) -> Refusal:
        return Refusal(reason=Reason.TOKEN_MALFORMED)


@dataclass
class Held:
    world: Any = field(default_factory=lambda: make_world("p, role:a, dataset.read, dataset/**, dev, , , allow\n", {}))


def question(subject: decision_pb2.Subject | None = None, **fields: Any) -> decision_pb2.Question:
    asked = decision_pb2.Question(action="dataset.read", resource="dataset/a", supports_all=True, subject=subject)
    asked.MergeFrom(decision_pb2.Question(**fields))
    return asked


def reader_behind(gate: Entitled) -> Reader:
    return Reader(
        gate=cast("Gate", gate), authenticator=cast("Authenticator", Refusing()), replica=cast("Replica", Held())
    )


def read(gate: Entitled, *messages: decision_pb2.Question, by: Reader | None = None) -> list[Question | Refusal]:
    reader = by or reader_behind(gate)
    caller = Caller(identity=cast("Any", Known()), authorization="Bearer own")
    return asyncio.run(reader.read_many([message.SerializeToString() for message in messages], caller))


def test_the_right_to_assert_is_asked_for_once_in_a_batch() -> None:
    gate = Entitled()
    found = read(gate, *[question(BOB)] * 50)
    assert gate.asked == [ASSERT]
    assert {str(item.subject.principal) for item in found if isinstance(item, Question)} == {"user:bob@x"}
    assert len(found) == 50


def test_who_asks_for_itself_needs_no_right_to_assert() -> None:
    gate = Entitled()
    own = decision_pb2.Subject(credential="Bearer own")
    found = read(
        gate, question(), question(own), question(attributes={"request.purpose": types_pb2.Value(string_value="x")})
    )
    assert gate.asked == []
    assert {str(item.subject.principal) for item in found if isinstance(item, Question)} == {"user:gate@x"}


@pytest.mark.parametrize(
    "asked",
    [
        question(workload="workload:spiffe://t/other"),
        question(attributes={"request.n": types_pb2.Value(int_value=1)}),
        question(BOB),
    ],
)
def test_one_question_that_asserts_in_the_midst_of_others_is_not_overlooked(asked: decision_pb2.Question) -> None:
    with pytest.raises(PortcullisError) as refused:
        read(Entitled(until=0), question(), asked, question())
    assert refused.value.reason is Reason.NO_GRANT


def test_behind_a_credential_that_was_waited_for_the_right_is_looked_at_again() -> None:
    """The keys of its issuer may have taken seconds to come: in that time a lock may have met the caller."""
    with pytest.raises(PortcullisError) as refused:
        read(Entitled(until=1), question(BOB), question(SPOILED), question(BOB))
    assert refused.value.reason is Reason.NO_GRANT
    gate = Entitled()
    found = read(gate, question(BOB), question(SPOILED), question(BOB), question(BOB))
    assert [type(item) for item in found] == [Question, Refusal, Question, Question]
    assert len(gate.asked) == 2


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_no_record_could_hold_is_refused(number: float) -> None:
    asked = question(attributes={"request.x": types_pb2.Value(double_value=number)})
    with pytest.raises(PortcullisError, match=r"question 1: attribute `request.x` must be finite"):
        read(Entitled(), question(), asked)


def test_a_party_with_many_groups_is_the_same_party() -> None:
    groups = [f"group:g{n}" for n in range(40)]
    many = decision_pb2.Subject(asserted=decision_pb2.AssertedSubject(principal="user:bob@x", groups=groups))
    first, second = read(Entitled(), question(many), question(many))
    assert isinstance(first, Question)
    assert isinstance(second, Question)
    assert first.subject == second.subject == Party(principal=Principal.parse("user:bob@x"), groups=frozenset(groups))


ASKED = (
    question(BOB),
    question(BOB, action="dataset.write"),
    question(BOB, resource="dataset/b"),
    question(BOB, workload="workload:spiffe://t/a"),
    question(BOB, serves="model/a@1"),
    decision_pb2.Question(action="dataset.read", resource="dataset/a", subject=BOB),
    decision_pb2.Question(action="dataset.read", resource="dataset/a", subject=BOB, supports=["recheck_after"]),
    question(decision_pb2.Subject(asserted=decision_pb2.AssertedSubject(principal="user:bob@x"))),
    question(decision_pb2.Subject(asserted=decision_pb2.AssertedSubject(principal="user:eve@x", groups=["group:a"]))),
    question(
        decision_pb2.Subject(
            asserted=decision_pb2.AssertedSubject(
                principal="user:bob@x", groups=["group:a"], actors=[decision_pb2.AssertedActor(principal="agent:a")]
            )
        )
    ),
)
"""Questions of which each says something else than the others."""


def test_a_question_read_again_is_the_one_it_was_and_no_other() -> None:
    reader = reader_behind(Entitled())
    first, again = read(Entitled(), *ASKED, by=reader), read(Entitled(), *ASKED, by=reader)
    assert again == first == read(Entitled(), *ASKED)
    assert all(one is other for one, other in zip(first, again, strict=True))
    assert len({message.SerializeToString() for message in ASKED}) == len({repr(item) for item in first})


def test_a_question_that_is_known_still_needs_the_right_to_assert_it() -> None:
    gate = Entitled(until=1)
    reader = reader_behind(gate)
    read(gate, question(BOB), by=reader)
    with pytest.raises(PortcullisError) as refused:
        read(gate, question(BOB), by=reader)
    assert refused.value.reason is Reason.NO_GRANT


@pytest.mark.parametrize("raw", [b"\x0a", b"\xff\xff", question(BOB).SerializeToString()[:-1], b"\x12\x01\xff"])
def test_bytes_that_are_no_question_are_refused_with_their_place(raw: bytes) -> None:
    caller = Caller(identity=cast("Any", Known()), authorization="Bearer own")
    with pytest.raises(PortcullisError, match="question 1: not a message") as refused:
        asyncio.run(reader_behind(Entitled()).read_many([question().SerializeToString(), raw], caller))
    assert refused.value.reason is Reason.BAD_REQUEST


def test_what_callers_choose_does_not_choose_what_is_kept() -> None:
    """A credential is no key of a cache, an attribute is read with the vocabulary of its time, and length has a bound."""
    reader = reader_behind(Entitled())
    groups = [f"group:{'long' * 20}{n}" for n in range(8)]
    long = decision_pb2.Subject(asserted=decision_pb2.AssertedSubject(principal="user:bob@x", groups=groups))
    attributes = {"request.purpose": types_pb2.Value(string_value="x")}
    asked = (question(SPOILED), question(), question(long), question(BOB, attributes=attributes))
    found, again = read(Entitled(), *asked, by=reader), read(Entitled(), *asked, by=reader)
    assert [type(item) for item in found] == [Refusal, Question, Question, Question]
    assert not any(one is other for one, other in zip(found, again, strict=True))


@pytest.mark.parametrize(
    "raw",
    [
        question(SPOILED).SerializeToString() + question(BOB).SerializeToString(),
        decision_pb2.Question(action="Bearer spoiled").SerializeToString() + question(BOB).SerializeToString(),
        question(BOB).SerializeToString() + b"\xfa\x01\x0eBearer spoiled",
        question(BOB).SerializeToString() + b"\x0a\x12\x12\x10\xfa\x01\x0dBearer hidden",
    ],
    ids=["who is said twice", "a field comes twice", "a field that nobody knows", "one inside another"],
)
def test_bytes_that_hold_more_than_their_message_says_are_no_key(raw: bytes) -> None:
    """In them a credential could stand that no message shows."""
    reader = reader_behind(Entitled())
    caller = Caller(identity=cast("Any", Known()), authorization="Bearer own")
    found = asyncio.run(reader.read_many([raw], caller))
    assert found == read(Entitled(), question(BOB))
    assert len(reader._plain) == 0
    asyncio.run(reader.read_many([question(BOB).SerializeToString()], caller))
    assert len(reader._plain) == 1
