from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.audit import chain
from pdp.audit.record import (
    Circumstances,
    DecisionRecord,
    lost_record,
    one_line,
    opened_record,
    refusal_record,
    stream_record,
)
from pdp.errors import Reason
from pdp.limits import MAX_ATTRIBUTE_BYTES, MAX_ATTRIBUTES, MAX_AUDIT_FIELD_BYTES, MAX_GROUPS
from pdp.model.decision import Decision, Effect, Obligation, Settled
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import CredentialFacts, Party, Question


def question(**changes: object) -> Question:
    values: dict[str, object] = {
        "subject": Party(principal=Principal.parse("user:bob@x.org"), groups=frozenset({"group:b", "group:a"})),
        "action": Action.parse("model.download"),
        "resource": Resource.parse("model/fraud@7"),
        "actors": (Party(principal=Principal.parse("agent:etl")),),
        "workload": Principal.parse("workload:spiffe://x/apps/shop"),
        "attributes": {"request.purpose": "fraud", "request.outputs": ("a", "b")},
        "claims": {"subject.acr": "gold"},
        "credential": CredentialFacts(issuer="https://x", jti="t1", expires_at_s=9),
        "supports": frozenset({"mask"}),
    }
    return Question(**(values | changes))  # type: ignore[arg-type]


AROUND = Circumstances(now_ms=1, staleness_ms=2, clock_off=False, door="grpc", caller="user:gate", time_ms=4)


def record(asked: Question, **changes: object) -> DecisionRecord:
    decision = Decision(
        effect=Effect.ALLOW,
        reason=Reason.GRANTED,
        world_seq=3,
        obligations=(Obligation(name="recheck_after", value="10s"),),
        determining=("grants.csv:6",),
    )
    values: dict[str, object] = {
        "decision_id": "d", "decision": decision, "question": asked, "digest": "sha256:x", "around": AROUND,
    }  # fmt: skip
    return DecisionRecord(**(values | changes))  # type: ignore[arg-type]


def test_a_record_holds_all_that_replays_the_decision() -> None:
    made = record(question())
    assert made == {
        "v": 1,
        "kind": "decision",
        "time_ms": 4,
        "now_ms": 1,
        "staleness_ms": 2,
        "clock_off": False,
        "decision_id": "d",
        "world_seq": 3,
        "principal": "user:bob@x.org",
        "groups": ["group:a", "group:b"],
        "actors": [{"principal": "agent:etl", "groups": []}],
        "workload": "workload:spiffe://x/apps/shop",
        "action": "model.download",
        "resource": "model/fraud@7",
        "version": "7",
        "resource_digest": "sha256:x",
        "serves": "",
        "attributes": {"request.purpose": "fraud", "request.outputs": ["a", "b"]},
        "claims": {"subject.acr": "gold"},
        "credential": {"issuer": "https://x", "jti": "t1", "expires_at_s": 9},
        "supports": ["mask"],
        "effect": "allow",
        "reason": "granted",
        "determining": ["grants.csv:6"],
        "obligations": ["recheck_after=10s"],
        "detail": "",
        "candidate": "",
        "trace": "",
        "caller": "user:gate",
        "door": "grpc",
    }


TEXTS = st.text(max_size=12)
NAMES = st.sampled_from(["user:bob@x.org", "agent:etl", "workload:spiffe://x/apps/shop", "user:a+b=c/d:e!f"])
PRINCIPALS = NAMES.map(Principal.parse)
PARTIES = st.builds(
    Party, principal=PRINCIPALS, groups=st.frozensets(st.sampled_from(["group:a", "group:b/c", "group:z@1"]))
)
RESOURCES = st.sampled_from(["model/fraud@7", "dataset/a/b", "endpoint/x@sha256:" + "0" * 64]).map(Resource.parse)
VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
    st.lists(TEXTS, max_size=3).map(tuple),
)
ATTRIBUTES = st.dictionaries(TEXTS, VALUES, max_size=3)
QUESTIONS = st.builds(
    Question,
    subject=PARTIES,
    action=st.sampled_from(["model.download", "dataset.read_metadata"]).map(Action.parse),
    resource=RESOURCES,
    actors=st.lists(PARTIES, max_size=2).map(tuple),
    workload=st.none() | PRINCIPALS,
    serves=st.none() | RESOURCES,
    attributes=ATTRIBUTES,
    claims=ATTRIBUTES,
    credential=st.builds(CredentialFacts, issuer=TEXTS, jti=TEXTS, expires_at_s=st.integers(0, 2**40), serial=TEXTS),
    supports=st.none() | st.frozensets(TEXTS, max_size=3),
)
DECISIONS = st.builds(
    Decision,
    effect=st.sampled_from(Effect),
    reason=st.sampled_from(Reason),
    world_seq=st.integers(0, 2**53 - 1),
    obligations=st.lists(st.builds(Obligation, name=TEXTS, value=TEXTS), max_size=2).map(tuple),
    determining=st.lists(TEXTS, max_size=3).map(tuple),
    detail=TEXTS,
)
SURROUNDINGS = st.builds(
    Circumstances,
    now_ms=st.integers(0, 2**53 - 1),
    staleness_ms=st.integers(0, 2**53 - 1),
    clock_off=st.booleans(),
    door=TEXTS,
    caller=TEXTS,
    time_ms=st.integers(0, 2**53 - 1),
)


