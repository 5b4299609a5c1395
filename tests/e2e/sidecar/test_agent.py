"""The whole sidecar, with a real Envoy, truly signed entries and real tokens; only the PDP is a script."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pdp.adapters.clock import SystemClock
from pdp.identity.development import DevelopmentIssuer, issue, trust_text
from pdp.trust.entry import seal_heartbeat
from pdp.trust.feed import Ack, FeedItem, Hello, RootFiles
from sidecar.agent import Agent
from sidecar.config import PdpAccess, SidecarConfig, parse_address
from sidecar.doctor import Subject, examine
from sidecar.envoy import EnvoySettings, Sockets, Upstream
from sidecar.envoy_names import Address
from sidecar.metrics import MEANINGS
from sidecar.routes import Served, oip
from tests.support.upstream import Model
from tests.support.worlds import TENANT, Scribe, keys, verifier, verifier_head

PATIENCE_S = 10.0
STREAM = "/v2/models/fraud/generate_stream"
POLICY = """
g, user:bob@example.com, role:app, prod
p, role:app, endpoint.invoke, endpoint/fraud, prod, , , allow
p2, segment:none, endpoint.invoke, segment:serving, , allow
"""
ASSETS = {
    "endpoint/fraud": {"environment": "prod", "segment": "segment:serving", "sensitivity": "high"},
    "model/fraud@12": {"environment": "prod"},
}


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class ScriptedLog:
    """A PDP's log, as far as a replica sees it."""

    scribe: Scribe
    acks: asyncio.Queue[Ack] = field(default_factory=asyncio.Queue)
    news: asyncio.Queue[FeedItem] = field(default_factory=asyncio.Queue)

    def open(self, hello: Hello) -> "ScriptedFeed":
        return ScriptedFeed(self, hello)

    def heartbeat(self) -> FeedItem:
        head = verifier_head(self.scribe.world)
        return seal_heartbeat(tenant=TENANT, head=head, time_ms=now_ms(), key=keys().timestamp)

    async def publish(self, change: Callable[[Scribe], object]) -> None:
        """Append an entry and wait until the sidecar acknowledges it."""
        self.scribe.time_ms = now_ms()
        change(self.scribe)
        self.news.put_nowait(self.scribe.entries[-1])
        while (await asyncio.wait_for(self.acks.get(), PATIENCE_S)).seq < self.scribe.world.seq:
            pass


@dataclass
class ScriptedFeed:
    log: ScriptedLog
    hello: Hello

    async def __aiter__(self) -> AsyncIterator[FeedItem]:
        first: Iterable[FeedItem] = (
            RootFiles(files=(verifier().root.raw,)),
            *self.log.scribe.entries[self.hello.seq :],
            self.log.heartbeat(),
        )
        for item in first:
            yield item
        while True:
            yield await self.log.news.get()

    async def renew(self) -> bool:
        return True

    async def acknowledge(self, ack: Ack) -> None:
        self.log.acks.put_nowait(ack)

    async def close(self) -> None:
        pass


@dataclass
class Scene:
    log: ScriptedLog
    model: Model
    gate: str
    probes: str
    token: str
    agent: Agent


@asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[Scene]:
    issuer = DevelopmentIssuer.generate()
    (directory / "jwks.json").write_bytes(issuer.jwks())
    (directory / "trust.yaml").write_text(trust_text(issuer, jwks_file="jwks.json"))
    scribe = Scribe(time_ms=now_ms())
    scribe.policy(POLICY)
    scribe.assets(**ASSETS)
    model, log = Model(), ScriptedLog(scribe)
    upstream = await asyncio.start_server(model.serve, "127.0.0.1", 0)
    port = upstream.sockets[0].getsockname()[1]
    table = oip.table(served={"fraud": Served(resource="endpoint/fraud", model="model/fraud@12")}, server="")
    anywhere = Address(host="127.0.0.1", port=0)
    config = SidecarConfig(
        envoy=EnvoySettings(
            listen=anywhere,
            upstream=Upstream(address=Address(host="127.0.0.1", port=port)),
            sockets=Sockets(directory=directory / "s" / "envoy"),
            rows=table.rows,
        ),
        table=table,
        pdp=PdpAccess(address="unused:1", root_digest=verifier().root.digest),
        trust=directory / "trust.yaml",
        probes=anywhere,
        state_dir=directory / "s",
        tenant=TENANT,
    )
    agent = Agent(config, source=log, sink=None, clock=SystemClock())
    try:
        listen, probes = await agent.start()
        await agent.fresh()
        token = issue(issuer, sub="bob@example.com", jti="1", now_s=now_ms() // 1000)
        yield Scene(
            log=log,
            model=model,
            gate=f"http://127.0.0.1:{listen.port}",
            probes=f"http://127.0.0.1:{probes.port}",
            token=token,
            agent=agent,
        )
    finally:
        await agent.stop(drain_s=0)
        upstream.close()


@pytest.fixture
def on_stage(tmp_path: Path) -> Callable[[Callable[[Scene, httpx.AsyncClient], Awaitable[None]]], None]:
    def run(body: Callable[[Scene, httpx.AsyncClient], Awaitable[None]]) -> None:
        async def go() -> None:
            async with asyncio.timeout(40), scene(tmp_path) as stage, httpx.AsyncClient(timeout=PATIENCE_S) as client:
                await body(stage, client)

        asyncio.run(go())

    return run


OnStage = Callable[[Callable[[Scene, httpx.AsyncClient], Awaitable[None]]], None]


def test_from_a_token_to_an_enforced_decision(on_stage: OnStage) -> None:
    async def body(stage: Scene, client: httpx.AsyncClient) -> None:
        infer = stage.gate + "/v2/models/fraud/infer"
        bearer = {"authorization": f"Bearer {stage.token}"}
        allowed = await client.post(infer, headers=bearer)
        assert allowed.status_code == 200, allowed.text
        assert stage.model.seen[0].headers["x-pdp-subject"] == "user:bob@example.com"
        assert (await client.post(infer)).json()["reason"] == "credential_missing"
        forged = {"authorization": f"Bearer {stage.token[:-4]}AAAA"}
        assert (await client.post(infer, headers=forged)).status_code == 401
        assert (await client.post(stage.gate + "/v2/models/other/infer", headers=bearer)).status_code == 403
        ready = await client.get(stage.probes + "/readyz")
        assert (ready.status_code, ready.text) == (200, "ready\n")
        metrics = (await client.get(stage.probes + "/metrics")).text
        assert "pdp_sidecar_world_seq 2.0\n" in metrics
        shown = {sample.name for family in text_string_to_metric_families(metrics) for sample in family.samples}
        assert set(MEANINGS) - shown == {"pdp_sidecar_audit_behind"}  # this one ships its records nowhere
        assert 'pdp_sidecar_decisions_total{effect="allow",reason="granted"} 1.0' in metrics
        assert 'pdp_sidecar_decisions_total{effect="deny",reason="credential_missing"} 1.0' in metrics

    on_stage(body)


@pytest.mark.holds("P6")
def test_a_lock_in_the_log_cuts_the_running_stream_before_it_is_acknowledged(on_stage: OnStage) -> None:
    async def body(stage: Scene, client: httpx.AsyncClient) -> None:
        bearer = {"authorization": f"Bearer {stage.token}"}
        opened: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def listen() -> None:
            async with client.stream("POST", stage.gate + STREAM, headers=bearer) as response:
                opened.set_result(response.status_code)
                async for _ in response.aiter_raw():
                    pass

        listening = asyncio.create_task(listen())
        exchange = await asyncio.wait_for(stage.model.streams.get(), PATIENCE_S)
        await exchange.start_stream()
        await exchange.emit(b"data: 1\n\n")
        assert await asyncio.wait_for(opened, PATIENCE_S) == 200
        target = {"kind": "principal", "principal": "user:bob@example.com"}
        await stage.log.publish(lambda scribe: scribe.lock("stolen", target))
        with pytest.raises(httpx.RemoteProtocolError):
            await asyncio.wait_for(listening, PATIENCE_S)
        await asyncio.wait_for(exchange.gone.wait(), PATIENCE_S)
        denied = await client.post(stage.gate + "/v2/models/fraud/infer", headers=bearer)
        assert denied.status_code in {401, 403}
        metrics = (await client.get(stage.probes + "/metrics")).text
        assert "pdp_sidecar_revocation_lag_seconds_count 1.0\n" in metrics
        assert 'pdp_sidecar_cuts_total{reason="' in metrics

    on_stage(body)


@pytest.mark.holds("F1", "P12")
def test_a_sidecar_that_starts_again_decides_from_its_disk(tmp_path: Path) -> None:
    async def go() -> None:
        async with scene(tmp_path) as first:
            assert first.agent.core.world_seq == 2
        assert (tmp_path / "s" / "root.json").exists() or any((tmp_path / "s").glob("**/root*.json"))
        with suppress(FileNotFoundError):
            assert not (tmp_path / "s" / "envoy" / "authz.sock").exists()

    asyncio.run(go())


@pytest.mark.holds("F1", "P12")
def test_a_sidecar_without_a_reachable_pdp_is_not_ready(tmp_path: Path) -> None:
    class Silent(ScriptedLog):
        def open(self, hello: Hello) -> Any:
            del hello
            return Quiet()

    class Quiet:
        async def __aiter__(self) -> AsyncIterator[FeedItem]:
            await asyncio.Event().wait()
            yield RootFiles(files=())

        async def renew(self) -> bool:
            return True

        async def acknowledge(self, ack: Ack) -> None:
            del ack

        async def close(self) -> None:
            pass

    async def go() -> None:
        issuer = DevelopmentIssuer.generate()
        (tmp_path / "jwks.json").write_bytes(issuer.jwks())
        (tmp_path / "trust.yaml").write_text(trust_text(issuer, jwks_file="jwks.json"))
        table = oip.table(served={})
        config = SidecarConfig(
            envoy=EnvoySettings(
                listen=Address(host="127.0.0.1", port=0),
                upstream=Upstream(address=Address(host="127.0.0.1", port=9)),
                sockets=Sockets(directory=tmp_path / "s" / "envoy"),
                rows=table.rows,
            ),
            table=table,
            pdp=PdpAccess(address="unused:1", root_digest="0" * 64),
            trust=tmp_path / "trust.yaml",
            probes=Address(host="127.0.0.1", port=0),
            state_dir=tmp_path / "s",
        )
        agent = Agent(config, source=Silent(Scribe()), sink=None, clock=SystemClock())
        assert await agent._why_not_ready() == "waiting for the PDP's root file"
        starting = asyncio.create_task(agent.start())
        done, _ = await asyncio.wait({starting}, timeout=0.2)
        assert not done
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)

    asyncio.run(go())


