import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pdp.adapters import audit_file
from pdp.adapters.audit_file import AuditChain, segments
from pdp.adapters.audit_reader import ChainReader, read_segments
from pdp.adapters.audit_received import ReceivedChain
from pdp.audit import chain as chains
from pdp.audit.chain import Verdict
from pdp.audit.verify import verify
from pdp.errors import ConfigError, PortcullisError, Reason
from tests.unit.audit.test_record import question
from tests.unit.audit.test_record import record as decision

Opener = Callable[..., AuditChain]


def record(text: str) -> dict[str, Any]:
    return {"v": 1, "kind": "decision", "time_ms": 1, "detail": text}


@pytest.fixture
def opener(tmp_path: Path) -> Iterator[Opener]:
    opened: list[AuditChain] = []

    def open_chain(name: str = "pdp") -> AuditChain:
        for chain in opened:
            chain.close()
        opened.append(
            AuditChain.open(tmp_path, name=name, who=lambda: {"identity": "me", "world_seq": 7}, now_ms=lambda: 1_000)
        )
        return opened[-1]

    yield open_chain
    for chain in opened:
        chain.close()


def texts(directory: Path) -> list[str]:
    (found,) = read_segments(directory).values()
    report = verify(found)
    assert report.verdict is Verdict.OK, report
    records = [chains.unseal(content)[0] for _, data in found for _, content in chains.frames(data)]
    return [item.get("detail", item["kind"]) for item in records]


def test_the_first_record_says_who_writes(opener: Opener, tmp_path: Path) -> None:
    chain = opener()
    chain.append([record("a"), record("b")])
    assert texts(tmp_path) == ["open", "a", "b"]
    first = chains.unseal(next(chains.frames(segments(tmp_path)[0].path.read_bytes()))[1])[0]
    assert (first["identity"], first["world_seq"], first["chain"], first["reason"]) == ("me", 7, "pdp-1000", "start")


def test_a_restart_continues_the_chain(opener: Opener, tmp_path: Path) -> None:
    head = opener().append([record("a")])
    again = opener()
    assert again.name == "pdp-1000"
    assert again.append([record("b")]).n == head.n + 2
    assert texts(tmp_path) == ["open", "a", "open", "b"]


@pytest.mark.holds("F9", "S3")
@pytest.mark.parametrize("torn_bytes", [1, 5, 40, 150])
def test_a_torn_tail_is_cut_and_the_cut_recorded(opener: Opener, tmp_path: Path, torn_bytes: int) -> None:
    opener().append([record("a"), record("b" * 200)])
    path = segments(tmp_path)[0].path
    path.write_bytes(path.read_bytes()[:-torn_bytes])
    opener().append([record("c")])
    assert texts(tmp_path) == ["open", "a", "cut_record", "open", "c"]


@pytest.mark.holds("F9", "S3")
def test_a_file_torn_at_every_byte_opens_again_and_verifies(opener: Opener, tmp_path: Path) -> None:
    opener().append([record("a"), record("b")])
    path = segments(tmp_path)[0].path
    whole = path.read_bytes()
    first = len(chains.frame(next(chains.frames(whole))[1]))
    for size in range(first, len(whole)):
        path.write_bytes(whole[:size])
        opener()
        assert texts(tmp_path)[-1] == "open"


def test_a_changed_record_is_kept_as_evidence(opener: Opener, tmp_path: Path) -> None:
    opener().append([record("a"), record("b"), record("c")])
    path = segments(tmp_path)[0].path
    changed = path.read_bytes().replace(b'"b"', b'"x"')
    path.write_bytes(changed)
    opener().append([record("d")])
    assert path.read_bytes() == changed
    assert len(segments(tmp_path)) == 2
    report = verify(next(iter(read_segments(tmp_path).values())))
    assert report.verdict is Verdict.BROKEN


@pytest.mark.parametrize("damaged", [1, 2])
def test_a_last_segment_that_was_changed_at_its_start_is_not_written_over(
    opener: Opener, tmp_path: Path, damaged: int
) -> None:
    """Who can change one byte must not have us erase the records behind it at the next start."""
    chain = opener()
    chain.segment_bytes = 300
    for text in "abcdef":
        chain.append([record(text)])
    evidence = []
    for segment in segments(tmp_path)[-damaged:]:
        changed = bytearray(segment.path.read_bytes())
        changed[60] ^= 1
        segment.path.write_bytes(bytes(changed))
        evidence.append(bytes(changed))
    again = opener()
    again.append([record("after")])
    kept = [path.read_bytes() for path in sorted(tmp_path.glob("*.damaged"))]
    assert kept == evidence
    assert texts(tmp_path)[-2:] == ["open", "after"]
    reader = ChainReader(tmp_path, again.name)
    assert len(reader.read(after=0, until=again.head.n, limit=99, limit_bytes=10**6)) == again.head.n


