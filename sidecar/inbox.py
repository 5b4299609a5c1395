"""What one task lays down for another, which may also be woken without it: a stream's messages, and the order to cut it."""

import asyncio
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Inbox(Generic[_T]):
    """Envoy's messages, one ahead of who takes them: it sends the next chunk only after our answer. One puts, one takes.

    Who waits for a message may be woken without one. A queue and a task for each wait did the same, and took longer than
    most decisions.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._held: list[_T | None] = []
        self._room: asyncio.Future[None] | None = None
        self._moved: asyncio.Future[None] | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is there to be taken."""
        return not self._held

    async def put(self, message: _T | None) -> None:
        """Lay a message down, once the one before is taken; None: Envoy ended."""
        if self._held:
            self._room = self._loop.create_future()
            await self._room
        self._held.append(message)
        self.wake()

    async def get(self) -> _T | None:
        """Return the next message, whoever wakes."""
        while not self._held:
            await self.moved()
        return self.take()

    def take(self) -> _T | None:
        """Return the message that is there."""
        message = self._held.pop()
        _tell(self._room)
        return message

    async def moved(self) -> None:
        """Wait until a message comes, or `wake`."""
        self._moved = self._loop.create_future()
        await self._moved

    def wake(self) -> None:
        """Have whoever waits for a message look again."""
        _tell(self._moved)


def _tell(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
