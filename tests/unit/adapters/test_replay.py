"""The memories of used proofs: one contract for all, then what each alone can suffer."""

import asyncio
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pdp.adapters.clock import SystemClock
from pdp.adapters.replay_memory import MemoryReplay
from pdp.adapters.replay_redis import RedisReplay
from pdp.adapters.replay_sqlite import SqliteReplay
from pdp.errors import Reason
from pdp.identity.types import Refusal
from pdp.ports import ReplayMemory
from tests.support.redis import RedisServer, redis_server

ACL = Path(__file__).parents[3] / "deploy" / "redis" / "users.acl"
TTL_S = 100.0


class Clock:
    def __init__(self) -> None:
        self.s = 1_000.0

    def now_ms(self) -> int:
        return int(self.s * 1000)

    def mono_s(self) -> float:
        return self.s


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


def reason(outcome: Refusal | None) -> Reason | None:
    return outcome.reason if outcome is not None else None


@asynccontextmanager
async def opened(memory: ReplayMemory) -> AsyncIterator[ReplayMemory]:
    try:
        yield memory
    finally:
        await memory.close()


Make = Callable[[], ReplayMemory]


@pytest.fixture(params=["memory", "sqlite", "redis"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    if request.param == "memory":
        alone = MemoryReplay(clock=Clock())
        return lambda: alone
    if request.param == "sqlite":
        return lambda: SqliteReplay(tmp_path / "proofs.db", clock=Clock())
    redis: RedisServer = request.getfixturevalue("shared")
    tenant = f"t{os.urandom(4).hex()}"
    return lambda: RedisReplay(redis.url, tenant=tenant)


def test_a_proof_is_taken_once_and_no_other_is_touched(make: Make) -> None:
    async def story() -> None:
        async with opened(make()) as memory:
            assert await memory.use(b"a", ttl_s=TTL_S) is None
            assert reason(await memory.use(b"a", ttl_s=TTL_S)) is Reason.TOKEN_REPLAYED
            assert await memory.use(b"b", ttl_s=TTL_S) is None
            assert memory.scope

    asyncio.run(story())


def test_of_a_crowd_with_one_proof_exactly_one_gets_in(make: Make) -> None:
    async def story() -> None:
        async with opened(make()) as one, opened(make()) as other:
            uses = [memory.use(b"same", ttl_s=TTL_S) for _ in range(25) for memory in (one, other)]
            outcomes = [reason(outcome) for outcome in await asyncio.gather(*uses)]
            assert outcomes.count(None) == 1
            # A busy file refuses, which is as good: nobody gets in.
            refused = outcomes.count(Reason.TOKEN_REPLAYED) + outcomes.count(Reason.REPLAY_STORE_UNAVAILABLE)
            assert refused == len(outcomes) - 1

    asyncio.run(story())


# SQLite: one file for the processes of a host.


def test_a_restart_forgets_no_used_proof(tmp_path: Path) -> None:
    async def story() -> None:
        async with opened(SqliteReplay(tmp_path / "proofs.db", clock=Clock())) as memory:
            assert await memory.use(b"a", ttl_s=TTL_S) is None
        async with opened(SqliteReplay(tmp_path / "proofs.db", clock=Clock())) as memory:
            assert reason(await memory.use(b"a", ttl_s=TTL_S)) is Reason.TOKEN_REPLAYED
            assert reason(await memory.use(b"a", ttl_s=TTL_S)) is Reason.TOKEN_REPLAYED

    asyncio.run(story())
    assert (tmp_path / "proofs.db").stat().st_mode & 0o777 == 0o600


def test_a_proof_is_forgotten_by_time_alone(tmp_path: Path) -> None:
    async def story() -> None:
        clock = Clock()
        async with opened(SqliteReplay(tmp_path / "proofs.db", clock=clock)) as memory:
            assert await memory.use(b"a", ttl_s=10) is None
            clock.s += 9.999
            assert reason(await memory.use(b"a", ttl_s=10)) is Reason.TOKEN_REPLAYED
            clock.s += 0.001
            assert await memory.use(b"a", ttl_s=10) is None
            for number in range(200):
                assert await memory.use(bytes([number]) * 2, ttl_s=10) is None
            clock.s += 10
            for number in range(4):
                assert await memory.use(bytes([number]) * 3, ttl_s=10) is None
        with sqlite3.connect(tmp_path / "proofs.db") as file:
            assert file.execute("SELECT count(*) FROM used").fetchone() == (4,)

    asyncio.run(story())


_RACER = """
import asyncio, sys
from pathlib import Path
from pdp.adapters.clock import SystemClock
from pdp.adapters.replay_sqlite import SqliteReplay

async def race():
    memory = SqliteReplay(Path(sys.argv[1]), clock=SystemClock())
    await memory.use(sys.argv[2].encode(), ttl_s=100)
    print("ready", flush=True)
    sys.stdin.readline()
    taken = 0
    for number in range(200):
        outcome = await memory.use(b"proof-%d" % number, ttl_s=100)
        assert outcome is None or outcome.reason == "token_replayed", outcome
        taken += outcome is None
    await memory.close()
    print(taken, flush=True)

asyncio.run(race())
"""


def test_of_several_processes_with_the_same_proofs_each_proof_lets_one_in(tmp_path: Path) -> None:
    """The workers of one PDP: together they take each of 200 proofs once, whoever is first."""
    command = [sys.executable, "-c", _RACER, str(tmp_path / "proofs.db")]
    racers = [
        subprocess.Popen([*command, f"own-{name}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in "abc"
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        taken = [int(racer.communicate(timeout=60)[0]) for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    assert sum(taken) == 200


def test_a_process_that_is_killed_takes_no_used_proof_with_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _RACER, str(tmp_path / "proofs.db"), "noted"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()

    async def story() -> None:
        async with opened(SqliteReplay(tmp_path / "proofs.db", clock=SystemClock())) as memory:
            assert reason(await memory.use(b"noted", ttl_s=TTL_S)) is Reason.TOKEN_REPLAYED
            assert await memory.use(b"another", ttl_s=TTL_S) is None

    asyncio.run(story())


def test_a_full_file_takes_no_new_proof_and_forgets_no_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "pdp.adapters.replay_sqlite._SCHEMA",
        "PRAGMA max_page_count=6; CREATE TABLE IF NOT EXISTS used (key BLOB PRIMARY KEY, until_ms INTEGER) WITHOUT ROWID;",
    )

    async def story() -> None:
        async with opened(SqliteReplay(tmp_path / "proofs.db", clock=Clock())) as memory:
            keys = [hashlib.sha256(str(number).encode()).digest() for number in range(2_000)]
            outcomes = [reason(await memory.use(key, ttl_s=TTL_S)) for key in keys]
            assert set(outcomes) == {None, Reason.REPLAY_STORE_UNAVAILABLE}
            noted = [key for key, outcome in zip(keys, outcomes, strict=True) if outcome is None]
            assert {reason(await memory.use(key, ttl_s=TTL_S)) for key in noted} == {Reason.TOKEN_REPLAYED}

    asyncio.run(story())


@pytest.mark.parametrize("content", [b"no database, but long enough to look like one" * 99, None])
def test_a_damaged_or_forbidden_file_lets_no_proof_in(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "proofs.db"
    path.mkdir() if content is None else path.write_bytes(content)

    async def story() -> None:
        async with opened(SqliteReplay(path, clock=Clock())) as memory:
            assert reason(await memory.use(b"a", ttl_s=TTL_S)) is Reason.REPLAY_STORE_UNAVAILABLE

    asyncio.run(story())


def test_a_closed_memory_lets_no_proof_in(tmp_path: Path) -> None:
    async def story() -> None:
        memory = SqliteReplay(tmp_path / "proofs.db", clock=Clock())
        await memory.close()
        assert reason(await memory.use(b"a", ttl_s=TTL_S)) is Reason.REPLAY_STORE_UNAVAILABLE

    asyncio.run(story())


# Redis: one memory for the PDPs of a cluster.

Story = Callable[[RedisReplay], Awaitable[None]]


def with_redis(url: str, story: Story, **options: object) -> None:
    async def inside() -> None:
        memory = RedisReplay(url, tenant="main", **options)  # type: ignore[arg-type]
        try:
            await story(memory)
        finally:
            await memory.close()

    asyncio.run(inside())


def test_redis_itself_forgets_a_proof_once_it_is_too_old_to_be_taken(server: RedisServer) -> None:
    async def story(memory: RedisReplay) -> None:
        assert await memory.use(b"a", ttl_s=91.5) is None
        assert await memory.use(b"b", ttl_s=-1) is None

    with_redis(server.url, story)
    left_ms = int(server.command("PTTL", f"pdp:{{main}}:proof:{b'a'.hex()}").removeprefix(":"))
    assert 80_000 < left_ms <= 91_500
    server.until(("EXISTS", f"pdp:{{main}}:proof:{b'b'.hex()}"), ":0")


def test_one_tenants_proofs_are_not_anothers(server: RedisServer) -> None:
    async def story() -> None:
        for tenant in ("one", "two"):
            async with opened(RedisReplay(server.url, tenant=tenant)) as memory:
                assert await memory.use(b"a", ttl_s=TTL_S) is None

    asyncio.run(story())


def test_a_store_that_is_gone_lets_no_proof_in_and_one_that_is_back_does(server: RedisServer) -> None:
    async def story(memory: RedisReplay) -> None:
        assert await memory.use(b"a", ttl_s=TTL_S) is None
        server.kill()
        outcome = await memory.use(b"b", ttl_s=TTL_S)
        assert reason(outcome) is Reason.REPLAY_STORE_UNAVAILABLE
        await asyncio.to_thread(server.start)
        assert reason(await memory.use(b"a", ttl_s=TTL_S)) is Reason.TOKEN_REPLAYED
        assert await memory.use(b"c", ttl_s=TTL_S) is None

    with_redis(server.url, story)


def test_a_store_that_hangs_lets_no_proof_in(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdp.adapters.redis_clients.REDIS_TIMEOUT_S", 0.2)

    async def story(memory: RedisReplay) -> None:
        assert await memory.use(b"a", ttl_s=TTL_S) is None
        server.kill(signal.SIGSTOP)
        assert reason(await memory.use(b"b", ttl_s=TTL_S)) is Reason.REPLAY_STORE_UNAVAILABLE

    with_redis(server.url, story)


def test_a_full_store_lets_no_proof_in(server: RedisServer) -> None:
    assert "OK" in server.command("CONFIG", "SET", "maxmemory", "1")

    async def story(memory: RedisReplay) -> None:
        assert reason(await memory.use(b"a", ttl_s=TTL_S)) is Reason.REPLAY_STORE_UNAVAILABLE

    with_redis(server.url, story)


def test_a_use_that_too_few_copies_have_is_refused_and_used_up(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that takes over without it would let the proof in once more."""
    monkeypatch.setattr("pdp.adapters.replay_redis.REDIS_WAIT_S", 0.01)

    async def story(memory: RedisReplay) -> None:
        assert reason(await memory.use(b"a", ttl_s=TTL_S)) is Reason.REPLAY_STORE_UNAVAILABLE
        assert reason(await memory.use(b"a", ttl_s=TTL_S)) is Reason.TOKEN_REPLAYED

    with_redis(server.url, story, min_replicas=1)


def test_something_else_under_a_proofs_name_is_a_used_proof(server: RedisServer) -> None:
    server.command("HSET", f"pdp:{{main}}:proof:{b'a'.hex()}", "f", "v")

    async def story(memory: RedisReplay) -> None:
        assert reason(await memory.use(b"a", ttl_s=TTL_S)) is Reason.TOKEN_REPLAYED

    with_redis(server.url, story)


def test_the_shipped_user_may_note_proofs_and_a_stranger_may_not(tmp_path: Path) -> None:
    password = "of-the-pdp"
    digest = hashlib.sha256(password.encode()).hexdigest()
    acl = tmp_path / "users.acl"
    acl.write_text(ACL.read_text().replace("REPLACE_WITH_SHA256_OF_THE_PASSWORD", digest))
    (tmp_path / "password").write_text(password)

    async def known(memory: RedisReplay) -> None:
        assert await memory.use(b"a", ttl_s=TTL_S) is None

    async def stranger(memory: RedisReplay) -> None:
        outcome = await memory.use(b"b", ttl_s=TTL_S)
        assert reason(outcome) is Reason.REPLAY_STORE_UNAVAILABLE
        assert password not in str(outcome)

    with redis_server("--aclfile", str(acl)) as running:
        url = running.url.replace("redis://", "redis://pdp@")
        with_redis(url, known, password=tmp_path / "password", min_replicas=0)
        with_redis(running.url, stranger)