@given(asked=QUESTIONS, made=DECISIONS, around=SURROUNDINGS, decision_id=TEXTS, digest=TEXTS, n=st.integers(0, 2**53))
def test_a_record_that_writes_itself_writes_what_the_canonical_encoder_would(
    *, asked: Question, made: Decision, around: Circumstances, decision_id: str, digest: str, n: int
) -> None:
    """One value, one spelling: else a verifier, which re-encodes, would call an honest record forged."""
    written = DecisionRecord(decision_id=decision_id, decision=made, question=asked, digest=digest, around=around)
    after = chain.Link(n=n, digest="ab" * 32)
    content, link = chain.seal(written, after)
    assert (content, link) == chain.seal(written.plain(), after)
    settled = Settled(object(), made)
    for held in (digest, ""):  # the first writes what the second finds
        again = DecisionRecord(
            decision_id=decision_id, decision=made, question=asked, digest=held, around=around, settled=settled
        )
        assert chain.seal(again, after) == (content, link)
    assert chain.unseal(content, after) == (
        {**written.plain(), "n": n + 1, "prev": after.digest, "digest": link.digest},
        link,
    )


@pytest.mark.holds("S9")
def test_what_could_be_a_token_has_no_place_in_a_record() -> None:
    assert {field.name for field in fields(CredentialFacts)} == {
        "issuer", "jti", "session", "issued_at_s", "expires_at_s", "fingerprint",
        "certificate_issuer", "serial", "account_uid", "pod_uid",
    }  # fmt: skip


def test_a_record_holds_everything_of_a_credential_that_a_lock_can_match() -> None:
    every = {fact.name: 7 if fact.name.endswith("_s") else "x" for fact in fields(CredentialFacts)}
    assert record(question(credential=CredentialFacts(**every)))["credential"] == every  # type: ignore[arg-type]


def test_attributes_beyond_their_share_stand_by_their_digest() -> None:
    large = {f"request.a{n}": "x" * MAX_ATTRIBUTE_BYTES for n in range(MAX_ATTRIBUTES)}
    made = record(question(attributes=large))["attributes"]
    other = record(question(attributes=large | {"request.a0": "y"}))["attributes"]
    assert isinstance(made, dict)
    assert set(made) == {"sha256"}
    assert made != other
    fitting = {"request.a": "x" * (MAX_AUDIT_FIELD_BYTES - 100)}
    assert record(question(attributes=fitting))["attributes"] == fitting


def test_the_largest_question_fits_a_record() -> None:
    groups = frozenset(f"group:{n:0128}" for n in range(MAX_GROUPS))
    party = Party(principal=Principal.parse("user:bob@x.org"), groups=groups)
    content, _ = chain.seal(record(question(subject=party, actors=(party,) * 4)), chain.START)
    assert chain.unseal(content, chain.START)


def test_a_refusal_has_the_fields_of_a_decision() -> None:
    made = refusal_record(
        decision_id="d", reason=Reason.TOKEN_EXPIRED, detail="x\ny", door="grpc", action="", resource="", caller="",
        world_seq=1, time_ms=1,
    )  # fmt: skip
    assert set(made) == set(record(question()))
    assert (made["effect"], made["reason"], made["detail"]) == ("deny", "token_expired", "x\\ny")


def test_a_note_cannot_rewrite_what_it_is_about() -> None:
    made = stream_record(
        decision_id="d", event="cut", world_seq=1, time_ms=1, fields={"decision_id": "other", "bytes": 3, "why": {1, 2}}
    )
    assert (made["decision_id"], made["kind"], made["bytes"], made["why"]) == ("d", "stream", 3, [1, 2])


def test_every_kind_of_record_can_be_sealed() -> None:
    link = chain.START
    made = [
        opened_record(chain="pdp-1", reason="start", time_ms=1, who={"identity": "x\n", "world_seq": 1}),
        record(question()),
        stream_record(decision_id="d", event="cut", world_seq=1, time_ms=1, fields={"path": object()}),
        lost_record(time_ms=1, count=3),
    ]
    for item in made:
        content, link = chain.seal(item, link)
        assert content.decode("ascii").isprintable()
    assert link.n == 4


@pytest.mark.holds("N8", "adv_log_injection")
def test_one_record_is_one_printable_line() -> None:
    assert one_line("a\nb\x7f\x85\u2028\u202e") == "a\\nb\\x7f\\x85\\u2028\\u202e"
    assert one_line("grün") == "grün"
