"""KServe's Python server behind the whole gate: its first protocol, the second over REST and gRPC; and our middleware in it."""

import asyncio
from pathlib import Path

import grpc.aio
import httpx
import pytest
import yaml

from sidecar.routes import Served
from sidecar.routes.assembly import assemble
from sidecar.v1 import oip_tensors_pb2 as tensors
from tests.support.model_servers import PATIENCE_S, Gated, ModelServer, access_of, gated, known, model_server
from tests.support.pdp import BOB, EVE, RunningPdp, running_pdp

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
    async def go() -> None:
        async with running_pdp(tmp_path, assets=known(ASSETS)) as pdp:
            settings = middleware(pdp)
            async with model_server("kserve", "kserve_model.py", tmp_path, PDP_SIDECAR_CONFIG=str(settings)) as server:
                await inside(server, pdp)

    asyncio.run(go())


def middleware(pdp: RunningPdp) -> Path:
    """Write what the middleware reads; return its file."""
    access = access_of(pdp)
    served = {"fraud": {"resource": "endpoint/fraud", "model": "model/fraud@12"}}
    routes = {"served": served, "server": "endpoint/kserve", "protocols": ["oip", "kserve-v1"]}
    (pdp.directory / "routes.yaml").write_text(yaml.safe_dump(routes))
    reached = {
        "address": access.address,
        "root_digest": access.root_digest,
        "plaintext": True,
        "token_file": "gate.token",
    }
    settings = {"pdp": reached, "trust": "trust.yaml", "routes": "routes.yaml", "state_dir": "middleware"}
    file = pdp.directory / "sidecar.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


async def inside(server: ModelServer, pdp: RunningPdp) -> None:
    async def asked(path: str, sub: str = "") -> httpx.Response:
        headers = {"authorization": f"Bearer {pdp.token(sub)}"} if sub else {}
        return await client.post(path, json=ASKED | {"instances": [0.1, 0.9]}, headers=headers)

    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S, trust_env=False) as client:
        async with asyncio.timeout(PATIENCE_S):
            # Until its world is whole it denies.
            while (await asked(PREDICT, BOB)).status_code != httpx.codes.OK:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.05)
        assert (await asked(PREDICT, BOB)).json() == {"predictions": [0, 1]}
        assert (await asked(INFER, BOB)).json()["outputs"][0]["data"] == [0, 1]
        assert (await asked(PREDICT)).status_code == 401
        assert (await asked(PREDICT, EVE)).status_code == 403
        assert (await asked("/v2/repository/models/fraud/unload", BOB)).status_code == 403
        assert (await asked("/openai/v1/completions", BOB)).status_code == 403
