"""Nobody makes the PDP hold a message before the PDP knows who sends it."""

import asyncio
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from tests.support.pdp import running_pdp

PATIENCE_S = 10.0
DECLARED_BYTES = 12_000_000


@pytest.mark.holds("F20", "L4", "P11")
@pytest.mark.parametrize("path", ["/pdp.v1.PolicyService/Propose", "/pdp.v1.DecisionService/Watch"])
def test_a_message_that_never_ends_is_refused_at_its_first_byte(tmp_path: Path, path: str) -> None:
    """gRPC reads a lone message whole before it calls a handler, as much as its length says, and waits for ever."""

    async def run() -> None:
        async with running_pdp(tmp_path) as pdp:
            reader, writer = await asyncio.open_connection(pdp.address.host, pdp.address.port)
            client = h2.connection.H2Connection(config=h2.config.H2Configuration(client_side=True))
            client.initiate_connection()
            headers = {":method": "POST", ":scheme": "http", ":authority": "pdp", ":path": path}
            client.send_headers(1, list({**headers, "content-type": "application/grpc", "te": "trailers"}.items()))
            client.send_data(1, b"\0" + DECLARED_BYTES.to_bytes(4, "big") + b"begun")
            writer.write(client.data_to_send())
            async with asyncio.timeout(PATIENCE_S):
                status = ""
                while not status:
                    for event in client.receive_data(await reader.read(65_536)):
                        if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                            fields = {bytes(name): bytes(value) for name, value in event.headers}
                            status = fields.get(b"grpc-status", b"").decode()
                    writer.write(client.data_to_send())
            assert status == "16"  # UNAUTHENTICATED
            writer.close()

    asyncio.run(run())
