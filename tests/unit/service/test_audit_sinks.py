import asyncio
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdp.adapters.audit_cursors import Cursors
from pdp.adapters.audit_file import segments
from pdp.adapters.audit_prune import Pruning, prune
from pdp.adapters.audit_sinks import LineSink, OtlpSink, file_sink
from pdp.audit.otlp import logs_request, rejected
from pdp.config import Sink
from pdp.errors import ConfigError, PortcullisError, Reason
from pdp.server.sinks import shape
from pdp.service.audit_sinks import SinkFollower, Source
from tests.support.chains import START_MS, decision, signer, written
from tests.support.waiting import until
from tests.support.web import Server, serving

Batch = Sequence[tuple[str, Mapping[str, Any]]]
PLAIN = shape(Sink(name="s", to="stdout"))


class Taking:
    """A sink that takes what it is brought, but for the calls that fail."""

    rejected = 0

    def __init__(self, *, failing: int = 0) -> None:
        self.taken: list[int] = []
        self.failing = failing

    async def deliver(self, batch: Batch) -> None:
        if self.failing:
            self.failing -= 1
            raise PortcullisError(Reason.STORE_UNAVAILABLE, "gone")
        self.taken += [record["n"] for _, record in batch]


def follower(directory: Path, sink: Any, durable: int = 10**9, **options: Any) -> SinkFollower:
    return SinkFollower(
        name="s",
        sink=sink,
        sources=[Source(directory=directory, until=lambda _chain: durable)],
        cursor=Cursors(directory, "s"),
        **{"shape": PLAIN} | options,
    )


async def exhausted(made: SinkFollower) -> None:
    while await made.round():
        pass


def test_every_record_of_every_chain_is_brought_once(tmp_path: Path) -> None:
    written(tmp_path, signer())
    written(tmp_path, None, name="sdk", segments=1)
    sink = Taking()
    made = follower(tmp_path, sink)
    asyncio.run(exhausted(made))
    assert sink.taken == [*range(1, 28), *range(1, 7)]
    assert (made.delivered, made.failures) == (33, 0)


def test_only_what_is_durable_is_brought(tmp_path: Path) -> None:
    written(tmp_path, signer())
    sink = Taking()
    asyncio.run(exhausted(follower(tmp_path, sink, durable=11)))
    assert sink.taken == list(range(1, 12))


def test_what_a_sink_did_not_take_comes_again_after_a_restart_too(tmp_path: Path) -> None:
    name = written(tmp_path, signer())
    sink = Taking(failing=1)
    made = follower(tmp_path, sink)
    with pytest.raises(PortcullisError):
        asyncio.run(made.round())
    assert made.behind(name, 27) == 27
    asyncio.run(exhausted(follower(tmp_path, sink)))
    asyncio.run(exhausted(follower(tmp_path, sink)))
    assert sink.taken == list(range(1, 28))


@settings(max_examples=25)
@given(failing=st.lists(st.booleans(), max_size=8))
def test_none_is_ever_skipped_whichever_calls_fail(
    tmp_path_factory: pytest.TempPathFactory, failing: list[bool]
) -> None:
    directory = tmp_path_factory.mktemp("log")
    written(directory, None, segments=1, each=3)
    sink, made = Taking(), None

    async def run() -> None:
        nonlocal made
        for fails in [*failing, False]:
            sink.failing = int(fails)
            made = follower(directory, sink)
            try:
                await exhausted(made)
            except PortcullisError:
                continue

    asyncio.run(run())
    assert sink.taken == [1, 2, 3, 4]


def test_a_sink_that_is_away_is_told_of_and_tried_again(tmp_path: Path) -> None:
    written(tmp_path, signer())
    sink, troubles = Taking(failing=2), []

    async def run() -> None:
        made = follower(tmp_path, sink, pause=lambda _s: noted())

        async def noted() -> None:
            troubles.append(made.trouble)
            if len(troubles) > 3:
                task.cancel()
            await asyncio.sleep(0)

        task = asyncio.ensure_future(made.run())
        await asyncio.wait([task])
        assert (made.failures, made.trouble) == (2, "")

    asyncio.run(run())
    assert all("the audit sink `s` does not take records: " in text for text in troubles[:2])
    assert sink.taken == list(range(1, 28))


