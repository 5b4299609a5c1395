"""The headers of one question, read strictly, the same at every door.

Apart from the doors' modules, because a door inside a server must not bring Envoy's messages along: `xds-protos` ships a copy of
OpenTelemetry's, which MLflow cannot be imported beside.

Source: ENFORCEMENT.md EX-12, EX-13.
"""

from dataclasses import dataclass, field

from sidecar.asked import Ask, readable
from sidecar.envoy import CERTIFICATE_HEADER
from sidecar.routes import WEBSOCKET

ASSERTED = {"pdp-ask-purpose": "purpose", "pdp-ask-run": "run_id", "pdp-ask-ticket": "ticket"}
ONCE = frozenset({"x-pdp-route", "x-pdp-source", CERTIFICATE_HEADER, *ASSERTED})
CREDENTIALS = ("authorization", "dpop")
TRACEPARENT = "traceparent"


@dataclass(slots=True, kw_only=True)
class Headers:
    """The headers of one question: comma-joined like HTTP, but a repeated one that must be single is a fault (EX-12)."""

    values: dict[str, str] = field(default_factory=dict)
    fault: bool = False

    def add(self, name: str, value: str) -> None:
        """Take in one header field."""
        if not readable(value) and (name in ONCE or name in CREDENTIALS):
            self.fault = True
        if name in self.values:
            self.fault = self.fault or name in ONCE
            value = f"{self.values[name]},{value}"
        self.values[name] = value

    def ask(self, *, method: str, target: str, route: str | None, source_ip: str) -> Ask:
        """Return the question; one with a fault gets a target that no table maps, hence a recorded refusal."""
        upgrade = self.values.get("upgrade")
        return Ask(
            method=method if upgrade is None else _upgraded(method, upgrade),
            target="" if self.fault else target,
            route=route,
            authorization=self.values.get("authorization"),
            certificate=self.values.get(CERTIFICATE_HEADER, ""),
            source_ip=source_ip,
            proof=self.values.get("dpop"),
            traceparent=self.values.get(TRACEPARENT),
            asserted={name: self.values[header] for header, name in ASSERTED.items() if header in self.values},
        )


def _upgraded(method: str, protocol: str) -> str:
    """Return the method of a request that is to become another protocol: a row's own, or one that no row has.

    Our Envoy opens only a WebSocket's route. One that is not ours may open them all, and a tunnel that passes for a GET, or
    that was decided once, would never be cut.
    """
    return WEBSOCKET if method in {"GET", WEBSOCKET} and protocol.lower() == "websocket" else "UPGRADE"
