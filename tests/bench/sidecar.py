"""Requests through Envoy: alone, with an agent that only says yes, and with the sidecar deciding each one at every door.

"Alone" is the generated configuration without the two filters that ask us. The yes-only agent answers the same questions over
the same kind of socket, so that what lies between it and the sidecar is the decision: token, names, world, record, disk. The
upstream answers at once (an Envoy with a direct response), so that the figures show the gate and not a model. Tokens are
remembered; every allow is durable before it leaves, but for the figures that say `not durable`, a degradation. All doors take
turns in each round, since the machine's noise is a matter of minutes; the median of the rounds counts.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from pdp.demo.chat import PATH as CHAT_PATH
from pdp.demo.story import PROD_MODEL
from sidecar.envoy_names import Json
from tests.bench import gate_load, gate_stage, streams
from tests.bench.gate_stage import Door, Ground
from tests.bench.load import Load
from tests.bench.report import Figure

CONNECTIONS = (1, 16, 64)
DURATION_S = 1
WARM_S = 1
ROUNDS = 3
TOLERATED = 0.1
RECORD_BYTES = 1_000
SYNCS = 300
PROC_SOCKET = "envoy/proc.sock"
PATH = f"/v2/models/{PROD_MODEL}/infer"
CHAT = f'{{"model": "{PROD_MODEL}", "messages": [{{"role": "user", "content": "?"}}]}}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to the model: what its figures are called, where it begins, what is sent, and what it is compared with.

    `alone` is the same request with nobody asked, of which the added latency is counted; `peer` is what the rate is compared
    with, if that is another. Of what is not `durable` fewer figures are told.
    """

    name: str
    door: Door
    path: str = PATH
    body: str = "{}"
    alone: str = ""
    peer: str = ""
    durable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one run showed: the share that was `refused`, and the processor time that the agent took for a request."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    refused: float
    agent_us: float


def measure() -> list[Figure]:
    """Return rates, added latencies and processor time of every way, at each number of connections."""
    print(f"driven by {gate_load.generator()}")
    with gate_stage.prepared() as ground:
        ways = _ways(ground)
        for way in ways:
            _run(ground, way, 16, WARM_S)
        figures = [figure for connections in CONNECTIONS for figure in _at(ground, ways, connections)]
        return [_bare_sync(ground.directory), *figures, *streams.measure(ground)]


def _ways(ground: Ground) -> list[Way]:
    upstream = gate_stage.envoy(ground, "upstream", gate_stage.instant_upstream()).address
    durable = gate_stage.sidecar(ground, "gate", upstream)
    hasty = gate_stage.sidecar(ground, "hasty", upstream, "--no-audit-durable")
    config = gate_stage.generated(durable)
    alone = gate_stage.envoy(ground, "alone", gate_stage.without_filters(config))
    yes_agent = gate_stage.module(ground, "yes", "yes", str(ground.directory / "yes.sock"))
    yes = gate_stage.envoy(ground, "yes", gate_stage.asking(config, ground.directory / "yes.sock"))
    ways = [
        Way(name="Envoy alone", door=alone),
        Way(name="Envoy alone, a body", door=alone, path=CHAT_PATH, body=CHAT),
        Way(name="Envoy + yes-only agent", door=replace(yes, agent=yes_agent.agent), alone="Envoy alone"),
    ]
    ways.append(Way(name="uvicorn alone", door=gate_stage.module(ground, "bare", "asgi_app")))
    return [*ways, *_deciding(ground, durable, config), *_deciding(ground, hasty, config, durable=False)]


def _deciding(ground: Ground, sidecar: Door, config: Json, *, durable: bool = True) -> list[Way]:
    """Return the doors of one sidecar, and a guarded application that keeps its records as it does."""
    said, peer = "" if durable else ", not durable", "Envoy + yes-only agent"
    name = sidecar.state.name
    asked = gate_stage.envoy(ground, f"grpc-{name}", gate_stage.over_grpc(ground, config, sidecar.state / PROC_SOCKET))
    grpc = replace(asked, agent=sidecar.agent)
    asgi = _asgi(ground, f"asgi-{name}", durable=durable)
    return [
        Way(name=f"HTTP ext_authz{said}", door=sidecar, alone="Envoy alone", peer=peer, durable=durable),
        Way(name=f"gRPC ext_authz{said}", door=grpc, alone="Envoy alone", peer=peer, durable=durable),
        Way(
            name=f"ext_proc{said}", door=sidecar, path=CHAT_PATH, body=CHAT, alone="Envoy alone, a body", peer=peer,
            durable=durable,
        ),
        Way(name=f"ASGI{said}", door=asgi, alone="uvicorn alone", durable=durable),
    ]  # fmt: skip


