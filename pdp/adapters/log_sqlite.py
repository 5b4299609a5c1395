"""The world log in one SQLite file: WAL, an fsync per commit, compare-and-set inside one transaction.

Several processes may share the file. Followers in the appending process are woken at once; those in others by a nudge
(`pdp.adapters.nudge`) where there is one, and in any case by polling `PRAGMA data_version`, a counter in shared memory
that changes with every commit elsewhere and costs microseconds to read.
What is read is not trusted: a damaged row comes back as an entry that the verifier refuses.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from pdp.adapters.sqlite_thread import SqliteThread, as_bytes
from pdp.errors import BadRequestError, ConflictError
from pdp.limits import LOG_POLL_S, LOG_READ_ENTRIES, MAX_ENTRY_BYTES, MAX_HEADER_BYTES, MAX_SNAPSHOT_BYTES
from pdp.trust.columns import pack_signatures, unpack_signatures
from pdp.trust.entry import EMPTY, Head, SignedEntry, SignedSnapshot, SnapshotHeader

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (
  seq INTEGER PRIMARY KEY, header BLOB NOT NULL, payload BLOB NOT NULL, signatures BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS snapshots (
  seq INTEGER PRIMARY KEY, header BLOB NOT NULL, state BLOB NOT NULL, signatures BLOB NOT NULL);
"""
_HEAD: Final = "SELECT seq, substr(header, 1, ?) FROM entries ORDER BY seq DESC LIMIT 1"
_SNAPSHOT_HEAD: Final = "SELECT seq, substr(header, 1, ?) FROM snapshots ORDER BY seq DESC LIMIT 1"
_READ: Final = """
SELECT seq, substr(header, 1, ?), substr(payload, 1, ?), signatures FROM entries WHERE seq > ? ORDER BY seq LIMIT ?
"""
_SNAPSHOT: Final = (
    "SELECT substr(header, 1, ?), substr(state, 1, ?), signatures FROM snapshots ORDER BY seq DESC LIMIT 1"
)
# One byte more than the cap is enough for the verifier to see that it is exceeded, and all that is ever read.
_HEADER_BYTES: Final = MAX_HEADER_BYTES + 1
_ENTRY_BYTES: Final = MAX_ENTRY_BYTES + 1
_SNAPSHOT_BYTES: Final = MAX_SNAPSHOT_BYTES + 1


