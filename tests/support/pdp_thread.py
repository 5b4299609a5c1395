"""A whole PDP on a thread of the test, for tests of blocking code."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from pdp.sdk.admin import AdminClient
from tests.support.pdp import ADA, BOB, GATE, RunningPdp, running_pdp

T = TypeVar("T")
ASSETS = """
dataset/sales: {environment: dev}
dataset/wages: {environment: prod, sensitivity: high}
model/fraud@7: {environment: dev}
"""
TEAM = f"""
g, user:{BOB}, role:data-scientist, dev
g, user:{BOB}, role:enforcement-point, prod
g, user:{BOB}, role:member, prod
g, user:{GATE}, role:enforcement-point, prod
g, user:{GATE}, role:gateway, prod
g, user:{ADA}, role:member, prod
"""


@dataclass(frozen=True, kw_only=True)
class ThreadedPdp:
    """A running PDP, and the loop that it runs on."""

    pdp: RunningPdp
    loop: asyncio.AbstractEventLoop

    @property
    def server(self) -> str:
        return str(self.pdp.address)

    @property
    def world_seq(self) -> int:
        return self.pdp.app.replica.world.seq

    @property
    def root_digest(self) -> str:
        return sha256((self.pdp.directory / "state" / "root.json").read_bytes()).hexdigest()

    @property
    def trust(self) -> Path:
        return self.pdp.directory / "trust.yaml"

    def token(self, sub: str, **options: Any) -> str:
        return self.pdp.token(sub, **options)

    def admin(self) -> AdminClient:
        return AdminClient(self.server, token=self.token(ADA))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def records(self) -> list[bytes]:
        return self.run(self.pdp.records())


@contextmanager
def threaded_pdp(directory: Path, **options: Any) -> Iterator[ThreadedPdp]:
    """Run a PDP until the block ends."""
    directory.mkdir(exist_ok=True)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(60)

    ready, stop, done = asyncio.Event(), asyncio.Event(), asyncio.Event()
    found: list[RunningPdp] = []

    async def serve() -> None:
        try:
            async with running_pdp(directory, **{"rows": TEAM, "assets": ASSETS} | options) as pdp:
                found.append(pdp)
                ready.set()
                await stop.wait()
        finally:
            ready.set()
            done.set()

    serving = asyncio.run_coroutine_threadsafe(serve(), loop)
    try:
        run(ready.wait())
        if not found:
            serving.result(1)
        yield ThreadedPdp(pdp=found[0], loop=loop)
    finally:
        loop.call_soon_threadsafe(stop.set)
        run(done.wait())
        serving.result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
