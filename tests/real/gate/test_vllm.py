"""vLLM's real server on a processor, with a Llama of random weights: behind the whole gate, and with our middleware inside.

Apart from the other servers (`make test-vllm`): its environment takes six gigabytes.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.real_server, pytest.mark.timeout(1200)]
openai = pytest.importorskip("openai", reason="needs the environment of `make test-vllm`")
pytest.importorskip("envoy", reason="needs the extra `sidecar`")

from sidecar.doctor import _coverage  # noqa: E402 - after the skip
from sidecar.routes import RouteTable, Served  # noqa: E402
from sidecar.routes.assembly import assemble  # noqa: E402
from tests.support.model_servers import PATIENCE_S, Guarded, gated, guarded_inside, model_server  # noqa: E402
from tests.support.pdp import BOB, EVE  # noqa: E402

NAMES = {
    "tiny": {"resource": "endpoint/chat", "model": "model/tiny@1"},
    "other": {"resource": "endpoint/other", "model": "model/tiny@1"},
    "newest": {"resource": "endpoint/chat", "model": "model/tiny@1", "upstream": "tiny"},
}
TABLE = assemble(
    served={name: Served(**one) for name, one in NAMES.items()}, server="endpoint/vllm", protocols=("openai",)
)
ASSETS = ("endpoint/chat", "endpoint/other", "endpoint/vllm", "model/tiny@1")
SERVER: dict[str, Any] = {"ready": "/health", "start_s": 600.0}  # torch and vLLM, imported by three processes
MESSAGES = [{"role": "user", "content": "hi"}]
CHAT = "/v1/chat/completions"
NO_NAME = {"X-Amzn-SageMaker-Adapter-Identifier": "nobody"}
DENIED = (
    ("POST", "/collective_rpc"),
    ("POST", "/v1/nothing"),
    ("GET", "/docs"),
    ("GET", f"{CHAT}?stream=true"),
    ("PUT", CHAT),
    ("POST", "/scale_elastic_ep"),  # `endpoint.manage` is none of a data scientist's rights
    ("GET", "/metrics"),  # nor is `endpoint.observe`
    ("GET", "/load"),
)


def client_of(guarded: Guarded, sub: str = BOB) -> Any:
    token = guarded.pdp.token(sub) if sub else "none"
    return openai.AsyncOpenAI(base_url=f"{guarded.url}/v1", api_key=token, max_retries=0, timeout=4 * PATIENCE_S)


async def asked(guarded: Guarded) -> None:
    """Ask as everybody, by the real client, for what is allowed and what is not."""
    async with client_of(guarded) as bob, client_of(guarded, EVE) as eve, client_of(guarded, "") as nobody:
        for name in ("tiny", "newest"):
            whole = await bob.chat.completions.create(model=name, messages=MESSAGES, max_completion_tokens=5)
            assert (whole.model, whole.usage.completion_tokens) == ("tiny", 5)
        stream = await bob.chat.completions.create(
            model="tiny", messages=MESSAGES, max_tokens=5, stream=True, stream_options={"include_usage": True}
        )
        parts = [part async for part in stream]
        assert parts[-1].usage.completion_tokens == 5
        assert parts[-2].choices[0].finish_reason == "length"
        assert (await bob.completions.create(model="tiny", prompt="hi", max_tokens=3)).usage.completion_tokens == 3
        with pytest.raises(openai.PermissionDeniedError):
            await bob.chat.completions.create(model="nobody", messages=MESSAGES)
        with pytest.raises(openai.PermissionDeniedError):
            await eve.chat.completions.create(model="tiny", messages=MESSAGES)
        with pytest.raises(openai.AuthenticationError):
            await nobody.chat.completions.create(model="tiny", messages=MESSAGES)
    async with guarded.client() as bob, guarded.client("") as nobody:
        assert (await bob.get("/health")).status_code == 200
        assert (await nobody.get("/health")).status_code == 401
        assert (await bob.post("/tokenize", json={"model": "tiny", "prompt": "hi"})).json()["count"] == 2
        for method, path in DENIED:
            assert (await bob.request(method, path, json={})).status_code == 403, path


async def no_header_names_another_model(guarded: Guarded) -> None:
    """Show vLLM a header by which it takes another model than the body names; who walks around the gate is told there is none."""
    body = {"model": "tiny", "messages": MESSAGES, "max_tokens": 1}
    async with guarded.client() as bob:
        assert (await bob.post("/invocations", json=body, headers=NO_NAME)).json()["model"] == "tiny"
        if guarded.url != guarded.server.url:
            walked_around = await bob.post(f"{guarded.server.url}/invocations", json=body, headers=NO_NAME)
            assert walked_around.status_code == 404
            assert "`nobody`" in walked_around.text


async def cut(guarded: Guarded) -> None:
    """Lock the endpoint while it answers: the client raises, what is listed shrinks, and only that endpoint is denied."""
    async with client_of(guarded) as bob:
        assert {one.id async for one in bob.models.list()} == {"tiny", "other"}
        heard: list[str] = []

        async def listen() -> None:
            # Some minutes of nonsense, if nobody ends it.
            stream = await bob.chat.completions.create(
                model="other", messages=MESSAGES, stream=True, max_tokens=16_000, extra_body={"ignore_eos": True}
            )
            async for part in stream:
                heard.append(part.choices[0].delta.content or "")
                if len(heard) == 5:
                    await guarded.lock("endpoint/other")

        with pytest.raises(openai.APIError, match="access ended"):
            await listen()
        assert len(heard) >= 5
        assert {one.id async for one in bob.models.list()} == {"tiny"}
        with pytest.raises(openai.PermissionDeniedError):
            await bob.chat.completions.create(model="other", messages=MESSAGES)
        await bob.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=1)


async def idle(guarded: Guarded) -> None:
    """Wait until vLLM computes for nobody: the cut reached its engine."""

    async def running() -> float:
        async with guarded.client() as anybody:
            text = (await anybody.get(f"{guarded.server.url}/metrics")).text
        return sum(
            float(line.split()[-1]) for line in text.splitlines() if line.startswith("vllm:num_requests_running")
        )

    async with asyncio.timeout(PATIENCE_S):
        while await running():  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.1)


def without_row(routes: tuple[tuple[str, str], ...], table: RouteTable) -> set[tuple[str, str]]:
    return {(method, path) for method, path in routes if method != "HEAD" and not table.knows(method, path)}


def test_vllm_behind_the_gate(tmp_path: Path) -> None:
    """Every route that vLLM can open has a row, too (P10): what a new version adds fails here."""

    async def go() -> None:
        async with (
            model_server("vllm", "vllm_tiny.py", tmp_path, **SERVER) as server,
            gated(server, tmp_path, table=TABLE, assets=ASSETS) as gate,
        ):
            assert len(server.routes) > 60
            assert without_row(server.routes, TABLE) == set()
            found = await _coverage(server.url, TABLE)
            assert found.passed, found.seen
            assert without_row(server.routes, assemble(served={}, protocols=("oip",)))
            await asked(gate)
            await no_header_names_another_model(gate)
            await cut(gate)
            await idle(gate)

    asyncio.run(go())


def test_the_middleware_in_vllms_own_process(tmp_path: Path) -> None:
    routes = {"served": NAMES, "server": "endpoint/vllm", "protocols": ["openai"]}

    async def go() -> None:
        async with guarded_inside("vllm", "vllm_tiny.py", tmp_path, routes=routes, assets=ASSETS, **SERVER) as guarded:
            await asked(guarded)
            await no_header_names_another_model(guarded)
            await cut(guarded)

    asyncio.run(go())
