"""Reasons and errors: one closed list of reason codes, and one table that says what each means at every door.

A *refusal* is a value that carries a `Reason`; an exception is a defect or a door's way to stop. Reason codes are public
API: they appear in answers, audit records, documents and exit codes, and are never renamed.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Side(StrEnum):
    """Whose doing a refusal is: the caller's, a peer's (store, issuer, sink), ours, or simply the policy's answer."""

    POLICY = "policy"
    CALLER = "caller"
    PEER = "peer"
    OURS = "ours"


class Reason(StrEnum):
    """Every reason an answer can have. Source: POLICY.md section 5, IDENTITY.md section 3."""

    # The policy's answers.
    GRANTED = "granted"
    NO_GRANT = "no_grant"
    DENIED_BY_RULE = "denied_by_rule"
    SEGMENT_DENIED = "segment_denied"
    ASSET_UNREGISTERED = "asset_unregistered"
    ASSET_RETIRED = "asset_retired"
    LOCKED = "locked"
    CONDITION_ERROR = "condition_error"
    DELEGATION_DENIED = "delegation_denied"
    SUBJECT_IS_ROLE = "subject_is_role"
    OBLIGATION_UNSUPPORTED = "obligation_unsupported"
    UNMAPPED_ROUTE = "unmapped_route"
    # Malformed questions.
    UNKNOWN_ACTION = "unknown_action"
    BAD_REQUEST = "bad_request"
    BAD_NAME = "bad_name"
    CONFLICT = "conflict"
    NOT_FOUND = "not_found"
    POLICY_REFUSED = "policy_refused"
    APPROVAL_MISSING = "approval_missing"
    SELF_APPROVAL = "self_approval"
    # We could not decide.
    BUDGET_EXCEEDED = "budget_exceeded"
    WORLD_STALE = "world_stale"
    WORLD_BEHIND = "world_behind"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    STORE_UNAVAILABLE = "store_unavailable"
    PDP_UNREACHABLE = "pdp_unreachable"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    INTERNAL_ERROR = "internal_error"
    # Credentials.
    CREDENTIAL_MISSING = "credential_missing"
    CREDENTIAL_AMBIGUOUS = "credential_ambiguous"
    TOKEN_TOO_LARGE = "token_too_large"  # noqa: S105 - a reason code, not a password; so below
    TOKEN_MALFORMED = "token_malformed"  # noqa: S105
    TOKEN_ENCODING_INVALID = "token_encoding_invalid"  # noqa: S105
    TOKEN_TOO_DEEP = "token_too_deep"  # noqa: S105
    NUMBER_INVALID = "number_invalid"
    DUPLICATE_CLAIM = "duplicate_claim"
    DUPLICATE_HEADER = "duplicate_header"
    ALG_NOT_ALLOWED = "alg_not_allowed"
    HEADER_NOT_ALLOWED = "header_not_allowed"
    KID_INVALID = "kid_invalid"
    KID_MISSING = "kid_missing"
    KEY_UNKNOWN = "key_unknown"
    CRIT_NOT_SUPPORTED = "crit_not_supported"
    TYP_NOT_ALLOWED = "typ_not_allowed"
    SIGNATURE_INVALID = "signature_invalid"
    KEYS_UNAVAILABLE = "keys_unavailable"
    ISSUER_KEYS_EMPTY = "issuer_keys_empty"
    VERIFIER_ERROR = "verifier_error"
    ISSUER_UNKNOWN = "issuer_unknown"
    AUDIENCE_MISMATCH = "audience_mismatch"
    AUDIENCE_NOT_EXCLUSIVE = "audience_not_exclusive"
    CLAIM_MISSING = "claim_missing"
    CLAIM_TYPE_INVALID = "claim_type_invalid"
    CLAIM_FORBIDDEN = "claim_forbidden"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105
    TOKEN_LIFETIME_EXCEEDED = "token_lifetime_exceeded"  # noqa: S105
    TOKEN_NOT_YET_VALID = "token_not_yet_valid"  # noqa: S105
    TOKEN_ISSUED_IN_FUTURE = "token_issued_in_future"  # noqa: S105
    SUBJECT_INVALID = "subject_invalid"
    SUBJECT_RESERVED = "subject_reserved"
    SUBJECT_NOT_ALLOWED = "subject_not_allowed"
    SUBJECT_RECREATED = "subject_recreated"
    BINDING_REQUIRED = "binding_required"
    BINDING_MISMATCH = "binding_mismatch"
    DPOP_PROOF_INVALID = "dpop_proof_invalid"
    DPOP_NONCE_REQUIRED = "dpop_nonce_required"
    ACTOR_INVALID = "actor_invalid"
    ACTOR_CHAIN_TOO_DEEP = "actor_chain_too_deep"
    SPIFFE_ID_INVALID = "spiffe_id_invalid"
    TRUST_DOMAIN_UNKNOWN = "trust_domain_unknown"
    CERTIFICATE_INVALID = "certificate_invalid"
    CERTIFICATE_REVOKED = "certificate_revoked"
    WORKLOAD_GONE = "workload_gone"
    TOKEN_INACTIVE = "token_inactive"  # noqa: S105
    TOKEN_REVOKED = "token_revoked"  # noqa: S105
    TOKEN_REPLAYED = "token_replayed"  # noqa: S105
    REPLAY_STORE_UNAVAILABLE = "replay_store_unavailable"
    LIVE_CHECK_UNAVAILABLE = "live_check_unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What a reason means at each door: gRPC status name, HTTP status and the exit code of a command."""

    side: Side
    grpc: str
    http: int
    exit_code: int


