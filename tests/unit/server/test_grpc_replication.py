"""Following the log through the whole server: credential, right, world, and the end of each."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pdp.adapters.clock import SystemClock
from pdp.adapters.follow_grpc import GrpcFeedSource
from pdp.errors import PortcullisError, Reason
from pdp.limits import EXPIRY_MARGIN_S
from pdp.replica import Replica
from pdp.service.replicate import Follower, obtain_root
from pdp.signals.locks import LockTarget
from pdp.trust.feed import Hello
from pdp.trust.verifier import TrustVerifier
from pdp.world import World, empty_world
from tests.support.logs import MemoryStore
from tests.support.pdp import EVE, ROWS, RunningPdp, running_pdp

EDGE = "edge@demo.portcullis"
EVERYBODY = ROWS + f"g, user:{EDGE}, role:enforcement-point, prod\n"
HELLO = Hello(seq=0, head=b"", version="0.1", role="sidecar", tenant="main", instance="edge-1")


def source(pdp: RunningPdp, subject: str) -> GrpcFeedSource:
    token = pdp.directory / f"{subject}.token"
    token.write_text(pdp.token(subject))
    return GrpcFeedSource(str(pdp.address), clock=SystemClock(), token=token)


async def until(replica: Replica, condition: Callable[[World], bool]) -> None:
    met = asyncio.Event()
    stop = replica.on_change(lambda world: met.set() if condition(world) else None)
    if not condition(replica.world):
        async with asyncio.timeout(10):
            await met.wait()
    stop()


async def drained(items: AsyncIterator[Any]) -> None:
    async with asyncio.timeout(10):
        async for _ in items:
            pass


@asynccontextmanager
async def following(pdp: RunningPdp) -> AsyncIterator[Replica]:
    feeds = source(pdp, EDGE)
    pinned = pdp.app.basis.root.digest
    root = await obtain_root(state_dir=pdp.directory / "edge", pinned=pinned, source=feeds, hello=HELLO)
    replica = Replica(verifier=TrustVerifier(root, "main"), world=empty_world("main"))
    running = asyncio.create_task(Follower(replica, MemoryStore(), feeds, clock=SystemClock(), hello=HELLO).run())
    try:
        yield replica
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def lock(pdp: RunningPdp, target: str) -> Any:
    return await pdp.app.replication.publisher.publish(
        "lock",
        {
            "id": "l1",
            "target": LockTarget.parse(target).to_json(),
            "reason": "test",
            "source": "user:test",
            "start_ms": 1,
            "end_ms": 0,
        },
        author="user:test",
    )


def test_a_replica_with_the_right_holds_the_same_world_and_answers_for_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_pdp(tmp_path, rows=EVERYBODY) as pdp, following(pdp) as replica:
            await until(replica, lambda world: world.head == pdp.app.replica.world.head)
            assert replica.world.revision == pdp.app.replica.world.revision
            await pdp.app.replication.subscribers.wait_all(replica.world.seq, 10.0)
            seq = await lock(pdp, "user:mallory")
            receipt = await pdp.app.replication.subscribers.wait_all(seq, 10.0)
            assert (receipt.connected, receipt.holding, receipt.missing) == (1, 1, ())
            assert replica.world.seq == seq

    asyncio.run(test())


@pytest.mark.holds("P10")
def test_a_caller_without_the_right_gets_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_pdp(tmp_path, rows=EVERYBODY) as pdp:
            feed = source(pdp, EVE).open(HELLO)
            with pytest.raises(PortcullisError) as refusal:
                await anext(aiter(feed))
            assert refusal.value.reason is Reason.NO_GRANT
            await feed.close()
            assert pdp.app.replication.subscribers.list() == ()

    asyncio.run(test())


def test_a_caller_without_a_credential_gets_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_pdp(tmp_path, rows=EVERYBODY) as pdp:
            feed = GrpcFeedSource(str(pdp.address), clock=SystemClock()).open(HELLO)
            with pytest.raises(PortcullisError) as refusal:
                await anext(aiter(feed))
            assert refusal.value.reason is Reason.CREDENTIAL_MISSING
            await feed.close()

    asyncio.run(test())


@pytest.mark.holds("F25")
def test_a_replica_that_is_locked_loses_its_feed(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_pdp(tmp_path, rows=EVERYBODY) as pdp:
            feed = source(pdp, EDGE).open(HELLO)
            items = aiter(feed)
            await anext(items)
            await lock(pdp, f"user:{EDGE}")
            with pytest.raises(PortcullisError) as refusal:
                await drained(items)
            assert refusal.value.reason in {Reason.NO_GRANT, Reason.LOCKED}
            await feed.close()

    asyncio.run(test())


async def told(feed: AsyncIterator[Any]) -> Reason:
    """Return why a feed ended."""
    with pytest.raises(PortcullisError) as error:
        await drained(feed)
    return error.value.reason


@pytest.mark.holds("F25")
def test_a_fresh_token_keeps_an_open_feed_beyond_the_end_of_the_first(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_pdp(tmp_path, rows=EVERYBODY) as pdp:
            path = tmp_path / "edge.token"
            path.write_text(pdp.token(EDGE, ttl_s=60))
            feed = GrpcFeedSource(str(pdp.address), clock=SystemClock(), token=path).open(HELLO)
            items = aiter(feed)
            await anext(items)
            (leash,) = pdp.app.guard._leashes
            first = leash.caller.identity.expires_at_s
            assert await feed.renew()  # the file holds what was sent
            path.write_text(pdp.token(EDGE, ttl_s=600))
            assert await feed.renew()
            async with asyncio.timeout(10):
                while leash.caller.identity.expires_at_s == first:
                    await anext(items)  # heartbeats go on meanwhile
            assert leash.caller.identity.expires_at_s > first
            assert not leash.ended.done()
            await feed.close()

    asyncio.run(test())


@pytest.mark.holds("F25", "P10")
@pytest.mark.parametrize(
    ("subject", "options", "reason"),
    [
        (EDGE, {"ttl_s": -600}, Reason.TOKEN_EXPIRED),
        (EDGE, {"audience": "elsewhere"}, Reason.AUDIENCE_MISMATCH),
        ("gate@demo.portcullis", {}, Reason.BAD_REQUEST),
    ],
)
def test_a_credential_that_does_not_hold_or_is_anothers_ends_the_feed(
    tmp_path: Path, subject: str, options: dict[str, Any], reason: Reason
) -> None:
    async def test() -> None:
        async with running_pdp(tmp_path, rows=EVERYBODY) as pdp:
            path = tmp_path / "edge.token"
            path.write_text(pdp.token(EDGE))
            feed = GrpcFeedSource(str(pdp.address), clock=SystemClock(), token=path).open(HELLO)
            items = aiter(feed)
            await anext(items)
            path.write_text(pdp.token(subject, **options))
            assert await feed.renew()
            assert await told(items) is reason
            await feed.close()

    asyncio.run(test())


@pytest.mark.holds("F25")
def test_a_feed_ends_with_the_credential_that_nobody_renewed(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_pdp(tmp_path, rows=EVERYBODY) as pdp:
            feed = source(pdp, EDGE).open(HELLO)
            items = aiter(feed)
            await anext(items)
            (leash,) = pdp.app.guard._leashes
            loop = asyncio.get_running_loop()
            left_s = leash.expiry.when() - loop.time()
            assert left_s == pytest.approx(leash.caller.identity.expires_at_s - time.time() + EXPIRY_MARGIN_S, abs=5)
            loop.call_soon(leash.expiry._callback, *leash.expiry._args)  # as when its time has come
            assert await told(items) is Reason.TOKEN_EXPIRED
            await feed.close()

    asyncio.run(test())
