from collections.abc import Iterator

import grpc
import pytest
from scripted_pdp import METHODS, ScriptedPdp, refusal

from pdp.errors import BadRequestError
from pdp.sdk import BadQuestion, ClientUnusable, Conflict, NotFound, NotPermitted, PdpFault, PolicyRefused, _admin_core
from pdp.sdk._core import Rpc
from pdp.sdk.admin import AdminClient, Asset, LockTarget, Replica
from pdp.server.grpc.rights import RULES
from pdp.v1 import asset_pb2, audit_pb2, lock_pb2, policy_pb2, replication_pb2, types_pb2

HEX = "ab" * 32
TARGETS = (
    "user:alice@example.com",
    "workload:spiffe://demo.portcullis/ns/ml/sa/notebook",
    "resource:model/**",
    "jti:https://issuer.example#42",
    "session:https://issuer.example#s1",
    "issued-before:https://issuer.example#1700000000",
    "issued-before:https://issuer.example#1700000000#user:alice@example.com",
    f"certificate:{HEX}",
)


@pytest.fixture
def admin(pdp: ScriptedPdp) -> Iterator[AdminClient]:
    with AdminClient(pdp.address, token="a.b.c") as made:
        yield made


def test_a_pack_is_proposed_and_activated(pdp: ScriptedPdp, admin: AdminClient) -> None:
    proposed = policy_pb2.ProposeResponse(proposal_id="p-1", warnings=["w"], rows_added=2, rows_removed=1, base_seq=3)
    pdp.script("PolicyService/Propose", proposed)
    pdp.script("PolicyService/Activate", policy_pb2.ActivateResponse(world_seq=4, revision="r"))
    proposal = admin.propose({"model.conf": b"m", "a/grants.csv": b"g"}, message="why")
    activation = admin.activate(proposal.proposal_id)
    assert (proposal.rows_added, proposal.rows_removed, proposal.base_seq, proposal.warnings) == (2, 1, 3, ("w",))
    assert (activation.world_seq, activation.revision) == (4, "r")
    sent = pdp.asked("PolicyService/Propose")[0]
    assert [file.path for file in sent.files] == ["a/grants.csv", "model.conf"]
    assert pdp.asked("PolicyService/Activate")[0].proposal_id == "p-1"
    assert set(pdp.credentials) == {"Bearer a.b.c"}


def test_every_finding_of_a_refused_pack_arrives(pdp: ScriptedPdp, admin: AdminClient) -> None:
    findings = ["grants.csv:6:3: PC112 wrong_arity: seven fields", "grants.csv:9:1: PC101 x: y"]
    pdp.script(
        "PolicyService/Propose", refusal(grpc.StatusCode.FAILED_PRECONDITION, "policy_refused", findings=findings)
    )
    with pytest.raises(PolicyRefused) as raised:
        admin.propose({})
    assert list(raised.value.findings) == findings


def test_a_lost_race_names_the_head(pdp: ScriptedPdp, admin: AdminClient) -> None:
    pdp.script("PolicyService/Activate", refusal(grpc.StatusCode.ABORTED, "conflict", head_seq=12))
    with pytest.raises(Conflict) as raised:
        admin.activate("p-1")
    assert raised.value.head_seq == 12


def test_the_live_policy(pdp: ScriptedPdp, admin: AdminClient) -> None:
    row = policy_pb2.PolicyRow(id="grants.csv:6", section="p", fields=["role:app", "*"])
    pdp.script("PolicyService/Get", policy_pb2.GetPolicyResponse(revision="r", world_seq=3, model="m", rows=[row]))
    policy = admin.policy()
    assert (policy.revision, policy.rows[0].id, policy.rows[0].fields) == ("r", "grants.csv:6", ("role:app", "*"))


def test_assets_are_registered_and_listed(pdp: ScriptedPdp, admin: AdminClient) -> None:
    attributes = {
        "environment": types_pb2.Value(string_value="prod"),
        "approvals": types_pb2.Value(list_value=types_pb2.StringList(items=["ana"])),
        "newer": types_pb2.Value(),
    }
    listed = asset_pb2.Asset(name="model/fraud@7", attributes=attributes)
    pdp.script("AssetService/Register", asset_pb2.RegisterResponse(world_seq=5))
    pdp.script("AssetService/List", asset_pb2.ListAssetsResponse(assets=[listed], world_seq=5))
    pdp.script("AssetService/Get", asset_pb2.GetAssetResponse(asset=listed))
    assert admin.register("model/fraud@7", {"environment": "prod", "approvals": ["ana"]}) == 5
    expected = Asset(name="model/fraud@7", attributes={"approvals": ("ana",), "environment": "prod", "newer": ""})
    assert admin.assets("model/**").assets == (expected,)
    assert admin.asset("model/fraud@7") == expected
    sent = pdp.asked("AssetService/Register")[0].assets[0]
    assert sent.attributes["approvals"].list_value.items == ["ana"]


def test_a_malformed_asset_is_not_sent(pdp: ScriptedPdp, admin: AdminClient) -> None:
    with pytest.raises(BadQuestion):
        admin.register("model fraud", {})
    assert pdp.calls == []


