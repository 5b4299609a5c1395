"""Which DPoP proofs were used, in the Redis that PDPs share: a proof that one of them took is worth nothing at the others.

`SET NX` with an end is one step, so of two PDPs with one proof one is first. Whatever Redis does not answer is a refusal,
and so is a use that too few copies have, for a copy that takes over could forget it: the proof is used up either way.

Keys: `pdp:{<tenant>}:proof:<hex>`.
"""

import contextlib
from pathlib import Path
from typing import Final

from redis.exceptions import RedisError

from pdp.adapters.redis_clients import cancellable, clients, shown
from pdp.errors import Reason
from pdp.identity.types import Refusal
from pdp.limits import REDIS_WAIT_S

_REPLAYED: Final = Refusal(reason=Reason.TOKEN_REPLAYED, detail="this proof was used before", dpop=True)
_CONNECTIONS: Final = 4


class RedisReplay:
    """Implements `pdp.ports.ReplayMemory` in Redis; the arguments are those of `log_redis.RedisWorldLog`."""

    scope: Final = "all PDPs of the store"

    def __init__(
        self, url: str, *, tenant: str, password: Path | None = None, ca: Path | None = None, min_replicas: int = 0
    ) -> None:
        make, watchers = clients(url, password=password, ca=ca)
        self._client = make(_CONNECTIONS)
        self._clients = (self._client, *watchers)
        self._place = shown(url)
        self._prefix = f"pdp:{{{tenant}}}:proof:"
        self._min_replicas = min_replicas

    async def use(self, key: bytes, *, ttl_s: float) -> Refusal | None:
        """Note the use of `key` for `ttl_s` seconds; see `pdp.ports.ReplayMemory`."""
        try:
            first, copies = await cancellable(self._note(self._prefix + key.hex(), int(ttl_s * 1000)))
        except (RedisError, OSError) as error:
            return _unavailable(f"{self._place}: {type(error).__name__}")
        if not first:
            return _REPLAYED
        if copies < self._min_replicas:
            return _unavailable(f"{self._place}: {copies} of {self._min_replicas} copies")
        return None

    async def _note(self, name: str, ttl_ms: int) -> tuple[bool, int]:
        """Return whether `name` was new, and how many copies have it; both on one connection, of which WAIT speaks."""
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.set(name, b"", nx=True, px=max(ttl_ms, 1))
            if self._min_replicas:
                pipe.wait(self._min_replicas, int(REDIS_WAIT_S * 1000))
            made, *copies = await pipe.execute()
        return made is True, copies[0] if copies else 0

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            with contextlib.suppress(RedisError, OSError):
                await client.aclose()
                await client.connection_pool.disconnect()


def _unavailable(detail: str) -> Refusal:
    return Refusal(reason=Reason.REPLAY_STORE_UNAVAILABLE, detail=detail)
