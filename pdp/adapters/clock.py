"""Wall and monotonic time of this machine."""

import time


class SystemClock:
    """The clock of a running process; tests pass their own."""

    def now_ms(self) -> int:
        """Return milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def mono_s(self) -> float:
        """Return seconds that never go back, for staleness and deadlines."""
        return time.monotonic()
