"""What every store of the world log promises: one suite, run against SQLite and against a real Redis."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from pdp.adapters.log_redis import RedisWorldLog
from pdp.adapters.log_sqlite import SqliteWorldLog
from pdp.errors import ConflictError, PortcullisError, Reason
from pdp.ports import WorldLog
from pdp.service.replicate import HeartbeatLoop, Publisher
from pdp.trust.entry import EMPTY, Head, SignedEntry
from tests.support.logs import Authority, HandClock, MemoryStore, head_of, lock_payload, take
from tests.support.redis import EXTERNAL, redis_server

AUTHORITY = Authority()
CHAIN = AUTHORITY.chain(6)
Open = Callable[[], WorldLog]


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    if EXTERNAL in os.environ:
        yield os.environ[EXTERNAL]
        return
    with redis_server() as server:
        yield server.url


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Return what opens one more connection to the same log, which is empty at first."""
    if request.param == "sqlite":
        return lambda: SqliteWorldLog(tmp_path / "world.db", poll_s=0.001)
    url = request.getfixturevalue("redis_url")
    tenant = f"t{abs(hash(str(tmp_path)))}"
    return lambda: RedisWorldLog(url, tenant=tenant, create=True)


def run(store: Open, work: Callable[[WorldLog], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with opened(store) as log:
            await work(log)

    asyncio.run(whole())


@contextlib.asynccontextmanager
async def opened(store: Open) -> AsyncIterator[WorldLog]:
    log = store()
    try:
        yield log
    finally:
        await log.close()


async def write(log: WorldLog, entries: list[SignedEntry], *, after: int = 0) -> None:
    for seq, entry in enumerate(entries, start=after + 1):
        await log.append(entry, seq=seq, prev=CHAIN[seq - 2].digest if seq > 1 else b"")


async def some(entries: AsyncIterator[SignedEntry], number: int) -> list[SignedEntry]:
    found = [await anext(entries) for _ in range(number)]
    await entries.aclose()  # type: ignore[attr-defined]
    return found


def test_an_empty_log_stands_at_zero(store: Open) -> None:
    async def work(log: WorldLog) -> None:
        assert await log.head() == EMPTY
        assert await log.read(after=0, limit=10) == []
        assert await log.snapshot() is None

    run(store, work)


def test_entries_come_back_byte_for_byte_on_another_connection(store: Open) -> None:
    run(store, lambda log: write(log, CHAIN))

    async def work(log: WorldLog) -> None:
        assert await log.head() == head_of(CHAIN)
        assert await log.read(after=0, limit=10) == CHAIN
        assert await log.read(after=2, limit=2) == CHAIN[2:4]
        assert await log.read(after=6, limit=2) == []

    run(store, work)


@pytest.mark.holds("F27")
def test_two_publishers_one_wins_and_the_other_learns_the_head(store: Open) -> None:
    async def work(log: WorldLog) -> None:
        async with opened(store) as other:
            await write(log, CHAIN[:1])
            rivals = [AUTHORITY.entry(head_of(CHAIN[:1]), author=name) for name in ("user:a", "user:b")]
            results = await asyncio.gather(
                *(
                    each.append(rival, seq=2, prev=CHAIN[0].digest)
                    for each, rival in zip((log, other), rivals, strict=True)
                ),
                return_exceptions=True,
            )
            lost = [result for result in results if result is not None]
            assert len(lost) == 1
            assert isinstance(lost[0], ConflictError)
            assert lost[0].head_seq == 2
            assert (await log.head()).seq == 2

    run(store, work)


@pytest.mark.parametrize(("seq", "prev"), [(1, b""), (3, CHAIN[0].digest), (2, b""), (2, CHAIN[1].digest)])
def test_an_entry_appended_elsewhere_than_at_the_head_conflicts(store: Open, seq: int, prev: bytes) -> None:
    async def work(log: WorldLog) -> None:
        await write(log, CHAIN[:1])
        with pytest.raises(ConflictError):
            await log.append(CHAIN[1], seq=seq, prev=prev)
        assert (await log.head()).seq == 1

    run(store, work)


def test_a_follower_starts_after_its_position_and_is_woken_by_others(store: Open) -> None:
    async def work(log: WorldLog) -> None:
        async with opened(store) as other:
            await write(other, CHAIN[:2])
            following = asyncio.create_task(some(log.follow(after=1), 3))
            await write(other, CHAIN[2:4], after=2)
            assert await following == CHAIN[1:4]

    run(store, work)


def test_closing_ends_followers_with_an_error(store: Open) -> None:
    async def work(log: WorldLog) -> None:
        following = asyncio.create_task(some(log.follow(after=0), 1))
        await log.head()
        await log.close()
        with pytest.raises(PortcullisError) as refusal:
            await following
        assert refusal.value.reason is Reason.STORE_UNAVAILABLE

    run(store, work)


def test_the_newest_snapshot_is_kept_and_an_older_one_never_replaces_it(store: Open) -> None:
    async def work(log: WorldLog) -> None:
        await write(log, CHAIN)
        for length in (1, 3, 2):
            await log.save_snapshot(AUTHORITY.snapshot(take(AUTHORITY.replica(), CHAIN[:length])), seq=length)
        assert await log.snapshot() == AUTHORITY.snapshot(take(AUTHORITY.replica(), CHAIN[:3]))
        assert await log.head() == head_of(CHAIN)
        assert (await log.read(after=3, limit=10)) == CHAIN[3:]

    run(store, work)


def test_two_pdps_over_one_store_take_writes_and_converge(store: Open) -> None:
    async def work(log: WorldLog) -> None:
        async with opened(store) as other:
            clock = HandClock()
            replicas = [AUTHORITY.replica(), AUTHORITY.replica()]
            one, two = (
                Publisher(each, replica, AUTHORITY.keys, clock, MemoryStore())
                for each, replica in zip((log, other), replicas, strict=True)
            )
            await one.publish("lock", lock_payload(1), author="user:ada")
            with pytest.raises(ConflictError):  # it has not seen the first yet; the conflict lets it catch up
                await two.publish("lock", lock_payload(2), author="user:bob")
            assert await two.publish("lock", lock_payload(2), author="user:bob") == 2
            await one.catch_up()
            assert replicas[0].head == replicas[1].head == await log.head()
            beats = HeartbeatLoop(other, replicas[1], AUTHORITY.keys, clock)
            assert await beats.beat()

    run(store, work)


@pytest.mark.holds("V4")
def test_a_writer_far_ahead_leaves_no_gap(store: Open) -> None:
    async def work(log: WorldLog) -> None:
        await write(log, CHAIN[:1])
        with pytest.raises(ConflictError) as conflict:
            await log.append(CHAIN[4], seq=5, prev=CHAIN[3].digest)
        assert conflict.value.head_seq == 1
        assert await log.head() == Head(seq=1, digest=CHAIN[0].digest)

    run(store, work)


def test_a_follower_ends_when_it_is_cancelled_in_whatever_turn_of_the_loop(
    store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PDP that stops waits for its follower; a library that swallows one cancellation kept it waiting for ever."""
    monkeypatch.setattr("pdp.adapters.log_redis.REDIS_BLOCK_S", 0.05)

    async def work(log: WorldLog) -> None:
        await write(log, CHAIN[:1])
        for turns in range(40):
            following = asyncio.create_task(some(log.follow(after=0), 2))
            for _ in range(turns):
                await asyncio.sleep(0)
            following.cancel()
            done, _ = await asyncio.wait([following], timeout=20)
            assert done, f"cancelled after {turns} turns, it goes on"

    run(store, work)


@pytest.mark.holds("P9")
def test_a_publish_is_carried_to_its_end_in_whatever_turn_of_the_loop_its_caller_goes_away(store: Open) -> None:
    """An operator's Ctrl-C: what stands in the log is in force here, so that this PDP goes on vouching for it."""

    async def work(log: WorldLog) -> None:
        replica, clock, disk = AUTHORITY.replica(), HandClock(), MemoryStore()
        publisher = Publisher(log, replica, AUTHORITY.keys, clock, disk)
        heartbeats = HeartbeatLoop(log, replica, AUTHORITY.keys, clock, disk)
        for turns in range(40):
            caller = asyncio.create_task(publisher.publish("lock", lock_payload(turns), author="user:ada"))
            for _ in range(turns):
                await asyncio.sleep(0)
            caller.cancel()
            await asyncio.wait([caller])
            await publisher.finish()
            assert replica.head == await log.head()
            assert await heartbeats.beat()

    run(store, work)
