"""A decider that obeys the test and remembers everything, for the tests of the enforcement point."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pdp.errors import Reason
from pdp.identity.proof import BoundRequest
from pdp.model.decision import Answer, Decision, Effect, Obligation, deny
from pdp.model.names import Principal, Resource
from pdp.model.request import Party, Question
from pdp.model.trace import TRACE
from sidecar.asked import Identified, Unidentified


class Clock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def mono_s(self) -> float:
        return time.monotonic()


@dataclass
class Decider:
    """Allows until told otherwise, and remembers everything."""

    reason: Reason = Reason.GRANTED
    recheck_after_s: float | None = None
    obligations: tuple[Obligation, ...] = ()
    questions: list[Question] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)
    refusals: list[tuple[Reason, str]] = field(default_factory=list)
    notes: asyncio.Queue[tuple[str, str, dict[str, Any]]] = field(default_factory=asyncio.Queue)
    digests: dict[str, str] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def recheck(self, question: Question) -> Decision:
        del question
        if self.reason is not Reason.GRANTED:
            return deny(self.reason, world_seq=8)
        return Decision(
            effect=Effect.ALLOW,
            reason=self.reason,
            world_seq=7,
            recheck_after_s=self.recheck_after_s,
            obligations=self.obligations,
        )

    async def answer(self, question: Question, *, door: str, caller: str = "") -> Answer:
        del door, caller
        self.questions.append(question)
        self.traces.append(TRACE.get())
        return Answer(decision=self.recheck(question), decision_id=f"d{next(self.numbers)}")

    async def refuse(self, reason: Reason, *, detail: str, **_: str) -> Answer:
        self.refusals.append((reason, detail))
        return Answer(decision=deny(reason, world_seq=7), decision_id=f"d{next(self.numbers)}")

    def digest(self, resource: Resource) -> str:
        return self.digests.get(str(resource), "")

    def patience_s(self, question: Question) -> float:
        del question
        return 60.0

    async def note(self, event: str, *, decision_id: str, **fields: str | int) -> None:
        self.notes.put_nowait((event, decision_id, fields))


async def identify(
    authorization: str | None, certificate_pem: bytes | None, request: BoundRequest, action: str
) -> Identified | Unidentified:
    del request, action
    if authorization != "Bearer good":
        return Unidentified(reason=Reason.CREDENTIAL_MISSING)
    workload = "workload:spiffe://demo.portcullis/" + ("with-certificate" if certificate_pem else "without")
    return Identified(
        party=Party(principal=Principal.parse("user:bob@example.com")), workload=Principal.parse(workload)
    )
