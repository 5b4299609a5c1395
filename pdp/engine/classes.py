"""Classes of names: the finitely many sorts of name that a policy can tell apart, each with a member to ask about.

A policy speaks of names that it writes, of patterns, and of everything else. Two names that meet the same patterns and are
not written themselves are answered alike, so one made-up member stands for all of them: that makes lists and comparisons
exact instead of sampled. `subjects` and `objects` return the classes of the two open-ended fields of a question; actions
and environments are enumerated by the vocabulary.
"""

from collections import deque
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from pdp.engine.address_classes import address_classes
from pdp.engine.compiler import CompiledContext, Snapshot
from pdp.engine.functions import ANY, member_match
from pdp.engine.languages import ALL, Tree, Trees
from pdp.engine.name_languages import MEMBER, asked, on_one_line, on_several_lines, paths, principals, resources, users
from pdp.engine.name_uses import FieldUses, Written, field_uses
from pdp.engine.pattern_classes import IS_PATH, PatternClasses, Told, Universe, cannot
from pdp.engine.patterns import is_canonical, read_pattern
from pdp.engine.tables import is_pattern, split_version
from pdp.errors import BadNameError
from pdp.model.names import ENVIRONMENTS, GROUPING_PREFIXES, Principal, Resource

EVERYONE: Final = "*"
"""The class of every principal that the policy does not name."""

OTHERS: Final = "any other"
"""The class of every name that a policy of plain names does not write."""

_BROKEN: Final = ", with a line break"
_FRESH: Final = "any"
_DEEP: Final = "/**"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class NameClass:
    """A sort of name. `label` is how it is written; `member` stands for it; `named` if it is that one name alone.

    `memberships` are further names that stand for the member in role graphs: the group that a class is about.
    """

    label: str
    member: str
    named: bool
    memberships: tuple[str, ...] = ()


def check_enumerable(
    snapshot: Snapshot,
    context: str,
    *fields: str,
    uses: Mapping[str, FieldUses] | None = None,
    texts: bool = False,
    given: Container[str] = (),
) -> None:
    """Refuse if the names of some of `fields` (all of the request, if none is given) fall into no classes.

    Single questions are answered all the same, and so are lists over names that are given (`search`). `uses` are those of the
    context, if the caller has them. With `texts` no question brings anything but texts; of the fields in `given`, the value
    is known.

    Raises:
        BadRequestError: with the field, and what stands in the way (`name_uses.py`).
    """
    compiled = snapshot.contexts.get(context)
    if compiled is None:
        return
    uses = field_uses(snapshot, compiled) if uses is None else uses
    for name in fields or compiled.context.request:
        if name in uses and (why := _obstacle(uses[name], texts=texts, given=given)):
            raise cannot(place(context, name), why)


def place(context: str, field: str) -> str:
    """Return how a refusal names a field."""
    return f"`r{context}.{field}` under `m{context}`"


def _obstacle(uses: FieldUses, *, texts: bool, given: Container[str]) -> str:
    unknown = sorted(name for name in uses.ordered if name not in given)
    if unknown:
        return f"it is ordered beside another field (`{unknown[0]}`)"
    return uses.obstacle or ("" if texts else uses.untold)


def written(snapshots: Iterable[Snapshot], context: str, field: str) -> set[str]:
    """Return every name that rows or matcher write where they test `field` of a context, role graphs included."""
    return set().union(*(uses.names for uses in uses_of(snapshots, context, field)))


def uses_of(snapshots: Iterable[Snapshot], context: str, field: str) -> tuple[FieldUses, ...]:
    """Return how each of the snapshots that knows the field looks at it."""
    known = ((snapshot, snapshot.contexts.get(context)) for snapshot in snapshots)
    found = (field_uses(snapshot, compiled).get(field) for snapshot, compiled in known if compiled is not None)
    return tuple(uses for uses in found if uses is not None)


def plain_names(uses: Collection[FieldUses], where: str) -> tuple[NameClass, ...]:
    """Return the classes of a field whose names are any text: each that is written, those of its patterns, and all others.

    Raises:
        BadRequestError: the patterns tell too many apart, or one is not looked into; `where` says of which field.
    """
    texts = _Texts(uses, where)
    return (*texts.named(), *sorted(texts.unnamed(()).values()))


def compared_names(
    uses: Collection[FieldUses], where: str, first: str
) -> tuple[tuple[NameClass, ...], tuple[NameClass, ...]]:
    """Return the classes of two fields that are compared with each other: of the one called `first`, and of the other.

    Names that are not written may be the same in both fields or not: the other field has each such class twice. Raises as
    `plain_names`; `uses` are those of both.
    """
    texts = _Texts(uses, where)
    found = texts.unnamed(())
    further = texts.unnamed([one.member for one in found.values()])
    mine = sorted(one for met, one in found.items() if met in further)
    others = [replace(further[met], label=one.label) for met, one in found.items() if met in further]
    same = [replace(one, label=f"{one.label}, as `{first}`") for one in mine]
    # A class of one name alone is that name.
    alone = [_named(one.member) for met, one in found.items() if met not in further]
    named = (*texts.named(), *sorted(alone))
    return (*named, *mine), (*named, *sorted(others), *same)


