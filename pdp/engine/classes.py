"""Classes of names: the finitely many sorts of name that a policy can tell apart, each with a member to ask about.

A policy speaks of names that it writes, of patterns, and of everything else. Two names that meet the same patterns and are
not written themselves are answered alike, so one made-up member stands for all of them: that makes lists and comparisons
exact instead of sampled. `subjects` and `objects` return the classes of the two open-ended fields of a question; actions
and environments are enumerated by the vocabulary.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from pdp.engine.compiler import CompiledContext, Snapshot
from pdp.engine.functions import ANY, member_match
from pdp.engine.name_uses import FieldUses, field_uses
from pdp.engine.tables import is_pattern, split_version
from pdp.errors import BadRequestError
from pdp.model.names import ENVIRONMENTS, GROUPING_PREFIXES

EVERYONE: Final = "*"
"""The class of every principal that the policy does not name."""

OTHERS: Final = "any other"
"""The class of every name that a policy of plain names does not write."""

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
    snapshot: Snapshot, context: str, *fields: str, uses: Mapping[str, FieldUses] | None = None
) -> None:
    """Refuse if the names of some of `fields` (all of the request, if none is given) fall into no classes.

    Single questions are answered all the same, and so are lists over names that are given (`search`). `uses` are those of the
    context, if the caller has them.

    Raises:
        BadRequestError: with the field, and what stands in the way (`name_uses.py`).
    """
    compiled = snapshot.contexts.get(context)
    if compiled is None:
        return
    uses = field_uses(snapshot, compiled) if uses is None else uses
    for name in fields or compiled.context.request:
        if name in uses and uses[name].obstacle:
            message = f"the names of `r{context}.{name}` cannot be enumerated under `m{context}`: {uses[name].obstacle}"
            raise BadRequestError(message)


def written(snapshots: Iterable[Snapshot], context: str, field: str) -> set[str]:
    """Return every name that rows or matcher write where they test `field` of a context, role graphs included."""
    return set().union(*(uses.names for uses in uses_of(snapshots, context, field)))


def uses_of(snapshots: Iterable[Snapshot], context: str, field: str) -> tuple[FieldUses, ...]:
    """Return how each of the snapshots that knows the field looks at it."""
    known = ((snapshot, snapshot.contexts.get(context)) for snapshot in snapshots)
    found = (field_uses(snapshot, compiled).get(field) for snapshot, compiled in known if compiled is not None)
    return tuple(uses for uses in found if uses is not None)


def plain_names(uses: Iterable[FieldUses]) -> tuple[NameClass, ...]:
    """Return the classes of a field whose names are any text: each that is written, and all others as one."""
    known = {name for each in uses for name in each.names | each.domains} - {""}
    others = NameClass(label=OTHERS, member=fresh("", known), named=False)
    return (*(NameClass(label=name, member=name, named=True) for name in sorted(known)), others)


def subjects(
    names: Iterable[str], *, everyone: bool = True, known: Iterable[str] | None = None
) -> tuple[NameClass, ...]:
    """Return the classes of principals that `names` tell apart: principals, groups, workload patterns, everyone else.

    `known` are all names that the policy writes, if `names` are only those that somebody looks at.
    """
    mine = set(names)
    known = mine if known is None else set(known)
    classes = [_subject(name, known) for name in mine if _is_subject(name)]
    if everyone:
        classes.append(NameClass(label=EVERYONE, member=fresh("user:", known), named=False))
    return tuple(sorted(classes))


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


def objects(names: Iterable[str], types: Iterable[str], *, exact: bool = False) -> tuple[NameClass, ...]:
    """Return the classes of resources that `names` (resources and patterns of them) tell apart, for each of `types`.

    Names that exactly the same patterns cover are one class, known by its narrowest patterns; with `exact`, where a row's
    text is compared for equality, a name that is written is a class of its own too.
    """
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
