"""What a new policy changes: every cell (who, which action, what, where) that two snapshots answer differently.

Theory of operation. Names fall into finitely many classes that the two policies together tell apart (`classes.py`), so a
comparison of their cells is exact and not a sample. Not every cell is looked at: a cell can only change where a row that
was added or removed matches, or a rule is met through a role link that was. These rows are spread over the classes that
they accept, and the cells found so are asked of both snapshots.

The rules that match a cell, without those that cannot matter beside others, are its *state*. Equal states answer equally,
whatever the question brings. Unequal ones without conditions do not. With conditions, values are sought for which the
answers differ (`valuations.py`): a cell with such a *witness* is a change; one without is reported apart, as `rewritten`.

Laws (tests/spec/test_diff.py): without cells the two answer every question alike; with its witness, each change is one.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from itertools import product
from typing import Final

from pdp.engine.cell_state import NOTHING, State, general_state, state_of
from pdp.engine.classes import (
    EVERYONE,
    NameClass,
    check_enumerable,
    compared_names,
    environments,
    objects,
    place,
    plain_names,
    subjects,
)
from pdp.engine.compiler import CompiledContext, Rule, Snapshot
from pdp.engine.evaluate import EngineRequest, Outcome, evaluate
from pdp.engine.functions import ANY, FUNCTIONS
from pdp.engine.name_uses import FieldUses, clock_bounds, field_uses
from pdp.engine.obligations import merge
from pdp.engine.pattern_classes import cannot
from pdp.engine.plan import EQUAL, ROLE, Column, Term
from pdp.engine.possible import matching
from pdp.engine.role_closure import ALWAYS, FOREVER
from pdp.engine.roles import RoleGraph
from pdp.engine.touched import Scope, Touched, comparable, scope, touched
from pdp.engine.valuations import valuations
from pdp.errors import BadRequestError, Reason
from pdp.limits import MAX_DIFF_CELLS, MAX_NAME_BYTES
from pdp.model.attributes import NO_ATTRIBUTES, Attributes
from pdp.model.decision import Effect
from pdp.model.names import GROUPING_PREFIXES

_ACTION: Final = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
_SUBJECTS: Final = ("sub", "src")
_ACTED: Final = "act"


class Change(StrEnum):
    """How a cell changes, the worst first: one that changes in several ways, by conditions, is told by the worst of them."""

    GAINS = "gains"
    SWAPS = "gains and loses"
    LOOSER = "looser obligations"
    LOSES = "loses"
    STRICTER = "stricter obligations"
    REASON = "other reason"
    REWRITTEN = "rewritten"


ORDER: Final = tuple(Change)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell that changes. `values` are class labels in the order of the request definition.

    `witness` are attributes with which the answers differ: empty if they differ whatever the question brings, if
    `always`. `from_ms` is when the change comes about, if that is not at once. `names` are the names (principals, groups)
    beside the class itself that change alike because they hold this role.
    """

    context: str
    values: tuple[str, ...]
    change: Change
    always: bool
    witness: Attributes
    from_ms: int
    names: tuple[str, ...] = ()
    by: str = ""
    """The role through which a name changes, if that role's own cell tells the same."""


def diff(before: Snapshot, after: Snapshot, now_ms: int, *, people: Iterable[NameClass] = ()) -> tuple[Cell, ...]:
    """Return every cell that changes from `before` to `after`, at `now_ms` or later, the worst first.

    `people` are looked at beside the classes of the policy: somebody's groups together, where a class is about one of them.

    Raises:
        BadRequestError: more cells than can be looked at, or a matcher whose names fall into no classes; nothing is left
            out in silence.
    """
    contexts = sorted({*before.contexts, *after.contexts})
    beside = tuple(people)
    cells = [cell for suffix in contexts for cell in _Comparison(before, after, suffix, now_ms, beside).cells()]
    return tuple(sorted(cells, key=_badness))


def _badness(cell: Cell) -> tuple[int, int, int, bool, str, tuple[str, ...]]:
    # ATTACK: a wide grant among hundreds of narrow ones stands before them, whatever it is called or on what condition.
    prod = 0 if "prod" in cell.values else 1
    return ORDER.index(cell.change), prod, _depth(cell.values), not cell.always, cell.context, cell.values


def _depth(values: Iterable[str]) -> int:
    """Return how deep below its type the widest pattern among `values` begins; names alone are deeper than any."""
    return min((value.partition("*")[0].count("/") for value in values if "*" in value), default=MAX_NAME_BYTES)


