"""A TCP proxy that does to a connection what networks do: portable asyncio, no root, no kernel module.

Every fault can be set and healed while connections run; it applies to what flows from the server to the client and back.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

CHUNK = 65_536


@dataclass
class Faults:
    """What happens to bytes on their way; all off at first.

    `cut_after` ends a connection after so many bytes from the server, `corrupt_at` flips a bit of that byte, `trickle` sends so
    many bytes at a time, `half_open` keeps the connection and forwards nothing, `drop` throws away, `refuse` closes at once.
    """

    delay_s: float = 0.0
    trickle: int = 0
    cut_after: int | None = None
    corrupt_at: int | None = None
    drop: bool = False
    half_open: bool = False
    duplicate: bool = False
    refuse: bool = False


@dataclass
class FaultProxy:
    """Forwards connections to `host:port` under `faults`."""

    host: str
    port: int
    faults: Faults = field(default_factory=Faults)
    accepted: int = 0
    forwarded: int = 0
    _healed: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _server: asyncio.Server | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Listen on a free port, which it yields, until the end of the block."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield int(self._server.sockets[0].getsockname()[1])
        finally:
            self._server.close()
            self.sever()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def heal(self) -> None:
        """Forget every fault; what a half-open connection held back flows on."""
        self.faults = Faults()
        healed, self._healed = self._healed, asyncio.Event()
        healed.set()

    def sever(self) -> None:
        """End every connection now."""
        for task in tuple(self._tasks):
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(writer.close)
            if self.faults.refuse:
                return
            up_reader, up_writer = await asyncio.open_connection(self.host, self.port)
            pumps = [
                asyncio.create_task(self._pump(reader, up_writer, down=False)),
                asyncio.create_task(self._pump(up_reader, writer, down=True)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
                up_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, down: bool) -> None:
        sent = 0
        while data := await reader.read(CHUNK):
            while self.faults.half_open:
                await self._healed.wait()
            faults = self.faults
            if faults.delay_s:
                await asyncio.sleep(faults.delay_s)
            if faults.drop:
                continue
            if down:
                data = _corrupted(data, faults.corrupt_at, sent)
                if faults.cut_after is not None and sent + len(data) > faults.cut_after:
                    writer.write(data[: max(0, faults.cut_after - sent)])
                    await writer.drain()
                    return
            for piece in _pieces(data * 2 if faults.duplicate and down else data, faults.trickle):
                writer.write(piece)
                await writer.drain()
            sent += len(data)
            self.forwarded += len(data)


def _corrupted(data: bytes, at: int | None, sent: int) -> bytes:
    if at is None or not sent <= at < sent + len(data):
        return data
    changed = bytearray(data)
    changed[at - sent] ^= 0x10
    return bytes(changed)


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)] if size else [data]
