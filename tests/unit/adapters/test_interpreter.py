"""What a server's process asks of its interpreter, and what a world must be for it."""

import gc
from collections.abc import Iterator

import pytest

from pdp.adapters.interpreter import set_aside
from pdp.decide import decide
from pdp.engine.compiler import Snapshot
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from tests.support.worlds import START_MS, Scribe

ASKED = Question(
    subject=Party(principal=Principal.parse("user:sam@x")),
    action=Action.parse("dataset.read"),
    resource=Resource.parse("dataset/a"),
    attributes={"request.n": 4},
)


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.unfreeze()
    gc.enable()


def snapshots() -> int:
    return sum(type(item) is Snapshot for item in gc.get_objects())


def served() -> None:
    """Hold two worlds, one after the other, and decide in each; then hold none."""
    scribe = Scribe()
    row = "p, role:app, dataset.read, dataset/**, prod, request.n > 3, recheck_after=10s, allow\n"
    scribe.policy(f"g, user:sam@x, role:app, prod\np2, segment:none, dataset.read, segment:none, , allow\n{row}")
    scribe.assets(**{"dataset/a": {"environment": "prod"}})
    assert all(decide(scribe.world, ASKED, START_MS).allowed for _ in range(2))
    scribe.policy("g, user:sam@x, role:app, prod\n" + row)
    assert not decide(scribe.world, ASKED, START_MS, clock_off=True).allowed


def test_a_world_that_was_set_aside_is_still_freed() -> None:
    """The collector passes over it, so that nothing in it may lead back to itself: else every world would stay for ever."""
    held = snapshots()
    served()
    assert snapshots() == held


def test_the_collector_passes_over_what_was_set_aside() -> None:
    kept = [[] for _ in range(10)]
    set_aside()
    assert not any(item is kept for item in gc.get_objects())
    assert gc.get_freeze_count() > len(kept)
