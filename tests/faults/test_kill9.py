"""F24: a PDP's writer killed with -9 at any moment starts again where it stood, and nothing acknowledged is lost."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pdp.adapters.log_sqlite import SqliteWorldLog
from pdp.adapters.replica_store import SqliteReplicaStore
from pdp.trust.entry import EMPTY
from pdp.trust.keys import SigningKey
from tests.support.logs import Authority, HandClock, lock_payload, take

_WRITER = """
import asyncio, sys
from pathlib import Path
from pdp.adapters.log_sqlite import SqliteWorldLog
from pdp.adapters.replica_store import SqliteReplicaStore
from pdp.service.replicate import Publisher
from pdp.trust.keys import SigningKey
from tests.support.logs import Authority, HandClock, lock_payload

async def main(directory):
    keys = [SigningKey.from_pem((directory / name).read_bytes()) for name in ("root", "publish", "timestamp")]
    authority = Authority(root_key=keys[0], publish=keys[1], timestamp=keys[2])
    log, store = SqliteWorldLog(directory / "world.db"), SqliteReplicaStore(directory / "replica")
    replica = authority.replica()
    publisher = Publisher(log, replica, authority.keys, HandClock(), store)
    await publisher.catch_up()
    print("holds", replica.world.seq, replica.mark, flush=True)
    while True:
        number = replica.world.seq + 1
        seq = await publisher.publish("lock", lock_payload(number), author="user:ada")
        print("acknowledged", seq, replica.mark, flush=True)

asyncio.run(main(Path(sys.argv[1])))
"""


def authority(directory: Path) -> Authority:
    keys = {name: SigningKey.generate() for name in ("root", "publish", "timestamp")}
    for name, key in keys.items():
        (directory / name).write_bytes(key.to_pem())
    return Authority(root_key=keys["root"], publish=keys["publish"], timestamp=keys["timestamp"])


def killed(directory: Path, acknowledgements: int) -> list[list[str]]:
    """Run the writer, kill it after so many acknowledgements, and return all that it said."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(directory)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert writer.stdout is not None
    said = []
    for line in writer.stdout:
        said.append(line.split())
        if len(said) > acknowledgements:
            writer.send_signal(signal.SIGKILL)
            break
    said += [line.split() for line in writer.stdout if line.endswith("\n")]
    writer.stdout.close()
    writer.wait()
    return said


def survives(directory: Path, kills: int) -> None:
    signs, chance = authority(directory), random.Random(24)  # noqa: S311 - moments, not secrets
    acknowledged = 0
    for _ in range(kills):
        said = killed(directory, chance.randrange(6))
        assert said, "the writer did not start again"
        assert int(said[0][1]) >= acknowledged
        acknowledged = max(int(words[1]) for words in said)
        assert all(int(words[2]) >= int(words[1]) for words in said)  # the mark never lags

    async def verify() -> None:
        log, store = SqliteWorldLog(directory / "world.db"), SqliteReplicaStore(directory / "replica")
        head, entries = await log.head(), await log.read(after=0, limit=100_000)
        mark = (await store.load())[3]
        await store.close()
        await log.close()
        assert head != EMPTY
        assert len(entries) == head.seq >= acknowledged
        assert mark >= acknowledged
        replica = take(signs.replica(), entries)
        assert {str(lock_payload(number)["id"]) for number in range(1, acknowledged + 1)} <= {
            lock.id for lock in replica.world.locks
        }
        assert HandClock().now_ms() >= replica.world.signed_ms

    asyncio.run(verify())


@pytest.mark.holds("F24", "P9")
def test_f24_five_kills(tmp_path: Path) -> None:
    survives(tmp_path, 5)


@pytest.mark.holds("F24", "P9")
@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_f24_two_hundred_kills(tmp_path: Path) -> None:
    survives(tmp_path, 200)
