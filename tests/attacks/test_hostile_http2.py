"""L5: a client that abuses HTTP/2 costs a well-behaved one no answer, and the process lives.

Source: gRPC CVE-2023-1428, -4785, -33953, CVE-2024-7246, -11407; Rapid Reset CVE-2023-44487; grpc-go GHSA-hrxh-6v49-42gf;
Pomerium CVE-2021-39162. Zero-copy sends stay off: nothing of ours turns them on.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import pytest
from hyperframe.frame import ContinuationFrame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

from pdp.v1 import decision_pb2, decision_pb2_grpc
from tests.support.pdp import BOB
from tests.support.served import ServedPdp, served_pdp

ASSETS = "dataset/open: {environment: dev}\n"
ASK = decision_pb2.EvaluateRequest(
    question=decision_pb2.Question(action="dataset.read", resource="dataset/open", supports_all=True)
)
HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "pdp"),
    (":path", "/pdp.v1.DecisionService/Evaluate"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]
TURNS = 500

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def begun() -> h2.connection.H2Connection:
    configuration = h2.config.H2Configuration(client_side=True, validate_outbound_headers=False)
    connection = h2.connection.H2Connection(configuration)
    connection.initiate_connection()
    return connection


def rapid_reset(connection: h2.connection.H2Connection) -> bytes:
    sent = b""
    for _ in range(TURNS):
        stream = connection.get_next_available_stream_id()
        connection.send_headers(stream, HEADERS)
        sent += connection.data_to_send() + RstStreamFrame(stream, error_code=8).serialize()
        connection.reset_stream(stream)
        connection.data_to_send()
    return sent


def settings_flood(_connection: h2.connection.H2Connection) -> bytes:
    return SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65_535}).serialize() * TURNS


def ping_flood(_connection: h2.connection.H2Connection) -> bytes:
    return PingFrame(0, opaque_data=b"12345678").serialize() * TURNS


def headers_without_end(connection: h2.connection.H2Connection) -> bytes:
    block = connection.encoder.encode(HEADERS)
    first = HeadersFrame(1, data=block)
    return first.serialize() + ContinuationFrame(1, data=b"\x00\x01a\x01b" * 2_000).serialize() * 50


def hpack_bomb(connection: h2.connection.H2Connection) -> bytes:
    block = connection.encoder.encode([*HEADERS, ("x-bomb", "b" * 4_000)])
    again = b"\xbe" * 8_000  # one byte each: the entry that was just put into the table
    frame = HeadersFrame(1, data=(block + again)[:16_000])
    frame.flags.add("END_HEADERS")
    return frame.serialize()


def garbage_headers(_connection: h2.connection.H2Connection) -> bytes:
    frame = HeadersFrame(1, data=b"\xff" * 200)
    frame.flags.add("END_HEADERS")
    return frame.serialize()


def goodbye_and_on(connection: h2.connection.H2Connection) -> bytes:
    return GoAwayFrame(0, last_stream_id=0, error_code=0).serialize() + rapid_reset(connection)


async def attack(pdp: ServedPdp, made: Callable[[h2.connection.H2Connection], bytes]) -> None:
    """Send everything, then wait until the other side ends it or has said all it will for now."""
    host, _, port = pdp.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    connection = begun()
    with contextlib.suppress(ConnectionError, TimeoutError):
        writer.write(connection.data_to_send() + made(connection))
        await writer.drain()
        async with asyncio.timeout(0.3):
            while await reader.read(65_536):
                pass
    writer.close()


@pytest.mark.holds("L5", "adv_http2")
def test_hostile_frames_cost_a_well_behaved_client_no_answer(tmp_path: Path) -> None:
    kinds = (
        rapid_reset, settings_flood, ping_flood, headers_without_end, hpack_bomb, garbage_headers, goodbye_and_on,
    )  # fmt: skip

    async def work() -> None:
        async with served_pdp(tmp_path, assets=ASSETS) as pdp:
            stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
            how: dict[str, Any] = {"metadata": pdp.metadata(BOB), "timeout": 20}
            over = asyncio.Event()

            async def well_behaved() -> int:
                answers = 0
                while not over.is_set():
                    answer = (await stub.Evaluate(ASK, **how)).decision
                    # A machine that is busy enough may keep a record waiting for longer than an allow does.
                    assert answer.reason in ("granted", "audit_unavailable")
                    answers += 1
                return answers

            asking = asyncio.create_task(well_behaved())
            await asyncio.gather(*(attack(pdp, kind) for kind in kinds for _ in range(2)))
            over.set()
            assert await asking > 0
            assert (await stub.Evaluate(ASK, **how)).decision.effect == 1
            assert pdp.child is not None
            assert pdp.child.running

    asyncio.run(work())
