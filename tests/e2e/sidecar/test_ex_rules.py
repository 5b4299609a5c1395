"""ENFORCEMENT.md EX-1 to EX-18 against the real Envoy, where no other test of this directory shows the rule by itself.

| rule | held by |
|---|---|
| EX-1, EX-2 | `tests/unit/sidecar/test_ext_authz.py`, `tests/attacks/test_failures_at_every_door.py` (serialized bytes) |
| EX-3 | `test_unary.test_a_closed_agent_socket_is_503`, `test_foreign_envoy`, `test_asgi.test_headers_that_could_mislead…` |
| EX-4, EX-5 | here, `test_gate_attacks.test_a_refused_stream_says_as_much…`, `tests/unit/sidecar/test_replies.py` |
| EX-6 | `test_unary.test_a_clients_own_identity_headers…`, `test_foreign_envoy` |
| EX-7, EX-8 | `test_unary.test_a_header_with_an_underscore…`, `test_unary.test_second_spellings…` |
| EX-9, EX-11 | `tests/attacks/test_request_targets.py` |
| EX-10 | `tests/unit/sidecar/test_envoy.py`, `test_foreign_envoy` (the catch-all route) |
| EX-12, EX-13 | here, `test_unary.test_two_credentials_are_not_one` |
| EX-14 | `test_body_routes` (413, whole body), `tests/unit/sidecar/test_ext_authz.py` (the partial mark) |
| EX-15, EX-17 | here |
| EX-16, EX-18 | `test_tls.py`, `test_unary.test_a_clients_own_identity_headers…`, `test_foreign_envoy` |
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pdp.errors import Reason
from pdp.model.names import Principal
from pdp.model.request import Party
from sidecar import gate as gate_module
from sidecar.asked import Identified
from sidecar.limits import LIMITS
from tests.e2e.sidecar.test_streams import STREAM
from tests.e2e.sidecar.test_unary import INFER, status

BOTH = (INFER, STREAM)  # ext_authz and ext_proc


def test_ex_4_and_5_each_reason_has_one_of_four_statuses(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        for reason in Reason:
            if reason is Reason.GRANTED:
                continue
            lab.decider.reason = reason
            answers = {status(await lab.post(target)) for target in BOTH}
            assert len(answers) == 1, reason
            assert answers <= {401, 403, 429, 503}, reason
        assert lab.model.seen == []

    in_lab(body)


@pytest.mark.parametrize(
    "line",
    [
        "authorization: Bearer good\r\nauthorization: Bearer good",
        "authorization: Bearer good, Bearer good",
        "authorization: Bearer \xff",
        "authorization: Bearer good\x7f",
        "authorization: Bearer good\r\npdp-ask-purpose: a\r\npdp-ask-purpose: b",
        "authorization: Bearer good\r\npdp-ask-purpose: \xc3\xa4",
        "authorization: Bearer good\r\npdp-ask-purpose: a\tb",
    ],
)
def test_ex_12_and_13_headers_we_read_stand_once_and_are_plain(in_lab: Callable[..., None], line: str) -> None:
    async def body(lab: Any) -> None:
        for target in BOTH:
            request = f"POST {target} HTTP/1.1\r\nhost: m\r\nconnection: close\r\ncontent-length: 0\r\n{line}\r\n\r\n"
            assert status(await lab.raw(request.encode("latin-1"))) in {400, 401, 403}, target
        assert lab.model.seen == []

    in_lab(body)


def test_ex_15_what_is_injected_cannot_break_a_header(in_lab: Callable[..., None]) -> None:
    """A principal's grammar has no control character, so the model's header is one line whatever a token said."""
    with pytest.raises(ValueError, match=r".+"):
        Principal.parse("user:eve@example.com\r\nx-pdp-subject: user:ada")

    async def body(lab: Any) -> None:
        long = "user:" + "a" * 200 + "@example.com"

        async def named(*_: Any) -> Identified:
            return Identified(party=Party(principal=Principal.parse(long)))

        lab.plane._services[0]._gate._identify = named
        assert status(await lab.post(INFER)) == 200
        assert lab.model.seen[0].headers["x-pdp-subject"] == long

    in_lab(body)


def test_ex_17_a_slow_decision_is_our_own_refusal_and_counted(
    in_lab: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LIMITS.decide_s < LIMITS.filter_timeout_s  # else Envoy would refuse first, without our count
    monkeypatch.setattr(gate_module, "LIMITS", replace(LIMITS, decide_s=0.05))

    async def body(lab: Any) -> None:
        async def never(*_: Any, **__: Any) -> Any:
            await asyncio.Event().wait()

        lab.decider.answer = never
        gate = lab.plane._services[0]._gate
        for number, target in enumerate(BOTH, start=1):
            answer = await lab.post(target)
            assert status(answer) == 503
            # Ours came first, though ext_authz over HTTP takes any 5xx for a failure and says a bare 503.
            assert gate.failures == number
        assert b'"reason": "unavailable"' in answer
        assert lab.model.seen == []

    in_lab(body)
