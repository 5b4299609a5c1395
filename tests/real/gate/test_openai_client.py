"""The real `openai` client behind both placements: a refusal is its own error, and a cut raises, never ends quietly."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real_server
openai = pytest.importorskip("openai", reason="needs the environment of `make test-real`")
pytest.importorskip("envoy", reason="needs the extra `sidecar`")

from pdp.errors import Reason  # noqa: E402 - after the skip
from sidecar.routes import Served  # noqa: E402
from sidecar.routes.assembly import assemble  # noqa: E402
from tests.e2e.sidecar.conftest import laboratory  # noqa: E402
from tests.support.asgi_server import guarded  # noqa: E402

PATIENCE_S = 10.0
TABLE = assemble(served={"llama": Served(resource="endpoint/chat", model="model/llama@3")}, protocols=("openai",))
MESSAGES = [{"role": "user", "content": "hi"}]
Revoke = Callable[[Reason], Awaitable[None]]


def event(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    said = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "llama", "choices": [choice]}
    return f"data: {json.dumps(said)}\n\n".encode()


@asynccontextmanager
async def behind_envoy(directory: Path, *, flowing: bool) -> AsyncIterator[tuple[str, Revoke]]:
    async with laboratory(directory, table=TABLE) as lab:

        async def speak() -> None:
            exchange = await lab.model.streams.get()
            await exchange.start_stream()
            await exchange.emit(event("first"))
            while flowing:
                await exchange.emit(event("more"))
                await asyncio.sleep(0.01)  # the pace of the stream
            await asyncio.Event().wait()

        speaking = asyncio.create_task(speak())
        yield f"http://{lab.address.host}:{lab.address.port}/v1", lab.revoke
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)


@asynccontextmanager
async def in_process(_: Path, *, flowing: bool) -> AsyncIterator[tuple[str, Revoke]]:
    async with guarded(TABLE) as server:

        async def answer(_scope: Any, _receive: Any, send: Any) -> None:
            headers = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": event("first"), "more_body": True})
            while flowing:
                await send({"type": "http.response.body", "body": event("more"), "more_body": True})
                await asyncio.sleep(0.01)  # the pace of the stream
            await asyncio.Event().wait()

        server.app.answer = answer
        yield f"{server.url}/v1", server.revoke


PLACEMENTS = {"envoy": behind_envoy, "asgi": in_process}


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("flowing", [True, False])
def test_a_cut_raises(placement: str, tmp_path: Path, *, flowing: bool) -> None:
    async def go() -> None:
        async with (
            asyncio.timeout(3 * PATIENCE_S),
            PLACEMENTS[placement](tmp_path, flowing=flowing) as (url, revoke),
            openai.AsyncOpenAI(base_url=url, api_key="good", max_retries=0, timeout=PATIENCE_S) as client,
        ):
            stream = await client.chat.completions.create(model="llama", messages=MESSAGES, stream=True)
            said = await anext(stream)
            assert said.choices[0].delta.content == "first"
            await revoke(Reason.NO_GRANT)
            fault = await broken(stream)
            if flowing or placement == "asgi":  # there an event can always go out
                assert isinstance(fault, openai.APIError)
                assert "access ended: forbidden" in str(fault)

    asyncio.run(go())


async def broken(stream: Any) -> Exception:
    try:
        async for _ in stream:
            pass
    except Exception as fault:  # noqa: BLE001 - which one it is, is what the test asks
        return fault
    raise AssertionError("the stream ended quietly")


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_refusal_is_the_clients_own_error(placement: str, tmp_path: Path) -> None:
    async def go() -> None:
        async with asyncio.timeout(3 * PATIENCE_S), PLACEMENTS[placement](tmp_path, flowing=False) as (url, revoke):
            async with openai.AsyncOpenAI(base_url=url, api_key="bad", max_retries=0) as stranger:
                with pytest.raises(openai.AuthenticationError):
                    await stranger.chat.completions.create(model="llama", messages=MESSAGES)
            async with openai.AsyncOpenAI(base_url=url, api_key="good", max_retries=0) as client:
                with pytest.raises(openai.PermissionDeniedError):
                    await client.chat.completions.create(model="nobody", messages=MESSAGES)
                await revoke(Reason.WORLD_STALE)
                with pytest.raises(openai.InternalServerError):
                    await client.chat.completions.create(model="llama", messages=MESSAGES)

    asyncio.run(go())
