"""A model server of a few lines, which speaks when the test says so and notices when its caller goes."""

import asyncio
import contextlib
from dataclasses import dataclass, field


@dataclass
class Exchange:
    """One request as the upstream saw it."""

    head: str
    writer: asyncio.StreamWriter
    body: bytes = b""
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.split("\r\n")[1:]
        return dict(line.split(": ", 1) for line in lines if ": " in line)

    async def emit(self, chunk: bytes) -> None:
        self.writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        await self.writer.drain()

    async def start_stream(self, *extra: bytes) -> None:
        self.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n")
        self.writer.write(b"".join(line + b"\r\n" for line in extra) + b"\r\n")
        await self.writer.drain()

    async def finish(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()


class Model:
    """A model server of a few lines: answers unary requests itself, hands streams to the test."""

    def __init__(self) -> None:
        self.streams: asyncio.Queue[Exchange] = asyncio.Queue()
        self.seen: list[Exchange] = []
        self.reply = b"ok"
        self.reply_type = b"text/plain"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await self._one(reader, writer)
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        exchange = Exchange(head=(await reader.readuntil(b"\r\n\r\n")).decode(), writer=writer)
        exchange.body = await _body(reader, exchange.headers)
        self.seen.append(exchange)
        if "_stream" not in exchange.head.split("\r\n", 1)[0] and b'"stream":true' not in exchange.body:
            head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"
            writer.write(head % (self.reply_type, len(self.reply)) + self.reply)
            return
        self.streams.put_nowait(exchange)
        with contextlib.suppress(ConnectionError):
            if await reader.read(1) == b"":
                exchange.gone.set()
        exchange.gone.set()
        raise asyncio.IncompleteReadError(b"", None)


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "chunked" not in headers.get("transfer-encoding", ""):
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return body
