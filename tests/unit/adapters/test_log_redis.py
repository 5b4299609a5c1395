"""Redis as a carrier: what it may do to us, who may talk to it, how we reach it."""

import asyncio
import hashlib
import os
import signal
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from pdp.adapters.log_redis import RedisWorldLog
from pdp.adapters.redis_clients import check_url
from pdp.errors import ConfigError, ConflictError, PortcullisError, Reason
from pdp.replica import Prepared
from pdp.trust.entry import EMPTY
from tests.support.logs import START_MS, TENANT, Authority, head_of, take
from tests.support.redis import RedisServer, redis_server

AUTHORITY = Authority()
CHAIN = AUTHORITY.chain(6)
STREAM = f"pdp:{{{TENANT}}}:log"
DEPLOY = Path(__file__).parents[3] / "deploy" / "redis"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@asynccontextmanager
async def opened(url: str, **options: object) -> AsyncIterator[RedisWorldLog]:
    log = RedisWorldLog(url, tenant=TENANT, **{"create": True} | options)  # type: ignore[arg-type]
    try:
        yield log
    finally:
        await log.close()


async def write(log: RedisWorldLog, number: int, *, after: int = 0) -> None:
    for seq in range(after + 1, number + 1):
        await log.append(CHAIN[seq - 1], seq=seq, prev=CHAIN[seq - 2].digest if seq > 1 else b"")


def test_ids_are_the_numbers_and_redis_itself_refuses_an_old_one(server: RedisServer) -> None:
    async def work() -> None:
        async with opened(server.url) as log:
            await write(log, 3)

    asyncio.run(work())
    assert "3-0" in server.command("XREVRANGE", STREAM, "+", "-", "COUNT", "1")
    assert "equal or smaller" in server.command("XADD", STREAM, "3-0", "h", "x")
    assert "equal or smaller" in server.command("XADD", STREAM, "2-0", "h", "x")


def test_a_stream_that_is_gone_is_made_again_by_init_alone(server: RedisServer) -> None:
    async def work() -> None:
        async with opened(server.url, create=False) as log:
            assert await log.head() == EMPTY
            with pytest.raises(PortcullisError, match="holds no log"):
                await log.append(CHAIN[0], seq=1, prev=b"")
            assert await log.head() == EMPTY

    asyncio.run(work())


def test_an_entry_written_between_the_look_and_the_write_is_a_conflict(server: RedisServer) -> None:
    async def work() -> None:
        async with opened(server.url) as log, opened(server.url) as other:
            await write(log, 1)
            rivals = [AUTHORITY.entry(head_of(CHAIN[:1]), author=f"user:{number}") for number in range(8)]
            results = await asyncio.gather(
                *(
                    (log, other)[number % 2].append(rival, seq=2, prev=CHAIN[0].digest)
                    for number, rival in enumerate(rivals)
                ),
                return_exceptions=True,
            )
            assert results.count(None) == 1
            assert all(isinstance(result, ConflictError) for result in results if result is not None)

    asyncio.run(work())


