"""What one sidecar says of itself at `/metrics`: every name with its meaning, labels from closed lists only (FAILURE.md L7)."""

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest

from pdp.errors import Reason

MEANINGS: Final[Mapping[str, str]] = {
    "pdp_sidecar_world_seq": "Number of the world in force",
    "pdp_sidecar_staleness_seconds": "Age of the newest proof of freshness",
    "pdp_sidecar_streams": "Responses that run and are decided again",
    "pdp_sidecar_rechecks_total": "Decisions on running responses",
    "pdp_sidecar_decision_failures_total": "Requests denied because deciding failed or took too long",
    "pdp_sidecar_takes_proofs": "1 where an issuer's tokens need DPoP proofs",
    "pdp_sidecar_key_sets_failing": "Issuers whose keys could not be had",
    "pdp_sidecar_live_checks_total": "Times an issuer was asked about a token",
    "pdp_sidecar_live_checks_unanswered_total": "Times it did not answer",
    "pdp_sidecar_audit_records_total": "Records written to the audit chain",
    "pdp_sidecar_audit_lost_total": "Records that could not be written",
    "pdp_sidecar_audit_degraded": "1 while the audit chain lives on its reserve or cannot be written",
    "pdp_sidecar_audit_durable": "1 where an allow waits for its record; 0: it was configured not to",
    "pdp_sidecar_audit_behind": "Records that the PDP has not acknowledged",
    "pdp_sidecar_envoy_restarts_total": "Times that Envoy was started again",
    "pdp_sidecar_envoy_refusals_total": "Requests that Envoy refused without asking",
}
_LAG_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)
_COUNTS: Final = "_total"


class Tally:
    """Counts what has labels: decisions, cuts, and how long a revocation took to reach the responses that it ended.

    Every label is a member of `Reason` or one of two words: nothing that a caller sends can become one.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._answers: dict[tuple[Reason, bool], Counter] = {}
        self._decisions = Counter(
            "pdp_sidecar_decisions",
            "Requests answered, by effect and reason",
            ("effect", "reason"),
            registry=self.registry,
        )
        self._cuts = Counter(
            "pdp_sidecar_cuts", "Running responses ended, by reason", ("reason",), registry=self.registry
        )
        self._lag = Histogram(
            "pdp_sidecar_revocation_lag_seconds",
            "From the signing of a change to the last cut that it ordered here",
            buckets=_LAG_BUCKETS_S,
            registry=self.registry,
        )

    def decided(self, reason: Reason, *, allowed: bool) -> None:
        """Count one answer to a request."""
        kind = reason, allowed
        if kind not in self._answers:
            self._answers[kind] = self._decisions.labels("allow" if allowed else "deny", reason.value)
        self._answers[kind].inc()

    def cut(self, reason: Reason) -> None:
        """Count one response that was ended."""
        self._cuts.labels(reason.value).inc()

    def revoked(self, lag_s: float) -> None:
        """Note how long a change took from its signing to its last cut; clocks that disagree make it 0, not less."""
        self._lag.observe(max(0.0, lag_s))


class _Numbers:
    """Plain numbers as a source of metrics."""

    def __init__(self, numbers: Mapping[str, float]) -> None:
        self._numbers = numbers

    def collect(self) -> Iterable[Metric]:
        for name, value in sorted(self._numbers.items()):
            kind = "counter" if name.endswith(_COUNTS) else "gauge"
            metric = Metric(name.removesuffix(_COUNTS), MEANINGS[name], kind)
            metric.add_sample(name, {}, value)
            yield metric


def exposition(numbers: Mapping[str, float], tally: Tally | None = None) -> str:
    """Return everything in Prometheus's text format."""
    counted = generate_latest(tally.registry) if tally is not None else b""
    return (generate_latest(_Numbers(numbers)) + counted).decode()
