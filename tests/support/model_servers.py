"""Somebody else's real model server, in a process and an environment of its own, behind the whole gate: PDP, sidecar, Envoy."""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
import yaml

from pdp.adapters.clock import SystemClock
from pdp.demo.child import Child
from pdp.v1 import lock_pb2, lock_pb2_grpc
from sidecar.agent import Agent
from sidecar.config import PdpAccess, SidecarConfig
from sidecar.core import follow_pdp
from sidecar.envoy import EnvoySettings, Sockets, Upstream
from sidecar.envoy_names import Address
from sidecar.routes import RouteTable
from tests.support.pdp import ADA, BOB, GATE, RunningPdp, running_pdp
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "tests/real/gate/programs"
START_S = 120.0  # pandas and scikit-learn on a cold disk
PATIENCE_S = 20.0
READY = "/v2/health/ready"
ANYWHERE = Address(host="127.0.0.1", port=0)


@dataclass(frozen=True, kw_only=True)
class ModelServer:
    """The running server: its process, its ports, and every route that it says it answers."""

    child: Child
    rest: int
    grpc: int
    routes: tuple[tuple[str, str], ...]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.rest}"


@contextlib.asynccontextmanager
async def model_server(
    name: str,
    program: str,
    directory: Path,
    *,
    ports: int = 2,
    ready: str = READY,
    start_s: float = START_S,
    **environment: str,
) -> AsyncIterator[ModelServer]:
    """Run `program` by the interpreter of `make test-real`'s environment `name`; ready, by the path `ready`, when it yields."""
    python = ROOT / f".venv-real-{name}/bin/python"
    if not python.exists():
        pytest.skip(f"{name} is not installed here: `make test-real` does that")
    (directory / name).mkdir()
    free = free_ports(ports)
    told = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory / name),
        "PYTHONPATH": f"{PROGRAMS}:{ROOT}",
        **environment,
    }
    command = [str(python), str(PROGRAMS / program), *(str(port) for port in free)]
    child = Child.start(name, command, log=directory / name / "log.txt", environment=told)
    try:
        found = await asyncio.to_thread(child.wait_for, r"^routes (.*)$", start_s)
        routes = tuple((method, path) for method, path in json.loads(found[1]))
        server = ModelServer(child=child, rest=free[0], grpc=free[1], routes=routes)
        await _ready(server, ready, start_s)
        yield server
    finally:
        await asyncio.to_thread(child.stop)


async def _ready(server: ModelServer, path: str, start_s: float) -> None:
    async with asyncio.timeout(start_s), httpx.AsyncClient(trust_env=False) as client:
        while server.child.running:
            with contextlib.suppress(httpx.TransportError):
                # Behind a middleware that has a world: who shows no credential is refused as one who shows none.
                if (await client.get(f"{server.url}{path}")).status_code in {
                    httpx.codes.OK,
                    httpx.codes.UNAUTHORIZED,
                }:
                    return
            await asyncio.sleep(0.05)  # it tells nobody
    raise server.child.failure("ended before it was ready")


def free_ports(count: int) -> list[int]:
    """Return ports that nobody holds now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """A model server, where its guarded door is, and the PDP that decides there."""

    server: ModelServer
    pdp: RunningPdp
    url: str

    def client(self, sub: str = BOB) -> httpx.AsyncClient:
        """Return a client that shows a fresh token of `sub`; empty: none."""
        headers = {"authorization": f"Bearer {self.pdp.token(sub)}"} if sub else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=PATIENCE_S, trust_env=False)

    async def lock(self, resource: str) -> None:
        """Lock an asset, as an administrator does; returns when the PDP holds it."""
        made = lock_pb2.LockRequest(target=lock_pb2.LockTarget(resource=resource), reason="a test")
        stub = lock_pb2_grpc.LockServiceStub(self.pdp.channel())
        await stub.Lock(made, metadata=self.pdp.metadata(ADA), timeout=PATIENCE_S)

    async def heard(self, pattern: str) -> None:
        """Wait until the model server says `pattern`."""
        await asyncio.to_thread(self.server.child.wait_for, pattern, PATIENCE_S)


@dataclass(frozen=True, kw_only=True)
class Gated(Guarded):
    """A model server behind the gate."""

    agent: Agent
    port: int

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.port}")

    async def held(self) -> None:
        """Wait until the gate decides on the world that the PDP holds."""
        await until(lambda: self.agent.core.world_seq == self.pdp.app.replica.world.seq)


def access_of(pdp: RunningPdp) -> PdpAccess:
    """Write the gate's credential beside the PDP, and return how a gate reaches it."""
    token = pdp.directory / "gate.token"
    token.write_text(pdp.token(GATE))
    digest = sha256((pdp.directory / "state" / "root.json").read_bytes()).hexdigest()
    return PdpAccess(address=str(pdp.address), root_digest=digest, token_file=token, plaintext=True)


