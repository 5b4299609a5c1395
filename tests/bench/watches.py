"""5,000 `Watch` streams on one PDP process over real gRPC: what each costs, and how soon a change is told to whom it concerns.

The PDP is one that an operator starts, behind mutual TLS; its watchers are one process, over several connections. Each watch is
another subject's. A lock of one subject concerns one watch; one of every endpoint concerns all. How many were decided again
is what the PDP's own metric says.
"""

import asyncio
import statistics
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import psutil

from pdp.demo.authority import Credential, spiffe_id
from pdp.v1 import decision_pb2, decision_pb2_grpc, lock_pb2, lock_pb2_grpc
from tests.bench.report import Figure
from tests.bench.rpc_stage import Ground, prepared, started

WATCHES = 5_000
CONNECTIONS = 10
AT_ONCE = 50
LOCKS = 50
LIMIT_S = 900
READY = r"^ready .*?\bgrpc=(\S+) probes=(\S+)"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pdp:
    address: str
    probes: str
    pid: int


def measure() -> list[Figure]:
    """Return the figures of many watches."""
    with prepared() as ground, started(ground, "watches") as child:
        found = child.wait_for(READY)
        admin = ground.authority.issue_workload("admin", "/ns/ops/sa/admin")
        return asyncio.run(_measure(ground, admin, _Pdp(address=found[1], probes=found[2], pid=child.pid)))


async def _measure(ground: Ground, admin: Credential, pdp: _Pdp) -> list[Figure]:
    process = psutil.Process(pdp.pid)
    async with _channels(ground, ground.gateway, pdp.address, CONNECTIONS) as channels:
        before, start = process.memory_info().rss, time.perf_counter()
        watches = await _opened(channels)
        took_s = time.perf_counter() - start
        grown = (process.memory_info().rss - before) / WATCHES
        async with _channels(ground, admin, pdp.address, 1) as (channel,):
            one_ms, woken = await _one_by_one(channel, watches, pdp)
            start = time.perf_counter()
            await _lock(channel, resource="endpoint/**")
            reasons = [await _reason(watch) for watch in watches[LOCKS:]]
            all_ms = (time.perf_counter() - start) * 1000
    assert set(reasons) == {"locked"}
    ordered = sorted(one_ms)
    return [
        Figure(name=f"opening {WATCHES:,} watches in one process, each first answer durable", value=took_s, unit="s"),
        Figure(
            name="memory of an open watch in the PDP, its share of the connection included", value=grown, unit="bytes"
        ),
        Figure(name="lock of one subject -> its watch told, p50", value=statistics.median(ordered), unit="ms"),
        Figure(name=f"lock of one subject -> its watch told, slowest of {LOCKS}", value=ordered[-1], unit="ms"),
        Figure(name="watches decided again by such a lock", value=woken / LOCKS, unit="watches"),
        Figure(name=f"lock of everything -> the last of {len(reasons):,} watches told", value=all_ms, unit="ms"),
    ]


@asynccontextmanager
async def _channels(
    ground: Ground, credential: Credential, address: str, number: int
) -> AsyncIterator[list[grpc.aio.Channel]]:
    options = (("grpc.use_local_subchannel_pool", 1),)
    credentials = ground.credentials(credential)
    channels = [grpc.aio.secure_channel(address, credentials, options=options) for _ in range(number)]
    try:
        yield channels
    finally:
        for channel in channels:
            await channel.close()


async def _opened(channels: Sequence[grpc.aio.Channel]) -> list[Any]:
    """Open every watch, some at a time, and read the first answer of each."""
    stubs = [decision_pb2_grpc.DecisionServiceStub(channel) for channel in channels]  # type: ignore[no-untyped-call]
    watches: list[Any] = []
    for first in range(0, WATCHES, AT_ONCE):
        opening = [
            stubs[number % CONNECTIONS].Watch(_request(number), timeout=LIMIT_S)
            for number in range(first, first + AT_ONCE)
        ]
        reasons = await asyncio.gather(*map(_reason, opening))
        assert set(reasons) == {"granted"}, set(reasons)
        watches += opening
    return watches


def _request(number: int) -> decision_pb2.WatchRequest:
    asserted = decision_pb2.AssertedSubject(principal=_subject(number), groups=["group:team1"])
    question = decision_pb2.Question(
        subject=decision_pb2.Subject(asserted=asserted),
        action="endpoint.invoke",
        resource="endpoint/line1/served1",
        workload=f"workload:{spiffe_id('/ns/apps/sa/app1')}",
        supports_all=True,
    )
    return decision_pb2.WatchRequest(question=question)


def _subject(number: int) -> str:
    return f"user:watched{number}@demo.portcullis"


async def _reason(watch: Any) -> str:
    return str((await watch.read()).decision.reason)


async def _one_by_one(channel: grpc.aio.Channel, watches: Sequence[Any], pdp: _Pdp) -> tuple[list[float], float]:
    """Lock subject after subject; return the time to each one's watch, and how many watches were decided again in all."""
    before, took_ms = await asyncio.to_thread(_woken, pdp), []
    for number in range(LOCKS):
        start = time.perf_counter()
        _, reason = await asyncio.gather(_lock(channel, principal=_subject(number)), _reason(watches[number]))
        took_ms.append((time.perf_counter() - start) * 1000)
        assert reason == "locked", reason
    return took_ms, await asyncio.to_thread(_woken, pdp) - before


async def _lock(channel: grpc.aio.Channel, **target: str) -> None:
    request = lock_pb2.LockRequest(target=lock_pb2.LockTarget(**target), reason="bench")
    await lock_pb2_grpc.LockServiceStub(channel).Lock(request, timeout=30)  # type: ignore[no-untyped-call]


def _woken(pdp: _Pdp) -> float:
    with urllib.request.urlopen(f"http://{pdp.probes}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("pdp_watches_woken ")))
