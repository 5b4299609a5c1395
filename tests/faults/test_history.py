"""F16, F24: a real PDP under load, changed, stopped and killed; what its clients saw is held against log and records."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.faults.checker import check
from tests.faults.drive import ASSETS, Drive, history
from tests.support.served import served_pdp

Trouble = Callable[[Drive], Awaitable[None]]


async def driven(directory: Path, *, changes: int, troubles: dict[int, Trouble], clients: int = 3) -> Drive:
    """Run clients and a publisher; each trouble comes after so many acknowledged changes."""
    async with served_pdp(directory, assets=ASSETS) as pdp:
        drive = Drive(pdp=pdp, order=random.Random(changes))  # noqa: S311 - an order, not a secret
        asking = [asyncio.create_task(drive.client(f"client {number}")) for number in range(clients)]
        publishing = asyncio.create_task(drive.publish(changes))
        async with asyncio.timeout(600):
            for after, trouble in sorted(troubles.items()):
                await drive.acknowledged(after)
                await trouble(drive)
            await publishing
        drive.over = True
        await asyncio.gather(*asking)
    return drive


def holds(directory: Path, *, changes: int, troubles: dict[int, Trouble]) -> Drive:
    drive = asyncio.run(driven(directory, changes=changes, troubles=troubles))
    happened = asyncio.run(history(drive))
    assert check(happened) == []
    assert {call.allowed for call in drive.calls} == {True, False}
    assert set(drive.published) <= set(happened.worlds)  # nothing acknowledged is lost
    return drive


@pytest.mark.holds("F16", "P4", "P5", "P6", "P8")
def test_sixty_publishes_under_load(tmp_path: Path) -> None:
    drive = holds(tmp_path, changes=60, troubles={})
    assert drive.unanswered == 0
    assert len({call.world_seq for call in drive.calls}) > 30


@pytest.mark.holds("F24", "F2", "P8", "P9")
def test_a_pdp_that_hangs_and_is_killed_keeps_its_word(tmp_path: Path) -> None:
    drive = holds(tmp_path, changes=30, troubles={5: Drive.stopped, 10: Drive.killed, 20: Drive.killed})
    assert drive.unanswered > 0


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.holds("F16", "F24", "F2", "P8", "P9")
def test_a_thousand_publishes_with_a_kill_or_a_stop_at_every_twentieth(tmp_path: Path) -> None:
    troubles = {after: Drive.killed if after % 40 else Drive.stopped for after in range(20, 1_000, 20)}
    holds(tmp_path, changes=1_000, troubles=troubles)