class _Texts:
    """The classes of a field whose names are any text."""

    def __init__(self, uses: Collection[FieldUses], where: str) -> None:
        patterns = {pattern for each in uses for pattern in each.patterns}
        self._networks = {text for kind, text in patterns if kind == "ipMatch"}
        if patterns == {("ipMatch", text) for text in self._networks}:
            patterns = set()
        are_paths = [each.is_path for each in uses]
        self._paths = bool(are_paths) and all(are_paths)
        if any(are_paths) and not self._paths:
            patterns.add(IS_PATH)
        self._told = PatternClasses(patterns, where)
        self._known = {name for each in uses for name in each.names | each.domains}
        self._known |= {word for word in self._told.words if is_canonical(word) or not self._paths}
        self._known -= {""}

    def named(self) -> Iterator[NameClass]:
        """Yield the names that are written, or that a pattern of few names stands for."""
        yield from map(_named, sorted(self._known))

    def unnamed(self, taken: Iterable[str]) -> dict[frozenset[object], NameClass]:
        """Return all other classes, with names that are none of `taken`, by what matches them."""
        avoided = self._known.union(taken)
        if self._networks:
            return dict(self._addresses(avoided))
        usual = self._told.of(self._universe(on_one_line), avoided)
        # What `.` does not match makes classes that nobody thinks of: they are told as what they are.
        broken = self._told.of(self._universe(on_several_lines), avoided) if self._told.patterns else {}
        found: dict[frozenset[object], NameClass] = {met: self._class(met, one, "") for met, one in usual.items()}
        found.update({met: self._class(met, one, _BROKEN) for met, one in broken.items() if met not in found})
        return found

    def _universe(self, lines: Universe) -> Universe:
        return lambda trees: trees.both(paths(trees) if self._paths else asked(trees), lines(trees))

    def _class(self, met: frozenset[Written], one: Told, remark: str) -> NameClass:
        strange = "" if IS_PATH in met or IS_PATH not in self._told.patterns else ", no path"
        return NameClass(label=(one.label or OTHERS) + strange + remark, member=one.member, named=False)

    def _addresses(self, avoided: set[str]) -> Iterator[tuple[frozenset[object], NameClass]]:
        for met, member in address_classes(self._networks, avoided):
            label = _narrowest_networks(met) or f"{OTHERS} address"
            yield frozenset((*met, "")), NameClass(label=label, member=member, named=False)
        yield frozenset(), NameClass(label=OTHERS, member=fresh("", avoided), named=False)


def _named(name: str) -> NameClass:
    return NameClass(label=name, member=name, named=True)


def _narrowest_networks(texts: frozenset[str]) -> str:
    """Return the smallest of networks that all hold an address; the same one may be written in several ways."""
    sizes = {text: read_pattern("ipMatch", text).network.prefixlen for text in texts}
    return " & ".join(f"ipMatch({text})" for text in sorted(texts) if sizes[text] == max(sizes.values()))


def subjects(
    names: Iterable[str],
    *,
    everyone: bool = True,
    known: Iterable[str] | None = None,
    uses: Collection[FieldUses] = (),
    where: str = "",
    within: str = "",
) -> tuple[NameClass, ...]:
    """Return the classes of principals that `names` tell apart: principals, groups, workload patterns, everyone else.

    `known` are all names that the policy writes, if `names` are only those that somebody looks at; `uses` bring patterns of
    Casbin's functions, which make further classes, of principals that begin with `within`.

    Raises:
        BadRequestError: those patterns tell too many apart, or one is not looked into; `where` says of which field.
    """
    mine = set(names)
    if any(each.patterns for each in uses):
        return _matched_subjects(mine, uses, where, within, everyone=everyone)
    known = mine if known is None else set(known)
    classes = [_subject(name, known) for name in mine if _is_subject(name)]
    if everyone:
        classes.append(NameClass(label=EVERYONE, member=fresh("user:", known), named=False))
    return tuple(sorted(classes))


