"""Every route that a real model server answers has a row (a deliberate deny is one): what a new version adds fails here."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sidecar.doctor import _coverage
from sidecar.routes import RouteTable, Served
from sidecar.routes.assembly import assemble
from tests.support.model_servers import ModelServer, model_server

pytestmark = pytest.mark.real_server
SERVED = {"fraud": Served(resource="endpoint/fraud", model="model/fraud@12")}
SERVERS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    # MLServer answers its metrics on a port of their own; here they are routes like any other.
    "mlserver": ("mlserver_feed.py", {"ports": 3, "METRICS": "/metrics"}, ("oip", "oip-grpc")),
    "kserve": ("kserve_model.py", {}, ("oip", "oip-grpc", "kserve-v1", "kserve-openai")),
    "bentoml": ("bentoml_fraud.py", {"ready": "/readyz"}, ("bentoml",)),
}
OF_ITS_OWN = {"bentoml": {("POST", "/internal/retrain"), ("GET", "/pages/about")}}
"""What of the program is neither the server's nor a function under one word: an own row's, so none of the protocol's."""


def without_row(server: ModelServer, table: RouteTable) -> set[tuple[str, str]]:
    """Return the routes that no row knows. HEAD, which Starlette adds to a GET by itself, is no protocol's: denied."""
    return {(method, path) for method, path in server.routes if method != "HEAD" and not table.knows(method, path)}


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.holds("P10", "adv_route_coverage")
def test_every_route_of_a_real_server_has_a_row(name: str, tmp_path: Path) -> None:
    program, options, protocols = SERVERS[name]

    async def go() -> None:
        table = assemble(served=SERVED, server="endpoint/all", protocols=protocols)
        async with model_server(name, program, tmp_path, **options) as server:
            assert len(server.routes) > 20
            own = OF_ITS_OWN.get(name, set())
            assert without_row(server, table) == own
            if "oip-grpc" in protocols:
                assert {path for _, path in server.routes if "Infer" in path}  # gRPC was not forgotten
            found = await _coverage(server.url, table)  # what `pdp-sidecar doctor --model` says of the running server
            assert found.passed is not bool(own), found.seen
            assert all(path in found.seen for method, path in own if method == "POST")

    asyncio.run(go())


def test_a_route_without_a_row_is_seen(tmp_path: Path) -> None:
    async def go() -> None:
        async with model_server("kserve", "kserve_model.py", tmp_path) as server:
            table = assemble(served=SERVED, server="endpoint/all", protocols=("oip", "oip-grpc"))
            assert ("POST", "/v1/models/{model_name}:predict") in without_row(server, table)
            assert not (await _coverage(server.url, table)).passed

    asyncio.run(go())
