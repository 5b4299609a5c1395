"""Waiting for what tells no event loop: another process, a thread, a refusal."""

import asyncio
from collections.abc import Callable
from typing import Any


async def until(met: Callable[[], Any], timeout_s: float = 30.0) -> None:
    """Return once `met` holds; the test fails if it never does."""
    async with asyncio.timeout(timeout_s):
        while not met():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.02)
