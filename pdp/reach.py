"""From where what can be reached, over how many hops: segmentation as a graph, with the rules on its paths.

A workload stands in segments. It *hops* to an asset if segmentation lets some action through, or might: what the question
would bring is left open, and named. From an endpoint the way goes on, for behind it stands a server, a workload of the
endpoint's segment, and who uses the endpoint uses what the server may read. So "can any notebook reach personal data in two
hops" is a search over segments, exact for every class of workloads that the policy tells apart.

It is about segmentation alone: whether some identity is granted the access besides is what `pdp who-can` answers.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from pdp.decide import SEGMENTATION
from pdp.engine.classes import NameClass, check_enumerable, place, subjects, uses_of, written
from pdp.engine.compiler import Snapshot
from pdp.engine.functions import member_match
from pdp.engine.possible import possible
from pdp.engine.question import EngineRequest
from pdp.errors import BadRequestError
from pdp.model.attributes import Attributes
from pdp.model.listed import Access
from pdp.model.names import NO_SEGMENT, Resource

_SERVED: Final = "invoke"
"""A type with this verb is served: behind each of its assets stands a workload."""
_OPEN: Final = ("request.", "net.", "subject.", "signal.", "actor.")
_SEGMENT: Final = "segment:"
_COLLECTION: Final = "collection:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One step: from a segment (or one workload of it) to an asset in segment `to`.

    `actions` are all that segmentation lets through, `rules` the rows that do, `depends_on` the conditions that are left
    open: none if some action passes whatever the question brings.
    """

    source: str
    asset: str
    to: str
    actions: tuple[str, ...]
    rules: tuple[str, ...]
    depends_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """A shortest way to an asset."""

    hops: tuple[Hop, ...]

    @property
    def certain(self) -> bool:
        """Whether it depends on nothing that a question would have to bring."""
        return not any(hop.depends_on for hop in self.hops)


