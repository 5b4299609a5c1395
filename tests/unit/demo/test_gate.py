"""The demonstration's own caller: it shows its certificate, and never takes a broken stream for a finished one."""

import datetime as dt
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pdp.demo.authority import Authority, create_authority
from pdp.demo.child import StageError
from pdp.demo.gate import Gate

EVENT = b'data: {"digit": 7}\n\n'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"

Serve = Callable[[bytes], Gate]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return create_authority(tmp_path / "pki", dt.datetime.now(dt.UTC))


@pytest.fixture
def serve(authority: Authority) -> Iterator[Serve]:
    """A server of one answer that demands a client certificate and hangs up after the last byte."""
    listener = socket.create_server(("127.0.0.1", 0))
    own = authority.issue_server("gate")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.bundle))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(own.certificate, own.key)
    threads: list[threading.Thread] = []

    def answer(response: bytes) -> None:
        connection, _ = listener.accept()
        with connection, context.wrap_socket(connection, server_side=True) as secure:
            request = b""
            while b"}" not in request:
                request += secure.recv(65_536)
            secure.sendall(response)

    def begin(response: bytes) -> Gate:
        threads.append(threading.Thread(target=answer, args=(response,)))
        threads[-1].start()
        workload = authority.issue_workload("frontend", "/ns/apps/sa/frontend")
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        return Gate(url=url, bundle=authority.bundle, credential=workload)

    yield begin
    for thread in threads:
        thread.join()
    listener.close()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_an_answer_carries_status_and_json(serve: Serve) -> None:
    body = b'{"error":"forbidden","decision_id":"d1"}'
    gate = serve(b"HTTP/1.1 403 Forbidden\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
    answer = gate.post("/v2/models/digits/infer", {}, token=None)
    assert (answer.status, answer.get("error"), answer.get("decision_id")) == (403, "forbidden", "d1")


def test_a_body_that_is_not_json_is_no_answer(serve: Serve) -> None:
    gate = serve(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\ngone")
    assert gate.post("/", {}, token="t").get("error") == ""


def test_a_stream_that_ends_with_its_last_chunk_is_not_broken(serve: Serve) -> None:
    with serve(HEAD + chunk(EVENT) + chunk(EVENT) + LAST).stream("/s", {}, "t") as running:
        running.wait_for_events(2)
        cut = running.cut()
    assert (cut.events, cut.broken, cut.last_error) == (2, False, "")


def test_a_stream_that_ends_without_its_last_chunk_is_broken(serve: Serve) -> None:
    error = b'data: {"error": "access ended: forbidden"}\n\n'
    with serve(HEAD + chunk(EVENT) + chunk(error)).stream("/s", {}, "t") as running:
        cut = running.cut()
    assert (cut.events, cut.broken, cut.last_error) == (1, True, "access ended: forbidden")


def test_waiting_for_more_events_than_come_is_an_error(serve: Serve) -> None:
    gate = serve(HEAD + chunk(EVENT) + LAST)
    with pytest.raises(StageError, match="1 events instead of 5"), gate.stream("/s", {}, "t") as running:
        running.wait_for_events(5)


def test_a_refused_stream_is_an_error(serve: Serve) -> None:
    gate = serve(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\n{}")
    with pytest.raises(StageError, match="did not open the stream: 403"), gate.stream("/s", {}, "t"):
        pass
