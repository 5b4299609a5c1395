import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pdp.adapters.log_sqlite import SqliteWorldLog
from pdp.adapters.replica_store import SqliteReplicaStore
from pdp.errors import BadRequestError, ConfigError, ConflictError, PortcullisError, Reason
from pdp.limits import MAX_STALENESS_S, RECONNECT_MAX_S
from pdp.ports import WorldLog
from pdp.replica import Replica
from pdp.service.compact import Compactor, Pins
from pdp.service.replicate import (
    Follower,
    HeartbeatLoop,
    Publisher,
    Replication,
    Subscribers,
    Subscription,
    obtain_root,
)
from pdp.trust.entry import Head, SignedEntry, SignedHeartbeat, SignedSnapshot
from pdp.trust.feed import Ack, FeedItem, Hello, Resync, RootFiles
from pdp.world import World
from tests.support.logs import TENANT, Authority, HandClock, MemoryLog, MemoryStore, head_of, lock_payload, take

AUTHORITY = Authority()
HELLO = Hello(seq=0, head=b"", version="0.1", role="sidecar", tenant=TENANT, instance="i-1")
SIDECAR = "workload:spiffe://demo.portcullis/sidecar"
Test = Callable[[], Awaitable[None]]


def within(test: Test) -> Callable[[], None]:
    """Run an asynchronous test in a loop of its own; what hangs fails by the test's timeout."""

    def run() -> None:
        asyncio.run(test())

    run.__name__ = test.__name__
    return run


@dataclass
class Pdp:
    """One PDP: its own replica and store over a log that it may share."""

    log: WorldLog = field(default_factory=MemoryLog)
    clock: HandClock = field(default_factory=HandClock)
    store: MemoryStore = field(default_factory=MemoryStore)
    replica: Replica = field(default_factory=AUTHORITY.replica)

    def __post_init__(self) -> None:
        self.publisher = Publisher(self.log, self.replica, AUTHORITY.keys, self.clock, self.store)
        self.subscribers = self.registry()
        self.publisher.on_entry(lambda *entry: self.subscribers.announce(*entry))  # noqa: PLW0108 - replaced by tests
        self.compactor = Compactor(
            self.log, self.replica, self.clock, store=self.store, key=lambda: AUTHORITY.publish, pins=Pins(every=2)
        )
        self.publisher.on_entry(self.compactor.passed)
        self.compactor.on_seal(lambda seal: self.subscribers.sealed(seal))  # noqa: PLW0108 - replaced by tests
        self.heartbeats = HeartbeatLoop(
            self.log,
            self.replica,
            AUTHORITY.keys,
            self.clock,
            self.store,
            on_heartbeat=lambda *beat: self.subscribers.heartbeat(*beat),  # noqa: PLW0108 - replaced by tests
        )

    def registry(self, **queue: int) -> Subscribers:
        self.subscribers = Subscribers(
            log=self.log,
            replica=self.replica,
            roots=[self.replica.verifier.root.raw],
            clock=self.clock,
            **queue,
        )
        return self.subscribers

    async def lock(self, number: int) -> int:
        return await self.publisher.publish("lock", lock_payload(number), author="user:ada")

    async def locks(self, *numbers: int) -> None:
        for number in numbers:
            await self.lock(number)

    def staleness_s(self) -> float:
        return self.replica.staleness_s(now_ms=self.clock.now_ms(), mono_s=self.clock.mono_s())


class InProcessFeed:
    """A subscription without a network between: what the PDP would send, and what it is told."""

    def __init__(self, pdp: Pdp, hello: Hello, *, cut_after: int | None, acknowledged: asyncio.Event) -> None:
        self._pdp = pdp
        self._acknowledged = acknowledged
        self._subscription = pdp.subscribers.open(hello, SIDECAR)
        self._cut_after = cut_after

    async def __aiter__(self) -> AsyncIterator[FeedItem]:
        number = 0
        async for item in self._pdp.subscribers.items(self._subscription):
            if number == self._cut_after:
                raise PortcullisError(Reason.PDP_UNREACHABLE, "cut")
            number += 1
            yield item

    async def renew(self) -> bool:
        return True

    async def acknowledge(self, ack: Ack) -> None:
        self._pdp.subscribers.acknowledge(self._subscription, ack)
        self._acknowledged.set()

    async def close(self) -> None:
        self._pdp.subscribers.close(self._subscription, clean=True)


