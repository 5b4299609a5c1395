"""The door's errors: one table for every reason, and nothing of ours in what a caller reads (FAILURE.md G1, G2, G3)."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from pdp.engine.findings import PackRefused, finding
from pdp.errors import MEANINGS, ConflictError, PortcullisError, Reason
from pdp.limits import MAX_ERROR_DETAIL_BYTES, MAX_RPC_BYTES, MAX_SMALL_RPC_BYTES
from pdp.server.grpc import interceptors
from pdp.server.grpc.rights import RULES
from pdp.server.grpc.status import ERROR_KEY, status_of
from pdp.v1 import decision_pb2, decision_pb2_grpc, lock_pb2, lock_pb2_grpc
from tests.support.pdp import ADA, BOB, call_any, detail, running_pdp


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_leaves_with_the_status_of_the_table(reason: Reason) -> None:
    status = status_of(PortcullisError(reason, "said", advice="do"), correlation_id="c")
    assert status.code.name == MEANINGS[reason].grpc
    assert (status.detail.reason, status.detail.message, status.detail.advice) == (reason.value, "said", "do")
    assert status.detail.correlation_id == "c"
    ((key, value),) = status.trailing
    assert (key, value) == (ERROR_KEY, status.detail.SerializeToString())


def test_a_lost_race_says_where_the_head_is() -> None:
    assert status_of(ConflictError(17), correlation_id="").detail.head_seq == 17


def test_findings_travel_while_they_fit_and_the_rest_is_counted() -> None:
    findings = tuple(finding("PC112", "x" * 200, file="grants.csv", line=n) for n in range(1, 101))
    status = status_of(PackRefused(findings), correlation_id="")
    assert status.detail.findings[0].startswith("grants.csv:1:1: PC112 wrong_arity")
    assert status.detail.findings[-1].startswith("… and ")
    assert len(status.detail.SerializeToString()) < MAX_ERROR_DETAIL_BYTES + 1_000


async def failure_of(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


@pytest.mark.holds("G1", "P2")
def test_an_unforeseen_exception_in_any_rpc_is_internal_with_a_constant_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "secret in a traceback"

    def fail(_method: Any) -> Any:
        raise RuntimeError(secret)

    async def run() -> None:
        async with running_pdp(tmp_path) as pdp:
            monkeypatch.setattr(interceptors, "_behaviour", fail)
            monkeypatch.setattr(pdp.app.gate, "authorise", lambda *_: asyncio.sleep(0))
            monkeypatch.setattr(interceptors, "_message", lambda *_: None)
            for path in sorted(path for path, rule in RULES.items() if not rule.open):
                error = await call_any(pdp.channel(), path, pdp.metadata(ADA))
                assert error is not None, path
                assert (error.code(), detail(error).message) == (grpc.StatusCode.INTERNAL, "internal error"), path
                assert detail(error).correlation_id
                assert secret.encode() not in detail(error).SerializeToString()

    asyncio.run(run())


@pytest.mark.holds("G2", "F20", "L1", "P11")
@pytest.mark.parametrize(
    ("path", "limit"), [("LockService/Lock", MAX_SMALL_RPC_BYTES), ("DecisionService/Evaluate", MAX_RPC_BYTES)]
)
def test_a_message_is_bounded_before_it_is_parsed(tmp_path: Path, path: str, limit: int) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path) as pdp:
            call = pdp.channel().unary_unary(f"/pdp.v1.{path}")
            for size in (limit - 1, limit, limit + 1):
                error = await failure_of(call(b"\xff" * size, metadata=pdp.metadata(ADA), timeout=10))
                assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert ("at most" in str(error.details())) is (size > limit)

    asyncio.run(run())


@pytest.mark.holds("P11")
def test_what_is_no_message_is_the_callers_error(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path) as pdp:
            call = pdp.channel().unary_unary("/pdp.v1.LockService/Lock")
            error = await failure_of(call(b"\xff\xff", metadata=pdp.metadata(ADA), timeout=10))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT

    asyncio.run(run())


@pytest.mark.holds("G3")
def test_a_call_without_a_deadline_ends_at_the_ceiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path) as pdp:
            stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
            monkeypatch.setattr(interceptors, "MAX_DEADLINE_S", 0.05)
            question = decision_pb2.Question(action="dataset.read", resource="dataset/x")
            request = decision_pb2.EvaluateRequest(question=question, at_least=10_000)
            error = await failure_of(stub.Evaluate(request, metadata=pdp.metadata(BOB)))
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert detail(error).reason == "deadline_exceeded"

    asyncio.run(run())


def test_a_world_that_does_not_come_is_an_answer_inside_the_deadline(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path) as pdp:
            stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
            question = decision_pb2.Question(action="dataset.read", resource="dataset/x")
            request = decision_pb2.EvaluateRequest(question=question, at_least=10_000)
            error = await failure_of(stub.Evaluate(request, metadata=pdp.metadata(BOB), timeout=1))
            assert (error.code(), detail(error).reason) == (grpc.StatusCode.UNAVAILABLE, "world_behind")

    asyncio.run(run())


def test_a_refused_caller_learns_the_record_of_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path) as pdp:
            stub = lock_pb2_grpc.LockServiceStub(pdp.channel())
            error = await failure_of(stub.List(lock_pb2.ListLocksRequest(), metadata=pdp.metadata(BOB), timeout=10))
            told = detail(error)
            assert told.message == "not allowed: lock.read on lock/all"
            records = await pdp.records()
            assert any(told.correlation_id.encode() in record for record in records)

    asyncio.run(run())


@pytest.mark.holds("L4", "adv_amplification")
def test_a_compressed_message_is_not_unpacked(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path) as pdp:
            call = pdp.channel().unary_unary("/pdp.v1.LockService/List")
            packed = call(b"\x00" * 10_000, metadata=pdp.metadata(ADA), timeout=10, compression=grpc.Compression.Gzip)
            assert (await failure_of(packed)).code() is grpc.StatusCode.UNIMPLEMENTED

    asyncio.run(run())