def test_a_sink_goes_on_behind_what_was_removed_by_policy(tmp_path: Path) -> None:
    name = written(tmp_path, signer())
    removing = Pruning(before_ms=START_MS * 2, at="then", by="ada", why="rule")
    assert prune(tmp_path, name, removing, signer()) is not None
    sink = Taking()
    asyncio.run(exhausted(follower(tmp_path, sink)))
    assert sink.taken == list(range(19, 28))


def test_nothing_that_a_sink_has_not_seen_is_removed(tmp_path: Path) -> None:
    name = written(tmp_path, signer())
    removing = Pruning(before_ms=START_MS * 2, at="then", by="ada", why="rule")
    assert prune(tmp_path, name, removing, signer(), keep_from=1) is None
    gap = prune(tmp_path, name, removing, signer(), keep_from=12)
    assert gap is not None
    assert gap.last == 9
    assert [segment.first for segment in segments(tmp_path)] == [10, 19]


def test_a_file_gets_whole_lines_for_its_owner_alone(tmp_path: Path) -> None:
    written(tmp_path / "log", signer())
    asyncio.run(exhausted(follower(tmp_path / "log", file_sink(tmp_path / "out"))))
    lines = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [line["n"] for line in lines] == list(range(1, 28))
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600


def test_a_write_that_fails_half_way_leaves_no_torn_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "log", signer())
    made = follower(tmp_path / "log", file_sink(tmp_path / "out"))
    (tmp_path / "out").write_text("before\n")
    real, calls = os.write, iter([True, False])

    def write(descriptor: int, data: Any) -> int:
        if next(calls, None):
            return real(descriptor, data[:100])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pdp.adapters.audit_sinks.os.write", write)
        with pytest.raises(PortcullisError, match="No space left"):
            asyncio.run(made.round())
    assert (tmp_path / "out").read_text() == "before\n"
    asyncio.run(exhausted(made))
    assert len((tmp_path / "out").read_text().splitlines()) == 28


def test_a_pipe_that_nobody_reads_holds_up_nobody() -> None:
    """Attack: whoever reads standard output stops, and with it would stop whatever waits for it."""
    reader, writer = os.pipe()
    began, ended = threading.Event(), threading.Event()

    def write(data: bytes) -> None:
        began.set()
        try:
            os.write(writer, data * 100_000)
        finally:
            ended.set()

    async def run() -> None:
        delivering = asyncio.ensure_future(LineSink(write).deliver([("pdp-1", {"n": 1})]))
        await until(began.is_set)
        delivering.cancel()

    asyncio.run(run())
    assert not ended.is_set()
    os.close(reader)
    assert ended.wait(30)
    os.close(writer)


def test_a_collector_is_sent_log_records_and_says_what_it_refuses(tmp_path: Path) -> None:
    written(tmp_path, signer(), segments=1)
    (tmp_path / "secret").write_text("Bearer abc\n")

    async def run() -> None:
        async with serving(Server()) as server:
            sink = OtlpSink(
                f"http://127.0.0.1:{server.port}/v1/logs",
                service={"service.name": "portcullis"},
                authorization=tmp_path / "secret",
            )
            made = follower(tmp_path, sink)
            server.answer = server.json({}, status="503 Service Unavailable")
            with pytest.raises(PortcullisError, match="503"):
                await made.round()
            server.answer = server.json({"partialSuccess": {"rejectedLogRecords": "2"}})
            await exhausted(made)
            assert (made.delivered, made.rejected) == (9, 2)
            assert b"authorization: bearer abc" in server.requests[-1].lower()
            (told,) = json.loads(server.bodies[-1])["resourceLogs"]
            sent = told["scopeLogs"][0]["logRecords"]
            bodies = [json.loads(one["body"]["stringValue"]) for one in sent]
            assert [body["n"] for body in bodies] == list(range(1, 10))
            assert sent[1]["eventName"] == "portcullis.decision"
            assert sent[1]["timeUnixNano"] == f"{START_MS}000000"

    asyncio.run(run())


