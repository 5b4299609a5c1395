"""Which DPoP proofs were used, in a file: one memory for all processes of a host, which a restart does not empty.

Each use is one transaction that notes the key unless it stands there: of two processes with one proof, SQLite lets one be
first. The file is bounded; full, or not to be read, it refuses proofs and forgets none. Commits are not synced: what a
process noted outlives the process, and for a machine to crash and come back takes about as long as a proof is young.
"""

import sqlite3
from pathlib import Path
from typing import Final

from pdp.adapters.sqlite_thread import SqliteThread
from pdp.errors import PortcullisError, Reason
from pdp.identity.types import Refusal
from pdp.limits import DPOP_REPLAY_PAGES, DPOP_REPLAY_SWEEP
from pdp.ports import Clock

_SCHEMA: Final = f"""
PRAGMA synchronous=NORMAL;
PRAGMA max_page_count={DPOP_REPLAY_PAGES};
CREATE TABLE IF NOT EXISTS used (key BLOB PRIMARY KEY, until_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS used_until ON used (until_ms);
"""
_SWEEP: Final = "DELETE FROM used WHERE key IN (SELECT key FROM used WHERE until_ms <= ? ORDER BY until_ms LIMIT ?)"
_NOTE: Final = """
INSERT INTO used (key, until_ms) VALUES (?, ?)
ON CONFLICT (key) DO UPDATE SET until_ms = excluded.until_ms WHERE used.until_ms <= ?
"""
_REPLAYED: Final = Refusal(reason=Reason.TOKEN_REPLAYED, detail="this proof was used before", dpop=True)


class SqliteReplay:
    """Implements `pdp.ports.ReplayMemory` in one file."""

    scope: Final = "all processes of this host"

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._file = SqliteThread(path, _SCHEMA)
        self._clock = clock

    async def use(self, key: bytes, *, ttl_s: float) -> Refusal | None:
        """Note the use of `key` for `ttl_s` seconds; see `pdp.ports.ReplayMemory`."""
        now_ms = self._clock.now_ms()
        try:
            first = await self._file.run(lambda file: _note(file, key, now_ms, int(ttl_s * 1000)))
        except PortcullisError as error:
            return Refusal(reason=Reason.REPLAY_STORE_UNAVAILABLE, detail=error.message)
        return None if first else _REPLAYED

    async def close(self) -> None:
        """Close the file."""
        await self._file.close()


def _note(file: sqlite3.Connection, key: bytes, now_ms: int, ttl_ms: int) -> bool:
    """Note a key and tell whether it was new; a few that are over make room."""
    # At once for writing: two readers that both want to write would wait for each other.
    file.execute("BEGIN IMMEDIATE")
    with file:
        file.execute(_SWEEP, (now_ms, DPOP_REPLAY_SWEEP))
        return file.execute(_NOTE, (key, now_ms + ttl_ms, now_ms)).rowcount == 1
