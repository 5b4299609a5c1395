import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.audit.chain import START, seal, unseal
from pdp.audit.record import Circumstances, DecisionRecord, refusal_record, stream_record
from pdp.audit.replay import NO_QUESTION, Logged, Lost, Said, logged
from pdp.errors import Reason
from pdp.limits import MAX_AUDIT_FIELD_BYTES
from pdp.model.decision import Decision, Effect, Obligation
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import CredentialFacts, Party, Question

NAMES = st.text("abc-.", min_size=1, max_size=8).map(lambda text: f"a{text}z")
GROUPS = st.frozensets(NAMES.map(lambda name: f"group:{name}"), max_size=3)
PARTIES = st.builds(Party, principal=NAMES.map(lambda name: Principal.parse(f"user:{name}")), groups=GROUPS)
VALUES = st.one_of(
    st.booleans(), st.integers(-9, 9), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5),
    st.lists(st.text(max_size=4), max_size=3).map(tuple),
)  # fmt: skip
FACTS = st.builds(
    CredentialFacts,
    issuer=st.text(max_size=5), jti=st.text(max_size=5), session=st.text(max_size=5), issued_at_s=st.integers(0, 9),
    expires_at_s=st.integers(0, 9), fingerprint=st.text(max_size=3), certificate_issuer=st.text(max_size=3),
    serial=st.text(max_size=3), account_uid=st.text(max_size=3), pod_uid=st.text(max_size=3),
)  # fmt: skip
QUESTIONS = st.builds(
    Question,
    subject=PARTIES,
    action=st.sampled_from([Action.parse("model.download"), Action.parse("dataset.read")]),
    resource=st.sampled_from([Resource.parse("model/fraud@7"), Resource.parse("dataset/pii/people")]),
    actors=st.lists(PARTIES, max_size=2).map(tuple),
    workload=st.none() | st.just(Principal.parse("workload:spiffe://x.org/ns/web")),
    serves=st.none() | st.just(Resource.parse("model/fraud@6")),
    attributes=st.dictionaries(NAMES.map(lambda name: f"request.{name}"), VALUES, max_size=3),
    claims=st.dictionaries(NAMES.map(lambda name: f"subject.{name}"), VALUES, max_size=2),
    credential=FACTS,
    supports=st.none() | st.frozensets(NAMES, max_size=2),
)
DECISION = Decision(
    effect=Effect.ALLOW,
    reason=Reason.GRANTED,
    world_seq=3,
    obligations=(Obligation(name="recheck_after", value="10s"),),
    determining=("grants.csv:6", "segmentation.csv:2"),
)
AROUND = Circumstances(now_ms=11, staleness_ms=250, clock_off=True, door="grpc", caller="user:gate", time_ms=12)


def sealed(question: Question) -> dict[str, object]:
    record = DecisionRecord(decision_id="d1", decision=DECISION, question=question, digest="", around=AROUND)
    content, _ = seal(record, START)
    return unseal(content)[0]


@given(QUESTIONS)
def test_a_record_gives_back_the_question_and_the_moment_it_was_made_of(question: Question) -> None:
    told = logged(sealed(question))
    assert told == Logged("d1", question, 11, AROUND.clock_off, 0.25, 3, Said.of(DECISION))
    # Equal is not the same here: 1, 1.0 and True are equal, and a condition tells them apart.
    assert isinstance(told, Logged)
    for held, asked in ((told.question.attributes, question.attributes), (told.question.claims, question.claims)):
        assert {name: type(value) for name, value in held.items()} == {
            name: type(value) for name, value in asked.items()
        }


def asked() -> Question:
    return Question(
        subject=Party(principal=Principal.parse("user:bob")),
        action=Action.parse("model.download"),
        resource=Resource.parse("model/fraud@7"),
    )


def test_a_refusal_before_there_was_a_question_has_nothing_to_replay() -> None:
    record = refusal_record(
        decision_id="d", reason=Reason.TOKEN_EXPIRED, detail="", door="grpc", action="x\ny", resource="", caller="",
        world_seq=1, time_ms=1,
    )  # fmt: skip
    assert logged(record) == Lost(NO_QUESTION)


def test_other_records_are_no_decisions() -> None:
    assert logged(stream_record(decision_id="d", event="cut", world_seq=1, time_ms=1, fields={})) is None


def test_attributes_of_which_only_a_digest_was_kept_cannot_be_decided_on_again() -> None:
    question = Question(
        subject=asked().subject, action=asked().action, resource=asked().resource,
        attributes={f"request.{number}": "x" * 1000 for number in range(1 + MAX_AUDIT_FIELD_BYTES // 1000)},
    )  # fmt: skip
    told = logged(sealed(question))
    assert isinstance(told, Lost)
    assert "digest" in told.why


@pytest.mark.parametrize(
    "spoiled",
    [
        {"principal": "bob"}, {"principal": 7}, {"groups": "x"}, {"groups": [7]}, {"actors": [7]}, {"action": None},
        {"resource": "a b"}, {"now_ms": "1"}, {"world_seq": True}, {"credential": {"token": "x"}}, {"attributes": {"a": {}}},
        {"attributes": [1]}, {"supports": 7}, {"staleness_ms": None}, {"determining": None},
    ],
)  # fmt: skip
def test_a_record_of_another_shape_is_told_and_never_decided(spoiled: dict[str, object]) -> None:
    assert isinstance(logged(sealed(asked()) | spoiled), Lost)


def test_a_record_without_a_field_is_told() -> None:
    record = sealed(asked())
    for name in json.loads(json.dumps(record)):
        if name in {"claims", "credential", "obligations", "reason", "clock_off", "decision_id"}:
            assert isinstance(logged({key: value for key, value in record.items() if key != name}), Lost), name
