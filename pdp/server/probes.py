"""Probes and metrics on a port of their own: `/healthz` and `/readyz` need no credential and show no secret (FAILURE.md N7).

`/metrics` is for this machine and for scrapers that the operator lets reach the port; it names no principal and no resource.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from pdp.adapters.prompt_http import PromptProtocol
from pdp.limits import PROBE_CONNECTIONS
from pdp.service.health import Health

_OK: Final = 200
_UNAVAILABLE: Final = 503


def application(health: Health, metrics: Callable[[], bytes]) -> Starlette:
    """Return the pages; every route is here, and `tests/attacks` walks them."""

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        report = health.report()
        return JSONResponse(report.plain(), status_code=_OK if report.ready else _UNAVAILABLE)

    async def page(_request: Request) -> Response:
        return Response(metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", page)])


class Probes:
    """The pages, served on one socket."""

    def __init__(self, listener: socket.socket, app: Starlette) -> None:
        self._listener = listener
        self._server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                http=PromptProtocol,
                server_header=False,
                limit_concurrency=PROBE_CONNECTIONS,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to answer."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]), name="probes")

    async def stop(self) -> None:
        """End, and release the socket."""
        if self._task is not None:
            self._server.should_exit = True
            await self._task
        self._listener.close()


class _Server(uvicorn.Server):
    """A server that leaves the process's signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
