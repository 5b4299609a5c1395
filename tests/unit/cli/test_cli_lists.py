from collections.abc import Callable
from typing import Any

from scripted_pdp import ScriptedPdp

from pdp.v1 import decision_pb2 as pb

Pdp = Callable[..., Any]
WHO = "DecisionService/SearchSubjects"
WHAT = "DecisionService/SearchResources"
ACTIONS = "DecisionService/SearchActions"
DANA = pb.SearchEntry(
    subject="user:dana",
    action="dataset.read",
    resource="dataset/a",
    access=pb.ACCESS_ALLOW,
    determining=["grants.csv:6"],
    role_path=["user:dana", "role:data-scientist"],
)
TEAM = pb.SearchEntry(
    subject="group:team",
    action="dataset.write",
    resource="dataset/a",
    access=pb.ACCESS_CONDITIONAL,
    determining=["grants.csv:9"],
    depends_on=["request.purpose == 'x'"],
    sources=["workload:spiffe://d/ns/web/**"],
)
LIST = pb.SearchResponse(entries=[DANA, TEAM], total=2, world_seq=7)


def test_who_can_is_a_table_with_reasons(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script(WHO, LIST)
    ended = pdp("who-can", "dataset.read", "dataset/a")
    assert ended.code == 0
    assert ended.out.splitlines() == [
        "SUBJECT     ACCESS  IF                                                          BY",
        f"user:dana   allow{' ' * 63}grants.csv:6 (user:dana -> role:data-scientist)",
        "group:team  if      request.purpose == 'x'; from workload:spiffe://d/ns/web/**  grants.csv:9",
        "can dataset.read dataset/a: 1 allowed, 1 conditional, in world 7",
    ]


def test_what_can_and_actions_name_what(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script(WHAT, LIST)
    server.script(ACTIONS, LIST)
    ended = pdp("what-can", "user:bob", "--group", "group:g", "--workload", "none", "--env-attr", "purpose=x")
    assert ended.out.splitlines()[1].split()[:3] == ["dataset/a", "dataset.read", "allow"]
    (message,) = server.asked(WHAT)
    assert (message.subject.asserted.principal, list(message.subject.asserted.groups)) == ("user:bob", ["group:g"])
    assert (message.terms.workload, message.terms.attributes["request.purpose"].string_value) == ("none", "x")
    assert pdp("actions", "me", "dataset/a").out.splitlines()[1].split()[:2] == ["dataset.read", "allow"]
    assert server.asked(ACTIONS)[0].subject.WhichOneof("who") is None


def test_a_list_is_json_with_stable_keys(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script(WHO, LIST)
    told = pdp("who-can", "dataset.read", "dataset/a", "--json").json
    assert list(told) == ["world_seq", "entries"]
    assert list(told["entries"][0]) == [
        "subject", "action", "resource", "access", "depends_on", "sources", "rules", "role_path", "obligations",
    ]  # fmt: skip
    assert told["entries"][1]["access"] == "conditional"


def test_nobody_is_said_and_not_shown_as_an_empty_table(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script(WHO, pb.SearchResponse(world_seq=7))
    ended = pdp("who-can", "dataset.read", "dataset/a")
    assert (ended.code, ended.out) == (0, "can dataset.read dataset/a: 0 allowed, 0 conditional, in world 7\n")


def test_a_short_list_is_an_error(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script(WHO, pb.SearchResponse(entries=[DANA], total=2, world_seq=7))
    ended = pdp("who-can", "dataset.read", "dataset/a")
    assert ended.code == 1
    assert ended.out == ""


def test_groups_without_a_principal_are_refused(pdp: Pdp) -> None:
    assert pdp("what-can", "--group", "group:g").code == 2
