"""HTTP/1.1 for probes, from callers who may not be there: a request that does not come whole in time ends its connection.

uvicorn bounds the time between requests, and neither the time to the first one nor that of a request which drips. On a port
that anybody in the cluster reaches, a few dozen silent connections would keep out the probes that decide whether we live
(slowloris, FAILURE.md F21).
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from pdp.limits import PROBE_REQUEST_S


class PromptProtocol(H11Protocol):
    """uvicorn's own protocol, with a clock from the connection, or from a request's first byte, to the end of its answer."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's does
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Begin to wait for the rest, where the connection was idle."""
        if self._late is None:
            self._wait()
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Stop the clock: how long a connection may be idle is uvicorn's own bound, and ends it in good order."""
        self._stop()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._late = self.loop.call_later(PROBE_REQUEST_S, self._give_up)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        transport: Any = self.transport
        transport.abort()
