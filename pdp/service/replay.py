"""Used proofs known twice: by this host for itself, and by all PDPs in the store that they share.

The store is a carrier and trusted with little: emptied, set back by a failover, or in a thief's hands, it would take every
used proof for a new one. Then each host still takes a proof once.
"""

from pdp.identity.types import Refusal
from pdp.ports import ReplayMemory


class TwiceKnown:
    """Implements `pdp.ports.ReplayMemory` by two: a proof is new if it is new to both."""

    def __init__(self, *, own: ReplayMemory, shared: ReplayMemory) -> None:
        self._own = own
        self._shared = shared

    @property
    def scope(self) -> str:
        """Who knows a used credential again."""
        return self._shared.scope

    async def use(self, key: bytes, *, ttl_s: float) -> Refusal | None:
        """Note the use of `key` in both; see `pdp.ports.ReplayMemory`. What the first notes stays noted if the second fails."""
        return await self._own.use(key, ttl_s=ttl_s) or await self._shared.use(key, ttl_s=ttl_s)

    async def close(self) -> None:
        """Close both."""
        await self._own.close()
        await self._shared.close()