@dataclass
class InProcess:
    """A `FeedSource` straight into a PDP; `hellos` are the positions it was asked from."""

    pdp: Pdp
    cut_after: int | None = None
    hellos: list[Hello] = field(default_factory=list)
    acknowledged: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self, hello: Hello) -> InProcessFeed:
        self.hellos.append(hello)
        return InProcessFeed(self.pdp, hello, cut_after=self.cut_after, acknowledged=self.acknowledged)


@dataclass
class Scripted:
    """A `FeedSource` that plays items, whoever signed them."""

    items: list[FeedItem | PortcullisError]
    acks: list[Ack] = field(default_factory=list)
    lasts: bool = True

    def open(self, _hello: Hello) -> "Scripted":
        return self

    async def __aiter__(self) -> AsyncIterator[FeedItem]:
        for item in self.items:
            if isinstance(item, PortcullisError):
                raise item
            yield item

    async def renew(self) -> bool:
        return self.lasts

    async def acknowledge(self, ack: Ack) -> None:
        self.acks.append(ack)

    async def close(self) -> None:
        return None


def follower(
    source: InProcess | Scripted, replica: Replica, store: MemoryStore, clock: HandClock, **more: object
) -> Follower:
    return Follower(replica, store, source, clock=clock, hello=HELLO, **more)  # type: ignore[arg-type]


async def until(replica: Replica, condition: Callable[[World], bool]) -> None:
    """Wait for a world that meets `condition`."""
    if condition(replica.world):
        return
    met = asyncio.Event()
    stop = replica.on_change(lambda world: met.set() if condition(world) else None)
    await met.wait()
    stop()


# Publishing.


@within
async def test_a_published_change_is_in_the_log_on_disk_and_in_force() -> None:
    pdp = Pdp()
    assert await pdp.lock(1) == 1
    assert await pdp.lock(2) == 2
    assert (await pdp.log.head()) == pdp.replica.head
    assert pdp.store.journal == ["saved 1", "saved 2"]
    assert len(pdp.replica.world.locks) == 2


@pytest.mark.holds("V9", "S5")
@within
async def test_the_disk_has_it_before_anyone_sees_it() -> None:
    pdp = Pdp()
    seen: list[list[str]] = []
    pdp.replica.on_change(lambda _world: seen.append(list(pdp.store.journal)))
    await pdp.lock(1)
    assert seen == [["saved 1"]]


@pytest.mark.holds("F19", "V8")
@within
async def test_a_change_that_makes_no_valid_world_never_enters_the_log() -> None:
    pdp = Pdp()
    with pytest.raises(PortcullisError) as refusal:
        await pdp.publisher.publish("lock", {"id": 7}, author="user:ada")
    assert refusal.value.reason is Reason.POLICY_REFUSED
    assert (await pdp.log.head()).seq == 0
    assert await pdp.lock(1) == 1


@within
async def test_of_two_publishers_one_wins_and_the_other_is_told_the_head() -> None:
    log = MemoryLog()
    one, other = Pdp(log=log), Pdp(log=log)
    await one.lock(1)
    with pytest.raises(ConflictError) as conflict:
        await other.lock(2)
    assert conflict.value.head_seq == 1
    assert other.replica.head == one.replica.head  # it has seen what won, and may try again
    assert await other.lock(2) == 2


@within
async def test_a_change_computed_on_an_older_world_conflicts() -> None:
    pdp = Pdp()
    await pdp.lock(1)
    with pytest.raises(ConflictError):
        await pdp.publisher.publish("lock", lock_payload(2), author="user:ada", expected_seq=0)
    assert await pdp.publisher.publish("lock", lock_payload(2), author="user:ada", expected_seq=1) == 2


@within
async def test_changes_of_one_process_wait_for_each_other() -> None:
    pdp = Pdp()
    assert sorted(await asyncio.gather(*(pdp.lock(number) for number in range(20)))) == list(range(1, 21))


@pytest.mark.holds("S5", "adv_silent_publish")
@within
async def test_a_store_that_answers_and_forgets_is_found_out() -> None:
    class Forgetful(MemoryLog):
        async def append(self, entry: SignedEntry, *, seq: int, prev: bytes) -> None:
            await super().append(entry, seq=seq, prev=prev)
            self.entries.pop()

    pdp = Pdp(log=Forgetful())
    with pytest.raises(PortcullisError) as refusal:
        await pdp.lock(1)
    assert refusal.value.reason is Reason.STORE_UNAVAILABLE
    assert pdp.replica.world.seq == 0


@pytest.mark.holds("F10", "V9")
@within
async def test_a_disk_that_fails_keeps_the_old_world() -> None:
    class Full(MemoryStore):
        async def save(self, entry: SignedEntry, *, seq: int) -> None:  # noqa: ARG002
            raise PortcullisError(Reason.STORE_UNAVAILABLE, "the disk is full")

    pdp = Pdp(store=Full())
    with pytest.raises(PortcullisError):
        await pdp.lock(1)
    assert pdp.replica.world.seq == 0


