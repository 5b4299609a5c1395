"""What a snapshot remembers of its own answers: see `recall.py`, which alone reads and writes it."""

from typing import Any

from pdp.limits import RECALL_ENTRIES

Key = tuple[Any, ...]


class Kept:
    """An outcome, the asset that it was about, and what was last made of it, by whoever asked for it."""

    __slots__ = ("asset", "made", "outcome")

    def __init__(self, outcome: Any, asset: object) -> None:
        self.outcome = outcome
        self.asset = asset
        self.made: Any = None


class Memory:
    """Outcomes in two halves, of which the older gives way when the newer is full; and what is derived but once.

    Any thread may use it.
    """

    __slots__ = ("_newer", "_older", "derived")

    def __init__(self) -> None:
        self._newer: dict[Key, Kept] = {}
        self._older: dict[Key, Kept] = {}
        self.derived: dict[Key, Any] = {}
        """What is a function of the policy alone, by one of a few keys; whoever misses a value makes it."""

    def __len__(self) -> int:
        """Return how many outcomes are kept."""
        return len(self._newer) + len(self._older)

    def find(self, key: Key) -> Kept | None:
        """Return what is kept under `key`, of whichever asset."""
        return self._newer.get(key) or self._older.get(key)

    def keep(self, key: Key, kept: Kept) -> None:
        """Keep an outcome."""
        if len(self._newer) >= RECALL_ENTRIES // 2:
            self._older, self._newer = self._newer, {}
        self._newer[key] = kept