def _matched_subjects(
    mine: set[str], uses: Collection[FieldUses], where: str, within: str, *, everyone: bool
) -> tuple[NameClass, ...]:
    deep = {(MEMBER, name) for name in mine if name.startswith("workload:") and name.endswith(_DEEP)}
    told = PatternClasses(deep | _patterns_of_names(uses), where)
    single = {name for name in mine | told.words if is_principal(name) and name.startswith(within)}
    are_paths = bool(uses) and all(each.is_path for each in uses)

    def universe(trees: Trees) -> Tree:
        beginning = trees.then(trees.text(within), ALL)
        return trees.both(principals(trees), beginning, paths(trees) if are_paths else ALL)

    found = told.of(universe, single)
    classes = [
        NameClass(label=one.label or EVERYONE, member=one.member, named=False)
        for met, one in found.items()
        if (met or everyone) and is_principal(one.member)
    ]
    # Somebody in a group is one whom as few patterns as possible match: what these say, their own classes tell.
    others = told.of(
        lambda trees: trees.both(universe(trees), users(trees)), single.union(one.member for one in found.values())
    )
    fewest = min(map(len, others), default=0)
    somebody = min((one.member for met, one in others.items() if len(met) == fewest), default=fresh("user:", mine))
    groups = [
        NameClass(label=name, member=somebody, named=False, memberships=(name,))
        for name in mine
        if name.startswith("group:")
    ]
    return tuple(sorted((*classes, *groups, *map(_named, single))))


def _patterns_of_names(uses: Iterable[FieldUses]) -> set[Written]:
    """Return the patterns that may match a name of ours: none of them is an address."""
    return {pattern for each in uses for pattern in each.patterns if pattern[0] != "ipMatch"}


def is_principal(name: str) -> bool:
    """Tell whether a name is one of a principal."""
    try:
        Principal.read(name)
    except BadNameError:
        return False
    return True


def _is_subject(name: str) -> bool:
    if name.startswith("group:") or (name.startswith("workload:") and name.endswith(_DEEP)):
        return True
    if name.startswith(GROUPING_PREFIXES):
        return False
    return name.partition(":")[0] in {"user", "agent", "workload"} and ":" in name


def _subject(name: str, known: set[str]) -> NameClass:
    if name.startswith("group:"):
        return NameClass(label=name, member=fresh("user:", known), named=False, memberships=(name,))
    if name.endswith(_DEEP):
        return NameClass(label=name, member=fresh(name.removesuffix("**"), known), named=False)
    return NameClass(label=name, member=name, named=True)


def fresh(prefix: str, known: Iterable[str]) -> str:
    """Return a name below `prefix` that is none of `known` and below none of them."""
    taken = tuple(name for name in known if name.startswith(prefix))
    word = _FRESH
    while any(name.startswith(prefix + word) for name in taken):
        word += "-x"
    return prefix + word


def objects(
    names: Iterable[str],
    types: Iterable[str],
    *,
    exact: bool = False,
    uses: Collection[FieldUses] = (),
    where: str = "",
) -> tuple[NameClass, ...]:
    """Return the classes of resources that `names` (resources and patterns of them) tell apart, for each of `types`.

    Names that exactly the same patterns cover are one class, known by its narrowest patterns; with `exact`, where a row's
    text is compared for equality, a name that is written is a class of its own too. `uses` and `where` as in `subjects`.
    """
    if any(each.patterns for each in uses):
        return tuple(sorted(_matched_objects(set(names), types, uses, where, exact=exact)))
    patterns = sorted({name for name in names if "/" in name and ":" not in name.partition("/")[0]})
    found: dict[tuple[str, frozenset[str], str], NameClass] = {}
    known, trie = frozenset(patterns), _trie(patterns)
    for member in _members(patterns, types, exact=exact):
        kind = member.partition("/")[0]
        covering = frozenset(pattern for pattern in _met(trie, member) if member_match(member, pattern))
        key = (kind, covering, member if exact and member in known else "")
        if key not in found:
            named = member in known and not is_pattern(member)
            label = member if named else _narrowest(covering) if covering else f"{kind}{_DEEP}"
            found[key] = NameClass(label=label, member=member, named=named)
    return tuple(sorted(found.values()))


def _matched_objects(
    names: set[str], types: Iterable[str], uses: Collection[FieldUses], where: str, *, exact: bool
) -> Iterator[NameClass]:
    own = {name for name in names if "/" in name and ":" not in name.partition("/")[0]}
    told = PatternClasses({(MEMBER, name) for name in own} | _patterns_of_names(uses), where)
    single = {name for name in told.words | (own if exact else set()) if is_resource(name)}
    yield from map(_named, single)
    for kind in sorted({*types, *(name.partition("/")[0] for name in own)}):
        found = told.of(partial(resources, types=(kind,)), single)
        for met, one in found.items():
            of_kind = () if any(each == MEMBER for each, _ in met) else (f"{kind}{_DEEP}",)
            label = " & ".join(filter(None, (*of_kind, one.label)))
            yield NameClass(label=label, member=one.member, named=one.member in own)


def is_resource(name: str) -> bool:
    """Tell whether a name is one of a resource."""
    try:
        Resource.parse(name)
    except BadNameError:
        return False
    return True


