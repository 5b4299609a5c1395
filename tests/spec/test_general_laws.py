"""Any model: the engine against the reference, against pycasbin where both mean the same, and laws that need no oracle."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import casbin
import pytest
from casbin.persist.adapters.string_adapter import StringAdapter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdp.engine import reference
from pdp.engine.casbin_text import EffectRule, Row, parse_rows
from pdp.engine.compiler import Snapshot, compile_policy
from pdp.engine.evaluate import evaluate
from pdp.engine.question import EngineRequest
from pdp.errors import Reason
from pdp.model.decision import Effect
from tests.spec.generators.models import NO_WORDS, CasbinWorld, casbin_worlds, world

CORPUS = Path(__file__).parent / "corpus"
DEEP_CASES = 100_000
QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def compiled(world: CasbinWorld, rows: tuple[Row, ...] | None = None) -> Snapshot:
    snapshot = compile_policy(world.model, NO_WORDS, world.rows if rows is None else rows)
    assert isinstance(snapshot, Snapshot), (world.text, world.csv, [str(found) for found in snapshot])
    return snapshot


def agrees_with_the_reference(world: CasbinWorld) -> None:
    snapshot = compiled(world)
    for question in world.questions:
        outcome = evaluate(snapshot, question, world.now_ms)
        expected = reference.evaluate(world.model, NO_WORDS, world.rows, question, world.now_ms)
        assert (outcome.effect, outcome.reason) == expected, (world.text, world.csv, question.values, outcome)


def agrees_with_pycasbin(world: CasbinWorld) -> int:
    """Compare every answer that no entry of CASBIN.md makes another; return how many were."""
    snapshot = compiled(world)
    enforcer = casbin.Enforcer(casbin.Enforcer.new_model(text=world.text), StringAdapter(world.csv.replace('"', "")))
    count = 0
    for question in world.questions:
        outcome = evaluate(snapshot, question, world.now_ms)
        exact = all(type(value) is str and value for value in question.values)
        if not exact or outcome.reason in {Reason.CONDITION_ERROR, Reason.SUBJECT_IS_ROLE, Reason.BAD_NAME}:
            continue
        theirs = enforcer.enforce(*question.values)
        assert theirs is (outcome.effect is Effect.ALLOW), (world.text, world.csv, question.values, outcome)
        count += 1
    return count


@pytest.mark.holds("P1", "adv_engine_paths_differ")
@QUICK
@given(world=casbin_worlds())
def test_the_engine_answers_as_the_reference_does(world: CasbinWorld) -> None:
    agrees_with_the_reference(world)


@QUICK
@given(world=casbin_worlds().filter(lambda world: "eval" not in world.text and world.safe))
def test_the_engine_answers_as_pycasbin_does_where_both_mean_the_same(world: CasbinWorld) -> None:
    agrees_with_pycasbin(world)


@QUICK
@given(world=casbin_worlds(), data=st.data())
def test_order_and_repetition_change_nothing_unless_the_effect_is_a_priority(
    world: CasbinWorld, data: st.DataObject
) -> None:
    repeated = data.draw(st.sampled_from(world.rows))
    if world.model.contexts[""].effect.ordered:
        return
    before, after = (
        compiled(world),
        compiled(world, (*data.draw(st.permutations(world.rows)), replace(repeated, line=999))),
    )
    for question in world.questions:
        one, other = (evaluate(snapshot, question, 0) for snapshot in (before, after))
        assert (one.effect, one.reason) == (other.effect, other.reason)


@pytest.mark.holds("P1", "adv_exemptions")
@QUICK
@given(world=casbin_worlds(), data=st.data())
def test_more_denies_and_fewer_allows_never_allow_more(world: CasbinWorld, data: st.DataObject) -> None:
    if world.model.contexts[""].effect is EffectRule.DENY_OVERRIDE:
        return
    policies = [row for row in world.rows if row.section == "p"]
    row = data.draw(st.sampled_from(policies))
    denied = replace(row, fields=(*row.fields[:-1], "deny"), line=999)
    fewer = tuple(other for other in world.rows if other is not row)
    before = compiled(world)
    changed = [compiled(world, (*world.rows, denied))]
    if row.fields[-1] == "allow" and len(policies) > 1:
        changed.append(compiled(world, fewer))
    for after in changed:
        for question in world.questions:
            assert evaluate(after, question, 0).effect <= evaluate(before, question, 0).effect


@QUICK
@given(world=casbin_worlds().filter(lambda world: "eval" not in world.text and '"' not in world.text))
def test_new_names_for_subjects_and_roles_give_the_same_answers(world: CasbinWorld) -> None:
    names = {name: f"x-{name}" for name in ("u1", "u2", "u3", "root", "nobody", "r1", "r2", "r3", "r4")}

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: renamed(item) for key, item in value.items()}
        return names.get(value, value) if isinstance(value, str) else value

    other = compiled(world, tuple(replace(row, fields=tuple(map(renamed, row.fields))) for row in world.rows))
    for question in world.questions:
        asked = question._replace(values=tuple(map(renamed, question.values)))
        assert evaluate(other, asked, 0).reason is evaluate(compiled(world), question, 0).reason


@QUICK
@given(world=casbin_worlds())
def test_printing_and_reading_rows_gives_the_same_rows(world: CasbinWorld) -> None:
    rows, found = parse_rows(world.csv, file="policy.csv", model=world.model)
    assert not found
    assert [row.fields for row in rows] == [row.fields for row in world.rows]


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.json")), ids=lambda path: path.stem)
def test_worlds_that_once_failed_do_not_fail_again(path: Path) -> None:
    for seed in json.loads(path.read_text(encoding="utf-8"))["seeds"]:
        agrees_with_the_reference(world(Random(seed)))  # noqa: S311 - worlds, not keys


@pytest.mark.nightly
@pytest.mark.timeout(7_200)
def test_a_hundred_thousand_worlds_are_answered_as_the_reference_and_pycasbin_do() -> None:
    """A seed that fails is written to the corpus, which every run replays."""
    compared = 0
    for seed in range(DEEP_CASES):
        case = world(Random(seed))  # noqa: S311 - worlds, not keys
        try:
            agrees_with_the_reference(case)
            if case.safe and "eval" not in case.text:
                compared += agrees_with_pycasbin(case)
        except AssertionError:
            failed = CORPUS / f"seed-{seed}.json"
            failed.write_text(json.dumps({"seeds": [seed], "why": "deep profile"}) + "\n", encoding="utf-8")
            raise
    assert compared > DEEP_CASES


def test_a_question_of_the_wrong_length_or_set_is_denied() -> None:
    snapshot = compiled(world(Random(1)))  # noqa: S311 - worlds, not keys
    for context, values in (("", ()), ("", ("a",)), ("7", ("a", "b", "c"))):
        question = EngineRequest(context=context, values=values, memberships={}, attributes={})
        assert evaluate(snapshot, question, 0).effect is Effect.DENY
