"""A load generator in a process of its own, for where there is no wrk: keep-alive HTTP/1.1.

It counts complete answers and their latency, and says so as one line of JSON. It is Python, so at high rates it takes as
much processor time as what it measures; both sides of a comparison are always driven by it, at the same settings.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import uvloop


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to send: to where, as whom, over how many connections, for how long."""

    host: str
    port: int
    path: str
    body: str
    headers: dict[str, str]
    connections: int
    duration_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came back; latencies in milliseconds."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    failures: int


def drive(load: Load) -> Result:
    """Run `load` in a fresh process and return what it measured."""
    command = [sys.executable, "-m", "tests.bench.load"]
    done = subprocess.run(command, input=json.dumps(asdict(load)), capture_output=True, text=True, check=True)
    return Result(**json.loads(done.stdout))


@dataclass
class _Tally:
    deadline: float
    latencies: list[float] = field(default_factory=list)
    failures: int = 0


class _Connection(asyncio.Protocol):
    """Sends the same request again as soon as its answer is complete."""

    def __init__(self, request: bytes, tally: _Tally) -> None:
        self._request, self._tally = request, tally
        self._transport: Any = None
        self._buffer = b""
        self._sent = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self.done.done():
            self.done.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator or len(body) < _length(head):
            return
        self._buffer = b""
        now = time.perf_counter()
        self._tally.latencies.append(now - self._sent)
        self._tally.failures += b" 200 " not in head[:16]
        if now < self._tally.deadline:
            self._send()
        else:
            self._transport.close()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


async def _run(load: Load) -> Result:
    fields = {"host": load.host, "content-length": str(len(load.body)), **load.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    request = f"POST {load.path} HTTP/1.1\r\n{head}\r\n{load.body}".encode()
    start = time.perf_counter()
    tally = _Tally(deadline=start + load.duration_s)
    loop = asyncio.get_running_loop()
    opened = [
        await loop.create_connection(lambda: _Connection(request, tally), load.host, load.port)
        for _ in range(load.connections)
    ]
    await asyncio.gather(*(connection.done for _, connection in opened))
    elapsed = time.perf_counter() - start
    cuts = statistics.quantiles(tally.latencies, n=100)
    return Result(
        requests_per_s=len(tally.latencies) / elapsed,
        p50_ms=cuts[49] * 1000,
        p99_ms=cuts[98] * 1000,
        failures=tally.failures,
    )


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(_run(Load(**json.load(sys.stdin)))))))
