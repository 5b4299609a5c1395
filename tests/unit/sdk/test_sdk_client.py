import asyncio
import inspect
from collections.abc import Callable, Iterator

import grpc
import pytest
from scripted_pdp import METHODS, ScriptedPdp, decision, denial, evaluated, refusal

from pdp.errors import MEANINGS, ConfigError, Reason
from pdp.sdk import (
    AccessDenied,
    AsyncClient,
    BadQuestion,
    Bearer,
    Client,
    ClientUnusable,
    Conflict,
    CredentialRefused,
    Effect,
    NotFound,
    NotPermitted,
    PdpError,
    PdpFault,
    PdpUnavailable,
    PolicyRefused,
    Question,
    _core,
)
from pdp.v1 import decision_pb2, types_pb2

EVALUATE = "DecisionService/Evaluate"
WATCH = "DecisionService/Watch"
READ = ("dataset.read", "dataset/finance/transactions")


def told(**fields: object) -> decision_pb2.WatchResponse:
    ended = bool(fields.pop("ended", False))
    return decision_pb2.WatchResponse(decision=decision(**fields), ended=ended)


def test_check_returns_the_decision_with_its_id(pdp: ScriptedPdp, client: Client) -> None:
    pdp.script(EVALUATE, evaluated(determining=["grants.csv:6"], role_path=["role:reader"], recheck_after_ms=1500))
    answer = client.check(*READ)
    assert answer.allowed
    assert (answer.decision_id, answer.world_seq, answer.determining) == ("d-1", 7, ("grants.csv:6",))
    assert answer.recheck_after_s == 1.5


def test_a_deny_is_an_answer_and_require_raises_it(pdp: ScriptedPdp, client: Client) -> None:
    pdp.script(EVALUATE, decision_pb2.EvaluateResponse(decision=denial()))
    assert client.check(*READ).reason is Reason.NO_GRANT
    with pytest.raises(AccessDenied, match="no_grant, decision d-1") as denied:
        client.require(*READ)
    assert (denied.value.reason, denied.value.decision_id) == (Reason.NO_GRANT, "d-1")


def test_require_returns_an_allow(pdp: ScriptedPdp, client: Client) -> None:
    pdp.script(EVALUATE, evaluated())
    assert client.require(*READ).effect is Effect.ALLOW


def test_the_subject_is_the_caller_unless_another_is_named(pdp: ScriptedPdp, client: Client) -> None:
    pdp.script(EVALUATE, evaluated())
    client.check(*READ)
    assert not pdp.asked(EVALUATE)[0].question.HasField("subject")
    assert pdp.credentials == ["Bearer a.b.c"]


def test_a_principal_is_asserted_and_a_bearer_passed_on(pdp: ScriptedPdp, client: Client) -> None:
    pdp.script(EVALUATE, evaluated())
    client.check(*READ, subject="user:alice@example.com")
    client.check(*READ, subject=Bearer("x.y.z"))
    asserted, passed_on = (ask.question.subject for ask in pdp.asked(EVALUATE))
    assert asserted.asserted.principal == "user:alice@example.com"
    assert passed_on.credential == "Bearer x.y.z"
    assert "x.y.z" not in repr(Bearer("x.y.z"))


def test_without_a_token_the_connection_speaks_for_itself(pdp: ScriptedPdp) -> None:
    pdp.script(EVALUATE, evaluated())
    with Client(pdp.address) as client:
        client.check(*READ)
    assert not pdp.asked(EVALUATE)[0].question.HasField("subject")
    assert pdp.credentials == [""]


def test_the_highest_world_seen_is_asked_for_again(pdp: ScriptedPdp, client: Client) -> None:
    pdp.script(EVALUATE, evaluated(world_seq=9), evaluated(world_seq=12), evaluated(world_seq=12))
    for _ in range(3):
        client.check(*READ)
    assert [ask.at_least for ask in pdp.asked(EVALUATE)] == [0, 9, 12]


@pytest.mark.holds("P5")
def test_p5_an_allow_from_an_older_world_than_asked_for_is_a_deny(pdp: ScriptedPdp, client: Client) -> None:
    pdp.script(EVALUATE, evaluated(world_seq=9), evaluated(world_seq=8))
    assert client.check(*READ).allowed
    behind = client.check(*READ)
    assert (behind.allowed, behind.reason) == (False, Reason.WORLD_BEHIND)


