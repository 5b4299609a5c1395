"""Checks of many threads, carried together without a thread of our own.

The first thread that asks carries its question itself. Whoever asks while it is away waits; when it is back, the one that
waited longest carries all that has gathered. So a program of one thread pays nothing, and a hundred threads make a few calls.
"""

import threading
from collections import deque
from collections.abc import Sequence

from pdp.errors import Reason
from pdp.sdk._flights import Asked, Desk, take
from pdp.sdk._transport import Transport
from pdp.sdk.errors import PdpError, PdpUnavailable
from pdp.sdk.values import Decision, Question


class _Waiting(threading.Event):
    """What a waiting thread waits for: its outcome, or its turn to carry."""

    def __init__(self) -> None:
        super().__init__()
        self.carries = False


class ThreadBatcher:
    """Asks for threads, one call under way at a time."""

    def __init__(self, desk: Desk, transport: Transport) -> None:
        self._desk = desk
        self._transport = transport
        self._lock = threading.Lock()
        self._queue: deque[Asked] = deque()
        self._turns: dict[Asked, _Waiting] = {}
        self._away = False

    def ask(self, question: Question) -> Decision:
        """Return the decision on `question`.

        Raises:
            PdpError: it could not be asked or answered.
        """
        asked = self._desk.ask(question)
        if isinstance(asked, Decision):
            return asked
        if self._first(asked) or self._wait(asked):
            self._carry(asked)
        return asked.result()

    def _first(self, asked: Asked) -> bool:
        """Return True if nobody is away; else queue up."""
        with self._lock:
            if not self._away:
                self._away = True
                return True
            waiting = self._turns[asked] = _Waiting()
            asked.wake = waiting.set
            self._queue.append(asked)
            return False

    def _wait(self, asked: Asked) -> bool:
        """Wait until `asked` is settled, or return True: it is this thread's turn to carry."""
        waiting = self._turns[asked]
        try:
            waiting.wait(max(0.0, asked.deadline_s - self._desk.mono_s()))
        except BaseException:
            # Interrupted: nobody may wait for this thread any more.
            asked.settle(_interrupted())
            if self._leave(asked, waiting):
                self._hand_over()
            raise
        carries = self._leave(asked, waiting)
        if not carries:
            asked.settle(self._desk.late())  # unless it is settled already
        return carries

    def _leave(self, asked: Asked, waiting: _Waiting) -> bool:
        with self._lock:
            del self._turns[asked]
            return waiting.carries

    def _carry(self, asked: Asked) -> None:
        with self._lock:
            self._queue.appendleft(asked)
            batch = take(self._queue)
        try:
            self._fly(batch)
        finally:
            for one in batch:
                one.settle(_interrupted())  # unless it is settled already
            self._hand_over()

    def _fly(self, batch: Sequence[Asked]) -> None:
        flight = self._desk.fly(batch)
        outcome: object = None
        while True:
            try:
                call = flight.send(outcome)
            except StopIteration:
                return
            left_s = call.deadline_s - self._desk.mono_s()
            try:
                outcome = (
                    self._transport.unary(call.rpc, call.message, timeout_s=left_s, token=call.token)
                    if left_s > 0
                    else self._desk.late()
                )
            except PdpError as error:
                outcome = error

    def _hand_over(self) -> None:
        """Let the thread that waited longest carry next; with none, nobody is away."""
        with self._lock:
            while self._queue:
                asked = self._queue.popleft()
                waiting = self._turns.get(asked)
                if waiting is not None and asked.outcome is None:
                    waiting.carries = True
                    waiting.set()
                    return
            self._away = False


def _interrupted() -> PdpError:
    return PdpUnavailable(
        Reason.DEADLINE_EXCEEDED, "the check was interrupted before it was answered", advice="ask again"
    )
