"""What a change of the policy touches: the attributes `change.*`, which the rules about changing the policy may read.

They are computed from the compiled policies before and after, by row and never by sample, and where the rows alone cannot
tell they say yes: a change that looks more dangerous than it is asks for one approval too many, the reverse for one too few.
Only `self_grant` is looked at more closely when it says yes, by the exact comparison of `pdp.engine.diff`, since narrowing
one's own role is no reason to be refused.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from pdp.engine.casbin_text import Row
from pdp.engine.classes import EVERYONE
from pdp.engine.compiler import CompiledContext, Snapshot
from pdp.engine.diff import Cell, Change, diff
from pdp.engine.functions import ANY, FUNCTIONS
from pdp.engine.plan import ROLE
from pdp.errors import BadRequestError
from pdp.model.attributes import Attributes, Value
from pdp.model.request import Party
from pdp.model.vocabulary import Vocabulary

_ADMINISTRATION: Final = frozenset({"policy", "asset", "lock", "audit", "replica", "key"})
"""Types of the built-in assets: who may act on them runs this place. Asking the PDP is no administration; asserting is."""
_ASSERT: Final = ("decision", "assert")
_ASKING: Final = {"request"}
"""Asking for access is everybody's, and no administration."""
_PROD: Final = "prod"
_FAVOURS: Final = frozenset({Change.GAINS, Change.SWAPS, Change.LOOSER})
_SEGMENTATION: Final = "2"
_WITHOUT_DOMAIN: Final = 2
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
    """A row that only one of the two policies has, whatever its place in a file."""

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
        one, other = ({(row.section, row.fields): row for row in each.rows} for each in (self.before, self.after))
        gone = [_Changed(row, added=False) for key, row in one.items() if key not in other]
        new = [_Changed(row, added=True) for key, row in other.items() if key not in one]
        object.__setattr__(self, "_changed", (*new, *gone))

    def attributes(self, parties: Iterable[Party]) -> Attributes:
        """Return the facts as attributes; `parties` are those who must not gain by it: its authors."""
        found: dict[str, Value] = {
            "change.rows": len(self._changed),
            "change.duration_s": 0,  # only a request for access lasts
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

    def _in_production(self, changed: _Changed) -> bool:
        row = changed.row
        if row.section.startswith("p"):
            where = self._field(row, "env")
        else:
            definition = self.after.model.roles.get(row.section) or self.before.model.roles.get(row.section)
            domained = definition is not None and definition.places > _WITHOUT_DOMAIN
            where = row.fields[_WITHOUT_DOMAIN] if domained else None
        return where is None or where == ANY or bool(FUNCTIONS["envMatch"](_PROD, where))

    def _administers(self, changed: _Changed) -> bool:
        """Tell whether a row grants, or hands on, a right to run this place."""
        row = changed.row
        if row.section.startswith("p"):
            return self._is_administration(row)
        return row.section in self._grouping and not self._administrators.isdisjoint(
            {row.fields[1], *self._above(row.fields[1])}
        )

    def _is_administration(self, row: Row) -> bool:
        action = self._field(row, "act")
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
        """Tell whether a row grants a whole type of resource, every verb, or every environment."""
        if not row.section.startswith("p") or self._field(row, "eft") == "deny":
            return False
        action, where, what = (self._field(row, name) or "" for name in ("act", "env", "obj"))
        whole = what == ANY or (what.endswith("/**") and what.count("/") == 1)
        return whole or ANY in {where, action} or action.endswith(".*")

    # --- for whom ----------------------------------------------------------------------------------------------------

    def favours(self, party: Party) -> bool:
        """Tell whether `party` gains by the change; in doubt yes."""
        names = self._names(party)
        if not any(self._touches(one, names) for one in self._changed):
            return False
        cells = self._cells
        if cells is None:
            return True
        return any(cell.change in _FAVOURS and cell.values[0] in {*names, EVERYONE} for cell in cells)

    @cached_property
    def _cells(self) -> tuple[Cell, ...] | None:
        """The cells of grants that change; None where they cannot be told: two languages, or too many to compare."""
        if self.words:
            return None
        try:
            cells = diff(self.before, self.after, self.now_ms)
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
        if row.section in self._segmentation:
            return False  # where an access starts is told apart: `change.segmentation`
        if row.section in self._grouping:
            return row.fields[0] in names
        if row.section.startswith("g"):
            return True  # a collection: which rules it brings in, the comparison tells
        context = self._context(row)
        subject = context.plan.subject if context else None
        denies = self._field(row, "eft") == "deny"
        # An allow that is gone may have obliged to something that the others do not.
        lifts = changed.added is not denies or bool(self._field(row, "then"))
        return lifts and (subject is None or row.fields[subject.position] in names)


def _role_sections(context: CompiledContext) -> Iterator[str]:
    for branch in context.plan.branches:
        for column in branch.columns:
            for term in column.terms:
                if term.kind == ROLE:
                    yield term.section
