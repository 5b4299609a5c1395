"""The middleware under a real uvicorn: the same answers as behind Envoy, the same bytes, and a cut that is no success."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from pdp.errors import Reason
from pdp.model.decision import Obligation
from sidecar.asgi import PolicyMiddleware
from sidecar.asgi_door import VARIABLE
from sidecar.limits import LIMITS
from sidecar.routes import Served
from sidecar.routes.assembly import assemble
from tests.support.asgi_server import Guarded, guarded

PATIENCE_S = 10.0
SERVED = {
    "llama": Served(resource="endpoint/chat", model="model/llama@3"),
    "fraud": Served(resource="endpoint/fraud", model="model/fraud@12"),
    "latest": Served(resource="endpoint/fraud", model="model/fraud@12", upstream="fraud", pinned=True),
}
TABLE = assemble(served=SERVED, server="endpoint/all", protocols=("oip", "oip-grpc", "kserve-v1", "openai"))
CHAT, INFER, STREAM = "/v1/chat/completions", "/v2/models/fraud/infer", "/v2/models/fraud/generate_stream"
GOOD = {"authorization": "Bearer good", "content-type": "application/json"}
FOREIGN = {"x-pdp-subject": "user:eve", "x-envoy-a": "b", "X-Amzn-SageMaker-Adapter-Identifier": "another"}


def run(body: Callable[[Guarded, httpx.AsyncClient], Awaitable[None]], **options: Any) -> None:
    async def go() -> None:
        async with (
            asyncio.timeout(3 * PATIENCE_S),
            guarded(TABLE, **options) as server,
            httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client,
        ):
            await body(server, client)

    asyncio.run(go())


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_an_allowed_request_reaches_the_application_byte_for_byte(http: str) -> None:
    async def body(server: Guarded, client: httpx.AsyncClient) -> None:
        text = b'{ "model": "llama",  "messages": [] }'
        answer = await client.post(CHAT, content=text, headers={**GOOD, **FOREIGN})
        assert (answer.status_code, answer.content) == (200, text)
        assert server.app.bodies == [text]
        headers = server.app.headers
        assert headers["x-pdp-subject"] == "user:bob@example.com"
        assert headers["x-pdp-decision-id"] == "d1"
        assert not {"authorization", "x-envoy-a", "x-amzn-sagemaker-adapter-identifier"} & set(headers)
        assert await asyncio.wait_for(server.decider.notes.get(), PATIENCE_S) == (
            "ended",
            "d1",
            {"messages": 1, "size_bytes": len(text)},
        )

    run(body, http=http)


def test_refusals_are_the_same_as_behind_envoy() -> None:
    async def body(server: Guarded, client: httpx.AsyncClient) -> None:
        missing = await client.post(INFER)
        assert missing.status_code == 401
        assert missing.headers["www-authenticate"] == "Bearer"
        for path in ("/", "/docs", "/v2/models/other/infer", "/V2/models/fraud/infer", "/v1/models", INFER + "?a=b"):
            assert (await client.post(path, headers=GOOD)).status_code == 403, path
        server.decider.reason = Reason.WORLD_STALE
        assert (await client.post(INFER, headers=GOOD)).status_code == 503
        server.decider.reason = Reason.NO_GRANT
        assert (await client.post(INFER, headers=GOOD)).json()["reason"] == "forbidden"
        assert server.app.scopes == []

    run(body)


@pytest.mark.parametrize(
    "fields",
    [
        {"x_pdp_subject": "user:eve"},
        {"x-envoy-auth-failure-mode-allowed": "true"},
        {"authorization": "Bearer good,Bearer other"},
    ],
)
def test_headers_that_could_mislead_are_refused(fields: dict[str, str]) -> None:
    async def body(server: Guarded, client: httpx.AsyncClient) -> None:
        assert (await client.post(INFER, headers={**GOOD, **fields})).status_code in {401, 403}
        assert server.app.scopes == []

    run(body)


def test_a_workload_comes_by_token_and_never_by_header() -> None:
    async def body(server: Guarded, client: httpx.AsyncClient) -> None:
        forged = f'Hash={"0" * 64};Cert="-----BEGIN";URI=spiffe://demo.portcullis/eve'
        assert (await client.post(INFER, headers={**GOOD, "x-forwarded-client-cert": forged})).status_code == 200
        assert str(server.decider.questions[0].workload).endswith("/without")
        assert "x-forwarded-client-cert" not in server.app.headers

    run(body)


@pytest.mark.parametrize(
    "target",
    [
        "/v2/models/fraud%2Finfer",
        "/v2//models/fraud/infer",
        "/v2/models/../models/fraud/infer",
        "/v2/models/fr%61ud/infer",
        "/v2/models/fraud/infer;x",
        "/v2/models/%C0%AE/infer",
        "//v2/models/fraud/infer",
    ],
)
def test_second_spellings_do_not_reach_the_application(target: str) -> None:
    async def body(server: Guarded, _: httpx.AsyncClient) -> None:
        answer = await raw(server, f"POST {target} HTTP/1.1")
        assert answer.split(b" ")[1] in {b"400", b"403"}
        assert server.app.scopes == []

    run(body)


async def raw(server: Guarded, line: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    fields = "host: m\r\nauthorization: Bearer good\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    writer.write(f"{line}\r\n{fields}".encode("latin-1"))
    answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
    writer.close()
    return answer


@pytest.mark.parametrize(
    "scope",
    [
        {"path": INFER},
        {"path": "/other", "raw_path": INFER.encode()},
        {"path": INFER, "raw_path": INFER.encode() + b"?x"},
    ],
)
def test_a_server_that_hides_the_raw_path_is_refused(scope: dict[str, Any]) -> None:
    async def go() -> None:
        async with guarded(TABLE) as server:
            sent: list[Any] = []

            async def send(message: Any) -> None:
                sent.append(message)

            async def receive() -> Any:
                return {"type": "http.request", "body": b""}

            door = await keeper(server).door(0)
            assert door is not None
            middleware = PolicyMiddleware(server.app, door=door)
            headers = [(b"authorization", b"Bearer good")]
            await middleware(
                {"type": "http", "method": "POST", "query_string": b"", "headers": headers, **scope}, receive, send
            )
            assert sent[0]["status"] == 403
            assert server.app.scopes == []

    asyncio.run(go())


def keeper(server: Guarded) -> Any:
    """Make a door of this server's parts."""
    from sidecar.asgi_door import Door, Doorkeeper  # noqa: PLC0415 - only here
    from sidecar.gate import Gate  # noqa: PLC0415
    from tests.support.enforcement import Clock, identify  # noqa: PLC0415

    gate = Gate(table=TABLE, identify=identify, decider=server.decider)
    return Doorkeeper(Door(gate=gate, rechecker=server.rechecker, notes=server.decider, time=Clock()))