def test_check_many_is_one_message_answered_in_order(pdp: ScriptedPdp, client: Client) -> None:
    answers = decision_pb2.EvaluateBatchResponse(decisions=[decision(), denial(decision_id="d-2")])
    pdp.script("DecisionService/EvaluateBatch", answers)
    told = client.check_many([READ, Question(action="model.download", resource="model/fraud@7")])
    assert [answer.allowed for answer in told] == [True, False]
    assert len(pdp.calls) == 1


def test_no_question_needs_no_call(client: Client) -> None:
    assert client.check_many([]) == ()


def test_another_number_of_answers_than_questions_is_none(pdp: ScriptedPdp, client: Client) -> None:
    pdp.script("DecisionService/EvaluateBatch", decision_pb2.EvaluateBatchResponse(decisions=[decision()]))
    with pytest.raises(PdpFault, match="2 questions were asked and 1 answered"):
        client.check_many([READ, READ])


def test_explain_tells_the_nearest_miss(pdp: ScriptedPdp, client: Client) -> None:
    miss = types_pb2.NearestMiss(rule="grants.csv:6", failed="environment", text="granted in dev only")
    pdp.script("DecisionService/Explain", decision_pb2.EvaluateResponse(decision=denial(nearest_miss=miss)))
    answer = client.explain(*READ)
    assert answer.nearest_miss is not None
    assert answer.nearest_miss.failed == "environment"


# Watch.


def test_watch_tells_changes_only_and_ends_when_the_pdp_says_so(pdp: ScriptedPdp, client: Client) -> None:
    again = told(world_seq=8, decision_id="d-2")
    cut = decision_pb2.WatchResponse(decision=denial(reason="locked", world_seq=9), ended=True)
    pdp.script(WATCH, [told(), again, cut])
    assert [answer.reason for answer in client.watch(*READ)] == [Reason.GRANTED, Reason.LOCKED]


def test_watch_is_opened_again_with_the_world_it_has_seen(pdp: ScriptedPdp, client: Client) -> None:
    dropped = [told(world_seq=8), refusal(grpc.StatusCode.UNAVAILABLE)]
    pdp.script(WATCH, dropped, [told(world_seq=8), told(effect=0, reason="locked", world_seq=9, ended=True)])
    assert [answer.reason for answer in client.watch(*READ)] == [Reason.GRANTED, Reason.LOCKED]
    assert [ask.at_least for ask in pdp.asked(WATCH)] == [0, 8]


def test_watch_is_renewed_when_its_deadline_ends_it(pdp: ScriptedPdp, client: Client) -> None:
    expired = [told(), refusal(grpc.StatusCode.DEADLINE_EXCEEDED)]
    pdp.script(WATCH, expired, [told(effect=0, reason="token_expired", ended=True)])
    assert [answer.reason for answer in client.watch(*READ)] == [Reason.GRANTED, Reason.TOKEN_EXPIRED]


def test_watch_that_tells_nothing_is_an_error_not_a_wait(pdp: ScriptedPdp, client: Client) -> None:
    pdp.script(WATCH, [])
    with pytest.raises(PdpUnavailable, match="told nothing"):
        next(client.watch(*READ))


@pytest.mark.holds("F1")
def test_f1_watch_of_a_pdp_that_goes_away_raises(pdp: ScriptedPdp, client: Client) -> None:
    pdp.script(WATCH, [told(), refusal(grpc.StatusCode.UNAVAILABLE)], refusal(grpc.StatusCode.UNAVAILABLE))
    watch = client.watch(*READ)
    assert next(watch).allowed
    with pytest.raises(PdpUnavailable):
        next(watch)


def test_watch_ends_with_a_refusal_when_our_credential_does(pdp: ScriptedPdp, client: Client) -> None:
    pdp.script(WATCH, [told(), refusal(grpc.StatusCode.UNAUTHENTICATED, "token_expired")])
    watch = client.watch(*READ)
    assert next(watch).allowed
    with pytest.raises(CredentialRefused):
        next(watch)


def test_leaving_a_watch_cancels_it(pdp: ScriptedPdp, client: Client) -> None:
    pdp.script(WATCH, [told(), pdp.hang])
    watch = client.watch(*READ)
    assert next(watch).allowed
    assert isinstance(watch, Iterator)
    watch.close()  # type: ignore[attr-defined]
    assert pdp.stream_ended.wait(10)


