"""The process: what it needs to start, when it is ready, and how it ends."""

import asyncio
import datetime as dt
import itertools
import json
import os
import signal
import sys
import threading
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import trustme

from pdp.adapters.audit_reader import read_segments
from pdp.audit.chain import Verdict
from pdp.audit.verify import verify
from pdp.config import Address, configure
from pdp.demo.authority import TRUST_DOMAIN, create_authority, spiffe_id
from pdp.errors import ConfigError, PortcullisError, Reason
from pdp.sdk import AsyncClient
from pdp.server.app import Basis, running, serve
from pdp.v1 import audit_pb2, audit_pb2_grpc, decision_pb2, decision_pb2_grpc, lock_pb2, lock_pb2_grpc
from tests.support.pdp import ADA, BOB, detail, initialised, running_pdp
from tests.support.waiting import until

ASSETS = "dataset/open: {environment: dev}\n"
ASK = decision_pb2.EvaluateRequest(
    question=decision_pb2.Question(action="dataset.read", resource="dataset/open", supports_all=True)
)


def flags(directory: Path, **more: str) -> dict[tuple[str, ...], str]:
    named = {
        "mode": "development",
        "state_dir": str(directory / "state"),
        "trust": str(directory / "trust.yaml"),
        "grpc.listen": "127.0.0.1:0",
        "probes.listen": "127.0.0.1:0",
    }
    return {tuple(name.split(".")): value for name, value in (named | more).items()}


def refused_basis(directory: Path, **more: str) -> str:
    with pytest.raises(ConfigError) as error:
        Basis.read(configure(flags=flags(directory, **more)))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_pdp_that_was_never_made_says_how_to_make_it(tmp_path: Path) -> None:
    asyncio.run(initialised(tmp_path))
    assert "run `pdp init`" in refused_basis(tmp_path, state_dir=str(tmp_path / "nothing"))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    asyncio.run(initialised(tmp_path))
    assert "nowhere.yaml" in refused_basis(tmp_path, trust="nowhere.yaml")
    assert "development issuer" in refused_basis(
        tmp_path, mode="production", **{"grpc.tls.cert": "c.pem", "grpc.tls.key": "k.pem"}
    )
    (tmp_path / "state" / "keys" / "publish.pem").unlink()
    assert "publish.pem" in refused_basis(tmp_path)


async def start(directory: Path, **more: str) -> None:
    async with running(Basis.read(configure(flags=flags(directory, **more)))):
        pass


@pytest.mark.parametrize("door", ["grpc.listen", "probes.listen"])
def test_a_port_in_use_is_one_line(tmp_path: Path, door: str) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path) as pdp:
            taken = {"grpc.listen": str(pdp.address), "probes.listen": pdp.probes.removeprefix("http://")}
            audit = str(tmp_path / "other-audit")
            with pytest.raises(ConfigError, match="Address already in use") as error:
                await start(tmp_path, **{door: taken[door], "audit.dir": audit})
            assert door in str(error.value)

    asyncio.run(run())


def test_a_missing_key_file_is_one_line(tmp_path: Path) -> None:
    asyncio.run(initialised(tmp_path))
    tls = {"grpc.tls.cert": str(tmp_path / "nope.pem"), "grpc.tls.key": str(tmp_path / "nope.pem")}
    with pytest.raises(ConfigError, match=r"cannot read .*nope\.pem"):
        asyncio.run(start(tmp_path, **tls))


@pytest.mark.holds("F3", "P12")
def test_it_is_not_ready_before_a_fresh_world_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unavailable(*_: Any) -> Any:
        raise PortcullisError(Reason.STORE_UNAVAILABLE, "the store is away")

    async def run() -> None:
        await initialised(tmp_path)
        with monkeypatch.context() as broken:
            broken.setattr("pdp.adapters.log_sqlite.SqliteWorldLog.head", unavailable)
            async with running(Basis.read(configure(flags=flags(tmp_path)))) as (app, address, listener):
                probes = f"http://127.0.0.1:{listener.getsockname()[1]}"
                async with (
                    httpx.AsyncClient(base_url=probes) as client,
                    grpc.aio.insecure_channel(str(address)) as channel,
                ):
                    assert (await client.get("/healthz")).status_code == 200
                    page = await client.get("/readyz")
                    assert (page.status_code, page.json()["staleness_s"]) == (503, None)
                    assert "the store is away" in page.json()["last_error"]
                    check = channel.unary_unary("/grpc.health.v1.Health/Check")
                    assert await check(b"", timeout=5) == b"\x08\x02"
                    broken.undo()
                    async with asyncio.timeout(10):
                        await app.until_ready()
                    assert (await client.get("/readyz")).status_code == 200

    asyncio.run(run())


