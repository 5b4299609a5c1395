"""The engine against its executable specification, and the laws that need no oracle."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.engine import reference
from pdp.engine.casbin_text import Row, parse_rows, print_row
from pdp.engine.compiler import Snapshot, compile_policy
from pdp.engine.evaluate import EngineRequest, Outcome, evaluate
from pdp.engine.explain import nearest_miss
from pdp.errors import Reason
from pdp.model.decision import Effect
from tests.spec import corpus
from tests.spec.generators.worlds import MODELS, NOW_MS, VOCABULARY, GeneratedWorld, grant_rows, numbered, worlds
from tests.spec.profiles import tries

THOROUGH = tries(200)
QUICK = tries(50)


def compiled(world: GeneratedWorld, rows: tuple[Row, ...] | None = None) -> Snapshot:
    snapshot = compile_policy(world.model, VOCABULARY, world.rows if rows is None else rows)
    assert isinstance(snapshot, Snapshot), [str(found) for found in snapshot]
    return snapshot


def answer(snapshot: Snapshot, question: EngineRequest) -> Outcome:
    return evaluate(snapshot, question, NOW_MS)


@pytest.mark.holds("P1", "adv_engine_paths_differ")
@THOROUGH
@given(world=worlds())
def test_the_engine_answers_as_the_reference_does(world: GeneratedWorld) -> None:
    with corpus.kept(world, "as_the_reference_in_our_own_model"):
        as_the_reference(world)


def as_the_reference(world: GeneratedWorld) -> None:
    snapshot = compiled(world)
    for question in world.questions:
        outcome = answer(snapshot, question)
        expected = reference.evaluate(world.model, VOCABULARY, world.rows, question, NOW_MS)
        assert (outcome.effect, outcome.reason) == expected, (question, [print_row(row) for row in world.rows])


@pytest.mark.parametrize(
    "world", [pytest.param(world, id=stem) for stem, world in corpus.worlds(GeneratedWorld).items()]
)
def test_worlds_that_once_failed_do_not_fail_again(world: GeneratedWorld) -> None:
    as_the_reference(world)


@given(world=worlds())
@tries(5)
def test_a_world_is_written_to_the_corpus_and_read_as_it_was(world: GeneratedWorld) -> None:
    again = corpus.from_json(json.loads(json.dumps(corpus.to_json(world))))
    assert (again.rows, again.questions) == (world.rows, world.questions)
    assert again.model.contexts[""].matcher == world.model.contexts[""].matcher


@QUICK
@given(world=worlds(), extra=grant_rows())
def test_adding_a_deny_row_never_adds_an_allow(world: GeneratedWorld, extra: tuple[str, tuple[str, ...]]) -> None:
    section, fields = extra
    denying = Row(section, (*fields[:-2], "", "deny"), "more.csv", 1)
    before, after = compiled(world), compiled(world, (*world.rows, denying))
    for question in world.questions:
        assert answer(after, question).effect <= answer(before, question).effect


@QUICK
@given(world=worlds(), data=st.data())
def test_removing_an_allow_row_never_adds_an_allow(world: GeneratedWorld, data: st.DataObject) -> None:
    allowing = [row for row in world.rows[1:] if row.section[0] == "p" and row.fields[-1] == "allow"]
    if not allowing:
        return
    gone = data.draw(st.sampled_from(allowing))
    before, after = compiled(world), compiled(world, tuple(row for row in world.rows if row is not gone))
    for question in world.questions:
        assert answer(after, question).effect <= answer(before, question).effect


@QUICK
@given(world=worlds(), data=st.data())
def test_the_order_of_rows_and_repeated_rows_change_nothing(world: GeneratedWorld, data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(world.rows))
    repeated = data.draw(st.sampled_from(world.rows))
    before = compiled(world)
    other = compiled(world, tuple(shuffled))
    twice = compiled(world, (*world.rows, Row(repeated.section, repeated.fields, "twice.csv", 1)))
    assert before.digest == other.digest
    for question in world.questions:
        outcome = answer(before, question)
        assert answer(other, question) == outcome
        again = answer(twice, question)
        assert (again.effect, again.reason, again.obligations) == (outcome.effect, outcome.reason, outcome.obligations)


@QUICK
@given(world=worlds())
def test_an_answer_names_rows_that_determined_it_and_a_path_that_holds(world: GeneratedWorld) -> None:
    snapshot = compiled(world)
    by_id = {row.id: row for row in world.rows}
    for question in world.questions:
        outcome = answer(snapshot, question)
        wanted = {Reason.GRANTED: "allow", Reason.DENIED_BY_RULE: "deny"}.get(outcome.reason)
        effects = {by_id[name].fields[-1] for name in outcome.determining}
        assert bool(outcome.determining) is (outcome.reason is not Reason.NO_GRANT)
        assert wanted is None or effects == {wanted}
        if outcome.role_path:
            assert outcome.role_path[-1] in by_id[outcome.determining[0]].fields


@QUICK
@given(world=worlds())
def test_a_nearest_miss_never_calls_a_deny_an_allow(world: GeneratedWorld) -> None:
    snapshot = compiled(world)
    for question in world.questions:
        miss = nearest_miss(snapshot, question, NOW_MS)
        if answer(snapshot, question).reason is Reason.DENIED_BY_RULE:
            assert miss is not None
            assert miss.failed == "deny"


@QUICK
@given(world=worlds())
def test_between_now_and_valid_until_nothing_changes_but_conditions(world: GeneratedWorld) -> None:
    snapshot = compiled(world)
    for question in world.questions:
        outcome = answer(snapshot, question)
        if outcome.valid_until_ms is None or outcome.reads_now:
            continue
        assert outcome.valid_until_ms > NOW_MS
        later = evaluate(snapshot, question, outcome.valid_until_ms - 1)
        assert (later.effect, later.determining) == (outcome.effect, outcome.determining)


@QUICK
@given(world=worlds())
def test_printing_and_reading_rows_gives_the_same_rows(world: GeneratedWorld) -> None:
    text = "\n".join(print_row(row) for row in world.rows)
    rows, found = parse_rows(text, file="rows.csv", model=world.model)
    assert not found
    assert [row.fields for row in rows] == [
        row.fields[:3] if row.section == "g" and row.fields[3:] == ("_", "_") else row.fields for row in world.rows
    ]


@pytest.mark.holds("P2")
def test_an_empty_question_is_denied_and_never_raises() -> None:
    model, rows = MODELS[0], numbered([("p", ("role:r1", "*", "dataset/**", "*", "", "", "allow"))])
    snapshot = compile_policy(model, VOCABULARY, rows)
    assert isinstance(snapshot, Snapshot)
    for values in (
        (),
        ("",) * 4,
        ("user:u1", "", "", ""),
        ("user:u1",) * 4,
        ("user:u1", "dataset.read", "dataset", "dev"),
    ):
        for context in ("", "2", "7"):
            question = EngineRequest(context=context, values=values, memberships={}, attributes={})
            assert evaluate(snapshot, question, 0).effect is Effect.DENY
