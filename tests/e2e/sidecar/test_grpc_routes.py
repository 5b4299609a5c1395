"""The Open Inference Protocol over gRPC, through the real Envoy: every message is checked, and a cut is never OK."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from pdp.errors import Reason
from pdp.model.decision import Obligation
from sidecar.envoy import Upstream
from sidecar.envoy_names import Address
from sidecar.routes import Served
from sidecar.routes.assembly import assemble
from sidecar.v1 import oip_pb2
from tests.e2e.sidecar.conftest import PATIENCE_S, laboratory
from tests.support.oip_grpc import SERVICE, GrpcModel

TENSORS = b"\x3a\x04\x01\x02\x03\x04"  # raw_input_contents, which our own messages do not know
SERVED = {
    "fraud": Served(resource="endpoint/fraud", model="model/fraud@12"),
    "latest": Served(resource="endpoint/fraud", model="model/fraud@12", upstream="fraud", pinned=True),
    "other": Served(resource="endpoint/other", model="model/other@1"),
}
GOOD = (("authorization", "Bearer good"),)


def infer(name: str = "fraud", version: str = "", *outputs: str) -> bytes:
    listed = [oip_pb2.RequestedOutput(name=one) for one in outputs]
    message = oip_pb2.InferRequest(model_name=name, model_version=version, id="7", outputs=listed)
    return message.SerializeToString() + TENSORS


@asynccontextmanager
async def grpc_lab(directory: Path) -> AsyncIterator[tuple[Any, GrpcModel, grpc.aio.Channel]]:
    model = GrpcModel()
    await model.start()
    table = assemble(served=SERVED, server="endpoint/all", protocols=("oip", "oip-grpc"))
    port = Upstream(address=Address(host="127.0.0.1", port=model.port))
    try:
        async with (
            laboratory(directory, table=table, upstream_grpc=port) as lab,
            grpc.aio.insecure_channel(f"127.0.0.1:{lab.address.port}") as channel,
        ):
            yield lab, model, channel
    finally:
        await model.stop()


Body = Callable[[Any, GrpcModel, grpc.aio.Channel], Awaitable[None]]


@pytest.fixture
def in_grpc_lab(tmp_path: Path) -> Callable[[Body], None]:
    def run(body: Body) -> None:
        async def go() -> None:
            async with asyncio.timeout(3 * PATIENCE_S), grpc_lab(tmp_path) as (lab, model, channel):
                await body(lab, model, channel)

        asyncio.run(go())

    return run


def unary(channel: grpc.aio.Channel, method: str, message: bytes, metadata: Any = GOOD) -> Any:
    return channel.unary_unary(f"/{SERVICE}/{method}")(message, metadata=metadata, timeout=PATIENCE_S)


async def refused(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as fault:
        await call
    return fault.value.code()


def test_an_infer_reaches_the_model_byte_for_byte(in_grpc_lab: Callable[[Body], None]) -> None:
    async def body(lab: Any, model: GrpcModel, channel: grpc.aio.Channel) -> None:
        message = infer("fraud", "12", "predict_proba")
        assert await unary(channel, "ModelInfer", message) == message
        assert model.seen == [("ModelInfer", message)]
        (question,) = lab.decider.questions
        assert (str(question.action), str(question.resource)) == ("endpoint.invoke", "endpoint/fraud")
        assert question.attributes["request.protocol"] == "grpc"
        assert question.attributes["request.outputs"] == ("predict_proba",)
        assert model.metadata[0]["x-pdp-subject"] == "user:bob@example.com"
        assert "authorization" not in model.metadata[0]

    in_grpc_lab(body)


def test_refusals_are_grpc_statuses_and_nothing_goes_on(in_grpc_lab: Callable[[Body], None]) -> None:
    async def body(lab: Any, model: GrpcModel, channel: grpc.aio.Channel) -> None:
        assert await refused(unary(channel, "ModelInfer", infer(), ())) is grpc.StatusCode.UNAUTHENTICATED
        assert await refused(unary(channel, "ModelInfer", infer("nobody"))) is grpc.StatusCode.PERMISSION_DENIED
        assert await refused(unary(channel, "ModelInfer", infer("fraud", "13"))) is grpc.StatusCode.PERMISSION_DENIED
        assert await refused(unary(channel, "ModelInfer", b"\xff\xff")) is grpc.StatusCode.PERMISSION_DENIED
        assert await refused(unary(channel, "ModelInfer", b"")) is grpc.StatusCode.PERMISSION_DENIED
        assert await refused(unary(channel, "RepositoryIndex", b"")) is grpc.StatusCode.PERMISSION_DENIED
        assert await refused(unary(channel, "Unheard", b"")) is grpc.StatusCode.PERMISSION_DENIED
        lab.decider.reason = Reason.WORLD_STALE
        assert await refused(unary(channel, "ModelInfer", infer())) is grpc.StatusCode.UNAVAILABLE
        assert model.seen == []

    in_grpc_lab(body)


def test_a_repeated_name_is_read_as_the_server_reads_it(in_grpc_lab: Callable[[Body], None]) -> None:
    """Protobuf takes the last of two: a byte scan would decide on the first."""

    async def body(lab: Any, model: GrpcModel, channel: grpc.aio.Channel) -> None:
        await unary(
            channel, "ModelInfer", infer("fraud") + oip_pb2.InferRequest(model_name="other").SerializeToString()
        )
        assert str(lab.decider.questions[0].resource) == "endpoint/other"
        assert len(model.seen) == 1

    in_grpc_lab(body)


def test_a_compressed_message_is_refused(in_grpc_lab: Callable[[Body], None]) -> None:
    async def body(lab: Any, model: GrpcModel, channel: grpc.aio.Channel) -> None:
        call = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        sent = call(infer() * 40, metadata=GOOD, compression=grpc.Compression.Gzip)
        assert await refused(sent) is grpc.StatusCode.PERMISSION_DENIED
        assert model.seen == []
        assert lab.decider.refusals[-1] == (Reason.BAD_REQUEST, "a compressed message")

    in_grpc_lab(body)


def test_a_load_with_a_configuration_is_another_right(in_grpc_lab: Callable[[Body], None]) -> None:
    async def body(lab: Any, _: GrpcModel, channel: grpc.aio.Channel) -> None:
        plain = oip_pb2.RepositoryRequest(model_name="fraud")
        code = oip_pb2.RepositoryRequest(model_name="fraud", parameters={"file:1/model.py": oip_pb2.Parameter()})
        for message in (plain, code):
            await unary(channel, "RepositoryModelLoad", message.SerializeToString())
        assert [str(one.action) for one in lab.decider.questions] == ["endpoint.load_model", "endpoint.load_override"]

    in_grpc_lab(body)


def test_an_alias_goes_up_as_the_pinned_version(in_grpc_lab: Callable[[Body], None]) -> None:
    async def body(_: Any, model: GrpcModel, channel: grpc.aio.Channel) -> None:
        await unary(channel, "ModelInfer", infer("latest"))
        arrived = oip_pb2.InferRequest.FromString(model.seen[0][1])
        assert (arrived.model_name, arrived.model_version, arrived.id) == ("fraud", "12", "7")
        assert TENSORS in model.seen[0][1]

    in_grpc_lab(body)


async def opened(channel: grpc.aio.Channel) -> Any:
    call = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(metadata=GOOD)
    await call.write(infer())
    assert await call.read() == infer()
    return call


async def broken(call: Any) -> grpc.StatusCode:
    """Read on until the call breaks; how its client sees the end."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as fault:
        return fault.code()
    raise AssertionError("the call ended")


