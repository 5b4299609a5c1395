"""ext_authz: Envoy asks before it forwards. The HTTP service for our own Envoy, gRPC `Check` for one that is not ours.

Both are thin shells over `gate.Gate`. In HTTP only status 200 allows, so 200 is written in exactly one place; in gRPC an
empty `CheckResponse` *allows*, so every response starts as a deny and becomes an allow in exactly one place.

Source: ENFORCEMENT.md 2.2 (EX-1 to EX-18), 2.4.
"""

import asyncio
import logging
from collections.abc import Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import grpc.aio
import httptools
from envoy.config.core.v3 import base_pb2
from envoy.service.auth.v3 import external_auth_pb2 as auth
from envoy.service.auth.v3 import external_auth_pb2_grpc as auth_grpc

from pdp.errors import Reason
from sidecar.asked import Ask, Verdict
from sidecar.envoy import CERTIFICATE_HEADER, GIVEN_HEADERS
from sidecar.gate import Gate
from sidecar.headers import CREDENTIALS, ONCE, TRACEPARENT, Headers
from sidecar.limits import LIMITS
from sidecar.replies import Denial
from sidecar.routes import Placement

_LOG = logging.getLogger(__name__)

PARTIAL = "x-envoy-auth-partial-body"
"""The mark of a question that carries a part of the body only."""

_READ = {name.encode("ascii"): name for name in (*ONCE, *CREDENTIALS, TRACEPARENT)}
"""The header fields that are read, as Envoy writes them: in lower case."""
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"upgrade", b"expect"})

# -- the HTTP service ------------------------------------------------------------------------------------------------


def _allow_bytes(verdict: Verdict) -> bytes:
    """Return the allow. INVARIANT: the only place that writes 200."""
    if verdict.allowed is not True:
        raise AssertionError("an allow is written for an allow only")
    fields = "".join(f"{name}: {value}\r\n" for name, value in verdict.given)
    return f"HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n".encode("ascii")


def _deny_bytes(refused: Denial, *, with_body: bool) -> bytes:
    body = refused.body if with_body else b""
    fields = "".join(f"{name}: {value}\r\n" for name, value in refused.headers)
    phrase = HTTPStatus(refused.status).phrase
    return f"HTTP/1.1 {refused.status} {phrase}\r\n{fields}content-length: {len(body)}\r\n\r\n".encode("ascii") + body


def response_bytes(verdict: Verdict, *, method: str) -> bytes:
    """Return the HTTP answer to one question; a HEAD gets no body."""
    return _allow_bytes(verdict) if verdict.allowed else _deny_bytes(verdict.denial, with_body=method != "HEAD")


class AuthzProtocol(asyncio.Protocol):
    """One connection of our Envoy. Anything Envoy would not send closes it, which Envoy takes for a failure: closed."""

    def __init__(self, gate: Gate, connections: set["AuthzProtocol"]) -> None:
        self._gate = gate
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._task: asyncio.Task[None] | None = None
        self._reset()

    def _reset(self) -> None:
        self._target = b""
        self._headers = Headers()
        self._size = 0

    # asyncio calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment] # a stream server makes Transports
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - how it ended changes nothing
        """End; an answer nobody waits for is not worth finishing."""
        self._connections.discard(self)
        self._transport = None
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Read; Envoy sends one question and waits for its answer, so bytes beside a running one are no Envoy's."""
        self._size += len(data)
        if self._task is not None or self._size > LIMITS.question_header_bytes:
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def close(self) -> None:
        """Close the connection without an answer."""
        if self._transport is not None:
            self._transport.abort()

    # httptools calls these; what they raise arrives as HttpParserError.

    def on_url(self, url: bytes) -> None:
        """Collect the request target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header field; latin-1, so that a byte is never lost, only refused later."""
        header = _READ.get(name) or _READ.get(lower := name.lower())
        if header is not None:
            self._headers.add(header, value.decode("latin-1"))
        elif lower in _FRAMING and (lower != b"content-length" or value != b"0"):
            raise ValueError("envoy asks without a body")

    def on_body(self, _body: bytes) -> None:
        """Refuse a body."""
        raise ValueError("envoy asks without a body")

    def on_message_complete(self) -> None:
        """Answer."""
        if self._task is not None:
            raise ValueError("envoy does not pipeline")
        method = self._parser.get_method().decode("latin-1")
        values = self._headers.values
        ask = self._headers.ask(
            method=method,
            target=self._target.decode("latin-1"),
            route=values.get("x-pdp-route", ""),  # ours always names its route: absent is a fault, not a foreign Envoy
            source_ip=values.get("x-pdp-source", ""),
        )
        self._reset()
        self._task = self._loop.create_task(self._answer(ask, method))

    async def _answer(self, ask: Ask, method: str) -> None:
        verdict = await self._gate.decide(ask, Placement.EXT_AUTHZ)
        if self._transport is not None:
            self._transport.write(response_bytes(verdict, method=method))
        self._task = None


