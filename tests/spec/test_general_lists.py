"""Lists and comparisons of any model against `evaluate`, exhaustively on small worlds: exact, or refused with a reason."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.engine.classes import NameClass, check_enumerable, compared_names, plain_names, uses_of
from pdp.engine.compiler import Snapshot
from pdp.engine.diff import Change, diff
from pdp.engine.evaluate import evaluate
from pdp.engine.functions import FUNCTIONS
from pdp.engine.name_uses import FieldUses
from pdp.engine.patterns import is_canonical, parse_address, parse_time
from pdp.engine.possible import possible
from pdp.engine.search import search
from pdp.errors import BadRequestError
from pdp.model.decision import Effect
from pdp.model.listed import Access
from tests.spec import corpus
from tests.spec.generators.models import (
    ACTIONS,
    NAMES,
    ROLES,
    SUBJECTS,
    TIMES,
    CasbinWorld,
    Kind,
    casbin_worlds,
    further_worlds,
)
from tests.spec.laws import asked, compiled
from tests.spec.profiles import DEEP, tries

UNIVERSE = {
    "sub": (
        *SUBJECTS,
        *ROLES,
        "nobody",
        "set",
        "u",
        "user",
        "rob",
        "10.0.0.1",
        "10.1.2.3",
        "::1",
        "/a",
        "/a/b",
        "/a/z",
    ),
    "dom": ("d1", "d2", "d3", "d*", "x", "e"),
    "obj": (*NAMES, "set", "/other", "/a/z", "/a/.z", "/b/b/b/b", "/a/\n", "u1", "r2", "zoe", "/a/../b"),
    "act": (*ACTIONS, "reads", "re", "x"),
}
TESTS: Mapping[str, Callable[[str, str], object]] = {**FUNCTIONS, "<": lambda name, text: name < text}
WORLDS = st.one_of(casbin_worlds().filter(lambda world: world.kind is Kind.NAMES), further_worlds())
QUESTIONS = 2_000 if DEEP else 100
INSTANTS = (0, *sorted({parse_time(text) + step for text in TIMES[1:] for step in (0, 1)}))


def fields(world: CasbinWorld) -> tuple[str, ...]:
    return world.model.contexts[""].request


def linked(snapshots: Iterable[Snapshot], name: str) -> tuple[str, ...]:
    """Return the fields that are compared with `name` and itself, in their order: two at most in these worlds."""
    beside = {other for snapshot in snapshots for uses in uses_of((snapshot,), "", name) for other in uses.beside}
    return tuple(each for each in UNIVERSE if each in {name, *beside})


def classes(snapshots: tuple[Snapshot, ...], name: str) -> tuple[NameClass, ...]:
    """Return the classes of a field, or raise the refusal."""
    for snapshot in snapshots:
        check_enumerable(snapshot, "", name)
    fields = linked(snapshots, name)
    uses = [each for field in fields for each in uses_of(snapshots, "", field)]
    if len(fields) == 1:
        return plain_names(uses, f"`r.{name}`")
    return compared_names(uses, f"`r.{name}`", fields[0])[fields.index(name)]


class Namer:
    """Finds the class of each name: the one whose member meets the same patterns."""

    def __init__(self, snapshots: tuple[Snapshot, ...], names: tuple[str, ...]) -> None:
        self._snapshots = snapshots
        self._names = names
        self._classes = {name: classes(snapshots, name) for name in names}
        self._uses = {
            name: [each for field in linked(snapshots, name) for each in uses_of(snapshots, "", field)]
            for name in names
        }
        self._read = {
            name: any(each.kinds or each.is_domain for each in uses_of(snapshots, "", name)) for name in names
        }
        self.one = cache(self._one)

    def labels(self, values: tuple[str, ...]) -> tuple[str, ...] | None:
        """Return the labels of a cell of a comparison; None if one of the values cannot be asked with."""
        found: list[str] = []
        for name, value in zip(self._names, values, strict=True):
            label = self.label(name, value, dict(zip(self._names, values, strict=True)))
            if label is None:
                return None
            found.append(label)
        return tuple(found)

    def label(self, name: str, value: str, values: Mapping[str, str]) -> str | None:
        if not self._read[name]:
            return "*"
        one = self.one(name, value)
        first, *_ = linked(self._snapshots, name)
        same = one is not None and not one.named and first != name and values[first] == value
        return None if one is None else f"{one.label}, as `{first}`" if same else one.label

    def _one(self, name: str, value: str) -> NameClass | None:
        by_label = {one.label: one for one in self._classes[name] if one.named}
        if value in by_label:
            return by_label[value]
        met = self._met(name, value)
        return next((one for one in self._classes[name] if not one.named and self._met(name, one.member) == met), None)

    def _met(self, name: str, value: str) -> tuple[object, ...]:
        uses: list[FieldUses] = self._uses[name]
        patterns = sorted({pattern for each in uses for pattern in each.patterns})
        paths = {each.is_path for each in uses}
        return (
            tuple(bool(TESTS[kind](value, text)) for kind, text in patterns),
            True in paths and is_canonical(value),
            any(kind == "ipMatch" for kind, _ in patterns) and parse_address(value) is not None,
        )


def questions(world: CasbinWorld) -> Iterator[tuple[Any, ...]]:
    """Yield questions of the universe: all, or as many as a run has time for."""
    every = list(product(*(UNIVERSE[name] for name in fields(world))))
    yield from every if len(every) <= QUESTIONS else world.rng("questions").sample(every, QUESTIONS)


def allowed(snapshot: Snapshot, values: tuple[Any, ...], now_ms: int = 0) -> bool:
    return evaluate(snapshot, asked(values), now_ms).effect is Effect.ALLOW


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
@given(world=WORLDS)
def test_every_name_is_answered_as_its_class(world: CasbinWorld) -> None:
    snapshot = compiled(world)
    with corpus.kept(world, "classes"):
        for position, name in enumerate(fields(world)):
            try:
                namer = Namer((snapshot,), (name,))
            except BadRequestError as error:
                refused(error, name)
                continue
            if len(linked((snapshot,), name)) > 1:
                continue  # such a class is one of both fields: the comparison below has them
            for values in questions(world):
                one = namer.one(name, values[position])
                assert one or not is_canonical(values[position])
                if one:
                    other = (*values[:position], one.member, *values[position + 1 :])
                    assert allowed(snapshot, values) is allowed(snapshot, other), (values, other)


def refused(error: BadRequestError, name: str) -> None:
    """What is refused is one of these, and said."""
    assert f"`r.{name}`" in error.message
    assert any(
        why in error.message
        for why in (
            "the same text in two places",
            "which is no text",
            "so does another pattern",
            "beside another field",
        )
    ), error.message


@tries(40)
@given(world=WORLDS)
def test_a_comparison_finds_every_answer_that_changes_and_no_other(world: CasbinWorld) -> None:
    rng = world.rng("diff")
    first, *_ = (row for row in world.rows if row.section == "p")
    kept = rng.choice((2 / 3, 9 / 10))
    sides = [tuple(row for row in world.rows if row is first or rng.random() < kept) for _ in range(2)]
    before, after = (compiled(world, rows) for rows in sides)
    with corpus.kept(world, "diff"):
        try:
            namer = Namer((before, after), fields(world))
        except BadRequestError:
            with pytest.raises(BadRequestError, match="cannot be enumerated"):
                diff(before, after, 0)
            return
        instants = INSTANTS if "1970" in world.csv else INSTANTS[:1]
        found = diff(before, after, 0)
        cells = {cell.values: cell for cell in found}
        assert len(cells) == len(found)
        for values in questions(world):
            label = namer.labels(values)
            if label is None:
                continue
            changes = [
                now_ms for now_ms in instants if outcome(before, values, now_ms) != outcome(after, values, now_ms)
            ]
            assert bool(changes) is (label in cells), (values, label, changes)
            if changes:
                assert cells[label].from_ms == changes[0], (values, label)
                told(cells[label].change, allowed(before, values, changes[0]), allowed(after, values, changes[0]))


def outcome(snapshot: Snapshot, values: tuple[Any, ...], now_ms: int) -> tuple[object, ...]:
    found = evaluate(snapshot, asked(values), now_ms)
    return found.effect, found.reason, found.obligations


def told(change: Change, was: bool, is_: bool) -> None:  # noqa: FBT001 - what was allowed, and what is
    assert (change is Change.GAINS) is (is_ and not was)
    assert (change is Change.LOSES) is (was and not is_)


@tries(20)
@given(world=st.one_of(casbin_worlds(), further_worlds()))
def test_a_policy_does_not_differ_from_itself_nor_a_refusal_pass_in_silence(world: CasbinWorld) -> None:
    snapshot = compiled(world)
    if any(uses_of((snapshot,), "", name)[0].untold for name in fields(world)):
        with pytest.raises(BadRequestError, match="cannot be enumerated"):
            diff(snapshot, snapshot, 0)
        return
    try:
        for name in fields(world):
            classes((snapshot,), name)
    except BadRequestError:
        return
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
