"""F21: callers that say nothing, or one byte at a time, end by a timeout of ours and keep nobody else out."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import pytest

from pdp.adapters import prompt_http
from pdp.limits import HANDSHAKE_S, PROBE_CONNECTIONS
from pdp.server import transport
from pdp.v1 import decision_pb2, decision_pb2_grpc
from tests.support.pdp import BOB, RunningPdp, running_pdp

ASSETS = "dataset/open: {environment: dev}\n"
ASK = decision_pb2.EvaluateRequest(
    question=decision_pb2.Question(action="dataset.read", resource="dataset/open", supports_all=True)
)
CROWD = 100

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@contextlib.asynccontextmanager
async def crowd(host: str, port: int, said: bytes, size: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Open connections that begin something and go no further."""
    made = [await asyncio.open_connection(host, port) for _ in range(size)]
    for _, writer in made:
        writer.write(said)
    try:
        yield [reader for reader, _ in made]
    finally:
        for _, writer in made:
            writer.close()


async def ended(readers: list[asyncio.StreamReader]) -> None:
    """Return once the other side has ended every connection; whoever never does, meets the test's own timeout."""
    for reader in readers:
        with contextlib.suppress(ConnectionError):
            await reader.read(-1)


def probes_of(pdp: RunningPdp) -> tuple[str, int]:
    parts = urlsplit(pdp.probes)
    return str(parts.hostname), int(parts.port or 0)


@pytest.mark.holds("F21")
@pytest.mark.parametrize("said", [b"", b"GET /readyz HTT", b"GET /readyz HTTP/1.1\r\nhost: x\r\nx-drip: 1\r\n"])
def test_a_probe_that_never_asks_is_ended_and_the_others_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(prompt_http, "PROBE_REQUEST_S", 0.5)

    async def run() -> None:
        async with running_pdp(tmp_path) as pdp, httpx.AsyncClient(timeout=20) as client:
            async with crowd(*probes_of(pdp), said, CROWD) as readers:
                assert (await client.get(f"{pdp.probes}/readyz")).status_code == 200
                await ended(readers)
            assert (await client.get(f"{pdp.probes}/readyz")).status_code == 200

    asyncio.run(run())


@pytest.mark.holds("F21")
def test_probes_are_answered_again_once_a_crowd_beyond_the_limit_has_been_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_http, "PROBE_REQUEST_S", 0.5)

    async def run() -> None:
        async with running_pdp(tmp_path) as pdp, httpx.AsyncClient(timeout=20) as client:
            async with crowd(*probes_of(pdp), b"G", PROBE_CONNECTIONS + 10) as readers:
                await ended(readers)
            assert (await client.get(f"{pdp.probes}/readyz")).status_code == 200

    asyncio.run(run())


@pytest.mark.holds("F21")
@pytest.mark.parametrize("said", [b"", b"PRI * HTTP/2", b"GET / HTTP/1.1\r\nhost: x\r\n"])
def test_a_caller_that_never_becomes_one_is_ended_at_the_grpc_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    soon = [(name, 500 if name == "grpc.server_handshake_timeout_ms" else value) for name, value in transport._OPTIONS]
    assert ("grpc.server_handshake_timeout_ms", HANDSHAKE_S * 1000) in transport._OPTIONS
    monkeypatch.setattr(transport, "_OPTIONS", soon)

    async def run() -> None:
        async with running_pdp(tmp_path, assets=ASSETS) as pdp:
            stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
            how: dict[str, Any] = {"metadata": pdp.metadata(BOB), "timeout": 10}
            async with crowd(pdp.address.host, pdp.address.port, said, CROWD) as readers:
                assert (await stub.Evaluate(ASK, **how)).decision.effect == 1
                await ended(readers)

    asyncio.run(run())


@pytest.mark.holds("F20", "F21")
def test_a_message_that_drips_ends_at_the_deadline_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdp.server.grpc.interceptors.MAX_DEADLINE_S", 0.3)

    async def run() -> None:
        async with running_pdp(tmp_path, assets=ASSETS) as pdp:
            call = pdp.channel().stream_unary("/pdp.v1.DecisionService/Evaluate")(metadata=pdp.metadata(BOB))
            with pytest.raises(grpc.aio.AioRpcError) as error:  # it begins a call and never sends its message
                await call
            assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    asyncio.run(run())
