"""Classes of names: the finitely many sorts of name that a policy can tell apart, each with a member to ask about.

A policy speaks of names that it writes, of patterns, and of everything else. Two names that meet the same patterns and are
not written themselves are answered alike, so one made-up member stands for all of them: that makes lists and comparisons
exact instead of sampled. `subjects` and `objects` return the classes of the two open-ended fields of a question; actions
and environments are enumerated by the vocabulary.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from pdp.engine.compiler import CompiledContext, Snapshot
from pdp.engine.functions import ANY, member_match
from pdp.engine.plan import EQUAL, ROLE
from pdp.engine.tables import is_pattern, split_version
from pdp.errors import BadRequestError
from pdp.model.names import ENVIRONMENTS, GROUPING_PREFIXES

EVERYONE: Final = "*"
"""The class of every principal that the policy does not name."""

_FRESH: Final = "any"
_DEEP: Final = "/**"
_KINDS: Final = frozenset({EQUAL, ROLE, "actionMatch", "resourceMatch", "envMatch"})


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class NameClass:
    """A sort of name. `label` is how it is written; `member` stands for it; `named` if it is that one name alone.

    `memberships` are further names that stand for the member in role graphs: the group that a class is about.
    """

    label: str
    member: str
    named: bool
    memberships: tuple[str, ...] = ()


def check_enumerable(snapshot: Snapshot, context: str) -> None:
    """Refuse a context whose matcher tells names apart in a way that is no class of names.

    Every part of the matcher must compare a column of the rows with a field of the request, by equality, a role graph or a
    function of our own names: then the classes here are all there are. Of other matchers single questions are answered
    (`evaluate`), but no lists and comparisons.

    Raises:
        BadRequestError: it is another matcher.
    """
    compiled = snapshot.contexts.get(context)
    if compiled is None:
        return
    terms = [term for column in compiled.plan.columns for term in column.terms]
    if snapshot.model.plain or not compiled.direct or any(term.path or term.kind not in _KINDS for term in terms):
        message = f"the matcher `m{context}` cannot be enumerated: lists and comparisons need columns of our own names"
        raise BadRequestError(message)


def written(snapshots: Iterable[Snapshot], context: str, field: str) -> set[str]:
    """Return every name that rows write where they test `field` of a context: in its columns and in its role graphs."""
    names: set[str] = set()
    for snapshot in snapshots:
        compiled = snapshot.contexts.get(context)
        if compiled is None or field not in compiled.context.request:
            continue
        position = compiled.context.request.index(field)
        for column in compiled.plan.columns:
            terms = [term for term in column.terms if term.field == position]
            if terms:
                names.update(rule.row.fields[column.position] for rule in compiled.rules)
            for term in terms:
                if term.kind == ROLE:
                    names.update(*_graph_names(snapshot, term.section))
    return names


def _graph_names(snapshot: Snapshot, section: str) -> tuple[set[str], ...]:
    links = snapshot.graphs[section].links
    return set(links), {link.target for each in links.values() for link in each}


def subjects(names: Iterable[str], *, everyone: bool = True) -> tuple[NameClass, ...]:
    """Return the classes of principals that `names` tell apart: principals, groups, workload patterns, everyone else."""
    known = set(names)
    classes = [_subject(name, known) for name in known if _is_subject(name)]
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
    for member in _members(patterns, types, exact=exact):
        kind = member.partition("/")[0]
        covering = frozenset(pattern for pattern in patterns if member_match(member, pattern))
        key = (kind, covering, member if exact and member in patterns else "")
        if key not in found:
            named = member in patterns and not is_pattern(member)
            label = member if named else _narrowest(covering) if covering else f"{kind}{_DEEP}"
            found[key] = NameClass(label=label, member=member, named=named)
    return tuple(sorted(found.values()))


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
    waiting: list[tuple[tuple[str, ...], frozenset[tuple[int, int]]]] = [((), start)]
    seen: set[frozenset[tuple[int, int]]] = set()
    while waiting:
        walked, state = waiting.pop(0)
        if walked:
            yield "/".join(walked), frozenset(number for number, at in state if at == len(patterns[number]))
        words = {patterns[number][at] for number, at in state if at < len(patterns[number])}
        for segment in (*sorted(words - {"*", "**"}), other):
            following = frozenset(_next(patterns, state, segment))
            if following not in seen:
                seen.add(following)
                waiting.append(((*walked, segment), following))


def _next(patterns: list[list[str]], state: frozenset[tuple[int, int]], segment: str) -> Iterator[tuple[int, int]]:
    for number, at in state:
        pattern = patterns[number]
        if at == len(pattern):
            if pattern[-1] == "**":
                yield number, at
        elif pattern[at] in {"*", "**", segment}:
            yield number, at + 1


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
