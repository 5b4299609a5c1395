import asyncio
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pdp.adapters.audit_file import AuditChain
from pdp.adapters.audit_reader import read_segments
from pdp.audit.chain import START, Link, Malformed, Verdict
from pdp.audit.verify import verify
from pdp.errors import PortcullisError, Reason
from pdp.service.audit import AuditBook, AuditReceiver, AuditShipper, AuditTrail, Query


class MemoryChain:
    """A chain in memory that can block or fail."""

    name = "pdp-1"

    def __init__(self) -> None:
        self.head = START
        self.groups: list[list[Mapping[str, Any]]] = []
        self.free = threading.Event()
        self.free.set()
        self.broken = False
        self.degraded = ""

    def append(self, records: Sequence[Mapping[str, Any]]) -> Link:
        self.free.wait()
        if self.broken:
            raise OSError(28, "No space left on device")
        if any("bad" in record for record in records):
            raise Malformed("no")
        self.groups.append(list(records))
        self.head = Link(n=self.head.n + len(records), digest="ab" * 32)
        return self.head

    def close(self) -> None:
        pass


def trail_on(chain: Any, **options: Any) -> AuditTrail:
    return AuditTrail(chain, now_ms=lambda: 1, **options)


def real(directory: Path) -> AuditChain:
    return AuditChain.open(directory, name="pdp", who=dict, now_ms=lambda: 1)


def record(text: str) -> dict[str, Any]:
    return {"v": 1, "kind": "decision", "time_ms": 1, "detail": text}


@pytest.mark.holds("S1")
def test_waiting_answers_share_one_group() -> None:
    async def run() -> None:
        chain = MemoryChain()
        trail = trail_on(chain)
        chain.free.clear()
        waits = [asyncio.ensure_future(trail.record([{"n": n}], durable=True)) for n in range(50)]
        await asyncio.sleep(0)
        chain.free.set()
        await asyncio.gather(*waits)
        assert len(chain.groups) == 2  # the first that came, and all that waited meanwhile
        assert trail.written == 50
        await trail.close()

    asyncio.run(run())


def test_a_group_waits_for_as_many_callers_as_the_last_had_and_a_lone_caller_for_nobody() -> None:
    async def run() -> None:
        chain = MemoryChain()
        trail = trail_on(chain, gather_s=120.0)  # a wait for it would outlast the test

        async def several(count: int) -> None:
            await asyncio.gather(*(trail.record([{"n": n}], durable=True) for n in range(count)))

        for _ in range(3):
            await trail.record([{"alone": 1}], durable=True)
        await several(4)  # the first began while nobody else was there
        assert [len(group) for group in chain.groups] == [1, 1, 1, 1, 3]
        few = asyncio.ensure_future(several(2))
        for _ in range(3):  # the two are made, then they stand in line
            await asyncio.sleep(0)
        assert (len(trail._waiting), trail._busy) == (2, False)
        await trail.record([{"third": 1}], durable=True)
        await few
        assert len(chain.groups[-1]) == 3
        trail._gather_s = 0.001
        await trail.record([{"alone": 1}], durable=True)  # for those who do not come it waits no longer than that
        assert len(chain.groups[-1]) == 1
        await trail.close()

    asyncio.run(run())


@pytest.mark.holds("F29", "S1")
def test_a_deny_never_waits_and_an_allow_waits_a_bounded_time() -> None:
    async def run() -> None:
        chain = MemoryChain()
        trail = trail_on(chain, commit_timeout_s=0.05)
        chain.free.clear()
        await trail.record([{"deny": 1}], durable=False)
        with pytest.raises(PortcullisError) as refused:
            await trail.record([{"allow": 1}], durable=True)
        assert refused.value.reason is Reason.AUDIT_UNAVAILABLE
        chain.free.set()
        await trail.record([{"allow": 2}], durable=True)
        written = [item for group in chain.groups for item in group]
        assert {"allow": 1} not in written  # withdrawn: its answer was a deny
        assert {"deny": 1} in written
        assert written[1]["count"] == 1  # and the chain says that one is missing
        await trail.close()

    asyncio.run(run())