# Refusals.

STATUS_OF = {
    CredentialRefused: (grpc.StatusCode.UNAUTHENTICATED, "token_expired"),
    NotPermitted: (grpc.StatusCode.PERMISSION_DENIED, "no_grant"),
    BadQuestion: (grpc.StatusCode.INVALID_ARGUMENT, "unknown_action"),
    PolicyRefused: (grpc.StatusCode.FAILED_PRECONDITION, "policy_refused"),
    Conflict: (grpc.StatusCode.ABORTED, "conflict"),
    NotFound: (grpc.StatusCode.NOT_FOUND, "not_found"),
    PdpFault: (grpc.StatusCode.INTERNAL, "internal_error"),
    PdpUnavailable: (grpc.StatusCode.UNAVAILABLE, "world_stale"),
}


@pytest.mark.holds("P12")
@pytest.mark.parametrize("kind", STATUS_OF)
def test_p12_a_typed_error_stays_typed_across_rpc(pdp: ScriptedPdp, client: Client, kind: type[PdpError]) -> None:
    status, reason = STATUS_OF[kind]
    pdp.script(
        EVALUATE, refusal(status, reason, advice="do this", correlation_id="c-1", head_seq=4, findings=["f:1:1"])
    )
    with pytest.raises(kind) as raised:
        client.check(*READ)
    error = raised.value
    assert (error.reason, error.message, error.advice) == (Reason(reason), f"told: {reason}", "do this")
    assert (error.correlation_id, error.head_seq, error.findings) == ("c-1", 4, ("f:1:1",))


@pytest.mark.parametrize("kind", STATUS_OF)
def test_a_refusal_without_detail_is_typed_by_its_status(
    pdp: ScriptedPdp, client: Client, kind: type[PdpError]
) -> None:
    pdp.script(EVALUATE, refusal(STATUS_OF[kind][0]))
    with pytest.raises(kind):
        client.check(*READ)


@pytest.mark.holds("P2")
@pytest.mark.parametrize("reason", Reason)
def test_no_reason_in_an_error_ever_allows(pdp: ScriptedPdp, client: Client, reason: Reason) -> None:
    pdp.script(EVALUATE, refusal(grpc.StatusCode.UNKNOWN, reason.value))
    with pytest.raises(PdpError) as raised:
        client.check(*READ)
    assert MEANINGS[raised.value.reason].exit_code != 0


@pytest.mark.holds("F28", "P12")
def test_f28_an_unknown_reason_in_an_error_falls_back_on_the_status(pdp: ScriptedPdp, client: Client) -> None:
    pdp.script(EVALUATE, refusal(grpc.StatusCode.UNAUTHENTICATED, "a_reason_of_next_year"))
    with pytest.raises(CredentialRefused):
        client.check(*READ)


def test_garbage_for_a_detail_is_no_detail() -> None:
    error = _core.call_error("UNAVAILABLE", server="pdp:1", detail=b"\xff\xff\xff")
    assert isinstance(error, PdpUnavailable)


@pytest.mark.holds("F1")
def test_f1_an_unreachable_pdp_is_an_error_at_once(nobody: Callable[[], str]) -> None:
    with Client(nobody(), token="a.b.c") as client, pytest.raises(PdpUnavailable, match="cannot be reached") as raised:
        client.check(*READ)
    assert raised.value.reason is Reason.PDP_UNREACHABLE


@pytest.mark.holds("F2")
def test_f2_a_pdp_that_hangs_is_an_error_at_the_deadline(pdp: ScriptedPdp) -> None:
    pdp.script(EVALUATE, pdp.hang)
    with Client(pdp.address, token="a.b.c", timeout_s=0.2) as client, pytest.raises(PdpUnavailable) as raised:
        client.check(*READ)
    assert raised.value.reason is Reason.DEADLINE_EXCEEDED


def test_a_connection_lost_once_is_tried_again(pdp: ScriptedPdp, client: Client) -> None:
    pdp.script(EVALUATE, refusal(grpc.StatusCode.UNAVAILABLE), evaluated())
    assert client.check(*READ).allowed


