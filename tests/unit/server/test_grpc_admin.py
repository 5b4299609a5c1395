"""Administration over the wire: policy, assets, locks, audit; refused changes change nothing."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import pytest

from pdp.audit import chain as chains
from pdp.audit.chain import START
from pdp.v1 import (
    asset_pb2,
    asset_pb2_grpc,
    audit_pb2,
    audit_pb2_grpc,
    lock_pb2,
    lock_pb2_grpc,
    policy_pb2,
    policy_pb2_grpc,
    types_pb2,
)
from tests.support.pdp import ADA, GATE, RunningPdp, detail, running_pdp

Test = Callable[[RunningPdp], Coroutine[Any, Any, None]]


def with_pdp(directory: Path, test: Test) -> None:
    async def run() -> None:
        async with running_pdp(directory) as pdp:
            await test(pdp)

    asyncio.run(run())


async def refused(call: Any) -> tuple[str, types_pb2.ErrorDetail]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code().name, detail(error.value)


def pack(directory: Path, **changes: str) -> list[policy_pb2.PackFile]:
    files = {
        str(path.relative_to(directory / "pack")): path.read_text()
        for path in sorted((directory / "pack").rglob("*"))
        if path.is_file()
    }
    texts = files | {name.replace("_csv", ".csv"): text for name, text in changes.items()}
    return [policy_pb2.PackFile(path=path, content=text.encode()) for path, text in texts.items()]


def policies(pdp: RunningPdp) -> tuple[Any, dict[str, Any]]:
    return policy_pb2_grpc.PolicyServiceStub(pdp.channel()), {"metadata": pdp.metadata(ADA), "timeout": 20}


async def rows(pdp: RunningPdp) -> set[str]:
    stub, how = policies(pdp)
    return {
        f"{row.section}, {', '.join(row.fields)}" for row in (await stub.Get(policy_pb2.GetPolicyRequest(), **how)).rows
    }


def test_a_pack_is_proposed_activated_and_live(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp) -> None:
        stub, how = policies(pdp)
        files = pack(tmp_path, people_csv="g, user:zed@demo.portcullis, role:auditor, prod\n")
        proposal = await stub.Propose(policy_pb2.ProposeRequest(files=files, message="zed audits"), **how)
        assert (proposal.rows_added, proposal.rows_removed, proposal.base_seq) == (1, 4, 1)
        before = await rows(pdp)
        active = await stub.Activate(policy_pb2.ActivateRequest(proposal_id=proposal.proposal_id), **how)
        assert (proposal.proposal_id, active.world_seq) == ("p2", 3)
        after = await rows(pdp)
        assert after - before == {"g, user:zed@demo.portcullis, role:auditor, prod"}
        assert f"g, user:{ADA}, role:sole-admin, prod" in after  # the first administrator is not locked out
        again = await refused(stub.Activate(policy_pb2.ActivateRequest(proposal_id=proposal.proposal_id), **how))
        assert again[0] == "NOT_FOUND"

    with_pdp(tmp_path, test)


def test_a_broken_pack_is_refused_whole_with_every_finding(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp) -> None:
        stub, how = policies(pdp)
        files = pack(tmp_path, people_csv="g, user:x\ng, user:y\n")
        code, told = await refused(stub.Propose(policy_pb2.ProposeRequest(files=files), **how))
        assert (code, told.reason, len(told.findings)) == ("FAILED_PRECONDITION", "policy_refused", 2)
        assert told.findings[0].startswith("people.csv:1:1: PC113 role_arity")
        assert pdp.app.replica.world.seq == 1

    with_pdp(tmp_path, test)


def test_a_pack_that_fails_its_own_test_is_refused(tmp_path: Path) -> None:
    wrong = """
- name: nobody becomes an administrator by asking
  ask: {subject: user:eve@demo.portcullis, action: policy.activate, resource: policy/main}
  want: {effect: allow}
