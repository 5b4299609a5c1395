"""A stream of the PDP lasts no longer than the right to it: whatever the moment in which the right ends."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from pdp.v1 import audit_pb2, audit_pb2_grpc, lock_pb2, lock_pb2_grpc
from tests.support.pdp import ADA, ROWS, RunningPdp, detail, running_pdp

AUD = "aud@demo.portcullis"
PATIENCE_S = 10.0


async def ended(call: Any) -> grpc.aio.AioRpcError:
    """Read a stream to its end, which must be an error."""

    async def drain() -> None:
        while await call.read() is not grpc.aio.EOF:
            pass

    with pytest.raises(grpc.aio.AioRpcError) as error:
        await asyncio.wait_for(drain(), PATIENCE_S)
    return error.value


def follow(pdp: RunningPdp) -> Any:
    return audit_pb2_grpc.AuditServiceStub(pdp.channel()).Read(
        audit_pb2.ReadRequest(follow=True), metadata=pdp.metadata(AUD)
    )


def test_a_lock_that_comes_while_the_allow_is_recorded_ends_the_stream(tmp_path: Path) -> None:
    """Between the decision and the moment at which the stream is followed no new world may be missed."""

    async def run() -> None:
        async with running_pdp(tmp_path, rows=f"{ROWS}g, user:{AUD}, role:auditor, prod\n") as pdp:
            decided, go_on = asyncio.Event(), asyncio.Event()
            record = pdp.app.trail.record

            async def slow(records: Sequence[Any], *, durable: bool) -> None:
                await record(records, durable=durable)
                if any(item.get("action") == "audit.read" for item in records):
                    decided.set()
                    await go_on.wait()

            pdp.app.trail.record = slow  # type: ignore[method-assign]
            call = follow(pdp)
            await asyncio.wait_for(decided.wait(), PATIENCE_S)
            target = lock_pb2.LockTarget(principal=f"user:{AUD}")
            locks = lock_pb2_grpc.LockServiceStub(pdp.channel())
            await locks.Lock(lock_pb2.LockRequest(target=target), metadata=pdp.metadata(ADA), timeout=PATIENCE_S)
            go_on.set()
            error = await ended(call)
            assert (error.code(), detail(error).reason) == (grpc.StatusCode.PERMISSION_DENIED, "locked")

    asyncio.run(run())


def test_a_role_that_ends_by_time_ends_the_stream_it_opened(tmp_path: Path) -> None:
    """The end of a role is no entry of the log: no new world tells of it."""
    until = datetime.fromtimestamp(time.time() + 3, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    async def run() -> None:
        async with running_pdp(tmp_path, rows=f"{ROWS}g, user:{AUD}, role:auditor, prod, _, {until}\n") as pdp:
            error = await ended(follow(pdp))
            assert (error.code(), detail(error).reason) == (grpc.StatusCode.PERMISSION_DENIED, "no_grant")

    asyncio.run(run())