def known(assets: Iterable[str]) -> str:
    """Return an inventory of `assets`, all of them in dev."""
    return "".join(f"{one}: {{environment: dev}}\n" for one in assets)


@contextlib.asynccontextmanager
async def gated(
    server: ModelServer, directory: Path, *, table: RouteTable, assets: Iterable[str]
) -> AsyncIterator[Gated]:
    """Put the whole gate before `server`: a PDP, and a sidecar that follows it with the real Envoy."""
    async with running_pdp(directory, assets=known(assets)) as pdp:
        access = access_of(pdp)
        config = SidecarConfig(
            envoy=EnvoySettings(
                listen=ANYWHERE,
                upstream=Upstream(address=Address(host="127.0.0.1", port=server.rest)),
                upstream_grpc=Upstream(address=Address(host="127.0.0.1", port=server.grpc)),
                sockets=Sockets(directory=directory / "s" / "envoy"),
                rows=table.rows,
            ),
            table=table,
            pdp=access,
            trust=directory / "trust.yaml",
            probes=ANYWHERE,
            state_dir=directory / "s",
        )
        source, sink = follow_pdp(access, SystemClock())
        agent = Agent(config, source=source, sink=sink, clock=SystemClock())
        try:
            listen, _ = await agent.start()
            await agent.fresh()
            await until(lambda: agent._plane is not None and agent._plane.envoy.ready)
            url = f"http://127.0.0.1:{listen.port}"
            yield Gated(server=server, pdp=pdp, url=url, agent=agent, port=listen.port)
        finally:
            await agent.stop(drain_s=0)
            await sink.close()


@contextlib.asynccontextmanager
async def guarded_inside(
    name: str,
    program: str,
    directory: Path,
    *,
    routes: Mapping[str, Any],
    assets: Iterable[str],
    ready: str = READY,
    **options: Any,
) -> AsyncIterator[Guarded]:
    """Run a PDP, and a model server with our middleware in its own process; it has a world when this yields."""
    async with running_pdp(directory, assets=known(assets)) as pdp:
        settings = str(_settings(pdp, routes))
        async with model_server(
            name, program, directory, ready=ready, PDP_SIDECAR_CONFIG=settings, **options
        ) as server:
            guarded = Guarded(server=server, pdp=pdp, url=server.url)
            async with asyncio.timeout(PATIENCE_S), guarded.client() as bob:
                # Until its world is whole it denies.
                while (await bob.get(ready)).status_code != httpx.codes.OK:  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(0.05)
            yield guarded


def _settings(pdp: RunningPdp, routes: Mapping[str, Any]) -> Path:
    """Write what the middleware reads; return its file."""
    access = access_of(pdp)
    (pdp.directory / "routes.yaml").write_text(yaml.safe_dump(dict(routes)))
    reached = {
        "address": access.address,
        "root_digest": access.root_digest,
        "plaintext": True,
        "token_file": "gate.token",
    }
    settings = {"pdp": reached, "trust": "trust.yaml", "routes": "routes.yaml", "state_dir": "middleware"}
    file = pdp.directory / "sidecar.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file
