"""Watching the trials of proposals: what differs is counted, and a canary that meets its condition is rolled back.

One worker of each PDP watches, on what its decision log holds (`compare.py`): every decision of its workers, and of the
enforcement points that ship their chains here. Whatever ends a trial is an entry: its time, its condition, or that it cannot
be watched any more. Should no PDP run at all, a canary still answers nobody past its end, as `decide` itself knows it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from pdp.change.trial import Ended, Trial
from pdp.errors import ConflictError, PortcullisError, Reason
from pdp.limits import TRIAL_LOOK_S, TRIAL_SHARE
from pdp.ports import Clock
from pdp.replica import Replica
from pdp.service.compare import Comparison
from pdp.service.desk import Desk
from pdp.service.policy import carried
from pdp.service.redecide import GAINS, LOSES
from pdp.service.tally import Tally, why_roll_back
from pdp.world import Policy, World, policy_after

_WATCH: Final = ("trial-watch",)
"""Who ends a trial that nobody stopped, in its entry."""


class Board(Protocol):
    """Where the worker that watches leaves what it has seen."""

    def save(self, tallies: Sequence[Any]) -> None:
        """Replace what is there."""
        ...

    def load(self) -> Sequence[Any]:
        """Return what was saved last."""
        ...


def shown(board: Board) -> dict[int, Tally]:
    """Return what each trial has shown so far, by the entry that began it."""
    try:
        tallies = [Tally.from_json(raw) for raw in board.load()]
    except (KeyError, TypeError, ValueError):
        return {}  # of another version, or damaged: it is written anew at the next look
    return {tally.seq: tally for tally in tallies}


class TrialWatch:
    """Watches, for as long as it runs."""

    def __init__(
        self, *, replica: Replica, desk: Desk, directories: Sequence[Path], board: Board, clock: Clock
    ) -> None:
        self._replica = replica
        self._desk = desk
        self._directories = tuple(directories)
        self._board = board
        self._clock = clock
        self._changed = asyncio.Event()
        self._saved: list[Any] = []
        self._comparisons: dict[int, Comparison] = {}
        self._candidates: dict[int, tuple[Policy | None, Policy]] = {}
        self.rolled_back = 0
        """Canaries that this watch has rolled back."""

    @property
    def tallies(self) -> Sequence[Tally]:
        """Return what the trials that run have shown so far."""
        held = (self._comparisons.get(trial.seq) for trial in self._replica.world.trials)
        return [comparison.tally for comparison in held if comparison is not None]

    async def run(self) -> None:
        """Watch until cancelled."""
        stop = self._replica.on_change(lambda _: self._changed.set())
        try:
            while True:
                self._changed.clear()
                if not self._replica.world.trials.running:
                    await self._changed.wait()
                    continue
                began_s = self._clock.mono_s()
                more = await self.look()
                spent_s = self._clock.mono_s() - began_s
                # INVARIANT: however much there is to compare, and however slow, it is `TRIAL_SHARE` of the time.
                await asyncio.sleep(max(0.0 if more else TRIAL_LOOK_S, spent_s * (1 / TRIAL_SHARE - 1)))
        finally:
            stop()

    async def look(self) -> bool:
        """Compare some of what is new for each trial, and end those that are to end; tell whether there is more."""
        world = self._replica.world
        running = {trial.seq: trial for trial in world.trials}
        for held in (self._comparisons, self._candidates):
            for seq in held.keys() - running.keys():
                del held[seq]
        more = False
        for trial in running.values():
            comparison = self._comparisons.setdefault(trial.seq, Comparison(trial, self._directories, self._clock))
            more |= await self._compared(comparison, world)
        await self._show()
        for trial in running.values():
            await self._judge(trial, self._comparisons[trial.seq].tally)
        return more

    async def _compared(self, comparison: Comparison, world: World) -> bool:
        try:
            more = await asyncio.to_thread(self._step, comparison, world)
        except PortcullisError as error:
            comparison.tally.stuck(error.message)
        except OSError as error:
            comparison.tally.stuck(f"the decision log cannot be read: {error.strerror}")
        except Exception as error:  # noqa: BLE001 - outermost boundary: a candidate that breaks us is told, and ends nothing else
            comparison.tally.stuck(f"{Reason.INTERNAL_ERROR}: {type(error).__name__}")
        else:
            comparison.tally.trouble = ""
            return more
        return False

    def _step(self, comparison: Comparison, world: World) -> bool:
        return comparison.step(world, self._candidate(comparison.trial, world))

    def _candidate(self, trial: Trial, world: World) -> Policy:
        """Return what a trial tries: of a shadow, the change as it fits the live policy of now."""
        if trial.scope is not None and world.candidate is not None:
            return world.candidate
        held = self._candidates.get(trial.seq)
        if held is None or held[0] is not world.policy:
            proposal = world.proposals.get(trial.proposal)
            if proposal is None:
                raise PortcullisError(Reason.NOT_FOUND, f"{trial.proposal} is no longer proposed")
            held = (world.policy, policy_after(world.policy, carried(proposal, world.policy)))
            self._candidates[trial.seq] = held
        return held[1]

    async def _show(self) -> None:
        tallies = [one.tally.to_json() for one in self._comparisons.values()]
        if tallies == self._saved:
            return
        try:
            await asyncio.to_thread(self._board.save, tallies)
            self._saved = tallies
        except PortcullisError as error:
            self._replica.failed(error.reason.value, error.message)

    async def _judge(self, trial: Trial, tally: Tally) -> None:
        """End a trial whose time is over, or a canary that meets one of its conditions."""
        over = self._desk.now_ms() >= trial.end_ms
        why = why_roll_back(trial, tally)
        if not over and not why:
            return
        world = self._replica.world
        if all(one.seq != trial.seq for one in world.trials):
            return  # somebody else has ended it
        ended = Ended.TIME if over else Ended.ROLLBACK
        try:
            await self._desk.end(trial, ended, _WATCH, world, told={"detail": why, "shown": totals(tally)})
        except ConflictError:
            pass  # another entry came first: at the next look it is tried again, if it still runs
        except PortcullisError as error:
            self._replica.failed(error.reason.value, error.message)
        else:
            self.rolled_back += ended is Ended.ROLLBACK


def totals(tally: Tally) -> Mapping[str, int]:
    """Return the counts of a trial, for the entry that ends it."""
    return {
        "compared": tally.compared,
        "gains": tally.changes[GAINS],
        "loses": tally.changes[LOSES],
        "other": tally.changes.total() - tally.changes[GAINS] - tally.changes[LOSES],
        "errors": tally.errors,
        "skipped": tally.skipped,
    }
