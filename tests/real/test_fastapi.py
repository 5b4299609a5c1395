"""FastAPI's own dependency injection with our guards."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import pytest

pytestmark = pytest.mark.real_server
fastapi = pytest.importorskip("fastapi", reason="needs the environment of `make test-real`")

import httpx  # noqa: E402 - after the skip

from pdp.sdk import Decision, Guards  # noqa: E402
from pdp.sdk.testing import PackWorld  # noqa: E402

PACK = Path(__file__).parents[2] / "policies"


@pytest.fixture
def world() -> PackWorld:
    assets = {"model/fraud@7": {"environment": "dev"}, "model/fraud@8": {"environment": "prod"}}
    return PackWorld(PACK, rows="g, user:bob, role:data-scientist, dev", assets=assets)


@pytest.fixture
def app(world: PackWorld) -> Any:
    guards = Guards(world.client("user:svc"))
    may_download = guards.dependency("model.download", resource="model/{name}@{version}")
    app = fastapi.FastAPI()

    @app.get("/models/{name}/{version}", dependencies=[fastapi.Depends(may_download)])
    async def download(name: str, version: int) -> dict[str, Any]:
        return {"name": name, "version": version}

    @app.get("/told/{name}/{version}")
    async def told(decision: Annotated[Decision, fastapi.Depends(may_download)]) -> str:
        return decision.decision_id

    @app.get("/decorated/{name}/{version}")
    @guards.requires("model.download", resource="model/{name}@{version}")
    async def decorated(request: fastapi.Request, name: str, version: int) -> str:
        return f"{name}@{version} {request.method}"

    return app


def get(app: Any, path: str, token: str = "") -> httpx.Response:
    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            return await client.get(path, headers={"Authorization": f"Bearer {token}"} if token else {})

    return asyncio.run(call())


@pytest.mark.parametrize("prefix", ["models", "told", "decorated"])
def test_an_endpoint_is_decided_for_the_bearer(app: Any, world: PackWorld, prefix: str) -> None:
    token = world.token("user:bob")
    assert get(app, f"/{prefix}/fraud/7", token).status_code == 200
    assert get(app, f"/{prefix}/fraud/8", token).status_code == 403
    assert get(app, f"/{prefix}/fraud/7", world.token("user:eve")).status_code == 403
    assert get(app, f"/{prefix}/fraud/7").status_code == 401


def test_the_dependency_does_not_show_in_the_api_description(app: Any) -> None:
    assert "request" not in str(get(app, "/openapi.json").json()["paths"]["/models/{name}/{version}"])
