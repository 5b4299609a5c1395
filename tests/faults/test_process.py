"""A PDP's process killed, stopped, starved of files and disk, and asked to end under load (F1, F2, F8, F22, F23)."""

import asyncio
import contextlib
import random
import resource
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest

from pdp.adapters.audit_file import AuditChain
from pdp.adapters.follow_grpc import GrpcFeedSource
from pdp.adapters.keys_files import load_root
from pdp.errors import PortcullisError, Reason
from pdp.replica import Replica
from pdp.sdk import Client
from pdp.service.audit import AuditTrail
from pdp.service.decide import Decider
from pdp.service.replicate import Follower
from pdp.trust.feed import Hello
from pdp.trust.verifier import TrustVerifier
from pdp.v1 import decision_pb2, decision_pb2_grpc, lock_pb2, lock_pb2_grpc
from pdp.world import empty_world
from tests.faults.checker import check
from tests.faults.drive import ASSETS, QUESTION, Drive, history
from tests.support.logs import MemoryStore
from tests.support.pdp import ADA, BOB, ROWS, detail
from tests.support.served import ServedPdp, served_pdp
from tests.support.waiting import until

EDGE = "edge@demo.portcullis"
EVERYBODY = ROWS + f"g, user:{EDGE}, role:enforcement-point, prod\n"
ASK = decision_pb2.EvaluateRequest(
    question=decision_pb2.Question(action="dataset.read", resource="dataset/open", supports_all=True)
)
FILES = 256

# Processes end here in the middle of everything: what is left of their connections is the garbage collector's.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


class MovedClock:
    """The system's clock; `monotonic_s` moves its monotonic side ahead."""

    monotonic_s = 0.0

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def mono_s(self) -> float:
        return time.monotonic() + self.monotonic_s


def token_file(pdp: ServedPdp, sub: str) -> Path:
    path = pdp.directory / f"{sub}.token"
    path.write_text(pdp.metadata(sub)[0][1].removeprefix("Bearer "))
    return path


@contextlib.asynccontextmanager
async def sidecar(pdp: ServedPdp, clock: MovedClock) -> AsyncIterator[tuple[Replica, Decider]]:
    """Follow the PDP and decide beside it, as a sidecar does."""
    root = load_root(pdp.directory / "state")
    assert root is not None
    replica = Replica(verifier=TrustVerifier(root, "main"), world=empty_world("main"))
    source = GrpcFeedSource(pdp.address, clock=clock, token=token_file(pdp, EDGE))
    hello = Hello(seq=0, head=b"", version="0.1", role="sidecar", tenant="main", instance="edge-1")
    following = asyncio.create_task(Follower(replica, MemoryStore(), source, clock=clock, hello=hello).run())
    trail = AuditTrail(
        AuditChain.open(pdp.directory / "edge", name="sidecar", who=dict, now_ms=clock.now_ms), now_ms=clock.now_ms
    )
    try:
        yield replica, Decider(replica=replica, audit=trail, clock=clock, new_id=lambda: f"{random.random()}")  # noqa: S311
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await trail.close()


def asked_by_sdk(pdp: ServedPdp) -> Reason:
    """Return why the SDK has no answer."""
    with Client(pdp.address, token=token_file(pdp, BOB), timeout_s=0.5) as client:
        with pytest.raises(PortcullisError) as error:
            client.check("dataset.read", "dataset/open")
        return error.value.reason


@pytest.mark.holds("F1", "F2", "P6")
@pytest.mark.parametrize(
    ("how", "told"),
    [
        (signal.SIGKILL, {Reason.PDP_UNREACHABLE, Reason.DEADLINE_EXCEEDED}),
        (signal.SIGSTOP, {Reason.DEADLINE_EXCEEDED}),
    ],
)
def test_without_its_pdp_a_sidecar_decides_until_the_bound_and_the_sdk_says_so(
    tmp_path: Path, how: signal.Signals, told: set[Reason]
) -> None:
    async def work() -> None:
        clock = MovedClock()
        async with (
            served_pdp(tmp_path, rows=EVERYBODY, assets=ASSETS) as pdp,
            sidecar(pdp, clock) as (replica, decider),
        ):

            def stale_s() -> float:
                return replica.staleness_s(now_ms=clock.now_ms(), mono_s=clock.mono_s())

            await until(lambda: stale_s() < 5)
            assert (await decider.answer(QUESTION)).decision.allowed
            pdp.signal(how)
            assert await asyncio.to_thread(asked_by_sdk, pdp) in told
            assert (await decider.answer(QUESTION)).decision.allowed
            clock.monotonic_s = 61.0
            assert (await decider.answer(QUESTION)).decision.reason is Reason.WORLD_STALE
            if how is signal.SIGKILL:
                await pdp.gone()
                await pdp.start()
            else:
                pdp.signal(signal.SIGCONT)
            await until(lambda: stale_s() < 5)
            assert (await decider.answer(QUESTION)).decision.allowed

    asyncio.run(work())


