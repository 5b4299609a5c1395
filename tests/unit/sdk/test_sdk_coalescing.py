"""Concurrent checks travel together, and nobody's answer, error or cancellation becomes another's."""

import asyncio
import copy
import itertools
import pickle
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from scripted_pdp import ScriptedPdp, decision, denial, refusal

from pdp.errors import Reason
from pdp.limits import MAX_BATCH
from pdp.sdk import (
    AsyncClient,
    BadQuestion,
    Client,
    ClientUnusable,
    CredentialRefused,
    Decision,
    NotPermitted,
    PdpError,
    PdpFault,
    PdpUnavailable,
    Question,
)
from pdp.sdk._flights import Asked, take
from pdp.sdk._threads import _Waiting
from pdp.v1 import decision_pb2

EVALUATE = "DecisionService/Evaluate"
BATCH = "DecisionService/EvaluateBatch"


def name(number: int) -> str:
    return f"dataset/n{number}"


def verdict(question: Any) -> decision_pb2.Decision:
    """Allow even numbers, and name the resource in the id."""
    number = int(question.resource.removeprefix("dataset/n"))
    return (denial if number % 2 else decision)(decision_id=question.resource)


def one(request: Any, _: object) -> decision_pb2.EvaluateResponse:
    return decision_pb2.EvaluateResponse(decision=verdict(request.question))


def many(request: Any, _: object) -> decision_pb2.EvaluateBatchResponse:
    return decision_pb2.EvaluateBatchResponse(decisions=map(verdict, request.questions))


def check_own_answers(answers: list[Decision]) -> None:
    for number, answer in enumerate(answers):
        assert (answer.decision_id, answer.allowed) == (name(number), number % 2 == 0)


def run(pdp: ScriptedPdp, body: Callable[[AsyncClient], Awaitable[None]], **options: Any) -> None:
    async def go() -> None:
        async with AsyncClient(pdp.address, **{"token": "a.b.c", "cache_s": 0} | options) as client:
            await body(client)

    asyncio.run(go())


@pytest.fixture
def honest(pdp: ScriptedPdp) -> ScriptedPdp:
    pdp.script(EVALUATE, one)
    pdp.script(BATCH, many)
    return pdp


# asyncio.


def test_what_is_asked_in_one_turn_of_the_loop_is_one_call(honest: ScriptedPdp) -> None:
    async def body(client: AsyncClient) -> None:
        check_own_answers(await asyncio.gather(*(client.check("dataset.read", name(n)) for n in range(50))))

    run(honest, body)
    assert [len(asked.questions) for asked in honest.asked(BATCH)] == [50]
    assert not honest.asked(EVALUATE)


def test_one_check_alone_is_an_evaluate(honest: ScriptedPdp) -> None:
    async def body(client: AsyncClient) -> None:
        for n in range(3):
            await client.check("dataset.read", name(n))

    run(honest, body)
    assert len(honest.asked(EVALUATE)) == 3
    assert not honest.asked(BATCH)


def test_more_than_a_message_holds_is_several(honest: ScriptedPdp) -> None:
    async def body(client: AsyncClient) -> None:
        count = MAX_BATCH + 7
        check_own_answers(await asyncio.gather(*(client.check("dataset.read", name(n)) for n in range(count))))

    run(honest, body)
    assert sorted(len(asked.questions) for asked in honest.asked(BATCH)) == [7, MAX_BATCH]


def test_questions_of_two_credentials_never_share_a_call(honest: ScriptedPdp) -> None:
    tokens = itertools.cycle(["a.b.c", "x.y.z"])

    async def body(client: AsyncClient) -> None:
        check_own_answers(await asyncio.gather(*(client.check("dataset.read", name(n)) for n in range(10))))

    run(honest, body, token=lambda: next(tokens))
    batches = dict(zip(honest.credentials, honest.asked(BATCH), strict=True))
    odd = [question.resource for question in batches["Bearer x.y.z"].questions]
    assert odd == [name(n) for n in range(1, 10, 2)]