def test_a_closed_client_says_so(pdp: ScriptedPdp) -> None:
    client = Client(pdp.address)
    client.close()
    client.close()
    with pytest.raises(ClientUnusable, match="closed"):
        client.check(*READ)
    with pytest.raises(ClientUnusable):
        client.watch(*READ)


@pytest.mark.parametrize(
    "question",
    [
        Question(action="read", resource=READ[1]),
        Question(action=READ[0], resource="dataset/../etc"),
        Question(action=READ[0], resource="finance"),
        Question(action=READ[0], resource=READ[1], subject="role:admin"),
        Question(action=READ[0], resource=READ[1], workload="spiffe://x/y"),
        Question(action=READ[0], resource=READ[1], attributes={"purpose": "x"}),
        Question(action=READ[0], resource=READ[1], attributes={"request.n": 2**53}),
        Question(action=READ[0], resource=READ[1], attributes={"request.n": None}),  # type: ignore[dict-item]
        Question(action=READ[0], resource=READ[1], attributes={f"request.a{n}": n for n in range(65)}),
        Question(action=READ[0], resource=READ[1], supports="max_rows"),
    ],
)
def test_a_malformed_question_is_refused_before_it_is_sent(
    pdp: ScriptedPdp, client: Client, question: Question
) -> None:
    with pytest.raises(BadQuestion):
        client.check_many([question])
    assert pdp.calls == []


def test_more_questions_than_a_message_holds_are_refused(client: Client) -> None:
    with pytest.raises(BadQuestion, match="at most 1000"):
        client.check_many([READ] * 1001)


# The twin.


def test_the_twins_have_the_same_methods_and_arguments() -> None:
    names = {name for name in vars(Client) if not name.startswith("_")}
    assert names == {name for name in vars(AsyncClient) if not name.startswith("_")}
    assert inspect.signature(Client).parameters == inspect.signature(AsyncClient).parameters
    for name in names - {"world_seq", "one_identity"}:
        ours, twins = (inspect.signature(getattr(kind, name)) for kind in (Client, AsyncClient))
        assert ours.parameters == twins.parameters


def test_async_calls_answer_as_blocking_ones_do(pdp: ScriptedPdp) -> None:
    pdp.script(EVALUATE, evaluated(), decision_pb2.EvaluateResponse(decision=denial()))
    pdp.script("DecisionService/EvaluateBatch", decision_pb2.EvaluateBatchResponse(decisions=[decision()]))
    pdp.script("DecisionService/Explain", evaluated())
    pdp.script(WATCH, [told(), refusal(grpc.StatusCode.UNAVAILABLE)], [told(effect=0, reason="locked", ended=True)])

    async def ask() -> None:
        async with AsyncClient(pdp.address, token="a.b.c", cache_s=0) as client:
            assert (await client.check(*READ)).allowed
            with pytest.raises(AccessDenied):
                await client.require(*READ)
            assert [answer.allowed for answer in await client.check_many([READ])] == [True]
            assert (await client.explain(*READ)).allowed
            reasons = [answer.reason async for answer in client.watch(*READ)]
            assert reasons == [Reason.GRANTED, Reason.LOCKED]
            assert client.world_seq == 7
        with pytest.raises(ClientUnusable):
            await client.check(*READ)

    asyncio.run(ask())


def test_async_errors_are_typed_too(pdp: ScriptedPdp, nobody: Callable[[], str]) -> None:
    pdp.script(EVALUATE, refusal(grpc.StatusCode.UNAUTHENTICATED, "token_expired"))

    async def ask(address: str) -> None:
        async with AsyncClient(address, token="a.b.c") as client:
            await client.check(*READ)

    with pytest.raises(CredentialRefused) as raised:
        asyncio.run(ask(pdp.address))
    assert raised.value.reason is Reason.TOKEN_EXPIRED
    with pytest.raises(PdpUnavailable):
        asyncio.run(ask(nobody()))


def test_a_client_needs_an_address() -> None:
    with pytest.raises(ConfigError, match="PDP_SERVER"):
        Client()


def test_every_method_of_the_sdk_is_one_of_the_protocol() -> None:
    for rpc in (_core.EVALUATE, _core.EXPLAIN, _core.BATCH, _core.WATCH):
        method = METHODS[rpc.path]
        assert (method.input_type, method.output_type) == (rpc.ask.DESCRIPTOR, rpc.told.DESCRIPTOR)
