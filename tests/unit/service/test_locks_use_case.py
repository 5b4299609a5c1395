"""Setting locks as a use case: none that nobody could remove."""

import asyncio

import pytest

from pdp.errors import BadRequestError
from pdp.service.locks import Locks
from pdp.service.replicate import Publisher, Subscribers
from pdp.signals.locks import LockTarget
from tests.support.logs import Authority, HandClock, MemoryLog, lock_payload

AUTHORITY = Authority()


async def locks_and_log() -> tuple[Locks, MemoryLog]:
    authority, log, clock, names = AUTHORITY, MemoryLog(), HandClock(), iter(range(100))
    replica = authority.replica()
    subscribers = Subscribers(log=log, replica=replica, roots=(), clock=clock)
    publisher = Publisher(log, replica, authority.keys, clock)
    new_id = lambda: f"l{next(names)}"  # noqa: E731 - one line
    locks = Locks(replica=replica, publisher=publisher, subscribers=subscribers, clock=clock, new_id=new_id)
    return locks, log


@pytest.mark.parametrize("pattern", ["lock/all", "lock/*", "lock/**"])
def test_a_lock_that_nobody_could_remove_is_refused(pattern: str) -> None:
    async def run() -> None:
        locks, log = await locks_and_log()
        with pytest.raises(BadRequestError, match="never be removed"):
            await locks.add(LockTarget.parse(f"resource:{pattern}"), reason="x", author="user:a", end_ms=0, wait_s=0.0)
        assert log.entries == []

    asyncio.run(run())


def test_the_policy_itself_may_be_frozen() -> None:
    async def run() -> None:
        locks, log = await locks_and_log()
        await locks.add(LockTarget.parse("resource:policy/**"), reason="x", author="user:a", end_ms=0, wait_s=0.0)
        assert len(log.entries) == 1

    asyncio.run(run())


def test_a_revocation_that_lost_a_race_is_put_behind_what_came_first() -> None:
    async def run() -> None:
        locks, log = await locks_and_log()
        other = Publisher(log, AUTHORITY.replica(), AUTHORITY.keys, HandClock())
        await other.publish("lock", lock_payload(1), author="user:b")
        made = await locks.add(LockTarget.parse("user:m"), reason="x", author="user:a", end_ms=0, wait_s=0.0)
        assert made.lock.world_seq == len(log.entries) == 2
        await other.catch_up()
        await other.publish("lock", lock_payload(3), author="user:b")
        assert await locks.remove(made.lock.id, author="user:a") == 4

    asyncio.run(run())
