"""F18: a snapshot on disk of which one byte changed decides nothing: refused, and nothing older than the mark serves."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pdp.adapters.replica_store import SqliteReplicaStore
from pdp.replica import NEVER, Replica
from pdp.service.follow import restore
from pdp.trust.entry import SignedSnapshot
from tests.support.logs import START_MS, Authority, HandClock, take

AUTHORITY = Authority()
CHAIN = AUTHORITY.chain(3)


def flipped(raw: bytes) -> Iterator[bytes]:
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1 << (place % 8)
        yield bytes(changed)


def damaged(snapshot: SignedSnapshot) -> Iterator[SignedSnapshot]:
    """Yield the snapshot with each byte of it changed in turn."""
    yield from (replace(snapshot, header=raw) for raw in flipped(snapshot.header))
    yield from (replace(snapshot, state=raw) for raw in flipped(snapshot.state))
    (signature,) = snapshot.signatures
    for raw in flipped(signature.signature):
        yield replace(snapshot, signatures=(replace(signature, signature=raw),))


def restored(directory: Path, written: Callable[[SqliteReplicaStore], object]) -> Replica:
    """Return the replica that starts from what `written` leaves on disk."""
    replica, clock = AUTHORITY.replica(), HandClock()

    async def work() -> None:
        store = SqliteReplicaStore(directory)
        await written(store)  # type: ignore[misc] # a coroutine of the store
        await store.close()
        again = SqliteReplicaStore(directory)
        await restore(replica, again, clock)
        await again.close()

    asyncio.run(work())
    return replica


def stale(replica: Replica) -> bool:
    return replica.staleness_s(now_ms=START_MS, mono_s=0.0) == NEVER


@pytest.mark.holds("F18", "V2")
def test_no_byte_of_a_stored_snapshot_can_change() -> None:
    whole = AUTHORITY.snapshot(take(AUTHORITY.replica(), CHAIN))
    replica = AUTHORITY.replica()
    before = replica.world
    for snapshot in damaged(whole):
        replica.prepare_stored(snapshot, now_ms=START_MS)
    assert replica.world is before
    assert sum(replica.counters.values()) == len(whole.header) + len(whole.state) + len(whole.signatures[0].signature)


@pytest.mark.holds("F18", "V4")
def test_a_replica_with_a_damaged_snapshot_is_not_fresh_and_its_mark_stays(tmp_path: Path) -> None:
    whole = AUTHORITY.snapshot(take(AUTHORITY.replica(), CHAIN))
    for number, snapshot in enumerate(list(damaged(whole))[:: len(whole.header) // 4]):

        async def written(store: SqliteReplicaStore, kept: SignedSnapshot = snapshot) -> None:
            await store.save_snapshot(kept, seq=3)
            await store.save_heartbeat(AUTHORITY.heartbeat(take(AUTHORITY.replica(), CHAIN).head))

        replica = restored(tmp_path / str(number), written)
        assert (replica.world.seq, replica.mark) == (0, 3)
        assert stale(replica)
        assert replica.last_error


@pytest.mark.holds("F18", "V4")
def test_an_older_snapshot_put_in_place_of_a_damaged_one_is_below_the_mark(tmp_path: Path) -> None:
    older = AUTHORITY.snapshot(take(AUTHORITY.replica(), CHAIN[:2]))

    async def written(store: SqliteReplicaStore) -> None:
        for number, entry in enumerate(CHAIN, start=1):
            await store.save(entry, seq=number)
        await store.save_snapshot(older, seq=2)
        await store._db.run(lambda connection: connection.execute("DELETE FROM entries"))
        await store.save_heartbeat(AUTHORITY.heartbeat(take(AUTHORITY.replica(), CHAIN[:2]).head))

    replica = restored(tmp_path, written)
    assert (replica.world.seq, replica.mark) == (2, 3)
    assert stale(replica)
