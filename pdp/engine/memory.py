"""What a snapshot remembers of its own answers: see `recall.py`, which alone reads and writes it."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from pdp.limits import RECALL_ENTRIES

Key = tuple[Any, ...]
Derived = TypeVar("Derived")


class Kept(NamedTuple):
    """An outcome, and the asset that it was about."""

    outcome: Any
    asset: object


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
        """Return what is kept under `key`, of whichever asset."""
        return self._newer.get(key) or self._older.get(key)

    def keep(self, key: Key, kept: Kept) -> None:
        """Keep an outcome."""
        if len(self._newer) >= RECALL_ENTRIES // 2:
            self._older, self._newer = self._newer, {}
        self._newer[key] = kept
