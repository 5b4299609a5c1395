import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from scripted_pdp import ScriptedPdp, refusal

import pdp as package
from pdp.cli import output
from pdp.v1 import asset_pb2, audit_pb2, lock_pb2, policy_pb2, replication_pb2, types_pb2

Pdp = Callable[..., Any]

MODEL = """\
[request_definition]
r = sub, act, obj
[policy_definition]
p = sub, act, obj
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.sub == p.sub
"""


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    directory = tmp_path / "pack"
    (directory / "tests").mkdir(parents=True)
    (directory / "model.conf").write_text(MODEL)
    (directory / "grants.csv").write_text("p, a, b, c\n")
    (directory / "tests" / "one.yaml").write_text("[]\n")
    (directory / ".hidden").write_text("no part of it")
    return directory


# Policy.


def test_policy_apply_sends_the_pack_and_makes_it_live(pdp: Pdp, server: ScriptedPdp, pack: Path) -> None:
    proposed = policy_pb2.ProposeResponse(
        rows_added=2, rows_removed=1, base_seq=3, warnings=["w:1:1"], world_seq=4, revision="r"
    )
    server.script("PolicyService/Propose", proposed)
    ended = pdp("policy", "apply", pack, "-m", "why", "--json")
    assert (ended.code, ended.json["world_seq"], ended.json["revision"]) == (0, 4, "r")
    sent = server.asked("PolicyService/Propose")[0]
    assert {file.path: file.content for file in sent.files} == {
        "grants.csv": b"p, a, b, c\n",
        "model.conf": MODEL.encode(),
        "tests/one.yaml": b"[]\n",
    }
    assert (sent.message, sent.activate) == ("why", True)
    told = pdp("policy", "apply", pack).out
    assert "live in world 4: 2 rows added, 1 removed" in told
    assert "w:1:1" in told


def test_a_refused_pack_is_told_with_every_finding(pdp: Pdp, server: ScriptedPdp, pack: Path) -> None:
    findings = ["grants.csv:6:3: PC112 wrong_arity: a", "grants.csv:9:1: PC101 unknown_effect: b"]
    server.script(
        "PolicyService/Propose", refusal(grpc.StatusCode.FAILED_PRECONDITION, "policy_refused", findings=findings)
    )
    ended = pdp("policy", "apply", pack)
    assert ended.code == 2
    assert ended.err.splitlines()[:2] == findings


def test_a_lost_race_is_exit_code_6(pdp: Pdp, server: ScriptedPdp, pack: Path) -> None:
    server.script("PolicyService/Propose", refusal(grpc.StatusCode.ABORTED, "conflict", head_seq=9))
    assert pdp("policy", "apply", pack).code == 6


def test_a_change_that_waits_for_approval_is_exit_code_8(pdp: Pdp, server: ScriptedPdp, pack: Path) -> None:
    waits = policy_pb2.ProposeResponse(proposal_id="p17", rows_added=1, approvals_needed=2, digest="d" * 64)
    server.script("PolicyService/Propose", waits)
    ended = pdp("policy", "apply", pack)
    assert ended.code == 8
    assert "proposal p17 waits for 2 approvals: 1 row added, 0 removed" in ended.out
    assert pdp("policy", "propose", pack, "--json").json["digest"] == "d" * 64
    assert [sent.activate for sent in server.asked("PolicyService/Propose")] == [True, False]


