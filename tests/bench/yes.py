"""An agent that only says yes: the lean protocol of `sidecar.ext_authz` (uvloop, httptools) with nothing behind it.

It reads each question whole, as the sidecar does, and answers with an allow that carries headers of the usual size.
"""

import asyncio
import sys

import httptools
import uvloop

_FIELDS = {
    "x-pdp-decision-id": "00000000-0000-7000-8000-000000000000",
    "x-pdp-subject": "user:sam@demo.portcullis",
    "x-pdp-world-seq": "10",
    "content-length": "0",
}
_YES = "\r\n".join(["HTTP/1.1 200 OK", *(f"{name}: {text}" for name, text in _FIELDS.items()), "", ""]).encode()


class Yes(asyncio.Protocol):
    """One connection of an Envoy."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment] # a stream server makes Transports

    def data_received(self, data: bytes) -> None:
        """Read."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Say yes."""
        if self._transport is not None:
            self._transport.write(_YES)


async def _serve(path: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(Yes, path)
    print(f"ready listen={path}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
