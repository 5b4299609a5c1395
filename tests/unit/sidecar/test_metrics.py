"""The page of a sidecar's metrics: labels from closed lists, and a revocation measured from its signing."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pdp.errors import Reason
from sidecar.asked import Ask, Unidentified
from sidecar.config import CoreConfig, PdpAccess
from sidecar.core import Core
from sidecar.gate import Gate
from sidecar.metrics import MEANINGS, Tally, exposition
from sidecar.routes import Placement, RouteTable
from tests.support.enforcement import Decider


def lines(page: str, name: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith(name)]


@pytest.mark.holds("L7", "adv_labels")
def test_what_callers_send_never_becomes_a_label() -> None:
    async def identify(*_: Any) -> Unidentified:
        return Unidentified(reason=Reason.TOKEN_MALFORMED, detail='a"} 1\npdp_sidecar_world_seq 9')

    tally = Tally()
    gate = Gate(table=RouteTable(rows=(), served={}), identify=identify, decider=Decider(), tally=tally)

    async def attack() -> None:
        for number in range(200):
            ask = Ask(
                method=f"M{number}", target=f'/x{number}"}} 1', route=f"r{number}", authorization=f"Bearer {number}\n"
            )
            await gate.decide(ask, Placement.EXT_AUTHZ)

    asyncio.run(attack())
    counted = lines(exposition({}, tally), "pdp_sidecar_decisions_total")
    assert sum(float(line.rpartition(" ")[2]) for line in counted) == 200
    assert len(counted) < 4
    assert {line.split('"')[3] for line in counted} <= {reason.value for reason in Reason}


def test_each_number_is_told_with_its_kind() -> None:
    page = exposition(dict.fromkeys(MEANINGS, 1.0))
    assert "# TYPE pdp_sidecar_streams gauge\n" in page
    assert "# TYPE pdp_sidecar_rechecks_total counter\n" in page
    assert "pdp_sidecar_rechecks_total 1.0\n" in page


@pytest.mark.parametrize(("cut", "count"), [(1, 1), (0, 0)], ids=["it ended a response", "it ended none"])
def test_a_revocation_is_measured_from_its_signing_and_only_where_it_ended_something(
    cut: int, count: int, tmp_path: Path
) -> None:
    class Rechecks:
        cuts = 0

        async def world_changed(self) -> None:
            self.cuts += cut

    access = PdpAccess(address="unused:1", root_digest="0" * 64)
    config = CoreConfig(table=RouteTable(rows=(), served={}), pdp=access, trust=tmp_path, state_dir=tmp_path)
    clock: Any = SimpleNamespace(now_ms=lambda: 10_200)
    core = Core(config, source=SimpleNamespace(), sink=None, clock=clock)  # type: ignore[arg-type]  # it follows nothing here
    core._rechecker = Rechecks()  # type: ignore[assignment]  # only these two are asked
    asyncio.run(core._world_changed(SimpleNamespace(signed_ms=10_000)))  # type: ignore[arg-type]  # only its time counts
    page = exposition({}, core._tally)
    assert f"pdp_sidecar_revocation_lag_seconds_count {count}.0\n" in page
    assert f'pdp_sidecar_revocation_lag_seconds_bucket{{le="0.25"}} {count}.0\n' in page
    assert 'pdp_sidecar_revocation_lag_seconds_bucket{le="0.1"} 0.0\n' in page
