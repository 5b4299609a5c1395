"""The interceptor of asyncio servers, over the real client and a PDP that follows a script."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from scripted_pdp import ScriptedPdp, decision, denial

from pdp.sdk import AsyncClient
from pdp.sdk.grpc_guard import OPEN, Rule
from pdp.sdk.grpc_guard_aio import AsyncGrpcGuard
from pdp.v1 import decision_pb2

GOOD = (("authorization", "Bearer a.b.c"),)
RULE = Rule("model.download", lambda message: f"model/{message.decode()}")


class Models(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.closed = asyncio.Event()

    def service(self, details: Any) -> Any:
        async def unary(message: bytes, _: Any) -> bytes:
            self.seen.append(message)
            return message

        async def answers(message: bytes, _: Any) -> AsyncIterator[bytes]:
            try:
                yield message
                await asyncio.Event().wait()
            finally:
                self.closed.set()

        async def both(messages: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
            async for message in messages:
                self.seen.append(message)
                yield message

        def blocking(message: bytes, _: Any) -> bytes:
            self.seen.append(message)
            return message

        return {
            "/m/Unary": grpc.unary_unary_rpc_method_handler(unary),
            "/m/Open": grpc.unary_unary_rpc_method_handler(unary),
            "/m/Unlisted": grpc.unary_unary_rpc_method_handler(unary),
            "/m/Blocking": grpc.unary_unary_rpc_method_handler(blocking),
            "/m/Answers": grpc.unary_stream_rpc_method_handler(answers),
            "/m/Both": grpc.stream_stream_rpc_method_handler(both),
        }.get(details.method)


Body = Callable[[grpc.aio.Channel, Models], Awaitable[None]]


def serve(pdp: ScriptedPdp, body: Body) -> None:
    async def go() -> None:
        models = Models()
        async with AsyncClient(pdp.address, token="s.v.c", cache_s=0) as client:
            rules = {f"/m/{name}": RULE for name in ("Unary", "Blocking", "Answers", "Both")} | {"/m/Open": OPEN}
            server = grpc.aio.server(handlers=[models], interceptors=[AsyncGrpcGuard(client, rules)])
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                await body(channel, models)
            await server.stop(None)

    asyncio.run(asyncio.wait_for(go(), 30))


def answer(request: Any, _: Any) -> decision_pb2.EvaluateResponse:
    granted = request.question.resource == "model/fraud@7"
    return decision_pb2.EvaluateResponse(decision=decision() if granted else denial())


async def status(call: Awaitable[Any]) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    code: grpc.StatusCode = raised.value.code()
    return code.name


def test_an_rpc_is_decided_by_its_message_and_its_callers_token(pdp: ScriptedPdp) -> None:
    pdp.script("DecisionService/Evaluate", answer)

    async def body(channel: grpc.aio.Channel, models: Models) -> None:
        call: Any = channel.unary_unary("/m/Unary")
        assert await call(b"fraud@7", metadata=GOOD) == b"fraud@7"
        for refused in (b"fraud@8", b".."):
            assert await status(call(refused, metadata=GOOD)) == "PERMISSION_DENIED"
        assert await status(call(b"fraud@7")) == "UNAUTHENTICATED"
        assert await status(call(b"fraud@7", metadata=GOOD * 2)) == "UNAUTHENTICATED"
        assert models.seen == [b"fraud@7"]

    serve(pdp, body)
    assert pdp.asked("DecisionService/Evaluate")[0].question.subject.credential == "Bearer a.b.c"


def test_what_has_no_rule_or_does_not_pass_here_is_refused(pdp: ScriptedPdp) -> None:
    async def body(channel: grpc.aio.Channel, models: Models) -> None:
        for name, code in (("Unlisted", "PERMISSION_DENIED"), ("Blocking", "INTERNAL")):
            call: Any = channel.unary_unary(f"/m/{name}")
            assert await status(call(b"fraud@7", metadata=GOOD)) == code
        assert not models.seen
        opened: Any = channel.unary_unary("/m/Open")
        assert await opened(b"x") == b"x"

    serve(pdp, body)


def test_answers_that_stream_end_with_access_even_while_the_method_waits(pdp: ScriptedPdp) -> None:
    go_on = threading.Event()

    def cut(_: Any, __: Any) -> decision_pb2.WatchResponse:
        assert go_on.wait(10)
        return decision_pb2.WatchResponse(decision=denial(reason="locked", world_seq=9), ended=True)

    pdp.script("DecisionService/Watch", [decision_pb2.WatchResponse(decision=decision()), cut])

    async def body(channel: grpc.aio.Channel, models: Models) -> None:
        call: Any = channel.unary_stream("/m/Answers")(b"fraud@7", metadata=GOOD)
        assert await call.read() == b"fraud@7"
        go_on.set()
        assert await status(call.read()) == "PERMISSION_DENIED"
        await models.closed.wait()

    serve(pdp, body)


def test_each_message_of_a_stream_is_decided(pdp: ScriptedPdp) -> None:
    pdp.script("DecisionService/Evaluate", answer)
    pdp.script("DecisionService/Watch", [decision_pb2.WatchResponse(decision=decision()), pdp.hang])

    async def body(channel: grpc.aio.Channel, models: Models) -> None:
        call: Any = channel.stream_stream("/m/Both")(metadata=GOOD)
        await call.write(b"fraud@7")
        assert await call.read() == b"fraud@7"
        await call.write(b"fraud@8")
        assert await status(call.read()) == "PERMISSION_DENIED"
        assert models.seen == [b"fraud@7"]

    serve(pdp, body)
