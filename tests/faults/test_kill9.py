"""F17, F24: a PDP's writer killed at any step starts again where it stood, and nothing acknowledged is lost."""

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
from tests.faults.writer import authority
from tests.support.logs import HandClock, lock_payload, take

FIRST_STATEMENTS = 110
"""Statements that a writer runs from its start to behind its first snapshot."""
FOREVER = 10**9


def run(directory: Path, *arguments: int, lines: int = FOREVER) -> list[list[str]]:
    """Run the writer until it kills itself or has said so many lines, and return all that it said."""
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.writer", str(directory), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert writer.stdout is not None
    said = []
    for line in writer.stdout:
        said.append(line.split())
        if len(said) >= lines:
            writer.send_signal(signal.SIGKILL)
            break
    said += [line.split() for line in writer.stdout if line.endswith("\n")]
    writer.stdout.close()
    assert writer.wait() == -signal.SIGKILL
    return said


def acknowledged(said: list[list[str]], before: int) -> int:
    """Return the newest number that was acknowledged, once each line is one that an honest writer says."""
    numbers = [(int(words[1]), int(words[2])) for words in said]
    assert all(mark >= seq for seq, mark in numbers)  # the mark never lags
    assert not said or numbers[0][0] >= before  # it stands where it stood, or beyond
    return max([before, *(seq for seq, _ in numbers)])


def verify(directory: Path, promised: int) -> None:
    """Read what the killed writer left, as its successor will."""

    async def work() -> None:
        log, store = SqliteWorldLog(directory / "world.db"), SqliteReplicaStore(directory / "replica")
        head, entries = await log.head(), await log.read(after=0, limit=100_000)
        mark = (await store.load())[3]
        await store.close()
        await log.close()
        assert len(entries) == head.seq >= promised
        assert mark >= promised
        replica = take(authority(directory).replica(), entries)
        wanted = {str(lock_payload(number)["id"]) for number in range(1, promised + 1)}
        assert wanted <= {lock.id for lock in replica.world.locks}
        assert (head == EMPTY) == (not entries)
        assert HandClock().now_ms() + len(entries) * 10_000 >= replica.world.signed_ms

    asyncio.run(work())


def survives(directory: Path, kills: int) -> None:
    authority(directory)
    chance = random.Random(24)  # noqa: S311 - moments, not secrets
    promised = 0
    for _ in range(kills):
        said = run(directory, lines=1 + chance.randrange(6))
        assert said, "the writer did not start again"
        promised = acknowledged(said, promised)
    verify(directory, promised)


@pytest.mark.holds("F24", "P9")
def test_f24_five_kills(tmp_path: Path) -> None:
    survives(tmp_path, 5)


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.holds("F24", "P9")
def test_f24_two_hundred_kills(tmp_path: Path) -> None:
    survives(tmp_path, 200)


def stopped_at(directory: Path, statement: int) -> None:
    """Kill the writer at a failpoint of its first run and again at that of its second; then it must stand and go on."""
    authority(directory)
    promised = acknowledged(run(directory, statement), 0)
    promised = acknowledged(run(directory, statement), promised)
    verify(directory, promised)
    said = run(directory, lines=2)
    assert acknowledged(said, promised) > promised or len(said) < 2
    verify(directory, promised)


@pytest.mark.holds("F17", "P9", "V9")
@pytest.mark.parametrize("statement", [37, 79])
def test_f17_killed_at_a_statement(tmp_path: Path, statement: int) -> None:
    stopped_at(tmp_path, statement)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.holds("F17", "P9", "V9")
def test_f17_killed_at_every_statement(tmp_path: Path) -> None:
    for statement in range(1, FIRST_STATEMENTS):
        directory = tmp_path / str(statement)
        directory.mkdir()
        stopped_at(directory, statement)
