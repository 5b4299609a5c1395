"""`pdp keys` and `pdp log`: what an operator does to keys and to a log that was lost or split."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from pdp.adapters.clock import SystemClock
from pdp.adapters.keys_files import load_root, load_roots
from pdp.adapters.log_redis import RedisWorldLog
from pdp.adapters.log_sqlite import SqliteWorldLog
from pdp.adapters.replica_store import SqliteReplicaStore
from pdp.cli.main import run
from pdp.replica import Replica
from pdp.server.stores import WORLD_FILE
from pdp.service.cluster import ArchivingStore, MirroredLog
from pdp.service.replicate import Publisher
from pdp.trust.keys import Role, RootFile
from pdp.trust.verifier import TrustVerifier
from pdp.world import empty_world
from tests.support.logs import lock_payload
from tests.support.pdp import ADA, PACK
from tests.support.redis import redis_server

INIT = ("init", "--pack", str(PACK), "--admin", f"user:{ADA}")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert run(arguments) == code
    told = capsys.readouterr()
    return told.err if code else told.out


def root(directory: str = "state") -> RootFile:
    found = load_root(Path(directory))
    assert found is not None
    return found


def test_keys_are_rotated_in_two_steps_and_the_old_root_files_stay(capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, *INIT)
    first = root()
    old = next(iter(first.roles[Role.PUBLISH].keys))
    shutil.move("state/keys/root.pem", "root.pem")
    assert "root file 2" in said(capsys, "keys", "rotate", "--root-key", "root.pem", "--own")
    shown = json.loads(said(capsys, "keys", "show", "--json"))
    assert shown["version"] == 2
    assert sorted(key["role"] for key in shown["keys"] if key["here"]) == ["publish", "timestamp"]
    assert len(shown["keys"]) == 5
    assert "--until" in said(capsys, "keys", "rotate", "--root-key", "root.pem", "--retire", old, code=2)
    said(capsys, "keys", "rotate", "--root-key", "root.pem", "--retire", old, "--until", "9")
    third = root()
    assert third.version == 3
    assert third.keys[old].until_seq == 9
    assert [RootFile.parse(raw).version for raw in load_roots(Path("state"))] == [1, 2, 3]
    assert RootFile.parse(load_roots(Path("state"))[1]).succeeds(first)


def test_a_root_key_is_exchanged_and_the_old_one_signs_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, *INIT)
    said(capsys, "init", *INIT[1:], "--state-dir", "elsewhere")  # a machine whose root key becomes ours
    shutil.move("elsewhere/keys/root.pem", "new.pem")
    old = "state/keys/root.pem"
    said(capsys, "keys", "rotate", "--root-key", old, "--new-root-key", "new.pem")
    assert said(capsys, "keys", "rotate", "--root-key", old, "--own", code=2).startswith(
        "pdp: bad_request: no valid root"
    )
    said(capsys, "keys", "rotate", "--root-key", "new.pem", "--own")
    assert root().version == 3


def test_a_key_in_use_here_is_not_retired(capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, *INIT)
    own = next(iter(root().roles[Role.TIMESTAMP].keys))
    told = said(capsys, "keys", "rotate", "--root-key", "state/keys/root.pem", "--retire", own, code=2)
    assert "this PDP's own key" in told


@pytest.mark.parametrize("text", ["publish", "publish:zz", "root:" + "00" * 32, "nobody:" + "00" * 32])
def test_a_malformed_key_is_one_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, *INIT)
    told = said(capsys, "keys", "rotate", "--root-key", "state/keys/root.pem", "--add", text, code=2)
    assert told.count("\n") == 1
    assert root().version == 1


def publisher(directory: str, log: MirroredLog | SqliteWorldLog, archive: SqliteWorldLog) -> Publisher:
    from pdp.adapters.keys_files import load_pdp_keys  # noqa: PLC0415

    replica = Replica(verifier=TrustVerifier(root(directory), "main"), world=empty_world("main"))
    store = ArchivingStore(SqliteReplicaStore(Path(directory) / "replica"), archive)
    return Publisher(log, replica, load_pdp_keys(Path(directory)), SystemClock(), store)


async def write(url: str, directory: str, number: int) -> None:
    """Publish one lock from the PDP in `directory`."""
    archive = SqliteWorldLog(Path(directory) / WORLD_FILE)
    log = MirroredLog(RedisWorldLog(url, tenant="main"), archive)
    pdp = publisher(directory, log, archive)
    try:
        await pdp.catch_up()
        await pdp.publish("lock", lock_payload(number), author="user:ada")
    finally:
        await pdp._store._store.close()  # type: ignore[union-attr]
        await log.close()


def joined(capsys: pytest.CaptureFixture[str], directory: str) -> None:
    """Make a second PDP of the cluster whose first one is in `state`."""
    added = said(capsys, "keys", "init", "--state-dir", directory).split()
    said(capsys, "keys", "rotate", "--root-key", "state/keys/root.pem", *added)
    shutil.copy("state/root.json", f"{directory}/root.json")


def test_a_second_pdp_joins_a_split_log_is_named_and_adopt_resolves_it(capsys: pytest.CaptureFixture[str]) -> None:
    with redis_server() as server:
        store = ("--store", server.url)
        said(capsys, *INIT, *store)
        assert "join it" in said(capsys, *INIT, *store, "--state-dir", "second", code=2)
        joined(capsys, "second")
        asyncio.run(write(server.url, "second", 1))
        asyncio.run(write(server.url, "state", 2))
        server.command("XDEL", "pdp:{main}:log", "3-0")  # what a failover does: the newest entry is gone
        server.command("XSETID", "pdp:{main}:log", "2-0")
        asyncio.run(write(server.url, "second", 3))
        with pytest.raises(Exception, match="two entries under number 3"):
            asyncio.run(write(server.url, "state", 4))
        shown = json.loads(said(capsys, "log", "show", *store, "--json"))
        number, digest = shown["own file"].split()
        assert digest in shown["writes"]
        assert digest not in shown["store"]
        key = ("--root-key", "state/keys/root.pem")
        assert "neither" in said(capsys, "log", "adopt", f"3:{'0' * 64}", *key, *store, code=2)
        told = said(capsys, "log", "adopt", f"{number}:{digest}", *key, *store)
        assert "the store now holds this PDP's log" in told
        shutil.copy("state/root.json", "second/root.json")
        asyncio.run(write(server.url, "state", 4))
        asyncio.run(write(server.url, "second", 5))
        assert json.loads(said(capsys, "log", "show", *store, "--json"))["store"].split()[0] == "5"


@pytest.mark.holds("F4")
def test_an_emptied_store_is_restored_from_a_pdps_own_file(capsys: pytest.CaptureFixture[str]) -> None:
    with redis_server() as server:
        store = ("--store", server.url)
        said(capsys, *INIT, *store)
        server.command("FLUSHALL")
        with pytest.raises(Exception, match="the store is empty"):
            asyncio.run(write(server.url, "state", 1))
        assert "1 entry again" in said(capsys, "log", "restore", *store)
        asyncio.run(write(server.url, "state", 1))
        assert said(capsys, "log", "restore", *store, code=6)


@pytest.mark.holds("V4")
def test_a_backup_older_than_what_replicas_hold_is_completed_from_a_replica(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, *INIT)

    async def change(number: int) -> None:
        archive = SqliteWorldLog(here / "state" / WORLD_FILE)
        pdp = publisher("state", archive, archive)
        await pdp.catch_up()
        await pdp.publish("lock", lock_payload(number), author="user:ada")
        await pdp._store._store.close()  # type: ignore[union-attr]
        await archive.close()

    asyncio.run(change(1))
    shutil.copytree(here / "state", here / "backup")
    asyncio.run(change(2))
    asyncio.run(change(3))
    shutil.copytree(here / "state" / "replica", here / "edge")
    shutil.rmtree(here / "state")
    shutil.copytree(here / "backup", here / "state")
    assert said(capsys, "log", "recover", "edge") == "the log stood at 2 and stands at 4\n"
    assert said(capsys, "log", "recover", "edge") == "the log stood at 4 and stands at 4\n"
    assert "no replica.db" in said(capsys, "log", "recover", "pack", code=2)


def test_a_new_root_key_is_its_owners_alone_and_never_overwrites_one(tmp_path: Path) -> None:
    path = tmp_path / "root.pem"
    assert run(("keys", "new-root", str(path))) == 0
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    assert run(("keys", "new-root", str(path))) == 2
    assert path.read_bytes() == before
    assert run(("keys", "new-root", str(tmp_path / "nowhere" / "root.pem"))) == 2


def test_a_root_file_is_taken_at_a_start_if_it_is_the_first_or_the_next_and_never_an_older_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said(capsys, *INIT)
    offer = ("keys", "init", "--state-dir", "pod/state", "--root", "offered.json")
    assert "No such file" in said(capsys, *offer, code=2)
    for version in (1, 2):
        shutil.copy("state/root.json", "offered.json")
        assert said(capsys, *offer).count("--add ") == 2
        assert root("pod/state").raw == root().raw
        if version == 1:
            shutil.copy("state/root.json", "first.json")
            said(capsys, "keys", "rotate", "--root-key", "state/keys/root.pem", "--own")
    shutil.copy("first.json", "offered.json")
    said(capsys, *offer)
    assert root("pod/state").version == 2
    assert [RootFile.parse(raw).version for raw in load_roots(Path("pod/state"))] == [1, 2]


def test_a_root_file_that_another_root_signed_is_not_taken(capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, *INIT)
    said(capsys, *INIT, "--state-dir", "other")
    said(capsys, "keys", "rotate", "--root-key", "other/keys/root.pem", "--own", "--state-dir", "other")
    before = root().raw
    assert "not signed by the root keys" in said(capsys, "keys", "init", "--root", "other/root.json", code=2)
    Path("broken.json").write_text("{}")
    assert "broken.json" in said(capsys, "keys", "init", "--root", "broken.json", code=2)
    assert root().raw == before
