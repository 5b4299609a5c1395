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


@pytest.mark.holds("P5")
@pytest.mark.parametrize("call", [evaluate, batch, watch])
def test_a_caller_that_the_awaited_world_locks_out_is_told_nothing(
    tmp_path: Path, call: Callable[[RunningPdp, int], Coroutine[Any, Any, None]]
) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path, assets="dataset/open: {environment: dev}\n") as pdp:
            waiting, reach = asyncio.Event(), pdp.app.decider.reach

            async def noticed(at_least: int, wait_s: float) -> None:
                if at_least > pdp.app.replica.world.seq:
                    waiting.set()
                await reach(at_least, wait_s)

            pdp.app.decider.reach = noticed  # type: ignore[method-assign]
            asking = asyncio.create_task(call(pdp, pdp.app.replica.world.seq + 1))
            await asyncio.wait_for(waiting.wait(), PATIENCE_S)
            target = lock_pb2.LockTarget(principal=f"user:{GATE}")
            locks = lock_pb2_grpc.LockServiceStub(pdp.channel())
            await locks.Lock(lock_pb2.LockRequest(target=target), metadata=pdp.metadata(ADA), timeout=PATIENCE_S)
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await asking
            assert (error.value.code(), detail(error.value).reason) == (grpc.StatusCode.PERMISSION_DENIED, "locked")

    asyncio.run(run())
