"""What was kept lately, by key: a cache of bounded size that costs a reader one look."""

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values in two halves, of which the older gives way when the newer is full. Any thread may use it.

    Who reads changes nothing, unlike in an LRU; what is dropped although it is wanted is made anew by whoever misses it.
    """

    __slots__ = ("_half", "_newer", "_older")

    def __init__(self, entries: int) -> None:
        """Prepare to keep at most `entries` values, and at least half of them."""
        self._half = entries // 2
        self._newer: dict[K, V] = {}
        self._older: dict[K, V] = {}

    def __len__(self) -> int:
        """Return how many values are kept."""
        return len(self._newer) + len(self._older)

    def find(self, key: K) -> V | None:
        """Return what is kept under `key`."""
        return self._newer.get(key) or self._older.get(key)

    def keep(self, key: K, value: V) -> None:
        """Keep a value, which must be true: `find` takes what is false for nothing."""
        if len(self._newer) >= self._half:
            self._older, self._newer = self._newer, {}
        self._newer[key] = value