_POLICY: Final = Meaning(side=Side.POLICY, grpc="PERMISSION_DENIED", http=403, exit_code=3)
_CALLER: Final = Meaning(side=Side.CALLER, grpc="INVALID_ARGUMENT", http=400, exit_code=2)
_UNAUTHENTICATED: Final = Meaning(side=Side.CALLER, grpc="UNAUTHENTICATED", http=401, exit_code=4)
_UNAVAILABLE: Final = Meaning(side=Side.PEER, grpc="UNAVAILABLE", http=503, exit_code=5)
_CUT_OFF: Final = Meaning(side=Side.OURS, grpc="UNAVAILABLE", http=503, exit_code=5)

_SPECIAL: Final[dict[Reason, Meaning]] = {
    Reason.GRANTED: Meaning(side=Side.POLICY, grpc="OK", http=200, exit_code=0),
    Reason.CONFLICT: Meaning(side=Side.CALLER, grpc="ABORTED", http=409, exit_code=6),
    Reason.NOT_FOUND: Meaning(side=Side.CALLER, grpc="NOT_FOUND", http=404, exit_code=7),
    Reason.POLICY_REFUSED: Meaning(side=Side.CALLER, grpc="FAILED_PRECONDITION", http=422, exit_code=2),
    Reason.APPROVAL_MISSING: Meaning(side=Side.POLICY, grpc="FAILED_PRECONDITION", http=409, exit_code=8),
    Reason.DEADLINE_EXCEEDED: Meaning(side=Side.PEER, grpc="DEADLINE_EXCEEDED", http=503, exit_code=5),
    Reason.INTERNAL_ERROR: Meaning(side=Side.OURS, grpc="INTERNAL", http=503, exit_code=1),
}

_GROUPS: Final[tuple[tuple[Meaning, frozenset[Reason]], ...]] = (
    (
        _POLICY,
        frozenset(
            {
                Reason.NO_GRANT,
                Reason.DENIED_BY_RULE,
                Reason.SEGMENT_DENIED,
                Reason.ASSET_UNREGISTERED,
                Reason.ASSET_RETIRED,
                Reason.LOCKED,
                Reason.CONDITION_ERROR,
                Reason.DELEGATION_DENIED,
                Reason.SUBJECT_IS_ROLE,
                Reason.OBLIGATION_UNSUPPORTED,
                Reason.UNMAPPED_ROUTE,
                Reason.SELF_APPROVAL,
            }
        ),
    ),
    (_CALLER, frozenset({Reason.UNKNOWN_ACTION, Reason.BAD_REQUEST, Reason.BAD_NAME})),
    (
        _UNAVAILABLE,
        frozenset(
            {
                Reason.KEYS_UNAVAILABLE,
                Reason.REPLAY_STORE_UNAVAILABLE,
                Reason.LIVE_CHECK_UNAVAILABLE,
                Reason.STORE_UNAVAILABLE,
                Reason.PDP_UNREACHABLE,
            }
        ),
    ),
    (
        _CUT_OFF,
        frozenset(
            {
                Reason.WORLD_STALE,
                Reason.WORLD_BEHIND,
                Reason.AUDIT_UNAVAILABLE,
                Reason.BUDGET_EXCEEDED,
            }
        ),
    ),
)


def _meanings() -> dict[Reason, Meaning]:
    """Spread the groups over their reasons; what stands in none of them is a refused credential (401)."""
    table = {reason: meaning for meaning, reasons in _GROUPS for reason in reasons} | _SPECIAL
    return {reason: table.get(reason, _UNAUTHENTICATED) for reason in Reason}


MEANINGS: Final[dict[Reason, Meaning]] = _meanings()


class PortcullisError(Exception):
    """An error with a stable reason code, a sentence for the reader and, apart from it, advice what to do.

    The sentence may be shown to the caller: it never holds a token, a key or another's data.
    """

    def __init__(self, reason: Reason, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.advice = advice

    @property
    def meaning(self) -> Meaning:
        """What this error means at each door."""
        return MEANINGS[self.reason]

    def __str__(self) -> str:
        return f"{self.message} ({self.advice})" if self.advice else self.message


class BadNameError(PortcullisError, ValueError):
    """A name, pattern or version that the grammar of POLICY.md section 1 refuses."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.BAD_NAME, message)


class BadRequestError(PortcullisError, ValueError):
    """A question that is malformed; the message says where."""

    def __init__(self, message: str, *, reason: Reason = Reason.BAD_REQUEST) -> None:
        super().__init__(reason, message)


class ConfigError(PortcullisError):
    """A configuration, key file or environment that does not let a command start; exit code 2."""

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(Reason.BAD_REQUEST, message, advice=advice)


class ConflictError(PortcullisError):
    """A write lost its race: the log's head is `head_seq` now, and nothing was written."""

    def __init__(self, head_seq: int) -> None:
        super().__init__(
            Reason.CONFLICT, f"another change came first; the log stands at {head_seq}", advice="look again and retry"
        )
        self.head_seq = head_seq
