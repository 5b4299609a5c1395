"""Discretion at a door: applied after the record is written, to what leaves (FAILURE.md N10)."""

from collections.abc import Sequence
from typing import Final

from pdp.discretion import discreet, sees, telling
from pdp.model.decision import Answer
from pdp.model.request import Question
from pdp.server.callers import ASSERT, Caller, Right, right
from pdp.service.decide import Decider, Moment

_KNOWING: Final[tuple[Right, ...]] = (ASSERT, right("asset.read", "asset/all", recorded=False))
"""Rights whose holder finds the inventory out by asking in the name of somebody who knows it, or does; the commoner first."""


class Discretion:
    """Says of an answer what its caller may learn. `reveal`: everything, as a development installation does."""

    def __init__(self, *, decider: Decider, reveal: bool) -> None:
        self._decider = decider
        self._reveal = reveal

    def over(self, answers: Sequence[Answer], questions: Sequence[Question], caller: Caller) -> Sequence[Answer]:
        """Return `answers` to `questions`, each as `caller` may see it. An allow, and who knows anyway, cost nothing."""
        if self._reveal or not any(telling(answer.decision) for answer in answers):
            return answers
        moment = self._decider.moment()
        if any(moment.decide(caller.question(wanted)).allowed for wanted in _KNOWING):
            return answers
        return [_seen(answer, question, moment) for answer, question in zip(answers, questions, strict=True)]


def _seen(answer: Answer, question: Question, moment: Moment) -> Answer:
    if not telling(answer.decision):
        return answer
    known = sees(moment.world, question, moment.now_ms, clock_off=moment.clock_off)
    return answer._replace(decision=discreet(answer.decision, known=known))
