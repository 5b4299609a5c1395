"""What a refused caller sees: a status and a small JSON body, the same at every door.

*Unknown* and *forbidden* are the same words to the caller (FAILURE.md N10): a 403 never says which; the decision id leads
an auditor to the reason. A 401 names the credential's fault, a 503 says that we could not decide. A development
installation (`trust.yaml`: `development: true`) says every reason, so that people can learn from it.

Source: ENFORCEMENT.md EX-4, EX-5.
"""

import json
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pdp.errors import MEANINGS, Reason
from pdp.identity.challenge import Header
from pdp.identity.challenge import challenge as challenge_of
from pdp.identity.types import Refusal

UNAUTHENTICATED, FORBIDDEN, TOO_MANY, UNAVAILABLE = 401, 403, 429, 503
_GRPC: Final = MappingProxyType({UNAUTHENTICATED: 16, FORBIDDEN: 7, TOO_MANY: 8, UNAVAILABLE: 14})
_WORDS: Final = MappingProxyType({FORBIDDEN: "forbidden", TOO_MANY: "budget_exceeded", UNAVAILABLE: "unavailable"})
_SENTENCES: Final = MappingProxyType(
    {
        UNAUTHENTICATED: "the credential is refused",
        FORBIDDEN: "access is denied",
        TOO_MANY: "the budget is used up",
        UNAVAILABLE: "access cannot be decided now",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """A refusal in HTTP: `status` is one of 401, 403, 429, 503 and never anything else (EX-4)."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        """Refuse any other status: a 200 in a denial reaches the client as one."""
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


def word_of(reason: Reason, *, reveal: bool) -> str:
    """Return the reason as the caller may know it."""
    return reason.value if reveal else _WORDS.get(status_of(reason), reason.value)


def denial(reason: Reason, decision_id: str, *, reveal: bool, challenge: tuple[Header, ...] = ()) -> Denial:
    """Return the refusal for one reason, as recorded under `decision_id`.

    Args:
        reason: Why.
        decision_id: Where an auditor finds it.
        reveal: The caller may see the reason of a 403 or 503, too.
        challenge: What the identity room says to a refused credential; empty: what its reason alone says.
    """
    status = status_of(reason)
    headers = [("content-type", "application/json")]
    if status == UNAUTHENTICATED:
        headers.extend(challenge or challenge_of(Refusal(reason=reason)))
    if status in {TOO_MANY, UNAVAILABLE}:
        headers.append(("retry-after", "1"))
    said = {"error": _SENTENCES[status], "reason": word_of(reason, reveal=reveal), "decision_id": decision_id}
    return Denial(status=status, body=json.dumps(said).encode("ascii"), headers=tuple(headers))
