"""Lists against `evaluate`, exhaustively on small worlds: what a list says is true, and what it leaves out is denied."""

from collections.abc import Mapping
from itertools import product

import pytest
from hypothesis import given

from pdp.engine.classes import NameClass, environments, objects, subjects, written
from pdp.engine.compiler import Snapshot
from pdp.engine.evaluate import EngineRequest, evaluate
from pdp.engine.functions import member_match
from pdp.engine.possible import possible
from pdp.engine.search import search
from pdp.model.attributes import Value
from pdp.model.decision import Effect
from pdp.model.listed import Access
from tests.spec.generators.questions import OBJECTS, SUBJECTS
from tests.spec.generators.worlds import NOW_MS, VOCABULARY, GeneratedWorld, worlds
from tests.spec.test_reference import QUICK, compiled

OPEN_VALUES: dict[str, tuple[Value | None, ...]] = {
    "request.purpose": (None, "x", "y"),
    "subject.id": (None, "user:u1", "user:u2@x"),
}


def is_open(name: str) -> bool:
    return name in OPEN_VALUES


def completions(known: Mapping[str, Value]) -> list[dict[str, Value]]:
    """Return the attributes of every question that `known` may become."""
    names = [name for name in OPEN_VALUES if name not in known]
    return [
        {**known, **{name: value for name, value in zip(names, values, strict=True) if value is not None}}
        for values in product(*(OPEN_VALUES[name] for name in names))
    ]


def effects(snapshot: Snapshot, request: EngineRequest) -> set[Effect]:
    return {
        evaluate(
            snapshot,
            EngineRequest(
                context=request.context, values=request.values, memberships=request.memberships, attributes=a
            ),
            NOW_MS,
        ).effect
        for a in completions(request.attributes)
    }


def closed(request: EngineRequest) -> EngineRequest:
    known = {name: value for name, value in request.attributes.items() if not is_open(name)}
    return EngineRequest(
        context=request.context, values=request.values, memberships=request.memberships, attributes=known
    )


@QUICK
@given(world=worlds())
def test_what_is_possible_is_what_every_completion_answers(world: GeneratedWorld) -> None:
    snapshot = compiled(world)
    for question in map(closed, world.questions):
        access, answers = possible(snapshot, question, is_open, NOW_MS).access, effects(snapshot, question)
        assert access is not Access.ALLOW or answers == {Effect.ALLOW}
        assert access is not Access.DENY or answers == {Effect.DENY}


@QUICK
@given(world=worlds())
def test_with_nothing_open_what_is_possible_is_the_answer(world: GeneratedWorld) -> None:
    snapshot = compiled(world)
    for question in world.questions:
        found = possible(snapshot, question, lambda _: False, NOW_MS)
        outcome = evaluate(snapshot, question, NOW_MS)
        assert (found.access is Access.ALLOW) is (outcome.effect is Effect.ALLOW)
        assert found.access is not Access.CONDITIONAL
        if found.access is Access.ALLOW:
            assert (found.rules, found.obligations) == (outcome.determining, outcome.obligations)
            assert found.role_path == outcome.role_path


@pytest.mark.holds("adv_list_partial", "adv_engine_paths_differ")
@QUICK
@given(world=worlds())
def test_who_can_lists_every_principal_that_evaluate_allows_and_no_other(world: GeneratedWorld) -> None:
    snapshot = compiled(world)
    names = written((snapshot,), "", "sub")
    classes = subjects(names)
    for question in map(closed, world.questions[:3]):
        if question.context:
            continue
        asked = EngineRequest(context="", values=question.values, memberships={}, attributes=question.attributes)
        listed = {
            found.name: found.possible.access
            for found in search(snapshot, asked, "sub", classes, open_=is_open, now_ms=NOW_MS)
        }
        for name in classes:
            answers = effects(snapshot, with_subject(asked, name))
            assert listed.get(name) is not Access.ALLOW or answers == {Effect.ALLOW}
            assert name in listed or answers == {Effect.DENY}