@within
async def test_a_restart_keeps_everything() -> None:
    pdp = Pdp()
    await pdp.locks(1, 2, 3)
    again = Pdp(log=pdp.log, store=pdp.store)
    await again.publisher.catch_up()
    assert again.replica.head == pdp.replica.head


@within
async def test_a_pdp_without_its_own_disk_reads_the_log_from_a_snapshot() -> None:
    pdp = Pdp()
    await pdp.locks(1, 2)
    assert await pdp.compactor.snapshot() == 2
    await pdp.lock(3)
    fresh = Pdp(log=pdp.log)
    await fresh.publisher.catch_up()
    assert fresh.replica.head == pdp.replica.head
    assert fresh.store.journal == ["saved snapshot 2", "saved 3"]


@within
async def test_a_snapshot_is_written_when_enough_has_come() -> None:
    pdp = Pdp()
    compacting = asyncio.create_task(pdp.compactor.run())
    await pdp.locks(1, 2)
    await pdp.log.snapshotted.wait()  # type: ignore[attr-defined]
    compacting.cancel()


@within
async def test_what_another_process_appends_is_followed() -> None:
    log = MemoryLog()
    one, other = Pdp(log=log), Pdp(log=log)
    following = asyncio.create_task(other.publisher.follow())
    await one.locks(1, 2)
    await until(other.replica, lambda world: world.seq == 2)
    assert other.store.mark == 2
    following.cancel()


@pytest.mark.holds("P7", "V2")
@within
async def test_a_forged_entry_in_the_log_is_refused_for_ever_and_the_old_world_stays() -> None:
    log = MemoryLog()
    pdp = Pdp(log=log)
    await pdp.lock(1)
    log.entries.append(AUTHORITY.entry(pdp.replica.head, keys=[AUTHORITY.timestamp]))
    await pdp.publisher.catch_up()
    assert pdp.replica.world.seq == 1
    assert pdp.replica.last_error.startswith("bad_signature")
    assert await pdp.heartbeats.beat() is False  # and nobody is told that this log is sound


# Heartbeats.


@within
async def test_a_heartbeat_makes_this_pdp_fresh_and_is_kept() -> None:
    pdp = Pdp()
    await pdp.lock(1)
    assert pdp.staleness_s() == float("inf")
    assert await pdp.heartbeats.beat()
    assert pdp.staleness_s() == 0
    assert pdp.store.heartbeat is not None
    pdp.clock.advance(7)
    assert pdp.staleness_s() == 7


@pytest.mark.holds("F6", "P6")
@within
async def test_a_pdp_cut_off_from_its_store_signs_nothing_and_goes_stale() -> None:
    log = MemoryLog()
    pdp = Pdp(log=log)
    await pdp.lock(1)
    await pdp.heartbeats.beat()
    log.down = True
    pdp.clock.advance(20)
    assert await pdp.heartbeats.beat() is False
    assert pdp.staleness_s() == 20
    assert pdp.replica.last_error.startswith("store_unavailable")
    log.down = False
    assert await pdp.heartbeats.beat()
    assert pdp.staleness_s() == 0


@within
async def test_the_time_of_a_heartbeat_is_the_start_of_its_read() -> None:
    clock = HandClock()

    class Slow(MemoryLog):
        async def head(self) -> Head:
            clock.advance(5)
            return await super().head()

    pdp = Pdp(log=Slow(), clock=clock)
    await pdp.heartbeats.beat()
    assert pdp.staleness_s() == 5


@pytest.mark.holds("F4")
@within
async def test_an_emptied_store_gets_no_heartbeat() -> None:
    log = MemoryLog()
    pdp = Pdp(log=log)
    await pdp.lock(1)
    log.entries.clear()
    assert await pdp.heartbeats.beat() is False
    assert pdp.replica.last_error.startswith("rollback")
    assert pdp.replica.world.seq == 1


@within
async def test_a_head_not_yet_verified_gets_no_heartbeat() -> None:
    log = MemoryLog()
    one, other = Pdp(log=log), Pdp(log=log)
    await one.lock(1)
    assert await other.heartbeats.beat() is False
    await other.publisher.catch_up()
    assert await other.heartbeats.beat() is True


@pytest.mark.holds("F12")
@within
async def test_a_clock_set_back_does_not_stop_the_heartbeats() -> None:
    pdp = Pdp()
    await pdp.heartbeats.beat()
    pdp.clock.wall_ms -= 3_600_000
    pdp.clock.mono += 2
    assert await pdp.heartbeats.beat()
    assert pdp.staleness_s() == 0