@contextlib.contextmanager
def limited(pdp: ServedPdp, what: int, bound: int) -> Any:
    """Take something from the running process, and give it back."""
    _, hard = resource.prlimit(pdp.pid, what)
    before = resource.prlimit(pdp.pid, what, (bound, hard))
    try:
        yield
    finally:
        resource.prlimit(pdp.pid, what, before)


@pytest.mark.holds("F8", "P2", "P8", "P13")
def test_a_disk_that_takes_no_byte_turns_allows_into_denies_and_refuses_changes(tmp_path: Path) -> None:
    async def work() -> None:
        async with served_pdp(tmp_path, assets=ASSETS) as pdp, httpx.AsyncClient() as probes:
            decisions = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
            locks = lock_pb2_grpc.LockServiceStub(pdp.channel())
            how: dict[str, Any] = {"metadata": pdp.metadata(BOB), "timeout": 10}
            assert (await decisions.Evaluate(ASK, **how)).decision.effect == 1
            with limited(pdp, resource.RLIMIT_FSIZE, 0):
                answer = (await decisions.Evaluate(ASK, **how)).decision
                assert (answer.effect, answer.reason) == (0, Reason.AUDIT_UNAVAILABLE)
                lock = lock_pb2.LockRequest(target=lock_pb2.LockTarget(principal="user:m@x"), reason="r")
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await locks.Lock(lock, metadata=pdp.metadata(ADA), timeout=10)
                assert detail(error.value).reason == Reason.AUDIT_UNAVAILABLE
                page = (await probes.get(f"{pdp.probes}/readyz")).json()
                assert any("cannot be written" in text for text in page["degradations"])
            assert (await decisions.Evaluate(ASK, **how)).decision.effect == 1
            assert (await locks.Lock(lock, metadata=pdp.metadata(ADA), timeout=10)).lock.id
            assert '"degraded"' in (tmp_path / "pdp.log").read_text()

    asyncio.run(work())


@pytest.mark.holds("F22")
def test_connections_that_come_and_go_leave_nothing_and_too_many_only_wait(tmp_path: Path) -> None:
    async def work() -> None:
        async with served_pdp(tmp_path, assets=ASSETS) as pdp:
            host, _, port = pdp.address.rpartition(":")
            process = psutil.Process(pdp.pid)
            stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
            how: dict[str, Any] = {"metadata": pdp.metadata(BOB), "timeout": 10}
            assert (await stub.Evaluate(ASK, **how)).decision.effect == 1
            before = process.num_fds()
            with limited(pdp, resource.RLIMIT_NOFILE, FILES):
                crowd = [await asyncio.open_connection(host, int(port)) for _ in range(FILES + 50)]
                assert (await stub.Evaluate(ASK, **how)).decision.effect == 1  # who is in is served
                for _, writer in crowd:
                    writer.close()
            for _ in range(20):
                crowd = await asyncio.gather(*(asyncio.open_connection(host, int(port)) for _ in range(100)))
                for _, writer in crowd:
                    writer.close()
            await until(lambda: process.num_fds() <= before + 2)
            fresh = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
            assert (await fresh.Evaluate(ASK, **how)).decision.effect == 1

    asyncio.run(work())


@pytest.mark.holds("F23", "P8")
def test_sigterm_under_load_loses_no_answer_and_makes_no_allow(tmp_path: Path) -> None:
    async def work() -> Drive:
        async with served_pdp(tmp_path, assets=ASSETS) as pdp:
            drive = Drive(pdp=pdp, order=random.Random(23))  # noqa: S311 - an order, not a secret
            asking = [asyncio.create_task(drive.client(f"client {number}")) for number in range(3)]
            publishing = asyncio.create_task(drive.publish(1_000))
            await drive.acknowledged(5)
            pdp.signal(signal.SIGTERM)
            assert await pdp.gone() == 0
            publishing.cancel()
            drive.over = True
            await asyncio.gather(*asking)
            return drive

    drive = asyncio.run(work())
    happened = asyncio.run(history(drive))
    assert check(happened) == []
    assert set(drive.published) <= set(happened.worlds)
