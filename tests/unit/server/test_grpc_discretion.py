"""N10 at the gRPC door: the record says why, the caller without the right to discover gets one and the same answer."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from pdp.server.discretion import Discretion
from pdp.v1 import decision_pb2, decision_pb2_grpc, types_pb2
from tests.support.logs import lock_payload
from tests.support.pdp import ADA, BOB, GATE, RunningPdp, running_pdp

ASSETS = """
dataset/open: {environment: dev}
dataset/wages: {environment: prod}
endpoint/prod: {environment: prod, segment: "segment:serving"}
"""
Test = Callable[[RunningPdp, decision_pb2_grpc.DecisionServiceStub], Coroutine[Any, Any, None]]
HIDDEN = ("dataset/wages", "dataset/nowhere", "dataset/wages@7")


def with_pdp(directory: Path, test: Test) -> None:
    async def run() -> None:
        async with running_pdp(directory, assets=ASSETS) as pdp:
            # The tests' tokens are those of a development issuer, whose installation would reveal every reason.
            pdp.app.discretion._reveal = False
            await test(pdp, decision_pb2_grpc.DecisionServiceStub(pdp.channel()))

    asyncio.run(run())


def question(resource: str, action: str = "dataset.read", **fields: Any) -> decision_pb2.Question:
    return decision_pb2.Question(action=action, resource=resource, supports_all=True, **fields)


def bare(decision: decision_pb2.Decision) -> bytes:
    """Return what was told, without the id that leads an auditor to the record."""
    copy = decision_pb2.Decision()
    copy.CopyFrom(decision)
    copy.decision_id = ""
    return copy.SerializeToString()


@pytest.mark.holds("N10", "adv_existence")
@pytest.mark.parametrize("rpc", ["Evaluate", "Explain"])
def test_unknown_and_forbidden_are_the_same_bytes_and_the_record_tells_them_apart(tmp_path: Path, rpc: str) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        told = {}
        for resource in HIDDEN:
            request = decision_pb2.EvaluateRequest(question=question(resource))
            answer = (await getattr(stub, rpc)(request, metadata=pdp.metadata(BOB), timeout=10)).decision
            told[answer.decision_id] = bare(answer)
        assert len(set(told.values())) == 1
        assert decision_pb2.Decision.FromString(next(iter(told.values()))).reason == "no_grant"
        records = {json.loads(raw).get("decision_id"): json.loads(raw) for raw in await pdp.records()}
        reasons = [records[decision_id]["reason"] for decision_id in told]
        assert reasons == ["segment_denied", "asset_unregistered", "asset_unregistered"]

    with_pdp(tmp_path, test)


@pytest.mark.holds("N10")
def test_a_batch_hides_what_is_to_be_hidden_and_nothing_else(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        asked = [question("dataset/open"), question("dataset/wages"), question("dataset/nowhere"),
                 question("dataset/open", "dataset.delete"), question("endpoint/prod", "endpoint.invoke")]  # fmt: skip
        request = decision_pb2.EvaluateBatchRequest(questions=asked)
        answers = (await stub.EvaluateBatch(request, metadata=pdp.metadata(BOB), timeout=10)).decisions
        assert [answer.reason for answer in answers] == ["granted", *["no_grant"] * 4]
        full = (await stub.EvaluateBatch(request, metadata=pdp.metadata(ADA), timeout=10)).decisions
        assert full[2].reason == "asset_unregistered"  # who reads the inventory is told
        assert full[4].reason == "segment_denied"

    with_pdp(tmp_path, test)


@pytest.mark.holds("N10")
def test_an_enforcement_point_that_may_speak_for_others_is_told_the_reason(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        subject = decision_pb2.Subject(asserted=decision_pb2.AssertedSubject(principal=f"user:{BOB}"))
        request = decision_pb2.EvaluateRequest(question=question("dataset/nowhere", subject=subject))
        answer = (await stub.Evaluate(request, metadata=pdp.metadata(GATE), timeout=10)).decision
        assert answer.reason == "asset_unregistered"

    with_pdp(tmp_path, test)


@pytest.mark.holds("N10")
def test_a_watch_of_what_is_not_there_is_silent_when_it_appears(tmp_path: Path) -> None:
    async def test(pdp: RunningPdp, stub: Any) -> None:
        publish = pdp.app.replication.publisher.publish
        hidden = stub.Watch(
            decision_pb2.WatchRequest(question=question("dataset/nowhere")), metadata=pdp.metadata(BOB), timeout=30
        )
        assert (await hidden.read()).decision.reason == "no_grant"
        open_ = stub.Watch(
            decision_pb2.WatchRequest(question=question("dataset/open")), metadata=pdp.metadata(BOB), timeout=30
        )
        assert (await open_.read()).decision.effect == types_pb2.EFFECT_ALLOW
        asset = {"name": "dataset/nowhere", "attributes": {"environment": "prod"}}
        await publish("assets", {"assets": [asset]}, author="user:ada")
        target = {"kind": "resource", "resource": "dataset/open"}
        await publish("lock", lock_payload(1, target=target), author="user:ada")
        assert (await open_.read()).decision.reason == "locked"  # who was allowed knows the asset
        await publish("assets", {"assets": [asset | {"attributes": {"environment": "dev"}}]}, author="user:ada")
        # The appearance came before this and was not told: it would have been a second `no_grant`.
        assert (await hidden.read()).decision.effect == types_pb2.EFFECT_ALLOW

    with_pdp(tmp_path, test)


def test_a_development_installation_says_every_reason(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path, assets=ASSETS) as pdp:
            stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
            request = decision_pb2.EvaluateRequest(question=question("dataset/nowhere"))
            answer = (await stub.Evaluate(request, metadata=pdp.metadata(BOB), timeout=10)).decision
            assert answer.reason == "asset_unregistered"
            assert isinstance(pdp.app.discretion, Discretion)

    asyncio.run(run())