# Subscribers.


async def drain(pdp: Pdp, subscription: Subscription, number: int) -> list[FeedItem]:
    items = pdp.subscribers.items(subscription)
    found = [await anext(items) for _ in range(number)]
    await items.aclose()
    return found


@within
async def test_a_new_replica_gets_roots_heartbeat_and_tail_then_what_comes() -> None:
    pdp = Pdp()
    await pdp.locks(1, 2)
    await pdp.heartbeats.beat()
    subscription = pdp.subscribers.open(HELLO, SIDECAR)
    items = pdp.subscribers.items(subscription)
    found = [await anext(items) for _ in range(4)]
    assert [type(item) for item in found] == [RootFiles, SignedHeartbeat, SignedEntry, SignedEntry]
    await pdp.lock(3)
    assert (await anext(items)) == pdp.log.entries[2]  # type: ignore[attr-defined]
    await items.aclose()


@within
async def test_a_replica_far_behind_gets_a_snapshot_and_the_tail() -> None:
    pdp = Pdp()
    await pdp.locks(1, 2)
    await pdp.compactor.snapshot()
    await pdp.lock(3)
    await pdp.heartbeats.beat()
    found = await drain(pdp, pdp.subscribers.open(HELLO, SIDECAR), 4)
    assert [type(item) for item in found] == [RootFiles, SignedHeartbeat, SignedSnapshot, SignedEntry]


@within
async def test_a_replica_nearly_there_gets_only_what_it_lacks() -> None:
    pdp = Pdp()
    await pdp.locks(1, 2)
    await pdp.compactor.snapshot()
    await pdp.lock(3)
    near = replace(HELLO, seq=2, head=head_of(pdp.log.entries[:2]).digest)  # type: ignore[attr-defined]
    found = await drain(pdp, pdp.subscribers.open(near, SIDECAR), 2)
    assert found[1:] == [pdp.log.entries[2]]  # type: ignore[attr-defined]


@within
async def test_an_entry_that_comes_while_the_tail_is_read_is_sent_once() -> None:
    pdp = Pdp()
    await pdp.lock(1)
    subscription = pdp.subscribers.open(HELLO, SIDECAR)
    await pdp.lock(2)  # queued, and in the log before the tail is read
    items = pdp.subscribers.items(subscription)
    found = [await anext(items) for _ in range(3)]
    await pdp.lock(3)
    found.append(await anext(items))
    assert found[1:] == pdp.log.entries  # type: ignore[attr-defined]
    await items.aclose()


@pytest.mark.holds("F26", "L8")
@within
async def test_a_subscriber_that_does_not_read_is_evicted_and_told_to_start_again() -> None:
    pdp = Pdp()
    pdp.registry(queue_entries=3)
    stuck = pdp.subscribers.open(HELLO, SIDECAR)
    items = pdp.subscribers.items(stuck)
    await anext(items)
    await pdp.locks(1, 2, 3, 4, 5)
    assert stuck.evicted
    assert stuck.queue.qsize() == 1
    rest = [item async for item in items]
    assert isinstance(rest[-1], Resync)


@pytest.mark.holds("F26", "L8")
@within
async def test_what_waits_for_a_subscriber_is_bounded_by_bytes_too() -> None:
    pdp = Pdp()
    pdp.registry(queue_bytes=1_500)
    stuck, reading = (pdp.subscribers.open(replace(HELLO, instance=name), SIDECAR) for name in ("a", "b"))
    items = pdp.subscribers.items(reading)
    await anext(items)
    for number in range(1, 6):
        coming = asyncio.create_task(anext(items))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await pdp.lock(number)
        await coming
    assert stuck.evicted
    assert not reading.evicted
    assert stuck.waiting_bytes == reading.waiting_bytes == 0


@within
async def test_another_tenant_is_refused() -> None:
    with pytest.raises(BadRequestError):
        Pdp().subscribers.open(replace(HELLO, tenant="other"), SIDECAR)


