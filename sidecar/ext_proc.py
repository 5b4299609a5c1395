"""ext_proc: decide where the body names the model, watch the response chunk by chunk, and cut it when access ends.

One handler per request. A reader task feeds it Envoy's messages; the handler waits for the next message or for the order
to cut, whichever comes first, and answers every message at once (EP-4). A *clean* end of `Process` before Envoy ended
would fail open, so the wrapper turns every unforeseen return into an error (EP-1).

How a request opens depends on its row: by its path alone, by its body (held by Envoy until it is whole), or by its first
gRPC message; in each case nothing undecided goes on. From then on both directions run through `Exchange`.

Source: ENFORCEMENT.md 2.3 (EP-1 to EP-10), 4.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from enum import Enum
from typing import Any

import grpc
from envoy.service.ext_proc.v3 import external_processor_pb2 as proc
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc as proc_grpc

from pdp.errors import Reason
from sidecar import bodies, messages
from sidecar.asked import Admitted, Verdict
from sidecar.bodies import UNREAD, BadBody, Content
from sidecar.exchange import Exchange, NotPassableError
from sidecar.gate import Gate
from sidecar.inbox import Inbox
from sidecar.limits import LIMITS
from sidecar.proc_wire import (
    ask_of,
    chunk_on,
    fields_of,
    headers_on,
    headers_pass,
    immediate,
    not_for_the_model,
    opened,
    request_body_on,
    request_chunk_on,
)
from sidecar.rechecks import Notes, Rechecker, Time
from sidecar.rewrite import Sent, message_on, sent_on
from sidecar.routes import Body, Placement

_LOG = logging.getLogger(__name__)


class End(Enum):
    """The only ways in which `Process` may end without an error."""

    ENVOY_ENDED = "envoy ended"
    IMMEDIATE = "immediate response sent"


class UnexpectedMessageError(Exception):
    """Envoy sent what our routes do not ask for."""


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
        foreign: bool = False,
    ) -> None:
        self._background, self._foreign = background, foreign
        self._remove: tuple[str, ...] = ()
        self._read, self._write, self._route = read, write, route
        self._gate, self._rechecker, self._notes, self._time = gate, rechecker, notes, time
        self._inbox: Inbox[proc.ProcessingRequest] = Inbox()
        self._cut: Reason | None = None
        self._headers: Mapping[str, str] = {}
        self._requests = messages.Framer()
        self._exchange: Exchange | None = None

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
        self._headers, ask = ask_of(first, self._route, foreign=self._foreign)
        if self._foreign:
            self._remove = not_for_the_model(self._headers)
        admitted = await self._gate.admit(ask, Placement.EXT_PROC)
        if isinstance(admitted, Verdict):
            return await self._end(admitted)
        if admitted.row.body is Body.UNREAD:
            return await self._open(
                admitted, UNREAD, lambda verdict, sent: headers_on(verdict, sent.path, self._remove)
            )
        return await self._open_by_body(admitted, empty=first.request_headers.end_of_stream)

    # -- how a request opens -----------------------------------------------------------------------------------------

    async def _open_by_body(self, admitted: Admitted, *, empty: bool) -> End:
        """Let Envoy hold the headers, take the body or the first message, and decide on it."""
        if empty:
            return await self._end(await self._gate.judge(admitted, BadBody(why="no body")))
        await self._write(opened(admitted, self._remove))
        if admitted.row.body is Body.GRPC:
            return await self._open_by_message(admitted)
        try:
            async with asyncio.timeout(LIMITS.request_body_s):
                message = await self._inbox.get()
        except TimeoutError:
            return await self._end(await self._gate.judge(admitted, BadBody(why="the body took too long")))
        if message is None:
            return End.ENVOY_ENDED
        if message.WhichOneof("request") == "response_headers":
            return await self._refused_by_envoy(admitted, message)
        content = bodies.read(admitted.row, message.request_body.body, self._headers)
        return await self._open(admitted, content, request_body_on)

    async def _refused_by_envoy(self, admitted: Admitted, message: proc.ProcessingRequest | None) -> End:
        """Record Envoy's own refusal of a body (413) and let it pass: the headers are held, so no model spoke (EP-10)."""
        await self._gate.judge(admitted, BadBody(why="envoy refused the body: above the limit"))
        while message is not None:
            headers = message.WhichOneof("request") == "response_headers"
            await self._write(headers_pass(whole=False, row=admitted.row) if headers else chunk_on(None))
            message = await self._inbox.get()
        return End.ENVOY_ENDED

    async def _open_by_message(self, admitted: Admitted) -> End:
        """Hold chunks until they make a message; decide on that one, and send it on as decided."""
        while True:
            message = await self._inbox.get()
            if message is None:
                return End.ENVOY_ENDED
            # An answer before any message was decided is an answer to nobody.
            asks = message.WhichOneof("request") == "request_body"
            whole = self._whole(message) if asks else BadBody(why="an answer before the question")
            if isinstance(whole, BadBody):
                return await self._end(await self._gate.judge(admitted, whole))
            if whole:
                content = messages.read(admitted.row, whole[0])
                return await self._open(admitted, content, self._first(whole))
            await self._write(request_chunk_on(b""))

    def _whole(self, message: proc.ProcessingRequest) -> list[bytes] | BadBody:
        """Return the gRPC messages that this chunk completes."""
        try:
            found = list(self._requests.feed(message.request_body.body))
        except messages.BadMessageError as fault:
            return BadBody(why=str(fault))
        if message.request_body.end_of_stream and self._requests.partial:
            return BadBody(why="half a message")
        return found

    def _first(self, whole: list[bytes]) -> Callable[[Verdict, Sent], proc.ProcessingResponse]:
        def answer(verdict: Verdict, _sent: Sent) -> proc.ProcessingResponse:
            return request_chunk_on(message_on(verdict, whole[0]) + self._further(verdict, whole[1:]))

        return answer

    def _further(self, verdict: Verdict, whole: list[bytes]) -> bytes:
        """Return further messages as they are sent on; each is checked as the first was."""
        if self._exchange is None:
            raise UnexpectedMessageError("a message before the first")
        return b"".join(message_on(verdict, self._exchange.asked(message)) for message in whole)

    async def _open(
        self,
        admitted: Admitted,
        content: Content | BadBody,
        answer: Callable[[Verdict, Sent], proc.ProcessingResponse],
    ) -> End:
        """Decide, and run the response if it is allowed."""
        verdict = await self._gate.judge(admitted, content)
        if not verdict.allowed or isinstance(content, BadBody):
            return await self._end(verdict)
        session = self._rechecker.open(verdict, self._order_cut)
        if isinstance(session, Reason):
            self._order_cut(session)  # the allow is on record: so must be that nothing came of it
            self._exchange = Exchange(verdict, content)
            self._note(verdict)
            return await self._end(verdict.refused(session))
        self._exchange = Exchange(
            verdict,
            content,
            carried=lambda count: self._rechecker.carried(session, count),
            results=self._gate.results,
        )
        try:
            return await self._run(verdict, content, answer)
        finally:
            # Also when this task is cancelled, which is how gRPC tells that Envoy reset its stream: the usual end.
            self._rechecker.close(session)
            self._note(verdict)

    async def _run(
        self, verdict: Verdict, content: Content, answer: Callable[[Verdict, Sent], proc.ProcessingResponse]
    ) -> End:
        try:
            await self._write(answer(verdict, sent_on(verdict, content)))
            return await self._watch(verdict)
        except NotPassableError as fault:
            self._order_cut(fault.reason)
            return await self._end(verdict.refused(fault.reason))

    # -- while it runs -----------------------------------------------------------------------------------------------

    def _order_cut(self, reason: Reason) -> None:
        if self._cut is None:
            self._cut = reason
            self._inbox.wake()

    async def _watch(self, verdict: Verdict) -> End:
        """Pass both directions on until the exchange ends or is cut."""
        while True:
            message = await self._next()
            if self._cut is None and message is not None:
                answer = self._passed(verdict, message)  # may be the message that is one too many
                if self._cut is None:
                    await self._write(answer)
                    continue
            if self._cut is not None:
                return await self._cut_off(verdict, self._cut, message)
            return End.ENVOY_ENDED

    async def _next(self) -> proc.ProcessingRequest | None:
        """Return the next message; None when Envoy ended, or when the cut came first."""
        while self._inbox.empty and self._cut is None:
            await self._inbox.moved()
        return None if self._inbox.empty else self._inbox.take()

    def _passed(self, verdict: Verdict, message: proc.ProcessingRequest) -> proc.ProcessingResponse:
        """Return the answer that passes one message on."""
        exchange, kind = self._exchange, message.WhichOneof("request")
        if exchange is None:
            raise UnexpectedMessageError(kind)
        if kind == "response_headers":
            in_one = exchange.headers(dict(fields_of(message.response_headers.headers)))
            return headers_pass(whole=in_one, row=exchange.row)
        if kind == "response_body":
            body = message.response_body
            return chunk_on(exchange.chunk(body.body, self._time.mono_s(), last=body.end_of_stream))
        if kind == "request_body" and exchange.row.body is Body.GRPC:
            whole = self._whole(message)
            if isinstance(whole, BadBody):
                raise NotPassableError(Reason.BAD_REQUEST)
            return request_chunk_on(self._further(verdict, whole))
        raise UnexpectedMessageError(kind)  # our modes ask for nothing else: a stranger's setting is not waved through

    async def _cut_off(self, verdict: Verdict, reason: Reason, message: proc.ProcessingRequest | None) -> End:
        """End the response: the error event in place of the next chunk where one comes, then the abort."""
        if message is None:
            message = await self._next_chunk_soon()
        if message is not None and self._carries_event(message) and self._exchange is not None:
            await self._write(chunk_on(self._exchange.error_event(reason)))
        return await self._end(verdict.refused(reason))

    def _carries_event(self, message: proc.ProcessingRequest) -> bool:
        """Whether the error event can go in place of this message; the last chunk carries none, as its pass is a clean end."""
        chunk = message.WhichOneof("request") == "response_body" and not message.response_body.end_of_stream
        return chunk and self._exchange is not None and self._exchange.delivered.events_fit

    async def _next_chunk_soon(self) -> proc.ProcessingRequest | None:
        wait_s = self._exchange.delivered.wait_s(self._time.mono_s()) if self._exchange is not None else 0.0
        if not wait_s:
            return None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                return await self._inbox.get()
        return None

    async def _end(self, verdict: Verdict) -> End:
        await self._write(immediate(verdict))
        return End.IMMEDIATE

    def _note(self, verdict: Verdict) -> None:
        """Record how the response ended, beside the cut: a slow or failing record never delays it."""
        cut = self._cut
        fields = self._exchange.ended(cut) if self._exchange is not None else {}
        self._background(self._notes.note("cut" if cut else "ended", decision_id=verdict.decision_id, **fields))


class ExternalProcessorService(proc_grpc.ExternalProcessorServicer):  # type: ignore[misc] # generated code is untyped
    """`envoy.service.ext_proc.v3.ExternalProcessor`.

    Args:
        gate: Answers.
        rechecker: Follows running responses.
        notes: Records their changes of state.
        time: Clocks.
        foreign: The Envoy is not ours: what it says in headers is not believed, and what ours removes by itself we remove.
    """

    def __init__(self, *, gate: Gate, rechecker: Rechecker, notes: Notes, time: Time, foreign: bool = False) -> None:
        self._foreign = foreign
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
            foreign=self._foreign,
        )
