from dataclasses import fields

import pytest

from pdp.audit import chain
from pdp.audit.record import decision_record, lost_record, one_line, opened_record, refusal_record, stream_record
from pdp.errors import Reason
from pdp.limits import MAX_ATTRIBUTE_BYTES, MAX_ATTRIBUTES, MAX_AUDIT_FIELD_BYTES, MAX_GROUPS
from pdp.model.decision import Decision, Effect, Obligation
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


def record(asked: Question, **changes: object) -> dict[str, object]:
    decision = Decision(
        effect=Effect.ALLOW,
        reason=Reason.GRANTED,
        world_seq=3,
        obligations=(Obligation(name="recheck_after", value="10s"),),
        determining=("grants.csv:6",),
    )
    values: dict[str, object] = {
        "decision_id": "d", "decision": decision, "question": asked, "digest": "sha256:x", "now_ms": 1,
        "staleness_ms": 2, "clock_off": False, "door": "grpc", "caller": "user:gate", "time_ms": 4,
    }  # fmt: skip
    return decision_record(**(values | changes))  # type: ignore[arg-type]


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
        "caller": "user:gate",
        "door": "grpc",
    }


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
