"""No error becomes an allow: each class of internal failure, at each door of the sidecar, is a deny and nothing goes on."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.auth.v3 import external_auth_pb2 as auth
from envoy.service.ext_proc.v3 import external_processor_pb2 as proc

from pdp.errors import PortcullisError, Reason
from pdp.model.decision import Obligation
from sidecar import gate as gate_module
from sidecar.asgi import PolicyMiddleware
from sidecar.asgi_door import Door
from sidecar.ext_authz import AuthorizationService, AuthzServer
from sidecar.ext_proc import ExternalProcessorService
from sidecar.gate import Gate
from sidecar.limits import LIMITS
from sidecar.rechecks import Rechecker
from sidecar.routes import Served
from sidecar.routes.assembly import assemble
from tests.support.enforcement import Clock, Decider, identify

TABLE = assemble(
    served={"fraud": Served(resource="endpoint/fraud", model="model/fraud@12")}, protocols=("oip", "openai")
)
INFER, STREAM, CHAT = "/v2/models/fraud/infer", "/v2/models/fraud/generate_stream", "/v1/chat/completions"


@dataclass
class Parts:
    """What stands behind every door; a failure spoils some of it."""

    decider: Decider = field(default_factory=Decider)
    identify: Any = identify
    table: Any = TABLE

    @property
    def gate(self) -> Gate:
        return Gate(table=self.table, identify=self.identify, decider=self.decider)

    @property
    def rechecker(self) -> Rechecker:
        return Rechecker(decider=self.decider, time=Clock(), jitter=lambda: 0.0)


# -- the failures ----------------------------------------------------------------------------------------------------


def _raises(fault: BaseException) -> Callable[..., Any]:
    async def failing(*_: Any, **__: Any) -> Any:
        raise fault

    return failing


async def _hangs(*_: Any, **__: Any) -> Any:
    await asyncio.Event().wait()


def _sync(fault: BaseException) -> Callable[..., Any]:
    def failing(*_: Any, **__: Any) -> Any:
        raise fault

    return failing


def _identify(how: Callable[..., Any]) -> Callable[[Parts], None]:
    return lambda parts: setattr(parts, "identify", how)


def _answer(how: Callable[..., Any]) -> Callable[[Parts], None]:
    return lambda parts: setattr(parts.decider, "answer", how)


def _both(how: Callable[..., Any]) -> Callable[[Parts], None]:
    def spoil(parts: Parts) -> None:
        parts.decider.answer = how
        parts.decider.refuse = how

    return spoil


def _digest(parts: Parts) -> None:
    parts.decider.obligations = (Obligation(name="require_digest", value="sha256:" + "0" * 64),)
    parts.decider.digest = _sync(KeyError("a digest"))


def _obligation(parts: Parts) -> None:
    parts.decider.obligations = (Obligation(name="max_messages", value="many"),)


def _table(parts: Parts) -> None:
    class Broken:
        map = named = staticmethod(_sync(ValueError("a table")))

    parts.table = Broken()


FAILURES = {
    "the verifier has a defect": _identify(_raises(RuntimeError("a defect"))),
    "a claim is not UTF-8": _identify(_raises(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"))),
    "a token nests too deep": _identify(_raises(RecursionError())),
    "the keys cannot be had": _identify(_raises(PortcullisError(Reason.KEYS_UNAVAILABLE, "no keys"))),
    "the verifier hangs": _identify(_hangs),
    "the verifier says nothing": _identify(lambda *_: _none()),
    "the engine has a defect": _answer(_raises(ZeroDivisionError())),
    "the decision hangs": _answer(_hangs),
    "the audit cannot be written": _answer(_raises(PortcullisError(Reason.AUDIT_UNAVAILABLE, "disk full"))),
    "memory ends": _answer(_raises(MemoryError())),
    "nothing can be recorded at all": _both(_raises(OSError("read-only file system"))),
    "the inventory fails under an obligation": _digest,
    "an obligation that cannot be read": _obligation,
    "the route table has a defect": _table,
    "the world is too old": lambda parts: setattr(parts.decider, "reason", Reason.WORLD_STALE),
}


async def _none() -> None:
    return None


# -- the doors: each returns whether the request went on to the model -------------------------------------------------


async def _ext_authz_http(parts: Parts, directory: Path) -> bool:
    server = AuthzServer(parts.gate, directory / "a.sock")
    await server.start()
    try:
        reader, writer = await asyncio.open_unix_connection(str(directory / "a.sock"))
        writer.write(
            f"POST {INFER} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer good\r\nx-pdp-route: oip.infer\r\n\r\n".encode()
        )
        line = await asyncio.wait_for(reader.readline(), 10)
        writer.close()
        assert line.split(b" ")[1] in {b"200", b"401", b"403", b"429", b"503"}
        return line.startswith(b"HTTP/1.1 200")
    finally:
        await server.stop()


async def _ext_authz_grpc(parts: Parts, _: Path) -> bool:
    request = auth.CheckRequest()
    request.attributes.request.http.method, request.attributes.request.http.path = "POST", INFER
    request.attributes.request.http.headers["authorization"] = "Bearer good"
    answer = await AuthorizationService(parts.gate).Check(request, None)
    read = auth.CheckResponse.FromString(answer.SerializeToString())  # an *empty* response would allow
    return read.status.code == grpc.StatusCode.OK.value[0]


class _Context:
    """Envoy's side of one ext_proc stream."""

    def __init__(self, route: str, *messages: proc.ProcessingRequest) -> None:
        self._route, self._messages = route, list(messages)
        self.answers: list[proc.ProcessingResponse] = []
        self.aborted = False

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("x-pdp-route", self._route),)

    async def read(self) -> Any:
        return self._messages.pop(0) if self._messages else None

    async def write(self, answer: proc.ProcessingResponse) -> None:
        self.answers.append(answer)

    async def abort(self, *_: Any) -> None:
        self.aborted = True


