"""One PDP with thousands of `Watch` streams over real gRPC: a change decides again those that it concerns, and nobody else."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pdp.errors import Reason
from pdp.server.callers import Caller, Right
from pdp.v1 import decision_pb2, decision_pb2_grpc, lock_pb2, lock_pb2_grpc, types_pb2
from tests.support.pdp import ADA, GATE, RunningPdp, running_pdp

ASSETS = "dataset/open: {environment: dev}\n"
AT_ONCE = 50
"""Streams that are being opened at one time."""
ROWS = f"""
g, user:{GATE}, role:enforcement-point, prod
g, user:{GATE}, role:gateway, prod
g, group:readers, role:data-scientist, dev
"""


class Many:
    """Watches of as many people on one dataset, each of them allowed at first."""

    def __init__(self, pdp: RunningPdp, number: int) -> None:
        self.pdp = pdp
        self._stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
        self._metadata = pdp.metadata(GATE)
        self._number = number
        self.streams: list[Any] = []

    async def open(self) -> None:
        for first in range(0, self._number, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, self._number))
            opened = [self._stub.Watch(self._request(n), metadata=self._metadata, timeout=300) for n in numbers]
            assert await told(opened) == ["granted"] * len(opened)
            self.streams += opened

    def _request(self, number: int) -> decision_pb2.WatchRequest:
        asserted = decision_pb2.AssertedSubject(principal=person(number), groups=["group:readers"])
        question = decision_pb2.Question(
            subject=decision_pb2.Subject(asserted=asserted),
            action="dataset.read",
            resource="dataset/open",
            attributes={"request.purpose": types_pb2.Value(string_value="training")},
            supports_all=True,
        )
        return decision_pb2.WatchRequest(question=question)

    async def lock(self, **target: str) -> None:
        request = lock_pb2.LockRequest(target=lock_pb2.LockTarget(**target), reason="test")
        stub = lock_pb2_grpc.LockServiceStub(self.pdp.channel())
        await stub.Lock(request, metadata=self.pdp.metadata(ADA), timeout=60)


def looks(pdp: RunningPdp) -> list[str]:
    """Return a list that tells each look at whether the caller of a stream still holds its right."""
    looked: list[str] = []
    lost = pdp.app.gate.lost

    def looking(caller: Caller, wanted: Right) -> Reason | None:
        looked.append(caller.name)
        return lost(caller, wanted)

    pdp.app.gate.lost = looking  # type: ignore[method-assign]
    return looked


def person(number: int) -> str:
    return f"user:person{number}@demo.portcullis"


async def told(streams: Sequence[Any]) -> list[str]:
    """Return the reason that each stream tells next; a decision log that is slow for a moment is not what we look at."""
    return await asyncio.gather(*map(_told, streams))


async def _told(stream: Any) -> str:
    reason = (await stream.read()).decision.reason
    while reason == Reason.AUDIT_UNAVAILABLE:
        reason = (await stream.read()).decision.reason
    return str(reason)


@pytest.mark.parametrize("number", [100, pytest.param(5_000, marks=[pytest.mark.nightly, pytest.mark.timeout(300)])])
def test_of_many_watches_a_change_decides_again_those_it_concerns(tmp_path: Path, number: int) -> None:
    async def work() -> None:
        async with running_pdp(tmp_path, rows=ROWS, assets=ASSETS) as pdp:
            many = Many(pdp, number)
            await many.open()
            watches, looked = pdp.app.watches, looks(pdp)
            assert (len(watches), watches.woken) == (number, 0)
            for turn, chosen in enumerate((0, number // 2, number - 1), start=1):
                await many.lock(principal=person(chosen))
                assert await told([many.streams[chosen]]) == ["locked"]
                assert watches.woken == turn
            assert looked == []  # nor was the right of the one caller behind all these streams
            # What the others hear next is the change that concerns them all: nothing came before it.
            await many.lock(resource="dataset/open")
            left = [stream for n, stream in enumerate(many.streams) if n not in {0, number // 2, number - 1}]
            assert await told(left) == ["locked"] * (number - 3)
            assert watches.woken == 3 + number
            for stream in many.streams:
                stream.cancel()
            async with asyncio.timeout(60):
                while len(watches):  # noqa: ASYNC110 - that a caller has gone is told to nobody
                    await asyncio.sleep(0.01)

    asyncio.run(work())
