"""One timer for all: work that takes too long is cancelled and only that; who cancels the task otherwise is obeyed."""

import asyncio

import pytest
import uvloop

from sidecar.patience import Patience

LONG_S = 3_600.0
WORKS = 20


async def waits() -> None:
    await asyncio.Event().wait()


async def answers(value: int) -> int:
    await asyncio.sleep(0)
    return value


def test_work_in_time_returns_and_leaves_no_timer() -> None:
    async def go() -> None:
        patience = Patience(LONG_S)
        assert await asyncio.gather(*(patience.within(answers(n)) for n in range(50))) == list(range(50))
        assert (patience._timer, len(patience._begun)) == (None, 0)

    asyncio.run(go())


def test_what_takes_too_long_is_cancelled_and_nothing_else_is() -> None:
    async def go() -> None:
        patience = Patience(0.01)
        late = [asyncio.create_task(patience.within(waits())) for _ in range(3)]
        outcomes = await asyncio.gather(*late, patience.within(answers(1)), return_exceptions=True)
        assert [type(one) for one in outcomes] == [TimeoutError] * 3 + [int]
        assert not any(task.cancelling() for task in late)
        assert patience._timer is None

    asyncio.run(go())


def test_work_that_ends_in_time_behind_a_slow_one_is_not_ended_later() -> None:
    async def go() -> None:
        patience = Patience(0.02)
        slow = asyncio.create_task(patience.within(waits()))
        await asyncio.sleep(0)  # it began first

        async def goes_on() -> int:
            value = await patience.within(answers(7))
            with pytest.raises(TimeoutError):
                await slow  # its time is over, and ours was given back
            return value

        assert await goes_on() == 7

    asyncio.run(go())


def test_work_behind_one_that_is_late_is_watched_too() -> None:
    async def go() -> None:
        patience = Patience(0.01)
        first = asyncio.create_task(patience.within(waits()))
        with pytest.raises(TimeoutError):
            await first
        with pytest.raises(TimeoutError):
            await patience.within(waits())

    asyncio.run(go())


def test_a_task_that_somebody_else_cancels_stays_cancelled() -> None:
    async def go() -> None:
        patience = Patience(LONG_S)
        task = asyncio.create_task(patience.within(waits()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (patience._timer, len(patience._begun)) == (None, 0)

    asyncio.run(go())


def test_who_cancels_a_task_that_is_late_as_well_is_obeyed() -> None:
    async def go() -> None:
        patience = Patience(0.0)
        task = asyncio.create_task(patience.within(waits()))
        await asyncio.sleep(0)
        task.cancel()
        patience._look()  # its time runs out before the task has seen the cancellation
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())


def test_it_serves_one_loop_after_the_other() -> None:
    patience = Patience(0.01)

    async def go() -> None:
        assert await patience.within(answers(1)) == 1
        with pytest.raises(TimeoutError):
            await patience.within(waits())

    asyncio.run(go())
    asyncio.run(go())


def test_a_timer_that_is_early_is_not_asked_for_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[None] = []
    look = Patience._look

    def counted(patience: Patience) -> None:
        looks.append(None)
        look(patience)

    monkeypatch.setattr(Patience, "_look", counted)

    async def go() -> None:
        patience = Patience(0.0104)  # uvloop rounds to 10 ms
        for _ in range(WORKS):
            with pytest.raises(TimeoutError):
                await patience.within(waits())

    uvloop.run(go())
    assert len(looks) == WORKS
