"""A laboratory with the real Envoy: a decider that obeys the test, and an upstream that speaks when the test says so."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from pdp.errors import Reason
from sidecar import envoy as envoy_module
from sidecar import gate as gate_module
from sidecar.envoy import EnvoySettings, Sockets, Upstream
from sidecar.envoy_names import Address
from sidecar.gate import Gate
from sidecar.limits import LIMITS
from sidecar.plane import DataPlane
from sidecar.rechecks import Rechecker
from sidecar.routes import Served
from sidecar.routes.oip import table
from tests.support.enforcement import Clock, Decider, identify
from tests.support.upstream import Model

SERVED = {"fraud": Served(resource="endpoint/fraud", model="model/fraud@12")}
PATIENCE_S = 10.0  # no test waits this long unless it fails


@dataclass
class Lab:
    plane: DataPlane
    decider: Decider
    rechecker: Rechecker
    model: Model
    address: Address
    sockets: Sockets
    readiness: asyncio.Queue[bool]
    model_port: int = 0

    async def raw(self, request: bytes) -> bytes:
        """Send bytes on a fresh connection and return everything until it closes."""
        reader, writer = await asyncio.open_connection(self.address.host, self.address.port)
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
        writer.close()
        return answer

    async def get(self, target: str, *lines: str, method: str = "GET", token: str | None = "good") -> bytes:  # noqa: S107 - a word, not a secret
        fields = [f"{method} {target} HTTP/1.1", "host: model", "connection: close", *lines]
        if token:
            fields.append(f"authorization: Bearer {token}")
        return await self.raw("\r\n".join([*fields, "", ""]).encode())

    async def post(self, target: str, *lines: str, token: str | None = "good") -> bytes:  # noqa: S107 - a word, not a secret
        return await self.get(target, "content-length: 0", *lines, method="POST", token=token)

    async def revoke(self, reason: Reason = Reason.NO_GRANT) -> None:
        """A new world without the grant."""
        self.decider.reason = reason
        await self.rechecker.world_changed()


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Give an answer ten times its usual time, where the test has not said how long.

    Client, gate and model share one loop, and the machine with other tests; what a slow answer comes to is EX-17's own test.
    """
    patient = replace(LIMITS, decide_s=10 * LIMITS.decide_s, filter_timeout_s=10 * LIMITS.filter_timeout_s)
    with pytest.MonkeyPatch.context() as patch:
        for module in (envoy_module, gate_module):
            if module.LIMITS is LIMITS:
                patch.setattr(module, "LIMITS", patient)
        yield


@contextlib.asynccontextmanager
async def laboratory(directory: Path, **changes: Any) -> AsyncIterator[Lab]:
    with patience():
        async with _laboratory(directory, **changes) as lab:
            yield lab


@contextlib.asynccontextmanager
async def _laboratory(directory: Path, **changes: Any) -> AsyncIterator[Lab]:
    model, decider = Model(), Decider()
    upstream = await asyncio.start_server(model.serve, "127.0.0.1", 0)
    port = upstream.sockets[0].getsockname()[1]
    routes = changes.pop("table", None) or table(served=SERVED, server="endpoint/all")
    sockets = Sockets(directory=directory / "s")
    settings = EnvoySettings(
        listen=Address(host="127.0.0.1", port=0),
        upstream=Upstream(address=Address(host="127.0.0.1", port=port)),
        sockets=sockets,
        rows=routes.rows,
    )
    gate = Gate(table=routes, identify=identify, decider=decider)
    rechecker = Rechecker(decider=decider, time=Clock(), jitter=lambda: 0.0)
    readiness: asyncio.Queue[bool] = asyncio.Queue()
    plane = DataPlane(
        settings=replace(settings, **changes),
        gate=gate,
        rechecker=rechecker,
        notes=decider,
        time=Clock(),
        on_ready=readiness.put_nowait,
    )
    timer = asyncio.create_task(rechecker.run())
    try:
        address = await plane.start()
        yield Lab(plane, decider, rechecker, model, address, sockets, readiness, port)
    finally:
        timer.cancel()
        await plane.stop(drain_s=0)
        upstream.close()


class InLab(Protocol):
    """Runs a test's coroutine in a laboratory."""

    def __call__(self, body: Callable[[Any], Awaitable[None]], **changes: Any) -> None: ...


@pytest.fixture
def in_lab(tmp_path: Path) -> InLab:
    """Run a test's coroutine in a laboratory."""

    def run(body: Callable[[Any], Awaitable[None]], **changes: Any) -> None:
        async def go() -> None:
            async with asyncio.timeout(3 * PATIENCE_S), laboratory(tmp_path, **changes) as lab:
                await body(lab)

        asyncio.run(go())

    return run
