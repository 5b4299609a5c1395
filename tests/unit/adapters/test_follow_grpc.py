"""Both ends of `ReplicationService` over real gRPC on loopback: the servicer and the source that follows it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from pdp.adapters.follow_grpc import GrpcFeedSource, item_messages, read_item
from pdp.errors import ConfigError, PortcullisError, Reason
from pdp.limits import MAX_RPC_BYTES, MAX_SNAPSHOT_BYTES, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_MIN_BYTES_S
from pdp.model.names import Principal
from pdp.model.request import Party
from pdp.server.grpc.replication import ReplicationServicer
from pdp.service.replicate import Follower, Replication
from pdp.trust.entry import Signature, SignedEntry, SignedSnapshot
from pdp.trust.feed import Hello, Resync, RootFiles, Seal
from pdp.v1 import replication_pb2, types_pb2
from pdp.v1.replication_pb2_grpc import (
    ReplicationServiceServicer,
    ReplicationServiceStub,
    add_ReplicationServiceServicer_to_server,
)
from pdp.world import World
from tests.support.logs import TENANT, Authority, HandClock, MemoryLog, MemoryStore, lock_payload, take

AUTHORITY = Authority()
HELLO = Hello(seq=0, head=b"", version="0.1", role="sidecar", tenant=TENANT, instance="i-1")
HOST = "127.0.0.1"


@dataclass
class Caller:
    party: Party


async def anyone(context: Any, _action: str, _resource: str) -> Caller:
    """Let everybody in, named by their certificate if they have one."""
    name = context.auth_context().get("x509_subject_alternative_name", [b"sidecar-1"])[0].decode()
    return Caller(party=Party(principal=Principal.parse(f"workload:{name}")))


class Pdp:
    """A PDP's log and its door."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.log = MemoryLog()
        self.replica = AUTHORITY.replica()
        self.replication = Replication(
            log=self.log, replica=self.replica, keys=AUTHORITY.keys, clock=self.clock, store=MemoryStore()
        )
        self.port = 0

    async def lock(self, number: int, **changes: Any) -> int:
        return await self.replication.publisher.publish("lock", lock_payload(number, **changes), author="user:ada")


Servicer = Callable[[Pdp], ReplicationServiceServicer]


def _servicer(pdp: Pdp) -> ReplicationServiceServicer:
    return ReplicationServicer(subscribers=pdp.replication.subscribers, replica=pdp.replica, authorise=anyone)


@asynccontextmanager
async def serving(
    *, credentials: grpc.ServerCredentials | None = None, servicer: Servicer = _servicer
) -> AsyncIterator[Pdp]:
    pdp = Pdp()
    server = grpc.aio.server()
    add_ReplicationServiceServicer_to_server(servicer(pdp), server)  # type: ignore[no-untyped-call]
    if credentials is None:
        pdp.port = server.add_insecure_port(f"{HOST}:0")
    else:
        pdp.port = server.add_secure_port(f"{HOST}:0", credentials)
    await server.start()
    await pdp.replication.heartbeats.beat()
    try:
        yield pdp
    finally:
        await server.stop(0)


