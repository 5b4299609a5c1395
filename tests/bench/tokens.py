"""A lean model server for streams: so many tokens as server-sent events, one every so many milliseconds, on a schedule.

A chat's `max_tokens` says how many, its `seed` how far apart. Each event carries the time at which it was sent, by the clock
that all processes of a machine share, so that the client can tell how long it took. A token that is late does not delay the
next one: what the gate adds does not add up.
"""

import asyncio
import contextlib
import json
import time

import uvloop

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_END = b"0\r\n\r\n"


async def _serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            asked = json.loads(await reader.readexactly(length))
            await _stream(writer, asked["max_tokens"], asked["seed"] / 1000)
    writer.close()


async def _stream(writer: asyncio.StreamWriter, tokens: int, interval_s: float) -> None:
    loop = asyncio.get_running_loop()
    writer.write(_HEAD)
    start = loop.time()
    for number in range(tokens):
        await asyncio.sleep(start + number * interval_s - loop.time())
        event = b'data: {"sent_ns": %d, "choices": [{"delta": {"content": "token"}}]}\n\n' % time.monotonic_ns()
        writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        await writer.drain()
    writer.write(_END)


async def _serve() -> None:
    server = await asyncio.start_server(_serve_one, "127.0.0.1", 0, backlog=4096)
    host, port = server.sockets[0].getsockname()[:2]
    print(f"ready listen={host}:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
