"""Two whole PDPs over one Redis: any takes a write, both enforce it, each answers for the other's enforcement points."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pdp.adapters.keys_files import load_root
from pdp.cli.main import run
from pdp.config import configure
from pdp.identity.development import DevelopmentIssuer, trust_text
from pdp.server.app import Application, Basis, running
from pdp.trust.feed import Ack, Hello
from tests.support.logs import lock_payload
from tests.support.pdp import ADA, PACK
from tests.support.redis import redis_server


def prepared(directory: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Make two PDPs that share a store, in `one` and `two`."""
    issuer = DevelopmentIssuer.generate()
    (directory / "jwks.json").write_bytes(issuer.jwks())
    (directory / "trust.yaml").write_text(trust_text(issuer, jwks_file="jwks.json"))
    one, two = str(directory / "one"), str(directory / "two")
    assert run(("init", "--pack", str(PACK), "--admin", f"user:{ADA}", "--state-dir", one, "--store", url)) == 0
    capsys.readouterr()
    assert run(("keys", "init", "--state-dir", two)) == 0
    added = capsys.readouterr().out.split()
    assert run(("keys", "rotate", "--root-key", f"{one}/keys/root.pem", "--state-dir", one, *added)) == 0
    shutil.copy(f"{one}/root.json", f"{two}/root.json")


@asynccontextmanager
async def pdp(directory: Path, name: str, url: str) -> AsyncIterator[Application]:
    flags = {
        ("mode",): "development",
        ("state_dir",): str(directory / name),
        ("trust",): str(directory / "trust.yaml"),
        ("grpc", "listen"): "127.0.0.1:0",
        ("probes", "listen"): "127.0.0.1:0",
        ("store", "url"): url,
    }
    async with running(Basis.read(configure(flags=flags))) as (app, _, _):
        yield app


async def holds(app: Application, seq: int) -> None:
    met = asyncio.Event()
    stop = app.replica.on_change(lambda world: met.set() if world.seq >= seq else None)
    if app.replica.world.seq < seq:
        async with asyncio.timeout(20):
            await met.wait()
    stop()


def follows(app: Application, name: str, seq: int) -> None:
    hello = Hello(seq=0, head=b"", version="0.1", role="sidecar", tenant="main", instance=name)
    subscription = app.replication.subscribers.open(hello, name)
    app.replication.subscribers.acknowledge(subscription, Ack(seq=seq, heartbeat_ms=app.clock.now_ms()))


def test_two_pdps_over_one_redis(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def work(url: str) -> None:
        async with pdp(tmp_path, "one", url) as one, pdp(tmp_path, "two", url) as two, asyncio.timeout(40):
            await asyncio.gather(one.until_ready(), two.until_ready())
            for number, (writer, other) in enumerate(((one, two), (two, one)) * 3, start=1):
                seq = await writer.replication.publisher.publish("lock", lock_payload(number), author="user:ada")
                await holds(other, seq)
                assert other.replica.head == writer.replica.head
            follows(two, "edge-2", seq)
            receipt = await one.replication.subscribers.wait_all(seq, timeout_s=0.0)
            while receipt.connected == 0:  # the posting comes within a heartbeat
                receipt = await one.replication.subscribers.wait_all(seq, timeout_s=1.0)
                await asyncio.sleep(0.05)
            assert (receipt.connected, receipt.holding) == (1, 1)
            key = ("--root-key", str(tmp_path / "one" / "keys" / "root.pem"))
            assert (
                await asyncio.to_thread(run, ("keys", "rotate", *key, "--own", "--state-dir", str(tmp_path / "one")))
                == 0
            )
            while load_root(tmp_path / "two").version != 3:  # type: ignore[union-attr]  # noqa: ASYNC110
                await asyncio.sleep(0.1)  # shown by the first, taken by the second
            await two.replication.publisher.publish("lock", lock_payload(50), author="user:ada")

    with redis_server() as server:
        prepared(tmp_path, server.url, capsys)
        asyncio.run(work(server.url))
