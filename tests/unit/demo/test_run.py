"""A performance: its exit code tells the truth, a failed step does not end it, and a signal ends it in order."""

import datetime as dt
import io
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from pdp.demo import run
from pdp.demo.acts import Narrator
from pdp.demo.child import StageError
from pdp.demo.screen import Screen
from pdp.demo.stage import Progress
from pdp.demo.story import STORY, Outcome, Step, Told

cleared: list[str] = []


@contextmanager
def bare_stage(_progress: Progress, *, now: dt.datetime) -> Iterator[Any]:
    """A stage without processes: enough for what is told around the steps."""
    assert now.tzinfo is not None
    cleared.clear()
    try:
        yield SimpleNamespace(model_says="", model_url="", gate_url="", pdp_address="")
    finally:
        cleared.append("stage")


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    monkeypatch.setattr(run, "set_stage", bare_stage)
    return Screen(console=Console(file=io.StringIO(), width=120))


def telling(monkeypatch: pytest.MonkeyPatch, actual: dict[int, str]) -> None:
    """Let every step go as promised, but those in `actual`."""

    def tell(_narrator: Narrator, step: Step) -> Told:
        return Told(step=step, outcome=Outcome(actual=actual.get(STORY.index(step), step.expected)))

    monkeypatch.setattr(Narrator, "tell", tell)


def test_a_story_as_promised_ends_with_zero(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    telling(monkeypatch, {})
    assert run.perform(screen) == 0
    assert cleared == ["stage"]


@pytest.mark.parametrize("index", range(len(STORY)))
def test_one_step_that_goes_otherwise_ends_with_one(
    screen: Screen, monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    telling(monkeypatch, {index: "200 but why"})
    assert run.perform(screen) == 1
    assert run.perform(screen, as_json=True) == 1


def test_a_step_that_cannot_be_performed_is_told_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_narrator: Narrator, _act: object) -> Outcome:
        raise StageError("the stream was not cut within 10 s")

    monkeypatch.setattr(Narrator, "_perform", fail)
    narrator = Narrator(stage=SimpleNamespace())  # type: ignore[arg-type] # never reached
    told = narrator.tell(STORY[0])
    assert not told.as_promised
    assert told.outcome.actual == "failed: the stream was not cut within 10 s"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_clears_the_stage_and_tells_its_number(
    screen: Screen, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def interrupted(_narrator: Narrator, _step: Step) -> Told:
        os.kill(os.getpid(), number)
        raise AssertionError("the signal must not be survived")

    before = signal.getsignal(number)
    monkeypatch.setattr(Narrator, "tell", interrupted)
    with pytest.raises(SystemExit) as ended:
        run.perform(screen)
    assert ended.value.code == 128 + number
    assert cleared == ["stage"]
    assert signal.getsignal(number) == before


def test_a_kept_stage_hears_a_signal_that_another_thread_took(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    telling(monkeypatch, {})
    waits = threading.Event()
    other = threading.Thread(target=lambda: waits.wait(60))
    other.start()
    monkeypatch.setattr(run, "lines_to_try", lambda _stage: "")
    # The kernel may hand a signal to any thread, and then nothing interrupts the one that waits.
    alarm = threading.Timer(0.05, lambda: signal.pthread_kill(other.ident or 0, signal.SIGINT))
    alarm.start()
    with pytest.raises(SystemExit) as ended:
        run.perform(screen, keep=True)
    waits.set()
    for thread in (alarm, other):
        thread.join()
    assert ended.value.code == 128 + signal.SIGINT
    assert cleared == ["stage"]
