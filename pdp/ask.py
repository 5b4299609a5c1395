"""Lists over a whole world: who can, what can, which actions. As `decide` would answer, without a question to decide.

Each entry passes the stages of `decide` (vocabulary, locks, inventory, segmentation, grants), through the same functions,
with `possible` in the place of `evaluate`. What only a question brings is not guessed: request attributes, the claims of a
token and, unless it is given, the workload that asks. An entry that depends on any of these is *conditional*, and says on
what. A list is about a principal that acts itself; a delegated access needs an allow for both (`pdp check` asks that).

Law (tests/spec/test_ask.py): an entry that allows is allowed by `decide` for every completion of the question, and what a
list leaves out is denied for every one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from pdp.decide import GRANTS, SEGMENTATION, Case, grant_request, open_case, segmentation_request
from pdp.engine.classes import EVERYONE, NameClass, check_enumerable, fresh, place, subjects, uses_of
from pdp.engine.compiler import Snapshot
from pdp.engine.name_uses import FieldUses
from pdp.engine.obligations import merge
from pdp.engine.possible import NEVER, Possible, possible
from pdp.errors import BadRequestError, PortcullisError, Reason
from pdp.inventory import BUILTIN_ASSETS
from pdp.model.attributes import NO_ATTRIBUTES, Attributes
from pdp.model.decision import Decision
from pdp.model.listed import Access, Listed
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from pdp.world import World

NOWHERE: Final = "none"
"""The label of a source that is no workload at all."""

_OPEN_PREFIXES: Final = ("request.", "change.", "net.", "subject.")
_ABOUT_SUBJECT: Final = ("subject.id", "subject.kind", "subject.groups")
_WORKLOAD_ID: Final = "subject.workload_id"
_UNASKED: Final = frozenset({Reason.BAD_REQUEST, Reason.UNKNOWN_ACTION, Reason.WORLD_STALE})
"""Refusals that say that there is no list, instead of an empty one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is known of the questions that a list is about.

    `attributes` are `request.*` values. `workload` is the workload that asks, None for a caller without one; with
    `anywhere` it is not known, and each entry says from where it is possible.
    """

    attributes: Attributes = field(default_factory=lambda: NO_ATTRIBUTES)
    workload: Principal | None = None
    anywhere: bool = True


ANY_TERMS: Final = Terms()


def who_can(
    world: World, action: Action, resource: Resource, now_ms: int, terms: Terms = ANY_TERMS
) -> Iterator[Listed | None]:
    """Yield for each class of subjects its entry, or None if it is denied; in order of their names.

    Raises:
        PortcullisError: no such action, or a resource that is not registered: an empty list would say too much.
    """
    snapshot = _policy(world, terms)
    asset = world.asset(resource)
    if asset is None:
        raise PortcullisError(Reason.NOT_FOUND, f"`{resource}` is not in the inventory", advice="pdp asset list")
    lister = _Lister(world, snapshot, now_ms, terms)
    for name in lister.subjects((str(action), str(resource), asset.environment)):
        party = Party(principal=Principal.parse(name.member), groups=frozenset(name.memberships))
        yield lister.entry(name, party, action, resource, groups_known=False)


def what_can(world: World, party: Party, now_ms: int, terms: Terms = ANY_TERMS) -> Iterator[Listed | None]:
    """Yield for each asset of the inventory and action on it the entry of `party`, or None; by asset, then action."""
    snapshot = _policy(world, terms)
    lister = _Lister(world, snapshot, now_ms, terms)
    for name in sorted({*world.assets, *BUILTIN_ASSETS}):
        yield from lister.actions(party, Resource.parse(name))


def actions(
    world: World, party: Party, resource: Resource, now_ms: int, terms: Terms = ANY_TERMS
) -> Iterator[Listed | None]:
    """Yield for each action on `resource` the entry of `party`, or None; nothing at all if it is not registered."""
    snapshot = _policy(world, terms)
    if world.asset(resource) is not None:
        yield from _Lister(world, snapshot, now_ms, terms).actions(party, resource)


def _policy(world: World, terms: Terms) -> Snapshot:
    """Return the policy, if the sources that a list is about can be enumerated."""
    if world.snapshot is None:
        raise PortcullisError(Reason.WORLD_STALE, "no policy is held yet", advice="ask again when the PDP is ready")
    if terms.anywhere:
        check_enumerable(world.snapshot, SEGMENTATION, *_asking(world.snapshot, SEGMENTATION), texts=True)
    return world.snapshot


def _asking(snapshot: Snapshot, context: str) -> tuple[str, ...]:
    """Return the field of a context in which stands who asks: the first, whatever it is called; none without the context."""
    compiled = snapshot.contexts.get(context)
    return compiled.context.request[:1] if compiled else ()


@dataclass(frozen=True, slots=True)
class _Reach:
    """From where segmentation lets an access through: what is possible, and from which sources if not from all."""

    possible: Possible
    sources: tuple[str, ...] = ()


@dataclass(slots=True)
class _Lister:
    """What the entries of one list share."""

    world: World
    snapshot: Snapshot
    now_ms: int
    terms: Terms
    _locked: frozenset[str] = field(init=False)
    _sources: tuple[NameClass, ...] = field(init=False)

    def __post_init__(self) -> None:
        # Who is locked is told apart from the rest of its class.
        self._locked = frozenset(lock.target.principal for lock in self.world.locks if lock.target.principal)
        self._sources = tuple(self._all_sources()) if self.terms.anywhere else ()

    def subjects(self, others: tuple[str, ...]) -> tuple[NameClass, ...]:
        """Return the classes of subjects that policy and locks tell apart, beside the `others` values of a question."""
        uses = [each.compared_with(self._by_name(others)) for each in self._uses(GRANTS)]
        asking = _asking(self.snapshot, GRANTS)
        check_enumerable(self.snapshot, GRANTS, *asking, uses=dict(zip(asking, uses, strict=True)), texts=True)
        names = self._locked.union(*(each.names for each in uses))
        found = subjects(names, uses=uses, where=place(GRANTS, *asking))
        return tuple(name for name in found if not name.named or _is_principal(name.label))

    def _by_name(self, others: tuple[str, ...]) -> dict[str, str]:
        fields = self.snapshot.contexts[GRANTS].context.request[1:]
        return dict(zip(fields, others, strict=False))

    def _uses(self, context: str) -> tuple[FieldUses, ...]:
        return tuple(
            each for name in _asking(self.snapshot, context) for each in uses_of((self.snapshot,), context, name)
        )

    def _all_sources(self) -> Iterator[NameClass]:
        uses = self._uses(SEGMENTATION)
        names = self._locked.union(*(each.names for each in uses))
        workloads = {name for name in names if name.startswith("workload:")}
        if any(each.patterns for each in uses):
            where = place(SEGMENTATION, *_asking(self.snapshot, SEGMENTATION))
            yield from subjects(workloads, uses=uses, where=where, within="workload:")
            return
        yield from subjects(workloads, everyone=False)
        yield NameClass(label=EVERYONE, member=f"{fresh('workload:spiffe://', workloads)}/any", named=False)

    def actions(self, party: Party, resource: Resource) -> Iterator[Listed | None]:
        """Yield the entry of each action on one resource."""
        name = NameClass(label=str(party.principal), member=str(party.principal), named=True)
        info = self.snapshot.vocabulary.types.get(resource.type)
        for verb in sorted(info.verbs if info else ()):
            if not resource.version and info and verb in info.versioned_verbs:
                continue  # such a question is malformed: it needs a version
            yield self.entry(name, party, Action(type=resource.type, verb=verb), resource, groups_known=True)

    def entry(
        self, name: NameClass, party: Party, action: Action, resource: Resource, *, groups_known: bool
    ) -> Listed | None:
        """Return the entry of `party`, which stands for the class `name`, or None if it is denied."""
        workload = self.terms.workload
        question = Question(
            subject=party, action=action, resource=resource, attributes=self.terms.attributes, workload=workload
        )
        case = open_case(self.world, question)
        if isinstance(case, Decision):
            if case.reason in _UNASKED:
                raise BadRequestError(case.detail)
            return None
        if self.world.locks.match(question, self.now_ms) is not None:
            return None
        case = case._replace(attributes=_known(case, name, groups_known=groups_known))
        own = possible(self.snapshot, grant_request(case, party), self._is_open, self.now_ms)
        if own.access is Access.DENY:
            return None
        reach = self._reach(case) if case.segmented else _Reach(Possible(access=Access.ALLOW))
        return _listed(name, action, resource, own, reach)

    def _is_open(self, attribute: str) -> bool:
        """Tell whether a question may yet bring `attribute`; what the inventory does not say, nobody will."""
        if attribute == _WORKLOAD_ID:
            return self.terms.anywhere
        return attribute.startswith(_OPEN_PREFIXES)

    def _reach(self, case: Case) -> _Reach:
        if not self.terms.anywhere:
            return _Reach(self._from(case, case.question.workload, named=True))
        found = {NOWHERE: self._from(case, None, named=True)}
        for source in self._sources:
            found[source.label] = self._from(case, Principal.parse(source.member), named=source.named)
        usable = {label: one for label, one in found.items() if one.access is not Access.DENY}
        if not usable:
            return _Reach(NEVER)
        whole = all(one.access is Access.ALLOW for one in found.values())
        because = tuple(sorted({text for one in usable.values() for text in one.depends_on}))
        rules = tuple(dict.fromkeys(rule for one in usable.values() for rule in one.rules))
        access = Access.ALLOW if whole else Access.CONDITIONAL
        sources = () if len(usable) == len(found) else tuple(usable)
        return _Reach(Possible(access=access, depends_on=because, rules=rules), sources)

    def _from(self, case: Case, workload: Principal | None, *, named: bool) -> Possible:
        """Return what segmentation could answer to a question from `workload`."""
        question = replace(case.question, workload=workload)
        if self.world.locks.match(question, self.now_ms) is not None:
            return NEVER
        attributes = {key: value for key, value in case.attributes.items() if key != _WORKLOAD_ID}
        if named and workload is not None and _WORKLOAD_ID in self.snapshot.vocabulary.attributes:
            attributes[_WORKLOAD_ID] = str(workload)
        asked = case._replace(question=question, attributes=attributes)
        return possible(self.snapshot, segmentation_request(asked, self.now_ms), self._is_open, self.now_ms)


def _known(case: Case, name: NameClass, *, groups_known: bool) -> dict[str, bool | int | float | str | tuple[str, ...]]:
    """Return the attributes that are known of every member of a class."""
    hidden = () if name.named and groups_known else ("subject.groups",) if name.named else _ABOUT_SUBJECT
    return {key: value for key, value in case.attributes.items() if key not in hidden}


def _listed(name: NameClass, action: Action, resource: Resource, own: Possible, reach: _Reach) -> Listed | None:
    obligations = merge((*own.obligations, *reach.possible.obligations))
    if reach.possible.access is Access.DENY or obligations is None:
        return None
    whole = own.access is Access.ALLOW and reach.possible.access is Access.ALLOW
    return Listed(
        subject=name.label,
        action=str(action),
        resource=str(resource),
        access=Access.ALLOW if whole else Access.CONDITIONAL,
        depends_on=tuple(sorted({*own.depends_on, *reach.possible.depends_on})),
        sources=reach.sources,
        rules=(*own.rules, *reach.possible.rules),
        role_path=_path(name, own.role_path),
        obligations=obligations,
    )


def _path(name: NameClass, path: tuple[str, ...]) -> tuple[str, ...]:
    """Return a role path without the made-up member that stands for a class."""
    return path[1:] if path and not name.named and path[0] == name.member else path


def _is_principal(name: str) -> bool:
    try:
        Principal.parse(name)
    except PortcullisError:
        return False
    return True
