"""A WebSocket through the real Envoy: decided at its handshake, decided again while it is open, and dropped when access ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from pdp.errors import Reason
from sidecar.envoy import Upstream
from sidecar.envoy_names import Address
from sidecar.routes import WEBSOCKET, Placement, Row, Scope, Served
from sidecar.routes.assembly import assemble
from tests.e2e.sidecar.conftest import PATIENCE_S, Lab, laboratory

SERVED = {
    "fraud": Served(resource="endpoint/fraud", model="model/fraud@12"),
    "newest": Served(resource="endpoint/fraud", model="model/fraud@12", upstream="fraud"),
}


def own(name: str, method: str, path: str, **changes: Any) -> Row:
    return Row(name=f"own.{name}", method=method, path=path, action="endpoint.invoke", **changes)


TABLE = assemble(
    served=SERVED,
    server="endpoint/all",
    protocols=("oip", "openai"),
    own=(
        own("page", "GET", "/live/{m}"),  # listed first: the handshake is a GET, too
        own("live", WEBSOCKET, "/live/{m}", placement=Placement.EXT_PROC, stream=True),
        own("talk", WEBSOCKET, "/talk", placement=Placement.EXT_PROC, scope=Scope.FIXED, resource="endpoint/voice"),
    ),
)
GOOD = {"authorization": "Bearer good"}
HANDSHAKE = (
    "host: m",
    "connection: Upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
)
HIDDEN = b"POST /v2/models/fraud/infer HTTP/1.1\r\nhost: m\r\ncontent-length: 0\r\n\r\n"


@dataclass
class Echo:
    """A WebSocket server that says back what it hears."""

    seen: list[Any] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, connection: ServerConnection) -> None:
        self.seen.append(connection.request)
        try:
            async for message in connection:
                await connection.send(message)
        finally:
            self.gone.set()


@asynccontextmanager
async def live(directory: Path) -> AsyncIterator[tuple[Lab, Echo, str]]:
    echo = Echo()
    async with serve(echo, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        upstream = Upstream(address=Address(host="127.0.0.1", port=port))
        async with laboratory(directory, table=TABLE, upstream=upstream) as lab:
            yield lab, echo, f"ws://{lab.address.host}:{lab.address.port}"


def run(directory: Path, body: Callable[[Lab, Echo, str], Awaitable[None]]) -> None:
    async def go() -> None:
        async with asyncio.timeout(3 * PATIENCE_S), live(directory) as (lab, echo, url):
            await body(lab, echo, url)

    asyncio.run(go())


async def dropped(socket: Any) -> ConnectionClosed:
    with pytest.raises(ConnectionClosed) as fault:
        await asyncio.wait_for(socket.recv(), PATIENCE_S)
    return fault.value


def test_a_session_is_decided_at_its_handshake_and_runs_to_its_end(tmp_path: Path) -> None:
    async def body(lab: Lab, echo: Echo, url: str) -> None:
        for path in ("/live/newest", "/talk"):
            async with connect(url + path, additional_headers=GOOD) as socket:
                await socket.send("words")
                assert await socket.recv() == "words"
            event, _, fields = await asyncio.wait_for(lab.decider.notes.get(), PATIENCE_S)
            assert event == "ended"
            assert fields["size_bytes"] > 0
        first, second = lab.decider.questions
        assert (str(first.resource), str(second.resource)) == ("endpoint/fraud", "endpoint/voice")
        assert first.attributes["request.protocol"] == "websocket"
        assert {"max_messages", "recheck_messages"} & first.supports == set()  # a tunnel: nobody counts its messages
        assert echo.seen[0].path == "/live/fraud"  # the alias, as the server knows it
        assert echo.seen[0].headers["x-pdp-subject"] == "user:bob@example.com"
        assert "authorization" not in echo.seen[0].headers

    run(tmp_path, body)


def test_a_refused_handshake_has_a_status_and_never_reaches_the_model(tmp_path: Path) -> None:
    async def body(lab: Lab, echo: Echo, url: str) -> None:
        async def status(path: str, headers: dict[str, str] | None = None) -> int:
            with pytest.raises(InvalidStatus) as fault:
                await connect(url + path, additional_headers=headers or GOOD)
            return fault.value.response.status_code

        assert await status("/live/fraud", {"authorization": "Bearer bad"}) == 401
        assert await status("/live/nobody") == 403
        assert await status("/nothing") == 403
        assert await status("/v1/realtime") == 403  # its model is named in a message, which nobody reads behind Envoy
        assert await status("/v2/models/fraud/ready") == 403  # a row, but none of a WebSocket
        for reason, code in ((Reason.NO_GRANT, 403), (Reason.WORLD_STALE, 503)):
            lab.decider.reason = reason
            assert await status("/live/fraud") == code
        assert echo.seen == []
        plain = await lab.get("/live/fraud")
        assert plain.startswith(b"HTTP/1.1 503")  # without an upgrade it is the GET row's, decided as that
        assert (await lab.get("/talk")).startswith(b"HTTP/1.1 403")

    run(tmp_path, body)


@pytest.mark.parametrize("announced", [True, False])
def test_a_revoked_session_is_dropped_without_a_close_frame(tmp_path: Path, *, announced: bool) -> None:
    async def body(lab: Lab, echo: Echo, url: str) -> None:
        lab.decider.recheck_after_s = None if announced else 0.5
        async with connect(url + "/live/fraud", additional_headers=GOOD) as socket:
            await socket.send("words")
            assert await socket.recv() == "words"
            lab.decider.reason = Reason.LOCKED
            if announced:
                await lab.rechecker.world_changed()
            assert (await dropped(socket)).rcvd is None  # 1006: no client takes it for a normal end
        await asyncio.wait_for(echo.gone.wait(), PATIENCE_S)
        event, answer_id, fields = await asyncio.wait_for(lab.decider.notes.get(), PATIENCE_S)
        assert (event, answer_id, fields["reason"]) == ("cut", "d1", "locked")

    run(tmp_path, body)


@pytest.mark.holds("F1")
def test_an_agent_that_dies_takes_the_session_along(tmp_path: Path) -> None:
    async def body(lab: Lab, echo: Echo, url: str) -> None:
        async with connect(url + "/live/fraud", additional_headers=GOOD) as socket:
            await socket.send("words")
            await socket.recv()
            assert lab.plane._grpc is not None
            await lab.plane._grpc.stop(grace=0)
            assert (await dropped(socket)).rcvd is None
        await asyncio.wait_for(echo.gone.wait(), PATIENCE_S)

    run(tmp_path, body)


@pytest.mark.holds("N9", "adv_connection_reuse")
def test_nothing_rides_along_with_a_handshake(tmp_path: Path) -> None:
    """Bytes behind the handshake are no request, and wait: a server that opens no WebSocket would read them as one."""

    async def body(lab: Lab, heard: list[bytes], answers: list[bytes]) -> None:
        def asked(target: str, *lines: str) -> bytes:
            fields = [f"GET {target} HTTP/1.1", "authorization: Bearer good", *lines]
            return "\r\n".join([*fields, "", ""]).encode() + HIDDEN

        lab.decider.reason = Reason.NO_GRANT
        assert b"403" in (await lab.raw(asked("/live/fraud", *HANDSHAKE))).split(b"\r\n")[0]
        lab.decider.reason = Reason.GRANTED
        for other in ("h2c", "websocket, h2c", "TLS/1.0", "foo"):
            lines = (line.replace("websocket", other) if line.startswith("upgrade") else line for line in HANDSHAKE)
            assert b" 101 " not in await lab.raw(asked("/live/fraud", *lines, "connection: close"))
        assert b"pgrade" not in b"".join(heard)  # at most the GET row's, without the upgrade
        assert HIDDEN not in b"".join(heard)
        heard.clear()
        answers.append(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        assert (await lab.raw(asked("/live/fraud", *HANDSHAKE))).startswith(b"HTTP/1.1 404")
        assert HIDDEN not in b"".join(heard)
        assert b"upgrade: websocket" in heard[0]

    async def go() -> None:
        heard: list[bytes] = []
        answers: list[bytes] = []

        async def model(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while chunk := await reader.read(65_536):
                heard.append(chunk)
                writer.write(answers[0] if answers else b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(model, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            upstream = Upstream(address=Address(host="127.0.0.1", port=port))
            async with asyncio.timeout(3 * PATIENCE_S), laboratory(tmp_path, table=TABLE, upstream=upstream) as lab:
                await body(lab, heard, answers)

    asyncio.run(go())
