"""The periodic review of access: what is granted and was not used, wider than it was used, or held by one who should not.

A pure function over a world and the counts of what was allowed in it. Nobody loses a right here: each finding says what it saw
and, where a smaller row would have covered every use, that row; people decide.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Final

from pdp.engine.casbin_text import OPEN, Row, print_row
from pdp.engine.lint import Grant, Reading, Surroundings, narrowest
from pdp.limits import REVIEW_SELDOM
from pdp.model.names import ResourcePattern, counted
from pdp.world import World

_SECTION: Final = "g"
_TIMED_FIELDS: Final = 5
_SEPARATED: Final = (("approve", "promote"), ("approve", "deploy"), ("register_version", "approve"))
"""Pairs of verbs on one type that nobody should hold both of: who makes or releases something is not who judges it."""


class Kind(StrEnum):
    """What a finding is about, the gravest first."""

    CONFLICT = "conflict"
    DORMANT = "dormant"
    UNUSED_ASSIGNMENT = "unused assignment"
    JUST_IN_TIME = "could be just in time"
    UNUSED_GRANT = "unused grant"
    WIDE_GRANT = "wider than used"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What was allowed in the window: how often, by (subject, rules, action, resource); and who asked for anything at all."""

    allowed: Mapping[tuple[str, tuple[str, ...], str, str], int]
    seen: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One thing to look at; `replacement` is a row that would have covered every use, empty if none would."""

    kind: Kind
    who: str
    row: str
    text: str
    told: str
    replacement: str = ""


def review(world: World, usage: Usage, now_ms: int) -> tuple[Found, ...]:
    """Return what the review of a world finds, the gravest first."""
    if world.snapshot is None:
        return ()
    work = _Review(reading=Reading(world.snapshot, Surroundings(now_ms=now_ms)), rows=world.snapshot.rows, usage=usage)
    found = [*work.conflicts(), *work.people(), *work.grants()]
    order = list(Kind)
    return tuple(sorted(found, key=lambda one: (order.index(one.kind), one.who, one.row)))


@dataclass(kw_only=True)
class _Review:
    reading: Reading
    rows: Sequence[Row]
    usage: Usage
    used: dict[str, Counter[tuple[str, str]]] = field(default_factory=lambda: defaultdict(Counter))
    by_subject: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def __post_init__(self) -> None:
        for (subject, rules, action, resource), count in self.usage.allowed.items():
            for rule in rules:
                self.used[rule][action, resource] += count
                self.by_subject[subject][rule] += count

    @cached_property
    def rules_of(self) -> Mapping[str, list[Grant]]:
        """The grants of each role or principal, by its own name."""
        found: dict[str, list[Grant]] = defaultdict(list)
        for grant in self.reading.grants:
            if grant.rule.allow:
                found[grant.role].append(grant)
        return found

    @cached_property
    def assignments(self) -> list[Row]:
        """The rows that give a role to a principal of its own name: of a group, the log does not say who holds it."""
        return [row for row in self.rows if row.section == _SECTION and _is_principal(row.fields[0])]

    def _grants_under(self, name: str) -> list[Grant]:
        return [grant for role in self.reading.included.get(name, {name}) for grant in self.rules_of.get(role, ())]

    def people(self) -> Iterator[Found]:
        """Find principals that never asked, and roles that they hold and do not need, or seldom."""
        for row in self.assignments:
            who, role = row.fields[:2]
            times = sum(self.by_subject[who][grant.rule.row.id] for grant in self._grants_under(role))
            if who not in self.usage.seen:
                yield _found(Kind.DORMANT, who, row, "asked for nothing at all")
            elif not times:
                yield _found(Kind.UNUSED_ASSIGNMENT, who, row, f"used nothing that `{role}` grants")
            elif times <= REVIEW_SELDOM and _standing(row) and row.fields[2:3] in (("prod",), ("*",)):
                yield _found(
                    Kind.JUST_IN_TIME, who, row, f"used {counted(times, 'time')}: `pdp access request` would have done"
                )

    def conflicts(self) -> Iterator[Found]:
        """Find principals that hold both sides of what should be apart, by whichever roles."""
        first = {row.fields[0]: row for row in reversed(self.assignments)}
        for who, row in sorted(first.items()):
            actions = {a: g for g in self._grants_under(who) for a in self.reading.actions_of(g.actions)}
            for kind in self.reading.snapshot.vocabulary.types:
                for one, other in _SEPARATED:
                    left, right = actions.get(f"{kind}.{one}"), actions.get(f"{kind}.{other}")
                    if left is not None and right is not None:
                        told = f"may {kind}.{one} ({left.rule.row.id}) and {kind}.{other} ({right.rule.row.id})"
                        yield _found(Kind.CONFLICT, who, row, told)

    def grants(self) -> Iterator[Found]:
        """Find grants that nothing used, and those wider than their use, with the smallest row that covered it."""
        for grant in self.reading.grants:
            if not grant.rule.allow:
                continue
            row, uses = grant.rule.row, self.used.get(grant.rule.row.id)
            if not uses:
                yield _found(Kind.UNUSED_GRANT, grant.role, row, "nothing was allowed by it")
                continue
            smaller = _smaller(grant, {action for action, _ in uses}, sorted({name for _, name in uses}), self.reading)
            if smaller.fields != row.fields:
                told = f"{counted(uses.total(), 'use')}, of {counted(len({name for _, name in uses}), 'resource')}"
                yield _found(Kind.WIDE_GRANT, grant.role, row, told, replacement=print_row(smaller))


def _smaller(grant: Grant, actions: set[str], resources: Sequence[str], reading: Reading) -> Row:
    """Return the row with only the actions and the narrowest resources that were used; every use is still covered."""
    fields = list(grant.rule.row.fields)
    if reading.actions_of(grant.actions) - actions:
        fields[fields.index(grant.actions)] = _spelled(actions)
    narrow = narrowest(resources)
    if narrow != grant.resources and "/" in grant.resources and _covers(grant.resources, narrow):
        fields[fields.index(grant.resources)] = narrow
    row = grant.rule.row
    return Row(row.section, tuple(fields), row.file, row.line)


def _spelled(actions: set[str]) -> str:
    """Return actions of one type as a row writes them: `dataset.list|read`."""
    kinds = {action.partition(".")[0] for action in actions}
    return f"{kinds.pop()}.{'|'.join(sorted(action.partition('.')[2] for action in actions))}"


def _covers(wide: str, narrow: str) -> bool:
    """Tell whether a pattern is smaller: only a `**` that ends the wide one can be narrowed, and only below itself."""
    parsed = ResourcePattern.parse(wide)
    return str(parsed).endswith("/**") and narrow.startswith(wide.removesuffix("**")) and narrow != wide


def _found(kind: Kind, who: str, row: Row, told: str, replacement: str = "") -> Found:
    return Found(kind=kind, who=who, row=row.id, text=print_row(row), told=told, replacement=replacement)


def _is_principal(name: str) -> bool:
    return name.partition(":")[0] in {"user", "agent", "workload"} and not name.endswith("**")


def _standing(row: Row) -> bool:
    """Tell whether an assignment has no end."""
    return len(row.fields) < _TIMED_FIELDS or row.fields[-1] == OPEN


def smaller_rows(rows: Sequence[Row], found: Sequence[Found]) -> dict[str, list[str]]:
    """Return the rows of each file with every replacement in place, as text; what was unused stays for people to judge."""
    exchanged = {one.row: one.replacement for one in found if one.replacement}
    files: dict[str, list[str]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.file, row.line)):
        files[row.file].append(exchanged.get(row.id) or print_row(row))
    return files
