"""ext_authz behind the real Envoy: what is allowed, denied and refused before anyone is asked."""

from collections.abc import Callable
from typing import Any

import pytest

from pdp.errors import Reason

INFER = "/v2/models/fraud/infer"


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_an_allowed_request_reaches_the_model_and_names_its_decision(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        assert status(await lab.post(INFER)) == 200
        headers = lab.model.seen[0].headers
        assert headers["x-pdp-subject"] == "user:bob@example.com"
        assert headers["x-pdp-decision-id"] == "d1"
        assert headers["x-pdp-world-seq"] == "7"
        question = lab.decider.questions[0]
        assert (str(question.action), str(question.resource)) == ("endpoint.invoke", "endpoint/fraud")
        assert str(question.serves) == "model/fraud@12"
        assert str(question.workload) == "workload:spiffe://demo.portcullis/without"

    in_lab(body)


def test_the_model_never_sees_the_credential(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        await lab.post(INFER, "dpop: proof")
        assert not {"authorization", "dpop", "x-forwarded-client-cert"} & set(lab.model.seen[0].headers)

    in_lab(body)


def test_denied_without_a_token_and_without_a_grant(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        assert status(await lab.post(INFER, token=None)) == 401
        lab.decider.reason = Reason.NO_GRANT
        answer = await lab.post(INFER)
        assert status(answer) == 403
        assert b'"reason": "forbidden", "decision_id": "d2"}' in answer
        lab.decider.reason = Reason.WORLD_STALE
        assert status(await lab.post(INFER)) == 503
        assert lab.model.seen == []

    in_lab(body)


def test_an_unmapped_path_is_denied_by_the_agent_and_recorded(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        for target in ("/", "/nope", "/v2/models/other/infer", "/v2/models/fraud/versions/13/infer", INFER + "?a=b"):
            assert status(await lab.post(target)) == 403, target
        assert status(await lab.get(INFER)) == 403  # another method is another route
        assert [reason for reason, _ in lab.decider.refusals] == [Reason.UNMAPPED_ROUTE] * 6
        assert lab.model.seen == []

    in_lab(body)


@pytest.mark.holds("N2", "adv_path")
def test_second_spellings_never_reach_the_model(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        for target in ("/v2%2Fmodels/fraud/infer", "/v2%5Cmodels/fraud/infer"):
            assert status(await lab.post(target)) == 400, target
        for target in (
            "/v2/models/fraud%69/infer",
            "/v2/models/fraud/infer;x",
            "/v2/models/%C0%AE/infer",
            "/v2/models/fraud/infer%0d%0a",
            "/V2/models/fraud/infer",
            "/v2/models/fraud/infer/",
        ):
            assert status(await lab.post(target)) in {400, 403}, target
        assert lab.model.seen == []

    in_lab(body)


@pytest.mark.holds("N2")
def test_envoy_normalises_dot_segments_before_anyone_decides(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        assert status(await lab.post("/v2/models/../models/fraud//infer")) == 200
        assert status(await lab.post("/v2/models/fr%61ud/infer")) == 200  # an escaped letter is one, too
        for exchange in lab.model.seen:
            assert exchange.head.startswith("POST /v2/models/fraud/infer HTTP/1.1")

    in_lab(body)


@pytest.mark.holds("N5", "adv_header_spelling")
def test_a_header_with_an_underscore_is_refused(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        assert status(await lab.post(INFER, "x_pdp_subject: user:eve")) == 400
        assert lab.decider.questions == []

    in_lab(body)


@pytest.mark.holds("N5", "adv_header_spelling")
def test_a_clients_own_identity_headers_reach_neither_agent_nor_model(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        answer = await lab.post(
            INFER,
            "x-pdp-subject: user:eve",
            "X-PDP-Anything: 1",
            "x-pdp-route: unmapped",
            "x-pdp-source: 1.2.3.4",
            "x-forwarded-client-cert: Hash=" + "0" * 64 + ';Cert="forged";URI=spiffe://demo.portcullis/eve',
            "x-original-url: /admin",
            "x-forwarded-host: eve",
        )
        assert status(answer) == 200
        assert str(lab.decider.questions[0].workload) == "workload:spiffe://demo.portcullis/without"
        headers = lab.model.seen[0].headers
        assert headers["x-pdp-subject"] == "user:bob@example.com"
        assert not {"x-pdp-anything", "x-pdp-route", "x-pdp-source", "x-original-url", "x-forwarded-host"} & set(
            headers
        )

    in_lab(body)


@pytest.mark.holds("N4", "adv_duplicate_header")
def test_two_credentials_are_not_one(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        assert status(await lab.post(INFER, "authorization: Bearer other")) == 401
        assert lab.model.seen == []

    in_lab(body)


@pytest.mark.holds("F1")
def test_a_closed_agent_socket_is_503(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        await lab.plane.close_agent_http()
        assert status(await lab.post(INFER)) == 503
        assert lab.model.seen == []

    in_lab(body)