def _asgi(ground: Ground, name: str, *, durable: bool) -> Door:
    told = {option.removeprefix("--").replace("-", "_"): value for option, value in ground.follows().items()}
    pdp = {"address": told.pop("pdp"), "ca": told.pop("pdp_ca")}
    pdp |= {name: told.pop(name) for name in ("root_digest", "cert", "key")}
    settings = {**told, "pdp": pdp, "state_dir": str(ground.directory / name), "audit": {"durable": durable}}
    file = ground.directory / f"{name}.yaml"
    file.write_text(json.dumps(settings))
    return gate_stage.module(ground, name, "asgi_app", "guarded", environment={"PDP_SIDECAR_CONFIG": str(file)})


def _at(ground: Ground, ways: Sequence[Way], connections: int) -> list[Figure]:
    turns = [[_run(ground, way, connections, DURATION_S) for way in ways] for _ in range(ROUNDS)]
    seen = {way.name: _median(runs) for way, runs in zip(ways, zip(*turns, strict=True), strict=True)}
    _check(seen)
    where = f", {connections} connection{'s' if connections > 1 else ''}"
    return [figure for way in ways for figure in _figures(way, seen, where)]


def _figures(way: Way, seen: dict[str, Seen], where: str) -> list[Figure]:
    mine = seen[way.name]
    rate = Figure(name=way.name + where, value=mine.requests_per_s, unit="requests/s")
    if not way.alone:
        return [
            rate,
            Figure(name=f"{way.name}{where}: p50", value=mine.p50_ms, unit="ms"),
            Figure(name=f"{way.name}{where}: p99", value=mine.p99_ms, unit="ms"),
        ]
    alone, peer = seen[way.alone], way.peer or way.alone
    ratio = mine.requests_per_s / seen[peer].requests_per_s
    found = [
        replace(rate, versus=peer + where, ratio=ratio),
        Figure(
            name=f"{way.name}{where}: added p50",
            value=mine.p50_ms - alone.p50_ms,
            unit="ms",
            versus=f"{way.alone}{where}: p50",
            ratio=(mine.p50_ms - alone.p50_ms) / alone.p50_ms,
        ),
    ]
    if mine.refused:
        found.append(Figure(name=f"{way.name}{where}: refused late", value=mine.refused * 100, unit="%"))
    if not way.durable:
        return found
    return [
        *found,
        Figure(name=f"{way.name}{where}: added p99", value=mine.p99_ms - alone.p99_ms, unit="ms"),
        Figure(name=f"{way.name}{where}: agent's processor time", value=mine.agent_us, unit="us/request"),
    ]


def _run(ground: Ground, way: Way, connections: int, duration_s: int) -> Seen:
    host, _, port = way.door.address.rpartition(":")
    load = Load(
        host=host,
        port=int(port),
        path=way.path,
        body=way.body,
        headers={"authorization": f"Bearer {ground.token}", "content-type": "application/json"},
        connections=connections,
        duration_s=duration_s,
    )
    before = _processor_s(way.door.agent)
    result = gate_load.run(load)
    took_s = _processor_s(way.door.agent) - before
    answered = max(1.0, result.requests_per_s * duration_s)
    return Seen(
        requests_per_s=result.requests_per_s,
        p50_ms=result.p50_ms,
        p99_ms=result.p99_ms,
        refused=result.failures / answered,
        agent_us=took_s / answered * 1e6,
    )


def _processor_s(pid: int) -> float:
    if not pid:
        return 0.0
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _median(runs: Sequence[Seen]) -> Seen:
    return Seen(
        requests_per_s=statistics.median(run.requests_per_s for run in runs),
        p50_ms=statistics.median(run.p50_ms for run in runs),
        p99_ms=statistics.median(run.p99_ms for run in runs),
        refused=statistics.fmean(run.refused for run in runs),
        agent_us=statistics.median(run.agent_us for run in runs),
    )


def _check(seen: dict[str, Seen]) -> None:
    """End if so many requests were refused that a figure shows something else; some miss the 0.2 s of EX-17."""
    for name, one in seen.items():
        if one.refused > TOLERATED:
            sys.exit(f"bench: {name}: {one.refused:.0%} of the requests were refused; a figure would mean nothing")


def _bare_sync(directory: Path) -> Figure:
    """Return how long this disk takes to make one record durable: what one connection waits for, request by request."""
    path, taken = directory / "bare", []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for _ in range(SYNCS):
        start = time.perf_counter()
        os.write(descriptor, b"x" * RECORD_BYTES)
        os.fdatasync(descriptor)
        taken.append((time.perf_counter() - start) * 1000)
    os.close(descriptor)
    name = f"a bare write and fdatasync of {RECORD_BYTES:,} bytes: p50"
    return Figure(name=name, value=statistics.median(taken), unit="ms")
