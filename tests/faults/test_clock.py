"""F12 on whole processes: a clock that jumped ahead and was set back revives nothing, and denies nothing for ever."""

import asyncio
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from pdp.identity.development import issue
from pdp.v1 import decision_pb2, decision_pb2_grpc
from tests.support.pdp import BOB
from tests.support.served import ServedPdp, served_pdp

ASSETS = "dataset/open: {environment: dev}\n"
HOUR_S = 3600
ASK = decision_pb2.EvaluateRequest(
    question=decision_pb2.Question(action="dataset.read", resource="dataset/open", supports_all=True)
)


def rows() -> str:
    """Bob may ask for good, and reads for one more hour; Ann reads for good."""
    end = datetime.fromtimestamp(time.time() + HOUR_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return (
        f"g, user:{BOB}, role:member, prod\ng, user:{BOB}, role:data-scientist, dev, 2020-01-01T00:00:00Z, {end}\n"
        "g, user:ann@demo.portcullis, role:member, prod\ng, user:ann@demo.portcullis, role:data-scientist, dev\n"
    )


async def asked(pdp: ServedPdp, sub: str) -> str:
    now_s = int(time.time()) + pdp.clock_off_s
    token = issue(pdp.issuer, sub=sub, jti=f"c{time.time_ns()}", now_s=now_s)
    stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())
    how: dict[str, Any] = {"metadata": (("authorization", f"Bearer {token}"),), "timeout": 10}
    return str((await stub.Evaluate(ASK, **how)).decision.reason)


async def degradations(pdp: ServedPdp) -> str:
    async with httpx.AsyncClient() as client:
        return " ".join((await client.get(f"{pdp.probes}/readyz")).json()["degradations"])


@pytest.mark.holds("F12")
def test_a_clock_that_ran_ahead_and_is_set_back_revives_no_role_and_denies_nothing_else(tmp_path: Path) -> None:
    async def work() -> None:
        async with served_pdp(tmp_path, rows=rows(), assets=ASSETS) as pdp:
            assert await asked(pdp, BOB) == "granted"

            async def again(off_s: int) -> None:
                pdp.signal(signal.SIGTERM)
                await pdp.gone()
                pdp.clock_off_s = off_s
                await pdp.start()

            await again(2 * HOUR_S)
            assert await asked(pdp, BOB) == "no_grant"
            assert await asked(pdp, "ann@demo.portcullis") == "granted"
            await again(0)
            assert await asked(pdp, BOB) == "no_grant"  # signed time has passed its end: the step back revives nothing
            assert await asked(pdp, "ann@demo.portcullis") == "granted"  # and what has no end goes on
            assert "off signed time" in await degradations(pdp)

    asyncio.run(work())
