"""DecisionService over the wire: who is meant, what may be asserted, and in which order answers come."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import pytest

from pdp.limits import MAX_BATCH
from pdp.v1 import decision_pb2, decision_pb2_grpc, lock_pb2, lock_pb2_grpc, types_pb2
from tests.support.pdp import ADA, BOB, EVE, GATE, RunningPdp, detail, running_pdp

ASSETS = """
model/fraud@7: {environment: dev}
dataset/open: {environment: dev}
endpoint/prod: {environment: prod, segment: "segment:serving"}
"""
Test = Callable[[RunningPdp, decision_pb2_grpc.DecisionServiceStub], Coroutine[Any, Any, None]]


def with_pdp(directory: Path, test: Test) -> None:
    async def run() -> None:
        async with running_pdp(directory, assets=ASSETS) as pdp:
            await test(pdp, decision_pb2_grpc.DecisionServiceStub(pdp.channel()))

    asyncio.run(run())


def question(resource: str = "dataset/open", action: str = "dataset.read", **fields: Any) -> decision_pb2.Question:
    return decision_pb2.Question(action=action, resource=resource, supports_all=True, **fields)


def bearer(token: str) -> decision_pb2.Subject:
    return decision_pb2.Subject(credential=f"Bearer {token}")


def asserted(principal: str, *groups: str) -> decision_pb2.Subject:
    return decision_pb2.Subject(asserted=decision_pb2.AssertedSubject(principal=principal, groups=groups))


async def ask(
    pdp: RunningPdp, stub: Any, who: str, asked: decision_pb2.Question, *, explain: bool = False
) -> decision_pb2.Decision:
    call = stub.Explain if explain else stub.Evaluate
    response = await call(decision_pb2.EvaluateRequest(question=asked), metadata=pdp.metadata(who), timeout=10)
    return response.decision


async def refused(pdp: RunningPdp, stub: Any, who: str, asked: decision_pb2.Question) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await ask(pdp, stub, who, asked)
    return error.value.code().name, detail(error.value).reason


def test_a_caller_asks_for_itself(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        decision = await ask(pdp, stub, BOB, question())
        assert (decision.effect, decision.reason) == (types_pb2.EFFECT_ALLOW, "granted")
        assert decision.world_seq == pdp.app.replica.world.seq
        assert decision.determining
        decision = await ask(pdp, stub, BOB, question("endpoint/prod", "endpoint.invoke"))
        assert (decision.effect, decision.reason) == (types_pb2.EFFECT_DENY, "segment_denied")

    with_pdp(tmp_path, test)


def test_a_credential_inside_a_question_is_verified_here(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        good = question(subject=bearer(pdp.token(BOB)))
        assert (await ask(pdp, stub, GATE, good)).effect == types_pb2.EFFECT_ALLOW
        decision = await ask(pdp, stub, GATE, question(subject=bearer(pdp.token(BOB, now_s=1_700_000_000))))
        assert (decision.effect, decision.reason, decision.detail) == (types_pb2.EFFECT_DENY, "token_expired", "")
        assert (await ask(pdp, stub, GATE, question(subject=bearer("garbage")))).reason == "token_malformed"

    with_pdp(tmp_path, test)


def test_a_subject_is_asserted_only_by_who_may(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        asked = question(subject=asserted(f"user:{BOB}"))
        assert (await ask(pdp, stub, GATE, asked)).effect == types_pb2.EFFECT_ALLOW
        assert await refused(pdp, stub, BOB, asked) == ("PERMISSION_DENIED", "no_grant")
        assert await refused(pdp, stub, ADA, asked) == ("PERMISSION_DENIED", "no_grant")
        as_role = question(subject=asserted("user:eve", "role:data-scientist"))
        assert await refused(pdp, stub, GATE, as_role) == ("INVALID_ARGUMENT", "bad_request")

    with_pdp(tmp_path, test)


def test_a_workload_other_than_the_callers_is_asserted(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        asked = question(workload="workload:spiffe://demo.portcullis/apps/shop")
        assert await refused(pdp, stub, BOB, asked) == ("PERMISSION_DENIED", "no_grant")
        assert (await ask(pdp, stub, GATE, asked)).effect == types_pb2.EFFECT_DENY

    with_pdp(tmp_path, test)


@pytest.mark.parametrize(
    ("name", "value", "who", "reason"),
    [
        ("request.purpose", types_pb2.Value(string_value="x"), BOB, ""),
        ("request.n", types_pb2.Value(int_value=3), GATE, ""),
        ("request.n", types_pb2.Value(int_value=3), BOB, "no_grant"),
        ("request.n", types_pb2.Value(string_value="3"), GATE, "bad_request"),
        ("request.n", types_pb2.Value(bool_value=True), GATE, "bad_request"),
        ("request.n", types_pb2.Value(), GATE, "bad_request"),
        ("resource.environment", types_pb2.Value(string_value="dev"), GATE, "bad_request"),
        ("subject.id", types_pb2.Value(string_value="user:root"), GATE, "bad_request"),
    ],
)
def test_attributes_are_said_only_by_whom_the_vocabulary_names(
    tmp_path: Path, name: str, value: types_pb2.Value, who: str, reason: str
) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        asked = question(attributes={name: value})
        if reason:
            assert (await refused(pdp, stub, who, asked))[1] == reason
        else:
            assert (await ask(pdp, stub, who, asked)).reason in ("granted", "no_grant")

    with_pdp(tmp_path, test)


def test_an_attribute_nobody_knows_is_a_bad_question(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        asked = question(attributes={"request.unknown": types_pb2.Value(string_value="x")})
        assert (await ask(pdp, stub, GATE, asked)).reason == "bad_request"

    with_pdp(tmp_path, test)


@pytest.mark.parametrize(
    "asked",
    [
        question("dataset/../x"),
        question("dataset"),
        question(action="read"),
        question(serves="model"),
        question(workload="spiffe://x"),
        question(subject=decision_pb2.Subject(asserted=decision_pb2.AssertedSubject(principal="role:admin"))),
    ],
)
def test_a_malformed_question_is_an_error_and_never_an_answer(tmp_path: Path, asked: decision_pb2.Question) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        assert await refused(pdp, stub, GATE, asked) == ("INVALID_ARGUMENT", "bad_name")

    with_pdp(tmp_path, test)


@pytest.mark.holds("P4")
@pytest.mark.parametrize("count", [0, 1, 7, MAX_BATCH])
def test_a_batch_is_answered_in_order_by_one_world(tmp_path: Path, count: int) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        spoiled = bearer("garbage")
        kinds = [question(), question("dataset/missing"), question(subject=spoiled)]
        wanted = ["granted", "asset_unregistered", "token_malformed"]
        request = decision_pb2.EvaluateBatchRequest(questions=[kinds[n % 3] for n in range(count)])
        response = await stub.EvaluateBatch(request, metadata=pdp.metadata(BOB), timeout=20)
        assert [decision.reason for decision in response.decisions] == [wanted[n % 3] for n in range(count)]
        assert len({decision.world_seq for decision in response.decisions}) <= 1

    with_pdp(tmp_path, test)


@pytest.mark.holds("L1")
def test_a_batch_beyond_the_limit_is_refused_whole(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        request = decision_pb2.EvaluateBatchRequest(questions=[question()] * (MAX_BATCH + 1))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.EvaluateBatch(request, metadata=pdp.metadata(BOB), timeout=10)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    with_pdp(tmp_path, test)


def test_a_stream_of_batches_is_answered_in_order_until_the_caller_loses_its_right(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        stream = stub.EvaluateStream(metadata=pdp.metadata(BOB), timeout=20)
        for resource, reason in (("dataset/open", "granted"), ("dataset/missing", "asset_unregistered")):
            await stream.write(decision_pb2.EvaluateBatchRequest(questions=[question(resource)]))
            answer = await stream.read()
            assert [decision.reason for decision in answer.decisions] == [reason]
        await lock(pdp, f"user:{BOB}")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stream.read()
        assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED

    with_pdp(tmp_path, test)


async def lock(pdp: RunningPdp, principal: str) -> lock_pb2.Lock:
    stub = lock_pb2_grpc.LockServiceStub(pdp.channel())
    request = lock_pb2.LockRequest(target=lock_pb2.LockTarget(principal=principal), reason="test", wait_all=True)
    return (await stub.Lock(request, metadata=pdp.metadata(ADA), timeout=10)).lock


def test_a_watch_tells_every_change(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        request = decision_pb2.WatchRequest(question=question(subject=asserted(f"user:{BOB}")))
        watch = stub.Watch(request, metadata=pdp.metadata(GATE), timeout=20)
        assert (await watch.read()).decision.reason == "granted"
        made = await lock(pdp, f"user:{BOB}")
        assert (await watch.read()).decision.reason == "locked"
        unlock = lock_pb2.UnlockRequest(id=made.id)
        await lock_pb2_grpc.LockServiceStub(pdp.channel()).Unlock(unlock, metadata=pdp.metadata(ADA), timeout=10)
        assert (await watch.read()).decision.reason == "granted"
        watch.cancel()

    with_pdp(tmp_path, test)


def test_a_watch_on_a_bad_credential_ends_with_its_reason(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        request = decision_pb2.WatchRequest(question=question(subject=bearer("garbage")))
        told = [message async for message in stub.Watch(request, metadata=pdp.metadata(GATE), timeout=10)]
        assert [(message.decision.reason, message.ended) for message in told] == [("token_malformed", True)]

    with_pdp(tmp_path, test)


def test_explain_says_what_came_nearest(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        decision = await ask(pdp, stub, BOB, question("model/fraud@7", "model.promote"), explain=True)
        assert decision.effect == types_pb2.EFFECT_DENY
        assert decision.nearest_miss.failed

    with_pdp(tmp_path, test)


@pytest.mark.holds("P8", "S9")
def test_every_answer_has_its_record_and_no_record_has_a_token(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        token = pdp.token(BOB)
        request = decision_pb2.EvaluateRequest(question=question(subject=bearer(token)))
        decision = (await stub.Evaluate(request, metadata=pdp.metadata(GATE), timeout=10)).decision
        records = await pdp.records()
        (own,) = [record for record in records if decision.decision_id.encode() in record]
        assert f'"principal":"user:{BOB}"'.encode() in own
        assert f'"caller":"user:{GATE}"'.encode() in own
        assert not [record for record in records if token.encode() in record or token.split(".")[2].encode() in record]

    with_pdp(tmp_path, test)


def test_a_caller_that_may_not_ask_is_refused_and_recorded(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        assert await refused(pdp, stub, EVE, question()) == ("PERMISSION_DENIED", "no_grant")
        records = await pdp.records()
        assert any(b'"decision.ask"' in record and EVE.encode() in record for record in records)

    with_pdp(tmp_path, test)