def test_a_body_above_the_limit_is_refused() -> None:
    async def body(server: Guarded, client: httpx.AsyncClient) -> None:
        text = b'{"model":"llama","x":"' + b"x" * LIMITS.body_bytes + b'"}'
        assert (await client.post(CHAT, content=text, headers=GOOD)).status_code == 403
        assert server.app.scopes == []

    run(body)


def test_an_alias_and_a_clamp_go_on_as_decided() -> None:
    async def body(server: Guarded, client: httpx.AsyncClient) -> None:
        await client.post("/v2/models/latest/infer", headers=GOOD, json={})
        assert server.app.scopes[0]["path"] == "/v2/models/fraud/versions/12/infer"
        assert server.app.scopes[0]["raw_path"] == b"/v2/models/fraud/versions/12/infer"
        server.decider.obligations = (Obligation(name="max_tokens", value="10"),)
        await client.post(CHAT, headers=GOOD, json={"model": "llama", "max_tokens": 99})
        assert json.loads(server.app.bodies[-1]) == {"model": "llama", "max_tokens": 10}
        assert server.app.headers["content-length"] == str(len(server.app.bodies[-1]))

    run(body)


def test_a_reply_is_stripped_whole() -> None:
    async def body(server: Guarded, client: httpx.AsyncClient) -> None:
        server.decider.obligations = (Obligation(name="strip_outputs", value="logprobs"),)
        answer = await client.post(CHAT, headers=GOOD, json={"model": "llama", "x": {"token_logprobs": [1]}})
        assert answer.json() == {"model": "llama", "x": {"token_logprobs": None}}

    run(body)