def _fits(kind: str, member: str, value: str) -> bool:
    return member == value if kind == EQUAL else bool(FUNCTIONS[kind](member, value))


class _Comparison:
    """Two snapshots, one context."""

    def __init__(
        self, before: Snapshot, after: Snapshot, suffix: str, now_ms: int, people: tuple[NameClass, ...] = ()
    ) -> None:
        self._both = (before, after)
        self._people = people
        self._suffix = suffix
        self._now_ms = now_ms
        self._contexts = tuple(one.contexts.get(suffix) for one in self._both)
        pairs = zip(self._both, self._contexts, strict=True)
        self._uses = [field_uses(snapshot, compiled) if compiled else {} for snapshot, compiled in pairs]
        for snapshot, uses in zip(self._both, self._uses, strict=True):
            check_enumerable(snapshot, suffix, uses=uses)
        self._vocabularies = tuple(frozenset(one.vocabulary.actions()) for one in self._both)
        self._witnessed: dict[object, tuple[Change, Attributes]] = {}
        self._accepted: dict[object, frozenset[int]] = {}
        self._held: dict[tuple[str, int], Mapping[str, list[int]]] = {}
        self._turns: dict[NameClass, frozenset[int]] = {}
        self._same: dict[NameClass, int] = {}
        """Classes whose name is the one that stands in another field, and that field."""

    # --- which cells -------------------------------------------------------------------------------------------------

    def cells(self) -> Iterator[Cell]:
        """Yield each cell that changes."""
        touched: dict[tuple[NameClass, ...], None] = {}
        for part in self._touched():
            size = 1
            for names in part:
                size *= len(names)
            if len(touched) + size > MAX_DIFF_CELLS:
                message = f"more than {MAX_DIFF_CELLS} cells may change; compare in smaller steps"
                raise BadRequestError(message)
            touched.update(dict.fromkeys(product(*part)))
        found = [
            cell
            for values in touched
            if (self._plain or _sensible(values)) and (cell := self._compared(values)) is not None
        ]
        yield from self._explained(found)

    @cached_property
    def _fields(self) -> tuple[str, ...]:
        first, second = self._contexts
        one, other = (context.context.request if context else () for context in (first, second))
        return one or other

    @cached_property
    def _classes(self) -> tuple[tuple[NameClass, ...], ...]:
        """For each field of the request, the classes of its values: all of them, or at least those that can matter."""
        return tuple(
            (*self._classes_of(at, name), *(self._people if name in _SUBJECTS or at == 0 else ()))
            for at, name in enumerate(self._fields)
        )

    def _classes_of(self, at: int, name: str) -> Iterator[NameClass]:
        uses = self._uses_of(name)
        kinds = {kind for each in uses for kind in each.kinds}
        known = {written for each in uses for written in each.names}
        patterns = any(each.patterns for each in uses)
        scoped = self._scope(at)
        where = place(self._suffix, name)
        names = known if scoped is None else set(filter(scoped.meets, known))
        is_domain = any(each.is_domain for each in uses)
        if not kinds and not is_domain:
            yield NameClass(label=EVERYONE, member="any", named=False)  # no rule reads this field
        elif "actionMatch" in kinds or (name == _ACTED and self._actions() and (self._plain or patterns)):
            yield from map(_exactly, self._actions())
        elif self._plain:
            yield from self._plain_classes(name)
        elif "envMatch" in kinds or is_domain:
            found = [environments(one, self._both) for one in self._contexts if one]
            texts = known if EQUAL in kinds else set[str]()
            yield from map(
                _exactly, dict.fromkeys([*(each for some in found for each in some), *sorted(texts - {ANY})])
            )
        elif name in _SUBJECTS or at == 0:
            yield from map(_exactly, sorted(each for each in names if _is_grouping(each)))
            yield from subjects(names, known=known, uses=uses, where=where)
        else:
            yield from map(_exactly, sorted(each for each in names if _is_grouping(each)))
            if kinds == {EQUAL} and not any("/" in each for each in known):
                yield from map(_exactly, sorted(names))
                yield NameClass(label=EVERYONE, member="any-other", named=False)
            else:
                types = {kind for one in self._both for kind in one.vocabulary.types}
                yield from objects(names, types, exact=EQUAL in kinds, uses=uses, where=where)

    def _plain_classes(self, name: str) -> Iterator[NameClass]:
        """Yield the classes of a field of texts; of two that are compared with each other, both have those of both."""
        linked = [each for each in self._fields if each in self._linked(name)]
        where = place(self._suffix, name)
        if len(linked) > 2:  # noqa: PLR2004 - among three fields there are five ways to be the same
            raise cannot(where, f"`{'`, `'.join(linked)}` are all compared with each other")
        uses = [each for field in linked for each in self._uses_of(field)]
        if len(linked) == 1:
            yield from plain_names(uses, where)
            return
        first, second = compared_names(uses, where, linked[0])
        if name == linked[0]:
            yield from first
            return
        position = self._fields.index(linked[0])
        self._same.update(
            {one: position for one in second if not one.named and one.member in {o.member for o in first}}
        )
        yield from second

    def _agree(self, values: tuple[NameClass, ...]) -> bool:
        """Tell whether a value that is to be the same as another one is."""
        return all(one.member == values[self._same[one]].member for one in values if one in self._same)

    def _linked(self, name: str) -> set[str]:
        """Return the fields that `name` is compared with for equality, over whatever others, and itself."""
        found = {name}
        while further := {other for each in found for uses in self._uses_of(each) for other in uses.beside} - found:
            found |= further
        return found

    def _uses_of(self, name: str) -> list[FieldUses]:
        return [each[name] for each in self._uses if name in each]

    @cached_property
    def _plain(self) -> bool:
        return any(snapshot.model.plain for snapshot in self._both)

    def _actions(self) -> list[str]:
        return sorted({action for one in self._both for action in one.vocabulary.actions()})

    @cached_property
    def _found(self) -> Touched | None:
        """The rules that can answer otherwise; None if every cell must be looked at."""
        first, second = self._contexts
        if first is None or second is None or not comparable(self._both, first, second):
            return None
        return touched(self._both, first, second)

    def _scope(self, at: int) -> Scope | None:
        first = self._contexts[0]
        if self._found is None or first is None or not first.direct:
            return None
        return scope(self._both, self._found.rules, first.plan.columns, at)

    def _touched(self) -> Iterator[tuple[tuple[NameClass, ...], ...]]:
        """Yield products of classes that together hold every cell that can change."""
        first = self._contexts[0]
        if self._found is None or first is None:
            yield self._classes
            return
        for rule in self._found.changed:
            for branch in first.plan.branches:
                yield self._spread(rule, branch.columns)
        for moved in self._found.moved:
            wide, term = self._spread(moved.rule, moved.branch.columns), moved.term
            narrow = tuple(one for one in self._classes[term.field] if moved.names & _nodes(one, self._both, term))
            yield (*wide[: term.field], narrow, *wide[term.field + 1 :])
        yield from self._refused_otherwise(first)

    def _refused_otherwise(self, first: CompiledContext) -> Iterator[tuple[tuple[NameClass, ...], ...]]:
        """Yield what one of the snapshots refuses before it asks a rule: an unknown action, a subject named as a role."""
        known, other = self._vocabularies
        wide = [self._spread(rule, first.plan.columns) for rule in self._found.renamed] if self._found else []
        for part in wide if first.direct else [self._classes]:
            yield from _narrowed(part, known ^ other)
        roles = self._both[0].role_names ^ self._both[1].role_names
        if self._plain and first.context.subject:
            at = self._fields.index(first.context.subject)
            named = tuple(one for one in self._classes[at] if one.member in roles)
            yield (*self._classes[:at], named, *self._classes[at + 1 :])

    def _spread(self, rule: Rule, columns: Iterable[Column]) -> tuple[tuple[NameClass, ...], ...]:
        """Return for each field the classes that a rule may accept, in either snapshot, at whatever time."""
        kept: dict[int, frozenset[int]] = {}
        for column in columns:
            value = rule.row.fields[column.position]
            fields = {term.field for term in column.terms}
            # A value that is no address is no miss of a network but an error, which any rule may have.
            if len(fields) == 1 and all(term.kind != "ipMatch" for term in column.terms):
                (at,) = fields
                accepted = frozenset[int]().union(*(self._accepting(term, value) for term in column.terms))
                kept[at] = kept.get(at, accepted) & accepted
        return tuple(
            tuple(classes[number] for number in sorted(kept[at])) if at in kept else classes
            for at, classes in enumerate(self._classes)
        )

    def _accepting(self, term: Term, value: str) -> frozenset[int]:
        """Return the places of the classes of a field that a rule's value accepts; many rules write the same."""
        key = (term.kind, term.section, term.field, value)
        if key not in self._accepted:
            if term.kind == ROLE:
                found = self._holders(term.section, term.field).get(value, ())
            else:
                found = [n for n, name in enumerate(self._classes[term.field]) if _fits(term.kind, name.member, value)]
            self._accepted[key] = frozenset(found)
        return self._accepted[key]

    def _holders(self, section: str, at: int) -> Mapping[str, list[int]]:
        """Return for each role the places of the classes of a field that hold it, at some time, in either snapshot."""
        if (section, at) not in self._held:
            held: dict[str, list[int]] = {}
            for number, name in enumerate(self._classes[at]):
                for target in self._ever(section, name):
                    held.setdefault(target, []).append(number)
            self._held[section, at] = held
        return self._held[section, at]

    def _ever(self, section: str, name: NameClass) -> set[str]:
        """Return all that a class stands for in either snapshot, in some domain, at some time."""
        names = (name.member, *name.memberships)
        graphs = (snapshot.graphs.get(section) for snapshot in self._both)
        return set(names).union(*(graph.ever(names) for graph in graphs if graph))

    # --- what becomes of them ----------------------------------------------------------------------------------------

    def _instants(self, values: tuple[NameClass, ...]) -> tuple[int, ...]:
        """Return now, and each later instant at which the answer to a cell may change by itself."""
        bounds = self._clock_bounds.union(*map(self._windows, values)) if self._timed else self._clock_bounds
        return (self._now_ms, *sorted(bound for bound in bounds if self._now_ms < bound < FOREVER))

    @cached_property
    def _clock_bounds(self) -> frozenset[int]:
        found = set().union(*(clock_bounds(context) for context in self._contexts if context))
        return frozenset(bound + step for bound in found for step in (0, 1))

    @cached_property
    def _timed(self) -> tuple[RoleGraph, ...]:
        """The role graphs with links that have a start or an end."""
        graphs = [graph for snapshot in self._both for graph in snapshot.graphs.values()]
        return tuple(
            graph for graph in graphs if any(link.window != ALWAYS for links in graph.links.values() for link in links)
        )

    def _windows(self, name: NameClass) -> frozenset[int]:
        """Return when a link with a start or an end, on some way up from a class, begins or ceases to count."""
        if name not in self._turns:
            windows = [window for graph in self._timed for window in graph.windows((name.member, *name.memberships))]
            self._turns[name] = frozenset(bound for window in windows for bound in (window.start_ms + 1, window.end_ms))
        return self._turns[name]

    def _compared(self, values: tuple[NameClass, ...]) -> Cell | None:
        for now_ms in self._instants(values):
            one, other = (self._state(side, values, now_ms) for side in (0, 1))
            if one != other:
                return self._cell(values, now_ms, (one, other))
        return None

    def _state(self, side: int, values: tuple[NameClass, ...], now_ms: int) -> State:
        context = self._contexts[side]
        request = self._request(values, NO_ATTRIBUTES)
        if context is None or context.context.request != self._fields or not self._knows(side, values):
            return NOTHING
        if not context.direct:
            return general_state(self._both[side], request, now_ms)
        return state_of(matching(self._both[side], request, now_ms), context.context.effect)

    def _knows(self, side: int, values: tuple[NameClass, ...]) -> bool:
        """Tell whether an action is in the vocabulary: one that is not is refused before any rule is asked."""
        known, other = self._vocabularies[side], self._vocabularies[1 - side]
        return all(one.member in known or one.member not in other for one in values)

    def _request(self, values: tuple[NameClass, ...], attributes: Attributes) -> EngineRequest:
        further = {name: one.memberships for name, one in zip(self._fields, values, strict=True) if one.memberships}
        members = tuple(one.member for one in values)
        return EngineRequest(context=self._suffix, values=members, memberships=further, attributes=attributes)

    def _cell(self, values: tuple[NameClass, ...], now_ms: int, states: tuple[State, State]) -> Cell:
        conditions = [condition for state in states for condition in state.conditions]
        fixed = self._fixed(values)
        key = (states, tuple(fixed.items()), now_ms)
        if key not in self._witnessed:
            # Equal states answer alike, so what one cell shows holds for all of these.
            self._witnessed[key] = self._witness(values, now_ms, valuations(conditions, fixed))
        change, witness = self._witnessed[key]
        always = not conditions
        return Cell(
            context=self._suffix,
            values=tuple(one.label for one in values),
            change=change,
            always=always,
            witness={} if always else witness,
            from_ms=0 if now_ms == self._now_ms else now_ms,
        )

    def _witness(
        self, values: tuple[NameClass, ...], now_ms: int, tried: Iterable[Attributes]
    ) -> tuple[Change, Attributes]:
        """Return the worst change that shows with one of the attributes, and those."""
        found: dict[Change, Attributes] = {}
        for attributes in tried:
            change = self._change(values, attributes, now_ms)
            if change is not None:
                found.setdefault(change, attributes)
            if {Change.GAINS, Change.LOSES} <= found.keys():
                break  # nothing is worse
        change = min(found, key=ORDER.index, default=Change.REWRITTEN)
        witness = found.get(change, NO_ATTRIBUTES)
        return Change.SWAPS if {Change.GAINS, Change.LOSES} <= found.keys() else change, witness

    def _fixed(self, values: tuple[NameClass, ...]) -> Attributes:
        """Return the attributes that the cell itself says: who asks, if that is one principal."""
        for name, one in zip(self._fields, values, strict=True):
            if name == _SUBJECTS[0] and one.named and not _is_grouping(one.label):
                return {"subject.id": one.member}
        return NO_ATTRIBUTES

    def _change(self, values: tuple[NameClass, ...], attributes: Attributes, now_ms: int) -> Change | None:
        request = self._request(values, attributes)
        one, other = (
            evaluate(snapshot, request, now_ms) if self._knows(side, values) else _UNKNOWN
            for side, snapshot in enumerate(self._both)
        )
        if one.effect is not other.effect:
            return Change.GAINS if other.effect is Effect.ALLOW else Change.LOSES
        if one.obligations != other.obligations:
            # Stricter is what stays the same when both are obeyed.
            return (
                Change.STRICTER if merge((*one.obligations, *other.obligations)) == other.obligations else Change.LOOSER
            )
        return Change.REASON if one.reason is not other.reason else None

    def _explained(self, cells: list[Cell]) -> Iterator[Cell]:
        """Yield the cells, each role's with the names that change with it, and each such name's with its role."""
        position = next((at for at, name in enumerate(self._fields) if name in _SUBJECTS), None)
        if position is None:
            yield from cells
            return
        classes = {one.label: one for one in self._classes[position]}
        section = _subject_section(self._contexts, position)
        above: dict[str, list[str]] = {}
        for label, one in classes.items():
            reached = self._ever(section, one) - {label, one.member} if section else set()
            above[label] = sorted(role for role in reached if role in classes)
        keyed = {_key(cell, position): cell for cell in cells}
        led: dict[tuple[object, ...], list[str]] = {}
        by: dict[int, str] = {}
        for cell in cells:
            for role in above[cell.values[position]]:
                key = _key(cell, position, role)
                if key in keyed:
                    led.setdefault(key, []).append(cell.values[position])
                    by.setdefault(id(cell), role)
        for cell in cells:
            names = tuple(sorted(led.get(_key(cell, position), ())))
            yield replace(cell, names=names, by=by.get(id(cell), ""))


