"""The guard of every RPC, in this order: credential, right, size, parse, servicer, error.

Theory of operation. gRPC would parse a message before any code of ours runs, so the guard takes the bytes: nothing of a
message is looked at before its caller is known to be allowed (FAILURE.md L1, G2). A unary RPC ends at the ceiling of G3. A
stream lasts while its *leash* holds: it is ended when the caller's credential ends, when a new world or the end of a role
takes its right away, or when the process drains. Whatever a servicer raises leaves as one of the table's statuses, and
what nobody foresaw as INTERNAL with a constant text (G1).
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Final, NoReturn

import grpc
import structlog

from pdp.adapters.telemetry import Metrics
from pdp.errors import BadRequestError, PortcullisError, Reason
from pdp.identity.certificates import PeerCertificate
from pdp.identity.challenge import challenge
from pdp.identity.gate import single_value
from pdp.identity.types import Refusal
from pdp.limits import EXPIRY_MARGIN_S, MAX_DEADLINE_S, PEER_CACHE_ENTRIES
from pdp.model.trace import TRACE, trace_id
from pdp.ports import Clock
from pdp.server.callers import CALLER, RENEW, Caller, Gate, Refused
from pdp.server.grpc.rights import RULES, Rule
from pdp.server.grpc.status import INTERNAL, status_of
from pdp.service.watch_index import Watches

Context = grpc.aio.ServicerContext[Any, Any]
_log = structlog.get_logger("pdp.grpc")
_DRAINING: Final = PortcullisError(Reason.PDP_UNREACHABLE, "this PDP is shutting down", advice="call again")
_EXPIRED: Final = PortcullisError(
    Reason.TOKEN_EXPIRED, "the caller's credential has expired", advice="call again with a fresh one"
)


def _nothing() -> None:
    return None


@dataclass(slots=True, eq=False)
class _Leash:
    """What holds a stream: set to an error, it ends the stream with it."""

    caller: Caller | None
    rule: Rule
    ended: asyncio.Future[PortcullisError] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    leave: Callable[[], None] = _nothing
    next_look: asyncio.TimerHandle | None = None
    expiry: asyncio.TimerHandle | None = None

    def end(self, error: PortcullisError) -> None:
        if not self.ended.done():
            self.ended.set_result(error)

    def plan(self, look: asyncio.TimerHandle | None) -> None:
        if self.next_look is not None:
            self.next_look.cancel()
        self.next_look = look


@dataclass(frozen=True, slots=True, kw_only=True)
class _Method:
    """One RPC as its servicer registered it, with its rule."""

    path: str
    rule: Rule
    handler: Any

    def parse(self, raw: bytes) -> Any:
        """Return the message in `raw`, which is within the RPC's limit, or refuse it."""
        if len(raw) > self.rule.limit_bytes:
            raise BadRequestError(f"a message to {self.path} has at most {self.rule.limit_bytes} bytes")
        try:
            return self.handler.request_deserializer(raw)
        except Exception as error:  # outermost boundary: the parser's own exceptions differ between backends
            raise BadRequestError(f"not a message of {self.path}") from error

    async def parse_each(self, raw: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        """Yield the messages of a stream."""
        async for item in raw:
            yield self.parse(item)

    def write(self, response: Any) -> bytes:
        """Return the bytes of a response."""
        raw: bytes = self.handler.response_serializer(response)
        return raw


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # generic in its stubs only
    """Stands before every RPC of the server; `drain` ends its streams."""

    def __init__(
        self, *, gate: Gate, watches: Watches, clock: Clock, metrics: Metrics, new_id: Callable[[], str]
    ) -> None:
        self._gate = gate
        self._clock = clock
        self._metrics = metrics
        self._new_id = new_id
        self._leashes: set[_Leash] = set()
        self._handlers: dict[str, Any] = {}
        self._draining = False
        self._watches = watches

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the handler of an RPC behind the guard; None for what is not served."""
        path: str = handler_call_details.method
        known = self._handlers.get(path)
        if known is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            known = self._handlers[path] = self._guarded(path, handler)
        return known

    def drain(self) -> None:
        """End every stream, so that only calls with an answer to come hold up the end."""
        self._draining = True
        for leash in tuple(self._leashes):
            leash.end(_DRAINING)

    def _guarded(self, path: str, handler: Any) -> Any:
        rule = RULES.get(path)
        if rule is None:
            return grpc.unary_unary_rpc_method_handler(self._unlisted)
        method = _Method(path=path, rule=rule, handler=handler)

        # gRPC looks at the kind of function that it is given: these must be a coroutine and an async generator.
        async def unary(request: Any, context: Context) -> bytes:
            return await self._unary(method, request, context)

        async def stream(request: Any, context: Context) -> AsyncGenerator[bytes, None]:
            async with contextlib.aclosing(self._stream(method, request, context)) as responses:
                async for response in responses:
                    yield response

        # Every request is taken as a stream, which looks the same on the wire: gRPC reads a lone message before it calls
        # us, and thereby holds up to 32 MiB for anybody who begins one and stops; of a stream it reads what we ask for.
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make(stream if handler.response_streaming else unary)

    async def _unlisted(self, _request: bytes, context: Context) -> bytes:
        """Refuse an RPC that the table of rights does not know: it was forgotten, so nobody holds it."""
        error = PortcullisError(Reason.NO_GRANT, "this call is in no table of rights")
        return await self._abort(context, error, self._new_id())

    async def _unary(self, method: _Method, request: Any, context: Context) -> bytes:
        started_s = self._clock.mono_s()
        correlation_id = self._new_id()
        try:
            async with asyncio.timeout(method.rule.ceiling_s or MAX_DEADLINE_S):
                await self._enter(method, context)
                response = await _behaviour(method)(await _message(method, request), context)
                raw = method.write(response)
        except TimeoutError:
            error = PortcullisError(Reason.DEADLINE_EXCEEDED, "the PDP's ceiling for one call has passed")
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as failure:  # noqa: BLE001 - outermost boundary: G1
            error = _known(failure, method.path, correlation_id)
        else:
            self._metrics.call(method.path, "OK", self._clock.mono_s() - started_s)
            return raw
        self._metrics.call(method.path, error.meaning.grpc, self._clock.mono_s() - started_s)
        return await self._abort(context, error, correlation_id)

    async def _stream(self, method: _Method, request: Any, context: Context) -> AsyncGenerator[bytes, None]:
        correlation_id = self._new_id()
        error: PortcullisError | None = None
        try:
            caller = await self._enter(method, context)
            async with contextlib.aclosing(self._held(method, caller, request, context)) as responses:
                async for response in responses:
                    yield method.write(response)
        except (asyncio.CancelledError, GeneratorExit, grpc.aio.AbortError):
            raise
        except Exception as failure:  # noqa: BLE001 - outermost boundary: G1
            error = _known(failure, method.path, correlation_id)
        self._metrics.call(method.path, error.meaning.grpc if error else "OK", None)
        if error is not None:
            await self._abort(context, error, correlation_id)

    async def _enter(self, method: _Method, context: Context) -> Caller | None:
        """Authenticate and authorise; the caller is known to servicers as `CALLER`, its trace to records as `TRACE`."""
        TRACE.set(trace_id(_single(context, "traceparent")))
        if method.rule.open:
            return None
        peer = _peer(context)
        if isinstance(peer, Refusal):
            answer = await self._gate.refuse(peer, method=method.path)
            message = "the client certificate is refused"
            raise Refused(peer.reason, message, decision_id=answer.decision_id, challenge=challenge(peer))
        caller = await self._gate.admit(
            _single(context, "authorization"), peer, method=method.path, proof=_single(context, "dpop")
        )
        if method.rule.right is not None:
            await self._gate.authorise(caller, method.rule.right)
        CALLER.set(caller)
        return caller

    async def _held(
        self, method: _Method, caller: Caller | None, request: Any, context: Context
    ) -> AsyncGenerator[Any, None]:
        """Yield what the servicer does, while the leash holds; a servicer of streams is an async generator.

        Raises:
            PortcullisError: what ended the leash.
        """
        leash = _Leash(caller=caller, rule=method.rule)
        self._leashes.add(leash)
        self._follow(leash)
        self._expires(leash)
        RENEW.set(partial(self._renew, leash, method))
        if self._draining:
            leash.end(_DRAINING)
        # Once more, now that new worlds reach the leash: one may have come while the allow was being recorded.
        self._look(leash)
        try:
            message = await _message(method, request)
            async with contextlib.aclosing(_behaviour(method)(message, context)) as responses:
                while (response := await _next(responses, leash)) is not None:
                    yield response
        finally:
            self._leashes.discard(leash)
            leash.leave()
            leash.plan(None)
            if leash.expiry is not None:
                leash.expiry.cancel()

    def _expires(self, leash: _Leash) -> None:
        """End the stream when its caller's credential ends, in place of when the one before would have."""
        if leash.expiry is not None:
            leash.expiry.cancel()
            leash.expiry = None
        expires_at_s = leash.caller.identity.expires_at_s if leash.caller else 0
        if expires_at_s:
            # A watch ends itself at expiry, without an error; the margin lets it.
            left_s = expires_at_s - self._clock.now_ms() / 1000 + EXPIRY_MARGIN_S
            leash.expiry = asyncio.get_running_loop().call_later(max(0.0, left_s), leash.end, _EXPIRED)

    async def _renew(self, leash: _Leash, method: _Method, authorization: str) -> None:
        """Let an open stream go on with a fresh credential of the same principal, looked at as at the door.

        Raises:
            PortcullisError: it does not hold, is another's, or its holder may no longer do this.
        """
        held = leash.caller
        if held is None:
            return
        caller = await self._gate.admit(authorization, held.peer, method=method.path)
        if caller.name != held.name:
            raise BadRequestError("a stream goes on only as the principal that opened it")
        if method.rule.right is not None:
            await self._gate.authorise(caller, method.rule.right)
        leash.caller = caller
        self._follow(leash)
        self._expires(leash)
        self._look(leash)

    def _follow(self, leash: _Leash) -> None:
        """Have the stream's caller looked at again by every world that may take its right (IDENTITY.md RV-2), and no other.

        Measured with 5,000 watches: looking at each of them at every world held up a lock by half a second.
        """
        leash.leave()
        if leash.caller is not None and leash.rule.right is not None:
            leash.leave = self._watches.add(leash.caller.question(leash.rule.right), partial(self._look, leash))

    def _look(self, leash: _Leash) -> None:
        """End a stream whose caller has lost its right, or plan the next look: a role that ends by time makes no world."""
        caller, wanted = leash.caller, leash.rule.right
        if caller is None or wanted is None:
            return
        reason = self._gate.lost(caller, wanted)
        if reason is not None:
            leash.end(PortcullisError(reason, f"no longer allowed: {wanted}"))
        after_s = None if reason is not None else self._gate.holds_for_s(caller, wanted)
        # The margin keeps a bound that has just passed from becoming a busy loop.
        pause_s = None if after_s is None else max(EXPIRY_MARGIN_S, after_s)
        loop = asyncio.get_running_loop()
        leash.plan(None if pause_s is None else loop.call_later(pause_s, self._look, leash))

    async def _abort(self, context: Context, error: PortcullisError, correlation_id: str) -> NoReturn:
        status = status_of(error, correlation_id=correlation_id)
        await context.abort(status.code, status.message, trailing_metadata=status.trailing)


def _known(failure: Exception, path: str, correlation_id: str) -> PortcullisError:
    """Return the error to tell the caller; one that nobody foresaw is logged and told apart from nothing."""
    if isinstance(failure, PortcullisError):
        return failure
    _log.error("unhandled exception", rpc=path, correlation_id=correlation_id, exc_info=failure)
    return INTERNAL


def _behaviour(method: _Method) -> Callable[..., Any]:
    """Return the servicer's function, under whichever of gRPC's four names it is registered."""
    handler = method.handler
    found: Callable[..., Any] = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    return found


async def _message(method: _Method, request: AsyncIterator[bytes]) -> Any:
    """Return what the servicer takes: the one message, or an iterator over them; a caller has bounded time to send one."""
    if method.handler.request_streaming:
        return method.parse_each(request)
    try:
        async with asyncio.timeout(MAX_DEADLINE_S):
            raw = await anext(request, None)
    except TimeoutError:
        raise PortcullisError(Reason.DEADLINE_EXCEEDED, "the message of the call did not come in time") from None
    if raw is None:
        raise BadRequestError(f"a call of {method.path} carries a message")
    return method.parse(raw)


async def _next(responses: AsyncIterator[Any], leash: _Leash) -> Any:
    """Return the next response, or None at the end.

    Raises:
        PortcullisError: the leash ended first.
    """
    coming = asyncio.ensure_future(anext(responses, None))
    try:
        await asyncio.wait((coming, leash.ended), return_when=asyncio.FIRST_COMPLETED)
        if coming.done():
            return coming.result()
        raise leash.ended.result()
    finally:
        if not coming.done():
            coming.cancel()
            await asyncio.wait((coming,))


def _single(context: Context, name: str) -> str | None:
    """Return the one value of that metadata; two are joined, as HTTP would, so that they are refused (T-02, PR-3)."""
    values = [value for key, value in context.invocation_metadata() or () if key == name]
    return single_value(value if isinstance(value, str) else value.decode("latin-1") for value in values)


def _peer(context: Context) -> PeerCertificate | Refusal | None:
    seen = context.auth_context() or {}
    leaf, chain = (b"".join(seen.get(name, ())) for name in ("x509_pem_cert", "x509_pem_cert_chain"))
    return _certificate(leaf + chain) if leaf else None


@lru_cache(maxsize=PEER_CACHE_ENTRIES)
def _certificate(pem: bytes) -> PeerCertificate | Refusal:
    """Parse the certificate that our TLS listener verified; key: its bytes, which decide everything about it."""
    return PeerCertificate.from_pem(pem)
