"""The table of live responses, and when each must be decided again. Sans-I/O: time comes in, ids go out.

Theory of operation. Each session has exactly one due time. `due` pops every session whose time has come; the caller
re-decides it and says when it is due next, or closes it. A heap orders the due times; an entry is stale, and skipped, when
the table holds another time for its id (re-planned) or none (closed), so that neither operation searches the heap. A new
world makes *all* sessions due: the caller walks `ids` in chunks, which never blocks the loop for long.

INVARIANT: a session in the table has an entry in the heap with the time the table holds for it, so none is forgotten.
"""

import heapq
from collections.abc import Iterator

from sidecar.limits import LIMITS

_SLACK = 64  # stale heap entries that are not worth a rebuild


class Sessions:
    """Live sessions by id."""

    def __init__(self) -> None:
        self._due: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, session: int) -> bool:
        return session in self._due

    def ids(self) -> tuple[int, ...]:
        """Return every live session, oldest first."""
        return tuple(self._due)

    def plan(self, session: int, due_mono_s: float) -> None:
        """Open a session, or move its next check."""
        self._due[session] = due_mono_s
        heapq.heappush(self._heap, (due_mono_s, session))
        if len(self._heap) > 2 * len(self._due) + _SLACK:  # stale entries of far due times would pile up for ever
            self._heap = [(due, live) for live, due in self._due.items()]
            heapq.heapify(self._heap)

    def close(self, session: int) -> None:
        """Forget a session; one that is not there is no error."""
        self._due.pop(session, None)

    def next_due(self) -> float | None:
        """Return when the next check is due; None: no session has one."""
        self._skip_stale()
        return self._heap[0][0] if self._heap else None

    def due(self, mono_s: float) -> Iterator[int]:
        """Yield the sessions whose check is due; each stays in the table until it is planned again or closed."""
        ready = []
        while (first := self.next_due()) is not None and first <= mono_s:
            ready.append(heapq.heappop(self._heap)[1])
        for session in ready:
            if session in self._due:
                # Kept in the heap until the caller plans it: a check that is lost to an error comes again (INVARIANT).
                self.plan(session, mono_s + LIMITS.retry_s)
                yield session

    def _skip_stale(self) -> None:
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)


def next_check(
    *,
    mono_s: float,
    wall_s: float,
    recheck_after_s: float | None,
    patience_s: float,
    expires_at_s: int,
    jitter: float,
) -> float:
    """Return when a session is due, on the monotonic clock.

    Args:
        mono_s: Now, monotonic.
        wall_s: Now, wall clock.
        recheck_after_s: The policy's bound; None: none.
        patience_s: For how long the held world may decide.
        expires_at_s: When the credential ends, wall clock; 0: with the connection.
        jitter: 0 to 1, at random: spreads the checks *earlier*, so that no bound is overrun.
    """
    bound = min(patience_s, float("inf") if recheck_after_s is None else recheck_after_s)
    expiry = max(0.0, expires_at_s - wall_s) if expires_at_s else float("inf")
    if expiry <= bound:
        return mono_s + expiry
    # The floor keeps a bound of nought from becoming a busy loop.
    return mono_s + max(LIMITS.recheck_floor_s, bound * (1 - LIMITS.recheck_jitter * jitter))