@pytest.mark.holds("P13")
def test_readiness_shows_position_and_every_weakened_control(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path) as pdp, httpx.AsyncClient(base_url=pdp.probes) as client:
            page = (await client.get("/readyz")).json()
            assert page["degradations"] == [
                "development mode",
                "gRPC without TLS",
                "a development issuer is trusted",
                "the root key lies on this machine",
            ]
            assert (page["ready"], page["world_seq"]) == (True, 1)
            assert page["head"] == pdp.app.replica.world.head.hex()
            metrics = (await client.get("/metrics")).text
            assert "pdp_world_seq 1.0" in metrics
            assert "pdp_audit_lost 0.0" in metrics

    asyncio.run(run())


def test_a_sink_that_does_not_take_records_delays_no_answer_and_shows_until_it_does(tmp_path: Path) -> None:
    async def run() -> None:
        wall = tmp_path / "wall"
        wall.write_text("a file where a directory should be")
        sinks = ({"name": "siem", "to": "file", "path": wall / "out", "mask": ["principals"]},)
        async with running_pdp(tmp_path, assets=ASSETS, flags={("audit", "sinks"): sinks}) as pdp:
            stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
            decision = (await stub.Evaluate(ASK, metadata=pdp.metadata(BOB), timeout=10)).decision
            assert decision.effect == 1
            await until(lambda: any("sink `siem`" in text for text in pdp.app.health.report().degradations))
            wall.unlink()
            wall.mkdir()
            await until(lambda: not pdp.app.sinks[0].behind(pdp.app.trail.name, pdp.app.trail.link.n))
            lines = (wall / "out").read_text()
            assert decision.decision_id in lines
            assert BOB not in lines
            page = pdp.app.page().decode()
            assert f'pdp_audit_sink_records_total{{sink="siem"}} {len(lines.splitlines())}.0' in page
            assert 'pdp_audit_sink_behind{sink="siem"} 0.0' in page

    asyncio.run(run())


@pytest.mark.holds("P13")
def test_an_allow_that_does_not_wait_for_its_record_is_a_weakened_control(tmp_path: Path) -> None:
    async def run() -> None:
        flags = {("audit", "durable"): False}
        async with running_pdp(tmp_path, assets=ASSETS, flags=flags) as pdp:
            assert "an allow does not wait for its record" in pdp.app.health.report().degradations
            stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
            decision = (await stub.Evaluate(ASK, metadata=pdp.metadata(BOB), timeout=10)).decision
            assert decision.effect == 1
        (written,) = read_segments(tmp_path / "state" / "audit").values()
        assert decision.decision_id.encode() in b"".join(data for _, data in written)

    asyncio.run(run())


@pytest.mark.holds("F15", "P13")
def test_readiness_says_whose_keys_cannot_be_had(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path) as pdp, httpx.AsyncClient(base_url=pdp.probes) as client:
            stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
            await stub.Evaluate(ASK, metadata=pdp.metadata(BOB), timeout=10)
            (tmp_path / "jwks.json").write_text('{"keys": [{"kty": "oct"}]}')
            found: list[str] = []
            async with asyncio.timeout(30):
                while not found:  # the file is looked at again after a moment, not for each token
                    await stub.Evaluate(ASK, metadata=pdp.metadata(BOB), timeout=10)
                    page = (await client.get("/readyz")).json()
                    found = [text for text in page["degradations"] if "keys of" in text]
            wrong = "key set refused: it holds a symmetric or private key; the last good set serves"
            assert found == [f"keys of `{pdp.issuer.iss}`: {wrong}"]
            assert page["ready"]
            assert "pdp_key_sets_failing 1.0" in (await client.get("/metrics")).text

    asyncio.run(run())


@pytest.mark.holds("F8", "P8", "S1")
def test_an_allow_that_cannot_be_recorded_is_a_deny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_self: Any, _contents: Any) -> None:
        raise OSError(28, "No space left on device")

    async def run() -> None:
        async with running_pdp(tmp_path, assets=ASSETS) as pdp:
            stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
            how: dict[str, Any] = {"metadata": pdp.metadata(BOB), "timeout": 10}
            with monkeypatch.context() as broken:
                broken.setattr("pdp.adapters.audit_file.AuditFile.append_group", full)
                decision = (await stub.Evaluate(ASK, **how)).decision
                assert (decision.effect, decision.reason) == (0, "audit_unavailable")
                assert any("No space" in text for text in pdp.app.health.report().degradations)
                locks = lock_pb2_grpc.LockServiceStub(pdp.channel())
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await locks.List(lock_pb2.ListLocksRequest(), metadata=pdp.metadata(ADA), timeout=10)
                assert detail(error.value).reason == "audit_unavailable"
            assert (await stub.Evaluate(ASK, **how)).decision.effect == 1  # it recovers alone

    asyncio.run(run())


