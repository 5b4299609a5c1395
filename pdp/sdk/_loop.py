"""Checks of many tasks, carried together: all that is asked in one turn of the event loop is one call.

What is asked while calls are under way gathers for the next one, so that batches grow with the load by themselves. The calls
belong to the client and not to whoever asked first: a task that is cancelled takes nobody's answer with it (K4).
"""

import asyncio
from collections import deque

from pdp.errors import Reason
from pdp.limits import COALESCE_FLIGHTS
from pdp.sdk._core import closed_error
from pdp.sdk._flights import Asked, Call, Desk, take
from pdp.sdk._transport import AsyncTransport
from pdp.sdk.errors import ClientUnusable, PdpError
from pdp.sdk.values import Decision, Question


class LoopBatcher:
    """Asks for tasks of one event loop."""

    def __init__(self, desk: Desk, transport: AsyncTransport) -> None:
        self._desk = desk
        self._transport = transport
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: deque[Asked] = deque()
        self._flights: dict[asyncio.Task[None], list[Asked]] = {}
        self._waiting: deque[Asked] = deque()
        """Everything not settled yet, in the order of its deadlines, and what is settled and lies between."""
        self._timer: asyncio.TimerHandle | None = None
        self._due = False
        self._token: str | None = None

    async def ask(self, question: Question) -> Decision:
        """Return the decision on `question`.

        Raises:
            PdpError: it could not be asked or answered.
        """
        loop = self.own_loop()
        asked = self._desk.ask(question, token=self._token_of_this_turn(loop))
        if isinstance(asked, Decision):
            return asked
        done: asyncio.Future[None] = loop.create_future()
        asked.wake = lambda: _wake(done)
        self._queue.append(asked)
        self._waiting.append(asked)
        self._start_soon(loop)
        if self._timer is None:
            self._set_timer(loop)
        try:
            await done
        except asyncio.CancelledError:
            asked.settle(self._desk.late())  # nobody waits: it need not travel any more
            raise
        return asked.result()

    def own_loop(self) -> asyncio.AbstractEventLoop:
        """Return the running loop, which must be the one of the first call.

        Raises:
            ClientUnusable: it is another one: a connection cannot move between loops, and a call would hang.
        """
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise ClientUnusable(
                Reason.BAD_REQUEST,
                "this client belongs to another event loop",
                advice="make one client in each loop, inside `async with`",
            )
        return loop

    def close(self) -> None:
        """End every check that is not settled: the client is closed."""
        if self._desk.core.forked:
            return  # neither loop nor tasks came along
        for asked in (*self._queue, *(one for batch in self._flights.values() for one in batch)):
            asked.settle(closed_error())
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._flights:
            task.cancel()

    def _token_of_this_turn(self, loop: asyncio.AbstractEventLoop) -> str | None:
        """Return the token, read once for all that ask in one turn; None: each reads its own.

        A function may answer each task otherwise, so it is called for each.
        """
        if callable(self._desk.core.settings.token):
            return None
        if self._token is None:
            self._desk.core.check_usable()
            self._token = self._desk.core.settings.read_token()
            loop.call_soon(self._forget_token)
        return self._token

    def _forget_token(self) -> None:
        self._token = None

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake at the first deadline. All have the same patience, so one timer does for all, where one each costs 5 us."""
        self._forget_settled()
        self._timer = None
        if self._waiting:
            left_s = self._waiting[0].deadline_s - self._desk.mono_s()
            self._timer = loop.call_later(max(0.0, left_s), self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = self._desk.mono_s()
        while self._waiting and self._waiting[0].deadline_s <= now_s:
            self._waiting.popleft().settle(self._desk.late())
        self._set_timer(loop)

    def _forget_settled(self) -> None:
        while self._waiting and self._waiting[0].outcome is not None:
            self._waiting.popleft()

    def _start_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._due and len(self._flights) < COALESCE_FLIGHTS:
            self._due = True
            loop.call_soon(self._start)

    def _start(self) -> None:
        self._due = False
        batch = take(self._queue)
        if not batch:
            return
        task = asyncio.ensure_future(self._fly(batch))
        self._flights[task] = batch
        task.add_done_callback(self._landed)

    def _landed(self, task: "asyncio.Task[None]") -> None:
        for asked in self._flights.pop(task):
            if asked.outcome is None:
                asked.settle(_failed(task))
        self._forget_settled()
        if self._queue:
            self._start_soon(task.get_loop())

    async def _fly(self, batch: list[Asked]) -> None:
        flight = self._desk.fly(batch)
        outcome: object = None
        while True:
            try:
                call = flight.send(outcome)
            except StopIteration:
                return
            outcome = await self._made(call)

    async def _made(self, call: Call) -> object:
        left_s = call.deadline_s - self._desk.mono_s()
        if left_s <= 0:
            return self._desk.late()
        try:
            return await self._transport.unary(call.rpc, call.message, timeout_s=left_s, token=call.token)
        except PdpError as error:
            return error


def _wake(done: "asyncio.Future[None]") -> None:
    if not done.done():
        done.set_result(None)


def _failed(task: "asyncio.Task[None]") -> PdpError:
    """Return what a check whose flight ended without an answer says: the loop is being shut down, or a defect."""
    told = "cancelled" if task.cancelled() else f"{type(task.exception()).__name__}"
    return ClientUnusable(
        Reason.INTERNAL_ERROR, f"the call was {told} before it was answered", advice="treat the access as denied"
    )
