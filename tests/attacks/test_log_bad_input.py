"""What somebody wrote into the store, over SQLite and over a real Redis: refused, counted, told, and the world stays.

The stores are carriers and keep whatever they are given; so the bad row is put there as a writer with access to the store would,
past everything that a PDP checks before it writes.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pdp.adapters.log_redis import RedisWorldLog
from pdp.adapters.log_sqlite import SqliteWorldLog
from pdp.limits import MAX_ENTRY_BYTES, READY_STALENESS_S
from pdp.ports import WorldLog
from pdp.replica import Replica
from pdp.service.health import Health, Report
from pdp.service.replicate import HeartbeatLoop, Publisher
from pdp.trust.entry import SignedEntry
from pdp.trust.verifier import Fault
from tests.support.logs import Authority, HandClock, MemoryStore, head_of
from tests.support.redis import EXTERNAL, redis_server

AUTHORITY = Authority()
STRANGER = Authority()
GOOD = AUTHORITY.chain(4)
HELD, NEXT = head_of(GOOD[:2]), GOOD[2]
BAD: dict[str, tuple[SignedEntry, Fault]] = {
    "forged": (STRANGER.entry(HELD), Fault.BAD_SIGNATURE),
    "unsigned": (replace(NEXT, signatures=()), Fault.BAD_SIGNATURE),
    "altered": (replace(NEXT, payload=NEXT.payload.replace(b"mallory", b"alice00")), Fault.PAYLOAD_MISMATCH),
    "header cut short": (replace(NEXT, header=NEXT.header[:-9]), Fault.BAD_SIGNATURE),
    "payload cut short": (replace(NEXT, payload=NEXT.payload[:-9]), Fault.PAYLOAD_MISMATCH),
    "nothing at all": (SignedEntry(header=b"", payload=b"", signatures=()), Fault.BAD_SIGNATURE),
    "duplicated": (GOOD[1], Fault.DUPLICATE),
    "an older one again": (GOOD[0], Fault.ROLLBACK),
    "out of order": (GOOD[3], Fault.GAP),
    "of another history": (AUTHORITY.entry(replace(HELD, digest=GOOD[0].digest)), Fault.EQUIVOCATION),
    "oversized": (replace(NEXT, payload=b"x" * (MAX_ENTRY_BYTES + 1)), Fault.OVERSIZED),
    "another tenant's": (AUTHORITY.entry(HELD, tenant="other"), Fault.WRONG_TENANT),
    "of no kind that we know": (AUTHORITY.entry(HELD, kind="alien", payload={}), Fault.FOLD_REFUSED),
}


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    if EXTERNAL in os.environ:
        yield os.environ[EXTERNAL]
        return
    with redis_server() as server:
        yield server.url


@pytest.fixture(params=["sqlite", "redis"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], WorldLog]:
    if request.param == "sqlite":
        return lambda: SqliteWorldLog(tmp_path / "world.db", poll_s=0.001)
    url = request.getfixturevalue("redis_url")
    return lambda: RedisWorldLog(url, tenant=f"t{abs(hash(str(tmp_path)))}", create=True)


class Pdp:
    """A PDP over a log that others can write too."""

    def __init__(self, log: WorldLog) -> None:
        self.log = log
        self.clock = HandClock()
        self.replica = AUTHORITY.replica()
        store = MemoryStore()
        self.publisher = Publisher(log, self.replica, AUTHORITY.keys, self.clock, store)
        self.heartbeats = HeartbeatLoop(log, self.replica, AUTHORITY.keys, self.clock, store)

    async def holds(self, entries: Sequence[SignedEntry]) -> None:
        for number, entry in enumerate(entries, start=1):
            await self.log.append(entry, seq=number, prev=head_of(entries[: number - 1]).digest)
        await self.publisher.catch_up()
        assert await self.heartbeats.beat()

    def told(self) -> Report:
        trail = SimpleNamespace(last_error="", degraded="", lost=0, link=SimpleNamespace(n=0, digest=""))
        health = Health(replica=self.replica, trail=trail, clock=self.clock, standing=())  # type: ignore[arg-type]
        return health.report()


async def noticed(replica: Replica, fault: Fault) -> None:
    async with asyncio.timeout(20):
        while not replica.counters[f"refused_{fault.value}"]:  # noqa: ASYNC110 - what is refused makes no new world
            await asyncio.sleep(0.002)


@pytest.mark.holds("P7", "V1", "V2", "V3", "V4", "S8", "adv_redis_hostile", "adv_malformed_peer")
@pytest.mark.parametrize("what", BAD)
def test_a_bad_entry_in_the_store_moves_no_world_and_is_told(log: Callable[[], WorldLog], what: str) -> None:
    bad, fault = BAD[what]

    async def work() -> None:
        carrier = log()
        pdp, late = Pdp(carrier), Pdp(carrier)
        await pdp.holds(GOOD[:2])
        following = asyncio.create_task(pdp.publisher.follow())
        try:
            await carrier.append(bad, seq=3, prev=HELD.digest)
            await noticed(pdp.replica, fault)
            await late.publisher.catch_up()  # one that comes later is fed the same
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        for each in (pdp, late):
            assert each.replica.head == HELD
            assert each.replica.counters[f"refused_{fault.value}"] >= 1
            assert each.told().last_error.startswith(fault.value)
            assert not await each.heartbeats.beat()  # nobody vouches for what was not verified
        assert pdp.told().degradations == ()  # the old world serves on inside its bound, and not longer
        pdp.clock.advance(READY_STALENESS_S + 1)
        assert "the world is stale" in pdp.told().degradations[0]
        await carrier.close()

    asyncio.run(work())


@pytest.mark.holds("P7")
def test_an_honest_entry_is_taken(log: Callable[[], WorldLog]) -> None:
    """Else the table above would prove nothing."""

    async def work() -> None:
        carrier = log()
        pdp = Pdp(carrier)
        await pdp.holds(GOOD[:3])
        assert pdp.replica.head == head_of(GOOD[:3])
        assert pdp.told().last_error == ""
        await carrier.close()

    asyncio.run(work())
