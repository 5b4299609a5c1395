"""What a refused caller sees: a status and a small JSON body, the same at every door.

*Unknown* and *forbidden* are the same bytes to the caller (FAILURE.md N10): a 403 never says which; the decision id leads
an auditor to the reason. A 401 names the credential's fault, a 503 that we could not decide.

Source: ENFORCEMENT.md EX-4, EX-5.
"""

import json
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pdp.errors import MEANINGS, Reason
from sidecar.gate import Verdict

UNAUTHENTICATED, FORBIDDEN, TOO_MANY, UNAVAILABLE = 401, 403, 429, 503
_GRPC: Final = MappingProxyType({UNAUTHENTICATED: 16, FORBIDDEN: 7, TOO_MANY: 8, UNAVAILABLE: 14})


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """A refusal in HTTP: `status` is one of 401, 403, 429, 503 and never anything else (EX-4)."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        if self.status not in _GRPC:
            raise ValueError("a denial has one of the four statuses of a denial")

    @property
    def grpc_status(self) -> int:
        """The same refusal for a gRPC client."""
        return _GRPC[self.status]


def status_of(reason: Reason) -> int:
    """Return the HTTP status of a refusal: 401 credential, 403 policy or malformed, 429 budget, 503 cannot decide."""
    status = MEANINGS[reason].http
    if status in _GRPC:
        return status
    return FORBIDDEN if 400 <= status < 500 else UNAVAILABLE  # noqa: PLR2004 - a granted "denial" is ours, hence 503


def word_of(reason: Reason) -> str:
    """Return what the caller is told: never more than the status already says, except about its own credential."""
    return {FORBIDDEN: "forbidden", UNAVAILABLE: "unavailable", TOO_MANY: "budget_exceeded"}.get(
        status_of(reason), reason.value
    )


def denial(verdict: Verdict) -> Denial:
    """Return the refusal for a verdict that is not an allow."""
    status = status_of(verdict.reason)
    headers = [("content-type", "application/json")]
    if status == UNAUTHENTICATED:
        headers.append(("www-authenticate", 'Bearer error="invalid_token"'))
    if status in {TOO_MANY, UNAVAILABLE}:
        headers.append(("retry-after", "1"))
    said = {"error": word_of(verdict.reason), "decision_id": verdict.decision_id}
    return Denial(status=status, body=json.dumps(said).encode(), headers=tuple(headers))


def given(verdict: Verdict) -> tuple[tuple[str, str], ...]:
    """Return the headers that tell the model about an allow (the names of `envoy.GIVEN_HEADERS`)."""
    return (
        ("x-pdp-decision-id", verdict.decision_id),
        ("x-pdp-subject", verdict.subject),
        ("x-pdp-world-seq", str(verdict.world_seq)),
    )
