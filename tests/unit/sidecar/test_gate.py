import asyncio
from dataclasses import replace
from typing import Any

import pytest

from pdp.errors import PortcullisError, Reason
from pdp.model.decision import Answer, Obligation
from pdp.model.request import Question
from sidecar import gate as gate_module
from sidecar.asked import Ask, Identified, Unidentified, Verdict
from sidecar.gate import Gate
from sidecar.limits import LIMITS
from sidecar.routes import Placement, RouteTable, Served, oip, oip_grpc
from sidecar.target import Target, canonical
from tests.support.enforcement import Decider, identify

TABLE = oip.table(served={"fraud": Served(resource="endpoint/fraud-prod", model="model/fraud@12")}, server="")
INFER = Ask(method="POST", target="/v2/models/fraud/infer", route="oip.infer", authorization="Bearer good")
STREAM = replace(INFER, target="/v2/models/fraud/generate_stream", route="oip.generate_stream")
XFCC = f'Hash={"0" * 64};Cert="-----BEGIN%20CERTIFICATE-----%0AAAAA%0A-----END%20CERTIFICATE-----%0A"'


def decide(ask: Ask, placement: Placement = Placement.EXT_AUTHZ, **changes: Any) -> tuple[Verdict, Decider]:
    decider = changes.pop("decider", None) or Decider()
    gate = Gate(**({"table": TABLE, "identify": identify, "decider": decider} | changes))
    return asyncio.run(gate.decide(ask, placement)), decider


def test_a_request_becomes_one_question() -> None:
    asked = replace(INFER, asserted={"purpose": "fraud-detection"}, certificate=XFCC + ";URI=spiffe://x/y")
    verdict, decider = decide(asked)
    assert verdict.allowed
    (question,) = decider.questions
    assert str(question.action) == "endpoint.invoke"
    assert str(question.resource) == "endpoint/fraud-prod"
    assert str(question.serves) == "model/fraud@12"
    assert str(question.workload) == "workload:spiffe://demo.portcullis/with-certificate"
    assert question.supports == frozenset({"recheck_after", "purpose", "pin_version", "require_digest"})
    assert question.attributes == {
        "request.protocol": "http",
        "request.method": "POST",
        "request.route": "oip.infer",
        "request.stream": False,
        "request.purpose": "fraud-detection",
    }


@pytest.mark.parametrize(
    ("ask", "placement", "reason"),
    [
        (replace(INFER, target="/v2/models/fr%61ud/infer"), Placement.EXT_AUTHZ, Reason.BAD_REQUEST),
        (replace(INFER, target=""), Placement.EXT_AUTHZ, Reason.BAD_REQUEST),
        (replace(INFER, target="/nope"), Placement.EXT_AUTHZ, Reason.UNMAPPED_ROUTE),
        (replace(INFER, route="oip.model_ready"), Placement.EXT_AUTHZ, Reason.UNMAPPED_ROUTE),
        (replace(INFER, route=""), Placement.EXT_AUTHZ, Reason.UNMAPPED_ROUTE),
        (INFER, Placement.EXT_PROC, Reason.UNMAPPED_ROUTE),
        (STREAM, Placement.EXT_AUTHZ, Reason.UNMAPPED_ROUTE),
        (replace(STREAM, route=None), Placement.EXT_AUTHZ, Reason.UNMAPPED_ROUTE),
        (replace(INFER, authorization=None), Placement.EXT_AUTHZ, Reason.CREDENTIAL_MISSING),
        (replace(INFER, certificate="URI=spiffe://demo.portcullis/x"), Placement.EXT_AUTHZ, Reason.CERTIFICATE_INVALID),
        (replace(INFER, certificate=f"{XFCC},{XFCC}"), Placement.EXT_AUTHZ, Reason.CERTIFICATE_INVALID),
    ],
)
def test_what_cannot_be_asked_is_refused_and_recorded(ask: Ask, placement: Placement, reason: Reason) -> None:
    verdict, decider = decide(ask, placement)
    assert not verdict.allowed
    assert verdict.reason is reason
    assert verdict.decision_id
    assert [refused for refused, _ in decider.refusals] == [reason]
    assert decider.questions == []


