"""Comparing a trial with the live policy, on what the decision log says was asked.

The log is read as it grows, beside the answers and after them: a candidate changes none and delays none, whatever it does.
In it stand the decisions of every worker, and of every enforcement point that ships its chain here. What is compared is cut
into short pieces, and where decisions come faster than that only a part is compared; how many were not is counted.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from pdp.adapters.audit_file import segments
from pdp.adapters.audit_reader import ChainReader
from pdp.audit.replay import NO_QUESTION, Lost, logged
from pdp.change.trial import NO_TRIALS, Trial
from pdp.errors import BadRequestError
from pdp.limits import TRIAL_BEHIND_S, TRIAL_SLICE_S, TRIAL_STRIDE
from pdp.model import canonical
from pdp.ports import Clock
from pdp.service.redecide import flip_of
from pdp.service.tally import Tally
from pdp.world import Policy, World

_DECISION: Final = b'"kind":"decision"'
_PASSED: Final = 256
"""Lines of others that are passed over between two looks at the clock: less than a millisecond."""


class Tail:
    """The newest records of all chains of a PDP, in no order but each chain's own."""

    def __init__(self, directories: Sequence[Path], *, since_ms: int) -> None:
        self._directories = tuple(directories)
        self._since_ms = since_ms
        self._readers: dict[tuple[Path, str], ChainReader] = {}
        self._turn = 0

    def lines(self) -> Iterator[bytes]:
        """Yield what was not read before, for as long as it is taken; each time another chain comes first."""
        for directory in self._directories:
            for name in {segment.chain for segment in segments(directory)}:
                if (directory, name) not in self._readers:
                    reader = self._readers[directory, name] = ChainReader(directory, name)
                    reader.skip(self._since_ms)
        readers = list(self._readers.values())
        self._turn = (self._turn + 1) % max(1, len(readers))
        for reader in (*readers[self._turn :], *readers[: self._turn]):
            yield from reader.rest(until=sys.maxsize)


class Comparison:
    """One trial, and what it has shown."""

    def __init__(self, trial: Trial, directories: Sequence[Path], clock: Clock) -> None:
        self.trial = trial
        self.tally = Tally(seq=trial.seq)
        self._tail = Tail(directories, since_ms=trial.start_ms)
        self._clock = clock
        self._stride = 1
        self._met = 0
        self._holding = f'"candidate":"{trial.revision}"'.encode() if trial.scope else _DECISION

    def step(self, world: World, candidate: Policy) -> bool:
        """Compare what is new, for a slice of time; False once there is no more. To be called in a thread.

        Raises:
            OSError: the log cannot be read.
        """
        until_s = self._clock.mono_s() + TRIAL_SLICE_S
        live = replace(world, trials=NO_TRIALS, candidate=None)
        proposed = replace(live, policy=candidate)
        for number, line in enumerate(self._tail.lines()):
            if self._holding in line:
                self._met += 1
                if self._met % self._stride:
                    self.tally.skipped += 1
                    continue
                self._compare(line, live, proposed)
            elif number % _PASSED:
                continue
            if self._clock.mono_s() >= until_s:
                self._keep_up()
                return True
        self._stride = max(1, self._stride // 2)
        return False

    def _compare(self, line: bytes, live: World, proposed: World) -> None:
        try:
            record = canonical.loads(line)
            one = logged(record)
            mine, allows = record["world_seq"] >= self.trial.seq, record.get("effect") != "deny"
        except (BadRequestError, KeyError, TypeError):
            one, mine, allows = Lost("no record"), True, True
        if isinstance(one, Lost):
            lost = mine and one.why != NO_QUESTION
            self.tally.unreadable += lost
            self.tally.unseen += lost and allows
        elif one is not None and mine:
            self.tally.newest_ms = max(self.tally.newest_ms, record["time_ms"])
            self.tally.add(flip_of(one, live, proposed), one.decision_id)

    def _keep_up(self) -> None:
        """Compare fewer from now on, if what was compared last is old by now."""
        if 0 < self.tally.newest_ms < self._clock.now_ms() - TRIAL_BEHIND_S * 1000:
            self._stride = min(self._stride * 2, TRIAL_STRIDE)
