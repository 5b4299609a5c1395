"""What the process says of itself: structured log lines on standard error, and metrics with bounded labels."""

import contextlib
import logging
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TextIO, cast

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from pdp.model.trace import TRACE

OTHER: Final = "other"
"""The label for whatever is not on the list: a label never grows with input (FAILURE.md L7)."""
_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


def setup_logging(*, level: str, form: str, stream: TextIO | None = None) -> None:
    """Send structured lines to `stream` (standard error): JSON, or for people where `form` is `console`.

    `auto` is `console` on a terminal. Values are escaped by the renderers: one event is one line (FAILURE.md N8).
    """
    out = _Patient(stream)
    people = form == "console" or (form == "auto" and out.isatty())
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if people:
        renderer = structlog.dev.ConsoleRenderer(colors=out.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _traced,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(file=cast("TextIO", out)),
        cache_logger_on_first_use=False,
    )


def _traced(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the id of the trace in which a line was written, if it was in one."""
    if trace := TRACE.get():
        event["trace_id"] = trace
    return event


class _Patient:
    """A stream that never fails its writer: whoever read our log may go away, and no answer depends on that."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def isatty(self) -> bool:
        return self._target.isatty()

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._target.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._target.flush()

    @property
    def _target(self) -> TextIO:
        return self._stream or sys.stderr


class Metrics:
    """The metrics of a PDP, in a registry of their own; `methods` and `reasons` are all that labels may say."""

    def __init__(self, *, methods: Collection[str], reasons: Collection[str]) -> None:
        self.registry = CollectorRegistry()
        self._methods = frozenset(methods)
        self._reasons = frozenset(reasons)
        self._calls = Counter(
            "pdp_rpc", "RPCs answered, by method and status", ("method", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "pdp_rpc_seconds", "Time to answer a unary RPC", ("method",), buckets=_BUCKETS_S, registry=self.registry
        )
        self._decisions = Counter(
            "pdp_decisions", "Decisions answered, by effect and reason", ("effect", "reason"), registry=self.registry
        )
        self._decided = cache(self._decisions.labels)
        """To look a series up takes the library longer than to count in it; there are two for each reason at most."""

    def call(self, method: str, status: str, seconds: float | None) -> None:
        """Count an RPC; `seconds` is None for a stream, whose length says nothing."""
        name = method if method in self._methods else OTHER
        self._calls.labels(name, status).inc()
        if seconds is not None:
            self._seconds.labels(name).observe(seconds)

    def decided(self, effect: str, reason: str, count: int = 1) -> None:
        """Count decisions of one effect and reason."""
        self._decided(effect, reason if reason in self._reasons else OTHER).inc(count)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a value that is read when somebody looks."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def by_reason(self, name: str, text: str, read: Callable[[], Mapping[str, int]]) -> None:
        """Show counts that are read when somebody looks; of their keys, those that are reasons."""

        def known() -> Mapping[str, int]:
            return {reason: count for reason, count in read().items() if reason in self._reasons}

        self.registry.register(_ByLabel(name, text, "reason", CounterMetricFamily, known))

    def by_sink(self, name: str, text: str, read: Callable[[], Mapping[str, int]], *, counts: bool = True) -> None:
        """Show a number for each sink of the decision log; their names are those of the configuration."""
        self.registry.register(_ByLabel(name, text, "sink", CounterMetricFamily if counts else GaugeMetricFamily, read))

    def page(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self.registry)


@dataclass(frozen=True, slots=True)
class _ByLabel(Collector):
    """Numbers that live elsewhere, by one label."""

    name: str
    text: str
    label: str
    family: type[CounterMetricFamily | GaugeMetricFamily]
    read: Callable[[], Mapping[str, int]]

    def collect(self) -> Iterable[Metric]:
        family = self.family(self.name, self.text, labels=(self.label,))
        for value, count in sorted(self.read().items()):
            family.add_metric((value,), count)
        yield family


class Merged:
    """The metrics of several processes as one page, told apart by the label `worker`."""

    def __init__(self, pages: Mapping[int, str]) -> None:
        self._pages = pages

    def collect(self) -> Iterable[Metric]:
        """Return each metric once, with the samples of every process."""
        found: dict[str, Metric] = {}
        for worker, page in sorted(self._pages.items()):
            for family in text_string_to_metric_families(page):
                held = found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                held.samples += [
                    sample._replace(labels={**sample.labels, "worker": str(worker)}) for sample in family.samples
                ]
        return found.values()

    def page(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self)
