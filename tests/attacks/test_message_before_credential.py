"""Nobody makes the PDP hold a message before the PDP knows who sends it, and nobody one that is larger than any it takes."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import psutil
import pytest

from tests.support.pdp import ADA, RunningPdp, running_pdp

PATIENCE_S = 30.0
DECLARED_BYTES = 12_000_000
FLAT_BYTES = 64 << 20
"""Far more than a test grows by, far less than a message of 1 GiB."""


async def begun(pdp: RunningPdp, path: str, declared: int, metadata: Sequence[tuple[str, str]] = ()) -> str:
    """Begin a message that says it has `declared` bytes, send a few of them, and return the status of gRPC that follows."""
    reader, writer = await asyncio.open_connection(pdp.address.host, pdp.address.port)
    client = h2.connection.H2Connection(config=h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    headers = {":method": "POST", ":scheme": "http", ":authority": "pdp", ":path": path}
    client.send_headers(1, [*headers.items(), ("content-type", "application/grpc"), ("te", "trailers"), *metadata])
    client.send_data(1, b"\0" + declared.to_bytes(4, "big") + b"begun")
    writer.write(client.data_to_send())
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for event in client.receive_data(await reader.read(65_536)):
                    if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                        fields = {bytes(name): bytes(value) for name, value in event.headers}
                        if b"grpc-status" in fields:
                            return fields[b"grpc-status"].decode()
                writer.write(client.data_to_send())
    finally:
        writer.close()


@pytest.mark.holds("F20", "L4", "P11")
@pytest.mark.parametrize("path", ["/pdp.v1.PolicyService/Propose", "/pdp.v1.DecisionService/Watch"])
def test_a_message_that_never_ends_is_refused_at_its_first_byte(tmp_path: Path, path: str) -> None:
    """gRPC reads a lone message whole before it calls a handler, as much as its length says, and waits for ever."""

    async def run() -> None:
        async with running_pdp(tmp_path) as pdp:
            assert await begun(pdp, path, DECLARED_BYTES) == "16"  # UNAUTHENTICATED

    asyncio.run(run())


@pytest.mark.holds("F20", "P11")
def test_a_frame_that_declares_a_gibibyte_is_refused_by_its_length(tmp_path: Path) -> None:
    """Whoever sends it: a good credential buys no room for what no message of ours has."""

    async def run() -> None:
        async with running_pdp(tmp_path) as pdp:
            before = psutil.Process().memory_info().rss
            for path in ("/pdp.v1.DecisionService/Evaluate", "/pdp.v1.DecisionService/EvaluateStream"):
                assert await begun(pdp, path, 1 << 30, pdp.metadata(ADA)) == "8", path  # RESOURCE_EXHAUSTED
                assert await begun(pdp, path, 1 << 30) in {"8", "16"}, path
            assert psutil.Process().memory_info().rss - before < FLAT_BYTES

    asyncio.run(run())
