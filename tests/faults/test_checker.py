"""The checker is tested too: an honest history passes, and one forged history per assertion is rejected."""

from dataclasses import replace
from typing import Any

import pytest

from pdp.decide import decide
from pdp.errors import Reason
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from pdp.world import World
from tests.faults.checker import Call, History, check
from tests.support.worlds import START_MS, Scribe

QUESTION = Question(
    subject=Party(principal=Principal.parse("user:ada@x")),
    action=Action.parse("dataset.read"),
    resource=Resource.parse("dataset/finance"),
)


def worlds() -> dict[int, World]:
    scribe = Scribe()
    scribe.policy(
        "p, role:reader, dataset.read, dataset/finance, *, , , allow\n"
        "g, user:ada@x, role:reader, *\n"
        "p2, segment:none, *, segment:data, , allow\ng3, dataset/finance, segment:data\n"
    )
    registered = scribe.assets(**{"dataset/finance": {"environment": "dev"}})
    locked = scribe.lock("l", {"kind": "principal", "principal": "user:ada@x"})
    return {2: registered, 3: locked}


def reference(world: World, question: Question) -> bool:
    return decide(world, question, START_MS).allowed


def call(**changes: Any) -> Call:
    base = Call(
        client="c",
        question=QUESTION,
        allowed=True,
        reason=Reason.GRANTED,
        world_seq=2,
        t0=1.0,
        t1=1.1,
        decision_id="d1",
    )
    return replace(base, **changes)


LATER = call(t0=6.0, t1=6.1, world_seq=3, allowed=False, reason=Reason.LOCKED, decision_id="d2")


def history(*calls: Call, **changes: Any) -> History:
    base = History(calls=calls, worlds=worlds(), published={2: 0.0, 3: 5.0}, durable={"d1": 1.05}, reference=reference)
    return replace(base, **changes)


def test_an_honest_history_passes() -> None:
    stale = call(t0=7.0, t1=7.1, world_seq=3, allowed=False, reason=Reason.WORLD_STALE, decision_id="d3")
    assert check(history(call(), LATER, stale)) == []


@pytest.mark.parametrize(
    ("letter", "forged"),
    [
        ("(a)", lambda: history(call(world_seq=3))),
        ("(a)", lambda: history(call(world_seq=9))),
        ("(a)", lambda: history(call(allowed=False, reason=Reason.NO_GRANT))),
        ("(b)", lambda: history(LATER, call(t0=7.0, t1=7.1))),
        ("(b)", lambda: history(call(at_least=3))),
        ("(c)", lambda: history(call(t0=66.0, t1=66.1), durable={"d1": 66.05})),
        ("(d)", lambda: history(call(decision_id="unrecorded"))),
        ("(d)", lambda: history(call(), durable={"d1": 1.2})),
        ("(e)", lambda: history(call(), chains_verify=False)),
    ],
)
def test_a_forged_history_is_rejected(letter: str, forged: Any) -> None:
    assert [problem[:3] for problem in check(forged())] == [letter]
