"""The caller's trace goes along with its questions, where the caller traces."""

import sys
from types import SimpleNamespace

import pytest

from pdp.sdk._trace import carried

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_program_that_does_not_trace_sends_nothing_and_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.propagate", raising=False)
    assert carried() == ()
    assert "opentelemetry.propagate" not in sys.modules


def test_the_current_span_goes_along_and_no_baggage(monkeypatch: pytest.MonkeyPatch) -> None:
    def inject(carrier: dict[str, str]) -> None:
        carrier.update(traceparent=PARENT, tracestate="a=b", baggage="user=ada")

    monkeypatch.setitem(sys.modules, "opentelemetry.propagate", SimpleNamespace(inject=inject))
    assert carried() == (("traceparent", PARENT),)
