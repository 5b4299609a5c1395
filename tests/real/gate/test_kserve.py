"""KServe's Python server behind the whole gate: its first protocol, the second over REST and gRPC; and our middleware in it."""

import asyncio
from pathlib import Path

import grpc.aio
import pytest

from sidecar.routes import Served
from sidecar.routes.assembly import assemble
from sidecar.v1 import oip_tensors_pb2 as tensors
from tests.support.model_servers import PATIENCE_S, Gated, Guarded, gated, guarded_inside, model_server
from tests.support.pdp import BOB, EVE

pytestmark = [pytest.mark.real_server, pytest.mark.timeout(240)]
SERVICE = "inference.GRPCInferenceService"
TABLE = assemble(
    served={"fraud": Served(resource="endpoint/fraud", model="model/fraud@12")},
    server="endpoint/kserve",
    protocols=("oip", "oip-grpc", "kserve-v1", "kserve-openai"),
)
ASSETS = ("endpoint/fraud", "endpoint/kserve", "model/fraud@12")
PREDICT, EXPLAIN, INFER = "/v1/models/fraud:predict", "/v1/models/fraud:explain", "/v2/models/fraud/infer"
ASKED = {"id": "7", "inputs": [{"name": "x", "shape": [2], "datatype": "FP64", "data": [0.1, 0.9]}]}


def test_kserve(tmp_path: Path) -> None:
    async def go() -> None:
        async with (
            model_server("kserve", "kserve_model.py", tmp_path) as server,
            gated(server, tmp_path, table=TABLE, assets=ASSETS) as gate,
        ):
            await over_rest(gate)
            await over_grpc(gate)

    asyncio.run(go())


async def over_rest(gate: Gated) -> None:
    async with gate.client() as bob, gate.client(EVE) as eve, gate.client("") as nobody:
        first = await bob.post(PREDICT, json={"instances": [0.1, 0.9]})
        assert first.json() == {"predictions": [0, 1]}
        assert (await bob.post(EXPLAIN, json={"instances": [0.1]})).json()["explanations"]
        assert (await bob.post(INFER, json=ASKED)).json()["outputs"][0]["data"] == [0, 1]
        assert (await bob.get("/v1/models")).json() == {"models": ["fraud"]}
        assert (await bob.get("/v2/models")).json() == {"models": ["fraud"]}
        assert (await bob.get("/")).json() == {"status": "alive"}
        for path in (PREDICT, EXPLAIN, INFER):
            assert (await eve.post(path, json=ASKED)).status_code == 403
            assert (await nobody.post(path, json=ASKED)).status_code == 401
        assert (await bob.get("/metrics")).status_code == 403  # `endpoint.observe` is none of a data scientist's rights
        assert (await bob.post("/v2/repository/models/fraud/unload")).status_code == 403
        assert (
            await bob.post("/openai/v1/chat/completions", json={"model": "fraud"})
        ).status_code == 404  # KServe's own


async def over_grpc(gate: Gated) -> None:
    asked = tensors.InferRequest(model_name="fraud", id="7")
    asked.inputs.add(name="x", datatype="FP64", shape=[2]).contents.fp64_contents.extend([0.1, 0.9])
    async with gate.channel() as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        answer = await infer(asked.SerializeToString(), metadata=gate.pdp.metadata(BOB), timeout=PATIENCE_S)
        assert list(tensors.InferResponse.FromString(answer).outputs[0].contents.int64_contents) == [0, 1]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await infer(asked.SerializeToString(), metadata=gate.pdp.metadata(EVE), timeout=PATIENCE_S)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        # KServe numbers this message's fields in a way of its own: what we would read as another repository is refused.
        unload = channel.unary_unary(f"/{SERVICE}/RepositoryModelUnload")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await unload(b"\x0a\x05fraud", metadata=gate.pdp.metadata(BOB), timeout=PATIENCE_S)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_the_middleware_in_kserves_own_process(tmp_path: Path) -> None:
    served = {"fraud": {"resource": "endpoint/fraud", "model": "model/fraud@12"}}
    routes = {"served": served, "server": "endpoint/kserve", "protocols": ["oip", "kserve-v1"]}

    async def go() -> None:
        async with guarded_inside("kserve", "kserve_model.py", tmp_path, routes=routes, assets=ASSETS) as guarded:
            await inside(guarded)

    asyncio.run(go())


async def inside(guarded: Guarded) -> None:
    async with guarded.client() as bob, guarded.client(EVE) as eve, guarded.client("") as nobody:
        asked = ASKED | {"instances": [0.1, 0.9]}
        assert (await bob.post(PREDICT, json=asked)).json() == {"predictions": [0, 1]}
        assert (await bob.post(INFER, json=asked)).json()["outputs"][0]["data"] == [0, 1]
        assert (await nobody.post(PREDICT, json=asked)).status_code == 401
        assert (await eve.post(PREDICT, json=asked)).status_code == 403
        assert (await bob.post("/v2/repository/models/fraud/unload")).status_code == 403
        assert (await bob.post("/openai/v1/completions", json=asked)).status_code == 403
