"""DPoP nonces: a proof made ahead of time, or with a key that was borrowed once, does not last (RFC 9449 section 8).

A nonce is a keyed digest of the minute, so that whoever holds the secret gives and takes the same ones: the workers of a PDP
need not tell each other, and a restart makes no client ask twice.
"""

import base64
import hashlib
import hmac
from typing import Final

from pdp.limits import DPOP_NONCE_LIFE_S
from pdp.ports import Clock

_NONCE_BYTES: Final = 16


class Nonces:
    """Gives out one nonce for a minute, and takes it and the one before. `secret` is nobody else's to know."""

    def __init__(self, *, clock: Clock, secret: bytes) -> None:
        self._clock = clock
        self._secret = secret
        self._made: tuple[int, tuple[str, ...]] = (-1, ())

    def current(self) -> str:
        """Return the nonce for a client's next proof."""
        return self.taken()[0]

    def taken(self) -> tuple[str, ...]:
        """Return the nonces that a proof may hold now, the newest first."""
        minute = self._clock.now_ms() // (DPOP_NONCE_LIFE_S * 1000)
        if self._made[0] != minute:
            self._made = minute, (self._nonce(minute), self._nonce(minute - 1))
        return self._made[1]

    def _nonce(self, minute: int) -> str:
        digest = hmac.digest(self._secret, b"dpop-nonce" + minute.to_bytes(8, "big", signed=True), hashlib.sha256)
        return base64.urlsafe_b64encode(digest[:_NONCE_BYTES]).rstrip(b"=").decode()
