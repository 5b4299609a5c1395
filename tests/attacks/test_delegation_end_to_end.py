"""A token with actors at a real PDP: both need the allow, every link can be locked, and the whole chain is in the record."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from pdp.errors import Reason
from pdp.v1 import decision_pb2, decision_pb2_grpc, lock_pb2
from pdp.v1.lock_pb2_grpc import LockServiceStub
from tests.support import pdp as house
from tests.support.pdp import ADA, BOB, ROWS, RunningPdp, detail, running_pdp

ETL, CRON, STRANGER = "etl", "cron", "stranger"
ROWS_OF_AGENTS = ROWS + f"g, agent:{ETL}, role:data-scientist, dev\ng, agent:{ETL}, role:member, prod\n"
ASK = decision_pb2.EvaluateRequest(
    question=decision_pb2.Question(action="dataset.read", resource="dataset/open", supports_all=True)
)
Story = Callable[[RunningPdp, Callable[..., Awaitable[Reason]]], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Story], None]:
    trusting = house.trust_text
    entry = "    max_act_depth: 2\ntrust_domains"
    monkeypatch.setattr(house, "trust_text", lambda *a, **kw: trusting(*a, **kw).replace("trust_domains", entry))

    def run(story: Story) -> None:
        async def inside() -> None:
            assets = "dataset/open: {environment: dev}\n"
            async with running_pdp(tmp_path, rows=ROWS_OF_AGENTS, assets=assets) as pdp:
                stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())

                async def asked(*actors: str, **claims: Any) -> Reason:
                    metadata = pdp.metadata(BOB, claims=chain(*actors) | claims)
                    try:
                        return Reason((await stub.Evaluate(ASK, metadata=metadata, timeout=10)).decision.reason)
                    except grpc.aio.AioRpcError as error:
                        return Reason(detail(error).reason)

                await story(pdp, asked)

        asyncio.run(inside())

    return run


def chain(*actors: str) -> dict[str, Any]:
    """Return the `act` of these actors, current first."""
    claims: dict[str, Any] = {}
    for name in reversed(actors):
        claims = {"act": {"sub": name} | claims}
    return claims


def test_subject_and_current_actor_both_need_the_allow_and_nested_ones_need_none(play: Callable[[Story], None]) -> None:
    async def story(_pdp: RunningPdp, asked: Callable[..., Awaitable[Reason]]) -> None:
        assert await asked() is Reason.GRANTED
        assert await asked(ETL) is Reason.GRANTED
        assert await asked(ETL, STRANGER) is Reason.GRANTED
        assert await asked(STRANGER) is Reason.DELEGATION_DENIED
        assert await asked(STRANGER, ETL) is Reason.DELEGATION_DENIED
        assert await asked(ETL, STRANGER, CRON) is Reason.ACTOR_CHAIN_TOO_DEEP
        assert await asked(act="etl") is Reason.ACTOR_INVALID
        assert await asked(may_act={"sub": STRANGER}) is Reason.GRANTED

    play(story)


def test_the_whole_chain_is_in_the_record(play: Callable[[Story], None]) -> None:
    async def story(pdp: RunningPdp, asked: Callable[..., Awaitable[Reason]]) -> None:
        await asked(ETL, CRON)
        await asked(STRANGER, CRON)
        # The stranger was already refused the right to ask: that record names the chain as well.
        decided = [record for record in map(json.loads, await pdp.records()) if record.get("actors")]
        chains = {record["reason"]: [actor["principal"] for actor in record["actors"]] for record in decided}
        assert chains["granted"] == [f"agent:{ETL}", f"agent:{CRON}"]
        assert chains["delegation_denied"] == [f"agent:{STRANGER}", f"agent:{CRON}"]
        assert {record["principal"] for record in decided} == {f"user:{BOB}"}

    play(story)


def test_a_lock_on_any_link_ends_every_chain_that_holds_it_and_no_other(play: Callable[[Story], None]) -> None:
    async def story(pdp: RunningPdp, asked: Callable[..., Awaitable[Reason]]) -> None:
        stub = LockServiceStub(pdp.channel())
        chains = [(ETL, CRON), (ETL,), ()]
        for position, locked in enumerate((f"agent:{CRON}", f"agent:{ETL}", f"user:{BOB}")):
            assert [await asked(*actors) for actors in chains[position:]] == [Reason.GRANTED] * (3 - position)
            request = lock_pb2.LockRequest(target=lock_pb2.LockTarget(principal=locked), reason="test")
            await stub.Lock(request, metadata=pdp.metadata(ADA), timeout=10)
            assert [await asked(*actors) for actors in chains[: position + 1]] == [Reason.LOCKED] * (position + 1)

    play(story)
