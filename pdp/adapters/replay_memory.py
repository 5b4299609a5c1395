"""Which DPoP proofs were used, in this process: enough for one enforcement point that binds proofs to its own authority.

Bounded: a full memory refuses new proofs instead of forgetting old ones, for a forgotten proof could be used again.
"""

from collections import OrderedDict
from typing import Final

from pdp.errors import Reason
from pdp.identity.types import Refusal
from pdp.limits import DPOP_REPLAY_ENTRIES
from pdp.ports import Clock

_REPLAYED: Final = Refusal(reason=Reason.TOKEN_REPLAYED, detail="this proof was used before", dpop=True)
_FULL: Final = Refusal(reason=Reason.REPLAY_STORE_UNAVAILABLE, detail="the memory of used proofs is full")


class MemoryReplay:
    """Implements `pdp.ports.ReplayMemory`."""

    scope: Final = "this process"

    def __init__(self, *, clock: Clock, entries: int = DPOP_REPLAY_ENTRIES) -> None:
        self._clock = clock
        self._entries = entries
        # By the time of first use: all have the same life, up to the skew of their makers' clocks.
        self._until_s: OrderedDict[bytes, float] = OrderedDict()

    async def use(self, key: bytes, *, ttl_s: float) -> Refusal | None:
        """Note the use of `key` for `ttl_s` seconds; `token_replayed` if it is noted already (T-58)."""
        now_s = self._clock.mono_s()
        while self._until_s and next(iter(self._until_s.values())) <= now_s:
            self._until_s.popitem(last=False)
        if self._until_s.get(key, now_s) > now_s:
            return _REPLAYED
        if len(self._until_s) >= self._entries:
            return _FULL
        self._until_s[key] = now_s + ttl_s
        self._until_s.move_to_end(key)
        return None

    async def close(self) -> None:
        """Memory leaves nothing open."""

    def __len__(self) -> int:
        return len(self._until_s)
