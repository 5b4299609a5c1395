"""Re-decides running responses and orders their cuts: the asyncio shell around `sessions.Sessions`.

Triggers, whichever first: the policy's `recheck_after`, `recheck_messages` and `recheck_tokens`, the credential's expiry, a
new world that can change the answer, and the moment at which the held world would be too old to decide (a heartbeat in
between moves it on). A refusal orders the cut at once; the record follows it, since an unwritable audit never delays a cut.

Which responses a new world concerns, `Concerns` says: a lock on one subject wakes that subject's responses and leaves ten
thousand others alone.

Source: ENFORCEMENT.md 4.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from pdp.errors import Reason
from pdp.model.decision import Decision
from pdp.model.request import Question
from sidecar.asked import Verdict
from sidecar.duties import Duties
from sidecar.limits import LIMITS
from sidecar.metrics import Tally
from sidecar.sessions import Sessions, next_check

_LOG = logging.getLogger(__name__)
_CHUNK = 256  # sessions re-decided before other work of the loop gets its turn: about 5 ms


class RedecidesPurely(Protocol):
    """The part of `pdp.service.decide.Decider` that re-checks use."""

    def recheck(self, question: Question) -> Decision:
        """Decide on the current world, its staleness included; no record."""
        ...

    def patience_s(self, question: Question) -> float:
        """Return for how many more seconds the held world may decide on the asset in question."""
        ...


class Concerns(Protocol):
    """The part of `pdp.service.watch_index.Watches` that re-checks use."""

    def watching(self, question: Question) -> AbstractContextManager[asyncio.Event]:
        """Keep the question in the index; the event is set by each new world that may change its answer."""
        ...


class Notes(Protocol):
    """The part of `pdp.service.decide.Decider` that records a response's changes of state."""

    async def note(self, event: str, *, decision_id: str, **fields: str | int) -> None:
        """Record one change of state."""
        ...