@pytest.mark.parametrize("text", TARGETS)
def test_every_kind_of_lock_survives_the_wire(pdp: ScriptedPdp, admin: AdminClient, text: str) -> None:
    def locked(request: lock_pb2.LockRequest, _: object) -> lock_pb2.LockResponse:
        made = lock_pb2.Lock(id="l-1", target=request.target, reason=request.reason, start_ms=1_800_000_000_000)
        receipt = lock_pb2.Receipt(world_seq=8, connected=2, holding=1, missing=["x"], slowest_ms=1.5)
        return lock_pb2.LockResponse(lock=made, receipt=receipt)

    pdp.script("LockService/Lock", locked)
    target = LockTarget.parse(text)
    told = admin.lock(target, reason="laptop stolen", wait_all=True)
    assert told.lock.target == target
    assert admin.lock(text, reason="laptop stolen").lock.target == target
    assert (told.receipt.connected, told.receipt.holding, told.receipt.missing) == (2, 1, ("x",))
    assert pdp.asked("LockService/Lock")[0].wait_all


def test_locks_are_listed_and_removed(pdp: ScriptedPdp, admin: AdminClient) -> None:
    listed = lock_pb2.Lock(id="l-1", target=lock_pb2.LockTarget(principal="user:a"), reason="r", start_ms=1)
    pdp.script("LockService/List", lock_pb2.ListLocksResponse(locks=[listed], world_seq=9))
    pdp.script("LockService/Unlock", lock_pb2.UnlockResponse(world_seq=10))
    assert [lock.id for lock in admin.locks().locks] == ["l-1"]
    assert admin.unlock("l-1") == 10


@pytest.mark.holds("F28")
@pytest.mark.parametrize("target", [lock_pb2.LockTarget(), lock_pb2.LockTarget(principal="role:x")])
def test_f28_a_lock_we_cannot_read_is_not_left_out(
    pdp: ScriptedPdp, admin: AdminClient, target: lock_pb2.LockTarget
) -> None:
    pdp.script("LockService/List", lock_pb2.ListLocksResponse(locks=[lock_pb2.Lock(id="l-1", target=target)]))
    with pytest.raises(PdpFault, match="cannot read"):
        admin.locks()


def test_a_malformed_target_is_refused(admin: AdminClient) -> None:
    with pytest.raises(BadRequestError):
        LockTarget.parse("alice")
    for text in ("alice", "user:", "resource:"):
        with pytest.raises(BadQuestion):
            admin.lock(text, reason="laptop stolen")


def test_unknown_locks_and_missing_rights_are_typed(pdp: ScriptedPdp, admin: AdminClient) -> None:
    pdp.script("LockService/Unlock", refusal(grpc.StatusCode.NOT_FOUND, "not_found"))
    pdp.script("LockService/List", refusal(grpc.StatusCode.PERMISSION_DENIED, "no_grant"))
    with pytest.raises(NotFound):
        admin.unlock("l-9")
    with pytest.raises(NotPermitted):
        admin.locks()


def test_audit_records_come_as_they_stand_in_the_file(pdp: ScriptedPdp, admin: AdminClient) -> None:
    pdp.script("AuditService/Read", [audit_pb2.ReadResponse(chain="c", record=b'{"v":1}')])
    records = list(admin.audit_records(chain="c", since_ms=5, last=3))
    assert [(record.chain, record.record) for record in records] == [("c", b'{"v":1}')]
    sent = pdp.asked("AuditService/Read")[0]
    assert (sent.chain, sent.since_ms, sent.last, sent.follow) == ("c", 5, 3, False)


def test_following_the_audit_ends_when_we_leave(pdp: ScriptedPdp, admin: AdminClient) -> None:
    pdp.script("AuditService/Read", [audit_pb2.ReadResponse(record=b"{}"), pdp.hang])
    records = admin.audit_records(follow=True)
    assert next(records).record == b"{}"
    records.close()  # type: ignore[attr-defined]
    assert pdp.stream_ended.wait(10)


def test_replicas(pdp: ScriptedPdp, admin: AdminClient) -> None:
    status = replication_pb2.ReplicaStatus(
        identity="workload:x", role="sidecar", version="0.1.0", seq=4, staleness_s=1.0, connected=True
    )
    pdp.script("ReplicationService/ListReplicas", replication_pb2.ListReplicasResponse(replicas=[status], head_seq=5))
    told = admin.replicas()
    expected = Replica(identity="workload:x", role="sidecar", version="0.1.0", seq=4, staleness_s=1.0, connected=True)
    assert (told.replicas, told.head_seq) == ((expected,), 5)


def test_a_closed_admin_client_says_so(pdp: ScriptedPdp) -> None:
    admin = AdminClient(pdp.address)
    admin.close()
    with pytest.raises(ClientUnusable):
        admin.replicas()


def test_every_method_of_administration_is_one_of_the_protocol() -> None:
    rpcs = [value for value in vars(_admin_core).values() if isinstance(value, Rpc)]
    assert len(rpcs) == 23
    for rpc in rpcs:
        method = METHODS[rpc.path]
        assert (method.input_type, method.output_type) == (rpc.ask.DESCRIPTOR, rpc.told.DESCRIPTOR)


def test_what_carries_a_whole_policy_is_given_the_time_that_the_server_gives_it() -> None:
    patient = [rpc for rpc in vars(_admin_core).values() if isinstance(rpc, Rpc) and rpc.least_s]
    assert {rpc.path.rpartition("/")[2] for rpc in patient} == {"Propose", "Activate", "Approve"}
    assert all(RULES[rpc.path].ceiling_s == rpc.least_s for rpc in patient)
