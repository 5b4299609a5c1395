"""Compaction: what a disk holds stays small, what it holds is what was signed, and nothing is sent twice."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pdp.adapters.replica_store import SqliteReplicaStore
from pdp.limits import SNAPSHOT_CHUNK_BYTES
from pdp.model import canonical
from pdp.replica import Replica
from pdp.service.compact import Compactor, Keeper, Pins
from pdp.service.follow import restore
from pdp.service.replicate import Publisher
from pdp.trust.entry import SignedEntry
from pdp.trust.feed import Seal
from pdp.trust.verifier import Fault
from pdp.world import World, empty_world, from_state, spell_state, to_state
from tests.support.logs import TENANT, Authority, HandClock, MemoryLog, MemoryStore, lock_payload, take
from tests.support.worlds import Scribe

AUTHORITY = Authority()
EVERY = 4


def within(test: Callable[[Path], Awaitable[None]]) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        asyncio.run(test(tmp_path))  # type: ignore[arg-type]

    run.__name__ = test.__name__
    return run


@dataclass
class Edge:
    """An enforcement point whose disk is watched."""

    store: SqliteReplicaStore
    clock: HandClock = field(default_factory=HandClock)
    replica: Replica = field(default_factory=AUTHORITY.replica)

    def __post_init__(self) -> None:
        self.keeper = Keeper(self.replica, self.store, self.clock, pins=Pins(every=EVERY))

    async def take(self, entry: SignedEntry) -> None:
        take(self.replica, [entry])
        await self.store.save(entry, seq=self.replica.world.seq)
        self.keeper.passed(entry)

    async def entries_on_disk(self) -> int:
        return len((await self.store.load())[1])


@dataclass
class Pdp:
    """A PDP that compacts; `seals` are what it tells its followers."""

    log: MemoryLog = field(default_factory=MemoryLog)
    store: MemoryStore = field(default_factory=MemoryStore)
    clock: HandClock = field(default_factory=HandClock)
    replica: Replica = field(default_factory=AUTHORITY.replica)
    seals: list[Seal] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.publisher = Publisher(self.log, self.replica, AUTHORITY.keys, self.clock, self.store)
        self.compactor = Compactor(
            self.log, self.replica, self.clock, store=self.store, key=lambda: AUTHORITY.publish, pins=Pins(every=EVERY)
        )
        self.publisher.on_entry(self.compactor.passed)
        self.compactor.on_seal(self.seals.append)

    async def publish(self, edge: Edge | None = None) -> None:
        number = self.replica.world.seq + 1
        await self.publisher.publish("lock", lock_payload(number), author="user:ada")
        if edge is not None:
            await edge.take(self.log.entries[-1])


@within
async def test_a_follower_drops_what_the_sealed_world_covers_and_starts_from_it(tmp_path: Path) -> None:
    pdp, edge = Pdp(), Edge(SqliteReplicaStore(tmp_path))
    for _ in range(EVERY + 2):
        await pdp.publish(edge)
    assert await pdp.compactor.snapshot(pdp.compactor._pins.newest) == EVERY
    assert await edge.keeper.take(pdp.seals[-1])
    assert await edge.entries_on_disk() == 2
    again = AUTHORITY.replica()
    await restore(again, edge.store, edge.clock)
    assert again.head == pdp.replica.head
    assert again.mark == EVERY + 2
    await edge.store.close()


@within
async def test_the_disks_of_followers_and_pdp_stay_small_however_long_the_log(tmp_path: Path) -> None:
    pdp, edge = Pdp(), Edge(SqliteReplicaStore(tmp_path))
    most = 0
    for _ in range(5 * EVERY):
        await pdp.publish(edge)
        if pdp.replica.world.seq % EVERY == 0:
            await pdp.compactor.snapshot()
            assert await edge.keeper.take(pdp.seals[-1])
        most = max(most, await edge.entries_on_disk(), len(pdp.store.tail))
    assert most == EVERY - 1
    assert len(pdp.log.entries) == 5 * EVERY  # the log is the archive: it keeps everything
    await edge.store.close()


@within
async def test_the_compactor_writes_at_every_point_and_tells(tmp_path: Path) -> None:  # noqa: ARG001
    pdp = Pdp()
    told = asyncio.Event()
    pdp.compactor.on_seal(lambda _seal: told.set())
    running = asyncio.create_task(pdp.compactor.run())
    for _ in range(EVERY):
        await pdp.publish()
    async with asyncio.timeout(10):
        await told.wait()
    assert not pdp.store.tail
    running.cancel()


async def sealed(edge: Edge, pdp: Pdp) -> Seal:
    for _ in range(EVERY):
        await pdp.publish(edge)
    await pdp.compactor.snapshot()
    return pdp.seals[-1]


@within
async def test_a_seal_that_no_publish_key_made_compacts_nothing(tmp_path: Path) -> None:
    pdp, edge = Pdp(), Edge(SqliteReplicaStore(tmp_path))
    seal = await sealed(edge, pdp)
    mallory = Authority(timestamp=AUTHORITY.timestamp)
    forged = replace(seal, signatures=(mallory.publish.sign(seal.header),))
    assert not await edge.keeper.take(forged)
    assert not await edge.keeper.take(Seal(header=b"{}", signatures=seal.signatures))
    assert edge.replica.counters[f"refused_{Fault.BAD_SIGNATURE.value}"] == 1
    assert await edge.entries_on_disk() == EVERY
    await edge.store.close()


@within
async def test_a_seal_of_another_world_is_found_out(tmp_path: Path) -> None:
    """A PDP that holds another world under our number: nothing of ours is dropped for it, and it is counted."""
    pdp, edge, other = Pdp(), Edge(SqliteReplicaStore(tmp_path)), Pdp()
    await sealed(edge, pdp)
    other.clock.advance(1)
    for number in range(EVERY):
        await other.publisher.publish("lock", lock_payload(100 + number), author="user:eve")
    await other.compactor.snapshot()
    assert not await edge.keeper.take(other.seals[-1])
    assert edge.replica.counters[f"refused_{Fault.PAYLOAD_MISMATCH.value}"] == 1
    assert await edge.entries_on_disk() == EVERY
    await edge.store.close()


@within
async def test_a_seal_from_before_we_came_is_passed_over(tmp_path: Path) -> None:
    pdp, edge, late = Pdp(), Edge(SqliteReplicaStore(tmp_path / "one")), Edge(SqliteReplicaStore(tmp_path / "two"))
    seal = await sealed(edge, pdp)
    assert not await late.keeper.take(seal)
    assert late.replica.last_error == ""
    for store in (edge.store, late.store):
        await store.close()


def test_a_large_entry_is_a_snapshot_point_by_itself() -> None:
    pins, world = Pins(every=1_000), replace(empty_world(TENANT), seq=7)
    entry = AUTHORITY.entry()
    assert not pins.passed(world, entry)
    assert pins.passed(world, replace(entry, payload=b"x" * (SNAPSHOT_CHUNK_BYTES + 1)))
    assert pins.at(7) is pins.newest is world


def test_only_the_newest_worlds_stay_pinned() -> None:
    pins = Pins(every=1, keep=2)
    for seq in (1, 2, 3):
        pins.passed(replace(empty_world(TENANT), seq=seq), AUTHORITY.entry())
    assert pins.at(1) is None
    assert [world.seq for world in (pins.at(2), pins.at(3)) if world is not None] == [2, 3]


POLICY = "p, role:reader, dataset.read, dataset/finance, *, , , allow\ng, user:ada@x, role:reader, *\n"
MORE = "g, user:bob@x, role:reader, *\n"


def worlds() -> list[World]:
    scribe = Scribe()
    found = [scribe.world, scribe.policy(POLICY)]
    found.append(scribe.assets(**{"dataset/finance": {"environment": "prod"}}))
    found.append(scribe.lock("l1", {"kind": "principal", "principal": "user:mallory"}))
    return [*found, scribe.policy(POLICY + MORE), scribe.policy(POLICY)]


@pytest.mark.parametrize("rows", [1, 2, 1_000])
def test_a_world_is_spelled_as_its_canonical_state(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdp.world.SPELLED_ROWS", rows)
    for world in worlds():
        assert spell_state(world) == canonical.dumps(to_state(world))


def test_folded_or_loaded_a_world_is_spelled_alike() -> None:
    """Else a follower that started from a snapshot could never make its PDP's seal fit."""
    for world in worlds()[1:]:
        assert spell_state(from_state(to_state(world))) == spell_state(world)
