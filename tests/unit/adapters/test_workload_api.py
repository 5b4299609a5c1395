"""A SPIFFE agent that tells, withdraws and goes away, over a real Unix socket."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from pdp.adapters.keys_http import KeyStore
from pdp.adapters.workload_api import METHOD, JWTBundlesResponse
from pdp.errors import Reason
from pdp.identity.issuers import Issuer
from pdp.identity.keyset import KeySet
from pdp.identity.types import Refusal
from tests.support.tokens import reason_of, signer
from tests.support.workloads import DOMAIN, workloads


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def now_ms(self) -> int:
        return int(self.s * 1000)

    def mono_s(self) -> float:
        return self.s


class Agent:
    """Tells what the test puts into `says`; None ends the stream."""

    def __init__(self) -> None:
        self.says: asyncio.Queue[dict[str, bytes] | None] = asyncio.Queue()
        self.headers: list[dict[str, Any]] = []

    async def stream(self, _request: bytes, context: Any) -> AsyncIterator[Any]:
        self.headers.append(dict(context.invocation_metadata()))
        while (bundles := await self.says.get()) is not None:
            yield JWTBundlesResponse(bundles=bundles)

    async def start(self, path: Path) -> grpc.aio.Server:
        service, _, name = METHOD[1:].partition("/")
        handler = grpc.unary_stream_rpc_method_handler(
            self.stream, request_deserializer=bytes, response_serializer=JWTBundlesResponse.SerializeToString
        )
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        return server


def bundle(*names: str) -> bytes:
    keys = [{k: v for k, v in signer("ES256", name).public_jwk.items() if k != "alg"} for name in names]
    return json.dumps({"keys": [key | {"use": "jwt-svid"} for key in keys], "spiffe_sequence": 1}).encode()


async def until(store: KeyStore, issuer: Issuer, wanted: int | Reason) -> None:
    """Return once the store answers with so many keys, or with that reason; the test's timeout ends a vain wait."""
    while True:
        found = await store.key_set(issuer, kid=None)
        if wanted in ({reason_of(found)} if isinstance(found, Refusal) else {len(found.keys)}):  # type: ignore[arg-type]
            return
        await asyncio.sleep(0)


def test_bundles_are_told_replaced_and_withdrawn(tmp_path: Path) -> None:
    async def story() -> None:
        agent, clock = Agent(), Clock()
        server = await agent.start(tmp_path / "s")
        trust = workloads(svid={"bundle": {"workload_api": f"unix:{tmp_path / 's'}"}})
        store = KeyStore(issuers=trust, directory=tmp_path, clock=clock, timeout_s=5)
        issuer = trust.svids[DOMAIN]
        agent.says.put_nowait({f"spiffe://{DOMAIN}": bundle("a"), "spiffe://other.example": bundle("x", "y")})
        first = await store.key_set(issuer, kid=None)
        assert isinstance(first, KeySet), first
        assert [key.kid for key in first.keys] == [signer("ES256", "a").public_jwk["kid"]]
        assert agent.headers[0]["workload.spiffe.io"] == "true"
        agent.says.put_nowait({f"spiffe://{DOMAIN}": bundle("a", "b")})
        await until(store, issuer, 2)
        agent.says.put_nowait({f"spiffe://{DOMAIN}": b'{"keys": []}'})
        await until(store, issuer, 0)  # all revoked (JW-8)
        agent.says.put_nowait({"spiffe://other.example": bundle("x")})
        await until(store, issuer, Reason.KEYS_UNAVAILABLE)  # absent: unloaded (SP-3)
        agent.says.put_nowait({f"spiffe://{DOMAIN}": bundle("a")})
        await until(store, issuer, 1)
        clock.s += issuer.stale_max_s + 1
        assert isinstance(await store.key_set(issuer, kid=None), KeySet)  # the stream stands: nothing has changed
        agent.says.put_nowait(None)
        await store._bundles.at(f"unix:{tmp_path / 's'}").ended.wait()
        assert isinstance(await store.key_set(issuer, kid=None), KeySet)  # the last good state, until it is stale
        clock.s += issuer.stale_max_s + 1
        assert reason_of(await store.key_set(issuer, kid=None)) is Reason.KEYS_UNAVAILABLE  # type: ignore[arg-type]
        await store.close()
        await server.stop(None)

    asyncio.run(story())


def test_without_an_agent_there_are_no_keys(tmp_path: Path) -> None:
    async def story() -> None:
        trust = workloads(svid={"bundle": {"workload_api": f"unix:{tmp_path / 'none'}"}})
        store = KeyStore(issuers=trust, directory=tmp_path, clock=Clock(), timeout_s=5)
        found = await store.key_set(trust.svids[DOMAIN], kid=None)
        assert isinstance(found, Refusal)
        assert (found.reason, "UNAVAILABLE" in found.detail) == (Reason.KEYS_UNAVAILABLE, True)
        await store.close()

    asyncio.run(story())