def test_what_waits_is_listed_with_who_wrote_and_approved_it(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script("PolicyService/Get", policy_pb2.GetPolicyResponse(revision="r", world_seq=3))
    waiting = policy_pb2.Proposal(
        id="p17", authors=["user:ada", "agent:bot"], approved_by=["user:eve"], rows_added=2, message="why"
    )
    server.script("PolicyService/ListProposals", policy_pb2.ListProposalsResponse(proposals=[waiting]))
    server.script("PolicyService/ListTrials", policy_pb2.ListTrialsResponse())
    told = pdp("policy", "status").out
    assert "user:ada through agent:bot" in told
    assert pdp("policy", "status", "--json").json["proposals"][0]["approved_by"] == ["user:eve"]


def test_an_approval_names_the_change_that_is_there(pdp: Pdp, server: ScriptedPdp) -> None:
    one = policy_pb2.Proposal(id="p17", digest="d" * 64)
    server.script("PolicyService/ListProposals", policy_pb2.ListProposalsResponse(proposals=[one]))
    server.script("PolicyService/Approve", policy_pb2.ApproveResponse(world_seq=5, approved_by=["user:eve"]))
    assert "approved by user:eve" in pdp("policy", "approve", "p17", "-m", "fine").out
    assert pdp("policy", "approve", "p17", "--digest", "e" * 64).code == 0
    assert [(sent.digest, sent.message) for sent in server.asked("PolicyService/Approve")] == [
        ("d" * 64, "fine"),
        ("e" * 64, ""),
    ]


def test_the_past_of_the_policy(pdp: Pdp, server: ScriptedPdp) -> None:
    past = policy_pb2.Revision(seq=4, authors=["user:ada"], approved_by=["user:eve"], message="why", rows_added=1)
    row = policy_pb2.PolicyRow(id="grants.csv:6", section="g", fields=["user:mia", "role:app", "prod"])
    server.script("PolicyService/ListRevisions", policy_pb2.ListRevisionsResponse(revisions=[past]))
    blamed = policy_pb2.BlamedRow(row=row, revision=past)
    server.script("PolicyService/Blame", policy_pb2.BlameResponse(rows=[blamed]))
    assert "user:ada  user:eve     +1 -0  why" in pdp("policy", "log").out
    assert "grants.csv:6  g, user:mia, role:app, prod  4" in pdp("policy", "blame", "role:app").out
    assert "user:mia" not in pdp("policy", "blame", "role:other").out


def test_a_rollback_is_a_change_like_any_other(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script("PolicyService/Propose", policy_pb2.ProposeResponse(world_seq=9, revision="r"))
    assert "live in world 9" in pdp("policy", "rollback", "4").out
    sent = server.asked("PolicyService/Propose")[0]
    assert (sent.restore_seq, sent.message, sent.activate) == (4, "back to entry 4", True)


def test_policy_show(pdp: Pdp, server: ScriptedPdp) -> None:
    row = policy_pb2.PolicyRow(id="grants.csv:6", section="p", fields=["role:app", "endpoint.invoke"])
    server.script("PolicyService/Get", policy_pb2.GetPolicyResponse(revision="r", world_seq=3, rows=[row]))
    assert "grants.csv:6  p, role:app, endpoint.invoke" in pdp("policy", "show").out
    assert pdp("policy", "show", "--json").json["rows"][0]["fields"] == ["role:app", "endpoint.invoke"]


@pytest.mark.parametrize("command", ["lint", "test", "apply"])
def test_a_pack_that_is_not_there_is_named(pdp: Pdp, server: ScriptedPdp, tmp_path: Path, command: str) -> None:
    ended = pdp("policy", command, tmp_path / "gone")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "gone is not a directory" in ended.err
    (tmp_path / "empty").mkdir()
    assert "empty" in pdp("policy", command, tmp_path / "empty").err
    assert server.calls == []


SHIPPED = Path(package.__file__).parent.parent / "policies"


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """Return a copy of the pack we ship."""
    return shutil.copytree(SHIPPED, tmp_path / "shipped")


def test_the_shipped_pack_is_clean_and_passes_its_tests(pdp: Pdp) -> None:
    assert pdp("policy", "lint", SHIPPED).code == 0
    ended = pdp("policy", "test", SHIPPED, "--json")
    assert ended.code == 0
    assert ended.json
    assert all(result["passed"] for result in ended.json)


def test_lint_reports_every_finding_with_its_place(pdp: Pdp, shipped: Path) -> None:
    (shipped / "extra.csv").write_text("p, too, short\nq, nonsense\n")
    ended = pdp("policy", "lint", shipped)
    assert ended.code == 2
    assert "extra.csv:1:" in ended.out
    assert "extra.csv:2:" in ended.out
    assert ended.out.endswith("2 errors, 0 warnings: refused\n")
    found = pdp("policy", "lint", shipped, "--json").json
    assert found["refused"] is True
    assert set(found["findings"][0]) == {"file", "line", "column", "code", "name", "message", "severity"}


def test_tests_of_a_refused_pack_are_not_run(pdp: Pdp, shipped: Path) -> None:
    (shipped / "extra.csv").write_text("p, too, short\n")
    ended = pdp("policy", "test", shipped)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("extra.csv:1:")


def test_a_failing_test_of_a_pack_says_what_it_wanted(pdp: Pdp, shipped: Path) -> None:
    ask = "{subject: user:nobody@example.com, action: dataset.read, resource: dataset/x}"
    wrong = f"- name: nobody reads\n  ask: {ask}\n  want: {{effect: allow}}\n"
    (shipped / "tests" / "wrong.yaml").write_text(wrong)
    ended = pdp("policy", "test", shipped)
    assert ended.code == 2
    assert "tests/wrong.yaml:1: nobody reads\n    wanted allow\n    got    deny" in ended.out


# Assets.


def test_asset_register_sends_typed_attributes(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script("AssetService/Register", asset_pb2.RegisterResponse(world_seq=5))
    ended = pdp(
        *("asset", "register", "model/fraud@7", "--environment", "prod", "--segment", "segment:serving"),
        *("--set", "signature_verified=true", "--set", 'approvals=["ana", "eve"]', "--set", "owner=ml", "--json"),
    )
    assert (ended.code, ended.json) == (0, {"name": "model/fraud@7", "world_seq": 5})
    sent = server.asked("AssetService/Register")[0].assets[0]
    assert sent.attributes["signature_verified"].bool_value is True
    assert list(sent.attributes["approvals"].list_value.items) == ["ana", "eve"]
    assert (sent.attributes["environment"].string_value, sent.attributes["owner"].string_value) == ("prod", "ml")
    assert "sensitivity" not in sent.attributes


@pytest.mark.parametrize(
    "options",
    [
        ("model/fraud", "--environment", "live"),
        ("fraud", "--environment", "prod"),
        ("model/fraud", "--environment", "prod", "--set", "segment=x"),
        ("model/fraud", "--environment", "prod", "--set", "owner"),
    ],
)
def test_a_malformed_asset_is_not_sent(pdp: Pdp, server: ScriptedPdp, options: tuple[str, ...]) -> None:
    ended = pdp("asset", "register", *options)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert server.calls == []


def test_asset_list(pdp: Pdp, server: ScriptedPdp) -> None:
    attributes = {"environment": types_pb2.Value(string_value="prod"), "signed": types_pb2.Value(bool_value=True)}
    listed = asset_pb2.Asset(name="model/fraud@7", attributes=attributes)
    server.script("AssetService/List", asset_pb2.ListAssetsResponse(assets=[listed]))
    told = pdp("asset", "list", "model/**").out.splitlines()
    assert told[0].split() == ["NAME", "ENVIRONMENT", "SEGMENT", "SENSITIVITY", "FURTHER", "ATTRIBUTES"]
    assert told[1].split() == ["model/fraud@7", "prod", "signed=true"]
    expected = [{"name": "model/fraud@7", "attributes": {"environment": "prod", "signed": True}}]
    assert pdp("asset", "list", "--json").json == expected
    assert [ask.pattern for ask in server.asked("AssetService/List")] == ["model/**", ""]


def test_asset_list_tells_what_is_due_for_review(pdp: Pdp, server: ScriptedPdp) -> None:
    def dated(name: str, date: str) -> asset_pb2.Asset:
        return asset_pb2.Asset(name=name, attributes={"review_date": types_pb2.Value(string_value=date)})

    listed = [asset_pb2.Asset(name="model/plain")]
    listed += [dated("model/old", "2000-01-01T00:00:00Z"), dated("model/new", "9999-01-01T00:00:00Z")]
    server.script("AssetService/List", asset_pb2.ListAssetsResponse(assets=listed))
    told = pdp("asset", "list").out.splitlines()
    assert len(told) == 5
    assert told[-1] == "1 asset is due for review: `pdp asset list --due`"
    assert [asset["name"] for asset in pdp("asset", "list", "--due", "--json").json] == ["model/old"]


# Locks.


def locked(*missing: str) -> lock_pb2.LockResponse:
    target = lock_pb2.LockTarget(principal="user:mallory@example.com")
    made = lock_pb2.Lock(
        id="l-1", target=target, reason="stolen", source="user:ada", world_seq=8, start_ms=1_800_000_000_000
    )
    receipt = lock_pb2.Receipt(world_seq=8, connected=2, holding=2 - len(missing), missing=missing, slowest_ms=41.6)
    return lock_pb2.LockResponse(lock=made, receipt=receipt)


ADD = ("lock", "add", "user:mallory@example.com", "--reason", "stolen")


def test_lock_add_tells_who_enforces_it(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script("LockService/Lock", locked())
    told = pdp(*ADD, "--wait", "all").out
    assert "LOCKED user:mallory@example.com" in told
    assert "2 of 2 connected enforcement points, the slowest after 42 ms" in told
    ended = pdp(*ADD, "--json")
    assert ended.json["lock"]["id"] == "l-1"
    assert ended.json["lock"]["start_ms"] == 1_800_000_000_000
    assert (ended.json["receipt"]["holding"], ended.json["receipt"]["connected"]) == (2, 2)
    assert [ask.wait_all for ask in server.asked("LockService/Lock")] == [True, False]


def test_a_wait_that_did_not_reach_all_is_no_success(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script("LockService/Lock", locked("workload:late"))
    ended = pdp(*ADD, "--wait", "all")
    assert ended.code == 5
    assert "workload:late" in ended.out
    assert pdp(*ADD).code == 0


def test_lock_for_a_while(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script("LockService/Lock", locked())
    before_ms = time.time() * 1000
    pdp(*ADD, "--for", "1h")
    pdp(*ADD)
    bounded, unbounded = server.asked("LockService/Lock")
    assert 0 <= bounded.end_ms - before_ms - 3_600_000 < 60_000
    assert unbounded.end_ms == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("lock", "add", "mallory", "--reason", "x"),
        ("lock", "add", "resource:a", "--reason", "x"),
        (*ADD, "--for", "soon"),
        (*ADD, "--for", "0h"),
        (*ADD, "--wait", "some"),
    ],
)
def test_a_malformed_lock_is_not_sent(pdp: Pdp, server: ScriptedPdp, arguments: tuple[str, ...]) -> None:
    ended = pdp(*arguments)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert server.calls == []


def test_lock_list_and_remove(pdp: Pdp, server: ScriptedPdp) -> None:
    server.script("LockService/List", lock_pb2.ListLocksResponse(locks=[locked().lock]))
    server.script(
        "LockService/Unlock", lock_pb2.UnlockResponse(world_seq=9), refusal(grpc.StatusCode.NOT_FOUND, "not_found")
    )
    assert "user:mallory@example.com  stolen  user:ada  2027-01-15 08:00:00Z" in pdp("lock", "list").out
    assert pdp("lock", "list", "--json").json[0]["target"]["principal"] == "user:mallory@example.com"
    assert pdp("lock", "remove", "l-1", "--json").json == {"id": "l-1", "world_seq": 9}
    assert pdp("lock", "remove", "l-1").code == 7


# Replicas and the decision log.


def test_replicas(pdp: Pdp, server: ScriptedPdp) -> None:
    ahead = replication_pb2.ReplicaStatus(
        identity="a", role="sidecar", version="1", seq=5, staleness_s=0.5, connected=True
    )
    behind = replication_pb2.ReplicaStatus(identity="b", role="pdp", seq=3, staleness_s=float("inf"), connected=True)
    gone = replication_pb2.ReplicaStatus(identity="c", seq=1)
    answer = replication_pb2.ListReplicasResponse(replicas=[ahead, behind, gone], head_seq=5)
    server.script("ReplicationService/ListReplicas", answer)
    told = pdp("replicas").out
    assert "head: world 5" in told
    assert "2 behind" in told
    assert "not connected" in told
    assert [replica["behind"] for replica in pdp("replicas", "--json").json] == [0, 2, 4]


def test_json_has_no_number_that_json_has_not(pdp: Pdp, server: ScriptedPdp) -> None:
    never = replication_pb2.ReplicaStatus(identity="b", seq=3, staleness_s=float("inf"), connected=True)
    server.script("ReplicationService/ListReplicas", replication_pb2.ListReplicasResponse(replicas=[never]))
    ended = pdp("replicas", "--json")
    assert "Infinity" not in ended.out
    assert ended.json[0]["staleness_s"] is None


def test_audit_tail(pdp: Pdp, server: ScriptedPdp) -> None:
    records = [
        (
            b'{"kind":"decision","time_ms":1800000000000,"effect":"deny","reason":"no_grant","principal":"user:a",'
            b'"action":"dataset.read","resource":"dataset/x","decision_id":"d-1","determining":["grants.csv:6"]}'
        ),
        b'{"kind":"stream","event":"cut","time_ms":1800000000001,"decision_id":"d-1"}',
        b"not json",
    ]
    server.script("AuditService/Read", [audit_pb2.ReadResponse(chain="c", record=record) for record in records])
    told = pdp("audit", "tail", "-n", "3").out.splitlines()
    assert "DENY  user:a  dataset.read  dataset/x  no_grant  by grants.csv:6" in told[0]
    assert "[stream cut]" in told[1]
    assert "[unreadable]" in told[2]
    lines = pdp("audit", "tail", "--json", "--chain", "c").out.splitlines()
    assert len(lines) == 3
    sent = server.asked("AuditService/Read")
    assert [(ask.last, ask.chain, ask.follow) for ask in sent] == [(3, "", False), (20, "c", False)]


# People and programs.


def test_colour_and_rules_are_for_terminals_only(
    pdp: Pdp, server: ScriptedPdp, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script("LockService/List", lock_pb2.ListLocksResponse(locks=[locked().lock]))
    assert "─" not in pdp("lock", "list").out
    monkeypatch.setattr(output, "on_terminal", lambda: True)
    assert "─" in pdp("lock", "list").out
    assert pdp("lock", "list", "--json").json[0]["id"] == "l-1"
