"""A PDP that answers what a test tells it to: a real gRPC server on loopback, and no policy behind it."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc

from pdp.v1 import asset_pb2, audit_pb2, decision_pb2, lock_pb2, policy_pb2, replication_pb2, types_pb2

_MODULES = (decision_pb2, asset_pb2, lock_pb2, policy_pb2, audit_pb2, replication_pb2)
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for module in _MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
Answer = Callable[[Any, grpc.ServicerContext], Any]


def refusal(status: grpc.StatusCode, reason: str = "", **fields: Any) -> Answer:
    """Return an answer that aborts, with an `ErrorDetail` if there is a reason."""

    def answer(_: Any, context: grpc.ServicerContext) -> None:
        if reason:
            detail = types_pb2.ErrorDetail(reason=reason, message=f"told: {reason}", **fields)
            context.set_trailing_metadata((("pdp-error-bin", detail.SerializeToString()),))
        context.abort(status, "words of the server")

    return answer


def decision(**fields: Any) -> decision_pb2.Decision:
    """Return an allow, but for what `fields` say."""
    allow = {"effect": types_pb2.EFFECT_ALLOW, "reason": "granted", "world_seq": 7, "decision_id": "d-1"}
    return decision_pb2.Decision(**(allow | fields))


def denial(**fields: Any) -> decision_pb2.Decision:
    """Return a deny, but for what `fields` say."""
    return decision(**({"effect": types_pb2.EFFECT_DENY, "reason": "no_grant"} | fields))


def evaluated(**fields: Any) -> decision_pb2.EvaluateResponse:
    """Return the answer to one question."""
    return decision_pb2.EvaluateResponse(decision=decision(**fields))


class ScriptedPdp(grpc.GenericRpcHandler):
    """Answers each method from its own queue: a message, a list of messages for a stream, or a function."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.credentials: list[str] = []
        self.released = threading.Event()
        self.stream_ended = threading.Event()
        self.hanging = threading.Event()
        self._script: dict[str, deque[Any]] = {}
        self._pool = ThreadPoolExecutor(max_workers=8)
        self._server = grpc.server(self._pool, handlers=[self])
        if credentials is None:
            port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    def script(self, method: str, *answers: Any) -> None:
        """Queue answers to `Service/Method`; the last one is given for ever."""
        self._script[f"/pdp.v1.{method}"] = deque(answers)

    def asked(self, method: str) -> list[Any]:
        """Return the messages that came for `Service/Method`."""
        return [message for path, message in self.calls if path == f"/pdp.v1.{method}"]

    def hang(self, _: Any, context: grpc.ServicerContext) -> None:
        """Answer nothing until the test ends or the caller goes away."""
        self.hanging.set()
        # False: the caller has gone already, and nobody would wake us.
        if context.add_callback(self.released.set):
            self.released.wait()

    def service(self, details: Any) -> grpc.RpcMethodHandler | None:
        method = METHODS.get(details.method)
        if method is None:
            return None
        ask, told = (_class(kind) for kind in (method.input_type, method.output_type))

        def one(message: Any, context: grpc.ServicerContext) -> Any:
            return self._next(details.method, message, context)

        def many(message: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            # Before the first message: a caller that leaves right after it must not be missed.
            context.add_callback(self.stream_ended.set)
            for step in self._next(details.method, message, context):
                answer = step(message, context) if callable(step) else step
                if answer is not None:
                    yield answer

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(many, ask.FromString, told.SerializeToString)
        return grpc.unary_unary_rpc_method_handler(one, ask.FromString, told.SerializeToString)

    def _next(self, path: str, message: Any, context: grpc.ServicerContext) -> Any:
        self.calls.append((path, message))
        self.credentials.append(dict(context.invocation_metadata()).get("authorization", ""))
        queue = self._script.get(path)
        if not queue:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "not in the script")
        answer = queue.popleft() if len(queue) > 1 else queue[0]
        return answer(message, context) if callable(answer) else answer

    def stop(self) -> None:
        """End every call and free the port."""
        self.released.set()
        self._server.stop(None).wait()
        self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _class(descriptor: Any) -> Any:
    return next(getattr(module, descriptor.name) for module in _MODULES if hasattr(module, descriptor.name))