@within
async def test_a_receipt_counts_who_holds_the_change_and_names_the_others() -> None:
    pdp = Pdp()
    await pdp.heartbeats.beat()
    quick = pdp.subscribers.open(HELLO, SIDECAR)
    slow = pdp.subscribers.open(replace(HELLO, instance="i-2"), "workload:spiffe://demo.portcullis/other")
    beat_ms = pdp.clock.now_ms()
    for each in (quick, slow):
        pdp.subscribers.acknowledge(each, Ack(seq=0, heartbeat_ms=beat_ms))
    seq = await pdp.lock(1)
    pdp.clock.mono += 0.025
    pdp.subscribers.acknowledge(quick, Ack(seq=seq, heartbeat_ms=beat_ms))
    receipt = await pdp.subscribers.wait_all(seq, 0.0)
    assert (receipt.connected, receipt.holding) == (2, 1)
    assert receipt.missing == ("workload:spiffe://demo.portcullis/other (sidecar)",)
    waiting = asyncio.create_task(pdp.subscribers.wait_all(seq, 60.0))
    pdp.clock.mono += 0.025
    await asyncio.sleep(0)
    pdp.subscribers.acknowledge(slow, Ack(seq=seq, heartbeat_ms=beat_ms))
    receipt = await waiting
    assert (receipt.holding, receipt.missing, round(receipt.slowest_ms)) == (2, (), 50)


@within
async def test_who_has_acknowledged_no_heartbeat_is_not_connected() -> None:
    pdp = Pdp()
    pdp.subscribers.open(HELLO, SIDECAR)
    assert (await pdp.subscribers.wait_all(1, 0.0)).connected == 0


@within
async def test_a_replica_whose_stream_broke_counts_until_it_must_be_stale() -> None:
    pdp = Pdp()
    lost = pdp.subscribers.open(HELLO, SIDECAR)
    pdp.subscribers.acknowledge(lost, Ack(seq=0, heartbeat_ms=pdp.clock.now_ms()))
    pdp.subscribers.close(lost, clean=False)
    assert len(pdp.subscribers.receipt(1).missing) == 1
    pdp.clock.advance(max(MAX_STALENESS_S.values()) + 1)
    assert pdp.subscribers.receipt(1).missing == ()
    assert pdp.subscribers.list() == ()


@within
async def test_a_replica_that_says_goodbye_is_not_waited_for() -> None:
    pdp = Pdp()
    leaving = pdp.subscribers.open(HELLO, SIDECAR)
    pdp.subscribers.acknowledge(leaving, Ack(seq=0, heartbeat_ms=pdp.clock.now_ms()))
    waiting = asyncio.create_task(pdp.subscribers.wait_all(1, 60.0))
    await asyncio.sleep(0)
    pdp.subscribers.close(leaving, clean=True)
    assert (await waiting).connected == 0


@within
async def test_an_instance_that_comes_back_is_counted_once_and_nobody_takes_its_place() -> None:
    pdp = Pdp()
    for identity in (SIDECAR, SIDECAR, "workload:spiffe://demo.portcullis/impostor"):
        subscription = pdp.subscribers.open(HELLO, identity)
        pdp.subscribers.acknowledge(subscription, Ack(seq=0, heartbeat_ms=pdp.clock.now_ms()))
    assert pdp.subscribers.receipt(0).connected == 2


@within
async def test_the_list_shows_position_and_staleness() -> None:
    pdp = Pdp()
    seq = await pdp.lock(1)
    subscription = pdp.subscribers.open(HELLO, SIDECAR)
    pdp.subscribers.acknowledge(
        subscription, Ack(seq=seq + 99, heartbeat_ms=pdp.clock.now_ms() + 10**9, audit_head=b"h")
    )
    pdp.clock.advance(3)
    (info,) = pdp.subscribers.list()
    assert (info.identity, info.role, info.seq, info.staleness_s, info.connected, info.audit_head) == (
        SIDECAR, "sidecar", seq, 3, True, b"h",
    )  # fmt: skip


# Followers.


@within
async def test_a_follower_catches_up_stays_in_step_and_acknowledges() -> None:
    pdp, replica, store = Pdp(), AUTHORITY.replica(), MemoryStore()
    await pdp.locks(1, 2)
    await pdp.compactor.snapshot()
    await pdp.lock(3)
    await pdp.heartbeats.beat()
    running = asyncio.create_task(follower(InProcess(pdp), replica, store, pdp.clock).run())
    await until(replica, lambda world: world.seq == 3)
    seq = await pdp.lock(4)
    receipt = await pdp.subscribers.wait_all(seq, 60.0)
    assert (receipt.connected, receipt.holding) == (1, 1)
    assert replica.head == pdp.replica.head
    assert store.journal == ["saved snapshot 2", "saved 3", "saved 4"]
    assert replica.staleness_s(now_ms=pdp.clock.now_ms(), mono_s=pdp.clock.mono_s()) == 0
    assert store.heartbeat == replica.proof
    running.cancel()


