"""WebSockets under a real uvicorn: refused at the handshake, decided by the first message, and closed with 1008."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from pdp.errors import Reason
from pdp.model.decision import Obligation
from sidecar.routes import WEBSOCKET, Placement, Row, Served
from sidecar.routes.assembly import assemble
from tests.support.asgi_server import Guarded, guarded

PATIENCE_S = 10.0
SERVED = {
    "whisper": Served(resource="endpoint/voice", model="model/whisper@3"),
    "other": Served(resource="endpoint/other", model="model/other@1"),
}
OWN = (
    Row(
        name="own.live",
        method=WEBSOCKET,
        path="/live/{m}",
        action="endpoint.invoke",
        placement=Placement.ASGI,
        stream=True,
    ),
)
TABLE = assemble(served=SERVED, protocols=("openai",), own=OWN)
GOOD = {"authorization": "Bearer good"}
NAMED = json.dumps({"type": "session.update", "session": {"model": "whisper"}})


def run(body: Callable[[Guarded, str], Awaitable[None]]) -> None:
    async def go() -> None:
        async with asyncio.timeout(3 * PATIENCE_S), guarded(TABLE) as server:
            server.app.answer = echo
            await body(server, server.url.replace("http", "ws"))

    asyncio.run(go())


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": json.dumps({"type": "session.created"})})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message.get("text") or "bytes"})


async def closed(socket: Any) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as fault:
        await asyncio.wait_for(drained(socket), PATIENCE_S)
    assert fault.value.rcvd is not None
    return fault.value.rcvd.code, fault.value.rcvd.reason


async def drained(socket: Any) -> None:
    while True:
        await socket.recv()


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [("/v1/realtime", {}, 401), ("/live/whisper", {}, 401), ("/nothing", GOOD, 403), ("/live/nobody", GOOD, 403)],
)
def test_a_handshake_is_refused_with_its_status(path: str, headers: dict[str, str], status: int) -> None:
    async def body(server: Guarded, url: str) -> None:
        with pytest.raises(InvalidStatus) as fault:
            await connect(url + path, additional_headers=headers)
        assert fault.value.response.status_code == status
        assert server.app.scopes == []

    run(body)


def test_the_path_may_decide_and_every_message_counts() -> None:
    async def body(server: Guarded, url: str) -> None:
        server.decider.obligations = (Obligation(name="max_messages", value="2"),)
        async with connect(url + "/live/whisper", additional_headers=GOOD) as socket:
            await socket.recv()
            await socket.send("one")
            assert await socket.recv() == "one"
            await socket.send("two")
            assert (await closed(socket))[0] == 1008
        question = server.decider.questions[0]
        assert (str(question.resource), question.attributes["request.protocol"]) == ("endpoint/voice", "websocket")
        assert server.app.headers["x-pdp-decision-id"] == "d1"

    run(body)


def test_the_first_message_names_the_model() -> None:
    async def body(server: Guarded, url: str) -> None:
        async with connect(url + "/v1/realtime", additional_headers=GOOD) as socket:
            assert json.loads(await socket.recv()) == {"type": "session.created"}
            await socket.send(NAMED)
            assert await socket.recv() == NAMED
            await socket.send(b"sound")
            assert await socket.recv() == "bytes"
            await socket.send('{"type":"commit"}')
            assert await socket.recv() == '{"type":"commit"}'
        assert str(server.decider.questions[0].resource) == "endpoint/voice"
        assert server.decider.questions[0].attributes["request.protocol"] == "websocket"
        event, _, fields = await asyncio.wait_for(server.decider.notes.get(), PATIENCE_S)
        assert (event, fields["messages"]) == ("ended", 4)

    run(body)


@pytest.mark.parametrize(
    "first", [b"sound", "text", '{"type":"commit"}', NAMED.replace("whisper", "nobody"), '{"model":[1]}']
)
def test_nothing_is_asked_before_a_model_is_named(first: str | bytes) -> None:
    async def body(server: Guarded, url: str) -> None:
        async with connect(url + "/v1/realtime", additional_headers=GOOD) as socket:
            await socket.send(first)
            assert (await closed(socket))[0] == 1008
        assert server.decider.questions == []
        assert len(server.decider.refusals) == 1

    run(body)


@pytest.mark.parametrize("later", [NAMED.replace("whisper", "other"), '{"model":"a","model":"b"}', "no json"])
def test_a_later_message_for_another_model_closes(later: str) -> None:
    async def body(server: Guarded, url: str) -> None:
        async with connect(url + "/v1/realtime", additional_headers=GOOD) as socket:
            await socket.send(NAMED)
            await socket.send(later)
            assert (await closed(socket))[0] == 1008
        await asyncio.wait_for(server.app.gone.wait(), PATIENCE_S)

    run(body)


def test_an_answer_before_the_question_closes() -> None:
    async def body(server: Guarded, url: str) -> None:
        async def talkative(_scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": '{"type":"secret"}'})
            await asyncio.Event().wait()

        server.app.answer = talkative
        async with connect(url + "/v1/realtime", additional_headers=GOOD) as socket:
            assert (await closed(socket))[0] == 1008

    run(body)


@pytest.mark.parametrize("path", ["/v1/realtime", "/live/whisper"])
def test_a_revoked_socket_is_closed_with_1008_and_the_application_cancelled(path: str) -> None:
    async def body(server: Guarded, url: str) -> None:
        async with connect(url + path, additional_headers=GOOD) as socket:
            await socket.send(NAMED)
            await socket.recv()
            await socket.recv()
            await server.revoke(Reason.LOCKED)
            assert await closed(socket) == (1008, "access ended: forbidden")
        await asyncio.wait_for(server.app.gone.wait(), PATIENCE_S)
        event, _, fields = await asyncio.wait_for(server.decider.notes.get(), PATIENCE_S)
        assert (event, fields["reason"]) == ("cut", "locked")

    run(body)
