"""One SQLite connection in a thread of its own, so that the event loop never waits for a disk. Shared by the SQLite stores."""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeVar

from pdp.errors import PortcullisError, Reason
from pdp.limits import MAX_HEADER_BYTES, STORE_BUSY_S

T = TypeVar("T")


class CorruptStoreError(PortcullisError):
    """The file is not a database, or a damaged one."""

    def __init__(self, path: Path, error: Exception) -> None:
        super().__init__(Reason.STORE_UNAVAILABLE, f"`{path}` is damaged: {error}", advice="restore it from a backup")


class SqliteThread:
    """Runs functions on one connection, one after the other.

    WAL lets other processes read meanwhile; `synchronous=FULL` makes every commit an fsync, since whatever is
    acknowledged must survive the machine (FAILURE.md S4). `OFF` is for what every process makes anew.
    """

    def __init__(self, path: Path, schema: str, *, synchronous: Literal["FULL", "OFF"] = "FULL") -> None:
        self._path = path
        self._schema = schema
        self._synchronous = synchronous
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"sqlite-{path.stem}")
        self._connection: sqlite3.Connection | None = None

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in the thread and return what it returns.

        Raises:
            PortcullisError: `store_unavailable`, whatever kept SQLite from doing it.
        """
        try:
            future = self._thread.submit(self._work, work)
        except RuntimeError as error:  # the executor has been shut down
            raise PortcullisError(Reason.STORE_UNAVAILABLE, f"`{self._path}` is closed") from error
        return await asyncio.wrap_future(future)

    async def close(self) -> None:
        """Close the connection and end the thread; closing twice is closing once."""
        with suppress(RuntimeError):  # shut down already
            self._thread.submit(self._drop)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)

    async def set_aside(self) -> None:
        """Rename a damaged file, so that the next run starts an empty one and the evidence stays."""
        await asyncio.wrap_future(self._thread.submit(self._set_aside))

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._connection is None:
                self._connection = self._open()
            return work(self._connection)
        except sqlite3.OperationalError as error:  # locked, full, read-only: may pass
            raise PortcullisError(Reason.STORE_UNAVAILABLE, f"`{self._path}`: {error}") from error
        except sqlite3.DatabaseError as error:
            raise CorruptStoreError(self._path, error) from error
        except OSError as error:
            raise PortcullisError(Reason.STORE_UNAVAILABLE, f"`{self._path}`: {error.strerror}") from error

    def _open(self) -> sqlite3.Connection:
        _create(self._path)
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=STORE_BUSY_S, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={self._synchronous}")
            connection.executescript(self._schema)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _set_aside(self) -> None:
        self._drop()
        for suffix in ("", "-wal", "-shm"):
            damaged = self._path.with_name(self._path.name + suffix)
            if damaged.exists():
                damaged.replace(damaged.with_name(damaged.name + ".damaged"))


def _create(path: Path) -> None:
    """Create the file with mode 0600 and make its name durable: SQLite itself does not fsync the directory for it."""
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def as_bytes(value: object) -> bytes:
    """Return a column as bytes, whatever type a damaged row gives it."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")[: MAX_HEADER_BYTES + 1]
