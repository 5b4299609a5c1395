"""A real `pdp serve` in a process of its own, which a test may stop, starve and kill."""

import asyncio
import contextlib
import itertools
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from pdp.demo.child import Child
from pdp.identity.development import DevelopmentIssuer, issue
from tests.support.pdp import initialised

READY = r"ready grpc=(?P<grpc>\S+) probes=(?P<probes>\S+) world_seq=(?P<seq>\d+)"
ROOT = Path(__file__).parents[2]
_MOVED_CLOCK = """
from pdp.adapters.clock import SystemClock
true = SystemClock.now_ms
SystemClock.now_ms = lambda self: true(self) + {off_ms}
from pdp.cli.main import main
main()
"""
_ids = itertools.count()


@dataclass(kw_only=True)
class ServedPdp:
    """The process, where its doors are, and tokens for whoever the test wants to be."""

    directory: Path
    issuer: DevelopmentIssuer
    options: Sequence[str] = ()
    address: str = "127.0.0.1:0"
    probes: str = ""
    world_seq: int = 0
    clock_off_s: int = 0
    """How far the clock of the next process is off."""
    child: Child | None = None
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    @property
    def pid(self) -> int:
        assert self.child is not None
        return self.child.pid

    async def start(self) -> None:
        """Start it, on the port it had before if it had one; returns when it is ready."""
        program = ["-c", _MOVED_CLOCK.format(off_ms=self.clock_off_s * 1000)] if self.clock_off_s else ["-m", "pdp"]
        words = [sys.executable, *program, "serve", "--mode", "development", "--log-format", "json"]
        words += ["--state-dir", str(self.directory / "state"), "--trust", str(self.directory / "trust.yaml")]
        words += ["--listen", self.address, "--probes", "127.0.0.1:0", *self.options]
        ours = {name: value for name, value in os.environ.items() if not name.startswith("PDP_")}
        environment = ours | {"PYTHONPATH": str(ROOT)}
        self.child = Child.start("pdp", words, log=self.directory / "pdp.log", environment=environment)
        ready = await asyncio.to_thread(self.child.wait_for, READY)
        self.address, self.probes, self.world_seq = ready["grpc"], f"http://{ready['probes']}", int(ready["seq"])

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def kill(self) -> None:
        """Kill it as a power cut would, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        await self.gone()

    async def gone(self) -> int:
        """Wait for its end, clear it away, and return its exit code."""
        child = self.child
        assert child is not None
        while child.running:  # noqa: ASYNC110 - the end of a process tells no loop
            await asyncio.sleep(0.01)
        await asyncio.to_thread(child.stop)
        return int(child._process.returncode)

    def metadata(self, sub: str) -> Sequence[tuple[str, str]]:
        """Return the metadata by which `sub` calls."""
        token = issue(self.issuer, sub=sub, jti=f"s{next(_ids)}", now_s=int(time.time()))
        return (("authorization", f"Bearer {token}"),)

    def channel(self) -> grpc.aio.Channel:
        """Return a channel that comes back quickly after the process does."""
        options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]
        self.channels.append(grpc.aio.insecure_channel(self.address, options=options))
        return self.channels[-1]


@contextlib.asynccontextmanager
async def served_pdp(directory: Path, *options: str, **world: Any) -> AsyncIterator[ServedPdp]:
    """Run a PDP in a process of its own; ready when it yields, and gone afterwards however it ended."""
    pdp = ServedPdp(directory=directory, issuer=await initialised(directory, **world), options=options)
    try:
        await pdp.start()
        yield pdp
    finally:
        for channel in pdp.channels:
            await channel.close()
        if pdp.child is not None:
            with contextlib.suppress(ProcessLookupError):
                pdp.signal(signal.SIGCONT)
            await asyncio.to_thread(pdp.child.stop)
