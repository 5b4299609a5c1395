"""What runs beside a model, and what decides, stay apart: rights of an enforcement point (S12), administration under load (L8).

Source: Pomerium CVE-2024-47616; Envoy Gateway CVE-2026-53714; Vault CVE-2025-4656, CVE-2026-5807.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pdp.ask import what_can
from pdp.cli.serve import load
from pdp.engine.casbin_text import print_row
from pdp.model.names import Principal
from pdp.model.request import Party
from pdp.v1 import decision_pb2, decision_pb2_grpc, lock_pb2, lock_pb2_grpc
from tests.support.pdp import ADA, BOB, GATE, PACK, running_pdp
from tests.support.worlds import START_MS, Scribe

ASSETS = "dataset/open: {environment: dev}\n"
SIDECAR = "workload:spiffe://prod.example/ns/ml/sa/sidecar"
FLOOD = 300


@pytest.mark.holds("S12", "adv_plane_separation")
def test_a_sidecars_credential_holds_two_rights_and_nothing_else() -> None:
    scribe = Scribe()
    pack = load(PACK)
    rows = "\n".join([*map(print_row, pack.rows), f"g, {SIDECAR}, role:enforcement-point, prod"])
    scribe.policy(rows)
    scribe.assets(**{"dataset/finance": {"environment": "prod"}, "endpoint/fraud": {"environment": "prod"}})
    entries = what_can(scribe.world, Party(principal=Principal.parse(SIDECAR)), START_MS)
    held = {(str(entry.action), str(entry.resource)) for entry in entries if entry is not None}
    assert held == {("replica.subscribe", "replica/all"), ("audit.append", "audit/all")}


@pytest.mark.holds("L8", "adv_admin_starved")
def test_a_flood_of_questions_keeps_no_administrator_from_a_lock(tmp_path: Path) -> None:
    async def work() -> None:
        async with running_pdp(tmp_path, assets=ASSETS) as pdp:
            asked = decision_pb2.Question(
                subject=decision_pb2.Subject(asserted=decision_pb2.AssertedSubject(principal=f"user:{BOB}")),
                action="dataset.read",
                resource="dataset/open",
                supports_all=True,
            )
            channel, gate = pdp.channel(), pdp.metadata(GATE)
            stub = decision_pb2_grpc.DecisionServiceStub(channel)
            over = asyncio.Event()

            async def flood() -> None:
                while not over.is_set():
                    await stub.Evaluate(decision_pb2.EvaluateRequest(question=asked), metadata=gate, timeout=60)

            watches = [
                stub.Watch(decision_pb2.WatchRequest(question=asked), metadata=gate, timeout=60) for _ in range(FLOOD)
            ]
            for watch in watches:
                await watch.read()
            asking = [asyncio.create_task(flood()) for _ in range(FLOOD)]
            lock = lock_pb2.LockRequest(target=lock_pb2.LockTarget(principal=f"user:{BOB}"), reason="stop")
            made = await lock_pb2_grpc.LockServiceStub(channel).Lock(lock, metadata=pdp.metadata(ADA), timeout=30)
            assert made.lock.id
            told: list[Any] = await asyncio.gather(*(watch.read() for watch in watches))
            assert {item.decision.reason for item in told} == {"locked"}
            over.set()
            await asyncio.gather(*asking)

    asyncio.run(work())
