"""ext_proc: decide at the request headers, watch the response chunk by chunk, and cut it when access ends.

One handler per request. A reader task feeds it Envoy's messages; the handler waits for the next message or for the order
to cut, whichever comes first, and answers every message at once (EP-4). A *clean* end of `Process` before Envoy ended
would fail open, so the wrapper turns every unforeseen return into an error (EP-1).

Source: ENFORCEMENT.md 2.3 (EP-1 to EP-10), 4.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum
from typing import Any, Protocol

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as proc
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc as proc_grpc

from pdp.errors import Reason
from sidecar.cutoff import Delivered
from sidecar.ext_authz import Headers
from sidecar.gate import Ask, Gate, Verdict
from sidecar.rechecks import Rechecker, Time
from sidecar.routes import Placement

_LOG = logging.getLogger(__name__)


class End(Enum):
    """The only ways in which `Process` may end without an error."""

    ENVOY_ENDED = "envoy ended"
    IMMEDIATE = "immediate response sent"


class Notes(Protocol):
    """The part of `pdp.service.decide.Decider` that records a stream's changes of state."""

    async def note(self, event: str, *, decision_id: str, **fields: str | int) -> None:
        """Record one change of state."""
        ...


def _set(name: str, value: str) -> base_pb2.HeaderValueOption:
    return base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(key=name, raw_value=value.encode("ascii")),
        append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )


def _immediate(verdict: Verdict) -> proc.ProcessingResponse:
    """Return the answer that ends the request: a status before the response began, a reset once it runs (EP-6)."""
    refused = verdict.denial
    answer = proc.ProcessingResponse()
    answer.immediate_response.status.code = refused.status
    answer.immediate_response.body = refused.body
    answer.immediate_response.grpc_status.status = refused.grpc_status
    answer.immediate_response.headers.set_headers.extend(_set(name, value) for name, value in refused.headers)
    answer.immediate_response.details = "pdp_" + verdict.reason.value
    return answer


def _go_on(verdict: Verdict) -> proc.ProcessingResponse:
    answer = proc.ProcessingResponse()
    answer.request_headers.response.header_mutation.set_headers.extend(
        _set(name, value) for name, value in verdict.given
    )
    return answer


def _replaced(body: bytes) -> proc.ProcessingResponse:
    answer = proc.ProcessingResponse()
    answer.response_body.response.body_mutation.body = body
    return answer


# Built once: these answers say only "go on" (never sent before an allow).
_HEADERS_PASS = proc.ProcessingResponse(response_headers=proc.HeadersResponse())
_CHUNK_PASS = proc.ProcessingResponse(response_body=proc.BodyResponse())


def _fields(headers: base_pb2.HeaderMap) -> list[tuple[str, str]]:
    return [(one.key, (one.raw_value or one.value.encode()).decode("latin-1")) for one in headers.headers]


def ask_of(message: proc.ProcessingRequest, route: str) -> Ask:
    """Return the question in Envoy's first message; facts about the connection come from it, never from the client."""
    headers = Headers()
    for name, value in _fields(message.request_headers.headers):
        headers.add(name.lower(), value)
    attributes = message.attributes["envoy.filters.http.ext_proc"].fields if message.attributes else {}
    source = attributes["source.address"].string_value if "source.address" in attributes else ""
    return headers.ask(
        method=headers.values.get(":method", ""),
        target=headers.values.get(":path", ""),
        route=route,
        source_ip=source.rpartition(":")[0],
    )