def with_subject(request: EngineRequest, name: NameClass) -> EngineRequest:
    return EngineRequest(
        context=request.context,
        values=(name.member, *request.values[1:]),
        memberships={"sub": name.memberships},
        attributes=request.attributes,
    )


@QUICK
@given(world=worlds())
def test_a_class_answers_for_each_of_its_names(world: GeneratedWorld) -> None:
    """Principals and resources that nobody names are answered like the member of their class."""
    snapshot = compiled(world)
    names = written((snapshot,), "", "sub")
    everyone = next(one for one in subjects(names) if one.label == "*")
    by_class = ClassOf(snapshot)
    for question in world.questions:
        if question.context:
            continue
        attributes = question.attributes
        for subject in (name for name in SUBJECTS if name not in names and not name.startswith("workload:")):
            assert same(snapshot, question, (subject, *question.values[1:]), (everyone.member, *question.values[1:]))
        for resource in OBJECTS:
            subject, action, _, environment = question.values
            one, other = (subject, action, resource, environment), (subject, action, by_class(resource), environment)
            assert same(snapshot, question, one, other), (resource, by_class(resource), attributes)


def same(snapshot: Snapshot, question: EngineRequest, one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    outcomes = [
        evaluate(
            snapshot,
            EngineRequest(context="", values=values, memberships={}, attributes=question.attributes),
            NOW_MS,
        )
        for values in (one, other)
    ]
    return (outcomes[0].effect, outcomes[0].reason) == (outcomes[1].effect, outcomes[1].reason)


class ClassOf:
    """Finds the member of the class of a resource: the one that the same written names cover."""

    def __init__(self, snapshot: Snapshot) -> None:
        names = written((snapshot,), "", "obj")
        self._covers = lambda member: (
            member.partition("/")[0],
            frozenset(name for name in names if member_match(member, name)),
            member if member in names else "",
        )
        self._members = {self._covers(one.member): one.member for one in objects(names, VOCABULARY.types, exact=True)}

    def __call__(self, resource: str) -> str:
        return self._members[self._covers(resource)]


@pytest.mark.holds("adv_list_partial")
@QUICK
@given(world=worlds())
def test_what_can_and_actions_agree_with_evaluate_on_every_cell(world: GeneratedWorld) -> None:
    snapshot = compiled(world)
    resources = objects(written((snapshot,), "", "obj"), VOCABULARY.types, exact=True)
    verbs = [NameClass(label=action, member=action, named=True) for action in VOCABULARY.actions()]
    question = closed(world.questions[0])
    if question.context:
        return
    subject, _, _, environment = question.values
    for verb in verbs:
        asked = EngineRequest(
            context="",
            values=(subject, verb.member, "", environment),
            memberships=question.memberships,
            attributes=question.attributes,
        )
        listed = {
            one.name: one.possible.access
            for one in search(snapshot, asked, "obj", resources, open_=is_open, now_ms=NOW_MS)
        }
        for name in resources:
            cell = EngineRequest(
                context="",
                values=(subject, verb.member, name.member, environment),
                memberships=question.memberships,
                attributes=question.attributes,
            )
            access = possible(snapshot, cell, is_open, NOW_MS).access
            assert listed.get(name, Access.DENY) is access
            if access is not Access.CONDITIONAL:
                wanted = {Effect.ALLOW} if access is Access.ALLOW else {Effect.DENY}
                assert effects(snapshot, cell) == wanted


@QUICK
@given(world=worlds())
def test_environments_are_all_that_rows_name(world: GeneratedWorld) -> None:
    snapshot = compiled(world)
    found = environments(snapshot.contexts[""], (snapshot,))
    assert {row.fields[2] for row in world.rows if row.section == "g"} - {"*"} <= set(found)
    assert "*" not in found