"""

    async def test(pdp: RunningPdp) -> None:
        stub, how = policies(pdp)
        files = [*pack(tmp_path), policy_pb2.PackFile(path="tests/wrong.yaml", content=wrong.encode())]
        _, told = await refused(stub.Propose(policy_pb2.ProposeRequest(files=files), **how))
        (finding,) = told.findings
        assert finding.startswith("tests/wrong.yaml:2:")
        assert "expected allow, got deny" in finding

    with_pdp(tmp_path, test)


def test_of_two_proposals_the_second_is_a_conflict(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp) -> None:
        stub, how = policies(pdp)
        made = []
        for name in ("one", "two"):
            files = pack(tmp_path, people_csv=f"g, user:{name}, role:auditor, prod\n")
            made.append((await stub.Propose(policy_pb2.ProposeRequest(files=files), **how)).proposal_id)
        await stub.Activate(policy_pb2.ActivateRequest(proposal_id=made[0]), **how)
        code, told = await refused(stub.Activate(policy_pb2.ActivateRequest(proposal_id=made[1]), **how))
        assert (code, told.reason) == ("ABORTED", "conflict")
        assert "g, user:two, role:auditor, prod" not in await rows(pdp)

    with_pdp(tmp_path, test)


def test_proposing_what_is_live_changes_nothing(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp) -> None:
        stub, how = policies(pdp)
        for activate in (False, True):
            told = await stub.Propose(policy_pb2.ProposeRequest(files=pack(tmp_path), activate=activate), **how)
            assert (told.proposal_id, told.world_seq) == ("", 1)

    with_pdp(tmp_path, test)


def text(value: str) -> types_pb2.Value:
    return types_pb2.Value(string_value=value)


def test_an_asset_is_registered_once_and_found(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp) -> None:
        stub = asset_pb2_grpc.AssetServiceStub(pdp.channel())
        how: dict[str, Any] = {"metadata": pdp.metadata(ADA), "timeout": 10}
        asset = asset_pb2.Asset(name="model/fraud@7", attributes={"environment": text("prod")})
        for _ in range(2):
            assert (await stub.Register(asset_pb2.RegisterRequest(assets=[asset]), **how)).world_seq == 2
        assert (await stub.Get(asset_pb2.GetAssetRequest(name="model/fraud@7"), **how)).asset == asset
        listed = await stub.List(asset_pb2.ListAssetsRequest(pattern="model/*"), **how)
        assert [item.name for item in listed.assets] == ["model/fraud@7"]
        assert not (await stub.List(asset_pb2.ListAssetsRequest(pattern="dataset/**"), **how)).assets
        code, _ = await refused(stub.Get(asset_pb2.GetAssetRequest(name="model/none"), **how))
        assert code == "NOT_FOUND"

    with_pdp(tmp_path, test)


def test_a_review_is_signed_off_by_who_may_approve(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp) -> None:
        stub, how = policies(pdp)
        request = policy_pb2.SignOffRequest(report="a" * 64, world_seq=1, findings=3, message="seen")
        assert (await stub.SignOff(request, **how)).world_seq == 2

    with_pdp(tmp_path, test)


@pytest.mark.parametrize(
    "change",
    [{"report": "a" * 63}, {"report": "A" * 64}, {"world_seq": 2}, {"message": "x" * 5_000}, {"since_ms": 1 << 60}],
)
def test_a_sign_off_of_no_report_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    async def test(pdp: RunningPdp) -> None:
        stub, how = policies(pdp)
        given = {"report": "a" * 64, "world_seq": 1, "findings": 3, **change}
        code, _ = await refused(stub.SignOff(policy_pb2.SignOffRequest(**given), **how))
        assert code == "INVALID_ARGUMENT"

    with_pdp(tmp_path, test)


def test_a_retired_asset_comes_back_only_by_name(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp) -> None:
        stub = asset_pb2_grpc.AssetServiceStub(pdp.channel())
        how: dict[str, Any] = {"metadata": pdp.metadata(ADA), "timeout": 10}
        assets = [
            asset_pb2.Asset(name=name, attributes={"environment": text("prod")}) for name in ("model/a", "model/b")
        ]
        await stub.Register(asset_pb2.RegisterRequest(assets=assets), **how)
        retire = asset_pb2.RetireRequest(names=["model/a"], reason="superseded by model/b")
        for _ in range(2):
            assert (await stub.Retire(retire, **how)).world_seq == 3
        code, told = await refused(stub.Get(asset_pb2.GetAssetRequest(name="model/a"), **how))
        assert code == "NOT_FOUND"
        assert "retired in entry 3" in told.message
        again = asset_pb2.RegisterRequest(assets=assets)
        code, told = await refused(stub.Register(again, **how))
        assert code == "ABORTED"
        assert "--revive" in told.advice
        again.revive = True
        assert (await stub.Register(again, **how)).world_seq == 4
        assert (await stub.Get(asset_pb2.GetAssetRequest(name="model/a"), **how)).asset == assets[0]

    with_pdp(tmp_path, test)


@pytest.mark.parametrize(
    ("names", "reason", "code"),
    [
        ([], "gone", "INVALID_ARGUMENT"),
        (["model/b"], "", "INVALID_ARGUMENT"),
        (["model/b"], "x" * 5_000, "INVALID_ARGUMENT"),
        (["model/b", "model/none"], "gone", "NOT_FOUND"),
        (["policy/main"], "gone", "NOT_FOUND"),
        (["no name"], "gone", "INVALID_ARGUMENT"),
    ],
)
def test_a_retirement_that_cannot_be_changes_nothing(tmp_path: Path, names: list[str], reason: str, code: str) -> None:
    async def test(pdp: RunningPdp) -> None:
        stub = asset_pb2_grpc.AssetServiceStub(pdp.channel())
        how: dict[str, Any] = {"metadata": pdp.metadata(ADA), "timeout": 10}
        asset = asset_pb2.Asset(name="model/b", attributes={"environment": text("prod")})
        await stub.Register(asset_pb2.RegisterRequest(assets=[asset]), **how)
        found, _ = await refused(stub.Retire(asset_pb2.RetireRequest(names=names, reason=reason), **how))
        assert found == code
        assert (await stub.Get(asset_pb2.GetAssetRequest(name="model/b"), **how)).asset == asset

    with_pdp(tmp_path, test)


@pytest.mark.parametrize(
    "asset",
    [
        asset_pb2.Asset(name="model/fraud"),
        asset_pb2.Asset(name="model/fraud", attributes={"environment": text("moon")}),
        asset_pb2.Asset(name="model/fraud", attributes={"environment": text("prod"), "unknown": text("x")}),
        asset_pb2.Asset(name="model/fraud", attributes={"resource.environment": text("prod")}),
        asset_pb2.Asset(name="model/fraud", attributes={"environment": types_pb2.Value(int_value=1)}),
        asset_pb2.Asset(name="spaceship/x", attributes={"environment": text("prod")}),
        asset_pb2.Asset(name="policy/main", attributes={"environment": text("dev")}),
        asset_pb2.Asset(name="model/../x", attributes={"environment": text("prod")}),
        asset_pb2.Asset(attributes={"environment": text("prod")}),
    ],
)
def test_an_asset_outside_the_vocabulary_is_refused_with_its_neighbours(tmp_path: Path, asset: asset_pb2.Asset) -> None:
    async def test(pdp: RunningPdp) -> None:
        stub = asset_pb2_grpc.AssetServiceStub(pdp.channel())
        good = asset_pb2.Asset(name="model/good", attributes={"environment": text("prod")})
        request = asset_pb2.RegisterRequest(assets=[good, asset])
        code, _ = await refused(stub.Register(request, metadata=pdp.metadata(ADA), timeout=10))
        assert code == "INVALID_ARGUMENT"
        assert pdp.app.replica.world.seq == 1

    with_pdp(tmp_path, test)


@pytest.mark.parametrize(
    "target",
    [
        lock_pb2.LockTarget(principal="user:mallory@x.org"),
        lock_pb2.LockTarget(resource="model/**"),
        lock_pb2.LockTarget(jti=lock_pb2.IssuerScoped(issuer="https://x", id="t1")),
        lock_pb2.LockTarget(session=lock_pb2.IssuerScoped(issuer="https://x", id="s1")),
        lock_pb2.LockTarget(issued_before=lock_pb2.IssuedBefore(issuer="https://x", time_s=5, principal="user:m")),
        lock_pb2.LockTarget(certificate="ab" * 32),
    ],
)
def test_every_kind_of_lock_is_set_listed_and_removed(tmp_path: Path, target: lock_pb2.LockTarget) -> None:
    async def test(pdp: RunningPdp) -> None:
        stub = lock_pb2_grpc.LockServiceStub(pdp.channel())
        how: dict[str, Any] = {"metadata": pdp.metadata(ADA), "timeout": 10}
        made = await stub.Lock(lock_pb2.LockRequest(target=target, reason="test", wait_all=True), **how)
        assert (made.lock.target, made.lock.source, made.lock.world_seq) == (target, f"user:{ADA}", 2)
        assert (made.receipt.world_seq, made.receipt.connected) == (2, 0)
        assert (await stub.List(lock_pb2.ListLocksRequest(), **how)).locks == [made.lock]
        if target.HasField("issued_before"):  # it only moves forward (IDENTITY.md RV-1)
            assert (await refused(stub.Unlock(lock_pb2.UnlockRequest(id=made.lock.id), **how)))[
                0
            ] == "FAILED_PRECONDITION"
            return
        assert (await stub.Unlock(lock_pb2.UnlockRequest(id=made.lock.id), **how)).world_seq == 3
        assert not (await stub.List(lock_pb2.ListLocksRequest(), **how)).locks
        assert (await refused(stub.Unlock(lock_pb2.UnlockRequest(id=made.lock.id), **how)))[0] == "NOT_FOUND"

    with_pdp(tmp_path, test)


@pytest.mark.parametrize(
    "request_",
    [
        lock_pb2.LockRequest(reason="no target"),
        lock_pb2.LockRequest(target=lock_pb2.LockTarget(principal="mallory")),
        lock_pb2.LockRequest(target=lock_pb2.LockTarget(certificate="xyz")),
        lock_pb2.LockRequest(target=lock_pb2.LockTarget(principal="user:m"), end_ms=5),
        lock_pb2.LockRequest(target=lock_pb2.LockTarget(principal="user:m"), end_ms=-1),
        lock_pb2.LockRequest(target=lock_pb2.LockTarget(principal="user:m"), reason="two\nlines"),
    ],
)
def test_a_malformed_lock_is_refused(tmp_path: Path, request_: lock_pb2.LockRequest) -> None:
    async def test(pdp: RunningPdp) -> None:
        stub = lock_pb2_grpc.LockServiceStub(pdp.channel())
        code, _ = await refused(stub.Lock(request_, metadata=pdp.metadata(ADA), timeout=10))
        assert code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION")
        assert pdp.app.replica.world.seq == 1

    with_pdp(tmp_path, test)


def test_a_chain_is_received_only_as_a_chain(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp) -> None:
        stub = audit_pb2_grpc.AuditServiceStub(pdp.channel())
        how: dict[str, Any] = {"metadata": pdp.metadata(GATE), "timeout": 10}
        opened, head = chains.seal({"v": 1, "kind": "open", "time_ms": 1, "reason": "start"}, START)
        second, last = chains.seal({"v": 1, "kind": "decision", "time_ms": 2}, head)
        request = audit_pb2.AppendRequest(chain="sidecar-1", records=[opened, second])
        assert (await stub.Append(audit_pb2.AppendRequest(chain="sidecar-1"), **how)).stored == 0
        for _ in range(2):
            answer = await stub.Append(request, **how)
            assert (answer.stored, answer.head.hex()) == (2, last.digest)
        forged, _ = chains.seal({"v": 1, "kind": "decision", "time_ms": 3}, head.__class__(n=2, digest="ab" * 32))
        again = audit_pb2.AppendRequest(chain="sidecar-1", records=[forged])
        assert (await refused(stub.Append(again, **how)))[0] == "ABORTED"
        other = audit_pb2.AppendRequest(chain="../../etc", records=[opened])
        assert (await refused(stub.Append(other, **how)))[0] == "INVALID_ARGUMENT"
        read = stub.Read(audit_pb2.ReadRequest(), metadata=pdp.metadata(ADA), timeout=10)
        assert {opened, second} <= {item.record async for item in read}

    with_pdp(tmp_path, test)