@pytest.mark.holds("F8", "S1")
def test_without_waiting_an_allow_is_in_line_only_and_still_refused_by_a_log_that_fails() -> None:
    """The setting `audit.durable: false` weakens what a crash may take, and not what a full disk may."""

    async def run() -> None:
        chain = MemoryChain()
        trail = trail_on(chain, waits=False, max_waiting=3, commit_timeout_s=0.05)
        chain.free.clear()
        await trail.record([{"allow": 1}], durable=True)
        assert chain.groups == []
        await trail.record([{"allow": n} for n in (2, 3, 4)], durable=True)
        with pytest.raises(PortcullisError, match="too many"):
            await trail.record([{"allow": 5}], durable=True)
        chain.broken = True
        chain.free.set()
        while not trail.last_error:  # noqa: ASYNC110 - the failure of a group that nobody waits for has no event
            await asyncio.sleep(0)
        with pytest.raises(PortcullisError, match="cannot be written"):
            await trail.record([{"allow": 6}], durable=True)
        chain.broken = False
        await trail.close()
        kept = [item["allow"] for group in chain.groups for item in group if "allow" in item]
        assert kept[-3:] == [2, 3, 4]

    asyncio.run(run())


def test_a_failing_sink_refuses_allows_keeps_denies_and_recovers_alone() -> None:
    async def run() -> None:
        chain = MemoryChain()
        trail = trail_on(chain)
        chain.broken = True
        with pytest.raises(PortcullisError, match="cannot be written"):
            await trail.record([{"allow": 1}], durable=True)
        await trail.record([{"deny": 1}], durable=False)
        with pytest.raises(PortcullisError):
            await trail.record([{"allow": 3}], durable=True)
        assert "No space" in trail.last_error
        chain.broken = False
        await trail.record([{"allow": 2}], durable=True)
        assert [item for item in chain.groups[-1] if "kind" not in item] == [{"deny": 1}, {"allow": 2}]
        assert chain.groups[-1][0]["kind"] == "lost"
        assert trail.last_error == ""
        await trail.close()

    asyncio.run(run())


@pytest.mark.holds("F29", "S1", "L6")
def test_what_waits_is_bounded_and_what_is_dropped_is_counted() -> None:
    async def run() -> None:
        chain = MemoryChain()
        trail = trail_on(chain, max_waiting=3, commit_timeout_s=0.05)
        chain.free.clear()
        for n in range(10):
            await trail.record([{"n": n}], durable=False)
        with pytest.raises(PortcullisError, match="too many"):
            await trail.record([{"allow": 1}], durable=True)
        chain.free.set()
        await trail.grown(3)
        assert trail.lost == 7
        await trail.close()
        assert sum(item.get("count", 0) for group in chain.groups for item in group) == 7

    asyncio.run(run())


@pytest.mark.holds("S1", "L6")
@pytest.mark.parametrize("waits", [True, False])
def test_allows_that_outrun_the_disk_wait_for_room_and_are_refused_only_when_as_many_wait_outside(
    *, waits: bool
) -> None:
    async def run() -> None:
        chain = MemoryChain()
        trail = trail_on(chain, waits=waits, max_waiting=4, commit_timeout_s=60)
        chain.free.clear()
        asked = [asyncio.ensure_future(trail.record([{"a": n}, {"b": n}], durable=True)) for n in range(5)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in asked[3:])  # one is being written, two stand in line, two wait for room
        with pytest.raises(PortcullisError, match="too many"):  # and as many again are the bound
            await trail.record([{"a": 5}, {"b": 5}], durable=True)
        chain.free.set()
        await asyncio.gather(*asked)
        await trail.close()
        assert sorted(item["a"] for group in chain.groups for item in group if "a" in item) == list(range(5))
        assert trail.lost == 2

    asyncio.run(run())


def test_who_waits_for_room_is_refused_at_once_when_the_disk_fails() -> None:
    async def run() -> None:
        chain = MemoryChain()
        trail = trail_on(chain, waits=False, max_waiting=1, commit_timeout_s=60)
        chain.free.clear()
        for n in range(2):  # one is being written, one stands in line
            await trail.record([{"n": n}], durable=True)
        late = asyncio.ensure_future(trail.record([{"allow": 1}], durable=True))
        await asyncio.sleep(0)
        chain.broken = True
        chain.free.set()
        with pytest.raises(PortcullisError, match="No space"):
            await late
        chain.broken = False
        await trail.close()

    asyncio.run(run())


