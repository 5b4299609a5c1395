import asyncio
import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pdp.adapters import log_sqlite
from pdp.adapters.log_sqlite import SqliteWorldLog
from pdp.errors import PortcullisError, Reason
from pdp.replica import Prepared
from pdp.trust.entry import SignedEntry
from pdp.trust.verifier import Fault, Refused
from tests.support.logs import START_MS, Authority, head_of, take

AUTHORITY = Authority()
CHAIN = AUTHORITY.chain(5)


def run(work: Callable[[SqliteWorldLog], Awaitable[None]], path: Path) -> None:
    """Run `work` on a log at `path`, and close it."""

    async def whole() -> None:
        log = SqliteWorldLog(path, poll_s=0.001)
        try:
            await work(log)
        finally:
            await log.close()

    asyncio.run(whole())


async def write(log: SqliteWorldLog, entries: list[SignedEntry], *, after: int = 0) -> None:
    for seq, entry in enumerate(entries, start=after + 1):
        await log.append(entry, seq=seq, prev=CHAIN[seq - 2].digest if seq > 1 else b"")


async def some(entries: AsyncIterator[SignedEntry], number: int) -> list[SignedEntry]:
    found = [await anext(entries) for _ in range(number)]
    await entries.aclose()  # type: ignore[attr-defined]
    return found


def test_entries_come_back_byte_for_byte_after_a_restart(tmp_path: Path) -> None:
    run(lambda log: write(log, CHAIN), tmp_path / "world.db")

    async def work(log: SqliteWorldLog) -> None:
        assert await log.head() == head_of(CHAIN)
        assert await log.read(after=0, limit=10) == CHAIN
        assert await log.read(after=2, limit=2) == CHAIN[2:4]

    run(work, tmp_path / "world.db")


def test_the_file_is_private(tmp_path: Path) -> None:
    run(lambda log: write(log, CHAIN[:1]), tmp_path / "world.db")
    assert stat.S_IMODE((tmp_path / "world.db").stat().st_mode) == 0o600


@pytest.mark.holds("S4")
def test_every_commit_is_an_fsync(tmp_path: Path) -> None:
    async def work(log: SqliteWorldLog) -> None:
        assert await log._db.run(lambda c: c.execute("PRAGMA synchronous").fetchone()[0]) == 2
        assert await log._db.run(lambda c: c.execute("PRAGMA journal_mode").fetchone()[0]) == "wal"

    run(work, tmp_path / "world.db")


def test_a_follower_is_woken_by_this_process(tmp_path: Path) -> None:
    async def work(log: SqliteWorldLog) -> None:
        log._poll_s = 3600.0  # only the nudge can wake it
        following = asyncio.create_task(some(log.follow(after=0), 3))
        await write(log, CHAIN[:3])
        assert await following == CHAIN[:3]

    run(work, tmp_path / "world.db")


def test_a_follower_is_woken_by_another_connection(tmp_path: Path) -> None:
    async def work(log: SqliteWorldLog) -> None:
        other = SqliteWorldLog(tmp_path / "world.db")
        await write(other, CHAIN[:1])
        following = asyncio.create_task(some(log.follow(after=0), 3))
        await write(other, CHAIN[1:3], after=1)
        assert await following == CHAIN[:3]
        await other.close()

    run(work, tmp_path / "world.db")


@pytest.mark.holds("F11")
def test_a_directory_that_cannot_be_made_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def work(log: SqliteWorldLog) -> None:
        with pytest.raises(PortcullisError) as refusal:
            await log.head()
        assert refusal.value.reason is Reason.STORE_UNAVAILABLE

    run(work, tmp_path / "file" / "world.db")


