"""Waiting for a world gives nobody the rights of the world before it: what may be asked is decided after the wait."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import pytest

from pdp.v1 import decision_pb2, decision_pb2_grpc, lock_pb2, lock_pb2_grpc
from tests.support.pdp import ADA, BOB, GATE, RunningPdp, detail, running_pdp

PATIENCE_S = 10.0
ASKED = decision_pb2.Question(
    action="dataset.read",
    resource="dataset/open",
    supports_all=True,
    subject=decision_pb2.Subject(asserted=decision_pb2.AssertedSubject(principal=f"user:{BOB}")),
)


async def evaluate(pdp: RunningPdp, at_least: int) -> None:
    stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
    asked = decision_pb2.EvaluateRequest(question=ASKED, at_least=at_least)
    await stub.Evaluate(asked, metadata=pdp.metadata(GATE), timeout=PATIENCE_S)


async def batch(pdp: RunningPdp, at_least: int) -> None:
    stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
    asked = decision_pb2.EvaluateBatchRequest(questions=[ASKED], at_least=at_least)
    await stub.EvaluateBatch(asked, metadata=pdp.metadata(GATE), timeout=PATIENCE_S)


async def watch(pdp: RunningPdp, at_least: int) -> None:
    stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
    asked = decision_pb2.WatchRequest(question=ASKED, at_least=at_least)
    told = stub.Watch(asked, metadata=pdp.metadata(GATE), timeout=PATIENCE_S)
    assert await told.read() is grpc.aio.EOF


async def stream(pdp: RunningPdp, at_least: int) -> None:
    stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
    told = stub.EvaluateStream(metadata=pdp.metadata(GATE), timeout=PATIENCE_S)
    await told.write(decision_pb2.EvaluateBatchRequest(questions=[ASKED], at_least=at_least))
    assert await told.read() is grpc.aio.EOF


async def explain(pdp: RunningPdp, at_least: int) -> None:
    stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
    asked = decision_pb2.EvaluateRequest(question=ASKED, at_least=at_least)
    await stub.Explain(asked, metadata=pdp.metadata(GATE), timeout=PATIENCE_S)


async def subjects(pdp: RunningPdp, at_least: int) -> None:
    stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
    terms = decision_pb2.SearchTerms(at_least=at_least)
    asked = decision_pb2.SearchSubjectsRequest(action="dataset.read", resource="dataset/open", terms=terms)
    await stub.SearchSubjects(asked, metadata=pdp.metadata(ADA), timeout=PATIENCE_S)


async def resources(pdp: RunningPdp, at_least: int) -> None:
    stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
    asked = decision_pb2.SearchResourcesRequest(terms=decision_pb2.SearchTerms(at_least=at_least))
    await stub.SearchResources(asked, metadata=pdp.metadata(GATE), timeout=PATIENCE_S)


async def actions(pdp: RunningPdp, at_least: int) -> None:
    stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
    terms = decision_pb2.SearchTerms(at_least=at_least)
    asked = decision_pb2.SearchActionsRequest(resource="dataset/open", terms=terms)
    await stub.SearchActions(asked, metadata=pdp.metadata(GATE), timeout=PATIENCE_S)


CALLS = {
    **dict.fromkeys((evaluate, explain, batch, stream, watch, resources, actions), GATE),
    subjects: ADA,
}


def test_every_rpc_that_decides_is_called_here() -> None:
    """One that takes `at_least` and is not in the table would give nobody a reason to look."""
    service = decision_pb2.DESCRIPTOR.services_by_name["DecisionService"]
    assert len(CALLS) == len(service.methods)


@pytest.mark.holds("P5")
@pytest.mark.parametrize(("call", "who"), CALLS.items())
def test_a_caller_that_the_awaited_world_locks_out_is_told_nothing(
    tmp_path: Path, call: Callable[[RunningPdp, int], Coroutine[Any, Any, None]], who: str
) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path, assets="dataset/open: {environment: dev}\n") as pdp:
            waiting, reach = asyncio.Event(), pdp.app.decider.reach

            async def noticed(at_least: int, wait_s: float) -> bool:
                if at_least > pdp.app.replica.world.seq:
                    waiting.set()
                return await reach(at_least, wait_s)

            pdp.app.decider.reach = noticed  # type: ignore[method-assign]
            asking = asyncio.create_task(call(pdp, pdp.app.replica.world.seq + 1))
            await asyncio.wait_for(waiting.wait(), PATIENCE_S)
            target = lock_pb2.LockTarget(principal=f"user:{who}")
            locks = lock_pb2_grpc.LockServiceStub(pdp.channel())
            await locks.Lock(lock_pb2.LockRequest(target=target), metadata=pdp.metadata(ADA), timeout=PATIENCE_S)
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await asking
            assert (error.value.code(), detail(error.value).reason) == (grpc.StatusCode.PERMISSION_DENIED, "locked")

    asyncio.run(run())