@dataclass(frozen=True)
class Terrain:
    """The segmentation of a policy over an inventory: `assets` are attributes by name, with their prefix `resource.`."""

    snapshot: Snapshot
    assets: Mapping[str, Attributes]
    now_ms: int
    _hops: dict[str, tuple[Hop, ...]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if SEGMENTATION not in self.snapshot.contexts:
            raise BadRequestError("this policy has no segmentation: no `r2`, `p2`, `m2`")
        # Actions are those of the vocabulary, and targets those of the inventory.
        check_enumerable(self.snapshot, SEGMENTATION, "src", texts=True)

    # --- what is where -----------------------------------------------------------------------------------------------

    @cached_property
    def workloads(self) -> Mapping[str, tuple[NameClass, ...]]:
        """The classes of workloads in each segment."""
        uses = uses_of((self.snapshot,), SEGMENTATION, "src")
        names = {name for each in uses for name in each.names if name.startswith("workload:")}
        found: dict[str, list[NameClass]] = {}
        for name in subjects(names, everyone=False, uses=uses, where=place(SEGMENTATION, "src"), within="workload:"):
            for segment in self._homes(name.member):
                found.setdefault(segment, []).append(name)
        return {segment: tuple(each) for segment, each in found.items()}

    def _homes(self, name: str) -> tuple[str, ...]:
        found = self.snapshot.groups_of("g3", name, self.now_ms)
        return tuple(sorted(one for one in found if one.startswith(_SEGMENT))) or (NO_SEGMENT,)

    @cached_property
    def placed(self) -> Mapping[str, tuple[str, ...]]:
        """The segments of each asset."""
        return {name: self._segments(name, attributes) for name, attributes in self.assets.items()}

    def _segments(self, name: str, attributes: Attributes) -> tuple[str, ...]:
        written_down = attributes.get("resource.segment")
        return (str(written_down),) if written_down is not None else self._homes(name)

    @cached_property
    def segments(self) -> tuple[str, ...]:
        """Every segment that a rule names, or that something stands in."""
        named = written((self.snapshot,), SEGMENTATION, "src") | written((self.snapshot,), SEGMENTATION, "dst")
        inhabited = {*self.workloads, *(one for each in self.placed.values() for one in each)}
        return tuple(sorted({name for name in named if name.startswith(_SEGMENT)} | inhabited))

    # --- ways --------------------------------------------------------------------------------------------------------

    def reach(self, start: str, wanted: str, *, hops: int) -> Iterator[Path]:
        """Yield a shortest path from `start` (a segment or a workload) to each asset that `wanted` names.

        `wanted` is an asset, a pattern of assets, or a collection; `hops` the most that a path may have.

        Raises:
            BadRequestError: `start` is neither, or nothing in the inventory is `wanted`.
        """
        targets = self._targets(wanted)
        queue: list[tuple[str, tuple[Hop, ...]]] = [(start, ())]
        seen = {start}
        found: set[str] = set()
        for standpoint, way in queue:
            if len(way) == hops:
                break
            for hop in self.hops_from(standpoint):
                if hop.asset in targets and hop.asset not in found:
                    found.add(hop.asset)
                    yield Path(hops=(*way, hop))
                if self._is_served(hop) and hop.to not in seen and self.workloads.get(hop.to):
                    seen.add(hop.to)
                    queue.append((hop.to, (*way, hop)))

    def _targets(self, wanted: str) -> frozenset[str]:
        if wanted.startswith(_COLLECTION):
            found = {name for name in self.assets if wanted in self.snapshot.groups_of("g2", name, self.now_ms)}
        else:
            found = {name for name in self.assets if member_match(name, wanted)}
        if not found:
            raise BadRequestError(f"nothing in the inventory is `{wanted}`")
        return frozenset(found)

    def _is_served(self, hop: Hop) -> bool:
        kind = hop.asset.partition("/")[0]
        return f"{kind}.{_SERVED}" in hop.actions

    def hops_from(self, standpoint: str) -> tuple[Hop, ...]:
        """Return every hop from a segment, or from one workload, by the name of the asset.

        Raises:
            BadRequestError: it is neither.
        """
        if standpoint not in self._hops:
            self._hops[standpoint] = tuple(self._all_hops(standpoint))
        return self._hops[standpoint]

    def _all_hops(self, standpoint: str) -> Iterator[Hop]:
        sources = tuple(self._sources(standpoint))
        for name in sorted(self.assets):
            for segment in self.placed[name]:
                hop = self._hop(sources, name, segment)
                if hop is not None:
                    yield hop

    def _sources(self, standpoint: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield name and segments of everybody who stands there: the segment itself, for rules that name it, and workloads."""
        if standpoint.startswith(_SEGMENT):
            yield standpoint, (standpoint,)
            for one in self.workloads.get(standpoint, ()):
                yield one.member, self._homes(one.member)
        elif standpoint.startswith("workload:"):
            yield standpoint, self._homes(standpoint)
        else:
            raise BadRequestError(f"`{standpoint}` is neither `segment:…` nor `workload:…`")

    def _hop(self, sources: Iterable[tuple[str, tuple[str, ...]]], asset: str, segment: str) -> Hop | None:
        """Return the hop of whoever of `sources` comes farthest with the least conditions; None if nobody gets there."""
        actions: dict[str, None] = {}
        rules: dict[str, None] = {}
        depends: tuple[str, ...] | None = None
        for name, homes in sources:
            for action in self._actions(asset):
                one = possible(self.snapshot, self._request(name, homes, action, asset, segment), _is_open, self.now_ms)
                if one.access is Access.DENY:
                    continue
                actions[action] = None
                rules.update(dict.fromkeys(one.rules))
                depends = one.depends_on if depends is None or len(one.depends_on) < len(depends) else depends
        if depends is None:
            return None
        first = next(iter(sources))[0]
        return Hop(
            source=first, asset=asset, to=segment, actions=tuple(actions), rules=tuple(rules), depends_on=depends
        )

    def _actions(self, asset: str) -> list[str]:
        kind = Resource.parse(asset).type
        info = self.snapshot.vocabulary.types.get(kind)
        return [f"{kind}.{verb}" for verb in sorted(info.verbs)] if info is not None and info.segmented else []

    def _request(self, name: str, homes: tuple[str, ...], action: str, asset: str, segment: str) -> EngineRequest:
        known = self.snapshot.vocabulary.attributes
        attributes = {"resource.type": asset.partition("/")[0], "resource.registered": True, **self.assets[asset]}
        return EngineRequest(
            context=SEGMENTATION,
            values=(name, action, asset),
            memberships={"src": homes, "dst": (segment,)},
            attributes={key: value for key, value in attributes.items() if key in known},
        )

    # --- what looks wrong --------------------------------------------------------------------------------------------

    def oddities(self) -> Iterator[str]:
        """Yield what is probably not meant, in plain words."""
        ruled = {rule.row.fields[0] for rule in self.snapshot.contexts[SEGMENTATION].rules}
        for segment in self.segments:
            if segment == NO_SEGMENT:
                continue
            holds = any(segment in each for each in self.placed.values())
            if segment in ruled and not self.workloads.get(segment):
                yield f"{segment}: rules say what it may reach, and no workload stands in it"
            elif not holds and not self.workloads.get(segment):
                yield f"{segment}: nothing stands in it"
        for name, where in self.placed.items():
            info = self.snapshot.vocabulary.types.get(name.partition("/")[0])
            if where == (NO_SEGMENT,) and info is not None and info.segmented:
                yield f"{name}: stands in no segment, so only what may reach {NO_SEGMENT} reaches it"


def _is_open(attribute: str) -> bool:
    return attribute.startswith(_OPEN)
