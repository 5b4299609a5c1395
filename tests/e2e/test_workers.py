"""Several processes of one PDP behind one port: whichever is asked, the answer is right; whichever dies, another serves."""

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from pdp.adapters.clock import SystemClock
from pdp.cli.main import run
from pdp.replica import Replica
from pdp.service.follow import Follower
from pdp.trust.feed import Hello
from pdp.trust.keys import RootFile
from pdp.trust.verifier import TrustVerifier
from pdp.v1 import decision_pb2, lock_pb2, replication_pb2, types_pb2
from pdp.v1.decision_pb2_grpc import DecisionServiceStub
from pdp.v1.lock_pb2_grpc import LockServiceStub
from pdp.v1.replication_pb2_grpc import ReplicationServiceStub
from pdp.world import empty_world
from tests.support.logs import MemoryStore
from tests.support.pdp import ADA, BOB, GATE, initialised
from tests.support.redis import redis_server
from tests.support.tokens import HTU, holder, jkt_of, proof
from tests.support.workers import PATIENCE_S, Workers, serving

ASSETS = "dataset/open: {environment: dev}\n"
QUESTION = decision_pb2.Question(action="dataset.read", resource="dataset/open", supports_all=True)
CONNECTIONS = 8


@pytest.fixture(params=["sqlite", "redis"])
def pdp(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workers]:
    issuer = asyncio.run(initialised(tmp_path, assets=ASSETS))
    if request.param == "sqlite":
        with serving(tmp_path, issuer) as workers:
            yield workers
        return
    with redis_server() as server:
        assert server.command("XLEN", "pdp:{main}:log").startswith(":0")
        server.command("XADD", "pdp:{main}:log", "0-1", "x", "x")
        server.command("XTRIM", "pdp:{main}:log", "MAXLEN", "0")
        assert run(("log", "restore", "--state-dir", str(tmp_path / "state"), "--store", server.url)) == 0
        with serving(tmp_path, issuer, "--store", server.url) as workers:
            yield workers


def lock_of(name: str) -> lock_pb2.LockRequest:
    target = lock_pb2.LockTarget(principal=f"user:{name}")
    return lock_pb2.LockRequest(target=target, reason="test", wait_all=True)


@asynccontextmanager
async def following(pdp: Workers, count: int) -> AsyncIterator[list[Replica]]:
    """Follow with that many enforcement points, each over a connection of its own."""
    root = RootFile.parse((pdp.directory / "state" / "root.json").read_bytes())
    replicas, tasks = [], []
    for number in range(count):
        replica = Replica(verifier=TrustVerifier(root, "main"), world=empty_world("main"))
        hello = Hello(seq=0, head=b"", version="1", role="sidecar", tenant="main", instance=f"edge-{number}")
        follower = Follower(replica, MemoryStore(), pdp.source(GATE), clock=SystemClock(), hello=hello)
        replicas.append(replica)
        tasks.append(asyncio.create_task(follower.run()))
    try:
        yield replicas
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def locked(channel: grpc.aio.Channel, pdp: Workers, name: str) -> lock_pb2.LockResponse:
    answer: lock_pb2.LockResponse = await LockServiceStub(channel).Lock(
        lock_of(name), metadata=pdp.metadata(ADA), timeout=20
    )
    return answer


async def connected(channel: grpc.aio.Channel, pdp: Workers) -> int:
    """Return how many enforcement points the worker behind `channel` knows as connected."""
    told = await ReplicationServiceStub(channel).ListReplicas(
        replication_pb2.ListReplicasRequest(), metadata=pdp.metadata(ADA), timeout=20
    )
    return sum(1 for item in told.replicas if item.connected)


async def evaluated(channel: grpc.aio.Channel, pdp: Workers, at_least: int = 0) -> decision_pb2.Decision:
    request = decision_pb2.EvaluateRequest(question=QUESTION, at_least=at_least)
    answer = await DecisionServiceStub(channel).Evaluate(request, metadata=pdp.metadata(BOB), timeout=20)
    decision: decision_pb2.Decision = answer.decision
    return decision


def watches(channel: grpc.aio.Channel, pdp: Workers) -> Any:
    request = decision_pb2.WatchRequest(question=QUESTION)
    return DecisionServiceStub(channel).Watch(request, metadata=pdp.metadata(BOB))


