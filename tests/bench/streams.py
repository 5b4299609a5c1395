"""Running streams through the gate: how soon a lock cuts them, what they take of memory, and what the gate adds to a token.

The clock starts before the lock is asked for and stops where a client sees its stream end: at the error event, or at the
abort of a stream that is silent. The PDP's signature and disk, the way to the sidecar, the decision on every stream and the
cut are all in it.
"""

import asyncio
import json
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import psutil
import uvloop

from pdp.demo.chat import PATH
from pdp.demo.story import PROD_MODEL, SAM
from pdp.sdk.admin import LockTarget
from tests.bench import gate_stage
from tests.bench.gate_stage import Door, Ground
from tests.bench.report import Figure

CASES = ((1, 100, 10), (100, 100, 3), (1_000, 1_000, 1))
"""Streams at once, milliseconds from one token of a stream to the next, locks."""
LONG = 100_000
TOKENS = 400
FAST_MS = 10
PATIENCE_S = 60.0
OPENING_AT_ONCE = 50
FILES = 8_192


@dataclass
class Stream(asyncio.Protocol):
    """One client's stream: when each token came and how old it was, and when the stream was cut."""

    request: bytes
    open: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    over: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    came_ns: list[int] = field(default_factory=list)
    late_ns: list[int] = field(default_factory=list)
    cut_s: float = 0.0
    refused: bool = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self.transport: Any = transport
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Take in tokens, the error event, or a refusal."""
        now_s, now_ns = time.perf_counter(), time.monotonic_ns()
        for part in data.split(b'"sent_ns": ')[1:]:
            self.came_ns.append(now_ns)
            self.late_ns.append(now_ns - int(part[: part.index(b",")]))
        if not self.came_ns:
            self.refused = self.refused or b" 200 " not in data[:16]
        elif not self.open.done():
            self.open.set_result(None)
        if b'"error"' in data:
            self.cut_s = self.cut_s or now_s
        if data.endswith(b"0\r\n\r\n") or self.refused:
            self.transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        """End."""
        self.cut_s = self.cut_s or time.perf_counter()
        for future in (self.open, self.over):
            if not future.done():
                future.set_result(None)


def measure(ground: Ground) -> list[Figure]:
    """Return the figures of cuts, of memory and of overhead."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, allowed), allowed))  # Envoy, too, inherits it
    upstream = gate_stage.module(ground, "tokens", "tokens").address
    gate = gate_stage.sidecar(ground, "streams", upstream)
    alone = gate_stage.envoy(ground, "streams-alone", gate_stage.without_filters(gate_stage.generated(gate)))
    return uvloop.run(_measure(ground, gate, alone))


async def _measure(ground: Ground, gate: Door, alone: Door) -> list[Figure]:
    figures = await _overhead(ground, gate, alone)
    for streams, interval_ms, locks in CASES:
        figures += await _cuts(ground, gate, streams, interval_ms, locks)
    return figures


def _request(ground: Ground, tokens: int, interval_ms: int) -> bytes:
    asked = {"model": PROD_MODEL, "messages": [], "stream": True, "max_tokens": tokens, "seed": interval_ms}
    body = json.dumps(asked)
    lines = [
        f"POST {PATH} HTTP/1.1",
        "host: model",
        f"authorization: Bearer {ground.token}",
        "content-type: application/json",
        f"content-length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", body]).encode()


async def _opened(door: Door, request: bytes, count: int) -> list[Stream]:
    """Open `count` streams, some at once, and return them when each has brought a token.

    One that was refused ends the benchmark: a figure would be about fewer.
    """
    loop, (host, _, port) = asyncio.get_running_loop(), door.address.rpartition(":")
    found: list[Stream] = []
    while len(found) < count:
        few = min(OPENING_AT_ONCE, count - len(found))
        made = await asyncio.gather(
            *(loop.create_connection(lambda: Stream(request), host, int(port)) for _ in range(few))
        )
        found += [stream for _, stream in made]
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(stream.open for _, stream in made))
    if any(not stream.came_ns for stream in found):
        sys.exit(
            f"bench: {sum(not one.came_ns for one in found)} of {count} streams were refused; a figure would mean nothing"
        )
    return found


# -- from lock to cut ---------------------------------------------------------------------------------------------------


