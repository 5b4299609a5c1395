"""A Python model server that answers at once, bare or behind the middleware: `python -m tests.bench.asgi_app [guarded]`."""

import sys
from typing import Any

import uvicorn

from sidecar.asgi import PolicyMiddleware

_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"2")],
}
_BODY = {"type": "http.response.body", "body": b"{}"}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send(_START)
    await send(_BODY)


class _Server(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        print(f"ready listen={host}:{port}", flush=True)


if __name__ == "__main__":
    served = PolicyMiddleware(app) if "guarded" in sys.argv else app
    config = uvicorn.Config(
        served, host="127.0.0.1", port=0, loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )
    _Server(config).run()
