"""Live checks as a use case: an issuer is asked once for all who wait, and its answer serves for a moment.

Key: SHA-256 of the whole token. Life: a yes half a minute (the rules that hold it against the token, its end among them, run
on each use), a no five seconds, no answer one second. Nothing else invalidates it: whoever must be out sooner is locked out.
The question goes on when its caller leaves, so that a door with less patience than the issuer finds the answer there when
the client comes back.
"""

import asyncio
from collections import Counter, OrderedDict
from dataclasses import dataclass

from pdp.errors import Reason
from pdp.identity.issuers import Issuer
from pdp.identity.types import Refusal
from pdp.identity.verifier import LiveAnswer
from pdp.limits import LIVE_CHECK_LIFE_S, LIVE_CHECK_NO_LIFE_S, LIVE_CHECK_PAUSE_S, TOKEN_CACHE_ENTRIES
from pdp.ports import Clock, LiveCheck

Outcome = LiveAnswer | Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remembered:
    """An answer, and the monotonic time until which it serves."""

    outcome: Outcome
    until_s: float


class LiveChecks:
    """Answers from memory or from the issuer. Used from one event loop; `close` ends its tasks.

    `counters` holds `asked` and, among those, `unanswered`.
    """

    def __init__(self, *, source: LiveCheck, clock: Clock, entries: int = TOKEN_CACHE_ENTRIES) -> None:
        self.counters: Counter[str] = Counter()
        self._source = source
        self._clock = clock
        self._entries = entries
        self._known: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._flights: dict[bytes, asyncio.Task[Outcome]] = {}

    async def answer(self, issuer: Issuer, token: bytes, *, digest: bytes) -> Outcome:
        """Return what `issuer` says of `token` now; `digest` is SHA-256 of the whole token."""
        known = self._known.get(digest)
        if known is not None and self._clock.mono_s() < known.until_s:
            return known.outcome
        flight = self._flights.get(digest)
        if flight is None:
            flight = asyncio.create_task(self._ask(issuer, token, digest), name="pdp-live-check")
            self._flights[digest] = flight
        # Shielded: one waiter that goes away must not end the wait of the others.
        return await asyncio.shield(flight)

    async def close(self) -> None:
        """End every question under way."""
        flights = tuple(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _ask(self, issuer: Issuer, token: bytes, digest: bytes) -> Outcome:
        self.counters["asked"] += 1
        try:
            outcome = await self._source.review(issuer, token)
        except Exception as error:  # noqa: BLE001 - the outermost boundary of a task: no answer is no yes (ER-2)
            outcome = Refusal(reason=Reason.LIVE_CHECK_UNAVAILABLE, detail=type(error).__name__)
        finally:
            del self._flights[digest]
        self.counters["unanswered"] += isinstance(outcome, Refusal)
        self._remember(digest, outcome)
        return outcome

    def _remember(self, digest: bytes, outcome: Outcome) -> None:
        self._known[digest] = _Remembered(outcome=outcome, until_s=self._clock.mono_s() + _life_s(outcome))
        self._known.move_to_end(digest)
        if len(self._known) > self._entries:
            self._known.popitem(last=False)


def _life_s(outcome: Outcome) -> int:
    if isinstance(outcome, Refusal):
        return LIVE_CHECK_PAUSE_S
    return LIVE_CHECK_LIFE_S if outcome.active else LIVE_CHECK_NO_LIFE_S
