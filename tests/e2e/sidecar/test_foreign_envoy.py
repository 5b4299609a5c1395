"""An Envoy that is not ours, with the parts that `pdp-sidecar config --envoy` and `--istio` print, asking `pdp-sidecar serve`."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
import yaml
from envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc

from pdp.errors import ConfigError, Reason
from pdp.identity.development import DevelopmentIssuer, issue, trust_text
from sidecar.config import CoreConfig, PdpAccess
from sidecar.envoy import Sockets, Upstream
from sidecar.envoy_names import Address
from sidecar.gate import Gate
from sidecar.rechecks import Rechecker
from sidecar.routes import WEBSOCKET, Placement, Row, Served
from sidecar.routes.assembly import assemble
from sidecar.serving import ForeignDoor, Port, Service
from sidecar.snippets import Foreign, as_yaml, envoy, istio
from sidecar.supervisor import EnvoyProcess, validate
from tests.e2e.sidecar.test_agent import ASSETS, POLICY, ScriptedLog, now_ms
from tests.support.enforcement import Clock, Decider, identify
from tests.support.upstream import Model
from tests.support.worlds import TENANT, Scribe, verifier

PATIENCE_S = 10.0
SERVED = {"llama": Served(resource="endpoint/chat", model="model/llama@3")}
LIVE = Row(
    name="own.live",
    method=WEBSOCKET,
    path="/live_stream/{m}",
    action="endpoint.invoke",
    placement=Placement.EXT_PROC,
    stream=True,
)
TABLE = assemble(served=SERVED, server="endpoint/all", protocols=("oip", "oip-grpc", "openai"), own=(LIVE,))
INFER, STREAM, CHAT = "/v2/models/llama/infer", "/v2/models/llama/generate_stream", "/v1/chat/completions"
GOOD = {"authorization": "Bearer good"}
_GOOD = [f"{name}: {value}" for name, value in GOOD.items()]


@dataclass
class Theirs:
    url: str
    decider: Decider
    rechecker: Rechecker
    model: Model
    door: ForeignDoor


def parts_of(style: str, foreign: Foreign) -> dict[str, Any]:
    """Return the printed parts, as a person would put them into place."""
    if style == "envoy":
        return yaml.safe_load(as_yaml(envoy(foreign), comment="paste"))
    printed = istio(foreign, name="p", namespace="n", labels={"app": "m"}, port=8080)
    patches = yaml.safe_load(as_yaml(printed, comment="apply"))["spec"]["configPatches"]

    def values(kind: str) -> list[Any]:
        return [one["patch"]["value"] for one in patches if one["applyTo"] == kind]

    settings = values("NETWORK_FILTER")[0]["typed_config"]
    return {
        "http_connection_manager": {key: value for key, value in settings.items() if key != "@type"},
        "http_filters": values("HTTP_FILTER"),
        "routes": values("HTTP_ROUTE")[::-1],  # INSERT_FIRST, one after the other
        "clusters": values("CLUSTER"),
    }


def bootstrap(parts: dict[str, Any], sockets: Sockets, upstream: int) -> dict[str, Any]:
    kind = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{kind}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "theirs",
        **parts["http_connection_manager"],
        "upgrade_configs": [{"upgrade_type": "websocket"}],  # on every route, as Istio's proxies have it
        "http_filters": [
            *parts["http_filters"],
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{kind}.http.router.v3.Router"}},
        ],
        "route_config": {"virtual_hosts": [{"name": "m", "domains": ["*"], "routes": parts["routes"]}]},
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    model = {"socket_address": {"address": "127.0.0.1", "port_value": upstream}}
    cluster = {
        "name": "model",
        "load_assignment": {
            "cluster_name": "model",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": model}}]}],
        },
    }
    return {
        "admin": {"address": {"pipe": {"path": str(sockets.admin)}}},
        "static_resources": {
            "listeners": [{"name": "theirs", "address": address, "filter_chains": [chain]}],
            "clusters": [cluster, *parts["clusters"]],
        },
    }


@asynccontextmanager
async def theirs(directory: Path, style: str) -> AsyncIterator[Theirs]:
    model, decider = Model(), Decider()
    upstream = await asyncio.start_server(model.serve, "127.0.0.1", 0)
    rechecker = Rechecker(decider=decider, time=Clock(), jitter=lambda: 0.0)
    gate = Gate(table=TABLE, identify=identify, decider=decider)
    sockets = Sockets(directory=directory)
    pipe = directory / "portcullis.sock"
    door = ForeignDoor(Port(pipe=pipe), gate=gate, rechecker=rechecker, notes=decider, time=Clock())
    await door.start()
    foreign = Foreign(rows=TABLE.rows, agent=Upstream(pipe=pipe), cluster="model")
    config = directory / "theirs.json"
    port = upstream.sockets[0].getsockname()[1]
    config.write_text(json.dumps(bootstrap(parts_of(style, foreign), sockets, port)))
    process = EnvoyProcess(config=config, sockets=sockets)
    try:
        await validate(config)
        await process.start()
        address = await process.address()
        yield Theirs(f"http://127.0.0.1:{address.port}", decider, rechecker, model, door)
    finally:
        await process.stop()
        await door.stop()
        upstream.close()


@pytest.mark.parametrize("style", ["envoy", "istio"])
def test_a_foreign_envoy_enforces_with_the_printed_parts(tmp_path: Path, style: str) -> None:
    async def go() -> None:
        async with (
            asyncio.timeout(3 * PATIENCE_S),
            theirs(tmp_path, style) as gate,
            httpx.AsyncClient(base_url=gate.url, timeout=PATIENCE_S) as client,
        ):
            await enforces(gate, client)
            await follows_a_websocket(gate)
            await cuts(gate, client)
            await gate.door.stop()
            assert (await client.post(INFER, headers=GOOD)).status_code == 503  # no agent, no answer, no model
            assert (await client.post(CHAT, headers=GOOD, json={"model": "llama"})).status_code == 503

    asyncio.run(go())


async def enforces(gate: Theirs, client: httpx.AsyncClient) -> None:
    assert (await client.post(INFER)).status_code == 401
    assert (await client.post(CHAT, json={"model": "llama"})).status_code == 401
    for path in ("/", "/docs", "/v2/models/nobody/infer", INFER + "?a=b", "/v2/models/llama/infer;x"):
        assert (await client.post(path, headers=GOOD)).status_code == 403, path
    assert (await client.post("/v2%2Fmodels/llama/infer", headers=GOOD)).status_code == 400
    assert (await client.post(CHAT, headers=GOOD, json={"model": "nobody"})).status_code == 403
    assert gate.model.seen == []
    forged = {"x-pdp-subject": "user:eve", "x-pdp-other": "1", "x-pdp-route": "unmapped"}
    certificate = {"x-forwarded-client-cert": f'Hash={"0" * 64};Cert="-----BEGIN%20CERTIFICATE-----"'}
    assert (await client.post(INFER, headers={**GOOD, **forged, **certificate})).status_code == 200
    assert (
        await client.post(CHAT, headers={**GOOD, **forged, **certificate}, json={"model": "llama"})
    ).status_code == 200
    for exchange in gate.model.seen:
        assert exchange.headers["x-pdp-subject"] == "user:bob@example.com"
        assert exchange.headers["x-pdp-decision-id"]
        assert not {"authorization", "x-pdp-other", "x-pdp-route"} & set(exchange.headers)
    assert {str(one.workload).rpartition("/")[2] for one in gate.decider.questions} == {"without"}


async def follows_a_websocket(gate: Theirs) -> None:
    async def opened(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = gate.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        fields = [f"GET {path} HTTP/1.1", "host: m", "connection: upgrade", "upgrade: websocket", *_GOOD, "", ""]
        writer.write("\r\n".join(fields).encode())
        return reader, writer

    seen = len(gate.model.seen)
    for path in ("/v2/models/llama/ready", "/v2/models", "/live_stream/nobody"):  # rows, but none of them a WebSocket's
        reader, writer = await opened(path)
        assert (await asyncio.wait_for(reader.readline(), PATIENCE_S)).split()[1] == b"403", path
        writer.close()
    assert len(gate.model.seen) == seen
    reader, writer = await opened("/live_stream/llama")
    exchange = await asyncio.wait_for(gate.model.streams.get(), PATIENCE_S)
    exchange.writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello")
    assert (await asyncio.wait_for(reader.readuntil(b"hello"), PATIENCE_S)).startswith(b"HTTP/1.1 101")
    gate.decider.reason = Reason.LOCKED
    await gate.rechecker.world_changed()
    assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
    await asyncio.wait_for(exchange.gone.wait(), PATIENCE_S)
    gate.decider.reason = Reason.GRANTED
    writer.close()


async def cuts(gate: Theirs, client: httpx.AsyncClient) -> None:
    async def read() -> None:
        async with client.stream("POST", STREAM, headers=GOOD, content=b"{}") as answer:
            async for _ in answer.aiter_raw():
                gate.decider.reason = Reason.LOCKED
                await gate.rechecker.world_changed()

    reading = asyncio.create_task(read())
    exchange = await asyncio.wait_for(gate.model.streams.get(), PATIENCE_S)
    await exchange.start_stream()
    await exchange.emit(b"data: 1\n\n")
    with pytest.raises(httpx.RemoteProtocolError):
        await reading
    await asyncio.wait_for(exchange.gone.wait(), PATIENCE_S)


@pytest.mark.parametrize(
    ("port", "message"),
    [
        ({}, "--listen"),
        ({"address": Address(host="0.0.0.0", port=1)}, "strangers"),  # noqa: S104 - refused, which is the point
        ({"address": Address(host="127.0.0.1", port=1), "cert": Path("c")}, "belong together"),
    ],
)
def test_a_port_where_strangers_could_ask_is_refused(port: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Port(**port)


def test_the_served_door_follows_the_log_and_says_when_it_is_ready(tmp_path: Path) -> None:
    """`pdp-sidecar serve` as a whole, but for the PDP: a script with truly signed entries."""

    async def go() -> None:
        scribe = Scribe(time_ms=now_ms())
        scribe.policy(POLICY)
        scribe.assets(**ASSETS)
        issuer = DevelopmentIssuer.generate()
        (tmp_path / "jwks.json").write_bytes(issuer.jwks())
        (tmp_path / "trust.yaml").write_text(trust_text(issuer, jwks_file="jwks.json"))
        config = CoreConfig(
            table=assemble(served={"fraud": Served(resource="endpoint/fraud", model="model/fraud@12")}),
            pdp=PdpAccess(address="unused:1", root_digest=verifier().root.digest),
            trust=tmp_path / "trust.yaml",
            state_dir=tmp_path / "s",
            tenant=TENANT,
        )
        nowhere = Address(host="127.0.0.1", port=0)
        service = Service(config, port=Port(address=nowhere), probes=nowhere, source=ScriptedLog(scribe), sink=None)
        try:
            listen, probes = await service.start()
            await service.fresh()
            token = issue(issuer, sub="bob@example.com", jti="1", now_s=now_ms() // 1000)
            assert await checked(listen, token) == 0
            assert await checked(listen, "garbage") == 7
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{probes.port}") as client:
                assert (await client.get("/readyz")).status_code == 200
                assert "pdp_sidecar_world_seq 2" in (await client.get("/metrics")).text
        finally:
            await service.stop()

    asyncio.run(go())


async def checked(at: Address, token: str) -> int:
    """Ask as a foreign Envoy would, and return the status code in the answer."""
    request = external_auth_pb2.CheckRequest()
    request.attributes.request.http.method = "POST"
    request.attributes.request.http.path = "/v2/models/fraud/infer"
    request.attributes.request.http.headers["authorization"] = f"Bearer {token}"
    async with grpc.aio.insecure_channel(f"{at.host}:{at.port}") as channel:
        answer = await external_auth_pb2_grpc.AuthorizationStub(channel).Check(request, timeout=PATIENCE_S)
    return int(answer.status.code)
