import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from pdp.errors import Reason
from pdp.model.decision import Decision
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from sidecar import rechecks
from sidecar.asked import Verdict
from sidecar.rechecks import Rechecker
from tests.support.enforcement import Clock, Decider

QUESTION = Question(
    subject=Party(principal=Principal.parse("user:bob@example.com")),
    action=Action.parse("endpoint.invoke"),
    resource=Resource.parse("endpoint/fraud"),
)


def allowed(expires_at_s: int = 0) -> Verdict:
    return Verdict(allowed=True, reason=Reason.GRANTED, question=QUESTION, expires_at_s=expires_at_s)


def scene(body: Callable[[Rechecker, Decider], Awaitable[None]]) -> None:
    async def go() -> None:
        decider = Decider()
        rechecker = Rechecker(decider=decider, time=Clock(), jitter=lambda: 0.5)
        timer = asyncio.create_task(rechecker.run())
        async with asyncio.timeout(10):
            await body(rechecker, decider)
        timer.cancel()

    asyncio.run(go())


def test_a_new_world_cuts_what_it_no_longer_allows_before_the_receipt() -> None:
    async def body(rechecker: Rechecker, decider: Decider) -> None:
        cuts: list[Reason] = []
        for _ in range(600):
            assert isinstance(rechecker.open(allowed(), cuts.append), int)
        await rechecker.world_changed()
        assert cuts == []
        decider.reason = Reason.LOCKED
        await rechecker.world_changed()
        assert cuts == [Reason.LOCKED] * 600
        assert len(rechecker) == 0

    scene(body)


def test_a_world_that_came_between_answer_and_start_is_not_missed() -> None:
    async def body(rechecker: Rechecker, decider: Decider) -> None:
        decider.reason = Reason.LOCKED
        assert rechecker.open(allowed(), lambda _: None) is Reason.LOCKED
        assert len(rechecker) == 0

    scene(body)


@pytest.mark.holds("adv_stale_claims")
def test_an_expired_token_cuts_without_any_new_world() -> None:
    async def body(rechecker: Rechecker, decider: Decider) -> None:
        del decider
        cut: asyncio.Future[Reason] = asyncio.get_running_loop().create_future()
        soon = Clock().now_ms() // 1000 + 1
        rechecker.open(allowed(expires_at_s=soon), cut.set_result)
        assert await cut is Reason.TOKEN_EXPIRED

    scene(body)


def test_a_recheck_that_fails_cuts_its_own_stream_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(rechecker: Rechecker, decider: Decider) -> None:
        cuts: list[tuple[str, Reason]] = []
        rechecker.open(allowed(), lambda reason: cuts.append(("first", reason)))
        rechecker.open(allowed(), lambda reason: cuts.append(("second", reason)))
        answers = iter([RuntimeError("a defect"), decider.recheck(QUESTION)])

        def recheck(question: Question) -> Decision:
            del question
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(decider, "recheck", recheck)
        await rechecker.world_changed()
        assert cuts == [("first", Reason.INTERNAL_ERROR)]

    scene(body)


def test_a_refusal_opens_no_session() -> None:
    async def body(rechecker: Rechecker, decider: Decider) -> None:
        del decider
        refused = Verdict(allowed=False, reason=Reason.NO_GRANT, question=QUESTION)
        assert rechecker.open(refused, lambda _: None) is Reason.INTERNAL_ERROR
        unasked = Verdict(allowed=True, reason=Reason.GRANTED)
        assert rechecker.open(unasked, lambda _: None) is Reason.INTERNAL_ERROR

    scene(body)


@dataclass(frozen=True)
class Small:
    pending_sessions: int = 1
    recheck_floor_s: float = 0.5
    recheck_jitter: float = 0.1


@pytest.mark.holds("L1")
def test_one_session_too_many_is_refused_rather_than_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    small: Any = Small()
    monkeypatch.setattr(rechecks, "LIMITS", small)

    async def body(rechecker: Rechecker, decider: Decider) -> None:
        del decider
        first = rechecker.open(allowed(), lambda _: None)
        assert isinstance(first, int)
        assert rechecker.open(allowed(), lambda _: None) is Reason.BUDGET_EXCEEDED
        rechecker.close(first)
        assert isinstance(rechecker.open(allowed(), lambda _: None), int)

    scene(body)