class SqliteWorldLog:
    """A `WorldLog` in the file at `path`, which is created if it is not there.

    Args:
        path: the file.
        poll_s: how often a follower looks for commits of other processes, in seconds.
        appended: called after each append of ours, to nudge the other processes.
    """

    def __init__(self, path: Path, *, poll_s: float = LOG_POLL_S, appended: Callable[[], None] = lambda: None) -> None:
        self._db = SqliteThread(path, _SCHEMA)
        self._poll_s = poll_s
        self._appended = appended
        self._nudge = asyncio.Event()

    async def head(self) -> Head:
        """Return number and digest of the newest entry, read from the file now."""
        return await self._db.run(_head)

    async def append(self, entry: SignedEntry, *, seq: int, prev: bytes) -> None:
        """Append durably, if the head is still (`seq` - 1, `prev`).

        Raises:
            ConflictError: another entry won.
            PortcullisError: `store_unavailable`.
        """
        loop = asyncio.get_running_loop()

        def work(connection: sqlite3.Connection) -> None:
            _append(connection, entry, seq, prev)
            # From here and not from the caller, who may have gone away: a commit of our own changes no `data_version` that
            # our followers could see.
            with suppress(RuntimeError):  # the loop has ended, and who followed with it
                loop.call_soon_threadsafe(self._tell)

        await self._db.run(work)

    def _tell(self) -> None:
        self.wake()
        self._appended()

    async def read(self, *, after: int, limit: int) -> Sequence[SignedEntry]:
        """Return at most `limit` entries after number `after`, in order."""
        return [entry for _, entry in await self._read(after, limit)]

    async def follow(self, *, after: int) -> AsyncIterator[SignedEntry]:
        """Yield entries after number `after`, then each new one as it is appended, by whatever process."""
        version = -1
        while True:
            nudge = self._nudge
            version = await self._db.run(_data_version)
            found = await self._read(after, LOG_READ_ENTRIES)
            for seq, entry in found:
                yield entry
                after = seq
            if not found:
                await self._changed(nudge, version)

    async def save_snapshot(self, snapshot: SignedSnapshot, *, seq: int) -> None:
        """Keep the snapshot at `seq`, and the one before it; older ones are dropped."""
        await self._db.run(lambda connection: _save_snapshot(connection, snapshot, seq))

    async def snapshot(self) -> SignedSnapshot | None:
        """Return the newest snapshot, if there is one."""
        row = await self._db.run(
            lambda connection: connection.execute(_SNAPSHOT, (_HEADER_BYTES, _SNAPSHOT_BYTES)).fetchone()
        )
        if row is None:
            return None
        return SignedSnapshot(header=as_bytes(row[0]), state=as_bytes(row[1]), signatures=unpack_signatures(row[2]))

    async def truncate(self, *, after: int) -> None:
        """Forget what stands above number `after`: a root file has said that it does not count."""

        def work(connection: sqlite3.Connection) -> None:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("DELETE FROM entries WHERE seq > ?", (after,))
                connection.execute("DELETE FROM snapshots WHERE seq > ?", (after,))

        await self._db.run(work)
        self.wake()

    async def close(self) -> None:
        """Close the file; whoever follows ends with `store_unavailable`."""
        await self._db.close()
        self.wake()

    async def _read(self, after: int, limit: int) -> list[tuple[int, SignedEntry]]:
        caps_and_place = (_HEADER_BYTES, _ENTRY_BYTES, after, limit)
        rows = await self._db.run(lambda connection: connection.execute(_READ, caps_and_place).fetchall())
        return [
            (
                seq,
                SignedEntry(
                    header=as_bytes(header), payload=as_bytes(payload), signatures=unpack_signatures(signatures)
                ),
            )
            for seq, header, payload, signatures in rows
        ]

    async def _changed(self, nudge: asyncio.Event, version: int) -> None:
        """Wait for an append in this process, or for any commit of another one since `version` was read."""
        while not nudge.is_set():
            try:
                async with asyncio.timeout(self._poll_s):
                    await nudge.wait()
            except TimeoutError:
                if await self._db.run(_data_version) != version:
                    return

    def wake(self) -> None:
        """Let followers look now."""
        nudge, self._nudge = self._nudge, asyncio.Event()
        nudge.set()


def _head(connection: sqlite3.Connection) -> Head:
    """Return where the newest entry stands, or a snapshot above it: a log may begin, or go on, at a snapshot."""
    row = connection.execute(_HEAD, (_HEADER_BYTES,)).fetchone()
    snapshot = connection.execute(_SNAPSHOT_HEAD, (_HEADER_BYTES,)).fetchone()
    if snapshot is not None and (row is None or snapshot[0] > row[0]):
        try:
            named = SnapshotHeader.decode(as_bytes(snapshot[1]))
        except BadRequestError:
            pass  # damaged: the entries alone say where we are
        else:
            return Head(seq=named.seq, digest=bytes.fromhex(named.head))
    if row is None:
        return EMPTY
    digest = SignedEntry(header=as_bytes(row[1]), payload=b"", signatures=()).digest
    return Head(seq=row[0], digest=digest)


def _append(connection: sqlite3.Connection, entry: SignedEntry, seq: int, prev: bytes) -> None:
    connection.execute("BEGIN IMMEDIATE")  # the write lock first: between compare and set nobody else writes
    try:
        head = _head(connection)
        if head != Head(seq=seq - 1, digest=prev):
            raise ConflictError(head.seq)
        connection.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?)",
            (seq, entry.header, entry.payload, pack_signatures(entry.signatures)),
        )
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _save_snapshot(connection: sqlite3.Connection, snapshot: SignedSnapshot, seq: int) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("SELECT 1 FROM snapshots WHERE seq >= ?", (seq,)).fetchone():
            return  # another worker has spelled out the same world
        row = (seq, snapshot.header, snapshot.state, pack_signatures(snapshot.signatures))
        connection.execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?)", row)
        connection.execute(
            "DELETE FROM snapshots WHERE seq NOT IN (SELECT seq FROM snapshots ORDER BY seq DESC LIMIT 2)"
        )


def _data_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA data_version").fetchone()[0])
