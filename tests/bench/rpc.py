"""EvaluateBatch through mutual TLS to one PDP process, beside bare echoes of the same messages in the same run.

An echo is the same gRPC library behind the same TLS in a process of its own. The bare echo, beside which all others are
shown, is a handler in Python that reads each question and makes each answer, those that the PDP gave. The copy of ready-made
answers is made in C, so that no decision costs it a line of Python. What is left between the first
and us is ours: credentials, questions, decisions, records. One PDP answers an allow when its record is on disk; the other
writes the same records and does not wait (`audit.durable: false`, a degradation). One process drives them all, with the same
calls at once, and needs a processor core of its own.
"""

import asyncio
import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from pdp.v1 import decision_pb2, decision_pb2_grpc
from tests.bench.report import Figure
from tests.bench.rpc_stage import Ground, batches, echoing, prepared, serving

SIZES = (1, 10, 100, 1_000)
DIFFERENT = 20_000
"""Questions that differ from each other, in the requests of each size."""
CALLS_AT_ONCE = 8
DURATION_S = 3.0
ROUNDS = 3
LONE_CALLS = 2_000
MIXED = (0.5, 0.95)
"""Between which shares of a run's questions must be allowed: other shares would tell of another world."""

Request = decision_pb2.EvaluateBatchRequest
Stub: Any = decision_pb2_grpc.DecisionServiceStub


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One of the servers compared: what its figures are called, and where it is."""

    name: str
    unit: str
    address: str


def measure() -> list[Figure]:
    """Return decisions per second at each batch size, ours and the echoes', and the time of one Evaluate."""
    with (
        prepared() as ground,
        serving(ground, "pdp") as durable,
        serving(ground, "hasty", {"PDP_AUDIT__DURABLE": "false"}) as hasty,
    ):
        answer = asyncio.run(_first(ground, durable))
        with echoing(ground, answer, "handler") as echo, echoing(ground, answer, "copy") as copy:
            servers = (
                Server(name="bare echo", unit="items/s", address=echo),
                Server(name="ready-made answers copied in C", unit="items/s", address=copy),
                Server(name="EvaluateBatch, allows not waiting for their record", unit="decisions/s", address=hasty),
                Server(name="EvaluateBatch, every allow durable", unit="decisions/s", address=durable),
            )
            figures = [figure for size in SIZES for figure in _of_size(ground, servers, size)]
            return figures + asyncio.run(_lone(ground, durable))


def _of_size(ground: Ground, servers: Sequence[Server], size: int) -> list[Figure]:
    """Return the rate of each server, beside the first one's; they take turns, and the median of all but the first counts."""
    requests = batches(size, max(1, DIFFERENT // size))
    # In the first turn names are read and a policy is asked for the first time: what is shown has served for a while.
    _, *turns = [
        [asyncio.run(_rate(ground, server.address, requests)) for server in servers] for _ in range(1 + ROUNDS)
    ]
    rates = [statistics.median(column) for column in zip(*turns, strict=True)]
    names = [f"{server.name}, batches of {size:,}" for server in servers]
    found = [Figure(name=names[0], value=rates[0], unit=servers[0].unit)]
    for server, name, rate in zip(servers[1:], names[1:], rates[1:], strict=True):
        found.append(Figure(name=name, value=rate, unit=server.unit, versus=names[0], ratio=rate / rates[0]))
    return found


async def _first(ground: Ground, address: str) -> decision_pb2.EvaluateBatchResponse:
    """Ask the PDP once and return its answer, if it is the mixture that the figures are about."""
    async with grpc.aio.secure_channel(address, ground.credentials()) as channel:
        (request,) = batches(max(SIZES), 1)
        answer: decision_pb2.EvaluateBatchResponse = await Stub(channel).EvaluateBatch(request, timeout=30)
    share = sum(decision.effect for decision in answer.decisions) / len(answer.decisions)
    if not MIXED[0] < share < MIXED[1]:
        sys.exit(f"bench: {share:.0%} of the questions are allowed; a figure for it would mean nothing")
    return answer


async def _rate(ground: Ground, address: str, requests: Sequence[Request]) -> float:
    """Return items per second with `CALLS_AT_ONCE` calls under way."""
    async with grpc.aio.secure_channel(address, ground.credentials()) as channel:
        stub, turn = Stub(channel), itertools.cycle(requests)
        await stub.EvaluateBatch(next(turn), timeout=30)
        start = time.perf_counter()
        end = start + DURATION_S

        async def worker() -> int:
            done = 0
            while time.perf_counter() < end:
                answer = await stub.EvaluateBatch(next(turn), timeout=30)
                done += len(answer.decisions)
            return done

        total = sum(await asyncio.gather(*(worker() for _ in range(CALLS_AT_ONCE))))
        return total / (time.perf_counter() - start)


async def _lone(ground: Ground, address: str) -> list[Figure]:
    """Return how long one Evaluate takes while no other is asked."""
    questions = batches(LONE_CALLS, 1)[0].questions
    taken = []
    async with grpc.aio.secure_channel(address, ground.credentials()) as channel:
        stub = Stub(channel)
        for question in questions:
            start = time.perf_counter()
            await stub.Evaluate(decision_pb2.EvaluateRequest(question=question), timeout=30)
            taken.append((time.perf_counter() - start) * 1000)
    cuts = statistics.quantiles(taken, n=100)
    name = "one Evaluate at a time, every allow durable"
    return [
        Figure(name=f"{name}: p50", value=cuts[49], unit="ms"),
        Figure(name=f"{name}: p99", value=cuts[98], unit="ms"),
    ]
