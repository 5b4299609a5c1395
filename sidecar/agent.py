"""`pdp-sidecar run`: the core, the data plane before it, and the probes; started and stopped as one.

Envoy opens the door once the pinned root of trust is had. A door that opens before a fresh world is held denies
(`world_stale`); *ready* means that Envoy serves, the world is fresh, and the model server can be reached.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack

from pdp.adapters.clock import SystemClock
from pdp.ports import Clock, FeedSource
from pdp.service.audit import AuditSink
from sidecar.config import SidecarConfig
from sidecar.core import Core, follow_pdp, private_directory
from sidecar.envoy import Upstream
from sidecar.envoy_names import Address
from sidecar.limits import LIMITS
from sidecar.plane import DataPlane
from sidecar.probes import Probes, bound_socket
from sidecar.process import until_told


class Agent:
    """One running sidecar.

    Args:
        config: What it was told.
        source: Where it follows the log.
        sink: Where it ships its audit records; None: nowhere.
        clock: Time.
    """

    def __init__(
        self,
        config: SidecarConfig,
        *,
        source: FeedSource,
        sink: AuditSink | None,
        clock: Clock,
    ) -> None:
        self._config = config
        self.core = Core(config, source=source, sink=sink, clock=clock)
        self._stack = AsyncExitStack()
        self._plane: DataPlane | None = None
        self._stopping = False

    async def start(self) -> tuple[Address, Address]:
        """Start everything; return where callers connect, and the probes.

        Raises:
            ConfigError: Something given cannot be used.
            EnvoyError: Envoy refuses to start.
        """
        try:
            return await self._start()
        except BaseException:
            await self.stop(drain_s=0)
            raise

    async def _start(self) -> tuple[Address, Address]:
        private_directory(self._config.state_dir)
        probes = await self._start_probes()
        await self.core.start()
        self._plane = DataPlane(
            settings=self._config.envoy,
            gate=self.core.gate,
            rechecker=self.core.rechecker,
            notes=self.core.notes,
            time=self.core.clock,
        )
        listen = await self._plane.start()
        self.core.follow()
        return listen, probes

    async def fresh(self) -> int:
        """Wait until a fresh world is held; return its number."""
        return await self.core.fresh()

    async def failed(self) -> None:
        """Wait until a part that must run for ever has ended; raise what ended it."""
        await self.core.failed()

    async def stop(self, *, drain_s: float = LIMITS.drain_s) -> None:
        """Not ready, drain, cut the rest with records, ship them, end everything. Safe to call twice."""
        self._stopping = True
        if self._plane is not None:
            await self._plane.stop(drain_s=drain_s)
            self._plane = None
        await self.core.stop()
        await self._stack.aclose()

    async def _start_probes(self) -> Address:
        listener = bound_socket(self._config.probes, option="--probes")
        bound = listener.getsockname()
        probes = Probes(ready=self._why_not_ready, metrics=self._metrics)
        await probes.start(listener)
        self._stack.push_async_callback(probes.stop)
        return Address(host=bound[0], port=bound[1])

    async def _why_not_ready(self) -> str:
        if self._stopping:
            return "stopping"
        stale = self.core.why_not_fresh()
        if self._plane is None:
            return stale or "envoy does not serve"
        if not self._plane.envoy.ready:
            return "envoy does not serve"
        return stale or await _unreachable(self._config.envoy.upstream)

    def _metrics(self) -> str:
        plane = self._plane
        restarts, refusals = (plane.envoy.restarts, plane.refusals.count) if plane is not None else (0, 0)
        return self.core.page(
            {"pdp_sidecar_envoy_restarts_total": restarts, "pdp_sidecar_envoy_refusals_total": refusals}
        )


async def _unreachable(upstream: Upstream) -> str:
    """Return why the model server cannot be reached; empty: it can."""
    try:
        async with asyncio.timeout(LIMITS.connect_s):
            if upstream.pipe is not None:
                _, writer = await asyncio.open_unix_connection(str(upstream.pipe))
            else:
                address = upstream.address or Address(host="", port=0)
                _, writer = await asyncio.open_connection(address.host, address.port)
    except (OSError, TimeoutError, socket.gaierror):
        return "the model server cannot be reached: check `--upstream`"
    writer.close()
    return ""


async def serve(config: SidecarConfig, *, announce: Callable[[str], None]) -> None:
    """Run a sidecar until SIGTERM or SIGINT.

    Args:
        config: What it was told.
        announce: Takes the one line that says it is ready.

    Raises:
        ConfigError: Something given cannot be used.
        EnvoyError: Envoy refuses to start.
    """
    clock = SystemClock()
    source, sink = follow_pdp(config.pdp, clock)
    await until_told(Agent(config, source=source, sink=sink, clock=clock), announce=announce, after=sink.close)
