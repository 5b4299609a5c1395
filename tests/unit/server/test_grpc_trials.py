"""Trials at a whole PDP: tried on live traffic, told over the wire, rolled back by itself, and replayed afterwards."""

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from pdp.adapters.log_sqlite import SqliteWorldLog
from pdp.cli.audit_replay import worlds_of
from pdp.cli.settings import configuration
from pdp.limits import CANARY_SAMPLE
from pdp.server.stores import WORLD_FILE
from pdp.service.redecide import replay
from pdp.v1 import decision_pb2, decision_pb2_grpc, policy_pb2, policy_pb2_grpc
from tests.support.pdp import ADA, BOB, ROWS, RunningPdp, running_pdp
from tests.support.waiting import until

ASSETS = "dataset/open: {environment: dev}\n"
READER = "reader@demo.portcullis"
PEOPLE = ROWS + f"p, role:peer, policy.read, policy/main, prod, , , allow\ng, user:{READER}, role:peer, prod\n"
DENY = "p, role:data-scientist, dataset.read, dataset/open, dev, , , deny"
SHADOW, CANARY = policy_pb2.TRIAL_MODE_SHADOW, policy_pb2.TRIAL_MODE_CANARY


class Desk:
    """An administrator and a data scientist at one PDP."""

    def __init__(self, pdp: RunningPdp) -> None:
        self.pdp = pdp
        self.policy = policy_pb2_grpc.PolicyServiceStub(pdp.channel())  # type: ignore[no-untyped-call] # generated
        self.decisions = decision_pb2_grpc.DecisionServiceStub(pdp.channel())  # type: ignore[no-untyped-call] # generated

    def how(self, who: str = ADA) -> dict[str, Any]:
        return {"metadata": self.pdp.metadata(who), "timeout": 20}

    async def read(self) -> decision_pb2.Decision:
        question = decision_pb2.Question(action="dataset.read", resource="dataset/open", supports_all=True)
        asked = await self.decisions.Evaluate(decision_pb2.EvaluateRequest(question=question), **self.how(BOB))
        return asked.decision

    async def start(self, mode: policy_pb2.TrialMode, **fields: Any) -> str:
        edit = policy_pb2.Edit(add=[DENY])
        proposal = await self.policy.Propose(policy_pb2.ProposeRequest(edit=edit, message="why"), **self.how())
        request = policy_pb2.StartTrialRequest(proposal_id=proposal.proposal_id, mode=mode, duration_s=600, **fields)
        await self.policy.StartTrial(request, **self.how())
        return str(proposal.proposal_id)

    async def trials(self, *, differences: bool = False, who: str = ADA) -> list[policy_pb2.Trial]:
        request = policy_pb2.ListTrialsRequest(differences=differences)
        return list((await self.policy.ListTrials(request, **self.how(who))).trials)

    async def compared(self, count: int) -> policy_pb2.Trial:
        """Return the one trial once it has compared so many decisions."""
        async with asyncio.timeout(30):
            while True:
                (trial,) = await self.trials(differences=True)
                if trial.tally.compared >= count:
                    return trial
                await asyncio.sleep(0.02)


def test_a_shadow_is_told_over_the_wire_and_its_traffic_only_to_auditors(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path, assets=ASSETS, rows=PEOPLE) as pdp:
            desk = Desk(pdp)
            proposal_id = await desk.start(SHADOW)
            for _ in range(3):
                assert (await desk.read()).reason == "granted"
            trial = await desk.compared(3)
            (lost,) = trial.tally.differences
            assert (lost.change, lost.subject, lost.count) == ("loses", f"user:{BOB}", 3)
            assert list(lost.after.determining) == ["edits.csv:1"]
            (counts,) = await desk.trials(who=READER)
            assert (counts.tally.loses, len(counts.tally.differences)) == (3, 0)
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await desk.trials(who=READER, differences=True)
            assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
            await desk.policy.EndTrial(policy_pb2.EndTrialRequest(proposal_id=proposal_id, mode=SHADOW), **desk.how())
            assert await desk.trials() == []
            told = await desk.policy.ListRevisions(policy_pb2.ListRevisionsRequest(), **desk.how())
            assert [(one.why, one.mode) for one in told.trials] == [("stopped", "shadow"), ("started", "shadow")]
            assert told.trials[0].detail.endswith("compared: 0 gains, 3 loses")

    asyncio.run(run())


def test_a_canary_answers_is_rolled_back_and_every_record_replays(tmp_path: Path) -> None:
    async def run() -> list[dict[str, Any]]:
        async with running_pdp(tmp_path, assets=ASSETS, flags={("point",): "edge"}) as pdp:
            desk = Desk(pdp)
            live = await desk.read()
            await desk.start(CANARY, points=["edge"], max_loses=5)
            tried = [await desk.read() for _ in range(CANARY_SAMPLE)]
            assert {one.candidate for one in tried} == {pdp.app.replica.world.candidate.revision}  # type: ignore[union-attr]
            assert {one.reason for one in tried} == {"denied_by_rule"}
            await until(lambda: pdp.app.replica.world.candidate is None)
            after = await desk.read()
            assert (after.reason, after.candidate, live.reason) == ("granted", "", "granted")
            return [json.loads(record) for record in await pdp.records()]

    async def again(records: list[dict[str, Any]]) -> None:
        settings = configuration(None, {("state_dir",): tmp_path / "state"})
        log = SqliteWorldLog(settings.state_dir / WORLD_FILE)
        try:
            told = await replay((("pdp", record) for record in records), worlds_of(settings, log))
        finally:
            await log.close()
        assert (told.differences, told.same > CANARY_SAMPLE) == ([], True)

    asyncio.run(again(asyncio.run(run())))
