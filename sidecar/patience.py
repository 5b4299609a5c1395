"""A bound on many pieces of work that are all given the same time: one timer for all of them.

`asyncio.timeout` makes a timer of its own for each, which took a twentieth of a decision's time. What is given equal time
runs out of it in the order in which it began, so that the oldest is all there is to watch.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import Any, TypeVar

from pdp.limits import TIMER_GRAIN_S

_T = TypeVar("_T")


class _Begun:
    """One piece of work: the task that does it, until when it may; `over` once it has ended by itself."""

    __slots__ = ("late", "over", "task", "until_s")

    def __init__(self, task: asyncio.Task[Any], until_s: float) -> None:
        self.task, self.until_s = task, until_s
        self.late = self.over = False


class Patience:
    """Gives work its time.

    Args:
        limit_s: How long.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._begun: deque[_Begun] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def within(self, work: Awaitable[_T]) -> _T:
        """Return what `work` returns.

        Raises:
            TimeoutError: It took longer, and was cancelled.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("patience is had with a task")
        asked_before = task.cancelling()
        begun = _Begun(task, loop.time() + self._limit_s)
        self._begun.append(begun)
        if self._timer is None:
            self._timer = loop.call_at(begun.until_s, self._look)
        try:
            return await work
        except asyncio.CancelledError:
            # As in `asyncio.timeout`: whoever else cancels the task as well is obeyed.
            if begun.late and task.cancelling() - 1 <= asked_before:
                raise TimeoutError from None
            raise
        finally:
            begun.over = True
            if begun.late:
                task.uncancel()
            self._forget()

    def _forget(self) -> None:
        while self._begun and self._begun[0].over:
            self._begun.popleft()
        if not self._begun and self._timer is not None:
            self._timer.cancel()  # a timer belongs to one loop; the next work may run in another
            self._timer = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        now_s = loop.time() + TIMER_GRAIN_S
        while self._begun and self._begun[0].until_s <= now_s:
            begun = self._begun.popleft()
            if not begun.over:
                begun.late = True
                begun.task.cancel()
        if self._begun:
            self._timer = loop.call_at(self._begun[0].until_s, self._look)
