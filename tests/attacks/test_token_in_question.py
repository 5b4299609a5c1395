"""Every row of IDENTITY.md section 3 as the credential of a subject, inside a question of a caller who is well."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pdp.errors import Reason
from pdp.identity.challenge import Header
from pdp.identity.types import Refusal
from pdp.v1 import decision_pb2, decision_pb2_grpc
from tests.attacks.test_token_doors import CASES, ORIGIN, UNARY, Case, Reply, Switch, judged
from tests.support.pdp import GATE, running_pdp


def askable(case: Case) -> bool:
    """Whether a question can show the credential: as text, and without the certificate of a connection."""
    text = case.authorization
    return text is not None and case.certificate is None and len(text) < 100_000 and not _surrogates(text)


def _surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def test_every_row_is_a_deny_where_a_question_shows_the_credential(tmp_path: Path) -> None:
    """ER-4: the caller is well, and learns the code of the subject's token as the reason of a deny."""

    async def story() -> None:
        switch = Switch()
        async with running_pdp(tmp_path) as pdp:
            metadata = pdp.metadata(GATE)
            own, real = str(metadata[0][1]), pdp.app.authenticator.authenticate

            async def authenticate(authorization: Any, peer: Any, **how: Any) -> Any:
                return await (real if authorization == own else switch.authenticate)(authorization, peer, **how)

            pdp.app.authenticator.authenticate = authenticate  # type: ignore[method-assign]
            pdp.app.authenticator.nonce = switch.nonce  # type: ignore[method-assign]
            stub = decision_pb2_grpc.DecisionServiceStub(pdp.channel())

            async def door(case: Case, text: str | None) -> Reply:
                subject = decision_pb2.Subject(credential=case.authorization)
                if text is not None:
                    subject.request.MergeFrom(decision_pb2.BoundRequest(proof=text, method="POST", url=ORIGIN + UNARY))
                question = decision_pb2.Question(
                    subject=subject, action="endpoint.invoke", resource="endpoint/fraud", supports_all=True
                )
                request = decision_pb2.EvaluateRequest(question=question)
                decision = (await stub.Evaluate(request, metadata=metadata)).decision
                if decision.reason in UNREGISTERED:
                    return Reply(reason=None, status="OK")
                nonce = {"dpop-nonce": decision.dpop_nonce} if decision.dpop_nonce else {}
                return Reply(reason=decision.reason, status="DENY", headers=nonce)

            cases = [case for case in CASES if askable(case)]
            assert len(cases) > len(CASES) * 0.9
            assert await judged(door, switch, UNARY, cases, lambda _: "DENY", told=only_the_nonce) == []

    asyncio.run(story())


def only_the_nonce(_refusal: Refusal, nonce: str) -> Iterable[Header]:
    return (("dpop-nonce", nonce),) if nonce else ()


UNREGISTERED = {Reason.ASSET_UNREGISTERED.value, Reason.NO_GRANT.value}
