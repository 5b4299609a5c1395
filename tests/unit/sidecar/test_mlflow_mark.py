"""The world that a server's workers have brought about: the next request waits for it, at whichever worker it arrives."""

import asyncio
from dataclasses import replace
from pathlib import Path

from pdp.errors import PortcullisError, Reason
from sidecar.mlflow.mark import Mark
from tests.support.mlflow_fake import Bench


def test_the_highest_number_stays(tmp_path: Path) -> None:
    mark, other = Mark(tmp_path / "learnt"), Mark(tmp_path / "learnt")
    assert mark.read() == 0
    for seq, after in ((9, 9), (7, 9), (10, 10), (123, 123)):
        mark.lift(seq)
        assert other.read() == after


def test_a_request_waits_for_what_another_worker_was_told_and_is_refused_if_it_does_not_come(tmp_path: Path) -> None:
    bench, asked = Bench(), []
    arrives = True

    async def reach(seq: int, wait_s: float) -> bool:
        asked.append((seq, wait_s > 0))
        if not arrives:
            raise PortcullisError(Reason.WORLD_BEHIND, "not yet")
        return True

    mark = Mark(tmp_path / "learnt")
    mark.lift(12)
    bench.behind(replace(bench.inventory, reach=reach, mark=mark))
    target = "/api/2.0/mlflow/experiments/get?experiment_id=1"
    assert asyncio.run(bench.ask("GET", target))[0] == 200
    assert asked == [(12, True)]
    arrives = False
    assert asyncio.run(bench.ask("GET", target))[0] == 503
