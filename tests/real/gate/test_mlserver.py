"""MLServer with scikit-learn models behind the whole gate: REST, events, gRPC both ways; allowed, denied, cut as it runs."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest

from sidecar.routes import Served
from sidecar.routes.assembly import assemble
from sidecar.v1 import oip_tensors_pb2 as tensors
from tests.support.model_servers import PATIENCE_S, Gated, gated, model_server
from tests.support.pdp import BOB, EVE

pytestmark = [pytest.mark.real_server, pytest.mark.timeout(240)]
SERVICE = "inference.GRPCInferenceService"
TABLE = assemble(
    served={
        "fraud": Served(resource="endpoint/fraud", model="model/fraud@12"),
        "feed": Served(resource="endpoint/feed", model="model/feed@12"),
        "newest": Served(resource="endpoint/fraud", model="model/fraud@12", upstream="fraud", pinned=True),
    },
    server="endpoint/mlserver",
    protocols=("oip", "oip-grpc"),
)
ASSETS = ("endpoint/fraud", "endpoint/feed", "endpoint/mlserver", "model/fraud@12", "model/feed@12")
ASKED = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 1.0]}]}
INFER = "/v2/models/fraud/infer"


@pytest.fixture
def behind_the_gate(tmp_path: Path) -> Callable[[Callable[[Gated], Awaitable[None]]], None]:
    def run(body: Callable[[Gated], Awaitable[None]]) -> None:
        async def go() -> None:
            async with (
                model_server("mlserver", "mlserver_feed.py", tmp_path, ports=3) as server,
                gated(server, tmp_path, table=TABLE, assets=ASSETS) as gate,
            ):
                await body(gate)

        asyncio.run(go())

    return run


Behind = Callable[[Callable[[Gated], Awaitable[None]]], None]


def message(model: str, amount: float = 1.0) -> bytes:
    asked = tensors.InferRequest(model_name=model, id="7")
    one = asked.inputs.add(name="x", datatype="FP64", shape=[1, 2])
    one.contents.fp64_contents.extend([amount, amount])
    return asked.SerializeToString()


def said(answer: bytes) -> int:
    return int(tensors.InferResponse.FromString(answer).outputs[0].contents.int64_contents[0])


def test_rest(behind_the_gate: Behind) -> None:
    """Allowed, denied by policy, by credential, by name; an alias pinned; lists filtered; documents and repository."""

    async def body(gate: Gated) -> None:
        async with gate.client() as bob, gate.client(EVE) as eve, gate.client("") as nobody:
            answer = await bob.post(INFER, json=ASKED)
            assert answer.json()["outputs"][0]["data"] == [1]
            assert (await bob.post("/v2/models/newest/infer", json=ASKED)).json()["model_version"] == "12"
            assert (await eve.post(INFER, json=ASKED)).status_code == 403
            assert (await nobody.post(INFER, json=ASKED)).status_code == 401
            assert (await bob.post("/v2/models/nobody/infer", json=ASKED)).status_code == 403
            assert (await bob.get("/v2/models/fraud")).json()["name"] == "fraud"
            assert (await bob.get("/v2/models/fraud/docs/dataplane.json")).json()["openapi"]
            assert (await bob.get("/v2")).json()["name"] == "mlserver"
            index = (await bob.post("/v2/repository/index", json={})).json()
            assert {one["name"] for one in index} == {"fraud", "feed"}
            await gate.lock("endpoint/feed")
            await gate.held()
            index = (await bob.post("/v2/repository/index", json={})).json()
            assert {one["name"] for one in index} == {"fraud"}
            assert (await bob.post("/v2/repository/models/fraud/unload")).status_code == 403  # no such right
            assert (await bob.post(INFER, json=ASKED)).status_code == 200

    behind_the_gate(body)


def test_an_event_stream_is_cut_and_mlserver_stops(behind_the_gate: Behind) -> None:
    async def body(gate: Gated) -> None:
        events: list[dict[str, Any]] = []

        async def listen() -> None:
            async with gate.client() as bob, bob.stream("POST", "/v2/models/feed/infer_stream", json=ASKED) as stream:
                assert stream.status_code == 200
                async for line in stream.aiter_lines():
                    if line.startswith("data: "):
                        events.append(json.loads(line.removeprefix("data: ")))
                    if len(events) == 3:
                        await gate.lock("endpoint/feed")

        with pytest.raises(httpx.RemoteProtocolError):
            await listen()
        assert events[0]["outputs"][0]["data"] == [1]
        assert events[-1]["error"].startswith("access ended")
        await gate.heard("nobody listens")

    behind_the_gate(body)


def test_grpc_unary(behind_the_gate: Behind) -> None:
    async def body(gate: Gated) -> None:
        async with gate.channel() as channel:
            infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")

            async def status(sub: str, sent: bytes) -> grpc.StatusCode:
                with pytest.raises(grpc.aio.AioRpcError) as fault:
                    await infer(sent, metadata=gate.pdp.metadata(sub), timeout=PATIENCE_S)
                return fault.value.code()

            bob = gate.pdp.metadata(BOB)
            assert said(await infer(message("fraud", 0.0), metadata=bob, timeout=PATIENCE_S)) == 0
            assert said(await infer(message("newest"), metadata=bob, timeout=PATIENCE_S)) == 1
            assert await status(EVE, message("fraud")) is grpc.StatusCode.PERMISSION_DENIED
            assert await status(BOB, message("nobody")) is grpc.StatusCode.PERMISSION_DENIED
            with pytest.raises(grpc.aio.AioRpcError) as unknown:
                await infer(message("fraud"), timeout=PATIENCE_S)
            assert unknown.value.code() is grpc.StatusCode.UNAUTHENTICATED
            for service in (SERVICE, "inference.model_repository.ModelRepositoryService"):
                unload = channel.unary_unary(f"/{service}/RepositoryModelUnload")
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await unload(b"\x12\x05fraud", metadata=bob, timeout=PATIENCE_S)
                assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert said(await infer(message("fraud"), metadata=bob, timeout=PATIENCE_S)) == 1

    behind_the_gate(body)


def test_a_bidirectional_stream_is_checked_message_by_message(behind_the_gate: Behind) -> None:
    async def body(gate: Gated) -> None:
        async with gate.channel() as channel:
            talk = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(metadata=gate.pdp.metadata(BOB))
            for amount, digit in ((0.0, 0), (1.0, 1)):
                await talk.write(message("feed", amount))
                assert said(await talk.read()) == digit
            await talk.write(message("fraud"))  # a right bob holds, but not the model that was decided on
            assert await talk.code() is not grpc.StatusCode.OK
            await gate.heard("nobody listens")

    behind_the_gate(body)


def test_a_bidirectional_stream_is_cut_by_a_lock(behind_the_gate: Behind) -> None:
    async def body(gate: Gated) -> None:
        async with gate.channel() as channel:
            talk = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(metadata=gate.pdp.metadata(BOB))
            await talk.write(message("feed"))
            assert said(await talk.read()) == 1
            await gate.lock("model/feed")
            assert await asyncio.wait_for(talk.code(), PATIENCE_S) is grpc.StatusCode.INTERNAL
            await gate.heard("nobody listens")

    behind_the_gate(body)
