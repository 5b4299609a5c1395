"""Which watches a new world can change: by what they name, so that an edit wakes those concerned and not thousands.

Theory of operation. A change of the world is a difference in locks, assets, rows or texts. A lock, an asset and most rows name a
principal, a group or a resource; a watch stands in the index under each name in its question. What names none
(a pattern of workloads, a role's own role, segmentation, another model) wakes every watch: an index may wake one too many,
never one too few. `tests/unit/service/test_watch_index.py` holds that against the engine itself.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from pdp.engine.casbin_text import Row
from pdp.engine.compiler import Snapshot
from pdp.engine.functions import resource_match
from pdp.limits import WATCH_CHANGED_ROWS
from pdp.model.names import Resource
from pdp.model.request import Question
from pdp.replica import Replica
from pdp.signals.locks import Lock, LockKind, LockSet
from pdp.world import World

_WILD = "*"
_OBJECT = "obj"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Watched:
    """One question that is kept an eye on, and what is called when its answer may have changed."""

    question: Question
    wake: Callable[[], None]

    def names(self) -> frozenset[str]:
        """Return every principal and group in the question."""
        question = self.question
        parties = (question.subject, *question.actors)
        found = {str(party.principal) for party in parties} | {group for party in parties for group in party.groups}
        if question.workload is not None:
            found.add(str(question.workload))
        return frozenset(found)

    def resources(self) -> frozenset[str]:
        """Return every resource in the question, with and without its version."""
        named = [item for item in (self.question.resource, self.question.serves) if item is not None]
        return frozenset(text for item in named for text in (str(item), item.base))


class Watches:
    """Every watch of this process, and whoever else must know when an answer may change.

    `len` is the number of watches open, `woken` how many a new world has had decided again.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._world = replica.world
        self._all: set[Watched] = set()
        self._by_name: defaultdict[str, set[Watched]] = defaultdict(set)
        self._by_resource: defaultdict[str, set[Watched]] = defaultdict(set)
        self._open = 0
        self.woken = 0
        replica.on_change(self._moved)

    def __len__(self) -> int:
        return self._open

    @contextlib.contextmanager
    def watching(self, question: Question) -> Iterator[asyncio.Event]:
        """Keep a watch in the index; the event is set when a new world may have changed its answer."""
        changed = asyncio.Event()

        def wake() -> None:
            self.woken += 1
            changed.set()

        leave = self.add(question, wake)
        self._open += 1
        try:
            yield changed
        finally:
            self._open -= 1
            leave()

    def add(self, question: Question, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called when a new world may have changed the answer to `question`; returns what ends that."""
        watched = Watched(question=question, wake=wake)
        names, resources = watched.names(), watched.resources()
        self._all.add(watched)
        for key in names:
            self._by_name[key].add(watched)
        for key in resources:
            self._by_resource[key].add(watched)

        def leave() -> None:
            self._all.discard(watched)
            _remove(self._by_name, names, watched)
            _remove(self._by_resource, resources, watched)

        return leave

    def _moved(self, world: World) -> None:
        old, self._world = self._world, world
        if self._all:
            for watched in tuple(self.affected(old, world)):
                watched.wake()

    def affected(self, old: World, new: World) -> set[Watched]:
        """Return the watches whose answer may differ between two worlds."""
        if old.candidate is not new.candidate:
            return set(self._all)  # a canary begins or ends: for whom it answers, only deciding again can tell
        rows = _changed_rows(old, new)
        if rows is None:
            return set(self._all)
        found: set[Watched] = set()
        for lock in _changed_locks(old.locks, new.locks):
            found |= self._of_lock(lock)
        if old.assets is not new.assets:
            for name in _changed_assets(old, new):
                found |= self._by_resource.get(name, set())
        for row in rows:
            if len(found) == len(self._all):
                break
            found |= self._of_row(row, old, new)
        return found

    def _of_lock(self, lock: Lock) -> set[Watched]:
        target = lock.target
        if target.kind is LockKind.PRINCIPAL and _WILD not in target.principal:
            return self._by_name.get(target.principal, set())
        if target.kind is LockKind.RESOURCE and _WILD not in target.resource:
            return self._by_resource.get(target.resource, set())
        alone = LockSet.EMPTY.added(lock)  # what a lock of another kind meets, only matching it can tell
        return {watched for watched in self._all if alone.match(watched.question, lock.start_ms) is not None}

    def _of_row(self, row: Row, old: World, new: World) -> set[Watched]:
        snapshots = [world.snapshot for world in (old, new) if world.snapshot is not None]
        if row.section == "g":
            return self._of_member(row.fields[0], snapshots)
        if row.section == "g2":
            return self._of_object(row.fields[0], snapshots)
        context = next((item for item in snapshots[-1].model.contexts.values() if item.section == row.section), None)
        if context is None or context.suffix or _OBJECT not in context.policy:
            return self._all
        return self._of_object(row.fields[context.policy.index(_OBJECT)], snapshots)

    def _of_member(self, name: str, snapshots: list[Snapshot]) -> set[Watched]:
        """Return who is concerned by a role of `name`; a role's own role concerns whoever has it."""
        if _WILD in name or any(name in snapshot.role_names for snapshot in snapshots):
            return self._all
        return self._by_name.get(name, set())

    def _of_object(self, name: str, snapshots: list[Snapshot]) -> set[Watched]:
        """Return who is concerned by a resource, a pattern of resources, or a collection."""
        if any(_is_collection(name, snapshot) for snapshot in snapshots):
            return self._all
        if _WILD not in name:
            return self._by_resource.get(name, set())
        return {
            watched
            for resource, watching in self._by_resource.items()
            if _covers(name, resource)
            for watched in watching
        }


def _covers(pattern: str, resource: str) -> bool:
    base = Resource.parse(resource).base
    return resource_match(resource, pattern) or resource_match(base, pattern.partition("@")[0])


def _is_collection(name: str, snapshot: Snapshot) -> bool:
    graph = snapshot.model.roles.get("g2")
    return graph is not None and any(row.section == "g2" and row.fields[1] == name for row in snapshot.rows)


def _remove(index: defaultdict[str, set[Watched]], keys: Iterable[str], watched: Watched) -> None:
    for key in keys:
        index[key].discard(watched)
        if not index[key]:
            del index[key]


def _changed_locks(old: LockSet, new: LockSet) -> list[Lock]:
    if old is new:
        return []
    before, after = {lock.id: lock for lock in old}, {lock.id: lock for lock in new}
    return [
        lock for side, other in ((before, after), (after, before)) for name, lock in side.items() if name not in other
    ]


def _changed_assets(old: World, new: World) -> set[str]:
    names = set(old.assets) | set(new.assets)
    return {name for name in names if old.assets.get(name) is not new.assets.get(name)}


def _changed_rows(old: World, new: World) -> list[Row] | None:
    """Return the rows in one policy and not in the other; None if more than that differs."""
    if old.policy is new.policy:
        return []
    if old.policy is None or new.policy is None:
        return None
    texts = (old.policy.model_text, old.policy.vocabulary_text)
    if texts != (new.policy.model_text, new.policy.vocabulary_text):
        return None
    before, after = _apart(old.policy.snapshot.rows, new.policy.snapshot.rows)
    gone, come = before.keys() - after.keys(), after.keys() - before.keys()
    if len(gone) + len(come) > WATCH_CHANGED_ROWS:  # a policy loaded anew, not edited
        return None
    return [before[key] for key in gone] + [after[key] for key in come]


def _apart(old: Sequence[Row], new: Sequence[Row]) -> tuple[dict[int, Row], dict[int, Row]]:
    """Return the rows between the first and the last that differ, by identity: an edit leaves the others what they were."""
    first = next((at for at, (one, other) in enumerate(zip(old, new, strict=False)) if one is not other), None)
    start = min(len(old), len(new)) if first is None else first
    most = min(len(old), len(new)) - start
    pairs = zip(islice(reversed(old), most), islice(reversed(new), most), strict=True)
    last = next((at for at, (one, other) in enumerate(pairs) if one is not other), most)
    return (
        {id(row): row for row in old[start : len(old) - last]},
        {id(row): row for row in new[start : len(new) - last]},
    )
