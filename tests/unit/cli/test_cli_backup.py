"""Backup and restore: taken while the PDP writes, put back whole, never over something newer, never a step back for replicas."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from pdp.adapters.clock import SystemClock
from pdp.adapters.keys_files import load_pdp_keys, load_root
from pdp.adapters.log_sqlite import SqliteWorldLog
from pdp.adapters.replica_store import SqliteReplicaStore
from pdp.cli.main import run
from pdp.config import configure
from pdp.errors import PortcullisError
from pdp.identity.development import DevelopmentIssuer, trust_text
from pdp.replica import NEVER, Replica
from pdp.server.app import Application, Basis, running
from pdp.server.stores import WORLD_FILE
from pdp.service.compact import Compactor
from pdp.service.follow import restore
from pdp.service.replicate import Publisher
from pdp.trust.entry import Head
from pdp.trust.verifier import TrustVerifier
from pdp.world import empty_world
from tests.support.logs import MemoryLog, lock_payload
from tests.support.pdp import ADA, PACK

STATE = Path("state")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(("init", "--pack", str(PACK), "--admin", f"user:{ADA}")) == 0


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    assert run(arguments) == code
    told = capsys.readouterr()
    return told.err if code else told.out


def replica_of_this_pdp() -> Replica:
    root = load_root(STATE)
    assert root is not None
    return Replica(verifier=TrustVerifier(root, "main"), world=empty_world("main"))


async def changed(*numbers: int) -> Head:
    """Publish locks as the PDP does, and return its head."""
    log, store = SqliteWorldLog(STATE / WORLD_FILE), SqliteReplicaStore(STATE / "replica")
    replica = replica_of_this_pdp()
    publisher = Publisher(log, replica, load_pdp_keys(STATE), SystemClock(), store)
    try:
        await publisher.catch_up()
        for number in numbers:
            await publisher.publish("lock", lock_payload(number), author="user:ada")
        return replica.head
    finally:
        await store.close()
        await log.close()


def stands() -> Head:
    async def work() -> Head:
        log = SqliteWorldLog(STATE / WORLD_FILE)
        head = await log.head()
        await log.close()
        return head

    return asyncio.run(work())


@pytest.mark.holds("P9", "S4")
def test_a_backup_taken_while_the_pdp_writes_is_whole_and_holds_what_was_acknowledged_before(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def work() -> None:
        log = SqliteWorldLog(STATE / WORLD_FILE)  # open, with entries in its journal, as that of a running PDP
        await log.head()
        before = await changed(1, 2)
        assert (STATE / f"{WORLD_FILE}-wal").stat().st_size > 0
        told = await asyncio.to_thread(said, capsys, "log", "backup", "copy", "--json")
        await log.close()
        assert json.loads(told)["digest"] == before.digest.hex()

    asyncio.run(work())
    assert sorted(path.name for path in Path("copy").iterdir() if path.is_file()) == ["root.json", WORLD_FILE]
    assert not any("key" in path.name for path in Path("copy").rglob("*"))
    assert (Path("copy") / WORLD_FILE).stat().st_mode & 0o777 == 0o600
    assert "holds a backup already" in said(capsys, "log", "backup", "copy", code=2)


def test_what_does_not_verify_is_no_backup(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(changed(1))
    said(capsys, "log", "backup", "copy")
    raw = bytearray((Path("copy") / WORLD_FILE).read_bytes())
    place = raw.index(b"mallory1")
    raw[place] ^= 1
    (Path("copy") / WORLD_FILE).write_bytes(bytes(raw))
    before = stands()
    assert "does not verify" in said(capsys, "log", "restore", "--backup", "copy", code=2)
    assert stands() == before
    assert "holds no world.db" in said(capsys, "log", "restore", "--backup", "state/keys", code=2)
    assert not (STATE / f"{WORLD_FILE}.tmp").exists()


@pytest.mark.parametrize("damage", ["lost", "garbage", "journal of another"])
def test_a_lost_or_damaged_log_comes_back_and_its_own_replica_adds_what_came_later(
    capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    asyncio.run(changed(1))
    said(capsys, "log", "backup", "copy")
    head = asyncio.run(changed(2, 3))
    world = STATE / WORLD_FILE
    if damage == "lost":
        world.unlink()
    else:
        world.write_bytes(b"garbage" * 1_000)
    if damage == "journal of another":
        (STATE / f"{WORLD_FILE}-wal").write_bytes(b"\x37\x7f\x06\x82" + bytes(4_000))
    told = said(capsys, "log", "restore", "--backup", "copy")
    assert told == "the log stands at 2 again\nthis PDP's own replica held more: the log stands at 4\n"
    assert stands() == head
    assert asyncio.run(changed(4)).seq == head.seq + 1


def test_a_whole_machine_is_restored_from_backup_and_keys(capsys: pytest.CaptureFixture[str]) -> None:
    head = asyncio.run(changed(1))
    said(capsys, "log", "backup", "copy")
    shutil.copytree(STATE / "keys", "safe")
    shutil.rmtree(STATE)
    assert said(capsys, "log", "restore", "--backup", "copy") == f"the log stands at {head.seq} again\n"
    shutil.copytree("safe", STATE / "keys")
    assert asyncio.run(changed(2)).seq == head.seq + 1


def test_nothing_newer_is_overwritten_and_a_running_pdp_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(changed(1))
    said(capsys, "log", "backup", "copy")
    head = asyncio.run(changed(2))
    assert "stands at 3, the backup at 2" in said(capsys, "log", "restore", "--backup", "copy", code=6)
    assert stands() == head

    async def while_running() -> None:
        async with pdp():
            told = await asyncio.to_thread(said, capsys, "log", "restore", "--backup", "copy", code=2)
            assert "the PDP is running" in told

    asyncio.run(while_running())


def pdp():  # type: ignore[no-untyped-def] # noqa: ANN201 - the type of `running`
    issuer = DevelopmentIssuer.generate()
    Path("jwks.json").write_bytes(issuer.jwks())
    Path("trust.yaml").write_text(trust_text(issuer, jwks_file="jwks.json"))
    flags = {
        ("mode",): "development",
        ("state_dir",): "state",
        ("trust",): "trust.yaml",
        ("grpc", "listen"): "127.0.0.1:0",
        ("probes", "listen"): "127.0.0.1:0",
    }
    return running(Basis.read(configure(flags=flags)))


@pytest.mark.holds("V4", "F5", "P6")
def test_a_backup_older_than_what_replicas_hold_rolls_nobody_back_and_the_operator_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asyncio.run(changed(1))
    said(capsys, "log", "backup", "copy")
    newer = asyncio.run(changed(2, 3))
    shutil.copytree(STATE / "replica", "edge")
    (STATE / WORLD_FILE).unlink()
    with_lost_tail = SqliteReplicaStore(STATE / "replica")

    async def lose_tail() -> None:
        await with_lost_tail._db.run(lambda connection: connection.execute("DELETE FROM entries WHERE seq > 2"))
        await with_lost_tail.close()

    asyncio.run(lose_tail())
    told = said(capsys, "log", "restore", "--backup", "copy")
    assert "this PDP has held entry 4" in told
    assert "pdp log recover DIR" in told

    async def refuses(app: Application) -> None:
        """It says so, signs no heartbeat, and takes no write."""
        async with asyncio.timeout(20):
            while "rollback" not in app.health.report().last_error:  # noqa: ASYNC110 - a refusal makes no new world
                await asyncio.sleep(0.05)
        assert app.health.staleness_s == NEVER
        assert not app.health.ready
        with pytest.raises(PortcullisError):
            await app.replication.publisher.publish("lock", lock_payload(9), author="user:ada")

    async def started() -> None:
        async with pdp() as (app, _, _):
            await refuses(app)

    asyncio.run(started())
    assert said(capsys, "log", "recover", "edge") == "the log stood at 2 and stands at 4\n"
    assert stands() == newer

    async def ready_again() -> None:
        async with pdp() as (app, _, _), asyncio.timeout(20):
            await app.until_ready()
            assert app.replica.head == newer

    asyncio.run(ready_again())


@pytest.mark.holds("V4", "P6")
def test_a_log_goes_on_at_the_snapshot_of_a_replica_that_was_compacted_beyond_its_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said(capsys, "log", "backup", "copy")
    newer = asyncio.run(changed(1, 2))

    async def compact() -> None:
        replica, store = replica_of_this_pdp(), SqliteReplicaStore(STATE / "replica")
        await restore(replica, store, SystemClock())
        keys = load_pdp_keys(STATE)
        await Compactor(MemoryLog(), replica, SystemClock(), store=store, key=lambda: keys.publish).snapshot()
        await store.close()

    asyncio.run(compact())
    shutil.copytree(STATE / "replica", "edge")
    shutil.rmtree(STATE / "replica")
    (STATE / WORLD_FILE).unlink()
    said(capsys, "log", "restore", "--backup", "copy")
    assert said(capsys, "log", "recover", "edge") == "the log stood at 1 and stands at 3\n"
    assert stands() == newer

    async def serves() -> None:
        async with pdp() as (app, _, _), asyncio.timeout(20):
            await app.until_ready()
            assert app.replica.head == newer
            assert await app.replication.publisher.publish("lock", lock_payload(3), author="user:ada") == newer.seq + 1

    asyncio.run(serves())


def test_log_show_tells_what_takes_how_much_room(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(changed(1))
    told = json.loads(said(capsys, "log", "show", "--json"))
    assert float(told["own file size"].removesuffix(" MB")) > 0
    assert told["replica files size"].endswith(" MB")