@asynccontextmanager
async def beating(pdp: Pdp) -> AsyncIterator[None]:
    """Beat as a PDP does: whoever has heard nothing for three seconds counts as gone, on a slow machine too."""
    running = asyncio.create_task(pdp.replication.heartbeats.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def source(pdp: Pdp, **more: Any) -> GrpcFeedSource:
    return GrpcFeedSource(f"{HOST}:{pdp.port}", clock=pdp.clock, **more)


@asynccontextmanager
async def following(pdp: Pdp, **more: Any) -> AsyncIterator[Follower]:
    replica, store = AUTHORITY.replica(), MemoryStore()
    follower = Follower(replica, store, source(pdp, **more), clock=pdp.clock, hello=HELLO)
    follower.replica = replica  # type: ignore[attr-defined]
    running = asyncio.create_task(follower.run())
    try:
        yield follower
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(replica: Any, condition: Callable[[World], bool]) -> None:
    met = asyncio.Event()
    stop = replica.on_change(lambda world: met.set() if condition(world) else None)
    if not condition(replica.world):
        await met.wait()
    stop()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(bounded())


def test_a_replica_follows_acknowledges_and_shows_in_the_list() -> None:
    async def test() -> None:
        async with serving() as pdp, beating(pdp):
            await pdp.lock(1)
            async with following(pdp) as follower:
                await until(follower.replica, lambda world: world.seq == 1)  # type: ignore[attr-defined]
                await pdp.replication.subscribers.wait_all(1, 10.0)
                seq = await pdp.lock(2)
                receipt = await pdp.replication.subscribers.wait_all(seq, 10.0)
                assert (receipt.connected, receipt.holding) == (1, 1)
                async with grpc.aio.insecure_channel(f"{HOST}:{pdp.port}") as channel:
                    stub = ReplicationServiceStub(channel)  # type: ignore[no-untyped-call]
                    listed = await stub.ListReplicas(replication_pb2.ListReplicasRequest())
                assert listed.head_seq == 2
                (status,) = listed.replicas
                assert (status.identity, status.role, status.seq, status.connected) == (
                    "workload:sidecar-1", "sidecar", 2, True,
                )  # fmt: skip

    run(test)


def test_a_replica_that_leaves_says_goodbye() -> None:
    async def test() -> None:
        async with serving() as pdp:
            async with following(pdp) as follower:
                await pdp.lock(1)
                await until(follower.replica, lambda world: world.seq == 1)  # type: ignore[attr-defined]
            await pdp.replication.subscribers.wait_all(99, 10.0)
            assert pdp.replication.subscribers.list() == ()

    run(test)


def test_a_snapshot_travels_in_chunks() -> None:
    async def test() -> None:
        async with serving() as pdp:
            for number in range(1, 400):
                await pdp.lock(number, reason="x" * 4_000)
            await pdp.replication.compactor.snapshot()
            await pdp.replication.heartbeats.beat()
            async with following(pdp) as follower:
                await until(follower.replica, lambda world: world.seq == 399)  # type: ignore[attr-defined]
                assert follower.replica.counters["committed"] == 1  # type: ignore[attr-defined]
        assert len(list(item_messages(pdp.log.kept))) > 1  # type: ignore[arg-type]

    run(test)


def test_every_item_survives_the_wire() -> None:
    replica = take(AUTHORITY.replica(), AUTHORITY.chain(2))
    for item in (
        AUTHORITY.entry(),
        AUTHORITY.heartbeat(replica.head),
        RootFiles(files=(b"a", b"b")),
        Resync(reason="slow"),
    ):
        (message,) = item_messages(item)
        assert read_item(message) == item
    assert read_item(replication_pb2.SubscribeResponse()) is None


def test_mutual_tls_and_a_credential_read_anew_for_each_connection(tmp_path: Path) -> None:
    ca = trustme.CA()
    mine = ca.issue_cert("first.example")
    server_cert = ca.issue_cert(HOST)
    credentials = grpc.ssl_server_credentials(
        [(server_cert.private_key_pem.bytes(), b"".join(pem.bytes() for pem in server_cert.cert_chain_pems))],
        root_certificates=ca.cert_pem.bytes(),
        require_client_auth=True,
    )
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key")}
    files["ca"].write_bytes(ca.cert_pem.bytes())

    def install(leaf: trustme.LeafCert) -> None:
        files["cert"].write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        files["key"].write_bytes(leaf.private_key_pem.bytes())

    async def test() -> None:
        seen: list[str] = []

        async def authorise(context: Any, action: str, resource: str) -> Caller:
            caller = await anyone(context, action, resource)
            seen.append(str(caller.party.principal))
            return caller

        def servicer(pdp: Pdp) -> ReplicationServiceServicer:
            return ReplicationServicer(
                subscribers=pdp.replication.subscribers, replica=pdp.replica, authorise=authorise
            )

        async with serving(credentials=credentials, servicer=servicer) as pdp:
            feeds = source(pdp, **files)
            for leaf in (mine, ca.issue_cert("second.example")):
                install(leaf)
                feed = feeds.open(HELLO)
                assert isinstance(await anext(aiter(feed)), RootFiles)
                await feed.close()
        assert seen == ["workload:first.example", "workload:second.example"]

    run(test)


def test_a_pdp_that_refuses_says_why() -> None:
    class Refusing(ReplicationServiceServicer):
        async def Subscribe(self, request_iterator: Any, context: Any) -> None:  # noqa: ARG002, N802
            detail = types_pb2.ErrorDetail(reason="no_grant", message="not you", advice="ask for replica.subscribe")
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                "not you",
                trailing_metadata=(("pdp-error-bin", detail.SerializeToString()),),
            )

    async def test() -> None:
        async with serving(servicer=lambda _pdp: Refusing()) as pdp:
            with pytest.raises(PortcullisError) as refusal:
                await anext(aiter(source(pdp).open(HELLO)))
            assert refusal.value.reason is Reason.NO_GRANT
            assert refusal.value.advice == "ask for replica.subscribe"

    run(test)


