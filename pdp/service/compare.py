"""Comparing a trial with the live policy, on what the decision log says was asked.

The log is read as it grows, beside the answers and after them: a candidate changes none and delays none, whatever it does.
In it stand the decisions of every worker, and of every enforcement point that ships its chain here. What is compared is cut
into short pieces, and where decisions come faster than that only a part is compared; how many were not is counted.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Final

from pdp.adapters.audit_file import ChainReader, segments
from pdp.audit.replay import NO_QUESTION, Lost, logged
from pdp.change.trial import NO_TRIALS, Trial
from pdp.errors import BadRequestError
from pdp.limits import TRIAL_BEHIND_S, TRIAL_RECORDS, TRIAL_SLICE_S, TRIAL_STRIDE
from pdp.model import canonical
from pdp.ports import Clock
from pdp.service.redecide import flip_of
from pdp.service.tally import Tally
from pdp.world import Policy, World

_DECISION: Final = b'"kind":"decision"'


class Tail:
    """The newest records of all chains of a PDP, in no order but each chain's own."""

    def __init__(self, directories: Sequence[Path], *, since_ms: int) -> None:
        self._directories = tuple(directories)
        self._since_ms = since_ms
        self._readers: dict[tuple[Path, str], ChainReader] = {}

    def lines(self, holding: bytes, *, limit: int) -> Iterator[bytes]:
        """Yield records that hold these bytes and were not read before: about `limit` at most, of each chain some."""
        readers = list(self._open())
        each = limit // max(1, len(readers)) + 1
        return chain.from_iterable(islice(_holding(reader, holding), each) for reader in readers)

    def _open(self) -> Iterator[ChainReader]:
        for directory in self._directories:
            for name in sorted({segment.chain for segment in segments(directory)}):
                key = (directory, name)
                if key not in self._readers:
                    self._readers[key] = ChainReader(directory, name)
                    self._readers[key].skip(self._since_ms)
                yield self._readers[key]


def _holding(reader: ChainReader, wanted: bytes) -> Iterator[bytes]:
    return (line for line in reader.rest(until=sys.maxsize) if wanted in line)


class Comparison:
    """One trial, and what it has shown."""

    def __init__(self, trial: Trial, directories: Sequence[Path], clock: Clock) -> None:
        self.trial = trial
        self.tally = Tally(seq=trial.seq)
        self._tail = Tail(directories, since_ms=trial.start_ms)
        self._clock = clock
        self._stride = 1
        self._holding = f'"candidate":"{trial.revision}"'.encode() if trial.scope else _DECISION

    def step(self, world: World, candidate: Policy) -> bool:
        """Compare some of what is new; False once there is no more. To be called in a thread.

        Raises:
            OSError: the log cannot be read.
        """
        until_s = self._clock.mono_s() + TRIAL_SLICE_S
        live = replace(world, trials=NO_TRIALS, candidate=None)
        proposed = replace(live, policy=candidate)
        taken = 0
        for taken, line in enumerate(self._tail.lines(self._holding, limit=TRIAL_RECORDS * self._stride), start=1):
            if taken % self._stride:
                self.tally.skipped += 1
            else:
                self._compare(line, live, proposed)
            if self._clock.mono_s() >= until_s:
                break
        self._keep_up(taken)
        return taken > 0

    def _compare(self, line: bytes, live: World, proposed: World) -> None:
        try:
            record = canonical.loads(line)
            one = logged(record)
            mine = record["world_seq"] >= self.trial.seq
        except (BadRequestError, KeyError, TypeError):
            one, mine = Lost("no record"), True
        if isinstance(one, Lost):
            self.tally.unreadable += mine and one.why != NO_QUESTION
        elif one is not None and mine:
            self.tally.newest_ms = max(self.tally.newest_ms, record["time_ms"])
            self.tally.add(flip_of(one, live, proposed), one.decision_id)

    def _keep_up(self, taken: int) -> None:
        """Compare fewer when behind, more again when not."""
        if not taken:
            self._stride = max(1, self._stride // 2)
        elif self._clock.now_ms() - self.tally.newest_ms > TRIAL_BEHIND_S * 1000 and self.tally.newest_ms:
            self._stride = min(self._stride * 2, TRIAL_STRIDE)
