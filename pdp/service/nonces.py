"""DPoP nonces: a proof made ahead of time, or with a key that was borrowed once, does not last (RFC 9449 section 8)."""

from collections.abc import Callable

from pdp.limits import DPOP_NONCE_LIFE_S
from pdp.ports import Clock


class Nonces:
    """Gives out one nonce for a minute, and takes it and the one before. `new_id` brings the randomness."""

    def __init__(self, *, clock: Clock, new_id: Callable[[], str]) -> None:
        self._clock = clock
        self._new_id = new_id
        self._from_s = clock.mono_s()
        self._taken: tuple[str, ...] = (new_id(),)

    def current(self) -> str:
        """Return the nonce for a client's next proof."""
        return self.taken()[0]

    def taken(self) -> tuple[str, ...]:
        """Return the nonces that a proof may hold now, the newest first."""
        age_s = self._clock.mono_s() - self._from_s
        if age_s >= DPOP_NONCE_LIFE_S:
            # After a longer silence not even the last one is fresh.
            last = self._taken[:1] if age_s < 2 * DPOP_NONCE_LIFE_S else ()
            self._taken = (self._new_id(), *last)
            self._from_s = self._clock.mono_s()
        return self._taken
