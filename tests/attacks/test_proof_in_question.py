"""A bound token that an enforcement point shows in a question: worth nothing without the proof of the request it came with."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from pdp.errors import Reason
from pdp.sdk import AsyncClient, Dpop, Question
from pdp.sdk.errors import PdpError
from pdp.v1 import decision_pb2, decision_pb2_grpc
from tests.support import pdp as house
from tests.support.pdp import BOB, GATE, RunningPdp, detail, running_pdp
from tests.support.tokens import HTU, holder, jkt_of, proof

ASK: dict[str, Any] = {"action": "dataset.read", "resource": "dataset/open", "supports_all": True}
CREDENTIAL_REASONS = {
    Reason.DPOP_PROOF_INVALID,
    Reason.TOKEN_REPLAYED,
    Reason.BINDING_REQUIRED,
    Reason.DPOP_NONCE_REQUIRED,
}
Story = Callable[[RunningPdp, decision_pb2_grpc.DecisionServiceStub, dict[str, Any]], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    trusting = house.trust_text

    def run(story: Story, *, entry: str = "    cnf_kinds: [jkt]\n") -> None:
        monkeypatch.setattr(
            house,
            "trust_text",
            lambda *args, **kw: trusting(*args, **kw).replace("trust_domains", f"{entry}trust_domains"),
        )

        async def inside() -> None:
            async with running_pdp(tmp_path, assets="dataset/open: {environment: dev}\n") as pdp:
                how = {"metadata": pdp.metadata(GATE), "timeout": 10}
                await story(pdp, decision_pb2_grpc.DecisionServiceStub(pdp.channel()), how)

        asyncio.run(inside())

    return run


def bound(pdp: RunningPdp) -> str:
    return pdp.token(BOB, claims={"cnf": {"jkt": jkt_of(holder())}})


def fresh(compact: str, **changes: Any) -> str:
    return proof(compact, **{"iat": int(time.time())} | changes)


def shown(credential: str, text: str | None = None, method: str = "POST", url: str = HTU) -> decision_pb2.Question:
    subject = decision_pb2.Subject(credential=credential)
    if text is not None:
        subject.request.MergeFrom(decision_pb2.BoundRequest(proof=text, method=method, url=url))
    return decision_pb2.Question(subject=subject, **ASK)


def asked(*questions: decision_pb2.Question) -> decision_pb2.EvaluateBatchRequest:
    return decision_pb2.EvaluateBatchRequest(questions=questions)


def test_a_bound_token_counts_with_its_proof_once_and_never_without(play: Callable[..., None]) -> None:
    async def story(pdp: RunningPdp, stub: decision_pb2_grpc.DecisionServiceStub, how: dict[str, Any]) -> None:
        async def reason(question: decision_pb2.Question) -> Reason:
            answer = await stub.Evaluate(decision_pb2.EvaluateRequest(question=question), **how)
            return Reason(answer.decision.reason)

        compact = bound(pdp)
        once = fresh(compact)
        assert await reason(shown(f"DPoP {compact}", once)) is Reason.GRANTED
        assert await reason(shown(f"DPoP {compact}", once)) is Reason.TOKEN_REPLAYED
        assert await reason(shown(f"Bearer {compact}")) is Reason.BINDING_REQUIRED
        assert await reason(shown(f"Bearer {compact}", fresh(compact))) is Reason.BINDING_REQUIRED
        for bad in (
            shown(f"DPoP {compact}"),
            shown(f"DPoP {compact}", ""),
            shown(f"DPoP {compact}", fresh(compact), method="GET"),
            shown(f"DPoP {compact}", fresh(compact), method=""),
            shown(f"DPoP {compact}", fresh(compact), url=HTU + "x"),
            shown(f"DPoP {compact}", fresh(compact), url=""),
            shown(f"DPoP {compact}", fresh(compact, iat=int(time.time()) - 62)),
            shown(f"DPoP {compact}", fresh(compact, by=holder("thief"))),
            shown(f"DPoP {compact}", fresh(bound(pdp))),
            shown(f"DPoP {compact}", f"{fresh(compact)},{fresh(compact)}"),
            shown(f"DPoP {pdp.token(BOB)}", fresh(compact)),
        ):
            assert await reason(bad) is Reason.DPOP_PROOF_INVALID

    play(story)


def test_one_proof_opens_one_question_of_a_batch_of_a_stream_and_of_all_verbs_together(
    play: Callable[..., None],
) -> None:
    async def story(pdp: RunningPdp, stub: decision_pb2_grpc.DecisionServiceStub, how: dict[str, Any]) -> None:
        compact = bound(pdp)
        question = shown(f"DPoP {compact}", fresh(compact))
        answers = (await stub.EvaluateBatch(asked(question, question, question), **how)).decisions
        replayed = [answer.reason == Reason.TOKEN_REPLAYED for answer in answers]
        assert replayed == [False, True, True]
        (streamed,) = [answer async for answer in stub.EvaluateStream(iter([asked(question)]), **how)]
        assert streamed.decisions[0].reason == Reason.TOKEN_REPLAYED
        explained = await stub.Explain(decision_pb2.EvaluateRequest(question=question), **how)
        assert explained.decision.reason == Reason.TOKEN_REPLAYED
        (watched,) = [answer async for answer in stub.Watch(decision_pb2.WatchRequest(question=question), **how)]
        assert (watched.decision.reason, watched.ended) == (Reason.TOKEN_REPLAYED, True)

    play(story)


def test_of_a_crowd_of_questions_with_one_proof_one_is_answered(play: Callable[..., None]) -> None:
    async def story(pdp: RunningPdp, stub: decision_pb2_grpc.DecisionServiceStub, how: dict[str, Any]) -> None:
        compact = bound(pdp)
        request = decision_pb2.EvaluateRequest(question=shown(f"DPoP {compact}", fresh(compact)))
        answers = await asyncio.gather(*(stub.Evaluate(request, **how) for _ in range(20)))
        assert [answer.decision.reason for answer in answers].count(Reason.TOKEN_REPLAYED) == 19

    play(story)


@pytest.mark.parametrize("asserted", [True, False])
def test_a_bound_request_without_a_credential_is_no_question(play: Callable[..., None], *, asserted: bool) -> None:
    async def story(_pdp: RunningPdp, stub: decision_pb2_grpc.DecisionServiceStub, how: dict[str, Any]) -> None:
        request = decision_pb2.BoundRequest(proof="a.b.c", method="POST", url=HTU)
        subject = decision_pb2.Subject(request=request)
        if asserted:
            subject.asserted.principal = f"user:{BOB}"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Evaluate(
                decision_pb2.EvaluateRequest(question=decision_pb2.Question(subject=subject, **ASK)), **how
            )
        assert detail(refused.value).reason == Reason.BAD_REQUEST

    play(story)


def test_an_answer_brings_the_nonce_that_the_next_proof_needs(play: Callable[..., None]) -> None:
    async def story(pdp: RunningPdp, stub: decision_pb2_grpc.DecisionServiceStub, how: dict[str, Any]) -> None:
        compact = bound(pdp)
        for verb in ("single", "batch"):
            question = shown(f"DPoP {compact}", fresh(compact))
            answer = await decided(stub, question, verb, how)
            assert answer.reason == Reason.DPOP_NONCE_REQUIRED
            question = shown(f"DPoP {compact}", fresh(compact, nonce=answer.dpop_nonce))
            answer = await decided(stub, question, verb, how)
            assert answer.reason == Reason.GRANTED
            assert answer.dpop_nonce == ""

    play(story, entry="    cnf_kinds: [jkt]\n    dpop_nonce: true\n")


async def decided(
    stub: decision_pb2_grpc.DecisionServiceStub, question: decision_pb2.Question, verb: str, how: dict[str, Any]
) -> decision_pb2.Decision:
    if verb == "batch":
        return (await stub.EvaluateBatch(asked(question), **how)).decisions[0]
    return (await stub.Evaluate(decision_pb2.EvaluateRequest(question=question), **how)).decision


def test_the_sdk_shows_a_proof_once_and_keeps_no_answer_to_it(play: Callable[..., None]) -> None:
    """An allow in the client's cache, or a shared flight, would let a stolen proof in for the second time."""

    async def story(pdp: RunningPdp, _stub: Any, _how: Any) -> None:
        compact = bound(pdp)
        async with AsyncClient(str(pdp.address), token=pdp.token(GATE)) as client:
            subject = Dpop(token=compact, proof=fresh(compact), method="POST", url=HTU)
            assert compact not in repr(subject)
            assert subject.proof not in repr(subject)
            others = [Question(action=ASK["action"], resource=ASK["resource"], subject=None) for _ in range(5)]
            answers = await asyncio.gather(
                *(client.check(ASK["action"], ASK["resource"], subject=subject, supports=None) for _ in range(10)),
                *(client.check(one.action, one.resource) for one in others),
            )
            reasons = [answer.reason for answer in answers[:10]]
            assert sorted(reasons) == [Reason.GRANTED, *[Reason.TOKEN_REPLAYED] * 9]
            assert not {answer.reason for answer in answers[10:]} & CREDENTIAL_REASONS
            late = await client.check(ASK["action"], ASK["resource"], subject=subject, supports=None)
            assert late.reason is Reason.TOKEN_REPLAYED
            with pytest.raises(PdpError, match="cannot be watched"):
                await anext(client.watch(ASK["action"], ASK["resource"], subject=subject))

    play(story)
