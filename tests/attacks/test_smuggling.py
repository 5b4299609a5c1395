"""Requests inside requests, and requests that never end, through the real Envoy: the model sees what was decided, and no more."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest

from pdp.errors import Reason
from sidecar import envoy, ext_proc
from sidecar.limits import LIMITS
from sidecar.routes import Served
from sidecar.routes.assembly import assemble
from tests.e2e.sidecar.conftest import PATIENCE_S, InLab, in_lab

__all__ = ["in_lab"]  # the fixture

TABLE = assemble(
    served={"fraud": Served(resource="endpoint/fraud", model="model/fraud@12")}, protocols=("oip", "openai")
)
INFER, CHAT = "/v2/models/fraud/infer", "/v1/chat/completions"
HEAD = f"POST {INFER} HTTP/1.1\r\nhost: model\r\nauthorization: Bearer good\r\n"
HIDDEN = "GET /admin HTTP/1.1\r\nhost: model\r\nx-smuggled: yes\r\n\r\n"

SMUGGLED = {
    "both lengths": f"{HEAD}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}",
    "two lengths": f"{HEAD}content-length: 0\r\ncontent-length: {len(HIDDEN)}\r\n\r\n{HIDDEN}",
    "a list of lengths": f"{HEAD}content-length: 0, {len(HIDDEN)}\r\n\r\n{HIDDEN}",
    "a length with a sign": f"{HEAD}content-length: +0\r\n\r\n{HIDDEN}",
    "a length in hex": f"{HEAD}content-length: 0x0\r\n\r\n{HIDDEN}",
    "a negative length": f"{HEAD}content-length: -1\r\n\r\n{HIDDEN}",
    "a space before the colon": f"{HEAD}content-length : {len(HIDDEN)}\r\n\r\n{HIDDEN}",
    "an unknown coding": f"{HEAD}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{HIDDEN}",
    "a coding twice": f"{HEAD}transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n{HIDDEN}",
    "a coding behind a tab": f"{HEAD}transfer-encoding:\tchunked, identity\r\n\r\n0\r\n\r\n{HIDDEN}",
    "a folded header": f"{HEAD}x-a: b\r\n content-length: {len(HIDDEN)}\r\ncontent-length: 0\r\n\r\n{HIDDEN}",
    "a bare line feed": HEAD.replace("\r\n", "\n") + f"content-length: 0\n\n{HIDDEN}",
    "a chunk longer than it says": f"{HEAD}transfer-encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n{HIDDEN}",
    "a chunk of a negative size": f"{HEAD}transfer-encoding: chunked\r\n\r\n-1\r\n\r\n{HIDDEN}",
    "a chunk of an endless size": f"{HEAD}transfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\n\r\n{HIDDEN}",
    "a NUL in a header": f"{HEAD}x-a: b\0c\r\ncontent-length: 0\r\n\r\n{HIDDEN}",
    "a carriage return in a header": f"{HEAD}x-a: b\rcontent-length: {len(HIDDEN)}\r\ncontent-length: 0\r\n\r\n{HIDDEN}",
    "a header with no name": f"{HEAD}: b\r\ncontent-length: 0\r\n\r\n{HIDDEN}",
    "a length named by connection": f"{HEAD}connection: content-length, close\r\ncontent-length: {len(HIDDEN)}\r\n\r\n{HIDDEN}",
    "an upgrade to HTTP/2": f"{HEAD}connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    f"content-length: 0\r\n\r\n{HIDDEN}",
    "an upgrade to a WebSocket": f"{HEAD}connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 0\r\n\r\n{HIDDEN}",
    "a tunnel": f"CONNECT model:80 HTTP/1.1\r\nhost: model\r\nauthorization: Bearer good\r\n\r\n{HIDDEN}",
    "the oldest protocol": f"GET {INFER}\r\n\r\n{HIDDEN}",
    "an unknown version": HEAD.replace("HTTP/1.1", "HTTP/1.9") + f"content-length: 0\r\n\r\n{HIDDEN}",
    "an early end": f"{HEAD}expect: 100-continue\r\ncontent-length: 5\r\n\r\n{HIDDEN}",
}


@pytest.mark.holds("N2", "N9", "adv_connection_reuse")
def test_a_request_hidden_in_another_never_reaches_the_model(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        for name, text in SMUGGLED.items():
            lab.model.seen.clear()
            await spoken(lab, text.encode("latin-1"))
            seen = [exchange for exchange in lab.model.seen if "x-last" not in exchange.headers]
            for exchange in seen:
                assert exchange.head.startswith(f"POST {INFER} HTTP/1.1\r\n"), name
                assert "x-smuggled" not in exchange.headers, name
                assert exchange.headers["x-pdp-decision-id"], name
            assert len(seen) <= 1, name

    in_lab(body, table=TABLE)


LAST = f"{HEAD}x-last: yes\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
SILENCE_S = 0.5  # where the request swallowed the last one, nothing more comes


async def spoken(lab: Any, text: bytes) -> bytes:
    """Say `text`, and one last request that closes; return all that comes back."""
    reader, writer = await asyncio.open_connection(lab.address.host, lab.address.port)
    writer.write(text + LAST.encode())
    heard = b""
    try:
        async with asyncio.timeout(SILENCE_S):
            while piece := await reader.read(65_536):
                heard += piece
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.close()
    return heard


@pytest.mark.holds("N9", "adv_connection_reuse")
def test_each_of_many_pipelined_requests_is_decided_by_itself(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        one = f"{HEAD}content-length: 0\r\n\r\n"
        denied = one.replace("Bearer good", "Bearer bad")
        answer = await spoken(lab, (one + denied + one + denied).encode())
        assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"401", b"200", b"401", b"200"]
        assert len(lab.model.seen) == 3

    in_lab(body, table=TABLE)


@pytest.mark.holds("N6", "N7", "adv_forwarded", "adv_bypass_header", "adv_hop_by_hop")
def test_no_header_opens_the_gate_or_hides_one_of_ours(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        for line in (
            *("connection: x-pdp-subject", "connection: authorization", "connection: x-pdp-decision-id, close"),
            *(
                "x-forwarded-for: 127.0.0.1",
                "x-real-ip: 127.0.0.1",
                "user-agent: kube-probe/1.30",
                "x-envoy-internal: true",
            ),
            *(
                "x-envoy-auth-failure-mode-allowed: true",
                "x-envoy-original-path: /healthz",
                "te: trailers, authorization",
            ),
        ):
            lab.model.seen.clear()
            assert b" 401 " in (await lab.post(INFER, line, token=None)).split(b"\r\n")[0], line
            assert lab.model.seen == [], line
            await lab.post(INFER, line)
            for exchange in lab.model.seen:
                assert exchange.headers["x-pdp-subject"] == "user:bob@example.com", line
                assert exchange.headers["x-pdp-decision-id"], line

    in_lab(body, table=TABLE)


@pytest.mark.holds("P2")
def test_a_slow_client_is_ended_and_its_neighbour_served(in_lab: InLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slowloris: headers that never end, and a body that trickles; a well-behaved client is served meanwhile."""
    monkeypatch.setattr(envoy, "LIMITS", replace(LIMITS, request_headers_s=0.5))
    monkeypatch.setattr(ext_proc, "LIMITS", replace(LIMITS, request_body_s=0.5))

    async def body(lab: Any) -> None:
        slow = [await opened(lab, HEAD.encode()) for _ in range(50)]
        chat = HEAD.replace(INFER, CHAT) + "content-type: application/json\r\ncontent-length: 50\r\n\r\n{"
        trickling = [await opened(lab, chat.encode()) for _ in range(20)]
        assert b" 200 " in (await lab.post(INFER)).split(b"\r\n")[0]
        for reader, writer in slow:
            assert (await ended(reader, writer)).startswith(b"HTTP/1.1 408")
        for reader, writer in trickling:
            assert (await ended(reader, writer)).startswith(b"HTTP/1.1 403")
        assert len(lab.model.seen) == 1
        assert (Reason.BAD_REQUEST, "the body took too long") in lab.decider.refusals

    in_lab(body, table=TABLE)