@pytest.mark.holds("F23", "G4")
def test_draining_answers_what_is_in_flight_and_ends_streams(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path, assets=ASSETS) as pdp:
            channel = pdp.channel()
            stub = decision_pb2_grpc.DecisionServiceStub(channel)
            how: dict[str, Any] = {"metadata": pdp.metadata(BOB), "timeout": 20}
            watch = stub.Watch(decision_pb2.WatchRequest(question=ASK.question), **how)
            assert (await watch.read()).decision.effect == 1
            tail = audit_pb2_grpc.AuditServiceStub(channel).Read(
                audit_pb2.ReadRequest(follow=True), metadata=pdp.metadata(ADA), timeout=20
            )
            assert (await tail.read()).record
            inside, release, turns = asyncio.Semaphore(0), asyncio.Event(), itertools.count()

            async def held(_at_least: int, _wait_s: float) -> None:
                turn = next(turns)
                inside.release()
                await release.wait()
                if turn % 2:
                    raise PortcullisError(Reason.WORLD_BEHIND, "aborts in the drain")

            pdp.app.decider.reach = held  # type: ignore[method-assign]
            flight = [asyncio.ensure_future(_answered(stub.Evaluate(ASK, **how))) for _ in range(200)]
            for _ in flight:
                await inside.acquire()
            drain = asyncio.ensure_future(pdp.app.drain(asyncio.Event()))
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await watch.read()
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE
            assert not pdp.app.health.ready
            assert await _answered(stub.Evaluate(ASK, **how)) == "UNAVAILABLE"
            release.set()
            # None is lost, and what aborts is no allow: grpc/grpc#37239 tells of releases that did otherwise.
            assert sorted(await asyncio.gather(*flight)) == ["UNAVAILABLE"] * 100 + ["allow"] * 100
            await drain

    asyncio.run(run())


async def _answered(call: Awaitable[Any]) -> str:
    try:
        response = await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "allow" if response.decision.effect else "deny"


@pytest.mark.holds("F23")
def test_a_second_signal_does_not_wait_for_the_grace(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path, flags={("grace_s",): 60.0}) as pdp:
            stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
            waiting = decision_pb2.EvaluateRequest(question=ASK.question, at_least=10_000)
            reached = asyncio.Event()
            reach = pdp.app.decider.reach

            async def told(at_least: int, wait_s: float) -> None:
                reached.set()
                await reach(at_least, wait_s)

            pdp.app.decider.reach = told  # type: ignore[method-assign]
            call = asyncio.ensure_future(_answered(stub.Evaluate(waiting, metadata=pdp.metadata(BOB), timeout=30)))
            await reached.wait()
            hasten = asyncio.Event()
            drain = asyncio.ensure_future(pdp.app.drain(hasten))
            hasten.set()
            async with asyncio.timeout(10):
                await drain
            assert await call in ("UNAVAILABLE", "CANCELLED")

    asyncio.run(run())


@pytest.mark.holds("F23")
def test_serving_ends_on_sigterm_with_nothing_left(tmp_path: Path) -> None:
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        os.kill(os.getpid(), signal.SIGTERM)

    async def run() -> None:
        await initialised(tmp_path)
        await serve(Basis.read(configure(flags=flags(tmp_path))), say=say)

    before = threading.active_count()
    asyncio.run(run())
    (line,) = lines
    assert line.startswith("ready grpc=127.0.0.1:")
    assert line.endswith(" world_seq=1")
    assert threading.active_count() <= before + 1  # gRPC keeps one poller for the whole process
    report = verify(next(iter(read_segments(tmp_path / "state" / "audit").values())))
    assert report.verdict is Verdict.OK


@pytest.mark.holds("F24")
def test_after_kill_9_the_chain_goes_on_and_verifies(tmp_path: Path) -> None:
    code = f"""
import asyncio, os, signal
from pathlib import Path
from pdp.config import configure
from pdp.server.app import Basis, serve
flags = {flags(tmp_path)!r}
asyncio.run(serve(Basis.read(configure(flags=flags)), say=lambda line: os.kill(os.getpid(), signal.SIGKILL)))
"""

    async def life() -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            code,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await process.wait()

    asyncio.run(initialised(tmp_path))
    for _ in range(2):
        assert asyncio.run(life()) == -signal.SIGKILL
    (found,) = read_segments(tmp_path / "state" / "audit").values()
    report = verify(found)
    assert (report.verdict, report.records) == (Verdict.OK, 2)


