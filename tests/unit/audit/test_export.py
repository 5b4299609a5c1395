import json

import pytest

from pdp.audit.export import Mask, masked, ocsf
from pdp.audit.record import refusal_record
from pdp.errors import Reason

KEY = b"k" * 32
RECORD = {
    "v": 1, "kind": "decision", "n": 7, "digest": "d" * 64, "time_ms": 50, "now_ms": 50, "staleness_ms": 1, "clock_off": False,
    "decision_id": "d1", "world_seq": 3, "effect": "allow", "principal": "user:bob@x.org", "groups": ["group:fraud"],
    "actors": [{"principal": "agent:etl", "groups": ["group:bots"]}], "workload": "workload:spiffe://x/web",
    "action": "dataset.read", "resource": "dataset/pii/people@3", "version": "3", "resource_digest": "sha256:1", "serves": "",
    "attributes": {"request.purpose": "bob@x.org wishes"}, "claims": {"subject.acr": "gold"},
    "credential": {"jti": "token-of-bob"}, "supports": None, "reason": "granted", "determining": ["grants.csv:6"],
    "obligations": ["mask=email"], "detail": "about bob@x.org", "caller": "user:gate@x.org", "door": "grpc",
}  # fmt: skip


def test_an_event_has_what_its_class_and_profile_require() -> None:
    event = ocsf(RECORD, "pdp-1")
    assert (event["class_uid"], event["category_uid"], event["type_uid"]) == (6003, 6, 600302)
    assert (event["activity_id"], event["activity_name"]) == (2, "Read")
    assert (event["action_id"], event["disposition_id"], event["status_id"]) == (1, 1, 1)
    assert event["metadata"]["profiles"] == ["security_control"]
    assert event["actor"]["user"]["uid"] == "user:bob@x.org"
    assert event["api"]["operation"] == "dataset.read"
    assert event["src_endpoint"] == {"name": "workload:spiffe://x/web"}
    assert event["resources"] == [
        {"uid": "dataset/pii/people@3", "name": "dataset/pii/people", "type": "dataset", "version": "3"}
    ]
    assert event["authorizations"] == [{"decision": "allow", "policy": {"uid": "grants.csv:6"}}]


@pytest.mark.parametrize(
    ("action", "activity"),
    [("endpoint.invoke", (99, "invoke")), ("model.register", (1, "Create")), ("", (0, "Unknown"))],
)
def test_a_verb_is_one_of_the_four_activities_or_tells_its_own_name(action: str, activity: tuple[int, str]) -> None:
    event = ocsf(RECORD | {"action": action}, "pdp-1")
    assert (event["activity_id"], event["activity_name"]) == activity
    assert event["type_uid"] == 600300 + activity[0]


def test_a_deny_is_denied_and_blocked() -> None:
    event = ocsf(RECORD | {"effect": "deny", "reason": "no_grant"}, "pdp-1")
    assert (event["action_id"], event["disposition_id"], event["status_id"], event["status_code"]) == (
        2,
        2,
        2,
        "no_grant",
    )


def test_a_refusal_without_a_question_is_an_event_too() -> None:
    record = refusal_record(
        decision_id="d", reason=Reason.TOKEN_EXPIRED, detail="", door="http", action="", resource="", caller="",
        world_seq=1, time_ms=1,
    )  # fmt: skip
    event = ocsf(record | {"n": 1, "digest": ""}, "pdp-1")
    assert event["actor"]["user"]["uid"] == "unknown"
    assert event["src_endpoint"] == {"name": "http"}


def test_no_name_and_no_value_is_left_where_it_is_masked() -> None:
    text = json.dumps(ocsf(masked(RECORD, set(Mask), KEY), "pdp-1"))
    for hidden in ("bob", "gate@", "fraud", "etl", "bots", "spiffe", "gold", "token-of-bob", "wishes"):
        assert hidden not in text
    for shown in ("request.purpose", "dataset/pii/people", "grants.csv:6", "user:masked-", "agent:masked-"):
        assert shown in text


def test_a_pseudonym_follows_the_name_and_the_key_alone() -> None:
    one, two = (masked(RECORD | {"caller": "user:bob@x.org"}, {Mask.PRINCIPALS}, key) for key in (KEY, b"j" * 32))
    assert one["principal"] == one["caller"] != two["principal"]
    assert masked(RECORD, set(), KEY) == RECORD
