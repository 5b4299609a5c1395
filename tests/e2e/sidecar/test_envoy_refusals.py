"""What Envoy refuses without asking is on record: its access log tells the agent, and of nothing else."""

from collections.abc import Callable
from typing import Any

import pytest

from pdp.errors import Reason
from tests.support.waiting import until

INFER = "/v2/models/fraud/infer"
GOOD = "authorization: Bearer good"
InLab = Callable[..., None]


def head(target: str, *lines: str, method: str = "POST") -> bytes:
    fields = [f"{method} {target} HTTP/1.1", "host: m", "connection: close", GOOD, "content-length: 0", *lines]
    return "\r\n".join([*fields, "", ""]).encode()


UNASKED = {
    "400 path_normalization_failed": head("/v2%2Fmodels"),
    "400 http1.unexpected_underscore": head(INFER, "x_pdp_subject: user:eve"),
    "400 http1.content_length_and_chunked_not_allowed": head(INFER, "transfer-encoding: chunked"),
    "400 http1.codec_error": b"\x16\x03\x01 rubbish\r\n\r\n",
    "400 missing_host_header": b"GET /v2 HTTP/1.1\r\n\r\n",
    "431 http1.too_many_headers": head(INFER, *(f"x{number}: 1" for number in range(150))),
    "431 http1.headers_too_large": head(INFER, "x: " + "a" * 70_000),
    "403 upgrade_failed": head(INFER, "connection: upgrade", "upgrade: websocket"),
    "404 route_not_found": b"CONNECT m:80 HTTP/1.1\r\nhost: m:80\r\nconnection: close\r\n\r\n",
}


@pytest.mark.holds("P8")
def test_every_refusal_of_envoys_own_is_recorded_and_counted(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        for raw in UNASKED.values():
            await lab.raw(raw)
        await until(lambda: lab.plane.refusals.count == len(UNASKED))
        recorded = [(reason, detail) for reason, detail in lab.decider.refusals if detail.endswith(" from 127.0.0.1")]
        assert {detail.removesuffix(" from 127.0.0.1") for _, detail in recorded} == set(UNASKED)
        assert {reason for reason, _ in recorded} == {Reason.BAD_REQUEST, Reason.UNMAPPED_ROUTE}
        assert len(recorded) == len(lab.decider.refusals)
        assert lab.model.seen == []

    in_lab(body)


def test_what_the_agent_or_the_model_answered_is_not_told_twice(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        assert (await lab.post(INFER)).startswith(b"HTTP/1.1 200")
        assert (await lab.post(INFER, token=None)).startswith(b"HTTP/1.1 401")
        assert (await lab.get("/nothing")).startswith(b"HTTP/1.1 403")
        assert (await lab.get("/v2/models/nobody/generate_stream", method="POST")).startswith(b"HTTP/1.1 403")
        asked = len(lab.decider.refusals)
        await lab.raw(UNASKED["400 path_normalization_failed"])
        await until(lambda: lab.plane.refusals.count)
        assert lab.plane.refusals.count == 1
        assert len(lab.decider.refusals) == asked + 1

    in_lab(body)


@pytest.mark.holds("F1")
def test_a_question_without_an_answer_is_recorded_too(in_lab: InLab) -> None:
    async def body(lab: Any) -> None:
        await lab.plane.close_agent_http()
        assert (await lab.post(INFER)).startswith(b"HTTP/1.1 503")
        await until(lambda: lab.plane.refusals.count)
        assert lab.decider.refusals == [(Reason.DEADLINE_EXCEEDED, "503 ext_authz_error from 127.0.0.1")]

    in_lab(body)
