"""Deciding logged decisions again: in the very world that each names, or under a policy that is only proposed."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pdp import decide as engine
from pdp.audit.replay import Logged, Lost, Said, logged
from pdp.errors import ConfigError
from pdp.limits import LOG_READ_ENTRIES, REPLAY_WORLDS
from pdp.model.decision import Decision
from pdp.ports import WorldLog
from pdp.replica import Prepared, Replica
from pdp.trust.entry import peek_seq
from pdp.world import World

Record = tuple[str, Mapping[str, Any]]
"""The name of a chain, and one of its records."""
NO_WORLD: Final = "the world it names is not in this log"


class Worlds:
    """The worlds of a log, by number: folded forward as they are asked for, the newest kept; each entry is verified."""

    def __init__(self, log: WorldLog, fresh: Callable[[], Replica], *, now_ms: int) -> None:
        self._log = log
        self._fresh = fresh
        self._now_ms = now_ms
        self._replica = fresh()
        self._kept: dict[int, World] = {}

    async def at(self, seq: int) -> World | None:
        """Return world `seq`, None if the log does not hold it.

        Raises:
            ConfigError: an entry does not verify.
        """
        if seq in self._kept:
            return self._kept[seq]
        if seq < self._replica.world.seq:  # rare: chains are nearly in the order of their worlds
            self._replica, self._kept = self._fresh(), {}
        while self._replica.world.seq < seq:
            if not await self._advance(seq):
                return None
        return self._kept.get(seq)

    async def _advance(self, seq: int) -> bool:
        """Fold what is next, not beyond `seq`."""
        after = self._replica.world.seq
        entries = await self._log.read(after=after, limit=min(LOG_READ_ENTRIES, seq - after))
        if not entries:
            return False
        if peek_seq(entries[0]) != after + 1 and not await self._begin():
            return False
        for entry in entries:
            if peek_seq(entry) == self._replica.world.seq + 1:
                self._keep(self._replica.prepare(entry, now_ms=self._now_ms))
        return True

    async def _begin(self) -> bool:
        """Begin at the log's snapshot where its first entries are gone; False if that is no help."""
        snapshot = await self._log.snapshot()
        if snapshot is None or self._replica.world.seq:
            return False
        self._keep(self._replica.prepare_stored(snapshot, now_ms=self._now_ms))
        return True

    def _keep(self, prepared: object) -> None:
        if not isinstance(prepared, Prepared):
            told = f"what follows entry {self._replica.world.seq} does not verify: {prepared}"
            raise ConfigError(told, advice="replay on a whole copy of the state directory")
        self._replica.commit(prepared)
        self._kept[self._replica.world.seq] = self._replica.world
        if len(self._kept) > REPLAY_WORLDS:
            self._kept.pop(next(iter(self._kept)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A logged decision that is not the same answer when it is decided again."""

    chain: str
    n: int
    decision_id: str
    world_seq: int
    logged: Said
    again: Said


@dataclass(slots=True, kw_only=True)
class Replayed:
    """How a replay went: how many were the same, which were not, and how many could not be decided again, by why."""

    same: int = 0
    differences: list[Difference] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)


def again(world: World, one: Logged) -> Said:
    """Decide a logged decision once more in `world`, with all that the record says of its moment."""
    return Said.of(engine.bounded(decided(world, one), world, one.question, one.staleness_s))


def decided(world: World, one: Logged) -> Decision:
    """Return what `world` decides of a logged question, however old it was for whoever asked.

    Where a canary is for named points, that it decided tells that this was at one of them.
    """
    canary = world.trials.canary if one.said.candidate else None
    point = canary.scope.points[0] if canary and canary.scope and canary.scope.points else ""
    return engine.decide(world, one.question, one.now_ms, clock_off=one.clock_off, point=point)


async def replay(records: Iterable[Record], worlds: Worlds) -> Replayed:
    """Decide every logged decision again in the world that it names."""
    told = Replayed()
    world: World | None = None
    for chain, record in records:
        one = logged(record)
        if one is None:
            continue
        if isinstance(one, Lost):
            told.lost[one.why] += 1
            continue
        if world is None or world.seq != one.world_seq:
            world = await worlds.at(one.world_seq)
        if world is None:
            told.lost[NO_WORLD] += 1
            continue
        said = again(world, one)
        if said == one.said:
            told.same += 1
        else:
            found = Difference(
                chain=chain,
                n=int(record["n"]),
                decision_id=one.decision_id,
                world_seq=one.world_seq,
                logged=one.said,
                again=said,
            )
            told.differences.append(found)
    return told


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """Decisions that a proposed policy would answer otherwise than the live one, alike in all that is shown here."""

    change: str
    subject: str
    action: str
    resource: str
    before: Said
    after: Said


@dataclass(slots=True, kw_only=True)
class Flips:
    """What a proposed policy would have done to logged traffic."""

    decided: int = 0
    counts: Counter[Flip] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)


GAINS: Final = "gains"
LOSES: Final = "loses"
OBLIGED: Final = "obliged otherwise"


def flips(records: Iterable[Mapping[str, Any]], live: World, proposed: World) -> Flips:
    """Decide logged decisions under the live and the proposed policy, each at its own time, and count what differs.

    Both sides are decided here, not read from the record: else every change since then would be blamed on the proposal.
    """
    told = Flips()
    for record in records:
        one = logged(record)
        if isinstance(one, Lost):
            told.lost[one.why] += 1
        elif one is not None:
            told.decided += 1
            flip = flip_of(one, live, proposed)
            if flip is not None:
                told.counts[flip] += 1
    return told


def flip_of(one: Logged, live: World, proposed: World) -> Flip | None:
    """Return how a logged decision would be another under the proposed policy; None if it would not."""
    before, after = again(live, one), again(proposed, one)
    change = _change(before, after)
    if not change:
        return None
    asked = one.question
    return Flip(
        change=change,
        subject=str(asked.subject.principal),
        action=str(asked.action),
        resource=str(asked.resource),
        before=before,
        after=after,
    )


def _change(before: Said, after: Said) -> str:
    if before.effect != after.effect:
        return GAINS if after.effect == "allow" else LOSES
    return OBLIGED if before.obligations != after.obligations else ""