class Stream:
    """One request and its response."""

    def __init__(
        self,
        *,
        read: Callable[[], Awaitable[Any]],
        write: Callable[[proc.ProcessingResponse], Awaitable[None]],
        route: str,
        gate: Gate,
        rechecker: Rechecker,
        notes: Notes,
        time: Time,
        background: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._background = background
        self._read, self._write, self._route = read, write, route
        self._gate, self._rechecker, self._notes, self._time = gate, rechecker, notes, time
        # One message ahead is enough: Envoy sends the next chunk only after our answer.
        self._inbox: asyncio.Queue[proc.ProcessingRequest | None] = asyncio.Queue(maxsize=1)
        self._cut: asyncio.Future[Reason] = asyncio.get_running_loop().create_future()
        self._delivered = Delivered()

    async def run(self) -> End:
        """Serve the request to its end."""
        reader = asyncio.create_task(self._feed())
        try:
            return await self._serve()
        finally:
            reader.cancel()  # EP-7
            with contextlib.suppress(asyncio.CancelledError):
                await reader

    async def _feed(self) -> None:
        while True:
            message = await self._read()
            if not isinstance(message, proc.ProcessingRequest):
                await self._inbox.put(None)
                return
            await self._inbox.put(message)

    async def _serve(self) -> End:
        first = await self._inbox.get()
        if first is None:
            return End.ENVOY_ENDED
        if first.WhichOneof("request") != "request_headers":
            return await self._end(Verdict(allowed=False, reason=Reason.BAD_REQUEST))
        verdict = await self._gate.decide(ask_of(first, self._route), Placement.EXT_PROC)
        if not verdict.allowed:
            return await self._end(verdict)
        session = self._rechecker.open(verdict, self._order_cut)
        if isinstance(session, Reason):
            self._order_cut(session)  # the allow is on record: so must be that nothing came of it
            self._note(verdict)
            return await self._end(verdict.refused(session))
        try:
            await self._write(_go_on(verdict))
            return await self._watch(verdict)
        finally:
            # Also when this task is cancelled, which is how gRPC tells that Envoy reset its stream: the usual end.
            self._rechecker.close(session)
            self._note(verdict)

    def _order_cut(self, reason: Reason) -> None:
        if not self._cut.done():
            self._cut.set_result(reason)

    async def _watch(self, verdict: Verdict) -> End:
        """Pass the response on until it ends or is cut."""
        while True:
            message = await self._next()
            if self._cut.done():
                return await self._cut_off(verdict, self._cut.result(), message)
            if message is None:
                return End.ENVOY_ENDED
            await self._pass(message)

    async def _next(self) -> proc.ProcessingRequest | None:
        """Return the next message; None when Envoy ended, or when the cut came first."""
        waiting = asyncio.ensure_future(self._inbox.get())
        either: set[asyncio.Future[Any]] = {waiting, self._cut}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return waiting.result() if waiting.done() else None
        finally:
            waiting.cancel()

    async def _pass(self, message: proc.ProcessingRequest) -> None:
        kind = message.WhichOneof("request")
        if kind == "response_headers":
            self._delivered.headers(dict(_fields(message.response_headers.headers)))
            await self._write(_HEADERS_PASS)
        elif kind == "response_body":
            self._delivered.chunk(message.response_body.body, self._time.mono_s())
            await self._write(_CHUNK_PASS)
        else:  # the modes of our routes send nothing else: a stranger's configuration is not waved through
            raise UnexpectedMessageError(kind)

    async def _cut_off(self, verdict: Verdict, reason: Reason, message: proc.ProcessingRequest | None) -> End:
        """End the response: the error event in place of the next chunk where one comes, then the abort."""
        if message is None:
            message = await self._next_chunk_soon()
        if message is not None and self._carries_event(message):
            await self._write(_replaced(self._delivered.error_event(reason, reveal=verdict.reveal)))
        return await self._end(verdict.refused(reason))

    def _carries_event(self, message: proc.ProcessingRequest) -> bool:
        """Whether the error event can go in place of this message; the last chunk carries none, as its pass is a clean end."""
        chunk = message.WhichOneof("request") == "response_body" and not message.response_body.end_of_stream
        return chunk and self._delivered.events_fit

    async def _next_chunk_soon(self) -> proc.ProcessingRequest | None:
        wait_s = self._delivered.wait_s(self._time.mono_s())
        if not wait_s:
            return None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                return await self._inbox.get()
        return None

    async def _end(self, verdict: Verdict) -> End:
        await self._write(_immediate(verdict))
        return End.IMMEDIATE

    def _note(self, verdict: Verdict) -> None:
        """Record how the response ended, beside the cut: a slow or failing record never delays it."""
        fields: dict[str, str | int] = {"messages": self._delivered.chunks, "size_bytes": self._delivered.size_bytes}
        if self._cut.done():
            fields["reason"] = self._cut.result().value
        event = "cut" if self._cut.done() else "ended"
        self._background(self._notes.note(event, decision_id=verdict.decision_id, **fields))


class UnexpectedMessageError(Exception):
    """Envoy sent what our routes do not ask for."""


class ExternalProcessorService(proc_grpc.ExternalProcessorServicer):  # type: ignore[misc] # generated code is untyped
    """`envoy.service.ext_proc.v3.ExternalProcessor`."""

    def __init__(self, *, gate: Gate, rechecker: Rechecker, notes: Notes, time: Time) -> None:
        self._gate, self._rechecker, self._notes, self._time = gate, rechecker, notes, time
        self._records: set[asyncio.Task[None]] = set()

    async def settled(self) -> None:
        """Wait until every record of an ended response is written."""
        await asyncio.gather(*self._records, return_exceptions=True)

    def _keep(self, record: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(record)
        self._records.add(task)
        task.add_done_callback(self._recorded)

    def _recorded(self, task: asyncio.Task[None]) -> None:
        self._records.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("the record of an ended stream was lost", exc_info=task.exception())

    async def Process(self, _requests: Any, context: Any) -> None:  # noqa: N802 - gRPC's name
        """Serve one request; anything but the two foreseen ends is an error, which Envoy takes as closed (EP-1)."""
        end: End | None = None
        try:
            end = await self._stream(context).run()
        except Exception:  # noqa: BLE001 - the outermost boundary: see above
            _LOG.exception("a stream failed")
        if not isinstance(end, End):
            await context.abort(grpc.StatusCode.INTERNAL, "internal error")

    def _stream(self, context: Any) -> Stream:
        routes = [value for key, value in context.invocation_metadata() if key == "x-pdp-route"]
        return Stream(
            read=context.read,
            write=context.write,
            route=str(routes[0]) if len(routes) == 1 else "",
            gate=self._gate,
            rechecker=self._rechecker,
            notes=self._notes,
            time=self._time,
            background=self._keep,
        )
