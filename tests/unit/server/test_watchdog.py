"""F30: a loop that answers nobody makes its PDP not ready, and says where it stood."""

import asyncio
import threading
import time
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from pdp.server.watchdog import Alarms, LoopWatchdog
from tests.support.pdp import running_pdp
from tests.support.waiting import until

BLOCKED_S, CALM_S = 0.1, 0.3


def blocking_call(watchdog: LoopWatchdog) -> None:
    """Hold the loop until the thread has noticed."""
    while not watchdog.blocked:
        time.sleep(0.01)


@pytest.mark.holds("F30")
def test_a_blocked_loop_is_not_ready_until_it_has_run_for_a_while(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_pdp(tmp_path) as pdp, httpx.AsyncClient(base_url=pdp.probes) as client:
            assert (await client.get("/readyz")).status_code == 200
            await pdp.app.watchdog.stop()
            pdp.app.watchdog = watchdog = LoopWatchdog(blocked_s=BLOCKED_S, calm_s=60.0)
            watchdog.start()
            with capture_logs() as logs:
                blocking_call(watchdog)
            page = await client.get("/readyz")
            assert page.status_code == 503
            assert any("event loop was blocked" in text for text in page.json()["degradations"])
            assert "blocking_call" in next(log["at"] for log in logs if log["event"] == "the event loop is blocked")
            assert "pdp_loop_blocked 1.0" in (await client.get("/metrics")).text

    asyncio.run(run())


@pytest.mark.holds("F30")
def test_it_is_sound_again_after_the_calm_and_the_thread_ends() -> None:
    async def run() -> None:
        watchdog = LoopWatchdog(blocked_s=BLOCKED_S, calm_s=CALM_S)
        assert watchdog.told == ""
        watchdog.start()
        blocking_call(watchdog)
        assert "blocked" in watchdog.told
        await until(lambda: watchdog.told == "")
        await watchdog.stop()
        assert "watchdog" not in {thread.name for thread in threading.enumerate()}

    asyncio.run(run())


def test_each_degradation_is_told_when_it_comes_and_when_it_goes() -> None:
    now: list[str] = []
    alarms = Alarms(lambda: now)
    with capture_logs() as logs:
        alarms.look()
        now[:] = ["the local clock is 130 s off signed time"]
        alarms.look()
        now[:] = ["the local clock is 131 s off signed time"]
        alarms.look()
        now.clear()
        alarms.look()
    assert [log["event"] for log in logs] == ["degraded", "degradation ended"]