_UNKNOWN: Final = Outcome(effect=Effect.DENY, reason=Reason.UNKNOWN_ACTION)


def _narrowed(
    part: tuple[tuple[NameClass, ...], ...], names: frozenset[str]
) -> Iterator[tuple[tuple[NameClass, ...], ...]]:
    """Yield what there is of a product of classes for each field that may hold one of some names."""
    for at, classes in enumerate(part):
        narrow = tuple(one for one in classes if one.member in names)
        if narrow:
            yield (*part[:at], narrow, *part[at + 1 :])


def _key(cell: Cell, position: int, label: str = "") -> tuple[object, ...]:
    values = (*cell.values[:position], label or cell.values[position], *cell.values[position + 1 :])
    return values, cell.change, cell.always, cell.from_ms


def _sensible(values: tuple[NameClass, ...]) -> bool:
    """Tell whether an action is one on the resource: any other pair is refused before a rule is asked."""
    types = {one.member.partition("/")[0] for one in values if "/" in one.member and ":" not in one.member}
    acted = {one.member.partition(".")[0] for one in values if _ACTION.fullmatch(one.member)}
    return len(types) != 1 or len(acted) != 1 or types == acted


def _exactly(name: str) -> NameClass:
    return NameClass(label=name, member=name, named=True)


def _is_grouping(name: str) -> bool:
    return name.startswith(GROUPING_PREFIXES) and not name.startswith("group:")


def _subject_section(contexts: Iterable[CompiledContext | None], position: int) -> str:
    branches = (branch for one in contexts if one for branch in one.plan.branches)
    terms = (term for branch in branches for column in branch.columns for term in column.terms)
    return next((term.section for term in terms if term.kind == ROLE and term.field == position), "")


def _nodes(name: NameClass, snapshots: Iterable[Snapshot], term: Term) -> set[str]:
    return {
        node
        for snapshot in snapshots
        if term.section in snapshot.graphs
        for node in snapshot.graphs[term.section].nodes((name.member, *name.memberships))
    }