def test_too_few_copies_are_no_acknowledgement(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdp.adapters.log_redis.REDIS_WAIT_S", 0.01)

    async def work() -> None:
        async with opened(server.url, min_replicas=1) as log:
            with pytest.raises(PortcullisError, match="0 of 1 copies") as refusal:
                await log.append(CHAIN[0], seq=1, prev=b"")
            assert refusal.value.reason is Reason.STORE_UNAVAILABLE

    asyncio.run(work())


def test_a_copy_that_answers_is_waited_for(server: RedisServer) -> None:
    with redis_server("--replicaof", "127.0.0.1", str(server.port)) as copy:
        copy.until(("INFO", "replication"), "master_link_status:up")

        async def work() -> None:
            async with opened(server.url, min_replicas=1) as log:
                await write(log, 2)

        asyncio.run(work())
        assert "2-0" in copy.command("XREVRANGE", STREAM, "+", "-", "COUNT", "1")


def test_a_snapshot_drops_what_the_one_before_it_covers(server: RedisServer) -> None:
    async def work() -> None:
        async with opened(server.url) as log:
            await write(log, 6)
            for length in (2, 4):
                await log.save_snapshot(AUTHORITY.snapshot(take(AUTHORITY.replica(), CHAIN[:length])), seq=length)
            assert list(await log.read(after=0, limit=10)) == CHAIN[2:]
            assert await log.head() == head_of(CHAIN)

    asyncio.run(work())


@pytest.mark.holds("S8", "adv_redis_hostile")
@pytest.mark.parametrize("field", ["h", "p", "s"])
def test_adv_redis_hostile_a_changed_value_is_refused(server: RedisServer, field: str) -> None:
    async def work() -> None:
        async with opened(server.url) as log:
            await write(log, 2)
            fields = {"h": CHAIN[2].header, "p": CHAIN[2].payload, "s": b"[]"} | {field: b"changed"}
            await log._writer.xadd(log._stream, fields, id="3-0")
            replica = take(AUTHORITY.replica(), list(await log.read(after=0, limit=2)))
            assert not isinstance(replica.prepare((await log.read(after=2, limit=1))[0], now_ms=START_MS), Prepared)
            assert replica.world.seq == 2

    asyncio.run(work())


@pytest.mark.holds("S8", "adv_redis_crosstalk")
def test_adv_redis_crosstalk_a_cancelled_call_leaves_no_reply_for_the_next(server: RedisServer) -> None:
    async def work() -> None:
        async with opened(server.url) as log:
            await write(log, 4)
            for turns in range(12):
                asked = asyncio.create_task(log.read(after=0, limit=4))
                for _ in range(turns):
                    await asyncio.sleep(0)
                asked.cancel()
                await asyncio.gather(asked, return_exceptions=True)
                assert await log.head() == head_of(CHAIN[:4])
                assert await log.snapshot() is None

    asyncio.run(work())


@pytest.mark.holds("F6")
def test_a_stopped_server_is_a_typed_error_within_the_timeout(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdp.adapters.redis_clients.REDIS_TIMEOUT_S", 0.2)

    async def work() -> None:
        async with opened(server.url) as log:
            await write(log, 1)
            server.kill(signal.SIGSTOP)
            with pytest.raises(PortcullisError) as refusal:
                await log.head()
            assert refusal.value.reason is Reason.STORE_UNAVAILABLE
            assert server.process is not None
            server.process.send_signal(signal.SIGCONT)
            assert await log.head() == head_of(CHAIN[:1])

    asyncio.run(work())


@pytest.mark.holds("F24", "P9")
def test_what_was_acknowledged_survives_kill_9(server: RedisServer) -> None:
    async def work() -> None:
        async with opened(server.url) as log:
            await write(log, 3)
            server.kill()
            with pytest.raises(PortcullisError):
                await log.head()
            await asyncio.to_thread(server.start)
            assert await log.head() == head_of(CHAIN[:3])
            await write(log, 4, after=3)

    asyncio.run(work())


@pytest.mark.holds("S8")
def test_the_shipped_acl_lets_a_pdp_do_all_it_needs_and_nothing_else(tmp_path: Path) -> None:
    password = "a secret of this test"
    text = (DEPLOY / "users.acl").read_text()
    acl = tmp_path / "users.acl"
    acl.write_text(text.replace("REPLACE_WITH_SHA256_OF_THE_PASSWORD", hashlib.sha256(password.encode()).hexdigest()))
    (tmp_path / "password").write_text(password + "\n")
    with redis_server("--aclfile", str(acl)) as server:
        url = server.url.replace("//", "//pdp@")

        async def work() -> None:
            async with opened(url, password=tmp_path / "password") as log:
                await write(log, 3)
                following = log.follow(after=2)
                assert await anext(following) == CHAIN[2]
                await following.aclose()  # type: ignore[attr-defined]
                await log.save_snapshot(AUTHORITY.snapshot(take(AUTHORITY.replica(), CHAIN[:2])), seq=2)
                assert await log.snapshot() is not None
                await log.post("pdp-1", b"{}")
                assert await log.posted() == {"pdp-1": b"{}"}
                await log.mark_fork(b"x")
                assert await log.forked() == b"x"
                await log.mark_fork(b"")
                for forbidden in (("EVAL", "return 1", "0"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("GET", "other")):
                    with pytest.raises(Exception, match=r"(?i)permission"):
                        await log._reader.execute_command(*forbidden)
            async with opened(url) as nobody:
                with pytest.raises(PortcullisError, match="refuses us") as refusal:
                    await nobody.head()
                assert password not in str(refusal.value)

        asyncio.run(work())


def test_the_shipped_configuration_starts(tmp_path: Path) -> None:
    lines = (DEPLOY / "redis.conf").read_text().splitlines()
    # The server of the tests has no TLS, and the ACL file lies elsewhere; everything else is as shipped.
    kept = [line for line in lines if line and not line.startswith(("#", "tls-", "port ", "aclfile "))]
    (tmp_path / "redis.conf").write_text("\n".join(kept) + "\n")
    with redis_server(conf=tmp_path / "redis.conf") as running:
        assert "always" in running.command("CONFIG", "GET", "appendfsync")
        assert "noeviction" in running.command("CONFIG", "GET", "maxmemory-policy")


def test_tls_through_a_terminating_relay(server: RedisServer, tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    for name, ca in (("ca.pem", authority), ("stranger.pem", stranger)):
        ca.cert_pem.write_to_path(str(tmp_path / name))

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", server.port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer), return_exceptions=True)

    async def work() -> None:
        listener = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
        port = listener.sockets[0].getsockname()[1]
        async with opened(f"rediss://127.0.0.1:{port}", ca=tmp_path / "ca.pem") as log:
            await write(log, 2)
            assert await log.head() == head_of(CHAIN[:2])
        async with opened(f"rediss://127.0.0.1:{port}", ca=tmp_path / "stranger.pem") as log:
            with pytest.raises(PortcullisError):
                await log.head()
        listener.close()

    asyncio.run(work())


@pytest.mark.holds("F5")
def test_sentinel_names_the_primary_and_the_next_one_after_a_failover(server: RedisServer, tmp_path: Path) -> None:
    with redis_server("--replicaof", "127.0.0.1", str(server.port)) as copy:
        copy.until(("INFO", "replication"), "master_link_status:up")
        conf = tmp_path / "sentinel.conf"
        conf.write_text(f"sentinel monitor log 127.0.0.1 {server.port} 1\nsentinel down-after-milliseconds log 500\n")
        watcher = RedisServer(directory=tmp_path / "sentinel")
        with watcher.sentinel(conf):
            watcher.until(("SENTINEL", "replicas", "log"), str(copy.port))

            async def work() -> None:
                url = f"redis+sentinel://127.0.0.1:{watcher.port}/log"
                async with opened(url) as log:
                    await write(log, 2)
                    await log._writer.wait(1, 5000)
                    watcher.until(("SENTINEL", "FAILOVER", "log"), "OK")
                    watcher.until(("SENTINEL", "get-master-addr-by-name", "log"), str(copy.port))
                    server.kill()  # until then it would still take a write: the tail that a failover loses
                    while True:
                        try:
                            await write(log, 3, after=2)
                            break
                        except PortcullisError:
                            continue
                    assert await log.head() == head_of(CHAIN[:3])

            asyncio.run(work())
            assert "3-0" in copy.command("XREVRANGE", STREAM, "+", "-", "COUNT", "1")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1:6379", "is no store"),
        ("redis://", "is no store"),
        ("redis://pdp:secret@127.0.0.1:6379", "holds a password"),
        ("redis+sentinel://127.0.0.1:26379", "names no service"),
    ],
)
def test_a_url_that_we_do_not_understand_is_one_line(url: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as refusal:
        check_url(url)
    assert "secret" not in str(refusal.value)


def test_a_password_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="password_file"):
        RedisWorldLog("redis://127.0.0.1:1", tenant=TENANT, password=tmp_path / "nothing")
    assert not os.environ.get("REDIS_PASSWORD")
