"""The last resort of docs/operations.md: the newest entries are lost for good, and the root key gives them up for everybody."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pdp.adapters.clock import SystemClock
from pdp.adapters.follow_grpc import GrpcFeedSource
from pdp.adapters.replica_store import SqliteReplicaStore
from pdp.cli.main import run
from pdp.config import configure
from pdp.identity.development import DevelopmentIssuer, issue
from pdp.replica import Replica
from pdp.server.app import Application, Basis, running
from pdp.service.replicate import Follower, obtain_root
from pdp.trust.feed import Hello
from pdp.trust.verifier import TrustVerifier
from pdp.world import empty_world
from tests.support.logs import lock_payload
from tests.support.pdp import ROWS, initialised
from tests.support.waiting import until

EDGE = "edge@demo.portcullis"
EVERYBODY = ROWS + f"g, user:{EDGE}, role:enforcement-point, prod\n"
HELLO = Hello(seq=0, head=b"", version="0.1", role="sidecar", tenant="main", instance="edge-1")


@contextlib.asynccontextmanager
async def pdp(directory: Path) -> AsyncIterator[tuple[Application, str]]:
    flags = {
        ("mode",): "development",
        ("state_dir",): str(directory / "state"),
        ("trust",): str(directory / "trust.yaml"),
        ("grpc", "listen"): "127.0.0.1:0",
        ("probes", "listen"): "127.0.0.1:0",
    }
    async with running(Basis.read(configure(flags=flags))) as (app, address, _):
        yield app, str(address)


@contextlib.asynccontextmanager
async def edge(directory: Path, address: str, issuer: DevelopmentIssuer, pinned: str) -> AsyncIterator[Replica]:
    """Follow from disk, as an enforcement point does that was started again."""
    clock = SystemClock()
    (directory / "edge.token").write_text(issue(issuer, sub=EDGE, jti="e", now_s=clock.now_ms() // 1000))
    source = GrpcFeedSource(address, clock=clock, token=directory / "edge.token")
    root = await obtain_root(state_dir=directory / "edge", pinned=pinned, source=source, hello=HELLO)
    replica = Replica(verifier=TrustVerifier(root, "main"), world=empty_world("main"))
    store = SqliteReplicaStore(directory / "edge" / "replica")
    following = asyncio.create_task(Follower(replica, store, source, clock=clock, hello=HELLO).run())
    try:
        yield replica
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await store.close()


async def locked(app: Application, *numbers: int) -> None:
    for number in numbers:
        await app.replication.publisher.publish("lock", lock_payload(number), author="user:ada")


async def command(*words: str) -> None:
    assert await asyncio.to_thread(run, words) == 0


@pytest.mark.holds("V4", "V9", "P7")
def test_entries_lost_for_good_are_given_up_by_the_root_key_alone(tmp_path: Path) -> None:
    state = tmp_path / "state"
    where = ("--state-dir", str(state))

    async def work() -> None:
        issuer = await initialised(tmp_path, rows=EVERYBODY)
        async with pdp(tmp_path) as (app, address):
            await app.until_ready()
            pinned = app.basis.root.digest
            await locked(app, 1)
            await command("log", "backup", str(tmp_path / "copy"), *where)
            async with edge(tmp_path, address, issuer, pinned) as replica:
                await locked(app, 2, 3)
                await until(lambda: replica.head == app.replica.head)
        newer = replica.head
        (state / "world.db").unlink()
        shutil.rmtree(state / "replica")
        await command("log", "restore", "--backup", str(tmp_path / "copy"), *where)
        async with pdp(tmp_path) as (app, address), edge(tmp_path, address, issuer, pinned) as replica:
            await app.until_ready()
            await until(lambda: replica.world.seq == newer.seq)
            await locked(app, 9)
            head = app.replica.head
            assert head.seq < newer.seq
            await until(lambda: "another entry under number" in replica.last_error)
            assert replica.head == newer  # it does not go back by itself
            key = ("--root-key", str(state / "keys" / "root.pem"))
            await command("log", "adopt", f"{head.seq}:{head.digest.hex()}", *key, *where)
            await until(lambda: replica.head == head)
            await locked(app, 10)
            await until(lambda: replica.head == app.replica.head)

    asyncio.run(work())
