"""Errors as gRPC says them: a status from the one table, and `ErrorDetail` in the trailing metadata."""

from dataclasses import dataclass
from typing import Final

import grpc

from pdp.errors import PortcullisError, Reason
from pdp.limits import MAX_ERROR_DETAIL_BYTES
from pdp.v1 import types_pb2

ERROR_KEY: Final = "pdp-error-bin"
INTERNAL: Final = PortcullisError(Reason.INTERNAL_ERROR, "internal error", advice="report the correlation id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What ends an RPC: code, sentence and detail."""

    code: grpc.StatusCode
    message: str
    detail: types_pb2.ErrorDetail
    challenge: tuple[tuple[str, str], ...] = ()

    @property
    def trailing(self) -> tuple[tuple[str, str | bytes], ...]:
        """The trailing metadata: the detail and, for a refused credential, what HTTP would say of it (RFC 9449 section 7.1)."""
        return ((ERROR_KEY, self.detail.SerializeToString()), *self.challenge)


def status_of(error: PortcullisError, *, correlation_id: str) -> Status:
    """Return how `error` leaves by gRPC."""
    detail = types_pb2.ErrorDetail(
        reason=error.reason.value,
        message=error.message,
        advice=error.advice,
        correlation_id=getattr(error, "decision_id", "") or correlation_id,
        head_seq=getattr(error, "head_seq", 0) or 0,
    )
    _add_findings(detail, [str(item) for item in getattr(error, "findings", ())])
    code: grpc.StatusCode = grpc.StatusCode[error.meaning.grpc]
    return Status(code=code, message=_one_line(error.message), detail=detail, challenge=getattr(error, "challenge", ()))


def _add_findings(detail: types_pb2.ErrorDetail, findings: list[str]) -> None:
    """Add findings while they fit: metadata that is too long would be dropped whole by the client's library."""
    room = MAX_ERROR_DETAIL_BYTES
    for position, finding in enumerate(findings):
        room -= len(finding.encode())
        if room < 0:
            detail.findings.append(f"… and {len(findings) - position} more: see `pdp policy lint`")
            return
        detail.findings.append(finding)


def _one_line(text: str) -> str:
    return " ".join(text.split())