async def cut(call: Any) -> bool:
    """Return True once a watch has ended with a refusal, after nothing but denies."""
    try:
        while (await call.read()).decision.effect == types_pb2.EFFECT_DENY:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code() is grpc.StatusCode.PERMISSION_DENIED
    return False


def asked(pdp: Workers) -> set[str]:
    """Return the workers that have answered calls."""
    page = pdp.get("/metrics").splitlines()
    return {found[1] for line in page if (found := re.match(r'pdp_rpc_total{.*worker="(\d+)"', line))}


def test_whichever_worker_is_asked_the_answer_is_right(pdp: Workers) -> None:
    async def work() -> None:
        channels = [pdp.channel() for _ in range(CONNECTIONS)]
        async with following(pdp, CONNECTIONS) as replicas, asyncio.timeout(40):
            for channel in channels:
                while await connected(channel, pdp) < CONNECTIONS:  # noqa: ASYNC110 - told within a heartbeat, elsewhere
                    await asyncio.sleep(0.05)
            for number, channel in enumerate(channels):
                made = await locked(channel, pdp, f"mallory{number}@x")
                receipt = made.receipt
                assert (receipt.connected, receipt.holding, list(receipt.missing)) == (CONNECTIONS, CONNECTIONS, [])
                assert all(replica.world.seq >= made.lock.world_seq for replica in replicas)
            for channel in channels:
                assert (await evaluated(channel, pdp, made.lock.world_seq)).world_seq >= made.lock.world_seq
            calls = [watches(channel, pdp) for channel in channels]
            assert {(await call.read()).decision.effect for call in calls} == {types_pb2.EFFECT_ALLOW}
            await locked(channels[0], pdp, BOB)
            for call in calls:  # each is told, or ended with the right to ask: bob may do nothing any more
                assert await cut(call)
        await pdp.close()

    asyncio.run(work())
    deadline = time.monotonic() + PATIENCE_S
    while asked(pdp) != {"0", "1"} and time.monotonic() < deadline:  # a worker reports every two seconds
        time.sleep(0.1)
    assert asked(pdp) == {"0", "1"}
    assert pdp.end() == 0
    assert run(("audit", "verify", str(pdp.directory / "state" / "audit"))) == 0


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Workers]:
    with serving(tmp_path, asyncio.run(initialised(tmp_path, assets=ASSETS)), workers=3) as workers:
        yield workers


@pytest.mark.holds("F24")
def test_a_worker_that_is_killed_is_started_again_and_the_others_serve_meanwhile(alone: Workers) -> None:
    async def work() -> None:
        before = {child.pid for child in alone.children()}
        victim = alone.children()[1]
        victim.kill()
        await asyncio.to_thread(victim.wait, PATIENCE_S)  # its socket is closed: no connection is given to it any more
        for _ in range(20):
            assert (await evaluated(alone.channel(), alone)).effect == types_pb2.EFFECT_ALLOW
        await alone.close()
        await asyncio.to_thread(alone.until, lambda: len({child.pid for child in alone.children()} - before) == 1)
        await asyncio.to_thread(alone.until_whole)
        assert len({child.pid for child in alone.children()} & before) == 2

    asyncio.run(work())
    assert alone.end() == 0
    assert "worker ended" in (alone.directory / "serve.log").read_text()


def test_nobody_joins_the_port_of_another_pdp(alone: Workers, capsys: pytest.CaptureFixture[str]) -> None:
    """Workers share a port by an option that a second PDP could set too: each would get half of the other's calls."""
    second = alone.directory / "second"
    second.mkdir()
    asyncio.run(initialised(second))
    usual = ("--mode", "development", "--state-dir", str(second / "state"), "--trust", str(second / "trust.yaml"))
    doors = ("--listen", alone.address, "--probes", "127.0.0.1:0")
    for workers in ("1", "2"):
        assert run(("serve", *usual, *doors, "--workers", workers)) == 2
        assert "Address already in use" in capsys.readouterr().err


def test_no_worker_outlives_its_supervisor(alone: Workers) -> None:
    children = alone.children()
    assert alone.end(signal.SIGKILL) == -signal.SIGKILL
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_S)
    assert not alive