@pytest.mark.holds("V9")
@within
async def test_an_acknowledgement_follows_the_disk_the_swap_and_the_cuts() -> None:
    pdp, replica, store = Pdp(), AUTHORITY.replica(), MemoryStore()
    await pdp.heartbeats.beat()
    cutting, cut = asyncio.Event(), asyncio.Event()

    async def order_cuts(world: World) -> None:
        assert replica.world is world
        assert store.mark == world.seq
        cutting.set()
        await cut.wait()

    source = InProcess(pdp)
    running = asyncio.create_task(follower(source, replica, store, pdp.clock, on_commit=order_cuts).run())
    await source.acknowledged.wait()
    seq = await pdp.lock(1)
    await cutting.wait()
    assert len(pdp.subscribers.receipt(seq).missing) == 1
    cut.set()
    assert (await pdp.subscribers.wait_all(seq, 60.0)).missing == ()
    running.cancel()


@within
async def test_a_follower_whose_feed_is_blocked_goes_stale_and_keeps_its_world() -> None:
    pdp, replica = Pdp(), AUTHORITY.replica()
    await pdp.lock(1)
    await pdp.heartbeats.beat()
    source = InProcess(pdp)
    running = asyncio.create_task(follower(source, replica, MemoryStore(), pdp.clock).run())
    await until(replica, lambda world: world.seq == 1)
    running.cancel()
    pdp.clock.advance(MAX_STALENESS_S["low"] + 1)
    assert replica.world.seq == 1
    assert replica.staleness_s(now_ms=pdp.clock.now_ms(), mono_s=pdp.clock.mono_s()) > MAX_STALENESS_S["low"]


@pytest.mark.holds("F1", "P12")
@within
async def test_a_follower_starts_from_its_disk_without_its_pdp() -> None:
    pdp, store = Pdp(), MemoryStore()
    await pdp.locks(1, 2)
    await pdp.compactor.snapshot()
    await pdp.lock(3)
    pdp.clock.advance(1)
    await pdp.heartbeats.beat()
    first = AUTHORITY.replica()
    running = asyncio.create_task(follower(InProcess(pdp), first, store, pdp.clock).run())
    await until(first, lambda world: world.seq == 3)
    await pdp.subscribers.wait_all(3, 60.0)
    running.cancel()
    pdp.clock.advance(10)
    again, gone = AUTHORITY.replica(), PortcullisError(Reason.PDP_UNREACHABLE, "no route")
    stopped = asyncio.Event()

    async def pause(_seconds: float) -> None:
        stopped.set()
        await asyncio.Event().wait()

    offline = asyncio.create_task(follower(Scripted([gone]), again, store, pdp.clock, sleep=pause).run())
    await stopped.wait()
    offline.cancel()
    assert again.head == first.head
    assert again.staleness_s(now_ms=pdp.clock.now_ms(), mono_s=pdp.clock.mono_s()) == 10
    assert again.last_error == "pdp_unreachable: no route"


@pytest.mark.holds("F18", "V4")
@within
async def test_a_disk_rolled_back_below_its_mark_is_not_fresh() -> None:
    pdp, store = Pdp(), MemoryStore()
    await pdp.locks(1, 2)
    await pdp.heartbeats.beat()
    replica = AUTHORITY.replica()
    store.tail = {1: pdp.log.entries[0]}  # type: ignore[attr-defined]
    store.mark, store.heartbeat = 2, pdp.store.heartbeat
    await follower(Scripted([]), replica, store, pdp.clock).follow()
    running = asyncio.create_task(follower(Scripted([]), replica, store, pdp.clock, sleep=_forever).run())
    await until(replica, lambda world: world.seq == 1)
    assert replica.staleness_s(now_ms=pdp.clock.now_ms(), mono_s=pdp.clock.mono_s()) == float("inf")
    running.cancel()


async def _forever(_seconds: float) -> None:
    await asyncio.Event().wait()


@within
async def test_a_follower_comes_back_from_where_it_stood() -> None:
    pdp, replica = Pdp(), AUTHORITY.replica()
    await pdp.locks(1, 2)
    await pdp.heartbeats.beat()
    source = InProcess(pdp, cut_after=3)  # roots, heartbeat, one entry
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        source.cut_after = None

    running = asyncio.create_task(
        follower(source, replica, MemoryStore(), pdp.clock, sleep=pause, jitter=lambda: 1.0).run()
    )
    await until(replica, lambda world: world.seq == 2)
    running.cancel()
    assert [hello.seq for hello in source.hellos] == [0, 1]
    assert len(pauses) == 1