def stream_of(server: Guarded, *, kind: bytes = b"text/event-stream") -> asyncio.Queue[bytes | None]:
    """Let the application stream what the test puts into the queue; None ends it."""
    chunks: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def answer(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        while (chunk := await chunks.get()) is not None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    server.app.answer = answer
    return chunks


async def broken(
    client: httpx.AsyncClient, path: str, body: Any, on_first: Callable[[], Awaitable[None]] | None = None
) -> bytes:
    """Read a stream that breaks, do something when its first chunk has come, and return all that came."""
    received = b""
    try:
        async with client.stream("POST", path, headers=GOOD, json=body) as answer:
            async for chunk in answer.aiter_raw():
                if not received and on_first is not None:
                    await on_first()
                received += chunk
    except httpx.RemoteProtocolError:
        return received
    raise AssertionError("the stream ended")


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_a_revoked_stream_ends_with_an_error_event_and_incomplete(http: str) -> None:
    async def body(server: Guarded, client: httpx.AsyncClient) -> None:
        chunks = stream_of(server)
        chunks.put_nowait(b'data: {"i":0}\n\n')
        received = await broken(client, CHAT, {"model": "llama", "stream": True}, server.revoke)
        assert json.loads(received.split(b"data: ")[-1])["error"]["code"] == "forbidden"
        await asyncio.wait_for(server.app.gone.wait(), PATIENCE_S)
        event, _, fields = await asyncio.wait_for(server.decider.notes.get(), PATIENCE_S)
        assert (event, fields["reason"]) == ("cut", "no_grant")
        assert len(server.rechecker) == 0

    run(body, http=http)


def test_a_revoked_download_is_incomplete() -> None:
    async def body(server: Guarded, client: httpx.AsyncClient) -> None:
        chunks = stream_of(server, kind=b"application/octet-stream")
        chunks.put_nowait(b"half")
        assert await broken(client, STREAM, {}, server.revoke) == b"half"
        await asyncio.wait_for(server.app.gone.wait(), PATIENCE_S)

    run(body)


def test_a_cut_before_the_response_is_a_refusal() -> None:
    async def body(server: Guarded, client: httpx.AsyncClient) -> None:
        started = asyncio.Event()

        async def answer(*_: Any) -> None:
            started.set()
            await asyncio.Event().wait()

        server.app.answer = answer
        waiting = asyncio.create_task(client.post(INFER, headers=GOOD))
        await asyncio.wait_for(started.wait(), PATIENCE_S)
        await server.revoke()
        assert (await waiting).status_code == 403
        await asyncio.wait_for(server.app.gone.wait(), PATIENCE_S)

    run(body)


def test_an_application_that_swallows_its_cancellation_says_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.asgi_scope.LIMITS", replace(LIMITS, stop_s=0.05))

    async def body(server: Guarded, client: httpx.AsyncClient) -> None:
        async def answer(_scope: Any, _receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"before", "more_body": True})
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await send({"type": "http.response.body", "body": b"after", "more_body": False})

        server.app.answer = answer
        assert await broken(client, STREAM, {}, server.revoke) == b"before"

    run(body)


def test_a_client_that_leaves_ends_the_session() -> None:
    async def body(server: Guarded, client: httpx.AsyncClient) -> None:
        async def answer(_scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass

        server.app.answer = answer
        async with client.stream("POST", STREAM, headers=GOOD) as reply:
            async for _ in reply.aiter_raw():
                break
        assert (await asyncio.wait_for(server.decider.notes.get(), PATIENCE_S))[0] == "ended"
        assert len(server.rechecker) == 0

    run(body)


def test_the_chunk_that_is_one_too_many_cuts() -> None:
    async def body(server: Guarded, client: httpx.AsyncClient) -> None:
        server.decider.obligations = (Obligation(name="max_messages", value="1"),)
        chunks = stream_of(server)
        for number in range(3):
            chunks.put_nowait(b"data: %d\n\n" % number)
        received = await broken(client, STREAM, {})
        assert received.startswith(b"data: 0\n\ndata: {")

    run(body)


def test_without_its_settings_everything_is_denied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A gate that cannot be set up is closed, and the server it stands in goes on."""
    seen: list[Any] = []

    async def app(*given: Any) -> None:
        seen.append(given)

    async def go() -> int:
        transport = httpx.ASGITransport(PolicyMiddleware(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://m") as client:
            return (await client.post(INFER, headers=GOOD)).status_code

    monkeypatch.delenv(VARIABLE, raising=False)
    assert asyncio.run(go()) == 503
    (tmp_path / "sidecar.yaml").write_text("pdp: {}\n")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "sidecar.yaml"))
    assert asyncio.run(go()) == 503
    assert seen == []
