"""A client that grants what a test says, and remembers what it was asked."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Unpack

from pdp.errors import Reason
from pdp.model.decision import Obligation
from pdp.sdk import Decision, Effect, Question
from pdp.sdk.values import Circumstances


@dataclass
class Granting:
    """Allows the actions granted, with the obligations given where the caller supports them."""

    granted: Collection[str]
    obligations: tuple[Obligation, ...] = ()
    recheck_after_s: float | None = None
    world_seq: int = 7
    one_identity: bool = True
    asked: list[Question] = field(default_factory=list)

    def check(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> Decision:
        question = Question(action=action, resource=resource, **circumstances)
        self.asked.append(question)
        reason = Reason.GRANTED if action in self.granted else Reason.NO_GRANT
        undone = {duty.name for duty in self.obligations} - set(question.supports or ())
        if reason is Reason.GRANTED and undone and question.supports is not None:
            reason = Reason.OBLIGATION_UNSUPPORTED
        allowed = reason is Reason.GRANTED
        return Decision(
            effect=Effect.ALLOW if allowed else Effect.DENY,
            reason=reason,
            world_seq=self.world_seq,
            decision_id=f"d-{len(self.asked)}",
            obligations=self.obligations if allowed else (),
            recheck_after_s=self.recheck_after_s if allowed else None,
        )

    @property
    def actions(self) -> list[str]:
        """The actions asked for, in order."""
        return [question.action for question in self.asked]