def test_an_envoy_that_names_no_route_is_mapped_by_the_path_alone() -> None:
    assert decide(replace(INFER, route=None))[0].allowed


def test_a_deny_is_a_deny() -> None:
    verdict, _ = decide(INFER, decider=Decider(reason=Reason.LOCKED))
    assert not verdict.allowed
    assert verdict.reason is Reason.LOCKED


class Broken(Decider):
    def __init__(self, fault: BaseException) -> None:
        super().__init__()
        self.fault = fault

    async def answer(self, question: Question, *, door: str, caller: str = "") -> Answer:
        del question, door, caller
        raise self.fault


@pytest.mark.holds("P2", "N11", "adv_fail_open")
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (RuntimeError("a defect"), Reason.INTERNAL_ERROR),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "x"), Reason.INTERNAL_ERROR),
        (RecursionError(), Reason.INTERNAL_ERROR),
        (PortcullisError(Reason.AUDIT_UNAVAILABLE, "disk full"), Reason.AUDIT_UNAVAILABLE),
    ],
)
def test_every_failure_inside_is_a_deny(fault: BaseException, reason: Reason) -> None:
    verdict, _ = decide(INFER, decider=Broken(fault))
    assert not verdict.allowed
    assert verdict.reason is reason


@pytest.mark.holds("N11")
def test_a_slow_decision_is_our_own_deny(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*given: Any) -> Identified | Unidentified:
        del given
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(gate_module, "LIMITS", replace(LIMITS, decide_s=0.01))
    verdict, _ = decide(INFER, identify=never)
    assert not verdict.allowed
    assert verdict.reason is Reason.DEADLINE_EXCEEDED


@pytest.mark.parametrize(("recheck_s", "allowed"), [(5.0, False), (LIMITS.unary_s, True), (30.0, True)])
def test_a_route_that_outlasts_its_recheck_is_not_supported(recheck_s: float, *, allowed: bool) -> None:
    duty = (Obligation(name="recheck_after", value=f"{recheck_s:g}s"),)
    verdict, _ = decide(INFER, decider=Decider(recheck_after_s=recheck_s, obligations=duty))
    assert verdict.allowed is allowed
    if not allowed:
        assert verdict.reason is Reason.OBLIGATION_UNSUPPORTED
    streamed, _ = decide(STREAM, Placement.EXT_PROC, decider=Decider(recheck_after_s=recheck_s, obligations=duty))
    assert streamed.allowed


def test_an_action_that_a_body_may_change_is_not_known_when_the_credential_is_looked_at() -> None:
    """Else a live check that an issuer wants before `endpoint.load_override` would be left out: the row says `endpoint.load`."""
    served = {"fraud": Served(resource="endpoint/fraud-prod", model="model/fraud@12")}
    table = RouteTable(rows=(*oip.ROWS, *oip_grpc.ROWS), served=served, server="endpoint/server")
    told: dict[str, str] = {}

    def noting(target: str) -> Any:
        async def identify_nobody(*given: Any) -> Identified | Unidentified:
            told[target] = given[3]
            return Unidentified(reason=Reason.CREDENTIAL_MISSING)

        return identify_nobody

    for target in (INFER.target, "/inference.GRPCInferenceService/RepositoryModelLoad"):
        mapped = table.map("POST", canonical_path(target))
        assert mapped.row is not None
        decide(replace(INFER, target=target, route=None), mapped.row.placement, identify=noting(target), table=table)
    assert list(told.values()) == ["endpoint.invoke", ""]


def canonical_path(text: str) -> Target:
    target = canonical(text)
    assert isinstance(target, Target)
    return target
