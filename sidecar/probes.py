"""`/healthz`, `/readyz` and `/metrics` of one sidecar, on their own port (FAILURE.md N7)."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import uvicorn

from pdp.adapters.prompt_http import PromptProtocol
from pdp.errors import ConfigError
from sidecar.envoy_names import Address

Scope = Mapping[str, Any]


def bound_socket(address: Address, *, option: str) -> socket.socket:
    """Return a listening socket.

    Raises:
        ConfigError: The address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host, address.port))
        listener.listen()
    except OSError as fault:
        listener.close()
        raise ConfigError(
            f"{option}: cannot listen on {address.host}:{address.port}: {fault.strerror}",
            advice="choose another port, or stop what uses it",
        ) from None
    return listener


class Probes:
    """The probe server.

    Args:
        ready: Returns why the sidecar is not ready; empty: it is.
        metrics: Returns the page of metrics.
    """

    def __init__(self, *, ready: Callable[[], Awaitable[str]], metrics: Callable[[], str]) -> None:
        self._ready = ready
        self._metrics = metrics
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, listener: socket.socket) -> None:
        """Serve on a socket that is already bound."""
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            log_level="error",
            lifespan="off",
            access_log=False,
            ws="none",
            http=PromptProtocol,
            proxy_headers=False,
            server_header=False,
        )
        self._server = _QuietServer(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="probes")

    async def stop(self) -> None:
        """Stop serving. Safe to call twice."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
            self._server = None

    async def _answer(self, scope: Scope, _receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        status, body = await self._page(scope["path"]) if scope["method"] in {"GET", "HEAD"} else (405, "")
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body.encode() if scope["method"] != "HEAD" else b""})

    async def _page(self, path: str) -> tuple[int, str]:
        if path == "/healthz":
            return 200, "ok\n"
        if path == "/readyz":
            why = await self._ready()
            return (503, f"{why}\n") if why else (200, "ready\n")
        if path == "/metrics":
            return 200, self._metrics()
        return 404, "not found\n"


class _QuietServer(uvicorn.Server):
    """A server that leaves the process's signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Capture none."""
        yield
