"""Several PDPs over one store: lost tails come back under their numbers, and two entries under one number stop everybody."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from pdp.errors import ConflictError, PortcullisError, Reason
from pdp.replica import Replica
from pdp.service.cluster import ArchivingStore, MirroredLog, archived, refill, restore_store
from pdp.service.follow import Follower
from pdp.service.positions import Positions
from pdp.service.replicate import HeartbeatLoop, NextRoot, Publisher, Replication
from pdp.service.subscribers import Posted, Subscribers
from pdp.trust.entry import Head, SignedEntry
from pdp.trust.feed import Ack, Hello, RootFiles
from pdp.trust.keys import RootFile, Ruling, SigningKey
from tests.support.logs import (
    START_MS,
    TENANT,
    Authority,
    HandClock,
    MemoryShared,
    MemoryStore,
    head_of,
    lock_payload,
    take,
)

AUTHORITY = Authority()
HELLO = Hello(seq=0, head=b"", version="0.1", role="sidecar", tenant=TENANT, instance="i-1")
_names = itertools.count()


def within(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())  # type: ignore[arg-type]

    run.__name__ = test.__name__
    return run


@dataclass
class Pdp:
    """One PDP of a cluster: an archive of its own, a store that it shares."""

    store: MemoryShared
    archive: MemoryShared = field(default_factory=MemoryShared)
    own: MemoryStore = field(default_factory=MemoryStore)
    replica: Replica = field(default_factory=AUTHORITY.replica)
    clock: HandClock = field(default_factory=HandClock)

    def __post_init__(self) -> None:
        self.log = MirroredLog(self.store, self.archive)
        self.kept = ArchivingStore(self.own, self.archive)
        self.publisher = Publisher(self.log, self.replica, AUTHORITY.keys, self.clock, self.kept)
        self.heartbeats = HeartbeatLoop(self.log, self.replica, AUTHORITY.keys, self.clock, self.kept)
        self.subscribers = Subscribers(
            log=self.log, replica=self.replica, roots=[self.replica.verifier.root.raw], clock=self.clock
        )

    async def lock(self, number: int) -> int:
        return await self.publisher.publish("lock", lock_payload(number), author="user:ada")

    async def refused(self) -> PortcullisError:
        with pytest.raises(PortcullisError) as refusal:
            await self.lock(99)
        return refusal.value


async def two(*, locks: int = 0) -> tuple[Pdp, Pdp]:
    store = MemoryShared()
    one, other = Pdp(store), Pdp(store)
    for number in range(1, locks + 1):
        await one.lock(number)
    await other.publisher.catch_up()
    return one, other


@within
async def test_every_pdp_keeps_the_whole_log() -> None:
    one, other = await two(locks=3)
    assert one.archive.entries == other.archive.entries == one.store.entries
    assert len(one.archive.entries) == 3


@within
async def test_any_pdp_may_write_and_one_wins() -> None:
    one, other = await two(locks=1)
    results = await asyncio.gather(one.lock(2), other.lock(3), return_exceptions=True)
    assert sorted(isinstance(result, ConflictError) for result in results) == [False, True]
    conflict = next(result for result in results if isinstance(result, ConflictError))
    assert conflict.head_seq == 2


@pytest.mark.holds("F5")
@within
async def test_failover_lost_the_tail_and_the_pdp_that_holds_it_puts_it_back() -> None:
    one, other = await two(locks=5)
    whole = list(one.store.entries)
    del one.store.entries[3:]
    assert await other.heartbeats.beat()  # before it vouches for a head, the store holds what it holds
    assert one.store.entries == whole
    assert await one.lock(6) == 6


@pytest.mark.holds("F5")
@within
async def test_a_lost_tail_comes_back_before_anything_else_is_accepted() -> None:
    one, _ = await two(locks=5)
    del one.store.entries[3:]
    assert await one.lock(6) == 6
    assert len(one.store.entries) == 6


async def forked() -> tuple[Pdp, Pdp, list[str]]:
    """Return two PDPs that hold different entries under number 3, the second's being the store's."""
    one, other = await two(locks=2)
    await one.lock(3)
    del one.store.entries[2:]  # the failover; and the other one had not seen entry 3
    await other.lock(4)
    assert other.replica.world.seq == 3
    return one, other, sorted(pdp.archive.entries[2].digest.hex() for pdp in (one, other))


@pytest.mark.holds("F5")
@within
async def test_two_entries_under_one_number_stop_every_writer_and_are_named() -> None:
    one, other, digests = await forked()
    for pdp in (one, other):  # the second holds what the store holds, and stops all the same
        error = await pdp.refused()
        assert error.reason is Reason.STORE_UNAVAILABLE
        assert all(digest in error.message for digest in digests)
        assert "pdp log adopt" in error.advice
        assert not await pdp.heartbeats.beat()
    assert [pdp.replica.world.seq for pdp in (one, other)] == [3, 3]  # each goes on inside its bound


@pytest.mark.holds("F5")
@pytest.mark.parametrize("winner", [0, 1])
def test_adopt_resolves_it_for_pdps_and_their_replicas(winner: int) -> None:
    async def test() -> None:
        one, other, _ = await forked()
        await one.refused()
        pdps = (one, other)
        edges = [take(AUTHORITY.replica(), pdp.archive.entries) for pdp in pdps]
        chosen = pdps[winner]
        root = AUTHORITY.root(version=2, ruling=Ruling(seq=3, digest=chosen.archive.entries[2].digest.hex()))
        if winner == 0:  # the store holds the other one
            await refill(one.store, one.archive)
        else:
            await one.store.mark_fork(b"")
        files = (one.replica.verifier.root.raw, root.raw)
        for pdp in pdps:
            assert await pdp.publisher.trust(root, AUTHORITY.keys)
            pdp.subscribers.trust(files)
            assert pdp.replica.head == head_of(chosen.archive.entries)
            assert await pdp.heartbeats.beat()
        assert one.archive.entries == other.archive.entries == one.store.entries
        for edge in edges:
            store = MemoryStore()
            await Follower(edge, store, Once(one, files), clock=one.clock, hello=HELLO).follow()
            if edge.world.seq:  # it held the chosen one: nothing to give up
                assert edge.head == head_of(chosen.archive.entries)
            else:
                assert "reset 2" in store.journal
            take(edge, one.store.entries[edge.world.seq :])
            assert edge.head == head_of(chosen.archive.entries)
        assert await other.publisher.publish("lock", lock_payload(7), author="user:ada") == 4

    asyncio.run(test())


@dataclass
class Once:
    """A feed that sends the root files and ends."""

    pdp: Pdp
    files: tuple[bytes, ...]

    def open(self, _hello: Hello) -> "Once":
        return self

    async def __aiter__(self):  # type: ignore[no-untyped-def]  # noqa: ANN204
        yield RootFiles(files=self.files)

    async def renew(self) -> bool:
        return True

    async def acknowledge(self, ack: Ack) -> None: ...

    async def close(self) -> None: ...


@within
async def test_the_entry_that_lost_never_comes_back() -> None:
    one, other, _ = await forked()
    dead = one.archive.entries[2]
    ruled = AUTHORITY.root(version=2, ruling=Ruling(seq=3, digest=other.archive.entries[2].digest.hex()))
    replica = take(AUTHORITY.replica(), one.archive.entries[:2])
    assert replica.trust(ruled) is False
    assert "root keys chose another" in str(replica.prepare(dead, now_ms=START_MS))


@within
async def test_a_pdp_that_was_down_when_the_root_key_ruled_obeys_at_its_start() -> None:
    one, other, _ = await forked()
    await one.publisher.catch_up()  # it has noted the root file it runs under
    ruled = AUTHORITY.root(version=2, ruling=Ruling(seq=3, digest=other.archive.entries[2].digest.hex()))
    from pdp.trust.verifier import TrustVerifier  # noqa: PLC0415
    from pdp.world import empty_world  # noqa: PLC0415

    again = Pdp(
        one.store,
        archive=one.archive,
        own=one.own,
        replica=Replica(verifier=TrustVerifier(ruled, TENANT), world=empty_world(TENANT)),
    )
    await again.publisher.catch_up()
    assert again.replica.head == other.replica.head
    assert again.archive.entries == other.archive.entries


@pytest.mark.holds("F4")
@within
async def test_an_emptied_store_is_refused_and_restored_only_by_command() -> None:
    one, other = await two(locks=3)
    whole = list(one.store.entries)
    one.store.entries.clear()
    error = await one.refused()
    assert "pdp log restore" in error.advice
    assert not await one.heartbeats.beat()
    assert await restore_store(one.store, one.archive) == 3
    assert one.store.entries == whole
    assert await other.heartbeats.beat()
    with pytest.raises(ConflictError):
        await restore_store(one.store, one.archive)


@pytest.mark.holds("S5", "adv_silent_publish")
@within
async def test_a_store_that_answers_and_forgets_is_found_out() -> None:
    one, _ = await two(locks=1)

    async def forgets(_entry: object, *, seq: int, prev: bytes) -> None: ...

    one.store.append = forgets  # type: ignore[assignment,method-assign]
    assert "does not show entry 2" in (await one.refused()).message
    assert len(one.archive.entries) == 1


@pytest.mark.holds("F6")
@within
async def test_while_the_store_is_down_the_archive_serves_followers_and_nobody_writes() -> None:
    one, _ = await two(locks=3)
    one.store.down = True
    assert len(await one.log.read(after=0, limit=10)) == 3
    assert await one.log.snapshot() is None
    assert (await one.refused()).reason is Reason.STORE_UNAVAILABLE
    assert not await one.heartbeats.beat()


@within
async def test_a_root_file_that_does_not_succeed_ours_changes_nothing() -> None:
    one, _ = await two(locks=1)
    stranger = Authority()
    for root in (AUTHORITY.root(version=3), stranger.root(version=2), AUTHORITY.root(version=1)):
        assert not await one.publisher.trust(root, AUTHORITY.keys)
    assert one.replica.verifier.root.version == 1
    assert one.replica.counters["refused_root_refused"] == 3


@within
async def test_a_rotated_publish_key_signs_from_then_on_and_followers_accept_it() -> None:
    one, _ = await two(locks=1)
    new = SigningKey.generate()
    root = AUTHORITY.root(version=2, publish=[AUTHORITY.publish.public, new.public])
    edge = take(AUTHORITY.replica(), one.archive.entries)
    rotated = Authority(root_key=AUTHORITY.root_key, publish=new, timestamp=AUTHORITY.timestamp)
    assert await one.publisher.trust(root, rotated.keys)
    await one.lock(2)
    assert "bad_signature" in str(edge.prepare(one.archive.entries[1], now_ms=START_MS))
    store = MemoryStore()
    await Follower(edge, store, Once(one, (edge.verifier.root.raw, root.raw)), clock=one.clock, hello=HELLO).follow()
    take(edge, one.archive.entries[1:])
    assert [RootFile.parse(raw).version for raw in await store.roots()] == [2]


@within
async def test_a_running_pdp_takes_the_next_root_file_and_tells_its_followers() -> None:
    one, _ = await two(locks=1)
    new = SigningKey.generate()
    root = AUTHORITY.root(version=2, publish=[AUTHORITY.publish.public, new.public])
    keys = Authority(root_key=AUTHORITY.root_key, publish=new, timestamp=AUTHORITY.timestamp).keys
    files = (one.replica.verifier.root.raw, root.raw)
    found = [NextRoot(root=root, keys=keys, files=files)]

    async def look() -> NextRoot | None:
        return found.pop() if found else None

    replication = Replication(
        log=one.log, replica=one.replica, keys=AUTHORITY.keys, clock=one.clock, store=one.kept, watch_root=look
    )
    subscription = replication.subscribers.open(HELLO, "sidecar")
    await replication.start()
    items = replication.subscribers.items(subscription)
    offered = [await anext(items)]
    while len(offered[-1].files) != 2:  # type: ignore[union-attr]
        item = await anext(items)
        if isinstance(item, RootFiles):
            offered.append(item)
    assert offered[-1] == RootFiles(files=files)
    await replication.stop()


def positions(pdp: Pdp, *, key: SigningKey = AUTHORITY.timestamp) -> Positions:
    return Positions(board=pdp.log.board, replica=pdp.replica, key=key, name=f"pdp-{next(_names)}")


async def follows(pdp: Pdp, name: str, seq: int) -> None:
    subscription = pdp.subscribers.open(
        Hello(seq=0, head=b"", version="0.1", role="sidecar", tenant=TENANT, instance=name), name
    )
    pdp.subscribers.acknowledge(subscription, Ack(seq=seq, heartbeat_ms=pdp.clock.now_ms()))


@within
async def test_any_pdp_answers_for_the_enforcement_points_of_all() -> None:
    one, other = await two(locks=2)
    boards = positions(one), positions(other)
    await follows(one, "edge-1", 2)
    await follows(other, "edge-2", 1)
    for _ in range(2):
        for pdp, board in zip((one, other), boards, strict=True):
            await board.exchange(pdp.subscribers)
    for pdp in (one, other):
        receipt = pdp.subscribers.receipt(2)
        assert (receipt.connected, receipt.holding, receipt.missing) == (2, 1, ("edge-2 (sidecar)",))
        assert {item.identity for item in pdp.subscribers.list()} == {"edge-1", "edge-2"}


@within
async def test_a_receipt_waits_for_the_enforcement_points_of_other_pdps() -> None:
    one, other = await two(locks=2)
    boards = positions(one), positions(other)
    await follows(other, "edge-2", 1)
    await boards[1].exchange(other.subscribers)
    await boards[0].exchange(one.subscribers)
    waiting = asyncio.create_task(one.subscribers.wait_all(2, timeout_s=30))
    await asyncio.sleep(0)
    assert not waiting.done()
    await follows(other, "edge-2", 2)
    await boards[1].exchange(other.subscribers)
    await boards[0].exchange(one.subscribers)
    assert (await waiting).missing == ()


@within
async def test_a_forged_or_renamed_posting_is_not_believed() -> None:
    one, other = await two(locks=2)
    await follows(other, "edge-2", 1)
    stranger = positions(other, key=SigningKey.generate())
    await stranger.exchange(other.subscribers)
    honest = positions(other)
    await honest.exchange(other.subscribers)
    board = one.store.board
    board["another name"] = board[honest._name]
    board["nonsense"] = b"{"
    del board[honest._name]
    await positions(one).exchange(one.subscribers)
    assert one.subscribers.receipt(1).connected == 0


def test_a_posting_of_other_types_is_refused() -> None:
    good = Posted(identity="a", instance="b", role="c", version="d", seq=1, heartbeat_ms=2, audit_head=b"\x01")
    assert Posted.from_json(good.to_json()) == good
    for change in ({"seq": "1"}, {"identity": 7}, {"more": 1}):
        with pytest.raises((TypeError, KeyError)):
            Posted.from_json({**good.to_json(), **change})


class SharedArchive(MemoryShared):
    """An archive that another worker writes between our look and our write."""

    def __init__(self, theirs: list[SignedEntry]) -> None:
        super().__init__()
        self.theirs = theirs

    async def head(self) -> Head:
        head = await super().head()
        self.entries += self.theirs
        return head


@within
async def test_an_entry_that_another_worker_has_archived_meanwhile_is_archived() -> None:
    (entry,) = AUTHORITY.chain(1)
    archive = SharedArchive([entry])
    await archived(archive, entry, 1)
    assert archive.entries == [entry]


@within
async def test_another_entry_in_the_archive_is_a_conflict() -> None:
    (entry,), other = AUTHORITY.chain(1), AUTHORITY.entry(payload=lock_payload(9))
    with pytest.raises(ConflictError):
        await archived(SharedArchive([other]), entry, 1)