def test_a_bidi_stream_carries_every_message_and_ends_ok(in_grpc_lab: Callable[[Body], None]) -> None:
    async def body(lab: Any, model: GrpcModel, channel: grpc.aio.Channel) -> None:
        call = await opened(channel)
        large = infer() + b"\x3a\x80\x80\x08" + bytes(131_072)
        await call.write(large)
        assert await call.read() == large
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        assert [message for _, message in model.seen] == [infer(), large]
        event, _, fields = await asyncio.wait_for(lab.decider.notes.get(), PATIENCE_S)
        assert (event, fields["messages"]) == ("ended", 2)

    in_grpc_lab(body)


@pytest.mark.parametrize("second", [infer("other"), infer("fraud", "13"), infer("fraud", "", "predict_proba"), b"\xff"])
def test_a_later_message_for_another_model_ends_the_stream(in_grpc_lab: Callable[[Body], None], second: bytes) -> None:
    async def body(lab: Any, model: GrpcModel, channel: grpc.aio.Channel) -> None:
        call = await opened(channel)
        await call.write(second)
        assert await broken(call) is grpc.StatusCode.INTERNAL
        assert [message for _, message in model.seen] == [infer()]
        await asyncio.wait_for(model.gone.wait(), PATIENCE_S)
        assert (await asyncio.wait_for(lab.decider.notes.get(), PATIENCE_S))[0] == "cut"

    in_grpc_lab(body)


def test_a_revoked_bidi_stream_is_reset_and_the_model_told(in_grpc_lab: Callable[[Body], None]) -> None:
    async def body(lab: Any, model: GrpcModel, channel: grpc.aio.Channel) -> None:
        call = await opened(channel)
        await lab.revoke()
        assert await broken(call) is grpc.StatusCode.INTERNAL
        await asyncio.wait_for(model.gone.wait(), PATIENCE_S)
        event, _, fields = await asyncio.wait_for(lab.decider.notes.get(), PATIENCE_S)
        assert (event, fields["reason"]) == ("cut", "no_grant")

    in_grpc_lab(body)


def test_the_message_that_is_one_too_many_cuts(in_grpc_lab: Callable[[Body], None]) -> None:
    async def body(lab: Any, model: GrpcModel, channel: grpc.aio.Channel) -> None:
        lab.decider.obligations = (Obligation(name="max_messages", value="2"),)
        call = await opened(channel)
        await call.write(infer())
        await call.read()
        await call.write(infer())
        assert await broken(call) is grpc.StatusCode.INTERNAL
        assert len(model.seen) == 2
        assert (await asyncio.wait_for(lab.decider.notes.get(), PATIENCE_S))[2]["reason"] == "budget_exceeded"

    in_grpc_lab(body)
