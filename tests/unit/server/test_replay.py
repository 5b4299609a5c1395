"""Which memory of used DPoP proofs a PDP opens, and that it says so."""

import asyncio
from pathlib import Path

import httpx
import pytest

from pdp.adapters.clock import SystemClock
from pdp.config import configure
from pdp.errors import Reason
from pdp.identity.issuers import IssuerTable
from pdp.identity.types import Refusal
from pdp.server.replay import open_replay
from tests.support.pdp import running_pdp
from tests.support.redis import redis_server


@pytest.mark.parametrize(
    ("store", "scope"),
    [("", "all processes of this host"), ("redis://127.0.0.1:1", "all PDPs of the store")],
)
def test_pdps_share_used_proofs_as_far_as_they_share_a_store(tmp_path: Path, store: str, scope: str) -> None:
    flags = {("state_dir",): str(tmp_path), ("store", "url"): store}

    async def run() -> str:
        memory = open_replay(configure(flags=flags), SystemClock())
        await memory.close()
        return memory.scope

    assert asyncio.run(run()) == scope


def test_a_store_that_is_emptied_lets_no_proof_in_again_at_the_host_that_took_it(tmp_path: Path) -> None:
    """Lost, set back by a failover, or in a thief's hands: Redis is a carrier."""
    with redis_server() as server:
        flags = {("store", "url"): server.url, ("state_dir",): str(tmp_path / "one")}
        others = flags | {("state_dir",): str(tmp_path / "other")}

        async def run() -> None:
            one, other = (open_replay(configure(flags=given), SystemClock()) for given in (flags, others))
            try:
                assert await one.use(b"a", ttl_s=60) is None
                assert reason(await other.use(b"a", ttl_s=60)) is Reason.TOKEN_REPLAYED
                assert await one.use(b"b", ttl_s=60) is None
                server.command("FLUSHALL")
                assert reason(await one.use(b"b", ttl_s=60)) is Reason.TOKEN_REPLAYED
                server.kill()
                assert reason(await one.use(b"c", ttl_s=60)) is Reason.REPLAY_STORE_UNAVAILABLE
                assert reason(await one.use(b"c", ttl_s=60)) is Reason.TOKEN_REPLAYED
            finally:
                await one.close()
                await other.close()

        asyncio.run(run())


def reason(outcome: Refusal | None) -> Reason | None:
    return outcome.reason if outcome is not None else None


@pytest.mark.parametrize("takes", [False, True])
def test_readiness_says_who_knows_a_used_proof_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, takes: bool
) -> None:
    monkeypatch.setattr(IssuerTable, "takes_proofs", takes)

    async def run() -> None:
        async with running_pdp(tmp_path) as pdp, httpx.AsyncClient(base_url=pdp.probes) as client:
            page = (await client.get("/readyz")).json()
            assert page["used_proofs"] == ("all processes of this host" if takes else "")
            assert not [text for text in page["degradations"] if "proof" in text]

    asyncio.run(run())