def test_a_chain_whose_first_record_is_gone_is_left_alone(opener: Opener, tmp_path: Path) -> None:
    opener().append([record("a")])
    path = segments(tmp_path)[0].path
    path.write_bytes(b"garbage")
    opener()
    assert path.read_bytes() == b"garbage"
    assert {segment.chain for segment in segments(tmp_path)} == {"pdp-1000", "pdp-1001"}


def test_a_full_segment_is_followed_by_the_next(opener: Opener, tmp_path: Path) -> None:
    chain = opener()
    chain.segment_bytes = 1
    chain.append([record("a")])
    chain.append([record("b")])
    assert [segment.first for segment in segments(tmp_path)] == [1, 2, 4]
    assert texts(tmp_path) == ["open", "open", "a", "open", "b"]


@pytest.mark.holds("F10", "S4")
def test_a_failed_fsync_makes_the_file_unknown_and_starts_a_segment(
    opener: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = opener()
    head = chain.append([record("a")])

    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(audit_file.os, "fdatasync", fail)
        with pytest.raises(OSError, match="Input/output"):
            chain.append([record("lost")])
        assert chain.head == head
    chain.append([record("b")])
    assert len(segments(tmp_path)) == 2
    assert texts(tmp_path) == ["open", "a", "lost", "open", "b"]
    reader = ChainReader(tmp_path, chain.name)
    contents = reader.read(after=0, until=chain.head.n, limit=99, limit_bytes=10**6)
    assert [chains.unseal(content)[0].get("detail", "open") for content in contents] == ["open", "a", "open", "b"]


@pytest.mark.holds("F9", "F8")
def test_a_torn_write_is_cut_back_at_once(opener: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = opener()
    chain.append([record("a")])
    write = os.write

    def half(descriptor: int, data: memoryview) -> int:
        if len(data) < 20:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[: len(data) // 2])

    with monkeypatch.context() as full:
        full.setattr(audit_file.os, "write", half)
        with pytest.raises(OSError, match="No space"):
            chain.append([record("b")])
    chain.append([record("c")])
    assert texts(tmp_path) == ["open", "a", "c"]
    assert len(segments(tmp_path)) == 1


def test_two_processes_do_not_write_one_directory(opener: Opener, tmp_path: Path) -> None:
    opener()
    with pytest.raises(ConfigError, match="another process writes"):
        AuditChain.open(tmp_path, name="pdp", who=dict, now_ms=lambda: 1)


@pytest.mark.holds("F11")
def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=str(tmp_path / "file")):
        AuditChain.open(tmp_path / "file", name="pdp", who=dict, now_ms=lambda: 1)


def test_a_reader_goes_on_where_it_stopped(opener: Opener, tmp_path: Path) -> None:
    chain = opener()
    chain.segment_bytes = 600
    for text in "abcdefgh":
        chain.append([record(text)])
    reader, seen, after = ChainReader(tmp_path, chain.name), [], 0
    while batch := reader.read(after=after, until=chain.head.n, limit=3, limit_bytes=10**6):
        seen += [chains.unseal(content)[0] for content in batch]
        after = seen[-1]["n"]
    assert [item["n"] for item in seen] == list(range(1, chain.head.n + 1))
    assert len(ChainReader(tmp_path, chain.name).read(after=2, until=5, limit=99, limit_bytes=10**6)) == 3


def test_a_received_chain_is_stored_unchanged_and_verifies(opener: Opener, tmp_path: Path) -> None:
    chain = opener()
    chain.segment_bytes = 300
    for text in "abc":
        chain.append([record(text)])
    contents = ChainReader(tmp_path, chain.name).read(after=0, until=chain.head.n, limit=99, limit_bytes=10**6)
    store = tmp_path / "received"
    received = ReceivedChain(store, owner="workload:x", chain=chain.name)
    received.append(contents[:2])
    received.close()
    again = ReceivedChain(store, owner="workload:x", chain=chain.name)
    assert again.append(contents) == chain.head  # the first two are sent again and not stored twice
    again.close()
    assert [data for _, data in next(iter(read_segments(store).values()))] == [
        segment.path.read_bytes() for segment in segments(tmp_path)
    ]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"user:bob@x.org", b"user:eve@x.org", Reason.CONFLICT),
        (b'"n":3', b'"n":4', Reason.CONFLICT),
        (b'"kind":"decision"', b'"kind": "decision"', Reason.BAD_REQUEST),
    ],
)
def test_decisions_are_taken_as_they_were_written_and_not_otherwise(
    opener: Opener, tmp_path: Path, old: bytes, new: bytes, reason: Reason
) -> None:
    chain = opener()
    chain.append([decision(question()), decision(question(attributes={"request.purpose": 'a"b'}))])
    contents = ChainReader(tmp_path, chain.name).read(after=0, until=3, limit=99, limit_bytes=10**6)
    received = ReceivedChain(tmp_path / "received", owner="w", chain="c")
    with pytest.raises(PortcullisError) as refused:
        received.append([*contents[:2], contents[2].replace(old, new)])
    assert (refused.value.reason, received.head) == (reason, chains.START)
    with pytest.raises(PortcullisError) as refused:
        received.append([contents[0], contents[2]])
    assert (refused.value.reason, received.head) == (Reason.CONFLICT, chains.START)
    assert received.append(contents) == received.append(contents) == chain.head
    received.close()
    stored = ChainReader(tmp_path / "received", received.name).read(after=0, until=3, limit=99, limit_bytes=10**6)
    assert stored == contents


