"""The trace that a call belongs to: its W3C id, which decision records and logs carry, and nothing else of it.

The id is the caller's to choose, so it names nothing and proves nothing: it leads from somebody's trace to our records. What
is not exactly an id is left out, and a `tracestate` or baggage is never read: they could say anything, at any length.

Source: W3C Trace Context, 3.2 (`traceparent`).
"""

import re
from contextvars import ContextVar
from typing import Final

_TRACEPARENT: Final = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.*)?"
)
"""A later version may go on behind what the first one says; the first may not."""

TRACE: Final[ContextVar[str]] = ContextVar("trace", default="")
"""The trace id of the call that is being served; empty: it belongs to none."""


def trace_id(traceparent: str | None) -> str:
    """Return the trace id in a `traceparent`, 32 hexadecimal digits; empty if there is none, or it is malformed."""
    found = _TRACEPARENT.fullmatch(traceparent or "")
    if found is None or (found["version"] == "00" and found["more"]):
        return ""
    return found["trace"]
