"""N10: to whoever would not see an asset in a listing, unknown and forbidden are one answer; to others nothing is hidden."""

from typing import Any

import pytest

from pdp.decide import decide, explain
from pdp.discretion import discreet, sees
from pdp.errors import Reason
from pdp.model.decision import Decision, Effect
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from pdp.world import World
from tests.support.worlds import START_MS, Scribe

POLICY = """
p, role:viewer, dataset.list, dataset/**, dev, , , allow
p, role:viewer, endpoint.list, endpoint/**, *, , , allow
p, role:reader, dataset.read, dataset/**, *, , , allow
p, role:reader, dataset.delete, dataset/secret/**, *, , , deny
p, role:conditional, dataset.write, dataset/**, *, request.n > 3, , allow
p2, segment:none, *, segment:data, , allow
g, user:viewer@x, role:viewer, *
g, user:reader@x, role:reader, *
g, user:conditional@x, role:conditional, *
g3, dataset/**, segment:data
g3, endpoint/**, segment:data
"""
PEOPLE = ("viewer@x", "reader@x", "conditional@x", "nobody@x")
KINDS: tuple[dict[str, Any], ...] = (
    {"environment": "dev"},
    {"environment": "prod", "sensitivity": "high"},
    {"environment": "prod", "segment": "segment:closed"},
)
TARGETS = ("dataset/secret/wages", "dataset/secret/wages@3", "dataset/plain")


def world(*assets: tuple[str, dict[str, Any]], lock: str = "") -> World:
    scribe = Scribe()
    scribe.policy(POLICY)
    scribe.assets(**{"dataset/other": {"environment": "dev"}}, **dict(assets))
    if lock:
        scribe.lock("l", {"kind": "resource", "resource": lock})
    else:
        scribe.lock("l", {"kind": "principal", "principal": "user:mallory@x"})
    return scribe.world


def asked(person: str, resource: str, action: str = "dataset.read", **more: Any) -> Question:
    return Question(
        subject=Party(principal=Principal.parse(f"user:{person}")),
        action=Action.parse(action),
        resource=Resource.parse(resource),
        **more,
    )


def told(held: World, question: Question) -> Decision:
    """Return what leaves: the explained decision, which says the most, as its caller may see it."""
    return discreet(explain(held, question, START_MS), known=sees(held, question, START_MS))


@pytest.mark.holds("N10", "adv_existence")
@pytest.mark.parametrize("action", ["dataset.read", "dataset.delete", "dataset.write", "dataset.list"])
@pytest.mark.parametrize("target", TARGETS)
def test_whoever_does_not_see_an_asset_gets_the_answer_of_one_that_is_not_there(target: str, action: str) -> None:
    nowhere = world()
    seen = 0
    for kind in KINDS:
        for lock in ("", target):
            there = world((target, kind), lock=lock)
            for person in PEOPLE:
                question = asked(person, target, action)
                answer = told(there, question)
                if answer.allowed or sees(there, question, START_MS):
                    seen += 1
                    continue
                assert answer == told(nowhere, question)
                assert answer == Decision(effect=Effect.DENY, reason=Reason.NO_GRANT, world_seq=there.seq)
    assert seen


def test_whoever_sees_it_is_told_everything() -> None:
    held = world(("dataset/plain", KINDS[0]))
    question = asked("viewer@x", "dataset/plain")
    full = explain(held, question, START_MS)
    assert full.nearest_miss is not None
    assert told(held, question) == full
    denied = asked("reader@x", "dataset/secret/wages", "dataset.delete")
    assert told(world(("dataset/secret/wages", KINDS[0])), denied).reason is Reason.DENIED_BY_RULE


def test_what_every_installation_has_is_no_secret() -> None:
    question = asked("nobody@x", "policy/main", "policy.read")
    assert told(world(), question) == explain(world(), question, START_MS)


def test_a_model_behind_an_endpoint_is_hidden_from_who_sees_the_endpoint_alone() -> None:
    question = asked("viewer@x", "endpoint/fraud", "endpoint.invoke", serves=Resource.parse("model/secret@1"))
    without = world(("endpoint/fraud", KINDS[0]))
    behind = world(("endpoint/fraud", KINDS[0]), ("model/secret@1", KINDS[0]))
    assert decide(without, question, START_MS).reason is Reason.ASSET_UNREGISTERED
    assert told(without, question) == told(behind, question)


@pytest.mark.parametrize(
    "reason", [Reason.UNKNOWN_ACTION, Reason.BAD_REQUEST, Reason.WORLD_STALE, Reason.TOKEN_EXPIRED]
)
def test_what_says_nothing_of_the_inventory_is_never_hidden(reason: Reason) -> None:
    decision = Decision(effect=Effect.DENY, reason=reason, world_seq=1, detail="as it was")
    assert discreet(decision, known=False) is decision
