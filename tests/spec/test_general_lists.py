"""Lists and comparisons of any model against `evaluate`, exhaustively on small worlds: exact, or refused with a reason."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from hypothesis import given

from pdp.engine.classes import NameClass, check_enumerable, plain_names, uses_of
from pdp.engine.compiler import Snapshot
from pdp.engine.diff import Change, diff
from pdp.engine.evaluate import evaluate
from pdp.engine.possible import possible
from pdp.engine.search import search
from pdp.errors import BadRequestError
from pdp.model.decision import Effect
from pdp.model.listed import Access
from tests.spec import corpus
from tests.spec.generators.models import ACTIONS, NAMES, ROLES, SUBJECTS, CasbinWorld, Kind, casbin_worlds
from tests.spec.laws import asked, compiled
from tests.spec.profiles import tries

UNIVERSE = {
    "sub": (*SUBJECTS, *ROLES, "nobody", "set"),
    "dom": ("d1", "d2", "d3"),
    "obj": (*NAMES, "set", "/other"),
    "act": (*ACTIONS, "reads"),
}


def fields(world: CasbinWorld) -> tuple[str, ...]:
    return world.model.contexts[""].request


def classes(snapshot: Snapshot, name: str) -> tuple[NameClass, ...] | None:
    """Return the classes of a field, or None if there are none: then the refusal names the field."""
    if uses_of((snapshot,), "", name)[0].obstacle:
        with pytest.raises(BadRequestError, match=rf"`r\.{name}` cannot be enumerated under `m`: ."):
            check_enumerable(snapshot, "", name)
        return None
    check_enumerable(snapshot, "", name)
    return plain_names(uses_of((snapshot,), "", name))


def questions(world: CasbinWorld) -> Iterator[tuple[Any, ...]]:
    return product(*(UNIVERSE[name] for name in fields(world)))


def allowed(snapshot: Snapshot, values: tuple[Any, ...]) -> bool:
    return evaluate(snapshot, asked(values), 0).effect is Effect.ALLOW


@tries(60)
@given(world=casbin_worlds())
def test_a_list_over_names_that_are_given_is_complete_under_any_matcher(world: CasbinWorld) -> None:
    snapshot = compiled(world)
    with corpus.kept(world, "list_over_names"):
        for question in world.questions:
            for position, name in enumerate(fields(world)):
                names = [NameClass(label=each, member=each, named=True) for each in UNIVERSE[name]]
                found = search(snapshot, question, name, names, open_=lambda _: True, now_ms=0)
                listed = {each.name.member: each.possible.access for each in found}
                values = [
                    (*question.values[:position], one, *question.values[position + 1 :]) for one in UNIVERSE[name]
                ]
                assert listed == {each[position]: Access.ALLOW for each in values if allowed(snapshot, each)}


@tries(40)
@given(world=casbin_worlds().filter(lambda world: world.kind is Kind.NAMES))
def test_every_name_is_answered_as_its_class(world: CasbinWorld) -> None:
    snapshot = compiled(world)
    with corpus.kept(world, "classes"):
        for position, name in enumerate(fields(world)):
            found = classes(snapshot, name)
            if found is None:
                continue
            named = {each.label: each.member for each in found if each.named}
            (others,) = (each.member for each in found if not each.named)
            for values in questions(world):
                stands = named.get(values[position], others)
                other = (*values[:position], stands, *values[position + 1 :])
                assert allowed(snapshot, values) is allowed(snapshot, other), (values, other)


@tries(40)
@given(world=casbin_worlds().filter(lambda world: world.kind is Kind.NAMES))
def test_a_comparison_finds_every_answer_that_changes_and_no_other(world: CasbinWorld) -> None:
    rng = world.rng("diff")
    first, *_ = (row for row in world.rows if row.section == "p")
    sides = [tuple(row for row in world.rows if row is first or rng.random() < 2 / 3) for _ in range(2)]
    before, after = (compiled(world, rows) for rows in sides)
    with corpus.kept(world, "diff"):
        if any(classes(snapshot, name) is None for snapshot in (before, after) for name in fields(world)):
            with pytest.raises(BadRequestError, match="cannot be enumerated"):
                diff(before, after, 0)
            return
        labels = {cell.values: cell for cell in diff(before, after, 0)}
        spread = [tuple(plain_names(uses_of((before, after), "", name))) for name in fields(world)]
        unread = [
            not any(each.kinds or each.is_domain for each in uses_of((before, after), "", name))
            for name in fields(world)
        ]
        for values in questions(world):
            label = tuple(
                "*" if skipped else value if any(each.label == value for each in names) else "any other"
                for value, names, skipped in zip(values, spread, unread, strict=True)
            )
            one, other = (evaluate(snapshot, asked(values), 0) for snapshot in (before, after))
            changed = (one.effect, one.reason, one.obligations) != (other.effect, other.reason, other.obligations)
            assert changed is (label in labels), (values, label, one, other)
            if one.effect is not other.effect:
                assert labels[label].change is (Change.GAINS if other.effect is Effect.ALLOW else Change.LOSES)


@tries(20)
@given(world=casbin_worlds())
def test_a_policy_does_not_differ_from_itself_nor_a_refusal_pass_in_silence(world: CasbinWorld) -> None:
    snapshot = compiled(world)
    refused = [name for name in fields(world) if classes(snapshot, name) is None]
    if refused:
        with pytest.raises(BadRequestError, match="cannot be enumerated"):
            diff(snapshot, snapshot, 0)
    else:
        assert diff(snapshot, snapshot, 0) == ()


@tries(60)
@given(world=casbin_worlds())
def test_what_is_possible_is_what_is_answered(world: CasbinWorld) -> None:
    snapshot = compiled(world)
    with corpus.kept(world, "possible"):
        for question in world.questions:
            found, outcome = possible(snapshot, question, lambda _: True, 0), evaluate(snapshot, question, 0)
            assert (found.access is Access.ALLOW) is (outcome.effect is Effect.ALLOW)
            assert found.access is not Access.CONDITIONAL
            if found.access is Access.ALLOW:
                assert (found.rules, found.role_path) == (outcome.determining, outcome.role_path)
