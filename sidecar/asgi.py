"""Enforcement inside a Python model server: pure ASGI middleware for vLLM, FastAPI, KServe, BentoML.

The same table, gate, re-checks and obligations as behind Envoy. What it cannot do: it sees no client certificate, so a caller's
workload comes only by a token; it guards this application's port and no other (KServe's gRPC port stays the network's to
close); and code inside the server's process can always walk around it.

    vllm serve MODEL --middleware sidecar.asgi.PolicyMiddleware        # settings by PDP_SIDECAR_CONFIG
    app.add_middleware(PolicyMiddleware)                               # FastAPI, Starlette
    PolicyMiddleware(app)                                              # any ASGI application

A cut is never a clean end: an event stream gets an error event and is left incomplete, any other response is left
incomplete, a WebSocket is closed with 1008; the application's task is cancelled, which frees the model.

Source: ENFORCEMENT.md 1, 4.
"""

import asyncio
import contextlib
from typing import Any

from pdp.errors import Reason
from sidecar import bodies
from sidecar.asgi_door import Door, Doorkeeper
from sidecar.asgi_scope import (
    Application,
    Message,
    Receive,
    Scope,
    Send,
    asked,
    ended,
    handed_on,
    refuse,
    with_length,
)
from sidecar.asgi_websocket import Socket
from sidecar.asked import Verdict
from sidecar.bodies import UNREAD, BadBody, Content
from sidecar.exchange import Exchange, NotPassableError
from sidecar.limits import LIMITS
from sidecar.rewrite import sent_on
from sidecar.routes import Body, Placement, Row

_CLOSED = Verdict(allowed=False, reason=Reason.PDP_UNREACHABLE)


class PolicyMiddleware:
    """Decides every request before the application sees it, and again while its response runs.

    Args:
        app: The application.
        door: What decides; None: made from the file that the environment's `PDP_SIDECAR_CONFIG` names, in the server's own loop.
    """

    def __init__(self, app: Application, *, door: Door | None = None) -> None:
        self._app = app
        self._keeper = Doorkeeper(door)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] in {"http", "websocket"}:
            await self._connection(scope, receive, send)
        # A kind of connection that nobody knows gets no answer, and the application does not see it.

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def received() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                # A PDP that is away keeps nobody from starting: until a world is held, everything is denied.
                await self._keeper.door(LIMITS.start_s)
            return message

        try:
            await self._app(scope, received, send)
        finally:
            await self._keeper.close()

    async def _connection(self, scope: Scope, receive: Receive, send: Send) -> None:
        door = await self._keeper.door(LIMITS.decide_s)
        if scope["type"] == "websocket":
            await Socket(self._app, door, scope, receive, send).serve()
        elif door is None:
            await self._closed(send, _CLOSED)
        else:
            await self._request(door, scope, receive, send)

    async def _closed(self, send: Send, verdict: Verdict) -> None:
        await refuse(send, verdict.denial)

    async def _request(self, door: Door, scope: Scope, receive: Receive, send: Send) -> None:
        await Request(self._app, door, scope, receive, send).serve()


class _CutError(Exception):
    """Raised into the application that still sends after the cut."""


