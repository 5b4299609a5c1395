"""A `Board` in one SQLite file, where the workers of a PDP show each other their enforcement points.

Nothing here must survive a power cut: each process shows its own anew within seconds. So commits are not flushed, and the world
log's own file, whose every commit is, stays out of it.
"""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pdp.adapters.sqlite_thread import SqliteThread, as_bytes
from pdp.limits import MAX_BOARD_BYTES

FILE_NAME: Final = "board.db"
_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS board (name TEXT PRIMARY KEY, raw BLOB NOT NULL);"
# One byte more than the cap is enough for the reader to see that it is exceeded, and all that is ever read.
_SHOWN: Final = "SELECT name, substr(raw, 1, ?) FROM board"


class SqliteBoard:
    """A `Board` in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._db = SqliteThread(directory / FILE_NAME, _SCHEMA, synchronous="OFF")

    async def post(self, name: str, raw: bytes) -> None:
        """Show `raw` under `name`."""
        row = (name, raw)
        await self._db.run(lambda connection: connection.execute("INSERT OR REPLACE INTO board VALUES (?, ?)", row))

    async def posted(self) -> Mapping[str, bytes]:
        """Return what everybody shows."""

        def work(connection: sqlite3.Connection) -> dict[str, bytes]:
            rows = connection.execute(_SHOWN, (MAX_BOARD_BYTES + 1,))
            return {str(name): as_bytes(raw) for name, raw in rows}

        return await self._db.run(work)

    async def close(self) -> None:
        """Close the file."""
        await self._db.close()