async def _cuts(ground: Ground, gate: Door, streams: int, interval_ms: int, locks: int) -> list[Figure]:
    taken_ms: list[float] = []
    memory: list[Figure] = []
    for _ in range(locks):
        before = _resident(gate)
        running = await _opened(gate, _request(ground, LONG, interval_ms), streams)
        if streams == max(count for count, _, _ in CASES):
            memory = _memory(before, _resident(gate), streams)
        taken_ms += await _locked_out(ground, running)
        await _admitted_again(ground, gate)
    name = f"lock -> cut, {streams:,} stream{'s' if streams > 1 else ''}, a token every {interval_ms:,} ms"
    ordered = sorted(taken_ms)
    return [
        Figure(name=f"{name}: p50", value=statistics.median(ordered), unit="ms"),
        Figure(name=f"{name}: p99 of {len(ordered):,}", value=ordered[int(0.99 * len(ordered))], unit="ms"),
        *memory,
    ]


async def _locked_out(ground: Ground, running: Sequence[Stream]) -> list[float]:
    """Lock the caller out and return how long each stream went on."""
    with ground.administers() as admin:
        start = time.perf_counter()
        locked = await asyncio.to_thread(admin.lock, LockTarget.parse(SAM.principal), reason="bench")
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(stream.over for stream in running))
        await asyncio.to_thread(admin.unlock, locked.lock.id)
    return [(stream.cut_s - start) * 1000 for stream in running]


async def _admitted_again(ground: Ground, gate: Door) -> None:
    """Wait until the sidecar holds the world without the lock."""
    loop, (host, _, port) = asyncio.get_running_loop(), gate.address.rpartition(":")
    async with asyncio.timeout(PATIENCE_S):
        while True:
            _, stream = await loop.create_connection(lambda: Stream(_request(ground, 1, 1)), host, int(port))
            await stream.over
            if not stream.refused:
                return


def _resident(gate: Door) -> tuple[int, int]:
    return psutil.Process(gate.agent).memory_info().rss, psutil.Process(gate.envoy).memory_info().rss


def _memory(before: tuple[int, int], after: tuple[int, int], streams: int) -> list[Figure]:
    return [
        Figure(name=f"memory for one of {streams:,} streams: {who}", value=(now - then) / streams / 1024, unit="KiB")
        for who, then, now in zip(("agent", "Envoy"), before, after, strict=True)
    ]


# -- what the gate adds to a token ------------------------------------------------------------------------------------


async def _overhead(ground: Ground, gate: Door, alone: Door) -> list[Figure]:
    """Return what the gate adds to one stream; both run at once, so that the machine's noise meets both."""
    request = _request(ground, TOKENS, FAST_MS)
    before = _processor_s(gate)
    (guarded,), (bare,) = await asyncio.gather(_opened(gate, request, 1), _opened(alone, request, 1))
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(guarded.over, bare.over)
    spent_us = (_processor_s(gate) - before) / TOKENS * 1e6
    took, bare_took = _lasted_s(guarded), _lasted_s(bare)
    late, bare_late = ([ns / 1e6 for ns in stream.late_ns] for stream in (guarded, bare))
    name = f"a stream of {1000 // FAST_MS} tokens/s"
    return [
        Figure(name=f"{name}, Envoy alone", value=(TOKENS - 1) / bare_took, unit="tokens/s"),
        Figure(
            name=f"{name}, Envoy + sidecar",
            value=(TOKENS - 1) / took,
            unit="tokens/s",
            versus=f"{name}, Envoy alone",
            ratio=bare_took / took,
        ),
        Figure(name=f"{name}: longer through the gate", value=(took / bare_took - 1) * 100, unit="%"),
        Figure(name=f"{name}: longest pause, Envoy alone", value=_longest_ms(bare), unit="ms"),
        Figure(name=f"{name}: longest pause, Envoy + sidecar", value=_longest_ms(guarded), unit="ms"),
        Figure(name=f"{name}: a token comes later, p50", value=_p(50, late) - _p(50, bare_late), unit="ms"),
        Figure(name=f"{name}: a token comes later, p99", value=_p(99, late) - _p(99, bare_late), unit="ms"),
        Figure(name=f"{name}: processor time for a token, agent and Envoy", value=spent_us, unit="us"),
    ]


def _lasted_s(stream: Stream) -> float:
    """Return the time from the first token to the last."""
    if len(stream.came_ns) != TOKENS:
        sys.exit(f"bench: {len(stream.came_ns)} of {TOKENS} tokens arrived; a figure would mean nothing")
    return (stream.came_ns[-1] - stream.came_ns[0]) / 1e9


def _longest_ms(stream: Stream) -> float:
    return max(later - earlier for earlier, later in pairwise(stream.came_ns)) / 1e6


def _p(percent: int, values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


def _processor_s(gate: Door) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in (gate.agent, gate.envoy)]
    return sum(one.user + one.system for one in times)
