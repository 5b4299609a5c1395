"""The caller's trace goes along with its questions, where the caller traces: OpenTelemetry is used if it is there already.

Source: W3C Trace Context; `opentelemetry.propagate.inject`.
"""

import sys


def carried() -> tuple[tuple[str, str], ...]:
    """Return `traceparent` of the span that is current here, as metadata; nothing in a program that does not trace."""
    propagate = sys.modules.get("opentelemetry.propagate")
    if propagate is None:
        return ()
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return tuple((name, carrier[name]) for name in ("traceparent",) if name in carrier)
