"""What waits for a message gets each in its order, and can be woken without one."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from sidecar.inbox import Inbox


async def started(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0)
    return task


async def test_each_message_is_taken_in_its_order_and_one_stands_ahead() -> None:
    inbox: Inbox[int] = Inbox()

    async def puts() -> None:
        for number in range(5):
            await inbox.put(number)
        await inbox.put(None)

    putting = await started(puts())
    assert not putting.done()  # the first is laid down, the second waits for it to be taken
    assert [await inbox.get() for _ in range(6)] == [0, 1, 2, 3, 4, None]
    await putting
    assert inbox.empty


async def test_who_waits_is_woken_with_a_message_and_without() -> None:
    inbox: Inbox[int] = Inbox()
    waiting = await started(inbox.moved())
    inbox.wake()
    await waiting
    assert inbox.empty
    getting = await started(inbox.get())
    inbox.wake()  # no message: it goes on waiting
    await asyncio.sleep(0)
    assert not getting.done()
    await inbox.put(7)
    assert await getting == 7


async def test_who_gave_up_waiting_loses_no_message() -> None:
    inbox: Inbox[int] = Inbox()
    given_up = await started(inbox.get())
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    await inbox.put(1)
    putting = await started(inbox.put(2))
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert inbox.take() == 1
    await inbox.put(3)
    assert await inbox.get() == 3


pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
