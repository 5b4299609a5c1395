"""A real uvicorn around a guarded application, in the test's own loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from pdp.errors import Reason
from sidecar.asgi import PolicyMiddleware
from sidecar.asgi_door import Door
from sidecar.gate import Gate
from sidecar.rechecks import Rechecker
from sidecar.routes import RouteTable
from tests.support.enforcement import Clock, Decider, identify


@dataclass
class Guarded:
    """A guarded application, and what its application saw."""

    url: str
    port: int
    decider: Decider
    rechecker: Rechecker
    app: "Model"

    async def revoke(self, reason: Reason = Reason.NO_GRANT) -> None:
        self.decider.reason = reason
        await self.rechecker.world_changed()


@dataclass
class Model:
    """An application that answers as the test says, and notices when it is cancelled."""

    answer: Callable[..., Any] | None = None
    scopes: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        self.scopes.append(scope)
        try:
            await (self.answer or self._echo)(scope, receive, send)
        except asyncio.CancelledError:
            self.gone.set()
            raise

    async def _echo(self, _scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.scopes[-1]["headers"]}


@contextlib.asynccontextmanager
async def guarded(table: RouteTable, **options: Any) -> AsyncIterator[Guarded]:
    """Serve a guarded `Model`."""
    decider, model = Decider(), Model()
    rechecker = Rechecker(decider=decider, time=Clock(), jitter=lambda: 0.0)
    door = Door(
        gate=Gate(table=table, identify=identify, decider=decider), rechecker=rechecker, notes=decider, time=Clock()
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # from here on a client can connect, whenever uvicorn comes to it
        port = listener.getsockname()[1]
        settings = {"log_level": "critical", "access_log": False, "ws": "websockets-sansio", **options}
        server = uvicorn.Server(uvicorn.Config(PolicyMiddleware(model, door=door), **settings))
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        timer = asyncio.create_task(rechecker.run())
        try:
            yield Guarded(f"http://127.0.0.1:{port}", port, decider, rechecker, model)
        finally:
            timer.cancel()
            server.should_exit = True
            server.force_exit = True
            await serving