class Request:
    """One HTTP request and its response."""

    def __init__(self, app: Application, door: Door, scope: Scope, receive: Receive, send: Send) -> None:
        self._app, self._door, self._scope, self._receive, self._send = app, door, scope, receive, send
        self._cut: asyncio.Future[Reason] = asyncio.get_running_loop().create_future()
        self._sessions: list[int] = []
        self._held: Message | None = None  # the start of a response that must come whole
        self._body = bytearray()

    async def serve(self) -> None:
        """Decide the request, and pass it on if it may go."""
        headers, ask = asked(self._scope, self._scope["method"])
        admitted = await self._door.gate.admit(ask, Placement.ASGI)
        if isinstance(admitted, Verdict):
            await self._refused(admitted)
            return
        content, body = await self._content(admitted.row, headers)
        verdict = await self._door.gate.judge(admitted, content)
        if not verdict.allowed or isinstance(content, BadBody):
            await self._refused(verdict)
            return
        await self._pass(verdict, content, body)

    async def _refused(self, verdict: Verdict) -> None:
        await refuse(self._send, verdict.denial)

    async def _pass(self, verdict: Verdict, content: Content, body: bytes | None, *more: Verdict) -> None:
        """Pass an allowed request on and follow its response; as soon as one of several allows ends, so does it."""
        for one in (verdict, *more):
            session = self._door.rechecker.open(one, self._order_cut)
            if isinstance(session, Reason):
                self._close()
                self._order_cut(session)  # the allow is on record: so must be that nothing came of it
                await self._note(verdict, Exchange(verdict, content))
                await self._refused(verdict.refused(session))
                return
            self._sessions.append(session)
        await self._run(verdict, content, body)

    def _close(self) -> None:
        for session in self._sessions:
            self._door.rechecker.close(session)

    async def _content(self, row: Row, headers: dict[str, str]) -> tuple[Content | BadBody, bytes | None]:
        if row.body not in {Body.JSON, Body.MULTIPART}:
            return UNREAD, None
        body = await self._whole()
        if body is None:
            return BadBody(why="no whole body within the limits"), None
        return bodies.read(row, body, headers), body

    async def _whole(self) -> bytes | None:
        """Return the whole body; None: above the limit, too slow, or the client left."""
        try:
            async with asyncio.timeout(LIMITS.request_body_s):
                return await self._read_body()
        except TimeoutError:
            return None

    async def _read_body(self) -> bytes | None:
        body = bytearray()
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                return None
            body += message.get("body", b"")
            if len(body) > LIMITS.body_bytes:
                return None
            if not message.get("more_body", False):
                return bytes(body)

    # -- the response ------------------------------------------------------------------------------------------------

    def _order_cut(self, reason: Reason) -> None:
        if not self._cut.done():
            self._cut.set_result(reason)

    async def _run(self, verdict: Verdict, content: Content, body: bytes | None) -> None:
        exchange = Exchange(verdict, content, carried=self._carried, results=self._door.gate.results)
        inner: asyncio.Task[None] | None = None
        try:
            scope, receive = self._onward(verdict, content, body)
            inner = asyncio.ensure_future(self._app(scope, receive, lambda message: self._passed(exchange, message)))
            either: set[asyncio.Future[Any]] = {inner, self._cut}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except NotPassableError as fault:
            self._order_cut(fault.reason)
        finally:
            # Also when the server cancels us, which is how some tell that the client left.
            self._close()
            if inner is not None and not inner.done():
                await ended(inner)
            if self._cut.done():
                await self._cut_off(verdict, exchange)
            await self._note(verdict, exchange)
        if inner is not None and not self._cut.done():
            inner.result()

    def _carried(self, messages: int) -> None:
        for session in self._sessions:
            self._door.rechecker.carried(session, messages)

    def _onward(self, verdict: Verdict, content: Content, body: bytes | None) -> tuple[Scope, Receive]:
        """Return what the application is called with."""
        sent = sent_on(verdict, content)
        scope = handed_on(
            self._scope, given=verdict.given, forward_credentials=self._door.forward_credentials, path=sent.path
        )
        # An encoded answer can neither be stripped nor carry the event that says it was cut.
        scope["headers"] = [field for field in scope["headers"] if field[0] != b"accept-encoding"]
        if body is None:
            return scope, self._receive
        if sent.body is not None:
            scope = with_length(scope, len(sent.body))
        return scope, replayed(body if sent.body is None else sent.body, self._receive)

    async def _passed(self, exchange: Exchange, message: Message) -> None:
        """Pass a message of the application's on to the client, if it may go."""
        if self._cut.done():
            raise _CutError
        try:
            onward = self._checked(exchange, message)
        except NotPassableError as fault:
            self._order_cut(fault.reason)
            raise _CutError from None
        if self._cut.done():  # by this very message: it was one too many
            raise _CutError
        for one in onward:
            await self._send(one)

    def _checked(self, exchange: Exchange, message: Message) -> tuple[Message, ...]:
        if message["type"] == "http.response.start":
            headers = {
                name.decode("latin-1").lower(): value.decode("latin-1") for name, value in message.get("headers", ())
            }
            if exchange.headers(headers):
                self._held = message
                return ()
            return (message,)
        if message["type"] != "http.response.body":
            return ()  # what no check of ours has seen
        return self._chunk(exchange, message)

    def _chunk(self, exchange: Exchange, message: Message) -> tuple[Message, ...]:
        body, more = message.get("body", b""), message.get("more_body", False)
        now = self._door.time.mono_s()
        if self._held is None:
            replaced = exchange.chunk(body, now, last=not more)
            return ({**message, "body": body if replaced is None else replaced},)
        self._body += body
        if len(self._body) > LIMITS.body_bytes:
            raise NotPassableError(Reason.OBLIGATION_UNSUPPORTED)
        if more:
            return ()
        whole = exchange.chunk(bytes(self._body), now, last=True) or b""
        fields = [field for field in self._held.get("headers", ()) if field[0].lower() != b"content-length"]
        start = {**self._held, "headers": [*fields, (b"content-length", str(len(whole)).encode())]}
        self._held = None
        return start, {"type": "http.response.body", "body": whole, "more_body": False}

    async def _cut_off(self, verdict: Verdict, exchange: Exchange) -> None:
        """Say that access ended where the protocol can, and leave the response incomplete."""
        reason = self._cut.result()
        with contextlib.suppress(Exception):  # the client may be gone, and no server agrees on how it says so
            if not exchange.delivered.started or self._held is not None:
                await self._refused(verdict.refused(reason))
            elif exchange.delivered.events_fit:
                event = exchange.error_event(reason)
                await self._send({"type": "http.response.body", "body": event, "more_body": True})

    async def _note(self, verdict: Verdict, exchange: Exchange) -> None:
        cut = self._cut.result() if self._cut.done() else None
        await self._door.notes.note("cut" if cut else "ended", decision_id=verdict.decision_id, **exchange.ended(cut))


def replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the decided bytes once, and then whatever the server says (a disconnect)."""
    pending = [body]

    async def replay() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return replay
