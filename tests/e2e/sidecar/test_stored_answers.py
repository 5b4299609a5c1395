"""`/v1/responses`: who was given an id reads the answer under it, through the real Envoy and in ASGI; nobody else does."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from pdp.model.names import Principal
from pdp.model.request import Party
from sidecar.routes import Served
from sidecar.routes.assembly import assemble
from tests.e2e.sidecar.conftest import PATIENCE_S, InLab
from tests.support.asgi_server import guarded

TABLE = assemble(served={"llama": Served(resource="endpoint/chat", model="model/llama@3")}, protocols=("openai",))
MADE = {"id": "resp_1", "object": "response", "status": "completed", "output": []}
CREATED = b'event: response.created\ndata: {"type": "response.created", "response": {"id": "resp_2"}}\n\n'
GOOD = {"authorization": "Bearer good"}
EVE = Party(principal=Principal.parse("user:eve@example.com"))


def test_behind_envoy(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        url = f"http://{lab.address.host}:{lab.address.port}/v1/responses"
        results = lab.plane._services[0]._gate.results
        results.note("resp_eve", chain=(EVE,), name="llama")
        lab.model.reply, lab.model.reply_type = json.dumps(MADE).encode(), b"application/json"
        async with httpx.AsyncClient(timeout=PATIENCE_S, headers=GOOD) as client:
            assert (await client.get(f"{url}/resp_1")).status_code == 403
            assert (await client.post(url, json={"model": "llama"})).json() == MADE
            assert (await client.get(f"{url}/resp_1")).json() == MADE
            assert (await client.post(f"{url}/resp_1/cancel")).status_code == 200
            goes_on = {"model": "llama", "previous_response_id": "resp_1"}
            assert (await client.post(url, json=goes_on)).status_code == 200
            seen = len(lab.model.seen)
            assert (await client.get(f"{url}/resp_eve")).status_code == 403
            assert (await client.post(f"{url}/resp_eve/cancel")).status_code == 403
            goes_on["previous_response_id"] = "resp_eve"
            assert (await client.post(url, json=goes_on)).status_code == 403
            assert (await client.get(f"{url}/resp_1", params={"stream": "true"})).status_code == 403
            assert len(lab.model.seen) == seen

            async def begin() -> None:
                exchange = await lab.model.streams.get()
                await exchange.start_stream()
                await exchange.emit(CREATED)

            beginning = asyncio.create_task(begin())
            async with client.stream("POST", url, json={"model": "llama", "stream": True}) as stream:
                await beginning
                assert await anext(stream.aiter_raw()) == CREATED
                assert (await client.get(f"{url}/resp_2")).status_code == 200  # while it runs
        assert str(lab.decider.questions[-1].action) == "endpoint.read_result"

    in_lab(body, table=TABLE)


@pytest.mark.parametrize("size", [5, 100_000])
def test_in_asgi(size: int) -> None:
    async def run() -> None:
        async with asyncio.timeout(3 * PATIENCE_S), guarded(TABLE) as server:
            made = json.dumps({**MADE, "output": ["x" * size]}).encode()

            async def answer(_scope: Any, _receive: Any, send: Any) -> None:
                await send(
                    {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
                )
                await send({"type": "http.response.body", "body": made[:20], "more_body": True})
                await send({"type": "http.response.body", "body": made[20:]})

            server.app.answer = answer
            async with httpx.AsyncClient(timeout=PATIENCE_S, headers=GOOD, base_url=server.url) as client:
                assert (await client.get("/v1/responses/resp_1")).status_code == 403
                assert (await client.post("/v1/responses", json={"model": "llama"})).content == made
                assert (await client.get("/v1/responses/resp_1")).content == made
                assert (await client.get("/v1/responses/resp_2")).status_code == 403

    asyncio.run(run())