async def opened(lab: Any, start: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(lab.address.host, lab.address.port)
    writer.write(start)
    await writer.drain()
    return reader, writer


async def ended(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    answer = await asyncio.wait_for(reader.read(200), PATIENCE_S)
    writer.close()
    return answer


@pytest.mark.holds("adv_http2", "L5")
def test_a_flood_of_resets_leaves_a_well_behaved_client_served(in_lab: InLab) -> None:
    """Rapid reset: Envoy bounds the streams of a connection, and what is reset is neither decided for long nor forwarded."""

    async def body(lab: Any) -> None:
        reader, writer = await asyncio.open_connection(lab.address.host, lab.address.port)
        hostile = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        hostile.initiate_connection()
        fields = [
            *((":method", "POST"), (":path", INFER), (":scheme", "http"), (":authority", "model")),
            ("authorization", "Bearer good"),
        ]
        for stream in range(1, 2_000, 2):
            hostile.send_headers(stream, fields)
            hostile.reset_stream(stream)
        writer.write(hostile.data_to_send())
        await writer.drain()
        for _ in range(5):
            assert b" 200 " in (await lab.post(INFER)).split(b"\r\n")[0]
        writer.close()
        del reader

    in_lab(body, table=TABLE)


def test_oversized_headers_are_refused_before_anyone_decides(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        many = [f"x-h{number}: v" for number in range(LIMITS.headers_count + 50)]
        assert b" 431 " in (await lab.post(INFER, *many)).split(b"\r\n")[0]
        assert b" 431 " in (await lab.post(INFER, "x-long: " + "a" * 70_000)).split(b"\r\n")[0]
        assert lab.decider.questions == []
        assert lab.model.seen == []

    in_lab(body, table=TABLE)