@pytest.mark.holds("P10", "adv_route_coverage")
def test_no_route_answers_the_unauthenticated(on_stage: OnStage) -> None:
    """Every row of the table, with and without its optional parts, and what stands in none: refused, and nothing forwarded."""

    async def body(stage: Scene, client: httpx.AsyncClient) -> None:
        asked = {(row.method, path) for row in oip.ROWS for path in _spellings(row.path)}
        asked |= {
            ("GET", "/"),
            ("GET", "/demo/streams"),
            ("DELETE", "/v2/models/fraud"),
            ("PUT", "/v2/models/fraud/infer"),
        }
        for method, path in sorted(asked):
            for headers in ({}, {"authorization": "Bearer garbage"}, {"authorization": "Basic Ym9iOmJvYg=="}):
                answer = await client.request(method, stage.gate + path, headers=headers)
                assert answer.status_code in {401, 403}, (method, path, answer.status_code)
        assert stage.model.seen == []

    on_stage(body)


def _spellings(path: str) -> set[str]:
    """Return the targets a row's path stands for: each optional part left out and filled in, names and versions given."""
    without = re.sub(r"\[.*?\]", "", path)
    spelt = {without, path.replace("[", "").replace("]", "")}
    return {one.replace("{m}", "fraud").replace("{v}", "12") for one in spelt}


def test_the_doctor_finds_a_closed_gate_and_a_fresh_world(on_stage: OnStage) -> None:
    async def body(stage: Scene, _: httpx.AsyncClient) -> None:
        gate, probes = (parse_address(url.removeprefix("http://"), option="-") for url in (stage.gate, stage.probes))
        findings = await examine(Subject(gate=gate, probes=probes, served="fraud"))
        assert {one.check for one in findings if not one.passed} == set()
        assert "the world that decides is fresh" in {one.check for one in findings}
        assert "what envoy refuses by itself is on record" in {one.check for one in findings}

    on_stage(body)
