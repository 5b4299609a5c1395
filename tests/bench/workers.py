"""One worker beside two: the same batches over the same connections, from a process that needs a core of its own.

On two cores the second worker has what the load generator and the kernel leave of the second core; what more cores give is to be
measured on them.
"""

import asyncio
import itertools
import statistics
import time
from contextlib import ExitStack

import grpc

from pdp.v1 import decision_pb2_grpc
from tests.bench.report import Figure
from tests.bench.rpc_stage import Ground, batches, prepared, serving

CONNECTIONS = 8
BATCH = 10
DIFFERENT = 500
DURATION_S = 2.0
ROUNDS = 3


def measure() -> list[Figure]:
    """Return decisions per second of one worker and of two, by turns."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    with prepared() as ground, ExitStack() as stack:
        address = {
            count: stack.enter_context(serving(ground, f"workers-{count}", {"PDP_WORKERS": str(count)}))
            for count in rates
        }
        for _ in range(ROUNDS):
            for count, found in rates.items():
                found.append(asyncio.run(_rate(ground, address[count])))
    one, two = (statistics.median(found) for found in rates.values())
    name = f"EvaluateBatch of {BATCH}, every allow durable, 1 worker"
    return [
        Figure(name=name, value=one, unit="decisions/s"),
        Figure(name="the same, 2 workers", value=two, unit="decisions/s", versus=name, ratio=two / one),
    ]


async def _rate(ground: Ground, address: str) -> float:
    """Return decisions per second over `CONNECTIONS` connections, which the kernel spreads over the workers."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    channels = [grpc.aio.secure_channel(address, ground.credentials(), options=options) for _ in range(CONNECTIONS)]
    turn = itertools.cycle(batches(BATCH, DIFFERENT))
    end = 0.0

    async def ask(channel: grpc.aio.Channel) -> int:
        stub, done = decision_pb2_grpc.DecisionServiceStub(channel), 0  # type: ignore[no-untyped-call]
        while time.perf_counter() < end:
            done += len((await stub.EvaluateBatch(next(turn), timeout=30)).decisions)
        return done

    try:
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        start = time.perf_counter()
        end = start + DURATION_S
        total = sum(await asyncio.gather(*map(ask, channels)))
        return total / (time.perf_counter() - start)
    finally:
        for channel in channels:
            await channel.close()
