"""Nobody gets in by a door that was forgotten: every RPC and every route, called by whoever should not.

Source: FAILURE.md P10, `adv_route_coverage`: MLflow CVE-2025-14297, -15381; CVE-2026-0545, -2652.
"""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from starlette.routing import Route

from pdp.server.grpc.rights import RULES
from pdp.server.probes import application
from pdp.v1 import asset_pb2, audit_pb2, decision_pb2, lock_pb2, policy_pb2, replication_pb2
from tests.support.pdp import EVE, RunningPdp, call_any, detail, running_pdp

OURS = (asset_pb2, audit_pb2, decision_pb2, lock_pb2, policy_pb2, replication_pb2)
OPEN_ROUTES = {"/healthz", "/readyz", "/metrics"}


def described() -> Iterator[Any]:
    """Every method of every service that the server has, from the descriptors: not from our own table."""
    for module in (*OURS, health_pb2, reflection_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            yield from service.methods


def path_of(method: Any) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


@pytest.mark.holds("P10", "adv_route_coverage")
def test_every_rpc_of_every_service_stands_in_the_table_of_rights() -> None:
    assert {path_of(method) for method in described()} == set(RULES)


def test_only_health_is_open() -> None:
    assert {path.split("/")[1] for path, rule in RULES.items() if rule.open} == {"grpc.health.v1.Health"}
    unowned = {path for path, rule in RULES.items() if not rule.open and rule.right is None}
    assert unowned == {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"}


def guarded() -> list[str]:
    return sorted(path for path, rule in RULES.items() if not rule.open)


def sweep(directory: Path, metadata_of: Any, paths: Sequence[str]) -> dict[str, grpc.aio.AioRpcError | None]:
    async def run() -> dict[str, grpc.aio.AioRpcError | None]:
        async with running_pdp(directory) as pdp:
            channel = pdp.channel()
            return {path: await call_any(channel, path, metadata_of(pdp)) for path in paths}

    return asyncio.run(run())


def no_credential(_pdp: RunningPdp) -> Sequence[tuple[str, str]]:
    return ()


def garbage(_pdp: RunningPdp) -> Sequence[tuple[str, str]]:
    return (("authorization", "Bearer garbage"),)


def expired(pdp: RunningPdp) -> Sequence[tuple[str, str]]:
    return pdp.metadata(EVE, now_s=1_700_000_000)


def two_tokens(pdp: RunningPdp) -> Sequence[tuple[str, str]]:
    return (*pdp.metadata(EVE), *pdp.metadata(EVE))


def another_issuer(pdp: RunningPdp) -> Sequence[tuple[str, str]]:
    pdp.issuer = type(pdp.issuer).generate()
    return pdp.metadata(EVE)


@pytest.mark.holds("P10", "adv_route_coverage")
@pytest.mark.parametrize("metadata_of", [no_credential, garbage, expired, two_tokens, another_issuer])
def test_no_rpc_answers_the_unauthenticated(tmp_path: Path, metadata_of: Any) -> None:
    for path, error in sweep(tmp_path, metadata_of, guarded()).items():
        assert error is not None, path
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED, path


@pytest.mark.holds("P10")
def test_no_rpc_answers_the_unauthorised(tmp_path: Path) -> None:
    wanted = [path for path in guarded() if RULES[path].right is not None]
    for path, error in sweep(tmp_path, lambda pdp: pdp.metadata(EVE), wanted).items():
        assert error is not None, path
        assert (error.code(), detail(error).reason) == (grpc.StatusCode.PERMISSION_DENIED, "no_grant"), path


def test_an_unknown_rpc_is_not_served(tmp_path: Path) -> None:
    paths = ["/pdp.v1.DecisionService/Nothing", "/pdp.v2.DecisionService/Evaluate", "/pdp.v1.DecisionService/evaluate"]
    for path, error in sweep(tmp_path, no_credential, paths).items():
        assert error is not None, path
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED, path


def test_an_rpc_that_the_table_forgot_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/pdp.v1.LockService/List"
    kept = {name: rule for name, rule in RULES.items() if name != path}
    monkeypatch.setattr("pdp.server.grpc.interceptors.RULES", kept)
    error = sweep(tmp_path, lambda pdp: pdp.metadata("ada@demo.portcullis"), [path])[path]
    assert error is not None
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED


def test_health_needs_no_credential_and_says_nothing_else(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path) as pdp:
            check = pdp.channel().unary_unary("/grpc.health.v1.Health/Check")
            assert await check(b"", timeout=10) == b"\x08\x01"

    asyncio.run(run())


@pytest.mark.holds("N7")
def test_the_probes_have_these_routes_and_no_others(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path) as pdp, httpx.AsyncClient(base_url=pdp.probes) as client:
            routes = application(pdp.app.health, pdp.app.page).routes
            assert {route.path for route in routes if isinstance(route, Route)} == OPEN_ROUTES
            for path in OPEN_ROUTES:
                assert (await client.get(path)).status_code == 200, path
                for method in ("POST", "PUT", "DELETE", "PATCH"):
                    assert (await client.request(method, path)).status_code == 405, path
            for path in ("/", "/debug", "/metrics/", "/v1/decision", "//readyz", "/%2e%2e/readyz", "/readyz/x"):
                assert (await client.get(path)).status_code in (307, 404), path

    asyncio.run(run())


@pytest.mark.holds("S9")
def test_the_pages_name_no_person_no_resource_and_no_token(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path) as pdp, httpx.AsyncClient(base_url=pdp.probes) as client:
            token = pdp.token(EVE)
            listed = pdp.channel().unary_unary("/pdp.v1.LockService/List")
            with pytest.raises(grpc.aio.AioRpcError):
                await listed(b"", metadata=(("authorization", f"Bearer {token}"),), timeout=10)
            for path in OPEN_ROUTES:
                page = (await client.get(path)).text
                assert EVE not in page
                assert token not in page
                assert "lock/all" not in page

    asyncio.run(run())
