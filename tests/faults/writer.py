"""A PDP's writer in a process of its own, to be killed: `python -m tests.faults.writer DIR [STATEMENT]`.

It says what it holds and every acknowledgement. With STATEMENT it kills itself before that SQL statement, counted over all
of its connections: every step of every persisting is such a statement, so that these are the failpoints (FAILURE.md F17).
"""

import asyncio
import itertools
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

from pdp.adapters import sqlite_thread
from pdp.adapters.log_sqlite import SqliteWorldLog
from pdp.adapters.replica_store import SqliteReplicaStore
from pdp.service.compact import Compactor
from pdp.service.replicate import HeartbeatLoop, Publisher
from pdp.trust.keys import SigningKey
from tests.support.logs import Authority, HandClock, lock_payload

SNAPSHOT_AT = 3


def authority(directory: Path) -> Authority:
    """Return the keys in `directory`, made if there are none."""
    for name in ("root", "publish", "timestamp"):
        if not (directory / name).exists():
            (directory / name).write_bytes(SigningKey.generate().to_pem())
    keys = [SigningKey.from_pem((directory / name).read_bytes()) for name in ("root", "publish", "timestamp")]
    return Authority(root_key=keys[0], publish=keys[1], timestamp=keys[2])


def killing_at(statement: int) -> Any:
    """Return a `sqlite3.connect` whose connections end this process before the statement of that number."""
    numbers = itertools.count(1)

    def traced(_sql: str) -> None:
        if next(numbers) == statement:
            os.kill(os.getpid(), signal.SIGKILL)

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = sqlite3.Connection(*arguments, **options)
        connection.set_trace_callback(traced)
        return connection

    return connect


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def write(directory: Path) -> None:
    signs, clock = authority(directory), HandClock()
    log, store = SqliteWorldLog(directory / "world.db"), SqliteReplicaStore(directory / "replica")
    replica = signs.replica()
    publisher = Publisher(log, replica, signs.keys, clock, store)
    compactor = Compactor(log, replica, clock, store=store, key=lambda: signs.publish)
    heartbeats = HeartbeatLoop(log, replica, signs.keys, clock, store)
    await publisher.catch_up()
    say("holds", replica.world.seq, replica.mark)
    while True:
        seq = await publisher.publish("lock", lock_payload(replica.world.seq + 1), author="user:ada")
        say("acknowledged", seq, replica.mark)
        clock.advance(1)
        await heartbeats.beat()
        if seq % SNAPSHOT_AT == 0:
            await compactor.snapshot()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sqlite_thread.sqlite3.connect = killing_at(int(sys.argv[2]))  # type: ignore[assignment]
    asyncio.run(write(Path(sys.argv[1])))
