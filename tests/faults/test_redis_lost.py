"""F3, F4, F5 on a whole PDP over a real Redis that is away, emptied, or failed over without the newest entry."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pdp.adapters.log_redis import RedisWorldLog
from pdp.cli.main import run
from pdp.config import configure
from pdp.errors import PortcullisError, Reason
from pdp.identity.development import DevelopmentIssuer, trust_text
from pdp.server.app import Application, Basis, running
from tests.faults.proxy import FaultProxy
from tests.support.logs import TENANT, lock_payload
from tests.support.pdp import ADA, PACK
from tests.support.redis import RedisServer, redis_server

# Connections are cut here in the middle of everything: what is left of them is the garbage collector's.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


def prepared(directory: Path, url: str) -> None:
    issuer = DevelopmentIssuer.generate()
    (directory / "jwks.json").write_bytes(issuer.jwks())
    (directory / "trust.yaml").write_text(trust_text(issuer, jwks_file="jwks.json"))
    made = ("init", "--pack", str(PACK), "--admin", f"user:{ADA}", "--state-dir", str(directory / "state"))
    assert run((*made, "--store", url)) == 0


@asynccontextmanager
async def pdp(directory: Path, url: str) -> AsyncIterator[Application]:
    flags = {
        ("mode",): "development",
        ("state_dir",): str(directory / "state"),
        ("trust",): str(directory / "trust.yaml"),
        ("grpc", "listen"): "127.0.0.1:0",
        ("probes", "listen"): "127.0.0.1:0",
        ("store", "url"): url,
    }
    async with running(Basis.read(configure(flags=flags))) as (app, _, _):
        yield app


async def published(app: Application, number: int) -> int:
    return await app.replication.publisher.publish("lock", lock_payload(number), author="user:ada")


async def refused(app: Application, number: int) -> Reason:
    with pytest.raises(PortcullisError) as error:
        await published(app, number)
    return error.value.reason


async def until(met: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await met():  # noqa: ASYNC110 - what a store does tells no loop
            await asyncio.sleep(0.05)


def heartbeat(app: Application) -> Callable[[], Awaitable[bool]]:
    """Return a condition: a heartbeat came since now."""
    before = app.replica.heartbeat_ms

    async def newer() -> bool:
        return app.replica.heartbeat_ms > before

    return newer


async def publishes(app: Application, number: int) -> bool:
    try:
        await published(app, number)
    except PortcullisError:
        return False
    return True


@pytest.mark.holds("F3", "P12")
def test_f3_a_pdp_starts_without_its_redis_decides_inside_the_bound_and_writes_once_it_is_back(tmp_path: Path) -> None:
    async def work(server: RedisServer) -> None:
        async with pdp(tmp_path, server.url) as app, asyncio.timeout(30):
            await app.until_ready()
            head = (await published(app, 1), app.replica.head)
            await until(heartbeat(app))
        server.kill()
        async with pdp(tmp_path, server.url) as app, asyncio.timeout(60):
            await app.until_ready()  # its own disk holds a heartbeat that is fresh enough
            assert (app.replica.world.seq, app.replica.head) == head
            assert await refused(app, 2) is Reason.STORE_UNAVAILABLE
            proved = heartbeat(app)
            server.start()
            await until(proved)
            await until(lambda: publishes(app, 3))

    with redis_server() as server:
        prepared(tmp_path, server.url)
        asyncio.run(work(server))


@pytest.mark.holds("F4", "P7")
@pytest.mark.parametrize("how", ["FLUSHALL", pytest.param("SHUTDOWN NOSAVE", marks=pytest.mark.nightly)])
def test_f4_an_emptied_redis_moves_no_world_and_is_filled_again_by_command(tmp_path: Path, how: str) -> None:
    async def work(server: RedisServer) -> None:
        async with pdp(tmp_path, server.url) as app, asyncio.timeout(60):
            await app.until_ready()
            await published(app, 1)
            head = app.replica.head
            empty(server, how)
            assert await refused(app, 2) is Reason.STORE_UNAVAILABLE
            await until(lambda: shown(app, "empty"))
            assert app.replica.head == head
            restored = ("log", "restore", "--state-dir", str(tmp_path / "state"), "--store", server.url)
            assert await asyncio.to_thread(run, restored) == 0
            proved = heartbeat(app)
            await until(proved)
            await published(app, 3)
            assert app.replica.world.seq == head.seq + 1

    with redis_server("--appendonly", "no") as server:
        prepared(tmp_path, server.url)
        asyncio.run(work(server))


def empty(server: RedisServer, how: str) -> None:
    if how == "FLUSHALL":
        assert server.command(how) == "+OK\r\n"
        return
    server.command(*how.split())
    server.kill()
    server.start()


async def shown(app: Application, text: str) -> bool:
    return text in app.health.report().last_error


@pytest.mark.holds("F5", "P9")
def test_f5_a_failover_that_lost_the_newest_entry_gets_it_back_under_its_number(tmp_path: Path) -> None:
    async def work(first: RedisServer, second: RedisServer) -> None:
        proxy = FaultProxy("127.0.0.1", first.port)
        async with proxy.running() as port, pdp(tmp_path, f"redis://127.0.0.1:{port}") as app, asyncio.timeout(60):
            await app.until_ready()
            await published(app, 1)
            second.until(("INFO", "replication"), "master_link_status:up")
            second.until(("XLEN", f"pdp:{{{TENANT}}}:log"), f":{app.replica.world.seq}")
            second.command("REPLICAOF", "NO", "ONE")
            seq = await published(app, 2)
            first.kill()
            proxy.port = second.port
            proxy.sever()
            await until(lambda: publishes(app, 3))
            log = RedisWorldLog(second.url, tenant=TENANT)
            entries = await log.read(after=0, limit=100)
            await log.close()
            assert lock_payload(2)["id"].encode() in entries[seq - 1].payload
            assert len(entries) == app.replica.world.seq
            assert entries[-1].digest == app.replica.world.head

    with redis_server() as first, redis_server("--replicaof", "127.0.0.1", str(first.port)) as second:
        prepared(tmp_path, first.url)
        asyncio.run(work(first, second))
