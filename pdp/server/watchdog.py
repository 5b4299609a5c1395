"""What a PDP notices about itself: an event loop that answers nobody (FAILURE.md F30), and every change of what is weakened.

While the loop is blocked nothing on it can say so, neither a probe nor the health service: callers meet their deadlines. So
a thread watches, logs where the loop stands, and keeps the PDP *not ready* for a while after it moves again.
"""

import asyncio
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from pdp.limits import HEALTH_INTERVAL_S, LOOP_BLOCKED_S, LOOP_CALM_S

_log = structlog.get_logger("pdp.watchdog")
_NUMBERS: Final = re.compile(r"\d+")


class LoopWatchdog:
    """Watches the running loop from a thread of its own; `start` it on that loop, `stop` it once.

    Args:
        blocked_s: the silence, in seconds, after which the loop counts as blocked.
        calm_s: how many seconds a loop that was blocked must have run before it counts as sound again.
    """

    def __init__(self, *, blocked_s: float = LOOP_BLOCKED_S, calm_s: float = LOOP_CALM_S) -> None:
        self.blocked = 0
        """How often the loop was blocked."""
        self._blocked_s = blocked_s
        self._calm_s = calm_s
        self._ticked_s = float("inf")
        self._blocked_at_s = -float("inf")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def told(self) -> str:
        """Why this PDP should not be asked, in words for the operator; empty: its loop is sound."""
        now_s = time.monotonic()
        if now_s - self._ticked_s > self._blocked_s or now_s - self._blocked_at_s < self._calm_s:
            return f"the event loop was blocked for over {self._blocked_s:g} s: nobody was answered meanwhile"
        return ""

    def start(self) -> None:
        """Begin to watch the running loop."""
        self._ticked_s = time.monotonic()
        arguments = (asyncio.get_running_loop(), threading.get_ident())
        self._thread = threading.Thread(target=self._watch, args=arguments, name="watchdog", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        noticed = False
        while not self._stop.wait(self._blocked_s / 4):
            blocked = time.monotonic() - self._ticked_s > self._blocked_s
            if blocked:
                self._blocked_at_s = time.monotonic()
            if blocked and not noticed:
                _log.error("the event loop is blocked", at=_where(thread))
                self.blocked += 1
            noticed = blocked
            try:
                loop.call_soon_threadsafe(self._tick)
            except RuntimeError:  # the loop has ended
                return

    def _tick(self) -> None:
        now_s = time.monotonic()
        if now_s - self._ticked_s > self._blocked_s:  # the whole process was stopped, the thread too
            self._blocked_at_s = now_s
        self._ticked_s = now_s


def _where(thread: int) -> str:
    """Return the innermost calls of a thread, for whoever has to mend it."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - CPython's documented way to see another thread
    return "; ".join(f"{call.filename}:{call.lineno} {call.name}" for call in traceback.extract_stack(frame)[-3:])


class Alarms:
    """Logs each weakened control when it appears and when it ends; `look` returns those of now."""

    def __init__(self, look: Callable[[], Iterable[str]]) -> None:
        self._look = look
        self._known: dict[str, str] = {}

    async def run(self) -> None:
        """Look until cancelled: staleness and a full disk grow by themselves and call nobody."""
        while True:
            await asyncio.sleep(HEALTH_INTERVAL_S)
            self.look()

    def look(self) -> None:
        """Log what has changed since the last look; a sentence whose numbers alone changed is the same."""
        now = {_NUMBERS.sub("#", text): text for text in self._look()}
        for key in now.keys() - self._known.keys():
            _log.error("degraded", control=now[key])
        for key in self._known.keys() - now.keys():
            _log.warning("degradation ended", control=self._known[key])
        self._known = now