def test_a_file_that_is_no_database_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "world.db").write_bytes(b"not a database, whatever its name says" * 100)

    async def work(log: SqliteWorldLog) -> None:
        with pytest.raises(PortcullisError, match="damaged") as refusal:
            await log.head()
        assert refusal.value.reason is Reason.STORE_UNAVAILABLE

    run(work, tmp_path / "world.db")


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE entries SET header = 'text' WHERE seq = 3",
        "UPDATE entries SET header = zeroblob(20000) WHERE seq = 3",
        "UPDATE entries SET payload = CAST(replace(CAST(payload AS TEXT), 'mallory', 'charlie') AS BLOB) WHERE seq = 3",
        "UPDATE entries SET signatures = x'00' WHERE seq = 3",
        "UPDATE entries SET signatures = 7 WHERE seq = 3",
        "UPDATE entries SET signatures = '[[1,2,3]]' WHERE seq = 3",
        "UPDATE entries SET payload = (SELECT payload FROM entries WHERE seq = 2) WHERE seq = 3",
        "UPDATE entries SET header = (SELECT header FROM entries WHERE seq = 2) WHERE seq = 3",
        "DELETE FROM entries WHERE seq = 3",
    ],
)
def test_a_damaged_row_is_refused_and_the_old_world_stays(tmp_path: Path, damage: str) -> None:
    run(lambda log: write(log, CHAIN), tmp_path / "world.db")
    with sqlite3.connect(tmp_path / "world.db") as connection:
        connection.execute(damage)
    connection.close()

    async def work(log: SqliteWorldLog) -> None:
        replica = take(AUTHORITY.replica(), (await log.read(after=0, limit=2)))
        third = (await log.read(after=2, limit=1))[0]
        result = replica.prepare(third, now_ms=START_MS)
        assert isinstance(result, Refused)
        assert result.reason in {
            Fault.BAD_SIGNATURE, Fault.PAYLOAD_MISMATCH, Fault.OVERSIZED, Fault.GAP, Fault.ROLLBACK
        }  # fmt: skip
        assert replica.world.seq == 2

    run(work, tmp_path / "world.db")


@pytest.mark.holds("F18")
def test_no_flipped_byte_of_the_file_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "world.db"
    run(lambda log: write(log, CHAIN), path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    whole = path.read_bytes()

    async def work(log: SqliteWorldLog) -> None:
        replica = AUTHORITY.replica()
        try:
            entries = await log.read(after=0, limit=10)
        except PortcullisError:
            return
        for entry in entries:
            result = replica.prepare(entry, now_ms=START_MS)
            if not isinstance(result, Prepared):
                break
            replica.commit(result)
        # Whatever was accepted is a beginning of the honest chain.
        assert replica.head == head_of(CHAIN[: replica.world.seq])

    for place in range(0, len(whole), 211):
        damaged = bytearray(whole)
        damaged[place] ^= 0x41
        path.write_bytes(bytes(damaged))
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        run(work, path)


_WRITER = """
import asyncio, sys
from pathlib import Path
from pdp.adapters.log_sqlite import SqliteWorldLog
from tests.support.logs import Authority

async def main():
    log = SqliteWorldLog(Path(sys.argv[1]))
    for seq, entry in enumerate(chain := Authority().chain(10_000), start=1):
        await log.append(entry, seq=seq, prev=chain[seq - 2].digest if seq > 1 else b"")
        print(seq, flush=True)

asyncio.run(main())
"""


@pytest.mark.holds("F24", "P9")
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "world.db"
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER.replace("10_000", "400"), str(path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert writer.stdout is not None
    acknowledged = 0
    for line in writer.stdout:
        acknowledged = int(line)
        if acknowledged == 25:
            writer.send_signal(signal.SIGKILL)
            break
    acknowledged = max([acknowledged, *(int(line) for line in writer.stdout)])
    writer.stdout.close()
    writer.wait()

    async def work(log: SqliteWorldLog) -> None:
        head = await log.head()
        assert head.seq >= acknowledged
        entries = await log.read(after=0, limit=1000)
        assert len(entries) == head.seq  # one written and not acknowledged may be there: whole, and in its place

    run(work, path)


def test_a_follower_is_told_of_an_append_whose_caller_went_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit of our own changes no version that the follower could see, and nobody waits who could tell it."""
    begun, gone = threading.Event(), threading.Event()
    write = log_sqlite._append

    def slow(*arguments: Any) -> None:
        begun.set()
        gone.wait(30)
        write(*arguments)

    monkeypatch.setattr(log_sqlite, "_append", slow)

    async def work(log: SqliteWorldLog) -> None:
        waits, changed = asyncio.Event(), log._changed

        async def watched(nudge: asyncio.Event, version: int) -> None:
            waits.set()
            await changed(nudge, version)

        monkeypatch.setattr(log, "_changed", watched)
        entries = log.follow(after=0)
        first = asyncio.ensure_future(anext(entries))
        await waits.wait()  # it has found nothing
        writing = asyncio.create_task(log.append(CHAIN[0], seq=1, prev=b""))
        # Who goes away before the thread has begun has written nothing; from then on it is written.
        assert await asyncio.to_thread(begun.wait, 30)
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
        gone.set()
        assert await first == CHAIN[0]
        await entries.aclose()  # type: ignore[attr-defined]

    run(work, tmp_path / "world.db")