@pytest.mark.parametrize(
    "answer", [b"[]", b"x", b'{"partialSuccess": 1}', b'{"partialSuccess":{"rejectedLogRecords":"x"}}']
)
def test_what_is_no_answer_of_a_collector_is_no_success(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        rejected(answer)
    assert rejected(b"") == 0


NAMED = decision(1) | {
    "n": 2,
    "principal": "user:ben@x.org",
    "groups": ["group:a"],
    "actors": [{"principal": "agent:etl", "groups": ["group:b"]}],
    "caller": "user:gate@x.org",
    "workload": "workload:shop",
    "detail": "user:ben@x.org was refused",
    "claims": {"subject.mail": "ben@x.org"},
    "attributes": {"request.purpose": "ben@x.org"},
    "credential": {"jti": "ben@x.org"},
}


@pytest.mark.parametrize("form", ["json", "ocsf"])
@pytest.mark.parametrize("to", ["stdout", "file", "otlp"])
def test_no_sink_sees_what_it_must_not(tmp_path: Path, form: str, to: str) -> None:
    place = {"file": {"path": tmp_path / "out"}, "otlp": {"url": "https://c/v1/logs"}, "stdout": {}}[to]
    masking = Sink.model_validate({"name": "s", "to": to, "form": form, "mask": ["principals", "attributes"], **place})
    shown = shape(masking)("pdp-1", NAMED)
    text = logs_request([("pdp-1", shown)], {}).decode() + json.dumps(shown) if shown else ""
    assert shown
    for secret in ("ben@x.org", "group:a", "group:b", "agent:etl", "gate@x.org", "workload:shop"):
        assert secret not in text, secret


def test_pseudonyms_outlive_a_restart_with_a_key_and_only_then(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(os.urandom(32))
    keyed = Sink(name="s", to="stdout", mask=("principals",), mask_key=tmp_path / "key")
    bare = Sink(name="s", to="stdout", mask=("principals",))
    shown = [(shape(one)("c", NAMED) or {})["principal"] for one in (keyed, keyed, bare, bare)]
    assert shown[0] == shown[1] != shown[2] != shown[3]
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(ConfigError, match="too short"):
        shape(keyed)


def test_what_only_looks_like_a_decision_stops_no_sink_and_shows_no_name() -> None:
    masking = shape(Sink(name="s", to="stdout", mask=("principals",)))
    shown = masking("abc", {"kind": "decision", "n": 3, "principal": "user:ben@x.org"})
    assert shown == {"kind": "unreadable", "chain": "abc", "n": 3}
    # Canonical JSON, so a chain holds it; and no text of Unicode, so nothing can be made of it.
    shown = masking("abc", NAMED | {"n": 4, "principal": "user:\ud800"})
    assert shown == {"kind": "unreadable", "chain": "abc", "n": 4}
    shown = masking("abc", NAMED | {"principal": "ben"})
    assert shown is not None
    assert "ben" not in shown["principal"]


def test_ocsf_is_decisions_alone_and_json_is_everything() -> None:
    shown = shape(Sink(name="s", to="stdout", form="ocsf"))
    assert shown("c", {"kind": "checkpoint", "n": 1}) is None
    assert (shown("c", NAMED) or {})["class_uid"] == 6003
    assert PLAIN("c", {"kind": "checkpoint", "n": 1}) == {"kind": "checkpoint", "n": 1}


def test_a_damaged_file_of_cursors_brings_everything_again(tmp_path: Path) -> None:
    written(tmp_path, None, segments=1)
    sink = Taking()
    asyncio.run(exhausted(follower(tmp_path, sink)))
    (tmp_path / ".sink-s.json").write_text("[]")
    asyncio.run(exhausted(follower(tmp_path, sink)))
    assert sink.taken == [*range(1, 7), *range(1, 7)]
