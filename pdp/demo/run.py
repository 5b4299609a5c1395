"""One performance: set the stage, tell the story, leave it standing if asked, and clear it away whatever happens."""

import datetime as dt
import json
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from pdp.demo.acts import Narrator
from pdp.demo.keep import lines_to_try
from pdp.demo.limits import LIMITS
from pdp.demo.screen import Screen, introduction, verdict
from pdp.demo.stage import Stage, set_stage
from pdp.demo.story import STORY, Told

DEVIATED: Final = 1
"""Exit code of a story that did not go as promised."""
ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def perform(screen: Screen, *, keep: bool = False, as_json: bool = False) -> int:
    """Perform the demonstration and return the exit code: 0 only if every step went as promised.

    Raises:
        StageError: the stage could not be set.
        SystemExit: a signal ended it; everything is cleared away first.
    """
    with _ended_by_signals(), set_stage(screen.progress, now=dt.datetime.now(dt.UTC)) as stage:
        told = _tell(stage, screen, quiet=as_json)
        if as_json:
            screen.console.print_json(json.dumps(summary(told)))
        else:
            screen.console.print(verdict(told))
        if keep:
            _stay(stage, screen)
    return 0 if all(one.as_promised for one in told) else DEVIATED


def summary(told: Sequence[Told]) -> dict[str, object]:
    """Return the story for programs."""
    steps = [
        {
            "name": one.step.name,
            "who": one.step.who,
            "expected": one.step.expected,
            "actual": one.outcome.actual,
            "detail": one.outcome.detail,
            "measured": one.outcome.measured,
            "as_promised": one.as_promised,
        }
        for one in told
    ]
    return {"as_promised": all(one.as_promised for one in told), "steps": steps}


def _tell(stage: Stage, screen: Screen, *, quiet: bool) -> list[Told]:
    narrator = Narrator(stage=stage)
    if quiet:
        return [narrator.tell(step) for step in STORY]
    screen.console.print(introduction(stage))
    with screen.telling() as telling:
        for step in STORY:
            telling.current = step
            telling.told.append(narrator.tell(step))
        telling.current = None
    return telling.told


def _stay(stage: Stage, screen: Screen) -> None:
    screen.console.print(lines_to_try(stage), soft_wrap=True)
    # Ends by a signal only: `_ended_by_signals` raises out of this. Looking up is what notices one that came just before
    # a wait, or to another thread: an endless wait is not interrupted by either.
    while True:
        time.sleep(LIMITS.signal_s)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Turn the first Ctrl-C, SIGTERM or hang-up into an orderly end; a second one must not interrupt the clearing away."""

    def end(number: int, _frame: object) -> None:
        for one in ENDING_SIGNALS:
            signal.signal(one, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = {one: signal.signal(one, end) for one in ENDING_SIGNALS}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
