import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from scripted_pdp import ScriptedPdp, decision, refusal

from pdp.errors import Reason
from pdp.sdk import AccessDenied, AccessEnded, AsyncClient, Client, ClientUnusable, PdpUnavailable
from pdp.v1 import decision_pb2, types_pb2

WATCH = "DecisionService/Watch"
READ = ("dataset.read", "dataset/finance/transactions")


def told(**fields: Any) -> decision_pb2.WatchResponse:
    ended = bool(fields.pop("ended", False))
    return decision_pb2.WatchResponse(decision=decision(**fields), ended=ended)


LOCKED = told(effect=0, reason="locked", world_seq=9, ended=True)


class Gate:
    """Lets the script go on when the test says so."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, _: Any, __: Any) -> None:
        assert self.open.wait(10)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open.set()


def ended_of(lease: Any) -> AccessEnded:
    """Wait for the end of a lease as a loop would meet it."""
    with pytest.raises(AccessEnded) as raised:
        for _ in lease.iterate(iter(lambda: threading.Event().wait(0.005), "never")):
            pass
    return raised.value


def test_a_lease_holds_until_access_ends(pdp: ScriptedPdp, client: Client, gate: Gate) -> None:
    pdp.script(WATCH, [told(), gate, LOCKED])
    with client.lease(*READ) as lease:
        lease.check()
        assert lease.decision.allowed
        gate.open.set()
        ended = ended_of(lease)
        assert (ended.reason, ended.resource) == (Reason.LOCKED, READ[1])
        assert isinstance(ended, PermissionError)
        with pytest.raises(AccessEnded):
            lease.check()


def test_a_denied_lease_is_not_entered(pdp: ScriptedPdp, client: Client) -> None:
    pdp.script(WATCH, [told(effect=0, reason="no_grant"), pdp.hang])
    with pytest.raises(AccessDenied, match="no_grant"), client.lease(*READ):
        pytest.fail("entered")


def test_a_lease_nobody_can_decide_is_not_entered(pdp: ScriptedPdp, client: Client) -> None:
    pdp.script(WATCH, refusal(grpc.StatusCode.UNAVAILABLE))
    with pytest.raises(PdpUnavailable), client.lease(*READ):
        pytest.fail("entered")


def test_f1_a_pdp_that_goes_away_ends_the_lease(pdp: ScriptedPdp, client: Client, gate: Gate) -> None:
    pdp.script(WATCH, [told(), gate, refusal(grpc.StatusCode.UNAVAILABLE)], refusal(grpc.StatusCode.UNAVAILABLE))
    with client.lease(*READ) as lease:
        gate.open.set()
        ended = ended_of(lease)
    assert ended.reason is Reason.PDP_UNREACHABLE
    assert ended.decision is None
    assert isinstance(ended.__cause__, PdpUnavailable)


def test_obligations_that_change_end_the_lease(pdp: ScriptedPdp, client: Client, gate: Gate) -> None:
    masked = told(obligations=[types_pb2.Obligation(name="max_rows", value="10")], world_seq=8)
    pdp.script(WATCH, [told(), gate, masked, pdp.hang])
    with client.lease(*READ, supports=None) as lease:
        gate.open.set()
        assert "max_rows=10" in str(ended_of(lease))


def test_leaving_the_block_ends_the_watch_and_the_lease(pdp: ScriptedPdp, client: Client) -> None:
    pdp.script(WATCH, [told(), pdp.hang])
    with client.lease(*READ) as lease:
        pass
    assert pdp.stream_ended.wait(10)
    with pytest.raises(AccessEnded, match="block was left"):
        lease.check()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lease")]


def test_a_lease_not_entered_grants_nothing(pdp: ScriptedPdp, client: Client) -> None:
    pdp.script(WATCH, [told(), pdp.hang])
    with pytest.raises(AccessEnded, match="not entered"):
        client.lease(*READ).check()


def test_a_lease_of_a_closed_client_is_unusable(pdp: ScriptedPdp) -> None:
    pdp.script(WATCH, [told(), pdp.hang])
    client = Client(pdp.address, token="a.b.c")
    with client.lease(*READ) as lease:
        client.close()
        with pytest.raises(ClientUnusable):
            lease.check()


def test_iterating_a_file_stops_between_two_lines(pdp: ScriptedPdp, client: Client, gate: Gate, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("a\nb\nc\n")
    pdp.script(WATCH, [told(), gate, LOCKED])
    with client.lease(*READ) as lease, file.open() as lines:
        seen = lease.iterate(lines)
        assert next(seen) == "a\n"
        gate.open.set()
        ended_of(lease)
        with pytest.raises(AccessEnded):
            next(seen)


def test_iterating_goes_to_the_end_while_access_lasts(pdp: ScriptedPdp, client: Client) -> None:
    class Scanner:
        def to_batches(self) -> Iterator[int]:
            yield from (1, 2)

    pdp.script(WATCH, [told(), pdp.hang])
    with client.lease(*READ) as lease:
        assert list(lease.iterate(range(3))) == [0, 1, 2]
        assert list(lease.iterate(Scanner())) == [1, 2]


def test_an_item_read_before_the_end_and_not_handed_out_is_not_seen(
    pdp: ScriptedPdp, client: Client, gate: Gate
) -> None:
    pdp.script(WATCH, [told(), gate, LOCKED])
    with client.lease(*READ) as lease:

        def slow() -> Iterator[str]:
            gate.open.set()
            ended_of(lease)
            yield "read too late"

        with pytest.raises(AccessEnded):
            next(lease.iterate(slow()))


# asyncio.


def test_async_code_is_cancelled_and_the_block_says_why(pdp: ScriptedPdp, gate: Gate) -> None:
    pdp.script(WATCH, [told(), gate, LOCKED])

    async def until_cut(client: AsyncClient) -> None:
        async with client.lease(*READ) as lease:
            lease.check()
            gate.open.set()
            await asyncio.Event().wait()

    async def work() -> str:
        async with AsyncClient(pdp.address, token="a.b.c") as client:
            with pytest.raises(AccessEnded) as raised:
                await until_cut(client)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            await asyncio.sleep(0)  # the cancellation is used up
            return raised.value.reason.value

    assert asyncio.run(work()) == "locked"


def test_an_end_that_no_await_noticed_is_raised_by_the_block(pdp: ScriptedPdp, gate: Gate) -> None:
    pdp.script(WATCH, [told(), gate, LOCKED])

    async def deaf(client: AsyncClient) -> None:
        async with client.lease(*READ) as lease:
            gate.open.set()
            following = lease._following
            assert following is not None
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({following})

    async def work() -> None:
        async with AsyncClient(pdp.address, token="a.b.c") as client:
            with pytest.raises(AccessEnded):
                await deaf(client)
            await asyncio.sleep(0)

    asyncio.run(work())


def test_a_task_cancelled_from_outside_stays_cancelled(pdp: ScriptedPdp) -> None:
    pdp.script(WATCH, [told(), pdp.hang])

    async def work(entered: asyncio.Event) -> None:
        async with AsyncClient(pdp.address, token="a.b.c") as client, client.lease(*READ):
            entered.set()
            await asyncio.Event().wait()

    async def main() -> None:
        entered = asyncio.Event()
        task = asyncio.create_task(work(entered))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert pdp.stream_ended.wait(10)


def test_async_denied_and_iterated(pdp: ScriptedPdp) -> None:
    pdp.script(WATCH, [told(effect=0, reason="no_grant"), pdp.hang], [told(), pdp.hang])

    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def work() -> None:
        async with AsyncClient(pdp.address, token="a.b.c") as client:
            with pytest.raises(AccessDenied):
                async with client.lease(*READ):
                    pytest.fail("entered")
            async with client.lease(*READ) as lease:
                assert [item async for item in lease.iterate(numbers())] == [1, 2]
                assert [item async for item in lease.iterate(range(2))] == [0, 1]
                assert lease.decision.allowed

    asyncio.run(work())
