"""A web server in this process that does what a test wants: right, slow, huge, redirecting, or gone."""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Counts requests (head and body), and answers as its `answer` says."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.bodies: list[bytes] = []
        self.asked = asyncio.Event()
        self.release = asyncio.Event()
        self.answer: Answer = self.body(b"{}")
        self.port = 0

    def json(self, content: Any, status: str = "200 OK") -> Answer:
        return self.body(json.dumps(content).encode(), status)

    def body(self, content: bytes, status: str = "200 OK", extra: str = "") -> Answer:
        async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n{extra}\r\n"
            writer.write(head.encode() + content)
            await writer.drain()

        return answer

    def held(self, then: Answer) -> Answer:
        """Answer once the test sets `release`."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self.release.wait()
            await then(reader, writer)

        return answer

    async def hang(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        await self.release.wait()

    async def endless(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1000\r\n" + b" " * 4096 + b"\r\n")
            await writer.drain()

    async def gone(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            self.bodies.append(await reader.readexactly(int(length[1])) if length else b"")
            self.requests.append(head)
            self.asked.set()
            await self.answer(reader, writer)
        except ConnectionError:
            pass  # the client hung up on us, as some tests want
        finally:
            writer.close()


S = TypeVar("S", bound=Server)


@asynccontextmanager
async def serving(made: S, context: ssl.SSLContext | None = None) -> AsyncIterator[S]:
    listener = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=context)
    made.port = listener.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        made.release.set()
        listener.close()
        await listener.wait_closed()
