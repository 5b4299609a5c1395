"""BentoML's server over a scikit-learn model behind the whole gate, and with our middleware in its own process."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from sidecar.routes import Served
from sidecar.routes.assembly import assemble
from tests.support.model_servers import gated, guarded_inside, model_server
from tests.support.pdp import BOB, EVE

pytestmark = [pytest.mark.real_server, pytest.mark.timeout(240)]
NAMES = {
    "classify": {"resource": "endpoint/fraud", "model": "model/fraud@12"},
    "feed": {"resource": "endpoint/feed", "model": "model/fraud@12"},
    "review": {"resource": "endpoint/fraud", "model": "model/fraud@12"},
    "newest": {"resource": "endpoint/fraud", "model": "model/fraud@12", "upstream": "classify"},
}
TABLE = assemble(
    served={name: Served(**one) for name, one in NAMES.items()}, server="endpoint/bentoml", protocols=("bentoml",)
)
ASSETS = ("endpoint/fraud", "endpoint/feed", "endpoint/bentoml", "model/fraud@12")
ASKED = {"rows": [[0.0, 0.0], [1.0, 1.0]]}
DENIED = (
    ("POST", "/internal/retrain"),
    ("GET", "/pages/about"),
    ("GET", "/"),
    ("GET", "/static_content/index.css"),
    ("POST", "/review/submit"),
    ("GET", "/review/get"),
    ("GET", "/metrics"),  # `endpoint.observe` is none of a data scientist's rights
    ("GET", "/docs.json"),
)
Client = Callable[[str], httpx.AsyncClient]


async def asked(client: Client) -> None:
    """Ask as everybody, for what is allowed and what is not."""
    async with client(BOB) as bob, client(EVE) as eve, client("") as nobody:
        for path in ("/classify", "/newest", "/review"):
            assert (await bob.post(path, json=ASKED)).json() == [0, 1]
            assert (await eve.post(path, json=ASKED)).status_code == 403
            assert (await nobody.post(path, json=ASKED)).status_code == 401
        assert (await bob.get("/readyz")).status_code == 200
        for method, path in DENIED:
            assert (await bob.request(method, path)).status_code == 403, path


async def cut(client: Client, lock: Callable[[str], Awaitable[None]]) -> None:
    """Listen to a stream until a lock ends it, and not quietly."""
    events: list[str] = []

    async def listen() -> None:
        async with client(BOB) as bob, bob.stream("POST", "/feed", json=ASKED) as stream:
            assert stream.status_code == 200
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    events.append(line)
                if len(events) == 3:
                    await lock("endpoint/feed")

    with pytest.raises(httpx.RemoteProtocolError):
        await listen()
    assert events[0] == "data: [0, 1]"
    assert "access ended" in events[-1]


def test_bentoml_behind_the_gate(tmp_path: Path) -> None:
    async def go() -> None:
        async with (
            model_server("bentoml", "bentoml_fraud.py", tmp_path, ready="/readyz") as server,
            gated(server, tmp_path, table=TABLE, assets=ASSETS) as gate,
        ):
            await asked(gate.client)
            await cut(gate.client, gate.lock)
            await gate.heard("nobody listens")

    asyncio.run(go())


def test_the_middleware_in_bentomls_own_process(tmp_path: Path) -> None:
    routes = {"served": NAMES, "server": "endpoint/bentoml", "protocols": ["bentoml"]}

    async def go() -> None:
        async with guarded_inside(
            "bentoml", "bentoml_fraud.py", tmp_path, routes=routes, assets=ASSETS, ready="/readyz"
        ) as guarded:
            await asked(guarded.client)
            await cut(guarded.client, guarded.lock)
            await guarded.heard("nobody listens")

    asyncio.run(go())
