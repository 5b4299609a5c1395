"""What a change of the policy touches: the attributes `change.*`, which the rules about changing the policy may read.

They are computed from the compiled policies before and after, by row and never by sample, and where the rows alone cannot
tell they say yes: a change that looks more dangerous than it is asks for one approval too many, the reverse for one too few.
Only `self_grant` is looked at more closely when it says yes, by the exact comparison of `pdp.engine.diff`, since narrowing
one's own role is no reason to be refused.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from pdp.engine.casbin_text import Row
from pdp.engine.classes import EVERYONE, NameClass, uses_of
from pdp.engine.compiler import CompiledContext, Snapshot
from pdp.engine.diff import Cell, Change, diff
from pdp.engine.functions import ANY, action_alternatives
from pdp.engine.name_uses import FieldUses
from pdp.engine.patterns import PATTERN_FUNCTIONS, read_pattern
from pdp.engine.plan import ROLE
from pdp.errors import BadRequestError
from pdp.model.attributes import Attributes, Value
from pdp.model.names import ENVIRONMENTS
from pdp.model.request import Party
from pdp.model.vocabulary import Vocabulary

_ADMINISTRATION: Final = frozenset({"policy", "asset", "lock", "audit", "replica", "key"})
"""Types of the built-in assets: who may act on them runs this place. Asking the PDP is no administration; asserting is."""
_ASSERT: Final = ("decision", "assert")
_ASKING: Final = {"request"}
"""Asking for access is everybody's, and no administration."""
_ELSEWHERE: Final = frozenset(ENVIRONMENTS) - {"prod"}
_FAVOURS: Final = frozenset({Change.GAINS, Change.SWAPS, Change.LOOSER})
_SEGMENTATION: Final = "2"
_WITHOUT_DOMAIN: Final = 2
_Key = tuple[str, tuple[str, ...]]
_YES_OR_NO: Final = (
    "change.production",
    "change.segmentation",
    "change.administration",
    "change.wildcard",
    "change.language",
    "change.self_grant",
)


def nothing_touched(vocabulary: Vocabulary) -> Attributes:
    """Return the facts of a change that touches nothing: what a question about changing at all is asked with."""
    return _known(vocabulary, {"change.rows": 0, "change.duration_s": 0, **dict.fromkeys(_YES_OR_NO, False)})


def _known(vocabulary: Vocabulary, facts: Attributes) -> Attributes:
    """Leave out what the vocabulary has no word for: another pack may have other words, or none."""
    return {name: value for name, value in facts.items() if name in vocabulary.attributes}


@dataclass(frozen=True, slots=True)
class _Changed:
    """A row that only one of the two policies has, whatever its place in a file; or whose place decides, and is another."""

    row: Row
    added: bool