def test_nobody_there_is_unreachable() -> None:
    async def test() -> None:
        feed = GrpcFeedSource("127.0.0.1:1", clock=HandClock()).open(HELLO)
        with pytest.raises(PortcullisError) as refusal:
            await anext(aiter(feed))
        assert refusal.value.reason is Reason.PDP_UNREACHABLE
        await feed.close()

    run(test)


class Silent(ReplicationServiceServicer):
    """Accepts, and says nothing: what a half-open connection looks like."""

    async def Subscribe(self, request_iterator: Any, context: Any) -> None:  # noqa: ARG002, N802
        await asyncio.Event().wait()


@pytest.mark.holds("F6")
def test_silence_is_found_out_by_missing_heartbeats() -> None:
    async def test() -> None:
        async with serving(servicer=lambda _pdp: Silent()) as pdp:
            feed = source(pdp, idle_s=0.05).open(HELLO)
            with pytest.raises(PortcullisError, match="silent") as refusal:
                await anext(aiter(feed))
            assert refusal.value.reason is Reason.PDP_UNREACHABLE
            await feed.close()

    run(test)


class Chunks(ReplicationServiceServicer):
    """Sends chunks of a snapshot that never ends."""

    def __init__(self, pdp: Pdp, size_bytes: int, took_s: float) -> None:
        self._pdp = pdp
        self._size_bytes = size_bytes
        self._took_s = took_s

    async def Subscribe(self, request_iterator: Any, context: Any) -> None:  # noqa: ARG002, N802
        while True:
            chunk = replication_pb2.Chunk(data=b"x" * self._size_bytes)
            self._pdp.clock.advance(self._took_s)
            await context.write(replication_pb2.SubscribeResponse(snapshot=chunk))


