"""A bad link between a PDP and its replicas, or between a PDP and Redis (F3, F6, F7): bounded, and healed by itself."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import pytest

from pdp.adapters.follow_grpc import GrpcFeedSource
from pdp.adapters.log_redis import RedisWorldLog
from pdp.errors import PortcullisError, Reason
from pdp.replica import Replica
from pdp.server.grpc.replication import ReplicationServicer
from pdp.service.follow import Follower
from pdp.service.replicate import Publisher, Replication
from pdp.trust.feed import Hello
from pdp.v1.replication_pb2_grpc import add_ReplicationServiceServicer_to_server
from tests.faults.proxy import FaultProxy, Faults
from tests.support.logs import TENANT, Authority, HandClock, MemoryLog, MemoryStore, head_of, lock_payload
from tests.support.redis import redis_server

AUTHORITY = Authority()
SHORT = 40
"""Bytes before any entry has come: HTTP/2's own greeting."""
HELLO = Hello(seq=0, head=b"", version="0.1", role="sidecar", tenant=TENANT, instance="edge")

# Connections are cut here in the middle of everything: what is left of them is the garbage collector's.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


class Anyone:
    """A caller whom the link tests do not question."""

    class party:  # noqa: N801
        principal = "workload:edge"


async def admitted(_context: object, _action: str, _resource: str) -> Anyone:
    return Anyone()


class Scene:
    """A PDP, the proxy before it, and a replica that follows through it."""

    def __init__(self, *, idle_s: float = 0.4) -> None:
        self.clock = HandClock()
        self.log = MemoryLog()
        self.pdp = AUTHORITY.replica()
        self.replication = Replication(log=self.log, replica=self.pdp, keys=AUTHORITY.keys, clock=self.clock)
        self.edge = AUTHORITY.replica()
        self.store = MemoryStore()
        self.idle_s = idle_s
        self.proxy = FaultProxy("127.0.0.1", 0)

    async def lock(self, number: int) -> int:
        return await self.replication.publisher.publish("lock", lock_payload(number), author="user:ada")

    async def holds(self, seq: int) -> None:
        """Wait until the edge holds `seq`; heartbeats and the injected clock go on meanwhile."""
        async with asyncio.timeout(20):
            while self.edge.world.seq < seq:
                self.clock.advance(0.05)
                await self.replication.heartbeats.beat()
                await asyncio.sleep(0.02)
        assert self.edge.head == head_of(self.log.entries[: self.edge.world.seq])

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = grpc.aio.server()
        servicer = ReplicationServicer(
            subscribers=self.replication.subscribers,
            replica=self.pdp,
            authorise=admitted,  # type: ignore[arg-type]
        )
        add_ReplicationServiceServicer_to_server(servicer, server)
        self.proxy.port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        await self.replication.heartbeats.beat()
        async with self.proxy.running() as port:
            source = GrpcFeedSource(f"127.0.0.1:{port}", clock=self.clock, idle_s=self.idle_s)
            follower = Follower(
                self.edge, self.store, source, clock=self.clock, hello=HELLO, sleep=lambda _s: asyncio.sleep(0.01)
            )
            task = asyncio.create_task(follower.run())
            try:
                yield
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await server.stop(None)


@pytest.mark.holds("F6", "F7", "P7")
@pytest.mark.parametrize(
    "faults",
    [
        Faults(cut_after=SHORT),
        Faults(cut_after=900),
        Faults(corrupt_at=300),
        Faults(corrupt_at=1_200),
        Faults(drop=True),
        Faults(half_open=True),
        Faults(refuse=True),
        Faults(duplicate=True),
    ],
    ids=str,
)
def test_f6_f7_a_bad_link_never_moves_the_world_wrong_and_heals(faults: Faults) -> None:
    async def work() -> None:
        scene = Scene()
        async with scene.running():
            await scene.lock(1)
            await scene.holds(1)
            before, scene.proxy.faults = scene.proxy.accepted, faults
            scene.proxy.sever()
            for number in range(2, 6):
                await scene.lock(number)
                await scene.replication.heartbeats.beat()
            await asyncio.wait((asyncio.create_task(scene.holds(5)),), timeout=0.3)
            async with asyncio.timeout(20):
                while scene.proxy.accepted == before:  # noqa: ASYNC110 - the replica has met the fault
                    await asyncio.sleep(0.02)
            assert scene.edge.head == head_of(scene.log.entries[: scene.edge.world.seq])
            if faults.drop or faults.half_open or faults.cut_after == SHORT:
                assert scene.edge.world.seq == 1  # nothing came through
            scene.proxy.heal()
            await scene.holds(5)

    asyncio.run(work())


@pytest.mark.holds("F7")
@pytest.mark.parametrize("faults", [Faults(trickle=16), Faults(delay_s=0.01)], ids=str)
def test_f7_a_slow_link_converges(faults: Faults) -> None:
    async def work() -> None:
        scene = Scene(idle_s=5.0)
        scene.proxy.faults = faults
        async with scene.running():
            for number in range(1, 5):
                await scene.lock(number)
            await scene.holds(4)

    asyncio.run(work())


@pytest.mark.holds("F6", "P6")
def test_f6_a_half_open_link_is_found_out_and_the_replica_goes_stale_meanwhile() -> None:
    async def work() -> None:
        scene = Scene()
        async with scene.running():
            await scene.lock(1)
            await scene.holds(1)
            scene.proxy.faults = replace(scene.proxy.faults, half_open=True)
            before = scene.proxy.accepted
            scene.clock.advance(61)
            assert scene.edge.staleness_s(now_ms=scene.clock.now_ms(), mono_s=scene.clock.mono_s()) > 60
            async with asyncio.timeout(20):
                while scene.proxy.accepted == before:  # noqa: ASYNC110 - silence, not TCP, ends the connection
                    await asyncio.sleep(0.02)
            await scene.lock(2)
            scene.proxy.heal()
            await scene.holds(2)

    asyncio.run(work())


@pytest.mark.holds("F6", "P9")
def test_f6_a_publish_cut_off_from_redis_is_never_acknowledged_and_lost() -> None:
    async def work(port: int) -> None:
        proxy = FaultProxy("127.0.0.1", port)
        acknowledged: set[str] = set()
        async with proxy.running() as through:
            clock = HandClock()
            replica: Replica = AUTHORITY.replica()
            for turn in range(1, 25):
                log = RedisWorldLog(f"redis://127.0.0.1:{through}", tenant=TENANT, create=True)
                publisher = Publisher(log, replica, AUTHORITY.keys, clock, MemoryStore())
                proxy.heal()
                await publisher.catch_up()
                proxy.faults = Faults(cut_after=turn * 40) if turn % 3 else Faults()
                payload = lock_payload(turn)
                try:
                    await publisher.publish("lock", payload, author="user:ada")
                    acknowledged.add(str(payload["id"]))
                except PortcullisError as error:
                    assert error.reason in {Reason.STORE_UNAVAILABLE, Reason.CONFLICT}  # noqa: PT017 - one of two outcomes
                await log.close()
            proxy.heal()
            log = RedisWorldLog(f"redis://127.0.0.1:{through}", tenant=TENANT)
            entries = await log.read(after=0, limit=100)
            await log.close()
        written = b"".join(entry.payload for entry in entries)
        assert acknowledged
        assert all(name.encode() in written for name in acknowledged)
        fresh = AUTHORITY.replica()
        for entry in entries:
            prepared = fresh.prepare(entry, now_ms=clock.now_ms())
            fresh.commit(prepared)  # type: ignore[arg-type] # a refusal fails here

    with redis_server() as server:
        asyncio.run(work(server.port))