class Time(Protocol):
    """Wall and monotonic time (`pdp.ports.Clock`)."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        ...

    def mono_s(self) -> float:
        """Seconds on the monotonic clock."""
        ...


@dataclass(slots=True, kw_only=True)
class Live:
    """A running response: what it was allowed for, how it is cut, and what it has carried.

    Attributes:
        question: What was asked.
        expires_at_s: When the credential ends (wall clock); 0: with the connection.
        cut: Orders the cut.
        duties: The obligations in force; a re-check may tighten those that a running response can take on.
        index: Keeps the question in the index of concerns.
        changed: Set by a new world that may change the answer.
        messages: Messages carried so far.
        due_messages: The count at which it is decided again; None: at none.
    """

    question: Question
    expires_at_s: int
    cut: Callable[[Reason], None]
    duties: Duties
    index: AbstractContextManager[asyncio.Event | None]
    changed: asyncio.Event | None = None
    messages: int = 0
    due_messages: int | None = field(default=None)


class Rechecker:
    """The live responses of one process.

    Args:
        decider: Re-decides.
        time: Clocks.
        jitter: A random number from 0 to 1.
        concerns: Which responses a new world concerns; None: all.
        tally: Counts the cuts.
    """

    def __init__(
        self,
        *,
        decider: RedecidesPurely,
        time: Time,
        jitter: Callable[[], float],
        concerns: Concerns | None = None,
        tally: Tally | None = None,
    ) -> None:
        self._decider = decider
        self._concerns = concerns
        self._time = time
        self._jitter = jitter
        self._tally = tally or Tally()
        self._sessions = Sessions()
        self._live: dict[int, Live] = {}
        self._last = 0
        self._replan = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.checks = 0
        self.cuts = 0

    def __len__(self) -> int:
        return len(self._live)

    def open(self, verdict: Verdict, cut: Callable[[Reason], None]) -> int | Reason:
        """Follow an allowed response from now on; return its id, or why it must not start.

        It is decided once more right here: a world that came between the answer and this call must not be missed.
        """
        if not verdict.allowed or verdict.question is None:
            return Reason.INTERNAL_ERROR
        if len(self._live) >= LIMITS.pending_sessions:
            return Reason.BUDGET_EXCEEDED
        self._last += 1
        self._idle.clear()
        live = Live(
            question=verdict.question,
            expires_at_s=verdict.expires_at_s,
            cut=cut,
            duties=verdict.duties,
            index=self._concerns.watching(verdict.question) if self._concerns is not None else nullcontext(),
        )
        live.changed = live.index.__enter__()
        self._live[self._last] = live
        refused = self._check(self._last)
        if refused is not None:
            self.close(self._last)
            return refused
        return self._last

    def close(self, session: int) -> None:
        """Forget a response that ended."""
        live = self._live.pop(session, None)
        if live is not None:
            live.index.__exit__(None, None, None)
        self._sessions.close(session)
        if not self._live:
            self._idle.set()

    def carried(self, session: int, messages: int) -> None:
        """Note that a response is about to have carried `messages`; orders the cut where that is one too many."""
        live = self._live.get(session)
        if live is None:
            return
        live.messages = messages
        if live.duties.max_messages is not None and messages > live.duties.max_messages:
            self._cut(session, Reason.BUDGET_EXCEEDED)
        elif live.due_messages is not None and messages >= live.due_messages:
            self._enforce(session)

    async def idle(self) -> None:
        """Wait until no response runs."""
        await self._idle.wait()

    async def world_changed(self) -> None:
        """Re-decide what the new world concerns; on return every cut it demands is ordered (the receipt may go out)."""
        concerned = [session for session, live in self._live.items() if live.changed is None or live.changed.is_set()]
        for number, session in enumerate(concerned, start=1):
            self._enforce(session)
            if number % _CHUNK == 0:
                await asyncio.sleep(0)

    async def run(self) -> None:
        """Re-decide what falls due, for ever."""
        while True:
            self._replan.clear()
            next_due = self._sessions.next_due()
            pause = None if next_due in {None, float("inf")} else max(0.0, (next_due or 0.0) - self._time.mono_s())
            try:
                async with asyncio.timeout(pause):
                    await self._replan.wait()  # an earlier due time has come in
            except TimeoutError:
                self.check_due()

    def check_due(self) -> None:
        """Re-decide what is due now."""
        for session in tuple(self._sessions.due(self._time.mono_s())):
            self._enforce(session)

    def cut_all(self, reason: Reason) -> None:
        """Cut everything (shutdown)."""
        for session in tuple(self._live):
            self._cut(session, reason)

    def _enforce(self, session: int) -> None:
        if session not in self._live:
            return
        refused = self._check(session)
        if refused is not None:
            self._cut(session, refused)

    def _cut(self, session: int, reason: Reason) -> None:
        live = self._live[session]
        self.close(session)
        self.cuts += 1
        live.cut(reason)
        self._tally.cut(reason)

    def _check(self, session: int) -> Reason | None:
        """Return why the response must end, or plan its next check."""
        live = self._live[session]
        self.checks += 1
        if live.changed is not None:
            live.changed.clear()  # before deciding: a world that comes meanwhile sets it again
        wall_s = self._time.now_ms() / 1000
        if live.expires_at_s and wall_s >= live.expires_at_s:
            return Reason.TOKEN_EXPIRED
        try:
            decision = self._decider.recheck(live.question)
        except Exception:  # noqa: BLE001 - a boundary: a re-check that fails must end its stream and leave the others' checks alone
            _LOG.exception("a re-check failed")
            return Reason.INTERNAL_ERROR
        if not decision.allowed:
            return decision.reason
        duties = Duties.of(decision.obligations)
        if duties.fixed != live.duties.fixed:  # what was sent on, or delivered, cannot be clamped or stripped any more
            return Reason.OBLIGATION_UNSUPPORTED
        live.duties = duties
        live.due_messages = _next_count(live)
        self._plan(session, live, decision, wall_s)
        return None

    def _plan(self, session: int, live: Live, decision: Decision, wall_s: float) -> None:
        due = next_check(
            mono_s=self._time.mono_s(),
            wall_s=wall_s,
            recheck_after_s=decision.recheck_after_s,
            patience_s=self._decider.patience_s(live.question),
            expires_at_s=live.expires_at_s,
            jitter=self._jitter(),
        )
        self._sessions.plan(session, due)
        self._replan.set()


def _next_count(live: Live) -> int | None:
    """Return at how many messages `live` is decided again; a token is counted as one event, which is never too few."""
    steps = [step for step in (live.duties.recheck_messages, live.duties.recheck_tokens) if step is not None]
    return live.messages + max(1, min(steps)) if steps else None
