"""What of two snapshots a comparison has to look at: the rules that can answer otherwise, and the names that these can meet.

Theory of operation. A cell changes only where a rule that was added or removed accepts it, or a rule is met through a role link
that was. So of 100,000 names those matter that the values of such rules can meet: the value itself, what reaches it as a role,
and every pattern that has a name in common with one of these. The classes that remain are told apart by all the patterns that
cover a member of theirs, so they are the same as among all names (tests/spec/test_diff.py compares the two).

INVARIANT: a scope says no only of names that nothing in it can meet; in doubt it says yes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pdp.engine.compiler import CompiledContext, Rule, Snapshot
from pdp.engine.evaluate import in_order
from pdp.engine.expression import Call, walk
from pdp.engine.functions import ANY, action_match
from pdp.engine.name_uses import row_trees
from pdp.engine.patterns import PATTERN_FUNCTIONS
from pdp.engine.plan import ROLE, Branch, Column, Term
from pdp.engine.roles import RoleGraph
from pdp.engine.tables import split_version

_WIDE: Final = 2_000
"""Seeds beyond which looking at all names costs no more."""
_ONE: Final = "*"
_REST: Final = "**"


@dataclass(frozen=True, slots=True)
class Moved:
    """A rule that is met through links that changed: by which term of which branch, and the names whose links they are."""

    rule: Rule
    branch: Branch
    term: Term
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Touched:
    """The rules of one context that can answer otherwise."""

    changed: tuple[Rule, ...]
    moved: tuple[Moved, ...]
    renamed: tuple[Rule, ...]
    """Rules that stay, and accept an action that only one of the vocabularies knows."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All of them."""
        return (*self.changed, *(one.rule for one in self.moved), *self.renamed)


def comparable(both: Sequence[Snapshot], first: CompiledContext, second: CompiledContext) -> bool:
    """Tell whether two contexts can only differ where a rule, or a link by which the index finds rules, changed."""
    if first.plan != second.plan or first.context.effect is not second.context.effect:
        return False
    if (first.context.request, first.context.paths) != (second.context.request, second.context.paths):
        return False
    if first.context.effect.ordered and not _same_order(first, second):
        return False
    graphs = {section for snapshot in both for section in snapshot.graphs}
    moving = {section for section in graphs if _links_differ(both, section)}
    walked = {section for snapshot in both for section, graph in snapshot.graphs.items() if graph.walked}
    return moving.isdisjoint(walked | _called(first) | _called(second))


def _same_order(first: CompiledContext, second: CompiledContext) -> bool:
    """Tell whether the rules of both stand in the same order."""
    ranked = [[rule.row.fields for rule in sorted(each.rules, key=in_order)] for each in (first, second)]
    common = set(ranked[0]) & set(ranked[1])
    one, other = ([fields for fields in dict.fromkeys(each) if fields in common] for each in ranked)
    return one == other


def _called(context: CompiledContext) -> set[str]:
    """Return the functions that are called where the index does not look: role graphs among them."""
    beside = (tree for branch in context.plan.branches for tree in (*branch.guards, *branch.residual))
    return {node.function for tree in (*beside, *row_trees(context)) for node in walk(tree) if isinstance(node, Call)}


def _links_differ(both: Sequence[Snapshot], section: str) -> bool:
    one, other = (snapshot.graphs.get(section) for snapshot in both)
    return one is None or other is None or one.links != other.links


def touched(both: Sequence[Snapshot], first: CompiledContext, second: CompiledContext) -> Touched:
    """Return the rules that a comparison of two comparable contexts has to look at."""
    moves = {section: moved for section in _sections(first) if (moved := _moved(both, section))}
    found = []
    for rule in (*first.rules, *second.rules) if moves else ():
        for branch in first.plan.branches:
            for column in branch.columns:
                target = rule.row.fields[column.position]
                for term in column.terms:
                    names = moves[term.section].get(target) if term.kind == ROLE and term.section in moves else None
                    if names:
                        found.append(Moved(rule, branch, term, frozenset(names)))
    one, other = (frozenset(snapshot.vocabulary.actions()) for snapshot in both)
    renamed = tuple(rule for rule in (*first.rules, *second.rules) if _accepts(first, rule, one ^ other))
    return Touched(changed=_changed(first, second), moved=tuple(found), renamed=renamed)


def _accepts(context: CompiledContext, rule: Rule, actions: frozenset[str]) -> bool:
    """Tell whether a rule may accept one of some actions."""
    if not actions:
        return False
    columns = (column for branch in context.plan.branches for column in branch.columns)
    words = [column for column in columns if {term.kind for term in column.terms} == {"actionMatch"}]
    texts = [rule.row.fields[column.position] for column in words]
    return not texts or any(action_match(action, text) for action in actions for text in texts)


