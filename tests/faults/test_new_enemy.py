"""New enemy, mixed world: two policies that both deny must never allow on the way from one to the other.

Shown first to fail on a naive build, a plain pycasbin enforcer changed in place; then to hold for ours, asked at every step.
"""

import random
from collections.abc import Callable, Iterator

import casbin
import pytest

from pdp.decide import decide
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from pdp.replica import Prepared, Replica
from pdp.world import empty_world
from tests.support.worlds import START_MS, TENANT, Scribe, verifier

READ = "role:reader, dataset.read, dataset/finance, *, , , allow"
MEMBER = "user:ada@x, role:reader, *"
COMMON = (
    "p, role:other, dataset.read, dataset/finance, *, , , allow\np2, segment:none, *, segment:data, , allow\n"
    "g3, dataset/finance, segment:data\n"
)
ONLY_GRANT, ONLY_MEMBER = f"p, {READ}\n", f"g, {MEMBER}\n"
"""The first grants to a role that nobody has, the second puts Ada into it and grants nothing: both deny."""
NAIVE = """
[request_definition]
r = sub, act, obj
[policy_definition]
p = sub, act, obj
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = g(r.sub, p.sub) && r.act == p.act && r.obj == p.obj
"""
CHANGES = 40


def mixed(steps: Iterator[None], allowed: Callable[[], bool]) -> int:
    """Ask at every step of a change; returns how often a request was allowed that every policy denies."""
    return sum(allowed() for _ in steps)


def naive(order: random.Random) -> int:
    model = casbin.Model()
    model.load_model_from_text(NAIVE)
    enforcer = casbin.Enforcer(model)

    def become(*, grant: bool) -> Iterator[None]:
        steps = [
            lambda: (
                enforcer.add_policy("role:reader", "read", "finance")
                if grant
                else enforcer.remove_policy("role:reader", "read", "finance")
            ),
            lambda: (
                enforcer.remove_grouping_policy("ada", "role:reader")
                if grant
                else enforcer.add_grouping_policy("ada", "role:reader")
            ),
        ]
        order.shuffle(steps)
        for step in steps:
            step()
            yield

    return sum(
        mixed(become(grant=turn % 2 == 0), lambda: enforcer.enforce("ada", "read", "finance"))
        for turn in range(CHANGES)
    )


def ours() -> int:
    scribe = Scribe()
    scribe.policy(COMMON + ONLY_GRANT)
    scribe.assets(**{"dataset/finance": {"environment": "dev"}})
    for turn in range(CHANGES):
        scribe.policy(COMMON + (ONLY_MEMBER if turn % 2 == 0 else ONLY_GRANT))
    replica = Replica(verifier=verifier(), world=empty_world(TENANT))
    question = Question(
        subject=Party(principal=Principal.parse("user:ada@x")),
        action=Action.parse("dataset.read"),
        resource=Resource.parse("dataset/finance"),
    )

    def follow() -> Iterator[None]:
        for entry in scribe.entries:
            prepared = replica.prepare(entry, now_ms=START_MS)
            assert isinstance(prepared, Prepared), prepared
            yield
            replica.commit(prepared)
            yield

    return mixed(follow(), lambda: decide(replica.world, question, START_MS).allowed)


def test_the_naive_build_lets_the_new_enemy_in() -> None:
    assert naive(random.Random(7)) > 0  # noqa: S311 - an order, not a secret


@pytest.mark.holds("P4", "P5")
def test_ours_never_allows_what_every_policy_denies() -> None:
    assert ours() == 0