@dataclass(slots=True)
class _Node:
    """Where patterns stand that begin alike, so that a name meets a few of them and not each of 100,000."""

    here: list[str] = field(default_factory=list)
    below: dict[str, "_Node"] = field(default_factory=dict)


def _trie(patterns: Iterable[str]) -> _Node:
    root = _Node()
    for pattern in patterns:
        node = root
        for segment in split_version(pattern)[0].split("/"):
            node = node.below.setdefault(segment, _Node())
        node.here.append(pattern)
    return root


def _met(trie: _Node, member: str) -> Iterator[str]:
    """Yield every pattern that may cover `member`: all that do, and some whose version is another."""
    nodes = [trie]
    for segment in split_version(member)[0].split("/"):
        for node in nodes:
            if "**" in node.below:  # it takes this segment and all that follow
                yield from node.below["**"].here
        nodes = [node.below[word] for node in nodes for word in {segment, "*"} if word in node.below and word != "**"]
    for node in nodes:
        yield from node.here


def _narrowest(patterns: frozenset[str]) -> str:
    """Return the patterns that cover no other of the set, as one label."""
    wide = {one for one in patterns for other in patterns if one != other and member_match(_stand_in(other), one)}
    return " & ".join(sorted(patterns - wide or patterns))


def _stand_in(pattern: str) -> str:
    """Return a member of `pattern` that stands for all of it: what covers this one covers the others, but for depth."""
    base, version = split_version(pattern)
    segments = ["any-y" if segment == "*" else segment for segment in base.split("/")]
    if segments[-1] == "**":
        segments[-1:] = ["any-y", "any-z"]
    return "/".join(segments) + (f"@{version}" if version else "")


def _members(patterns: list[str], types: Iterable[str], *, exact: bool) -> Iterator[str]:
    """Yield at least one member of every class that `patterns` tell apart."""
    by_type: dict[str, list[tuple[list[str], str]]] = {kind: [] for kind in types}
    for pattern in patterns:
        base, version = split_version(pattern)
        kind, *segments = base.split("/")
        by_type.setdefault(kind, []).append((segments, version))
    for kind in sorted(by_type):
        mine = by_type[kind]
        for path, covering in _paths([segments for segments, _ in mine]):
            versions = {mine[number][1] for number in covering} | {""}
            if exact:
                versions.add(fresh("", versions))
            for version in sorted(versions):
                yield f"{kind}/{path}" + (f"@{version}" if version else "")


def _paths(patterns: list[list[str]]) -> Iterator[tuple[str, frozenset[int]]]:
    """Yield a path for every set of patterns that one path can meet, with the numbers of those that cover it.

    The patterns are walked together, as one automaton: a state says how far into which pattern we are; each is visited
    once, so this ends however the patterns overlap.
    """
    other = fresh("", {segment for pattern in patterns for segment in pattern})
    start = frozenset((number, 0) for number in range(len(patterns)))
    waiting: deque[tuple[tuple[str, ...], frozenset[tuple[int, int]]]] = deque([((), start)])
    seen: set[frozenset[tuple[int, int]]] = set()
    while waiting:
        walked, state = waiting.popleft()
        if walked:
            yield "/".join(walked), frozenset(number for number, at in state if at == len(patterns[number]))
        by_word, any_word = _next(patterns, state)
        for segment in (*sorted(by_word), other):
            following = frozenset((*any_word, *by_word.get(segment, ())))
            if following not in seen:
                seen.add(following)
                waiting.append(((*walked, segment), following))


def _next(
    patterns: list[list[str]], state: frozenset[tuple[int, int]]
) -> tuple[dict[str, list[tuple[int, int]]], list[tuple[int, int]]]:
    """Return where a state leads: by a word that some pattern wants, and by whatever word."""
    by_word: dict[str, list[tuple[int, int]]] = {}
    any_word: list[tuple[int, int]] = []
    for number, at in state:
        pattern = patterns[number]
        if at == len(pattern):
            if pattern[-1] == "**":
                any_word.append((number, at))
        elif pattern[at] in {"*", "**"}:
            any_word.append((number, at + 1))
        else:
            by_word.setdefault(pattern[at], []).append((number, at + 1))
    return by_word, any_word


def environments(compiled: CompiledContext, snapshots: Iterable[Snapshot]) -> tuple[str, ...]:
    """Return the environments, and every further domain that a role row names."""
    found = set(ENVIRONMENTS)
    sections = {term.section for column in compiled.plan.columns for term in column.terms if term.domain is not None}
    for snapshot in snapshots:
        for section in sections & set(snapshot.graphs):
            found.update(snapshot.graphs[section].reaches)
    return tuple(
        sorted(found - {ANY}, key=lambda name: (ENVIRONMENTS.index(name) if name in ENVIRONMENTS else 9, name))
    )
