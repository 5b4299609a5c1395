"""What a replica keeps on disk: snapshot, tail, high-water mark, last heartbeat, in one SQLite file with an fsync per commit.

Everything here was verified before it was stored and is verified again when it is read: the disk is a carrier too. A damaged
file is set aside and the replica starts empty; the heartbeat then still protects it from an old world (FAILURE.md V5).
"""

import secrets
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pdp.adapters.sqlite_thread import CorruptStoreError, SqliteThread, as_bytes
from pdp.limits import MAX_ENTRY_BYTES, MAX_HEADER_BYTES, MAX_ROOT_FILE_BYTES, MAX_SNAPSHOT_BYTES
from pdp.trust.columns import pack_signatures, unpack_signatures
from pdp.trust.entry import SignedEntry, SignedHeartbeat, SignedSnapshot

FILE_NAME: Final = "replica.db"

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (
  seq INTEGER PRIMARY KEY, header BLOB NOT NULL, payload BLOB NOT NULL, signatures BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS snapshot (
  one INTEGER PRIMARY KEY CHECK (one = 1), header BLOB NOT NULL, state BLOB NOT NULL, signatures BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS heartbeat (
  one INTEGER PRIMARY KEY CHECK (one = 1), body BLOB NOT NULL, signatures BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS mark (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS roots (version INTEGER PRIMARY KEY, raw BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS instance (one INTEGER PRIMARY KEY CHECK (one = 1), name TEXT NOT NULL);
"""
_RAISE_MARK: Final = "INSERT INTO mark VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET seq = max(seq, excluded.seq)"
_ENTRIES: Final = "SELECT substr(header, 1, ?), substr(payload, 1, ?), signatures FROM entries ORDER BY seq"
_SNAPSHOT: Final = "SELECT substr(header, 1, ?), substr(state, 1, ?), signatures FROM snapshot"
_ROOTS: Final = "SELECT substr(raw, 1, ?) FROM roots ORDER BY version"
_HEARTBEAT: Final = "SELECT substr(body, 1, ?), signatures FROM heartbeat"
# One byte more than the cap is enough for the verifier to see that it is exceeded, and all that is ever read.
_HEADER_BYTES: Final = MAX_HEADER_BYTES + 1
_ENTRY_BYTES: Final = MAX_ENTRY_BYTES + 1
_SNAPSHOT_BYTES: Final = MAX_SNAPSHOT_BYTES + 1

Stored = tuple[SignedSnapshot | None, Sequence[SignedEntry], SignedHeartbeat | None, int]


class SqliteReplicaStore:
    """A `ReplicaStore` in `directory`, which is created if it is not there."""

    def __init__(self, directory: Path) -> None:
        self._db = SqliteThread(directory / FILE_NAME, _SCHEMA)
        self.damage = ""

    async def save(self, entry: SignedEntry, *, seq: int) -> None:
        """Keep an entry that follows the stored world, and raise the mark, in one commit."""

        def work(connection: sqlite3.Connection) -> None:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                row = (seq, entry.header, entry.payload, pack_signatures(entry.signatures))
                connection.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", row)
                connection.execute(_RAISE_MARK, (seq,))

        await self._db.run(work)

    async def save_snapshot(self, snapshot: SignedSnapshot, *, seq: int) -> None:
        """Replace the stored world, drop the entries up to `seq`, and raise the mark, in one commit."""

        def work(connection: sqlite3.Connection) -> None:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                row = (snapshot.header, snapshot.state, pack_signatures(snapshot.signatures))
                connection.execute("INSERT OR REPLACE INTO snapshot VALUES (1, ?, ?, ?)", row)
                connection.execute("DELETE FROM entries WHERE seq <= ?", (seq,))
                connection.execute(_RAISE_MARK, (seq,))

        await self._db.run(work)

    async def save_heartbeat(self, heartbeat: SignedHeartbeat) -> None:
        """Keep the newest heartbeat: the proof of freshness with which this replica may start alone."""
        row = (heartbeat.body, pack_signatures((heartbeat.signature,)))
        await self._db.run(
            lambda connection: connection.execute("INSERT OR REPLACE INTO heartbeat VALUES (1, ?, ?)", row)
        )

    async def load(self) -> Stored:
        """Return snapshot, tail, last heartbeat and mark as stored, unverified."""
        try:
            return await self._db.run(_load)
        except CorruptStoreError as error:
            self.damage = error.message
            await self._db.set_aside()
            return await self._db.run(_load)

    async def save_root(self, raw: bytes, *, version: int) -> None:
        """Keep a root file that has been accepted."""
        await self._db.run(
            lambda connection: connection.execute("INSERT OR REPLACE INTO roots VALUES (?, ?)", (version, raw))
        )

    async def roots(self) -> Sequence[bytes]:
        """Return the root files kept, oldest first, unverified."""
        rows = await self._db.run(lambda connection: connection.execute(_ROOTS, (MAX_ROOT_FILE_BYTES + 1,)).fetchall())
        return [as_bytes(raw) for (raw,) in rows]

    async def reset(self, *, after: int) -> None:  # noqa: ARG002 - the port's; a replica begins anew, wherever it was
        """Forget world, tail, heartbeat and mark; the root file that said so is kept."""

        def work(connection: sqlite3.Connection) -> None:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                for table in ("entries", "snapshot", "heartbeat", "mark"):
                    connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of ours

        await self._db.run(work)

    async def instance(self) -> str:
        """Return the random name of this replica, made once and kept."""
        name = secrets.token_hex(8)

        def work(connection: sqlite3.Connection) -> str:
            connection.execute("INSERT OR IGNORE INTO instance VALUES (1, ?)", (name,))
            return str(connection.execute("SELECT name FROM instance").fetchone()[0])

        return await self._db.run(work)

    async def close(self) -> None:
        """Close the file."""
        await self._db.close()


def _load(connection: sqlite3.Connection) -> Stored:
    snapshot = connection.execute(_SNAPSHOT, (_HEADER_BYTES, _SNAPSHOT_BYTES)).fetchone()
    heartbeat = connection.execute(_HEARTBEAT, (_HEADER_BYTES,)).fetchone()
    mark = connection.execute("SELECT seq FROM mark").fetchone()
    entries = [
        SignedEntry(header=as_bytes(header), payload=as_bytes(payload), signatures=unpack_signatures(signatures))
        for header, payload, signatures in connection.execute(_ENTRIES, (_HEADER_BYTES, _ENTRY_BYTES))
    ]
    return (
        _snapshot(*snapshot) if snapshot else None,
        entries,
        _heartbeat(*heartbeat) if heartbeat else None,
        mark[0] if mark and type(mark[0]) is int else 0,
    )


def _snapshot(header: object, state: object, signatures: object) -> SignedSnapshot:
    return SignedSnapshot(header=as_bytes(header), state=as_bytes(state), signatures=unpack_signatures(signatures))


def _heartbeat(body: object, signatures: object) -> SignedHeartbeat | None:
    unpacked = unpack_signatures(signatures)
    return SignedHeartbeat(body=as_bytes(body), signature=unpacked[0]) if unpacked else None