def test_a_token_file_that_rotates_is_used_by_the_next_turn(honest: ScriptedPdp, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a.b.c")

    async def body(client: AsyncClient) -> None:
        await asyncio.gather(*(client.check("dataset.read", name(n)) for n in range(5)))
        file.write_text("x.y.z")
        await client.check("dataset.read", name(0))

    run(honest, body, token=file)
    assert honest.credentials == ["Bearer a.b.c", "Bearer x.y.z"]


@pytest.mark.holds("K4")
def test_k4_a_cancelled_task_takes_nobodys_answer_with_it(honest: ScriptedPdp) -> None:
    async def body(client: AsyncClient) -> None:
        tasks = [asyncio.create_task(client.check("dataset.read", name(n))) for n in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers.pop(1), asyncio.CancelledError)
        assert [answer.decision_id for answer in answers if isinstance(answer, Decision)] == [
            name(0),
            name(2),
            name(3),
        ]

    run(honest, body)


@pytest.mark.holds("K4")
@pytest.mark.parametrize("turns", range(6))
def test_k4_cancelled_at_every_await_the_next_answer_is_whole(honest: ScriptedPdp, turns: int) -> None:
    async def body(client: AsyncClient) -> None:
        task = asyncio.create_task(client.check("dataset.read", name(0)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await client.check("dataset.read", name(0))).decision_id == name(0)

    run(honest, body, cache_s=2)


def picky(request: Any, context: grpc.ServicerContext) -> Any:
    """Refuse to read number 13, as the PDP refuses a batch for one bad question."""
    questions = request.questions if isinstance(request, decision_pb2.EvaluateBatchRequest) else [request.question]
    if any(question.resource == name(13) for question in questions):
        return refusal(grpc.StatusCode.INVALID_ARGUMENT, "bad_request")(request, context)
    return many(request, context) if isinstance(request, decision_pb2.EvaluateBatchRequest) else one(request, context)


def test_one_bad_question_spoils_no_other(pdp: ScriptedPdp) -> None:
    pdp.script(EVALUATE, picky)
    pdp.script(BATCH, picky)

    async def body(client: AsyncClient) -> None:
        told = (client.check("dataset.read", name(n)) for n in range(20))
        answers = await asyncio.gather(*told, return_exceptions=True)
        assert isinstance(answers[13], BadQuestion)
        others = [answer.decision_id for answer in answers if isinstance(answer, Decision)]
        assert others == [name(n) for n in range(20) if n != 13]

    run(pdp, body)
    assert len(pdp.calls) < 12


def test_a_right_that_all_need_is_not_asked_for_again_and_again(pdp: ScriptedPdp) -> None:
    pdp.script(BATCH, refusal(grpc.StatusCode.PERMISSION_DENIED, "no_grant"))

    async def body(client: AsyncClient) -> None:
        told = (client.check("dataset.read", name(n)) for n in range(20))
        answers = await asyncio.gather(*told, return_exceptions=True)
        assert {type(answer) for answer in answers} == {NotPermitted}
        assert len({id(answer) for answer in answers}) == 20, "each raises an error of its own"

    run(pdp, body)
    assert len(pdp.calls) == 1


def test_a_batch_answered_short_is_no_answer_to_anybody(pdp: ScriptedPdp) -> None:
    pdp.script(BATCH, decision_pb2.EvaluateBatchResponse(decisions=[decision()]))

    async def body(client: AsyncClient) -> None:
        told = (client.check("dataset.read", name(n)) for n in range(3))
        answers = await asyncio.gather(*told, return_exceptions=True)
        assert {type(answer) for answer in answers} == {PdpFault}

    run(pdp, body)


@pytest.mark.holds("F2")
def test_f2_what_waits_behind_a_hanging_call_has_a_deadline_of_its_own(pdp: ScriptedPdp) -> None:
    pdp.script(EVALUATE, pdp.hang)
    pdp.script(BATCH, pdp.hang)

    async def body(client: AsyncClient) -> None:
        tasks = []
        for n in range(8):
            tasks.append(asyncio.create_task(client.check("dataset.read", name(n))))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert {answer.reason for answer in answers if isinstance(answer, PdpUnavailable)} == {Reason.DEADLINE_EXCEEDED}
        assert all(isinstance(answer, PdpUnavailable) for answer in answers)

    run(pdp, body, timeout_s=0.3)


def test_closing_a_client_ends_what_waits_with_a_typed_error(pdp: ScriptedPdp) -> None:
    both = threading.Barrier(3)

    def hang(request: Any, context: grpc.ServicerContext) -> None:
        both.wait(10)
        pdp.hang(request, context)

    pdp.script(EVALUATE, hang)
    pdp.script("DecisionService/Explain", hang)

    async def body(client: AsyncClient) -> None:
        tasks = [
            asyncio.create_task(client.check("dataset.read", name(0))),
            asyncio.create_task(client.explain("dataset.read", name(0))),
        ]
        await asyncio.to_thread(both.wait, 10)
        tasks.append(asyncio.create_task(client.check("dataset.read", name(1))))
        await asyncio.sleep(0)
        await client.close()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(answer) for answer in answers] == [ClientUnusable] * 3

    run(pdp, body)


@pytest.mark.holds("F31")
def test_another_thread_with_a_loop_of_its_own_is_refused_and_the_first_goes_on(honest: ScriptedPdp) -> None:
    async def body(client: AsyncClient) -> None:
        check_own_answers([await client.check("dataset.read", name(0))])
        with pytest.raises(ClientUnusable, match="another event loop"):
            await asyncio.to_thread(asyncio.run, ask(client))
        check_own_answers([await client.check("dataset.read", name(0))])

    async def ask(client: AsyncClient) -> None:
        await client.check("dataset.read", name(1))

    run(honest, body)


def test_a_client_belongs_to_the_loop_of_its_first_call(honest: ScriptedPdp) -> None:
    client = AsyncClient(honest.address, token="a.b.c", cache_s=0)

    async def ask() -> None:
        await client.check("dataset.read", name(0))

    asyncio.run(ask())
    with pytest.raises(ClientUnusable, match="another event loop"):
        asyncio.run(ask())


# Threads.


def test_what_threads_ask_while_one_is_away_travels_together(pdp: ScriptedPdp) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(request: Any, context: grpc.ServicerContext) -> Any:
        entered.set()
        assert leave.wait(10)
        return one(request, context)

    pdp.script(EVALUATE, slow, one)
    pdp.script(BATCH, many)
    with Client(pdp.address, token="a.b.c", cache_s=0) as client, ThreadPoolExecutor(20) as pool:
        first = pool.submit(client.check, "dataset.read", name(0))
        assert entered.wait(10)
        rest = [pool.submit(client.check, "dataset.read", name(n)) for n in range(1, 20)]
        while len(client._checks._queue) < 19:
            leave.wait(0.005)
        leave.set()
        check_own_answers([future.result(10) for future in (first, *rest)])
    assert [len(asked.questions) for asked in pdp.asked(BATCH)] == [19]


@pytest.mark.holds("F31")
def test_many_threads_each_get_their_own_answer(honest: ScriptedPdp) -> None:
    with Client(honest.address, token="a.b.c", cache_s=0) as client, ThreadPoolExecutor(16) as pool:
        check_own_answers(list(pool.map(lambda n: client.check("dataset.read", name(n)), range(300))))
        assert not client._checks._away
        assert not client._checks._turns


def test_a_thread_alone_asks_as_if_nothing_were_batched(honest: ScriptedPdp) -> None:
    with Client(honest.address, token="a.b.c", cache_s=0) as client:
        for n in range(3):
            client.check("dataset.read", name(n))
    assert len(honest.asked(EVALUATE)) == 3


@pytest.mark.holds("F2")
def test_f2_a_thread_that_waits_behind_a_hanging_call_has_its_own_deadline(pdp: ScriptedPdp) -> None:
    ended = threading.Event()
    pdp.script(EVALUATE, lambda *_: ended.wait(10))
    pdp.script(BATCH, lambda *_: ended.wait(10))
    with Client(pdp.address, token="a.b.c", cache_s=0, timeout_s=0.3) as client, ThreadPoolExecutor(4) as pool:
        told = [pool.submit(client.check, "dataset.read", name(n)) for n in range(4)]
        errors = [future.exception(10) for future in told]
        ended.set()
        assert {type(error) for error in errors} == {PdpUnavailable}
        assert not client._checks._away


def test_a_thread_interrupted_while_it_carries_leaves_nobody_waiting(
    honest: ScriptedPdp, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, leave = threading.Event(), threading.Event()
    with Client(honest.address, token="a.b.c", cache_s=0) as client, ThreadPoolExecutor(4) as pool:
        real = client._transport.unary

        def interrupted(*_: Any, **__: Any) -> Any:
            entered.set()
            assert leave.wait(10)
            monkeypatch.setattr(client._transport, "unary", real)
            raise KeyboardInterrupt

        monkeypatch.setattr(client._transport, "unary", interrupted)
        first = pool.submit(client.check, "dataset.read", name(0))
        assert entered.wait(10)
        rest = [pool.submit(client.check, "dataset.read", name(n)) for n in (2, 4)]
        while len(client._checks._queue) < 2:
            leave.wait(0.005)
        leave.set()
        assert isinstance(first.exception(10), KeyboardInterrupt)
        assert [future.result(10).decision_id for future in rest] == [name(2), name(4)]
        assert not client._checks._away


def test_a_thread_interrupted_while_it_waits_passes_its_turn_on(
    pdp: ScriptedPdp, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(request: Any, context: grpc.ServicerContext) -> Any:
        entered.set()
        assert leave.wait(10)
        return one(request, context)

    def interrupted(waiting: threading.Event, timeout: float | None = None) -> bool:
        del timeout
        while not waiting.carries:  # type: ignore[attr-defined]
            leave.wait(0.005)
        monkeypatch.undo()
        raise KeyboardInterrupt

    pdp.script(EVALUATE, slow, one)
    pdp.script(BATCH, many)
    with Client(pdp.address, token="a.b.c", cache_s=0) as client, ThreadPoolExecutor(4) as pool:
        first = pool.submit(client.check, "dataset.read", name(0))
        assert entered.wait(10)
        monkeypatch.setattr(_Waiting, "wait", interrupted)
        cut = pool.submit(client.check, "dataset.read", name(2))
        while len(client._checks._queue) < 1:
            entered.wait(0.005)
        leave.set()
        assert first.result(10).decision_id == name(0)
        assert isinstance(cut.exception(10), KeyboardInterrupt)
        assert client.check("dataset.read", name(4)).decision_id == name(4)
        assert not client._checks._away
        assert not client._checks._turns


def test_a_client_closed_by_another_thread_says_so(pdp: ScriptedPdp) -> None:
    pdp.script(EVALUATE, pdp.hang)
    with Client(pdp.address, token="a.b.c", cache_s=0) as client, ThreadPoolExecutor(4) as pool:
        told = [pool.submit(client.check, "dataset.read", name(n)) for n in range(3)]
        assert pdp.hanging.wait(10)
        client.close()
        assert {type(future.exception(10)) for future in told} == {ClientUnusable}


# Sans I/O.


def asked(number: int, by: str = "t", size: int = 0) -> Asked:
    question = Question(action="dataset.read", resource=name(number))
    message = decision_pb2.Question(action="x" * size)
    return Asked(question=question, message=message, token=by, key=None, deadline_s=1, wake=lambda: None)


def test_what_does_not_fit_stays_in_order() -> None:
    mebibyte = 1024 * 1024
    waiting = [asked(0, size=2 * mebibyte), asked(1, "other"), asked(2, size=2 * mebibyte), asked(3)]
    queue = deque(waiting)
    assert take(queue) == [waiting[0]]
    assert list(queue) == [waiting[1], waiting[2], waiting[3]]
    assert take(queue) == [waiting[1]]
    assert take(queue) == [waiting[2], waiting[3]]


def test_what_is_settled_does_not_travel() -> None:
    waiting = [asked(0), asked(1)]
    waiting[0].settle(PdpUnavailable(Reason.DEADLINE_EXCEEDED, "gone"))
    assert take(deque(waiting)) == [waiting[1]]


@pytest.mark.parametrize("make", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])  # noqa: S301 - our own
def test_an_error_is_copied_whole(make: Callable[[PdpError], PdpError]) -> None:
    error = CredentialRefused(Reason.TOKEN_EXPIRED, "told", advice="do", correlation_id="c", findings=["f"], head_seq=4)
    again = make(error)
    assert type(again) is CredentialRefused
    assert (again.reason, str(again), again.correlation_id, again.findings, again.head_seq) == (
        Reason.TOKEN_EXPIRED,
        "told (do)",
        "c",
        ("f",),
        4,
    )
