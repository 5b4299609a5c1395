"""Requests that are alike ask the very same question, and no others do."""

from dataclasses import replace

from pdp.model.names import Principal
from pdp.model.request import Party
from sidecar.asked import Admitted, Ask, Identified
from sidecar.bodies import UNREAD, Content
from sidecar.questions import Questions
from sidecar.routes import Mapped, Placement, Served, oip
from sidecar.target import Target

TABLE = oip.table(
    served={
        "fraud": Served(resource="endpoint/fraud-prod", model="model/fraud@12"),
        "spam": Served(resource="endpoint/spam", model="model/spam@1"),
    }
)
SAM = Identified(party=Party(principal=Principal.parse("user:sam@x")))


def mapped(target: str) -> Mapped:
    found = TABLE.map("POST", Target(path=target, query=""))
    assert isinstance(found, Mapped)
    return found


FRAUD = mapped("/v2/models/fraud/infer")
ASK = Ask(method="POST", target="/v2/models/fraud/infer", route="oip.infer")
ALIKE = Admitted(ask=ASK, mapped=FRAUD, who=SAM, placement=Placement.EXT_AUTHZ)


def test_requests_that_are_alike_ask_the_very_same_question() -> None:
    questions = Questions()
    first = questions.of(ALIKE, FRAUD, UNREAD)
    other_bytes = replace(
        ASK, method=str(b"POST", "ascii"), source_ip="10.0.0.1", traceparent="t", authorization="Bearer x"
    )
    assert questions.of(replace(ALIKE, ask=other_bytes), FRAUD, UNREAD) is first


def test_whatever_differs_in_anything_that_a_question_says_is_asked_by_itself() -> None:
    questions = Questions()
    first = questions.of(ALIKE, FRAUD, UNREAD)
    spam = mapped("/v2/models/spam/infer")
    eve = Identified(party=Party(principal=Principal.parse("user:eve@x")))
    others = [
        questions.of(replace(ALIKE, who=eve), FRAUD, UNREAD),
        questions.of(ALIKE, spam, UNREAD),
        questions.of(replace(ALIKE, ask=replace(ASK, method="PUT")), FRAUD, UNREAD),
        questions.of(replace(ALIKE, ask=replace(ASK, asserted={"purpose": "a"})), FRAUD, UNREAD),
        questions.of(replace(ALIKE, ask=replace(ASK, asserted={"purpose": "b"})), FRAUD, UNREAD),
        questions.of(replace(ALIKE, placement=Placement.EXT_PROC), FRAUD, UNREAD),
        questions.of(ALIKE, FRAUD, Content(stream=True)),
    ]
    assert len({repr(one) for one in (first, *others)}) == 8


def test_a_caller_who_has_gone_leaves_no_question_to_the_next() -> None:
    """Ids are given again once their object is gone: what is kept holds its objects."""
    questions = Questions()
    for number in range(200):
        who = Identified(party=Party(principal=Principal.parse(f"user:u{number}@x")))
        asked = questions.of(replace(ALIKE, who=who), FRAUD, UNREAD)
        assert str(asked.subject.principal) == f"user:u{number}@x"
        del who, asked
