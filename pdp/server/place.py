"""Which of a PDP's processes this is, and what the processes of one PDP share.

A PDP is one process, or `--workers N` of them behind one port. Workers share the log, the keys, the state directory and the
secret that seals cursors and makes nonces; each has a replica, a disk copy, an audit chain and followers of its own, so that
none can hold up or damage another. The first has the names that a single process has: one that is given workers finds its own
files again.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pdp.adapters.nudge import Nudges


@dataclass(slots=True)
class Standing:
    """What the supervisor last told of the workers; changed by whoever reads its messages alone."""

    ready: int = 0
    pages: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """This process among the workers of its PDP.

    Args:
        index: its number, from 0; the first shows the probes of all.
        workers: how many there are.
        secret: seals the cursors of lists, so that any worker continues a list that another began, and makes DPoP nonces.
        nudges: wakes the others; None alone.
        standing: what is known of the others.
    """

    index: int = 0
    workers: int = 1
    secret: bytes = field(default_factory=partial(secrets.token_bytes, 32), repr=False)
    nudges: Nudges | None = None
    standing: Standing = field(default_factory=Standing)

    @property
    def suffix(self) -> str:
        """What follows a name that is each worker's own."""
        return f"-{self.index}" if self.index else ""

    @property
    def chain(self) -> str:
        """What this process's audit chains are called; `pdp-w1` is never read as a chain of `pdp`."""
        return f"pdp-w{self.index}" if self.index else "pdp"

    def audit(self, directory: Path, index: int | None = None) -> Path:
        """Return where the worker of this number, or this one, writes its chain: one directory has one writer."""
        number = self.index if index is None else index
        return directory / f"worker-{number}" if number else directory

    def degradations(self) -> tuple[str, ...]:
        """Say how many workers are not ready."""
        missing = self.workers - self.standing.ready
        return (f"{missing} of {self.workers} workers are not ready",) if self.workers > 1 and missing > 0 else ()
