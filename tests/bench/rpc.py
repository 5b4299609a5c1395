"""EvaluateBatch through TLS to one PDP process, every allow durably recorded, beside a bare echo of the same messages.

The echo is the same gRPC library in a process of its own: it parses the request, and answers with as many ready-made
decisions. What is left between the two is ours: credentials, questions, decisions, records.
"""

import asyncio
import datetime as dt
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import grpc
import grpc.aio

from pdp.demo.stage import Stage, set_stage
from pdp.demo.story import FRONTEND, SAM, Token
from pdp.v1 import decision_pb2, decision_pb2_grpc
from tests.bench.report import Figure

SIZES = (1, 10, 100)
CALLS_AT_ONCE = 8
DURATION_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to send batches: an address, how to open a channel to it, and the metadata of each call."""

    address: str
    open: Callable[[str], grpc.aio.Channel]
    metadata: tuple[tuple[str, str], ...] = ()


def measure() -> list[Figure]:
    """Return decisions per second at each batch size, ours and the echo's."""
    figures: list[Figure] = []
    with set_stage(lambda _what: nullcontext(), now=dt.datetime.now(dt.UTC)) as stage, _echo_process() as echo:
        for size in SIZES:
            request = _request(size)
            theirs = asyncio.run(_rate(Target(address=echo, open=grpc.aio.insecure_channel), request))
            ours = asyncio.run(_rate(_pdp(stage), request))
            name = f"bare echo, batches of {size}"
            figures.append(Figure(name=name, value=theirs, unit="items/s"))
            figures.append(
                Figure(
                    name=f"EvaluateBatch, batches of {size}",
                    value=ours,
                    unit="decisions/s",
                    versus=name,
                    ratio=ours / theirs,
                )
            )
    return figures


def _request(size: int) -> decision_pb2.EvaluateBatchRequest:
    question = decision_pb2.Question(action="endpoint.invoke", resource="endpoint/digits-prod", supports_all=True)
    return decision_pb2.EvaluateBatchRequest(questions=[question] * size)


def _pdp(stage: Stage) -> Target:
    credential = stage.pki.workloads[FRONTEND]
    tls = grpc.ssl_channel_credentials(
        stage.pki.bundle.read_bytes(), credential.key.read_bytes(), credential.certificate.read_bytes()
    )
    token = stage.tokens[SAM, Token.FRESH].read_text().strip()
    return Target(
        address=stage.pdp_address,
        open=lambda address: grpc.aio.secure_channel(address, tls),
        metadata=(("authorization", f"Bearer {token}"),),
    )


async def _rate(target: Target, request: decision_pb2.EvaluateBatchRequest) -> float:
    """Return items per second with `CALLS_AT_ONCE` calls under way."""
    async with target.open(target.address) as channel:
        stub = decision_pb2_grpc.DecisionServiceStub(channel)
        first = await stub.EvaluateBatch(request, metadata=target.metadata, timeout=30)
        if any(decision.effect != 1 for decision in first.decisions):
            sys.exit(f"bench: expected allows, got {first.decisions[0].reason}; a figure for it would mean nothing")
        end = time.perf_counter() + DURATION_S

        async def worker() -> int:
            done = 0
            while time.perf_counter() < end:
                answer = await stub.EvaluateBatch(request, metadata=target.metadata, timeout=30)
                done += len(answer.decisions)
            return done

        start = time.perf_counter()
        total = sum(await asyncio.gather(*(worker() for _ in range(CALLS_AT_ONCE))))
        return total / (time.perf_counter() - start)


@contextmanager
def _echo_process() -> Iterator[str]:
    with subprocess.Popen([sys.executable, "-m", "tests.bench.rpc"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


class _Echo(decision_pb2_grpc.DecisionServiceServicer):
    async def EvaluateBatch(self, request: decision_pb2.EvaluateBatchRequest, context: object) -> object:  # noqa: N802, ARG002
        decision = decision_pb2.Decision(effect=1, reason="granted", world_seq=7, decision_id="0" * 32)
        return decision_pb2.EvaluateBatchResponse(decisions=[decision] * len(request.questions))


async def _serve_echo() -> None:
    server = grpc.aio.server()
    decision_pb2_grpc.add_DecisionServiceServicer_to_server(_Echo(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve_echo())