@pytest.mark.holds("F10")
def test_records_sent_again_after_a_failed_fsync_do_not_stand_twice(
    opener: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = opener()
    chain.append([record("a"), record("b")])
    contents = ChainReader(tmp_path, chain.name).read(after=0, until=3, limit=99, limit_bytes=10**6)
    store = tmp_path / "received"
    received = ReceivedChain(store, owner="w", chain="c")
    received.append(contents[:1])

    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    for _ in range(2):
        with monkeypatch.context() as broken:
            broken.setattr(audit_file.os, "fdatasync", fail)
            with pytest.raises(PortcullisError) as refused:
                received.append(contents[1:])
        assert refused.value.reason is Reason.STORE_UNAVAILABLE
        assert received.head.n == 1
    assert received.append(contents) == chain.head
    received.close()
    assert texts(store) == ["open", "a", "b"]
    assert ReceivedChain(store, owner="w", chain="c").head == chain.head


def test_two_workers_store_one_chain_by_turns(opener: Opener, tmp_path: Path) -> None:
    chain = opener()
    for text in "abcd":
        chain.append([record(text)])
    contents = ChainReader(tmp_path, chain.name).read(after=0, until=chain.head.n, limit=99, limit_bytes=10**6)
    store = tmp_path / "received"
    one, two = (ReceivedChain(store, owner="w", chain="c") for _ in range(2))
    for number, content in enumerate(contents):
        assert (one, two)[number % 2].append([content]).n == number + 1
    assert one.append(contents) == two.append(()) == chain.head
    one.close()
    two.close()
    assert texts(store) == ["open", "a", "b", "c", "d"]


def test_what_a_worker_that_died_at_work_has_written_is_not_written_again(opener: Opener, tmp_path: Path) -> None:
    chain = opener()
    chain.append([record("a")])
    chain.append([record("b")])
    contents = ChainReader(tmp_path, chain.name).read(after=0, until=chain.head.n, limit=99, limit_bytes=10**6)
    store = tmp_path / "received"
    dies, lives = (ReceivedChain(store, owner="w", chain="c") for _ in range(2))
    lives.append(contents[:2])
    dies.append(contents)
    dies.close()
    next(store.glob(".*.last")).write_bytes(b"")  # as it stands while one of them writes
    assert lives.append(contents) == chain.head
    lives.close()
    assert texts(store) == ["open", "a", "b"]


@pytest.mark.parametrize("spoiled", [{"time_ms": None}, {"time_ms": "1"}, {"time_ms": True}, {"kind": 5}])
def test_a_record_that_no_reader_could_place_is_not_taken_from_an_enforcement_point(
    tmp_path: Path, spoiled: dict[str, Any]
) -> None:
    """One such record would end every reading of all chains, and so hide what the others hold."""
    content, _ = chains.seal({"v": 1, "kind": "open", "time_ms": 1, "reason": "start"} | spoiled, chains.START)
    received = ReceivedChain(tmp_path / "received", owner="w", chain="c")
    with pytest.raises(PortcullisError) as refused:
        received.append([content])
    assert refused.value.reason is Reason.BAD_REQUEST
    assert received.head == chains.START


def test_records_that_do_not_continue_a_received_chain_are_refused(opener: Opener, tmp_path: Path) -> None:
    chain = opener()
    chain.append([record("a"), record("b")])
    contents = ChainReader(tmp_path, chain.name).read(after=0, until=3, limit=99, limit_bytes=10**6)
    received = ReceivedChain(tmp_path / "received", owner="w", chain="c")
    with pytest.raises(PortcullisError) as refused:
        received.append(contents[1:])
    assert refused.value.reason is Reason.CONFLICT
    with pytest.raises(PortcullisError) as refused:
        received.append([b"{}"])
    assert refused.value.reason is Reason.BAD_REQUEST
    assert received.append(contents[:1]).n == 1
    received.close()
