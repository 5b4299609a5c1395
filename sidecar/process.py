"""A process made of a core and a door: started, announced once its world is fresh, and stopped by a signal or a failed part."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Protocol

from pdp.adapters.interpreter import set_aside
from sidecar.envoy_names import Address


class Runs(Protocol):
    """A process made of a core and a door."""

    async def start(self) -> tuple[Address, Address]:
        """Start; return where callers connect, and the probes."""
        ...

    async def fresh(self) -> int:
        """Wait for a fresh world."""
        ...

    async def failed(self) -> None:
        """Wait for a part that ends."""
        ...

    async def stop(self) -> None:
        """End everything."""
        ...


async def until_told(process: Runs, *, announce: Callable[[str], None], after: Callable[[], Awaitable[None]]) -> None:
    """Run a process until SIGTERM or SIGINT, or until a part of it fails; `after` is awaited last."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    running = asyncio.create_task(_run(process, announce))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({stopped, running}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    ended = running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await process.stop()
    await after()
    if ended:
        running.result()


async def _run(process: Runs, announce: Callable[[str], None]) -> None:
    listen, probes = await process.start()
    fresh = asyncio.create_task(process.fresh())
    failed = asyncio.create_task(process.failed())
    try:
        await asyncio.wait({fresh, failed}, return_when=asyncio.FIRST_COMPLETED)
        if fresh.done():
            set_aside()
            announce(f"ready listen={_text(listen)} probes={_text(probes)} world_seq={fresh.result()}")
        await failed
    finally:
        fresh.cancel()
        failed.cancel()


def _text(address: Address) -> str:
    if address.host.startswith("/"):
        return f"unix://{address.host}"
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"