def test_what_keeps_workers_from_starting_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    asyncio.run(initialised(tmp_path))
    (tmp_path / "state" / "audit").mkdir()
    (tmp_path / "state" / "audit" / "worker-1").write_text("in the way")
    usual = ("--mode", "development", "--state-dir", str(tmp_path / "state"), "--trust", str(tmp_path / "trust.yaml"))
    doors = ("--listen", "127.0.0.1:0", "--probes", "127.0.0.1:0")
    assert run(("serve", *usual, *doors, "--workers", "2", "--log-level", "error")) == 2
    said = capfd.readouterr()
    assert said.out == ""
    (line,) = [line for line in said.err.splitlines() if line.startswith("pdp: ")]
    assert "cannot write the audit directory" in line
    assert run(("serve", *usual, "--listen", f"unix:{tmp_path}/s", "--workers", "2")) == 2
    assert "workers share a port" in capfd.readouterr().err


MANY = 20
"""Connections among which, but once in half a million runs, every one of two workers has some."""


def test_a_proof_that_one_worker_took_is_worth_nothing_at_the_others(tmp_path: Path) -> None:
    """Every connection belongs to one worker; a thief would try them all."""
    issuer = asyncio.run(initialised(tmp_path, assets=ASSETS))
    trust = tmp_path / "trust.yaml"
    trust.write_text(
        trust.read_text().replace("trust_domains", "    cnf_kinds: [jkt]\n    dpop_nonce: true\ntrust_domains")
    )

    async def work(pdp: Workers) -> None:
        compact = pdp.token(BOB, claims={"cnf": {"jkt": jkt_of(holder())}})
        channels = [pdp.channel() for _ in range(MANY)]

        async def shown(channel: grpc.aio.Channel, text: str) -> decision_pb2.Decision:
            request = decision_pb2.BoundRequest(proof=text, method="POST", url=HTU)
            question = decision_pb2.Question()
            question.CopyFrom(QUESTION)
            question.subject.CopyFrom(decision_pb2.Subject(credential=f"DPoP {compact}", request=request))
            ask = decision_pb2.EvaluateRequest(question=question)
            decision: decision_pb2.Decision
            decision = (
                await DecisionServiceStub(channel).Evaluate(ask, metadata=pdp.metadata(GATE), timeout=20)
            ).decision
            return decision

        first = await shown(channels[0], proof(compact, iat=int(time.time())))
        assert first.reason == "dpop_nonce_required"
        for _ in range(3):
            # The nonce of one worker is taken by every other, and the proof by one of them all.
            text = proof(compact, iat=int(time.time()), nonce=first.dpop_nonce)
            answers = await asyncio.gather(*(shown(channel, text) for channel in channels))
            assert sorted(answer.reason for answer in answers) == ["granted", *["token_replayed"] * (MANY - 1)]
        await pdp.close()

    with serving(tmp_path, issuer) as pdp:
        pdp.until_whole()
        asyncio.run(work(pdp))
        pdp.until(lambda: len(asked(pdp)) > 1)  # told among the workers within a second


async def allowed(channel: grpc.aio.Channel, pdp: Workers) -> bool:
    """Ask; on a machine so busy that the policy takes a worker longer than its bound, it rightly refuses as stale."""
    try:
        return (await evaluated(channel, pdp)).effect == types_pb2.EFFECT_ALLOW
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.holds("F19")
def test_a_policy_of_100_000_rows_reaches_everybody_while_questions_are_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one call, one entry, chunks: parsed, tested, compiled beside the loop, by each process for itself."""
    issuer = asyncio.run(initialised(tmp_path, assets=ASSETS))
    rows = "".join(f"g, user:u{number}@x.org, role:data-scientist, dev\n" for number in range(100_000))
    (tmp_path / "pack" / "many.csv").write_text(rows)

    async def work(pdp: Workers) -> None:
        (tmp_path / "ada.token").write_text(pdp.token(ADA))
        who = ("--server", pdp.address, "--token-file", str(tmp_path / "ada.token"))
        async with following(pdp, 1) as (edge,):
            applying = asyncio.create_task(asyncio.to_thread(run, ("policy", "apply", str(tmp_path / "pack"), *who)))
            channel, answered = pdp.channel(), 0
            while not applying.done() or edge.world.snapshot is None or len(edge.world.snapshot.rows) < 100_000:
                answered += await allowed(channel, pdp)
                await asyncio.sleep(0.05)
            assert await applying == 0
            assert answered
            assert edge.last_error == ""
        await pdp.close()

    with serving(tmp_path, issuer) as pdp:
        asyncio.run(work(pdp))
        assert pdp.end() == 0
    assert "100000 rows added" in capsys.readouterr().out