@pytest.mark.holds("V1", "F21")
@pytest.mark.parametrize(
    ("size_bytes", "took_s", "why"), [(SNAPSHOT_MIN_BYTES_S // 8, 1.0, "rate"), (1, 100.0, "rate")]
)
def test_slow_retrieval(size_bytes: int, took_s: float, why: str) -> None:
    async def test() -> None:
        async with serving(servicer=lambda pdp: Chunks(pdp, size_bytes, took_s)) as pdp:
            feed = source(pdp).open(HELLO)
            with pytest.raises(PortcullisError, match=why):
                await anext(aiter(feed))
            await feed.close()

    run(test)


@pytest.mark.holds("V1", "L4", "adv_endless_data")
def test_endless_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_SNAPSHOT_BYTES > 0
    monkeypatch.setattr("pdp.adapters.follow_grpc.MAX_SNAPSHOT_BYTES", 3 * SNAPSHOT_CHUNK_BYTES)

    async def test() -> None:
        async with serving(servicer=lambda pdp: Chunks(pdp, SNAPSHOT_CHUNK_BYTES, 0.0)) as pdp:
            feed = source(pdp).open(HELLO)
            with pytest.raises(PortcullisError, match="cap"):
                await anext(aiter(feed))
            await feed.close()

    run(test)


def test_a_subscription_that_does_not_begin_with_hello_is_refused() -> None:
    async def test() -> None:
        async with serving() as pdp, grpc.aio.insecure_channel(f"{HOST}:{pdp.port}") as channel:
            call = ReplicationServiceStub(channel).Subscribe()  # type: ignore[no-untyped-call]
            await call.write(replication_pb2.SubscribeRequest(ack=replication_pb2.Ack(seq=1)))
            with pytest.raises(grpc.aio.AioRpcError):
                await call.read()
            assert pdp.replication.subscribers.list() == ()

    run(test)


def test_a_snapshot_of_nothing_is_one_chunk() -> None:
    (message,) = item_messages(SignedSnapshot(header=b"h", state=b"", signatures=()))
    assert message.snapshot.last


def test_half_a_client_certificate_is_refused(tmp_path: Path) -> None:
    for files in ({"cert": tmp_path}, {"key": tmp_path}, {"cert": tmp_path, "key": tmp_path}):
        with pytest.raises(ConfigError):
            GrpcFeedSource("x:1", clock=HandClock(), **files)


def test_a_credential_that_cannot_be_read_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(PortcullisError) as refusal:
        GrpcFeedSource("x:1", clock=HandClock(), token=tmp_path / "none").open(HELLO)
    assert refusal.value.reason is Reason.CREDENTIAL_MISSING


def test_a_large_entry_comes_in_chunks_to_whoever_takes_them() -> None:
    payload = b"x" * (2 * SNAPSHOT_CHUNK_BYTES + 1)
    entry = SignedEntry(header=b"h", payload=payload, signatures=(Signature(key_id="k", signature=b"s"),))
    messages = list(item_messages(entry))
    assert [message.WhichOneof("message") for message in messages] == ["entry_chunk"] * 3
    assert [message.entry_chunk.last for message in messages] == [False, False, True]
    assert max(message.ByteSize() for message in messages) < MAX_RPC_BYTES / 2
    (whole,) = item_messages(entry, chunked=False)
    assert read_item(whole) == entry
    assert list(item_messages(Seal(header=b"h", signatures=()), chunked=False)) == []


def test_an_entry_in_chunks_is_the_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdp.adapters.follow_grpc.SNAPSHOT_CHUNK_BYTES", 64)

    async def test() -> None:
        async with serving() as pdp, following(pdp) as follower:
            await pdp.lock(1, reason="r" * 100)
            assert len(list(item_messages(pdp.log.entries[0]))) > 2
            await until(follower.replica, lambda world: world.seq == 1)  # type: ignore[attr-defined]
            assert follower.replica.world.head == pdp.replica.world.head  # type: ignore[attr-defined]

    run(test)


class Pieces(ReplicationServiceServicer):
    """A PDP that sends the first messages of `chunks`, and then nothing or the same for ever."""

    def __init__(self, chunks: list[replication_pb2.Chunk], *, endless: bool = False) -> None:
        self.chunks = chunks
        self.endless = endless

    async def Subscribe(self, _requests: Any, _context: Any) -> AsyncIterator[replication_pb2.SubscribeResponse]:  # noqa: N802
        for chunk in self.chunks:
            yield replication_pb2.SubscribeResponse(entry_chunk=chunk)
        while self.endless:
            yield replication_pb2.SubscribeResponse(entry_chunk=self.chunks[-1])


PIECE = replication_pb2.Chunk(header=b"h", data=b"x" * SNAPSHOT_CHUNK_BYTES)


@pytest.mark.holds("V1", "adv_endless_data")
@pytest.mark.parametrize(
    ("servicer", "told"),
    [
        (Pieces([PIECE], endless=True), "an entry beyond its cap"),
        (Pieces([PIECE, PIECE]), "an entry broke off"),
    ],
)
def test_an_entry_without_end_and_one_that_breaks_off_are_given_up(servicer: Pieces, told: str) -> None:
    async def test() -> None:
        async with serving(servicer=lambda _pdp: servicer) as pdp:
            feed = source(pdp).open(HELLO)
            with pytest.raises(PortcullisError, match=told):
                await anext(aiter(feed))
            await feed.close()

    run(test)


@pytest.mark.holds("F26", "L8")
def test_a_follower_that_reads_nothing_is_evicted_over_the_network_and_catches_up_anew() -> None:
    async def test() -> None:
        async with serving() as pdp:
            subscribers = pdp.replication.subscribers
            subscribers._queue_entries = 4
            feed = source(pdp).open(HELLO)
            items = aiter(feed)
            assert isinstance(await anext(items), RootFiles)
            (stuck,) = subscribers._known.values()
            number = 0
            while not stuck.evicted:  # first the network's own buffers fill
                number += 1
                await pdp.lock(number, reason="r" * 4_000)
                await asyncio.sleep(0)
            assert stuck.queue.qsize() <= 1
            await pdp.replication.heartbeats.beat()
            assert [item async for item in items][-1] == Resync(reason="too slow: subscribe again")
            await feed.close()
            async with following(pdp) as follower:
                await until(follower.replica, lambda world: world.seq == number)  # type: ignore[attr-defined]

    run(test)
