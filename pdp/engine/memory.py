"""What a snapshot remembers of its own answers: see `recall.py`, which alone reads and writes it."""

from typing import Any

from pdp.limits import RECALL_ENTRIES
from pdp.model.recent import Recent

Key = tuple[Any, ...]


class Kept:
    """An outcome, the asset that it was about, and what was last made of it, by whoever asked for it.

    `lasting`: time alone cannot change it.
    """

    __slots__ = ("asset", "lasting", "made", "outcome")

    def __init__(self, outcome: Any, asset: object) -> None:
        self.outcome = outcome
        self.asset = asset
        self.lasting = False
        self.made: Any = None


class Memory(Recent[Key, Kept]):
    """Outcomes by what they answer, of whichever asset; and what is derived but once."""

    __slots__ = ("derived",)

    def __init__(self) -> None:
        super().__init__(RECALL_ENTRIES)
        self.derived: dict[Key, Any] = {}
        """What is a function of the policy alone, by one of a few keys; whoever misses a value makes it."""

    def keep(self, key: Key, value: Kept) -> None:
        """Keep an outcome, which time alone cannot change."""
        value.lasting = True
        super().keep(key, value)