def _changed(first: CompiledContext, second: CompiledContext) -> tuple[Rule, ...]:
    one, other = ({rule.row.fields: rule for rule in each.rules} for each in (first, second))
    gone, come = one.keys() - other.keys(), other.keys() - one.keys()
    return (*(one[fields] for fields in one if fields in gone), *(other[fields] for fields in other if fields in come))


def _sections(context: CompiledContext) -> set[str]:
    columns = (column for branch in context.plan.branches for column in branch.columns)
    return {term.section for column in columns for term in column.terms if term.kind == ROLE}


def _moved(both: Sequence[Snapshot], section: str) -> Mapping[str, set[str]]:
    """Return for each role whose holders may change the nodes of the graph that stand for it differently."""
    one, other = (snapshot.graphs.get(section) for snapshot in both)
    found: dict[str, set[str]] = {}
    for name in _differing(one, other):
        for target, *_ in reached(one, name) ^ reached(other, name):
            found.setdefault(target, set()).add(name)
    return found


def _differing(one: RoleGraph | None, other: RoleGraph | None) -> set[str]:
    """Return the names with links of their own that do not reach the same in both."""
    linked = {*(one.links if one else ()), *(other.links if other else ())}
    if one is None or other is None:
        return linked
    found: set[str] = set()
    for domain in {*one.reaches, *other.reaches}:
        here, there = one.reaches.get(domain, {}), other.reaches.get(domain, {})
        found.update(name for name in linked if here.get(name) != there.get(name))
    return found


def reached(graph: RoleGraph | None, node: str) -> set[tuple[str, str, tuple[int, int] | None]]:
    """Return what a node stands for: target, domain, and when."""
    found: set[tuple[str, str, tuple[int, int] | None]] = set()
    for domain, reaches in graph.reaches.items() if graph else ():
        reach = reaches.get(node)
        if reach is not None:
            found.update((target, domain, None) for target in reach.always)
            found.update((target, domain, tuple(window)) for target, window in reach.timed)  # type: ignore[misc]
    return found


@dataclass(slots=True)
class _Node:
    below: dict[str, "_Node"] = field(default_factory=dict)


class Scope:
    """The names that may have anything in common with one of its seeds, patterns on either side."""

    def __init__(self, seeds: Iterable[str]) -> None:
        self._root = _Node()
        for seed in seeds:
            node = self._root
            for segment in _segments(seed):
                node = node.below.setdefault(segment, _Node())

    def meets(self, name: str) -> bool:
        """Tell whether `name` may: False only if its first segments are no seed's."""
        nodes = [self._root]
        for segment in _segments(name):
            if segment == _REST or any(_REST in node.below for node in nodes):
                return True
            nodes = [below for node in nodes for below in _following(node, segment)]
            if not nodes:
                return False
        return True


def scope(both: Sequence[Snapshot], rules: Iterable[Rule], columns: Iterable[Column], at: int) -> Scope | None:
    """Return which names of field `at` the values of `rules` can meet; None: any."""
    mine = [column for column in columns if {term.field for term in column.terms} == {at}]
    values = {rule.row.fields[column.position] for rule in rules for column in mine}
    by_pattern = any(term.kind in PATTERN_FUNCTIONS for column in mine for term in column.terms)
    if not mine or by_pattern or len(values) > _WIDE:
        return None
    sections = {term.section for column in mine for term in column.terms if term.kind == ROLE}
    graphs = [snapshot.graphs[section] for snapshot in both for section in sections if section in snapshot.graphs]
    seeds = values.union(*(_standing_for(graph, values) for graph in graphs))
    if len(seeds) > _WIDE or any(_anything(seed) for seed in seeds):
        return None
    return Scope(seeds)


def _standing_for(graph: RoleGraph, values: set[str]) -> set[str]:
    """Return the nodes of a graph that stand for one of `values`, in some domain, at some time."""
    return {
        name
        for reaches in graph.reaches.values()
        for name, reach in reaches.items()
        if not values.isdisjoint(reach.always) or any(target in values for target, _ in reach.timed)
    }


def _anything(seed: str) -> bool:
    """Tell whether a seed may be met by names of any sort: no text, the wildcard, or one inside a segment."""
    return seed in ("", ANY) or any(_ONE in segment and segment not in (_ONE, _REST) for segment in _segments(seed))


def _segments(name: str) -> list[str]:
    return split_version(name)[0].split("/")


def _following(node: _Node, segment: str) -> Iterable[_Node]:
    if segment == _ONE:
        return node.below.values()
    return [node.below[word] for word in (segment, _ONE) if word in node.below]