@dataclass(frozen=True)
class Facts:
    """The facts of the change from `before` to `after`; `words` tells that the model or the vocabulary changes."""

    before: Snapshot
    after: Snapshot
    words: bool
    now_ms: int
    _changed: tuple[_Changed, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        one, other = _in_order(self.before), _in_order(self.after)
        moved = _moved(one, other) if _is_ordered(self.before) or _is_ordered(self.after) else frozenset[_Key]()
        gone = [_Changed(row, added=False) for key, row in one.items() if key not in other or key in moved]
        new = [_Changed(row, added=True) for key, row in other.items() if key not in one or key in moved]
        object.__setattr__(self, "_changed", (*new, *gone))

    def attributes(self, parties: Iterable[Party], *, lasts_s: int = 0) -> Attributes:
        """Return the facts as attributes; `parties` are those who must not gain by it: its authors.

        `lasts_s` is how long a request for access would last; any other change lasts until the next.
        """
        found: dict[str, Value] = {
            "change.rows": len(self._changed),
            "change.duration_s": lasts_s,
            "change.production": any(map(self._in_production, self._changed)),
            "change.segmentation": any(one.row.section in self._segmentation for one in self._changed),
            "change.administration": any(map(self._administers, self._changed)),
            "change.wildcard": any(one.added and self._is_wide(one.row) for one in self._changed),
            "change.language": self.words,
            "change.self_grant": any(self.favours(party) for party in parties),
        }
        return _known(self.before.vocabulary, found)

    # --- by row ------------------------------------------------------------------------------------------------------

    @cached_property
    def _segmentation(self) -> frozenset[str]:
        """Row sections that say which workload reaches what."""
        sections: set[str] = set()
        for snapshot in (self.before, self.after):
            context = snapshot.contexts.get(_SEGMENTATION)
            if context is not None:
                sections.update((context.context.section, *_role_sections(context)))
        return frozenset(sections)

    def _context(self, row: Row) -> CompiledContext | None:
        """Return the set of rules that a `p` row belongs to, in whichever policy knows it."""
        for snapshot in (self.after, self.before):
            for context in snapshot.contexts.values():
                if context.context.section == row.section:
                    return context
        return None

    def _field(self, row: Row, name: str) -> str | None:
        context = self._context(row)
        columns = context.context.policy if context else ()
        return row.fields[columns.index(name)] if name in columns else None

    def _plainly(self, row: Row, name: str) -> str | None:
        """Return what a row says in a column; None if it has no such column, or a pattern that only its own test can read."""
        context, value = self._context(row), self._field(row, name)
        columns = [column for branch in context.plan.branches for column in branch.columns] if context else ()
        kinds = {term.kind for column in columns if column.name == name for term in column.terms}
        if value is None or not kinds:
            return None
        patterns = kinds & PATTERN_FUNCTIONS
        return value if all(read_pattern(kind, value).literal for kind in patterns) else None

    def _in_production(self, changed: _Changed) -> bool:
        row = changed.row
        if row.section.startswith("p"):
            where = self._plainly(row, "env")
        else:
            definition = self.after.model.roles.get(row.section) or self.before.model.roles.get(row.section)
            domained = definition is not None and definition.places > _WITHOUT_DOMAIN
            where = row.fields[_WITHOUT_DOMAIN] if domained else None
        return where not in _ELSEWHERE

    def _administers(self, changed: _Changed) -> bool:
        """Tell whether a row grants, or hands on, a right to run this place."""
        row = changed.row
        if row.section.startswith("p"):
            return self._is_administration(row)
        return row.section in self._grouping and not self._administrators.isdisjoint(
            {row.fields[1], *self._above(row.fields[1])}
        )

    def _is_administration(self, row: Row) -> bool:
        action = self._plainly(row, "act")
        if action is None or action == ANY:
            return True
        kind, _, text = action.partition(".")
        verbs = set(text.split("|"))
        if kind == _ASSERT[0]:
            return not verbs.isdisjoint({_ASSERT[1], ANY})
        return kind in _ADMINISTRATION and verbs != _ASKING

    @cached_property
    def _administrators(self) -> frozenset[str]:
        """Roles with a right of administration, before or after."""
        found = set()
        for snapshot in (self.before, self.after):
            for context in snapshot.contexts.values():
                subject = context.plan.subject
                if subject is None or context.context.suffix == _SEGMENTATION:
                    continue
                for rule in context.rules:
                    if rule.allow and self._is_administration(rule.row):
                        found.add(rule.row.fields[subject.position])
        return frozenset(found)

    def _is_wide(self, row: Row) -> bool:
        """Tell whether a row grants a whole type of resource, every verb, or every environment; or puts one under such rules."""
        if row.section in {*self._segmentation, *self._grouping}:
            return False
        if row.section.startswith("g"):
            return _is_whole(row.fields[0])
        if self._field(row, "eft") == "deny":
            return False
        action, where, what = (self._plainly(row, name) for name in ("act", "env", "obj"))
        if action is None or where is None or what is None:
            return True
        verbs = {one.rpartition(".")[2] for one in action_alternatives(action)}
        return _is_whole(what) or where == ANY or ANY in verbs

    # --- for whom ----------------------------------------------------------------------------------------------------

    def favours(self, party: Party) -> bool:
        """Tell whether `party` gains by the change; in doubt yes."""
        names = self._names(party)
        if not any(self._touches(one, names) for one in self._changed):
            return False
        # Who has groups has the rights of all of them together, and what one denies another may allow. Whom patterns match,
        # or who is any other, is told by no name: then the comparison is about the person.
        cells = self._compared(_person(party)) if party.groups or self._matched else self._cells
        if cells is None:
            return True
        return any(cell.change in _FAVOURS and cell.values[0] in {*names, EVERYONE} for cell in cells)

    @cached_property
    def _uses(self) -> tuple[FieldUses, ...]:
        """How each of the policies looks at who asks."""
        both = (self.before, self.after)
        return tuple(each for one in both for name in _asking(one) for each in uses_of((one,), "", name))

    @cached_property
    def _matched(self) -> bool:
        """Whether classes of principals are made by more than their names, groups and roles."""
        plain = self.before.model.plain or self.after.model.plain
        return plain or any(each.patterns for each in self._uses)

    @cached_property
    def _cells(self) -> tuple[Cell, ...] | None:
        return self._compared()

    def _compared(self, *people: NameClass) -> tuple[Cell, ...] | None:
        """Return the cells of grants that change; None where they cannot be told.

        That is between two languages, where who asks is compared with what is asked, or if there are too many to compare.
        """
        if self.words or any(each.beside for each in self._uses):
            return None
        try:
            cells = diff(self.before, self.after, self.now_ms, people=people)
        except BadRequestError:
            return None
        return tuple(cell for cell in cells if cell.context != _SEGMENTATION)

    @cached_property
    def _grouping(self) -> frozenset[str]:
        """Role sections that say who stands for whom."""
        return frozenset(
            term.section
            for snapshot in (self.before, self.after)
            for suffix, context in snapshot.contexts.items()
            if suffix != _SEGMENTATION and context.plan.subject is not None
            for term in context.plan.subject.terms
        )

    def _names(self, party: Party) -> frozenset[str]:
        """Return all that `party` stands for in either policy, anywhere and at any time."""
        found = {str(party.principal), *party.groups}
        for name in tuple(found):
            found |= self._above(name)
        return frozenset(found)

    def _above(self, name: str) -> set[str]:
        found: set[str] = set()
        for snapshot in (self.before, self.after):
            for section in self._grouping:
                graph = snapshot.graphs.get(section)
                queue = [name] if graph else []
                for each in queue:
                    nodes = graph.nodes((each,)) if graph else ()
                    targets = [link.target for node in nodes for link in (graph.links.get(node, ()) if graph else ())]
                    queue.extend(target for target in (*nodes, *targets) if target not in queue)
                found.update(queue)
        return found

    def _touches(self, changed: _Changed, names: frozenset[str]) -> bool:
        """Tell whether a row that changes may change what those `names` can do to their favour."""
        row = changed.row
        if row.section in self._segmentation - self._grouping:
            return False  # where an access starts is told apart: `change.segmentation`
        if row.section in self._grouping:
            return row.fields[0] in names
        if row.section.startswith("g"):
            return True  # a collection: which rules it brings in, the comparison tells
        context = self._context(row)
        subject = context.plan.subject if context and context.plan.simple else None
        denies = self._field(row, "eft") == "deny"
        # An allow that is gone may have obliged to something that the others do not.
        lifts = changed.added is not denies or bool(self._field(row, "then"))
        return lifts and (subject is None or row.fields[subject.position] in names)


def _asking(snapshot: Snapshot) -> tuple[str, ...]:
    return snapshot.contexts[""].context.request[:1]


def _role_sections(context: CompiledContext) -> Iterator[str]:
    for branch in context.plan.branches:
        for column in branch.columns:
            for term in column.terms:
                if term.kind == ROLE:
                    yield term.section


def _person(party: Party) -> NameClass:
    name = str(party.principal)
    return NameClass(label=name, member=name, named=True, memberships=tuple(sorted(party.groups)))


def _is_whole(what: str) -> bool:
    """Tell whether a name or pattern of resources stands for a whole type of them, or for all."""
    return what == ANY or (what.count("/") == 1 and what.endswith(("/*", "/**")))


def _is_ordered(snapshot: Snapshot) -> bool:
    return any(compiled.context.effect.ordered for compiled in snapshot.contexts.values())


def _in_order(snapshot: Snapshot) -> dict[_Key, Row]:
    """Return the rows by what they say, in the order of their places; of a row that stands twice the first place counts."""
    found: dict[_Key, Row] = {}
    for row in sorted(snapshot.rows, key=lambda row: (row.file, row.line)):
        found.setdefault((row.section, row.fields), row)
    return found


def _moved(one: Mapping[_Key, Row], other: Mapping[_Key, Row]) -> frozenset[_Key]:
    """Return the rows of both that stand in another order among themselves."""
    kept = ([key for key in one if key in other], [key for key in other if key in one])
    return frozenset(key for pair in zip(*kept, strict=True) if pair[0] != pair[1] for key in pair)