class AuthzServer:
    """The HTTP service on its Unix socket."""

    def __init__(self, gate: Gate, socket: Path) -> None:
        self._gate = gate
        self._socket = socket
        self._connections: set[AuthzProtocol] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; the socket is 0600 in its 0700 directory."""
        self._socket.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            lambda: AuthzProtocol(self._gate, self._connections), path=str(self._socket)
        )
        self._socket.chmod(0o600)

    async def stop(self) -> None:
        """Stop listening, close every connection, remove the socket. Safe to call twice."""
        if self._server is None:
            return
        self._server.close()
        for connection in tuple(self._connections):
            connection.close()
        self._socket.unlink(missing_ok=True)
        self._server = None


# -- the gRPC service ------------------------------------------------------------------------------------------------


def _option(name: str, value: str) -> base_pb2.HeaderValueOption:
    return base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(key=name, value=value),
        append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )


def check_response(verdict: Verdict, *, seen: Iterable[str] = ()) -> auth.CheckResponse:
    """Return the gRPC answer. It starts as a deny (EX-1); `seen` are the client's header names, of which ours go (EX-6)."""
    response = auth.CheckResponse()
    response.status.code = grpc.StatusCode.PERMISSION_DENIED.value[0]
    if verdict.allowed is True:
        ours = [name for name in seen if name.startswith("x-pdp-") and name not in GIVEN_HEADERS]
        response.ok_response.headers.extend(_option(name, value) for name, value in verdict.given)
        response.ok_response.headers_to_remove.extend([*ours, *CREDENTIALS])
        response.status.code = grpc.StatusCode.OK.value[0]  # INVARIANT: the only place that says OK
        return response
    refused = verdict.denial
    response.denied_response.status.code = refused.status
    response.denied_response.headers.extend(_option(name, value) for name, value in refused.headers)
    response.denied_response.body = refused.body.decode("ascii")
    return response


def ask_of(request: auth.CheckRequest) -> tuple[Ask, frozenset[str]]:
    """Return the question in a `CheckRequest`, and the names of the headers the client sent."""
    attributes = request.attributes
    http = attributes.request.http
    headers = Headers()
    for name, value in http.headers.items():
        if name != CERTIFICATE_HEADER:  # whether that Envoy sanitises it is not ours to know; `source` says it (EX-16)
            headers.add(name.lower(), value)
    for raw in http.header_map.headers:  # raw headers were asked for: repeated ones stay apart
        if raw.key != CERTIFICATE_HEADER:
            headers.add(raw.key.lower(), (raw.raw_value or raw.value.encode()).decode("latin-1"))
    if PARTIAL in headers.values:
        headers.fault = (
            True  # half a body was judged worth asking about: what the model gets is more than anyone saw (EX-14)
        )
    if attributes.source.certificate:
        digest = "0" * 64  # this door carries none; the certificate itself is read
        headers.add(CERTIFICATE_HEADER, f'Hash={digest};Cert="{attributes.source.certificate}"')
    ask = headers.ask(
        method=http.method,
        target=http.path,
        route=attributes.context_extensions.get("route"),
        source_ip=attributes.source.address.socket_address.address,
    )
    return ask, frozenset(headers.values)


class AuthorizationService(auth_grpc.AuthorizationServicer):  # type: ignore[misc] # generated code is untyped
    """`envoy.service.auth.v3.Authorization`."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def Check(self, request: auth.CheckRequest, context: Any) -> auth.CheckResponse:  # noqa: N802, ARG002 - gRPC's
        """Answer; a deny is a successful RPC with status 7, never an abort (EX-2)."""
        try:
            ask, seen = ask_of(request)
            return check_response(await self._gate.decide(ask, Placement.EXT_AUTHZ), seen=seen)
        except Exception:  # noqa: BLE001 - the outermost boundary: an abort would be an *error*, open under someone's fail-open filter
            _LOG.exception("a check failed")
            return check_response(Verdict(allowed=False, reason=Reason.INTERNAL_ERROR))
