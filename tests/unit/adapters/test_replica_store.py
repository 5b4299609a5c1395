import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pdp.adapters.replica_store import FILE_NAME, SqliteReplicaStore
from pdp.trust.entry import SignedEntry
from tests.support.logs import Authority, take

AUTHORITY = Authority()
CHAIN = AUTHORITY.chain(4)


def run(work: Callable[[SqliteReplicaStore], Awaitable[None]], directory: Path) -> None:
    async def whole() -> None:
        store = SqliteReplicaStore(directory)
        try:
            await work(store)
        finally:
            await store.close()

    asyncio.run(whole())


async def fill(store: SqliteReplicaStore) -> None:
    await store.save_snapshot(AUTHORITY.snapshot(take(AUTHORITY.replica(), CHAIN[:2])), seq=2)
    for seq in (3, 4):
        await store.save(CHAIN[seq - 1], seq=seq)
    await store.save_heartbeat(AUTHORITY.heartbeat(AUTHORITY.replica().head))


def test_a_new_store_holds_nothing(tmp_path: Path) -> None:
    async def work(store: SqliteReplicaStore) -> None:
        assert await store.load() == (None, [], None, 0)

    run(work, tmp_path / "replica")


def test_what_was_stored_comes_back_after_a_restart(tmp_path: Path) -> None:
    run(fill, tmp_path)

    async def work(store: SqliteReplicaStore) -> None:
        snapshot, tail, heartbeat, mark = await store.load()
        assert snapshot == AUTHORITY.snapshot(take(AUTHORITY.replica(), CHAIN[:2]))
        assert tail == CHAIN[2:]
        assert heartbeat == AUTHORITY.heartbeat(AUTHORITY.replica().head)
        assert mark == 4

    run(work, tmp_path)


@pytest.mark.holds("V9")
def test_a_snapshot_replaces_the_entries_it_covers_and_never_lowers_the_mark(tmp_path: Path) -> None:
    async def work(store: SqliteReplicaStore) -> None:
        await fill(store)
        await store.save_snapshot(AUTHORITY.snapshot(take(AUTHORITY.replica(), CHAIN[:3])), seq=3)
        _, tail, _, mark = await store.load()
        assert tail == CHAIN[3:]
        assert mark == 4
        await store.save(CHAIN[0], seq=1)
        assert (await store.load())[3] == 4

    run(work, tmp_path)


@pytest.mark.holds("F18")
def test_a_damaged_file_is_set_aside_and_the_replica_starts_empty(tmp_path: Path) -> None:
    run(fill, tmp_path)
    (tmp_path / FILE_NAME).write_bytes(b"\x00garbage" * 1000)

    async def work(store: SqliteReplicaStore) -> None:
        assert (await store.load())[3] == 0
        assert "damaged" in store.damage
        await store.save(CHAIN[0], seq=1)

    run(work, tmp_path)
    assert (tmp_path / f"{FILE_NAME}.damaged").exists()


@pytest.mark.holds("F18")
def test_a_damaged_row_comes_back_as_something_the_verifier_refuses(tmp_path: Path) -> None:
    async def work(store: SqliteReplicaStore) -> None:
        await fill(store)
        await store._db.run(lambda c: c.execute("UPDATE entries SET signatures = 'x', header = 5 WHERE seq = 3"))
        await store._db.run(lambda c: c.execute("UPDATE heartbeat SET signatures = x'ff'"))
        _, tail, heartbeat, _ = await store.load()
        assert tail[0] == SignedEntry(header=b"5", payload=CHAIN[2].payload, signatures=())
        assert heartbeat is None

    run(work, tmp_path)


def test_an_instance_keeps_its_name(tmp_path: Path) -> None:
    names: list[str] = []

    async def work(store: SqliteReplicaStore) -> None:
        names.append(await store.instance())

    run(work, tmp_path)
    run(work, tmp_path)
    run(work, tmp_path / "another")
    assert names[0] == names[1] != names[2]