def test_the_pauses_between_attempts_grow_and_are_jittered_and_capped() -> None:
    clock = HandClock()
    steady = follower(Scripted([]), AUTHORITY.replica(), MemoryStore(), clock, jitter=lambda: 1.0)
    pauses = [steady._pause_s() for _ in range(20)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == RECONNECT_MAX_S
    early = follower(Scripted([]), AUTHORITY.replica(), MemoryStore(), clock, jitter=lambda: 0.0)
    assert early._pause_s() == pauses[0] / 2


@pytest.mark.parametrize("forged", ["entry", "snapshot", "roots"])
def test_a_forged_feed_ends_the_subscription_and_moves_nothing(forged: str) -> None:
    async def test() -> None:
        pdp, replica, store, stranger = Pdp(), AUTHORITY.replica(), MemoryStore(), Authority()
        items: dict[str, FeedItem] = {
            "entry": stranger.entry(),
            "snapshot": stranger.snapshot(take(stranger.replica(), stranger.chain(1))),
            "roots": RootFiles(files=(stranger.root().raw,)),
        }
        source = Scripted([items[forged], AUTHORITY.entry()])
        await follower(source, replica, store, pdp.clock).follow()
        assert replica.world.seq == 0
        assert store.journal == []
        assert source.acks == []
        assert replica.last_error

    asyncio.run(test())


@pytest.mark.holds("F10", "F11")
@within
async def test_a_disk_that_fails_on_a_follower_keeps_the_old_world() -> None:
    class Full(MemoryStore):
        async def save(self, entry: SignedEntry, *, seq: int) -> None:  # noqa: ARG002
            raise PortcullisError(Reason.STORE_UNAVAILABLE, "the disk is full")

    replica, source = AUTHORITY.replica(), Scripted([AUTHORITY.entry()])
    await follower(source, replica, Full(), HandClock()).follow()
    assert replica.world.seq == 0
    assert source.acks == []
    assert replica.last_error.startswith("store_unavailable")


# The root file.


def test_the_root_file_is_taken_from_the_pdp_only_by_its_pinned_digest(tmp_path: Path) -> None:
    async def test() -> None:
        root = AUTHORITY.root()
        source = Scripted([RootFiles(files=(Authority().root().raw, root.raw))])
        found = await obtain_root(state_dir=tmp_path, pinned=root.digest, source=source, hello=HELLO)
        assert found == root
        offline = Scripted([PortcullisError(Reason.PDP_UNREACHABLE, "gone")])
        assert await obtain_root(state_dir=tmp_path, pinned=root.digest, source=offline, hello=HELLO) == root
        with pytest.raises(ConfigError, match="root file"):
            await obtain_root(state_dir=tmp_path / "new", pinned="0" * 64, source=source, hello=HELLO)

    asyncio.run(test())


@pytest.mark.holds("P12")
def test_a_pdp_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    async def test() -> None:
        root = AUTHORITY.root()
        source = Scripted([PortcullisError(Reason.PDP_UNREACHABLE, "not yet")])

        async def pause(_seconds: float) -> None:
            source.items = [RootFiles(files=(root.raw,))]

        found = await obtain_root(state_dir=tmp_path, pinned=root.digest, source=source, hello=HELLO, sleep=pause)
        assert found == root

    asyncio.run(test())


# All of it, over SQLite.


@pytest.mark.holds("F3", "P12")
def test_replication_over_sqlite_survives_a_restart_and_a_store_that_is_down_at_start(tmp_path: Path) -> None:
    async def once(number: int) -> Head:
        log, store = SqliteWorldLog(tmp_path / "world.db"), SqliteReplicaStore(tmp_path / "replica")
        replica, clock = AUTHORITY.replica(), HandClock()
        clock.advance(number)
        replication = Replication(log=log, replica=replica, keys=AUTHORITY.keys, clock=clock, store=store)
        await replication.start()
        assert replica.staleness_s(now_ms=clock.now_ms(), mono_s=clock.mono_s()) == 0
        assert await replication.publisher.publish("lock", lock_payload(number), author="user:ada") == number
        await replication.stop()
        await log.close()
        await store.close()
        return replica.head

    async def without_log(head: Head) -> None:
        log, store = MemoryLog(), SqliteReplicaStore(tmp_path / "replica")
        log.down = True
        replica, clock = AUTHORITY.replica(), HandClock()
        clock.advance(10)
        replication = Replication(log=log, replica=replica, keys=AUTHORITY.keys, clock=clock, store=store)
        await replication.start()
        assert replica.head == head
        # Fresh by the stored heartbeat, and as old as that is; a beat in the same millisecond is dated one later.
        assert replica.staleness_s(now_ms=clock.now_ms(), mono_s=clock.mono_s()) == pytest.approx(7, abs=0.01)
        assert replica.last_error.startswith("store_unavailable")
        await replication.stop()
        await store.close()

    for number in (1, 2, 3):
        head = asyncio.run(once(number))
    asyncio.run(without_log(head))


@pytest.mark.holds("V4", "F4")
def test_a_log_put_back_to_an_older_state_neither_rolls_the_pdp_back_nor_takes_writes() -> None:
    async def test() -> None:
        pdp = Pdp()
        await pdp.locks(1, 2)
        older = MemoryLog()
        older.entries = list(pdp.log.entries[:1])  # type: ignore[attr-defined]
        restored = Pdp(log=older, store=pdp.store)
        await restored.publisher.catch_up()
        assert restored.replica.head == pdp.replica.head
        assert await restored.heartbeats.beat() is False
        with pytest.raises(ConflictError):
            await restored.lock(3)

    asyncio.run(test())


@pytest.mark.holds("F25")
@within
async def test_a_certificate_that_was_exchanged_takes_a_new_subscription() -> None:
    entries = AUTHORITY.chain(2)
    beat = AUTHORITY.heartbeat(head_of(entries[:1]))
    source = Scripted([entries[0], beat, entries[1]], lasts=False)
    replica = AUTHORITY.replica()
    await follower(source, replica, MemoryStore(), HandClock()).follow()
    assert replica.world.seq == 1
    assert replica.last_error == ""


@within
async def test_a_head_that_is_on_its_way_to_us_is_looked_at_again_soon() -> None:
    """Else a worker beside busy writers would seldom vouch for anything, and go stale beside a sound log."""
    log = MemoryLog()
    one, other = Pdp(log=log), Pdp(log=log)
    await one.lock(1)
    beating = asyncio.create_task(other.heartbeats.run(interval_s=3_600))
    await asyncio.sleep(0)
    assert other.replica.heartbeat_ms == 0
    await other.publisher.catch_up()
    async with asyncio.timeout(10):
        while not other.replica.heartbeat_ms:  # noqa: ASYNC110 - a heartbeat makes no new world
            await asyncio.sleep(0.01)
    beating.cancel()


class SlowLog(MemoryLog):
    """A log that has written and does not answer yet."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.answer = asyncio.Event(), asyncio.Event()

    async def append(self, entry: SignedEntry, *, seq: int, prev: bytes) -> None:
        await super().append(entry, seq=seq, prev=prev)
        self.written.set()
        await self.answer.wait()


@within
async def test_a_caller_that_goes_away_leaves_no_entry_behind_which_this_pdp_stands() -> None:
    """An operator's Ctrl-C between the log and our own world: the entry is there, so it is in force here, and vouched for."""
    authority, log = Authority(), SlowLog()
    replica = authority.replica()
    publisher = Publisher(log, replica, authority.keys, HandClock())
    caller = asyncio.create_task(publisher.publish("lock", lock_payload(1), author="user:ada"))
    await log.written.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert (len(log.entries), replica.world.seq) == (1, 0)
    log.answer.set()
    await publisher.finish()
    assert replica.world.seq == 1
    assert await publisher.publish("lock", lock_payload(2), author="user:ada") == 2


@within
async def test_what_fails_after_its_caller_went_away_is_no_noise() -> None:
    authority, log = Authority(), SlowLog()
    publisher = Publisher(log, authority.replica(), authority.keys, HandClock())
    caller = asyncio.create_task(publisher.publish("lock", lock_payload(1), author="user:ada"))
    await log.written.wait()
    caller.cancel()
    log.entries.clear()  # the store answers, and has forgotten
    log.answer.set()
    await publisher.finish()
    assert publisher.log is log


@within
async def test_callers_that_go_away_while_they_wait_for_their_turn_write_nothing_and_leave_nothing() -> None:
    """Whoever may change anything could pile up changes behind a slow store, by asking and hanging up."""
    authority, log = Authority(), SlowLog()
    publisher = Publisher(log, authority.replica(), authority.keys, HandClock())
    first = asyncio.create_task(publisher.publish("lock", lock_payload(1), author="user:ada"))
    await log.written.wait()
    before = len(asyncio.all_tasks())
    waiting = [
        asyncio.create_task(publisher.publish("lock", lock_payload(number), author="user:eve"))
        for number in range(2, 50)
    ]
    await asyncio.sleep(0)
    for caller in waiting:
        caller.cancel()
    await asyncio.wait(waiting)
    assert len(asyncio.all_tasks()) == before
    log.answer.set()
    assert await first == 1
    await publisher.finish()
    assert len(log.entries) == 1
    assert await publisher.publish("lock", lock_payload(50), author="user:ada") == 2
