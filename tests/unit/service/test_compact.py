"""Compaction: what a disk holds stays small, what it holds is what was signed, and nothing is sent twice."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pdp.adapters.replica_store import SqliteReplicaStore
from pdp.limits import COMPACT_SPREAD_S, SNAPSHOT_CHUNK_BYTES
from pdp.model import canonical
from pdp.replica import Replica
from pdp.service.compact import Compactor, Keeper, Pins
from pdp.service.follow import Follower, restore
from pdp.service.replicate import Publisher
from pdp.trust.entry import SignedEntry
from pdp.trust.feed import Ack, FeedItem, Hello, Seal
from pdp.trust.verifier import Fault
from pdp.world import World, empty_world, from_state, spell_state, to_state
from tests.support.logs import TENANT, Authority, HandClock, MemoryLog, MemoryStore, lock_payload, take
from tests.support.worlds import Scribe

AUTHORITY = Authority()
EVERY = 4
HELLO = Hello(seq=0, head=b"", version="0.1", role="sidecar", tenant=TENANT, instance="i-1")


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


class Gate:
    """A sleep that ends when told; `asked` are the pauses."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.begun, self.opened = asyncio.Event(), asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        self.begun.set()
        await self.opened.wait()


def waiting(edge: Edge, gate: Gate) -> Keeper:
    """Return a keeper of `edge` that compacts when the gate is opened."""
    edge.keeper = Keeper(edge.replica, edge.store, edge.clock, pins=Pins(every=EVERY), jitter=lambda: 0.5, sleep=gate)
    return edge.keeper


async def ended(keeper: Keeper) -> None:
    assert keeper._task is not None
    await asyncio.wait([keeper._task])


@within
async def test_entries_come_into_force_while_compaction_waits_and_the_newest_seal_counts(tmp_path: Path) -> None:
    """A lock after a snapshot point waited until every neighbour on the machine had spelled out its world."""
    pdp, edge, gate = Pdp(), Edge(SqliteReplicaStore(tmp_path)), Gate()
    keeper = waiting(edge, gate)
    keeper.later(await sealed(edge, pdp))
    await gate.begun.wait()
    keeper.later(await sealed(edge, pdp))
    assert edge.replica.head == pdp.replica.head
    assert await edge.entries_on_disk() == 2 * EVERY
    gate.opened.set()
    await ended(keeper)
    assert gate.asked == [COMPACT_SPREAD_S / 2]
    assert await edge.entries_on_disk() == 0
    assert edge.replica.counters["compacted"] == 1
    await edge.store.close()


@within
async def test_a_seal_that_comes_during_compaction_is_taken_after_it(tmp_path: Path) -> None:
    pdp, edge, gate = Pdp(), Edge(SqliteReplicaStore(tmp_path)), Gate()
    keeper = waiting(edge, gate)
    first, second = await sealed(edge, pdp), await sealed(edge, pdp)
    gate.opened.set()
    taking = keeper.take

    async def take_and_hear(seal: Seal) -> bool:
        if seal is first:
            keeper.later(second)
        return await taking(seal)

    keeper.take = take_and_hear  # type: ignore[method-assign]
    keeper.later(first)
    await ended(keeper)
    assert edge.replica.counters["compacted"] == 2
    assert await edge.entries_on_disk() == 0
    await edge.store.close()


@within
async def test_a_snapshot_that_came_whole_is_not_replaced_by_an_older_one(tmp_path: Path) -> None:
    pdp, edge = Pdp(), Edge(SqliteReplicaStore(tmp_path))
    seal = await sealed(edge, pdp)
    await pdp.publish(edge)
    taking = asyncio.create_task(edge.keeper.take(seal))
    await asyncio.sleep(0)  # it spells out
    edge.keeper.stored(EVERY + 1)
    await edge.store.save_snapshot(AUTHORITY.snapshot(pdp.replica), seq=EVERY + 1)
    assert not await taking
    again = AUTHORITY.replica()
    await restore(again, edge.store, edge.clock)
    assert again.world.seq == EVERY + 1
    assert not await edge.keeper.take(seal)  # nor is it when the seal is heard again
    await edge.store.close()


@within
async def test_a_world_that_was_ruled_dead_does_not_come_back_from_a_compaction_under_way(tmp_path: Path) -> None:
    pdp, edge = Pdp(), Edge(SqliteReplicaStore(tmp_path))
    seal = await sealed(edge, pdp)
    taking = asyncio.create_task(edge.keeper.take(seal))
    await asyncio.sleep(0)
    edge.keeper.forget()
    await edge.store.reset(after=0)
    assert not await taking
    assert await edge.store.load() == (None, [], None, 0)
    await edge.store.close()


@within
async def test_a_disk_that_fails_under_compaction_is_told_and_the_next_seal_tries_again(tmp_path: Path) -> None:
    pdp, edge, gate = Pdp(), Edge(SqliteReplicaStore(tmp_path)), Gate()
    keeper = waiting(edge, gate)
    gate.opened.set()
    await edge.store.close()
    edge.store = SqliteReplicaStore(tmp_path / "again")
    keeper.later(await sealed(edge, pdp))
    await ended(keeper)
    assert edge.replica.last_error.startswith("store_unavailable")
    keeper._store = edge.store
    keeper.later(await sealed(edge, pdp))
    await ended(keeper)
    assert edge.replica.counters["compacted"] == 1
    await edge.store.close()


@within
async def test_a_follower_that_ends_leaves_no_compaction_behind(tmp_path: Path) -> None:
    pdp, edge, gate = Pdp(), Edge(SqliteReplicaStore(tmp_path)), Gate()
    seal = await sealed(edge, pdp)
    following = Follower(edge.replica, edge.store, Silent([seal]), clock=edge.clock, hello=HELLO, sleep=gate)
    running = asyncio.create_task(following.run())
    await gate.begun.wait()
    running.cancel()
    await asyncio.wait([running])
    assert [task for task in asyncio.all_tasks() if task.get_name() == "compaction"] == []
    await edge.store.close()


@dataclass
class Silent:
    """A feed that sends `items` and then nothing, for ever."""

    items: list[FeedItem]

    def open(self, _hello: Hello) -> "Silent":
        return self

    async def __aiter__(self) -> AsyncIterator[FeedItem]:
        for item in self.items:
            yield item
        await asyncio.Event().wait()

    async def renew(self) -> bool:
        return True

    async def acknowledge(self, ack: Ack) -> None:
        pass

    async def close(self) -> None:
        pass


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
