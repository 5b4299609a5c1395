"""The diff against `evaluate`: nothing it leaves out changes, and everything it reports does."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.engine.casbin_text import Row
from pdp.engine.classes import EVERYONE
from pdp.engine.compiler import Snapshot, compile_policy
from pdp.engine.diff import Cell, Change, diff
from pdp.engine.evaluate import EngineRequest, Outcome, evaluate
from pdp.engine.functions import member_match
from pdp.model.decision import Effect
from tests.spec.generators.questions import ask_about
from tests.spec.generators.worlds import (
    NOW_MS,
    VOCABULARY,
    GeneratedWorld,
    grant_rows,
    member_rows,
    role_rows,
    segmentation_rows,
    worlds,
)
from tests.spec.profiles import tries
from tests.spec.test_reference import compiled

QUICK = tries(25)

ROWS = st.one_of(grant_rows(), segmentation_rows(), role_rows(), member_rows())


@st.composite
def pairs(draw: st.DrawFn) -> tuple[GeneratedWorld, Snapshot, Snapshot]:
    """Draw a world, and what it becomes when some rows go and some come."""
    world = draw(worlds())
    gone = draw(st.sets(st.integers(1, len(world.rows) - 1), max_size=3))
    come = [
        Row(section, fields, "new.csv", line)
        for line, (section, fields) in enumerate(draw(st.lists(ROWS, max_size=3)), start=1)
    ]
    rows = (*(row for at, row in enumerate(world.rows) if at not in gone), *come)
    after = compile_policy(world.model, VOCABULARY, rows)
    assert isinstance(after, Snapshot)
    return replace(world, rows=(*world.rows, *come)), compiled(replace(world)), after


def answer(snapshot: Snapshot, request: EngineRequest) -> tuple[object, ...]:
    outcome: Outcome = evaluate(snapshot, request, NOW_MS)
    return outcome.effect, outcome.reason, outcome.obligations


@QUICK
@given(world=worlds())
def test_a_policy_does_not_differ_from_itself(world: GeneratedWorld) -> None:
    renamed = tuple(Row(row.section, row.fields, "other.csv", 100 - row.line) for row in world.rows)
    assert diff(compiled(world), compiled(world, renamed), NOW_MS) == ()


@QUICK
@given(pair=pairs(), seed=st.randoms(use_true_random=False))
def test_a_question_whose_answer_changes_is_in_a_cell(
    pair: tuple[GeneratedWorld, Snapshot, Snapshot], seed: object
) -> None:
    world, before, after = pair
    cells = diff(before, after, NOW_MS)
    for question in (*world.questions, *(ask_about(world.rows, seed) for _ in range(12))):  # type: ignore[arg-type]
        # A question with groups is answered from several classes at once.
        further = dict.fromkeys(question.memberships, ())
        single = EngineRequest(
            context=question.context, values=question.values, memberships=further, attributes=question.attributes
        )
        if sensible(single) and answer(before, single) != answer(after, single):
            assert any(covers(cell, single) for cell in cells), (single, cells)


def sensible(request: EngineRequest) -> bool:
    """Tell whether anybody can ask this: as a principal, a group or a segment, of a resource that the action is about.

    A membership row may put a resource into a segment, and a walk down the links then asks as that resource, which no
    principal is ever called.
    """
    who, action, what = request.values[:3]
    return ":" in who.partition("/")[0] and action.partition(".")[0] == what.partition("/")[0]


def test_nobody_asks_as_a_resource() -> None:
    asked = EngineRequest(
        context="2", values=("dataset/a@2", "dataset.read", "dataset/b"), memberships={}, attributes={}
    )
    assert not sensible(asked)
    assert sensible(asked._replace(values=("workload:spiffe://d/a/b", *asked.values[1:])))


def covers(cell: Cell, request: EngineRequest) -> bool:
    """Tell whether a question falls into the classes of a cell."""
    if cell.context != request.context or cell.from_ms:
        return False
    return all(
        label in (value, EVERYONE)
        or any(member_match(value, part) for part in label.split(" & "))
        or label == f"{value.partition('/')[0]}/**"
        for label, value in zip(cell.values, request.values, strict=True)
    )


@QUICK
@given(pair=pairs())
def test_each_change_changes_with_its_witness(pair: tuple[GeneratedWorld, Snapshot, Snapshot]) -> None:
    _, before, after = pair
    for cell in diff(before, after, NOW_MS):
        if cell.change is Change.REWRITTEN or any(sign in label for label in cell.values for sign in "*&"):
            continue
        request = EngineRequest(context=cell.context, values=cell.values, memberships={}, attributes=cell.witness)
        now_ms = cell.from_ms or NOW_MS
        one, other = (evaluate(snapshot, request, now_ms) for snapshot in (before, after))
        assert (one.effect, one.reason, one.obligations) != (other.effect, other.reason, other.obligations)
        if cell.change in {Change.GAINS, Change.LOSES}:
            assert (other.effect is Effect.ALLOW) is (cell.change is Change.GAINS)


@QUICK
@given(pair=pairs())
def test_what_one_way_gains_the_other_loses(pair: tuple[GeneratedWorld, Snapshot, Snapshot]) -> None:
    _, before, after = pair
    # A cell under conditions is told by the worst that shows: where it loses, or is looser obliged, it is told as looser.
    turned = {
        Change.GAINS: {Change.LOSES, Change.LOOSER},
        Change.LOOSER: {Change.GAINS, Change.LOOSER, Change.STRICTER},
        Change.LOSES: {Change.GAINS},
        Change.STRICTER: {Change.LOOSER},
    }
    there, back = diff(before, after, NOW_MS), diff(after, before, NOW_MS)
    assert {(cell.context, cell.values) for cell in there} == {(cell.context, cell.values) for cell in back}
    ways = {(cell.context, cell.values): cell.change for cell in back}
    for cell in there:
        assert ways[cell.context, cell.values] in turned.get(cell.change, {cell.change})


@QUICK
@given(pair=pairs())
def test_looking_only_at_what_changed_rules_can_meet_finds_what_looking_at_all_names_does(
    pair: tuple[GeneratedWorld, Snapshot, Snapshot],
) -> None:
    _, before, after = pair
    narrow = diff(before, after, NOW_MS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pdp.engine.diff.scope", lambda *_: None)
        assert diff(before, after, NOW_MS) == narrow
