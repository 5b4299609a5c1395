import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pdp.adapters.audit_file import AuditChain, segments
from pdp.adapters.audit_index import FILE_NAME, AuditIndex
from pdp.audit.query import Wanted
from pdp.audit.record import stream_record
from pdp.errors import BadRequestError, PortcullisError, Reason
from pdp.limits import MAX_AUDIT_PAGE
from pdp.service import audit_search
from pdp.service.audit_search import AuditPage, AuditSearch
from tests.support.chains import START_MS, decision

SECRET = b"s" * 32


def noted(n: int, event: str, time_ms: int) -> dict[str, Any]:
    return stream_record(
        decision_id=f"d{n}", event=event, world_seq=2, time_ms=START_MS + time_ms, fields={"messages": 3}
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a log of twenty decisions, four in each millisecond, of which one opened a stream that was cut."""
    chain = open_chain(tmp_path)
    chain.append([decision(n) | {"time_ms": START_MS + n // 4} for n in range(20)])
    chain.append([noted(7, "cut", 9)])
    chain.close()
    return tmp_path


def open_chain(directory: Path, name: str = "pdp") -> AuditChain:
    return AuditChain.open(directory, name=name, who=dict, now_ms=lambda: START_MS, reserve_bytes=0)


def page(log: Path, cursor: str = "", *, size: int = 3, secret: bytes = SECRET, **options: Any) -> AuditPage:
    wanted = options.pop("wanted", Wanted())

    async def ask() -> AuditPage:
        search = AuditSearch(log, secret=secret)
        return await search.page(wanted, size=size, cursor=cursor, **{"events": False} | options)

    return asyncio.run(ask())


def pages(log: Path, **options: Any) -> Iterator[AuditPage]:
    cursor = ""
    while True:
        one = page(log, cursor, **options)
        yield one
        cursor = one.next_cursor
        if not cursor:
            return


def ids(one: AuditPage) -> list[str]:
    return [(hit.record or {})["decision_id"] for hit in one.hits]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 19, 20, 21])
def test_the_pages_are_the_whole_newest_first_each_decision_once(log: Path, size: int) -> None:
    told = [name for one in pages(log, size=size) for name in ids(one)]
    assert told == [f"d{n}" for n in reversed(range(20))]


def test_pages_go_on_where_they_were_though_new_decisions_come_and_the_index_is_made_anew(log: Path) -> None:
    first = page(log)
    chain = open_chain(log)
    chain.append([decision(n) | {"time_ms": START_MS + 100} for n in range(20, 30)])
    chain.close()
    (log / FILE_NAME).unlink()
    assert ids(page(log, first.next_cursor)) == ["d16", "d15", "d14"]


def test_a_page_is_no_longer_than_a_message(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_search, "MAX_AUDIT_PAGE_BYTES", 1_500)
    found = list(pages(log, size=20))
    assert max(len(one.hits) for one in found) == 2
    assert [name for one in found for name in ids(one)] == [f"d{n}" for n in reversed(range(20))]


@pytest.mark.holds("S11", "adv_cursor")
def test_a_cursor_is_good_for_its_own_question_and_made_by_us(log: Path) -> None:
    cursor = page(log).next_cursor
    for other in ({"wanted": Wanted(subject="user:*")}, {"events": True}, {"secret": b"t" * 32}):
        with pytest.raises(BadRequestError):
            page(log, cursor, **other)
    for forged in ("x", cursor[:-4], cursor + "AAAA", "A" + cursor[1:]):
        with pytest.raises(BadRequestError):
            page(log, forged)


def test_what_became_of_a_stream_is_told_when_it_is_asked_for(log: Path) -> None:
    (event,) = page(log, size=20, events=True).events
    assert event.record is not None
    assert (event.record["event"], event.record["decision_id"], event.record["messages"]) == ("cut", "d7", 3)
    assert page(log, size=20).events == ()


def test_another_process_has_no_say_about_a_stream(log: Path) -> None:
    """Attack: an enforcement point ships a `cut` of a decision that is not its own."""
    chain = open_chain(log / "received", "gate")
    chain.append([noted(7, "ended", 1), noted(3, "cut", 1)])
    chain.close()
    assert [(hit.record or {})["event"] for hit in page(log, size=20, events=True).events] == ["cut"]


def test_a_record_that_was_changed_is_named_and_not_shown(log: Path) -> None:
    page(log)
    (segment,) = segments(log)
    segment.path.write_bytes(segment.path.read_bytes().replace(b'"detail":"no 19"', b'"detail":"no 91"'))
    newest = page(log).hits[0]
    assert (newest.n, newest.record) == (21, None)
    assert [json.dumps(hit.record) for one in pages(log) for hit in one.hits].count("null") == 1


def test_too_large_a_page_and_a_number_beyond_all_are_refused(log: Path) -> None:
    for options in (
        {"size": MAX_AUDIT_PAGE + 1},
        {"wanted": Wanted(world_seq=2**63)},
        {"wanted": Wanted(until_ms=2**62)},
    ):
        with pytest.raises(BadRequestError):
            page(log, **options)


def test_a_log_that_is_not_there_is_no_empty_answer(tmp_path: Path) -> None:
    with pytest.raises(PortcullisError) as error:
        page(tmp_path)
    assert error.value.reason is Reason.STORE_UNAVAILABLE


def test_who_asks_and_hangs_up_again_and_again_holds_one_thread_and_no_more(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first question after a long time takes long; whoever asks again meanwhile must not take the threads of new worlds."""
    reading, entered, opened = threading.Event(), asyncio.Event(), AuditIndex.open
    readers: list[Path] = []

    async def ask() -> None:
        loop, search = asyncio.get_running_loop(), AuditSearch(log, secret=SECRET)

        def slow(directory: Path) -> Any:
            readers.append(directory)
            loop.call_soon_threadsafe(entered.set)
            reading.wait()
            return opened(directory)

        monkeypatch.setattr(audit_search.AuditIndex, "open", slow)
        try:
            for turn in range(5):
                asking = asyncio.create_task(search.page(Wanted(), size=3, cursor="", events=False))
                if turn == 0:
                    await entered.wait()
                for _ in range(10):
                    await asyncio.sleep(0)
                asking.cancel()
                await asyncio.wait([asking])
            await asyncio.to_thread(int)  # whatever was handed to a thread before has begun by now
            assert len(readers) == 1
        finally:
            reading.set()
        assert (await search.page(Wanted(), size=3, cursor="", events=False)).hits

    asyncio.run(ask())
