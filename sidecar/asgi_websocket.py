"""A WebSocket behind the gate: decided at the handshake, or by the first message that names a model; then message by message.

`/v1/realtime` names its model in a message. Until one has, the client's other messages are refused, and of the server's only
its greeting goes out: nothing is asked and nothing answered before the decision. A later message that names another model
closes the connection, as does the cut: 1008 (policy violation), which no client takes for a normal end.

Source: ENFORCEMENT.md 3.2, 4; RFC 6455, 7.4.1.
"""

import asyncio
import contextlib
from typing import Any

from pdp.errors import Reason
from sidecar.asgi_door import Door
from sidecar.asgi_scope import Application, Message, Receive, Scope, Send, asked, ended, handed_on
from sidecar.asked import Admitted, Verdict
from sidecar.bodies import UNREAD, BadBody, Content, strict_object
from sidecar.replies import Denial, word_of
from sidecar.routes import WEBSOCKET, Body, Placement

_VIOLATION = 1008
_GREETING = "session.created"


class Socket:
    """One WebSocket connection."""

    def __init__(self, app: Application, door: Door | None, scope: Scope, receive: Receive, send: Send) -> None:
        self._app, self._maybe_door, self._scope, self._receive, self._send = app, door, scope, receive, send
        self._cut: asyncio.Future[Reason] = asyncio.get_running_loop().create_future()
        self._verdict: Verdict | None = None
        self._session = 0
        self._name = ""
        self._from_client = self._from_server = 0
        self._accepted = self._closed = False

    async def serve(self) -> None:
        """Serve the connection to its end."""
        first = await self._receive()
        if first["type"] != "websocket.connect":
            return
        if self._maybe_door is None:
            await self._reject(Verdict(allowed=False, reason=Reason.PDP_UNREACHABLE))
            return
        self._door = self._maybe_door
        _, ask = asked(self._scope, WEBSOCKET)
        admitted = await self._door.gate.admit(ask, Placement.ASGI)
        if isinstance(admitted, Verdict):
            await self._reject(admitted)
            return
        if admitted.row.body is not Body.MESSAGES and not await self._decided(admitted, UNREAD):
            return
        await self._run(admitted, first)

    async def _decided(self, admitted: Admitted, content: Content | BadBody) -> bool:
        """Decide; return whether the connection may go on. A refusal has closed it."""
        verdict = await self._door.gate.judge(admitted, content)
        if verdict.allowed:
            session = self._door.rechecker.open(verdict, self._order_cut)
            if not isinstance(session, Reason):
                self._verdict, self._session = verdict, session
                return True
            verdict = verdict.refused(session)
            await self._door.notes.note("cut", decision_id=verdict.decision_id, reason=session.value)
        await self._reject(verdict)
        return False

    def _order_cut(self, reason: Reason) -> None:
        if not self._cut.done():
            self._cut.set_result(reason)

    async def _run(self, admitted: Admitted, first: Message) -> None:
        given = (
            self._verdict.given
            if self._verdict is not None
            else (("x-pdp-subject", str(admitted.who.party.principal)),)
        )
        scope = handed_on(self._scope, given=given, forward_credentials=self._door.forward_credentials)
        opening = [first]

        async def receive() -> Message:
            return opening.pop() if opening else await self._asked(admitted)

        inner = asyncio.ensure_future(self._app(scope, receive, self._answered))
        either: set[asyncio.Future[Any]] = {inner, self._cut}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._door.rechecker.close(self._session)
            if self._cut.done():
                await self._close(self._cut.result())
            if not inner.done():
                await ended(inner)
            await self._note()
        if not self._cut.done():
            inner.result()

    # -- messages ----------------------------------------------------------------------------------------------------

    async def _asked(self, admitted: Admitted) -> Message:
        """Return the client's next message, once it may go on."""
        message = await self._receive()
        if message["type"] != "websocket.receive":
            return message
        if admitted.row.body is Body.MESSAGES:
            await self._check(admitted, message)
        self._from_client += 1
        self._count()
        return message

    async def _check(self, admitted: Admitted, message: Message) -> None:
        name = _named(message)
        if isinstance(name, BadBody) and self._verdict is not None and message.get("text") is None:
            return  # sound, within a decided session
        if self._verdict is None:
            content = name if isinstance(name, BadBody) else Content(name=name, stream=True)
            if not await self._decided(admitted, content):
                self._order_cut(Reason.UNMAPPED_ROUTE)
                await (
                    asyncio.Event().wait()
                )  # the connection is closed; the application's task is about to be cancelled
            self._name = "" if isinstance(name, BadBody) else name
        elif isinstance(name, BadBody):
            await self._stop(Reason.BAD_REQUEST)
        elif name not in {"", self._name}:
            await self._stop(Reason.UNMAPPED_ROUTE)

    async def _stop(self, reason: Reason) -> None:
        self._order_cut(reason)
        await asyncio.Event().wait()  # as above

    async def _answered(self, message: Message) -> None:
        """Pass a message of the application's on, if it may go."""
        kind = message["type"]
        if self._cut.done() or self._closed:
            return
        if kind == "websocket.accept":
            self._accepted = True
        elif kind == "websocket.close":
            self._closed = True
        elif kind == "websocket.send":
            if self._verdict is None and _type(message) != _GREETING:
                self._order_cut(Reason.BAD_REQUEST)  # an answer before the question
                return
            self._from_server += 1
            self._count()
            if self._cut.done():
                return
        else:
            return
        await self._send(message)

    def _count(self) -> None:
        self._door.rechecker.carried(self._session, max(self._from_client, self._from_server))

    # -- the end -----------------------------------------------------------------------------------------------------

    async def _reject(self, verdict: Verdict) -> None:
        """Refuse: the handshake with a status where the server can, an open connection by closing it."""
        if self._accepted or "websocket.http.response" not in self._scope.get("extensions", {}):
            await self._close(verdict.reason)
            return
        self._closed = True
        await _http(self._send, verdict.denial)

    async def _close(self, reason: Reason) -> None:
        if self._closed:
            return
        self._closed = True
        reveal = self._verdict.reveal if self._verdict is not None else False
        word = word_of(reason, reveal=reveal)
        with contextlib.suppress(Exception):  # the client may be gone, and no server agrees on how it says so
            await self._send({"type": "websocket.close", "code": _VIOLATION, "reason": f"access ended: {word}"})

    async def _note(self) -> None:
        if self._verdict is None:
            return
        cut = self._cut.result() if self._cut.done() else None
        fields: dict[str, str | int] = {"messages": max(self._from_client, self._from_server)}
        if cut is not None:
            fields["reason"] = cut.value
        await self._door.notes.note("cut" if cut else "ended", decision_id=self._verdict.decision_id, **fields)


async def _http(send: Send, denial: Denial) -> None:
    fields = [(name.encode("ascii"), value.encode("ascii")) for name, value in denial.headers]
    await send({"type": "websocket.http.response.start", "status": denial.status, "headers": fields})
    await send({"type": "websocket.http.response.body", "body": denial.body, "more_body": False})


def _named(message: Message) -> str | BadBody:
    """Return the model that a client's message names; empty: none."""
    text = message.get("text")
    parsed = strict_object(text.encode()) if isinstance(text, str) else BadBody(why="not a text message")
    if isinstance(parsed, BadBody):
        return parsed
    session = parsed.get("session")
    names = [parsed.get("model"), session.get("model") if isinstance(session, dict) else None]
    said = [name for name in names if name is not None]
    if not all(isinstance(name, str) for name in said) or len(set(said)) > 1:
        return BadBody(why="two models, or none that is a name")
    return said[0] if said else ""


def _type(message: Message) -> str:
    text = message.get("text")
    parsed = strict_object(text.encode()) if isinstance(text, str) else None
    return str(parsed.get("type", "")) if isinstance(parsed, dict) else ""
