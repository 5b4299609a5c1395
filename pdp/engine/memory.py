"""What a snapshot remembers of its own answers: see `recall.py`, which alone reads and writes it."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from pdp.limits import RECALL_ENTRIES

Key = tuple[Any, ...]
Derived = TypeVar("Derived")


class Kept(NamedTuple):
    """An outcome, the asset that it was about, and from when until when it counts (None: until the policy changes)."""

    outcome: Any
    asset: object
    since_ms: int
    until_ms: int | None

    def counts(self, asset: object, now_ms: int) -> bool:
        """Tell whether this is the outcome for `asset` at `now_ms`; a clock may have been set back."""
        if self.asset is not asset or now_ms < self.since_ms:
            return False
        return self.until_ms is None or now_ms < self.until_ms


class Memory:
    """Outcomes in two halves, of which the older gives way when the newer is full; and what is derived but once.

    Any thread may use it.
    """

    __slots__ = ("_derived", "_newer", "_older")

    def __init__(self) -> None:
        self._newer: dict[Key, Kept] = {}
        self._older: dict[Key, Kept] = {}
        self._derived: dict[Key, Any] = {}

    def once(self, key: Key, make: Callable[[], Derived]) -> Derived:
        """Return what `make` derives from the policy, made once; `key` is one of a few."""
        found: Derived | None = self._derived.get(key)
        if found is None:
            found = self._derived[key] = make()
        return found

    def find(self, key: Key) -> Kept | None:
        """Return what is kept under `key`, whether or not it counts."""
        return self._newer.get(key) or self._older.get(key)

    def keep(self, key: Key, kept: Kept) -> None:
        """Keep an outcome."""
        if len(self._newer) >= RECALL_ENTRIES // 2:
            self._older, self._newer = self._newer, {}
        self._newer[key] = kept