class OneByOneChain(MemoryChain):
    """A chain that writes a group only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = threading.Semaphore(0)

    def append(self, records: Sequence[Mapping[str, Any]]) -> Link:
        self.turns.acquire()
        return super().append(records)


def test_what_is_lost_while_a_loss_is_being_told_is_told_too() -> None:
    async def run() -> None:
        chain = OneByOneChain()
        trail = trail_on(chain, max_waiting=1)
        for n in range(3):  # one is being written, one waits, one is lost
            await trail.record([{"n": n}], durable=False)
        chain.turns.release()
        await trail.grown(0)
        for n in range(3):  # while the one that waited is being written with the notice: one waits, two are lost
            await trail.record([{"n": n}], durable=False)
        chain.turns.release(9)
        await trail.close()
        assert sum(item.get("count", 0) for group in chain.groups for item in group) == trail.lost == 3

    asyncio.run(run())


def test_a_record_that_cannot_be_written_fails_alone() -> None:
    async def run() -> None:
        chain = MemoryChain()
        trail = trail_on(chain)
        chain.free.clear()
        first = asyncio.ensure_future(trail.record([{"first": 1}], durable=True))
        await asyncio.sleep(0)
        bad = asyncio.ensure_future(trail.record([{"bad": 1}], durable=True))
        good = asyncio.ensure_future(trail.record([{"good": 1}], durable=True))
        await asyncio.sleep(0)
        chain.free.set()
        await asyncio.gather(first, good)
        with pytest.raises(PortcullisError):
            await bad
        await trail.close()

    asyncio.run(run())


def test_closing_writes_what_waits_and_leaves_no_thread(tmp_path: Path) -> None:
    async def run() -> None:
        trail = trail_on(real(tmp_path))
        for n in range(5):
            await trail.record([record(str(n))], durable=False)
        await trail.close()

    asyncio.run(run())
    (found,) = read_segments(tmp_path).values()
    report = verify(found)
    assert (report.verdict, report.records) == (Verdict.OK, 6)
    assert not [thread for thread in threading.enumerate() if thread.name == "audit"]


class Sink:
    """A PDP across a bad network: fails when told, and forgets nothing."""

    def __init__(self, receiver: AuditReceiver) -> None:
        self.receiver = receiver
        self.failing = 0
        self.calls = 0

    async def append(self, chain: str, records: Sequence[bytes]) -> tuple[bytes, int]:
        self.calls += 1
        if self.failing:
            self.failing -= 1
            if self.failing % 2:  # half of the failures lose the answer, not the records
                await self.receiver.append(owner="w", chain=chain, records=records)
            raise PortcullisError(Reason.PDP_UNREACHABLE, "away")
        head = await self.receiver.append(owner="w", chain=chain, records=records)
        return bytes.fromhex(head.digest), head.n


async def no_pause(_delay_s: float) -> None:
    await asyncio.sleep(0)


def test_a_chain_is_shipped_whole_across_failures_and_restarts(tmp_path: Path) -> None:
    async def run() -> None:
        receiver = AuditReceiver(tmp_path / "received")
        sink = Sink(receiver)
        for life in range(3):
            chain = real(tmp_path / "own")
            trail = trail_on(chain)
            sink.failing = 5
            shipper = AuditShipper(trail=trail, chain=chain, sink=sink, pause=no_pause)
            task = asyncio.ensure_future(shipper.run())
            for n in range(20):
                await trail.record([record(f"{life}.{n}")], durable=True)
            assert await shipper.drained(5)
            task.cancel()
            await trail.close()
        await receiver.close()

    asyncio.run(run())
    (own,) = read_segments(tmp_path / "own").values()
    (received,) = read_segments(tmp_path / "received").values()
    assert [data for _, data in received] == [data for _, data in own]


def test_the_book_reads_all_chains_and_follows_them(tmp_path: Path) -> None:
    async def run() -> None:
        chain, other = real(tmp_path / "own"), real(tmp_path / "other")
        trail, receiver = trail_on(chain), AuditReceiver(tmp_path / "received")
        shipped = trail_on(other)
        shipper = AuditShipper(trail=shipped, chain=other, sink=Sink(receiver), pause=no_pause)
        task = asyncio.ensure_future(shipper.run())
        await trail.record([record("own")], durable=True)
        await shipped.record([record("shipped")], durable=True)
        assert await shipper.drained(5)
        book = AuditBook(own=tmp_path / "own", trail=trail, received=receiver)
        read = [content async for _, content in book.read(Query(), follow=False)]
        assert len(read) == 4
        assert len([row async for row in book.read(Query(last=1))]) == 1
        assert not [row async for row in book.read(Query(since_ms=2))]
        following = book.read(Query(last=1), follow=True)
        await anext(following)
        await trail.record([record("later")], durable=True)
        assert b'"later"' in (await anext(following))[1]
        await shipped.record([record("shipped later")], durable=True)
        assert b'"shipped later"' in (await anext(following))[1]
        await following.aclose()
        task.cancel()
        await trail.close()
        await shipped.close()
        await receiver.close()

    asyncio.run(run())