async def _ext_proc(parts: Parts, route: str, path: str, *, body: bytes | None = None) -> bool:
    first = proc.ProcessingRequest()
    for name, value in (
        *((":method", "POST"), (":path", path), ("authorization", "Bearer good")),
        ("content-type", "application/json"),
    ):
        first.request_headers.headers.headers.add(key=name, raw_value=value.encode())
    messages = [first]
    if body is not None:
        messages.append(proc.ProcessingRequest(request_body=proc.HttpBody(body=body, end_of_stream=True)))
    context = _Context(route, *messages)
    service = ExternalProcessorService(gate=parts.gate, rechecker=parts.rechecker, notes=parts.decider, time=Clock())
    await service.Process(None, context)
    await service.settled()
    # A clean end without an answer fails open (EP-1), so it counts as having gone on.
    refused = context.aborted or any(answer.HasField("immediate_response") for answer in context.answers)
    return not refused


async def _by_path(parts: Parts, _: Path) -> bool:
    return await _ext_proc(parts, "oip.generate_stream", STREAM)


async def _by_body(parts: Parts, _: Path) -> bool:
    return await _ext_proc(parts, "openai.chat", CHAT, body=b'{"model":"fraud"}')


async def _asgi(parts: Parts, _: Path) -> bool:
    reached: list[Any] = []
    sent: list[Any] = []

    async def app(*given: Any) -> None:
        reached.append(given)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    door = Door(gate=parts.gate, rechecker=parts.rechecker, notes=parts.decider, time=Clock())
    scope = {"type": "http", "method": "POST", "path": INFER, "raw_path": INFER.encode(), "query_string": b""}
    scope["headers"] = [(b"authorization", b"Bearer good")]
    await PolicyMiddleware(app, door=door)(scope, receive, send)
    if not reached:
        assert sent[0]["status"] in {401, 403, 429, 503}
    return bool(reached)


DOORS: dict[str, Callable[[Parts, Path], Awaitable[bool]]] = {
    "ext_authz over HTTP": _ext_authz_http,
    "ext_authz over gRPC": _ext_authz_grpc,
    "ext_proc by path": _by_path,
    "ext_proc by body": _by_body,
    "ASGI": _asgi,
}


@pytest.mark.parametrize("door", DOORS)
def test_a_sound_gate_lets_the_request_on(door: str, tmp_path: Path) -> None:
    """Else the table below could not fail."""
    assert asyncio.run(DOORS[door](Parts(), tmp_path))


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.holds("P2", "N11", "adv_fail_open")
def test_a_failure_is_a_deny(failure: str, door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "LIMITS", replace(LIMITS, decide_s=0.02))
    parts = Parts()
    FAILURES[failure](parts)
    assert asyncio.run(DOORS[door](parts, tmp_path)) is False


@pytest.mark.parametrize("door", ["ext_proc by path", "ext_proc by body", "ASGI"])
@pytest.mark.holds("P2", "N11")
def test_a_response_that_cannot_be_followed_does_not_begin(door: str, tmp_path: Path) -> None:
    """The allow was given, and then the table of running responses fails."""
    parts = Parts()
    parts.decider.recheck = _once(parts.decider.recheck)
    assert asyncio.run(DOORS[door](parts, tmp_path)) is False


def _once(recheck: Callable[..., Any]) -> Callable[..., Any]:
    calls = iter([recheck])

    def limited(question: Any) -> Any:
        return next(calls)(question)  # StopIteration: a defect like any other

    return limited
