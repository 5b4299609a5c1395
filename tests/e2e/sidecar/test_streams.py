"""ext_proc behind the real Envoy: a running response is cut when access ends, idle or flowing, and the model is told."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from pdp.errors import Reason
from sidecar.ext_proc import End, Stream

STREAM = "/v2/models/fraud/generate_stream"
PATIENCE_S = 10.0


def request(token: str = "good") -> bytes:  # noqa: S107 - a word, not a secret
    return (
        f"POST {STREAM} HTTP/1.1\r\nhost: model\r\nauthorization: Bearer {token}\r\ncontent-length: 2\r\n\r\n{{}}"
    ).encode()


async def opened(lab: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Any]:
    """Start a stream over HTTP/1.1; return the client's ends and the upstream's."""
    reader, writer = await asyncio.open_connection(lab.address.host, lab.address.port)
    writer.write(request())
    exchange = await asyncio.wait_for(lab.model.streams.get(), PATIENCE_S)
    await exchange.start_stream()
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
    assert head.startswith(b"HTTP/1.1 200")
    return reader, writer, exchange


async def noted(lab: Any) -> tuple[str, str, dict[str, Any]]:
    return await asyncio.wait_for(lab.decider.notes.get(), PATIENCE_S)


def test_a_stream_runs_to_its_end(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        reader, writer, exchange = await opened(lab)
        await exchange.emit(b"data: 1\n\n")
        assert b"data: 1\n\n" in await reader.readuntil(b"\n\n\r\n")
        await exchange.finish()
        assert await reader.readuntil(b"0\r\n\r\n")
        event, answer_id, fields = await noted(lab)
        assert (event, answer_id, fields["size_bytes"]) == ("ended", "d1", 9)
        assert exchange.headers["x-pdp-subject"] == "user:bob@example.com"
        assert "authorization" not in exchange.headers
        assert len(lab.rechecker) == 0
        writer.close()

    in_lab(body)


def test_a_refused_stream_never_reaches_the_model(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        for reason, code in ((Reason.NO_GRANT, b"403"), (Reason.WORLD_STALE, b"503"), (Reason.TOKEN_EXPIRED, b"401")):
            lab.decider.reason = reason
            answer = await lab.raw(request().replace(b"host: model", b"host: model\r\nconnection: close"))
            assert answer.split(b" ")[1] == code
        assert lab.model.seen == []

    in_lab(body)


def test_an_idle_stream_is_cut_at_once_and_the_upstream_cancelled(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        reader, writer, exchange = await opened(lab)
        await lab.revoke()
        rest = await asyncio.wait_for(reader.read(), PATIENCE_S)
        assert not rest.endswith(b"0\r\n\r\n")  # no final chunk: not a success
        await asyncio.wait_for(exchange.gone.wait(), PATIENCE_S)
        event, answer_id, fields = await noted(lab)
        assert (event, answer_id, fields["reason"]) == ("cut", "d1", "no_grant")
        writer.close()

    in_lab(body)


def test_a_flowing_stream_ends_with_an_error_event_instead_of_the_next_chunk(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        reader, writer, exchange = await opened(lab)
        flowing = asyncio.create_task(flow(exchange))
        await reader.readuntil(b"data: 3")
        await lab.revoke()
        rest = await asyncio.wait_for(reader.read(), PATIENCE_S)
        assert b'data: {"error": "access ended: forbidden"}\n\n' in rest
        assert not rest.endswith(b"0\r\n\r\n")
        await asyncio.wait_for(exchange.gone.wait(), PATIENCE_S)
        assert (await noted(lab))[0] == "cut"
        flowing.cancel()
        writer.close()

    in_lab(body)


async def flow(exchange: Any) -> None:
    for number in range(100_000):
        await exchange.emit(b"data: %d\n\n" % number)
        await asyncio.sleep(0.01)  # the pace of the stream, not a wait for anything


@pytest.mark.parametrize("idle", [True, False])
def test_a_cut_over_http2_is_a_reset(in_lab: Callable[..., None], *, idle: bool) -> None:
    async def body(lab: Any) -> None:
        url = f"http://{lab.address.host}:{lab.address.port}{STREAM}"
        received = bytearray()
        started = asyncio.Event()

        async def consume() -> None:
            async with (
                httpx.AsyncClient(http1=False, http2=True, timeout=PATIENCE_S) as client,
                client.stream("POST", url, headers={"authorization": "Bearer good"}, content=b"{}") as response,
            ):
                assert response.status_code == 200
                async for chunk in response.aiter_raw():
                    received.extend(chunk)
                    started.set()

        consumer = asyncio.create_task(consume())
        exchange = await asyncio.wait_for(lab.model.streams.get(), PATIENCE_S)
        await exchange.start_stream()
        await exchange.emit(b"data: first\n\n")
        await asyncio.wait_for(started.wait(), PATIENCE_S)
        flowing = None if idle else asyncio.create_task(flow(exchange))
        await lab.revoke()
        with pytest.raises(httpx.RemoteProtocolError):
            await asyncio.wait_for(consumer, PATIENCE_S)
        if not idle:
            assert received.endswith(b'data: {"error": "access ended: forbidden"}\n\n')
        await asyncio.wait_for(exchange.gone.wait(), PATIENCE_S)
        if flowing:
            flowing.cancel()

    in_lab(body)


def test_a_cut_before_the_response_begins_is_a_status(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        answer = asyncio.create_task(lab.raw(request().replace(b"host: model", b"host: model\r\nconnection: close")))
        exchange = await asyncio.wait_for(lab.model.streams.get(), PATIENCE_S)
        await lab.revoke(Reason.LOCKED)
        assert (await answer).startswith(b"HTTP/1.1 403")
        await asyncio.wait_for(exchange.gone.wait(), PATIENCE_S)

    in_lab(body)


def test_a_client_that_leaves_cancels_the_upstream_and_the_session(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        _, writer, exchange = await opened(lab)
        writer.close()
        await asyncio.wait_for(exchange.gone.wait(), PATIENCE_S)
        assert (await noted(lab))[0] == "ended"
        await asyncio.wait_for(lab.rechecker.idle(), PATIENCE_S)

    in_lab(body)


def test_a_stream_route_needs_its_agent(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        await lab.plane._grpc.stop(grace=0)
        answer = await lab.raw(request().replace(b"host: model", b"host: model\r\nconnection: close"))
        assert answer.startswith(b"HTTP/1.1 503")
        assert lab.model.seen == []

    in_lab(body)


def test_the_timer_cuts_what_the_policy_bounds(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        lab.decider.recheck_after_s = 0.5
        reader, writer, exchange = await opened(lab)
        lab.decider.reason = Reason.NO_GRANT  # nobody announces it: the re-check finds it
        await asyncio.wait_for(reader.read(), PATIENCE_S)
        await asyncio.wait_for(exchange.gone.wait(), PATIENCE_S)
        writer.close()

    in_lab(body)


@pytest.mark.holds("F1")
def test_an_agent_that_dies_mid_stream_fails_closed(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        reader, writer, exchange = await opened(lab)
        await exchange.emit(b"data: 1\n\n")
        await reader.readuntil(b"\n\n\r\n")
        await lab.plane._grpc.stop(grace=0)
        rest = await asyncio.wait_for(reader.read(), PATIENCE_S)
        assert not rest.endswith(b"0\r\n\r\n")
        await asyncio.wait_for(exchange.gone.wait(), PATIENCE_S)
        writer.close()

    in_lab(body)


@pytest.mark.holds("N11")
def test_a_defect_in_the_handler_fails_closed(in_lab: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    async def returns_early(self: Stream) -> End:
        """Answer nothing and come back as if all were well."""
        del self
        return None  # type: ignore[return-value]

    monkeypatch.setattr(Stream, "run", returns_early)

    async def body(lab: Any) -> None:
        answer = await lab.raw(request().replace(b"host: model", b"host: model\r\nconnection: close"))
        assert answer.startswith(b"HTTP/1.1 503")
        assert lab.model.seen == []

    in_lab(body)
