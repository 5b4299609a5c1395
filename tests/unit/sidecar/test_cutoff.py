import json

import pytest

from pdp.errors import Reason
from sidecar.cutoff import Delivered
from sidecar.limits import LIMITS

SSE = {"content-type": "text/event-stream; charset=utf-8"}


def delivered(*chunks: bytes, headers: dict[str, str] | None = None) -> Delivered:
    state = Delivered()
    state.headers(SSE if headers is None else headers)
    for chunk in chunks:
        state.chunk(chunk, 100.0)
    return state


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/json"},
        {},
        {**SSE, "content-encoding": "gzip"},
        {**SSE, "content-length": "10"},
    ],
)
def test_an_event_goes_only_where_it_can_be_read(headers: dict[str, str]) -> None:
    assert not delivered(headers=headers).events_fit
    assert delivered(b"x", headers=headers).wait_s(100.0) == 0.0


def test_a_flowing_stream_waits_for_its_next_chunk_and_an_idle_one_does_not() -> None:
    state = delivered(b"data: 1\n\n")
    assert state.wait_s(100.0) == LIMITS.busy_wait_s
    assert state.wait_s(100.0 + 2 * LIMITS.busy_gap_s) == 0.0
    assert delivered().wait_s(100.0) == 0.0


@pytest.mark.parametrize("ending", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_after_whole_events_the_error_stands_alone(ending: bytes) -> None:
    event = delivered(b"data: 1" + ending).error_event(Reason.LOCKED, reveal=False)
    assert event == b'data: {"error": "access ended: forbidden"}\n\n'


def test_an_event_delivered_in_part_is_closed_first() -> None:
    event = delivered(b"data: 1\n\n", b'data: {"half": ').error_event(Reason.LOCKED, reveal=True)
    assert event == b'\n\ndata: {"error": "access ended: locked"}\n\n'


def test_an_end_split_over_chunks_is_seen() -> None:
    assert delivered(b"data: 1\n", b"\n").error_event(Reason.LOCKED, reveal=False).startswith(b"data: ")


def test_the_event_is_one_line_of_json() -> None:
    for reason in Reason:
        event = delivered().error_event(reason, reveal=True)
        assert event.count(b"\n") == 2
        assert "error" in json.loads(event.removeprefix(b"data: "))
