"""The same for a `grpc.aio` server: `AsyncGrpcGuard(AsyncClient(...), rules)`.

Methods are coroutines, and those whose answers stream are asynchronous generators; a method of another kind is refused, since its
answers would not pass through here.
"""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, NoReturn, Protocol

import grpc
import grpc.aio

from pdp.errors import PortcullisError, Reason
from pdp.sdk.errors import AccessDenied, AccessEnded, PdpError
from pdp.sdk.grpc_guard import OPEN, Rule, codecs, of_our_own, refusal, token_of
from pdp.sdk.lease import AsyncLease
from pdp.sdk.protocols import AsyncChecks
from pdp.sdk.values import Bearer

_NO_MORE: Final = object()


class AsyncLeases(AsyncChecks, Protocol):
    """A client that gives leases: `AsyncClient`."""

    def lease(self, action: str, resource: str, **circumstances: Any) -> AsyncLease:
        """Return a lease to enter."""
        ...


class AsyncGrpcGuard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # generic in its stub alone
    """Decides the calls of an asyncio gRPC server. Arguments as of `GrpcGuard`, with an `AsyncClient`."""

    def __init__(self, client: AsyncLeases, rules: Mapping[str, Rule | None]) -> None:
        self._client = client
        self._rules = dict(rules)

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Put a decision in front of a method."""
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None or (method in self._rules and self._rules[method] is OPEN):
            return handler
        rule = self._rules.get(method)
        if rule is None:
            return grpc.unary_unary_rpc_method_handler(_refuser(Reason.UNMAPPED_ROUTE))
        return self._guarded(handler, rule)

    def _guarded(self, handler: Any, rule: Rule) -> Any:
        streams = handler.request_streaming
        if handler.response_streaming:
            inner = handler.stream_stream if streams else handler.unary_stream
            if not inspect.isasyncgenfunction(inner):
                return grpc.unary_unary_rpc_method_handler(_refuser(Reason.INTERNAL_ERROR))
            make = grpc.stream_stream_rpc_method_handler if streams else grpc.unary_stream_rpc_method_handler
            return make(self._leased(inner, rule, streams=streams), *codecs(handler))
        inner = handler.stream_unary if streams else handler.unary_unary
        if not inspect.iscoroutinefunction(inner):
            return grpc.unary_unary_rpc_method_handler(_refuser(Reason.INTERNAL_ERROR))
        make = grpc.stream_unary_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        return make(self._decided(inner, rule, streams=streams), *codecs(handler))

    def _decided(self, inner: Callable[..., Awaitable[Any]], rule: Rule, *, streams: bool) -> Callable[..., Any]:
        async def call(given: Any, context: Any) -> Any:
            if streams:
                return await inner(self._each(given, rule, context), context)
            await self._require(rule, given, context)
            return await inner(given, context)

        return call

    def _leased(self, inner: Callable[..., AsyncGenerator[Any]], rule: Rule, *, streams: bool) -> Callable[..., Any]:
        async def call(given: Any, context: Any) -> AsyncIterator[Any]:
            first = await anext(given, None) if streams else given
            if first is None:
                await _abort(context, Reason.BAD_REQUEST)
            messages = _with_first(first, self._each(given, rule, context)) if streams else given
            subject = Bearer(await _token(context))
            try:
                resource = rule.resource_of(first)
                lease = self._client.lease(rule.action, resource, subject=subject, attributes=rule.attributes)
                lease.cancels = False  # it would be gRPC that is cancelled, while it sends an answer for us
                async with lease:
                    async for answer in _while_granted(lease, inner(messages, context)):
                        yield answer
            except (AccessDenied, AccessEnded) as ended:
                await _abort(context, ended.reason)
            except PdpError:
                await _abort(context, Reason.PDP_UNREACHABLE)

        return call

    async def _each(self, messages: AsyncIterator[Any], rule: Rule, context: Any) -> AsyncIterator[Any]:
        async for message in messages:
            await self._require(rule, message, context)
            yield message

    async def _require(self, rule: Rule, message: Any, context: Any) -> None:
        subject = Bearer(await _token(context))
        try:
            resource = rule.resource_of(message)
            decision = await self._client.check(rule.action, resource, subject=subject, attributes=rule.attributes)
        except PortcullisError as error:
            await _abort(context, of_our_own(error))
        if not decision.allowed:
            await _abort(context, decision.reason)


async def _while_granted(lease: AsyncLease, answers: AsyncGenerator[Any]) -> AsyncIterator[Any]:
    """Yield answers until there are no more, or access has ended, even while the method is waiting for its next one."""
    ended = asyncio.ensure_future(lease.ended())
    try:
        while True:
            following = asyncio.ensure_future(anext(answers, _NO_MORE))
            try:
                await asyncio.wait({following, ended}, return_when=asyncio.FIRST_COMPLETED)
                lease.check()
                answer = await following
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            if answer is _NO_MORE:
                return
            yield answer
    finally:
        ended.cancel()
        await answers.aclose()


async def _with_first(first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield first
    async for message in rest:
        yield message


def _refuser(reason: Reason) -> Callable[[Any, Any], Awaitable[Any]]:
    async def refuse(_message: Any, context: Any) -> None:
        await _abort(context, reason)

    return refuse


async def _token(context: Any) -> str:
    token = token_of(context)
    if token is None:
        await _abort(context, Reason.CREDENTIAL_MISSING)
    return token


async def _abort(context: Any, reason: Reason) -> NoReturn:
    await context.abort(*refusal(reason))
    raise AssertionError("abort raises")
