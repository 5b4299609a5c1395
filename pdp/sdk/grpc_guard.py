"""A gRPC server interceptor: every method is decided for the bearer token of its call, and a method without a rule is refused.

    rules = {"/shop.Models/Download": Rule("model.download", lambda request: f"model/{request.name}@{request.version}")}
    server = grpc.server(pool, interceptors=[GrpcGuard(client, rules)])

The resource comes from each request message: a stream of them is decided message by message. Answers that stream are a
lease: when access ends the call is aborted, and nothing that comes later is sent.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

import grpc

from pdp.errors import MEANINGS, PortcullisError, Reason
from pdp.sdk.errors import AccessDenied, AccessEnded, PdpError
from pdp.sdk.guards import bearer_token
from pdp.sdk.lease import Lease
from pdp.sdk.protocols import Checks
from pdp.sdk.values import AttributeValue, Bearer


class Leases(Checks, Protocol):
    """A client that gives leases: `Client`, `LocalClient`."""

    def lease(self, action: str, resource: str, **circumstances: Any) -> Lease:
        """Return a lease to enter."""
        ...


@dataclass(frozen=True, slots=True)
class Rule:
    """What a method needs: an action, and the resource that a request message means, by name or by a function of it."""

    action: str
    resource: str | Callable[[Any], str]
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)

    def resource_of(self, message: Any) -> str:
        """Return the resource that `message` means."""
        return self.resource if isinstance(self.resource, str) else self.resource(message)


OPEN: None = None
"""Stands for a rule where a method is open to everybody, such as the standard health check."""


class GrpcGuard(grpc.ServerInterceptor):  # type: ignore[type-arg] # generic in its stub alone
    """Decides the calls of a blocking gRPC server.

    Args:
        client: who asks.
        rules: by full name of the method, `/package.Service/Method`; `OPEN` lets everybody in.
    """

    def __init__(self, client: Leases, rules: Mapping[str, Rule | None]) -> None:
        self._client = client
        self._rules = dict(rules)

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Put a decision in front of a method."""
        method = handler_call_details.method
        handler = continuation(handler_call_details)
        if handler is None or (method in self._rules and self._rules[method] is OPEN):
            return handler
        rule = self._rules.get(method)
        if rule is None:
            return grpc.unary_unary_rpc_method_handler(lambda _, context: _abort(context, Reason.UNMAPPED_ROUTE))
        return self._guarded(handler, rule)

    def _guarded(self, handler: Any, rule: Rule) -> Any:
        if handler.response_streaming:
            inner = handler.stream_stream if handler.request_streaming else handler.unary_stream
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            return make(self._leased(inner, rule, streams=handler.request_streaming), *codecs(handler))
        inner = handler.stream_unary if handler.request_streaming else handler.unary_unary
        make = (
            grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        )
        return make(self._decided(inner, rule, streams=handler.request_streaming), *codecs(handler))

    def _decided(self, inner: Callable[..., Any], rule: Rule, *, streams: bool) -> Callable[..., Any]:
        def call(given: Any, context: Any) -> Any:
            if streams:
                return inner(self._each(given, rule, context), context)
            self._require(rule, given, context)
            return inner(given, context)

        return call

    def _leased(self, inner: Callable[..., Any], rule: Rule, *, streams: bool) -> Callable[..., Iterator[Any]]:
        def call(given: Any, context: Any) -> Iterator[Any]:
            if streams:
                first = next(given, None)
                if first is None:
                    _abort(context, Reason.BAD_REQUEST)
                messages = _with_first(first, self._each(given, rule, context))
            else:
                first = messages = given
            try:
                with self._lease(rule, first, context) as lease:
                    yield from lease.iterate(inner(messages, context))
            except (AccessDenied, AccessEnded) as ended:
                _abort(context, ended.reason)
            except PdpError:
                _abort(context, Reason.PDP_UNREACHABLE)

        return call

    def _each(self, messages: Iterator[Any], rule: Rule, context: Any) -> Iterator[Any]:
        for message in messages:
            self._require(rule, message, context)
            yield message

    def _require(self, rule: Rule, message: Any, context: Any) -> None:
        token = _token(context)
        try:
            resource = rule.resource_of(message)
            decision = self._client.check(rule.action, resource, subject=Bearer(token), attributes=rule.attributes)
        except PortcullisError as error:
            _abort(context, of_our_own(error))
        if not decision.allowed:
            _abort(context, decision.reason)

    def _lease(self, rule: Rule, message: Any, context: Any) -> Lease:
        subject = Bearer(_token(context))
        return self._client.lease(rule.action, rule.resource_of(message), subject=subject, attributes=rule.attributes)


def _with_first(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def codecs(handler: Any) -> tuple[Any, Any]:
    """Return how a method reads and writes its messages."""
    return handler.request_deserializer, handler.response_serializer


def token_of(context: Any) -> str | None:
    """Return the bearer token of a call; None: there is none, or more than one."""
    return bearer_token([value for key, value in context.invocation_metadata() if key == "authorization"])


def of_our_own(error: PortcullisError) -> Reason:
    """Return the reason for the caller: a question that is malformed is theirs, every other failure is ours."""
    return error.reason if MEANINGS[error.reason].http < 401 else Reason.PDP_UNREACHABLE  # noqa: PLR2004 - HTTP's


def refusal(reason: Reason) -> tuple[grpc.StatusCode, str]:
    """Return status and words of a reason; which one of policy's it was, the record knows (FAILURE.md N10)."""
    status = MEANINGS[reason].grpc
    status = "PERMISSION_DENIED" if status in {"OK", "NOT_FOUND", "INVALID_ARGUMENT"} else status
    return grpc.StatusCode[status], reason.value if status == "UNAUTHENTICATED" else status.lower()


def _token(context: Any) -> str:
    """Return the bearer token of a call, or abort it."""
    token = token_of(context)
    if token is None:
        _abort(context, Reason.CREDENTIAL_MISSING)
    return token


def _abort(context: Any, reason: Reason) -> NoReturn:
    context.abort(*refusal(reason))
    raise AssertionError("abort raises")