def tls_files(directory: Path) -> tuple[dict[tuple[str, ...], str], trustme.CA]:
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    own.private_key_pem.write_to_path(str(directory / "key.pem"))
    own.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))
    names = {"cert": "cert.pem", "key": "key.pem", "client_ca": "ca.pem"}
    return {("grpc", "tls", name): str(directory / file) for name, file in names.items()}, authority


def test_with_a_client_ca_nobody_enters_without_a_certificate(tmp_path: Path) -> None:
    async def run() -> None:
        tls, authority = tls_files(tmp_path)
        async with running_pdp(tmp_path, flags=tls) as pdp:
            root = (tmp_path / "ca.pem").read_bytes()
            bare = grpc.ssl_channel_credentials(root)
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await _health(pdp.address, bare)
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE
            client = authority.issue_cert("client.example")
            own = grpc.ssl_channel_credentials(root, client.private_key_pem.bytes(), client.cert_chain_pems[0].bytes())
            assert await _health(pdp.address, own) == b"\x08\x01"
            stranger = trustme.CA().issue_cert("client.example")
            other = grpc.ssl_channel_credentials(
                root, stranger.private_key_pem.bytes(), stranger.cert_chain_pems[0].bytes()
            )
            with pytest.raises(grpc.aio.AioRpcError):
                await _health(pdp.address, other)
            assert "gRPC without TLS" not in pdp.app.health.report().degradations

    asyncio.run(run())


def test_a_job_with_nothing_but_a_certificate_asks_as_its_workload(tmp_path: Path) -> None:
    """The recipe of docs/sdk.md: `client_ca` and a trust domain at the PDP, certificate and key at the job, no token."""
    authority = create_authority(tmp_path / "pki", dt.datetime.now(dt.UTC))
    server, job = authority.issue_server("pdp"), authority.issue_workload("job", "/ns/ml/job/train")
    trust = {"trust_domains": [{"domain": TRUST_DOMAIN, "ca": str(authority.bundle)}]}
    (tmp_path / "domains.yaml").write_text(json.dumps(trust))
    tls = {"cert": server.certificate, "key": server.key, "client_ca": authority.bundle}
    settings = {("grpc", "tls", name): str(path) for name, path in tls.items()}
    workload = f"workload:{spiffe_id('/ns/ml/job/train')}"
    rows = f"g, {workload}, role:member, prod\ng, {workload}, role:data-scientist, dev\n"

    async def run() -> None:
        settings["trust",] = str(tmp_path / "domains.yaml")
        async with running_pdp(tmp_path, flags=settings, rows=rows, assets=ASSETS) as pdp:
            async with AsyncClient(str(pdp.address), ca=authority.bundle, cert=job.certificate, key=job.key) as client:
                decision = await client.check("dataset.read", "dataset/open")
                assert (decision.allowed, decision.reason) == (True, Reason.GRANTED)
            records = [json.loads(record) for record in await pdp.records()]
            assert [record["principal"] for record in records if record.get("action") == "dataset.read"] == [workload]

    asyncio.run(run())


async def _health(address: Address, credentials: grpc.ChannelCredentials) -> bytes:
    async with grpc.aio.secure_channel(str(address), credentials) as channel:
        answer: bytes = await channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
        return answer


@pytest.mark.holds("F25")
def test_a_renewed_certificate_serves_new_connections(tmp_path: Path) -> None:
    async def run() -> None:
        tls, _ = tls_files(tmp_path)
        tls.pop(("grpc", "tls", "client_ca"))
        async with running_pdp(tmp_path, flags=tls) as pdp:
            old = grpc.ssl_channel_credentials((tmp_path / "ca.pem").read_bytes())
            assert await _health(pdp.address, old)
            tls_files(tmp_path)
            assert await _health(pdp.address, grpc.ssl_channel_credentials((tmp_path / "ca.pem").read_bytes()))
            with pytest.raises(grpc.aio.AioRpcError):
                await _health(pdp.address, old)

    asyncio.run(run())


def test_a_callers_trace_stands_in_the_record_of_its_decision(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path, assets=ASSETS) as pdp:
            stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
            for parent in ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", '00-"evil"'):
                await stub.Evaluate(ASK, metadata=(*pdp.metadata(BOB), ("traceparent", parent)), timeout=10)
            audit = audit_pb2_grpc.AuditServiceStub(pdp.channel())
            read = audit.Read(audit_pb2.ReadRequest(), metadata=pdp.metadata(ADA), timeout=10)
            records = [json.loads(told.record) async for told in read]
            assert [record["trace"] for record in records if record.get("principal") == f"user:{BOB}"] == [
                "4bf92f3577b34da6a3ce929d0e0e4736", "",
            ]  # fmt: skip

    asyncio.run(run())
