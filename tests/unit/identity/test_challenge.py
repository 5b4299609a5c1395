"""What a refused caller is told: IDENTITY.md section 5, RFC 6750 section 3, RFC 9449 sections 7.1 and 9, written out."""

import pytest

from pdp.errors import MEANINGS, Reason
from pdp.identity.challenge import challenge
from pdp.identity.types import Refusal

ALGS = 'algs="ES256 ES384 ES512 EdDSA PS256 PS384 PS512 RS256 RS384 RS512"'
BEARER = (("www-authenticate", 'Bearer error="invalid_token"'),)


def of(reason: Reason, *, dpop: bool = False, nonce: str = "") -> tuple[tuple[str, str], ...]:
    return challenge(Refusal(reason=reason, detail="never told", dpop=dpop), nonce=nonce)


def dpop(error: str, *more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return (("www-authenticate", f'DPoP error="{error}", {ALGS}'), *more)


def test_nothing_was_wrong_with_a_credential_that_was_not_sent() -> None:
    assert of(Reason.CREDENTIAL_MISSING) == (("www-authenticate", "Bearer"),)
    assert of(Reason.CREDENTIAL_MISSING, dpop=True, nonce="n") == (("www-authenticate", "Bearer"),)


@pytest.mark.parametrize(
    "reason",
    [
        Reason.TOKEN_EXPIRED,
        Reason.SIGNATURE_INVALID,
        Reason.TOKEN_REVOKED,
        Reason.TOKEN_INACTIVE,
        Reason.VERIFIER_ERROR,
    ],
)
def test_a_bad_token_is_an_invalid_one_whatever_was_wrong(reason: Reason) -> None:
    assert of(reason) == BEARER
    assert of(reason, nonce="n") == BEARER


def test_a_proof_is_asked_for_as_rfc_9449_says() -> None:
    assert of(Reason.DPOP_PROOF_INVALID, dpop=True, nonce="n") == dpop("invalid_dpop_proof")
    assert of(Reason.TOKEN_REPLAYED, dpop=True, nonce="n") == dpop("invalid_dpop_proof")
    assert of(Reason.BINDING_REQUIRED, dpop=True, nonce="n") == dpop("invalid_token")
    assert of(Reason.DPOP_NONCE_REQUIRED, dpop=True, nonce="n") == dpop("use_dpop_nonce", ("dpop-nonce", "n"))
    assert of(Reason.DPOP_NONCE_REQUIRED, dpop=True) == dpop("use_dpop_nonce")
    assert of(Reason.BINDING_REQUIRED) == BEARER


@pytest.mark.parametrize(
    "reason",
    [
        Reason.LOCKED, Reason.SUBJECT_IS_ROLE, Reason.NO_GRANT, Reason.KEYS_UNAVAILABLE, Reason.REPLAY_STORE_UNAVAILABLE,
        Reason.LIVE_CHECK_UNAVAILABLE, Reason.WORLD_STALE, Reason.AUDIT_UNAVAILABLE, Reason.INTERNAL_ERROR,
    ],
)  # fmt: skip
def test_what_no_other_credential_would_mend_asks_for_none(reason: Reason) -> None:
    assert of(reason) == of(reason, dpop=True, nonce="n") == ()


def test_every_401_asks_for_a_credential_and_nothing_else_does() -> None:
    for reason, meaning in MEANINGS.items():
        asked = of(reason)
        assert bool(asked) is (meaning.http == 401), reason
        assert not any("never told" in value or reason.value in value for _, value in asked)


STATUS = {
    Reason.CREDENTIAL_MISSING: (401, "UNAUTHENTICATED"),
    Reason.TOKEN_EXPIRED: (401, "UNAUTHENTICATED"),
    Reason.TOKEN_REVOKED: (401, "UNAUTHENTICATED"),
    Reason.CERTIFICATE_REVOKED: (401, "UNAUTHENTICATED"),
    Reason.DPOP_PROOF_INVALID: (401, "UNAUTHENTICATED"),
    Reason.DPOP_NONCE_REQUIRED: (401, "UNAUTHENTICATED"),
    Reason.TOKEN_REPLAYED: (401, "UNAUTHENTICATED"),
    Reason.BINDING_REQUIRED: (401, "UNAUTHENTICATED"),
    Reason.VERIFIER_ERROR: (401, "UNAUTHENTICATED"),
    Reason.LOCKED: (403, "PERMISSION_DENIED"),
    Reason.SUBJECT_IS_ROLE: (403, "PERMISSION_DENIED"),
    Reason.NO_GRANT: (403, "PERMISSION_DENIED"),
    Reason.KEYS_UNAVAILABLE: (503, "UNAVAILABLE"),
    Reason.REPLAY_STORE_UNAVAILABLE: (503, "UNAVAILABLE"),
    Reason.LIVE_CHECK_UNAVAILABLE: (503, "UNAVAILABLE"),
    Reason.WORLD_STALE: (503, "UNAVAILABLE"),
    Reason.AUDIT_UNAVAILABLE: (503, "UNAVAILABLE"),
    Reason.WORLD_BEHIND: (503, "UNAVAILABLE"),
    Reason.INTERNAL_ERROR: (503, "INTERNAL"),
}


@pytest.mark.parametrize("reason", STATUS)
def test_the_table_of_errors_is_that_of_the_design(reason: Reason) -> None:
    meaning = MEANINGS[reason]
    assert (meaning.http, meaning.grpc) == STATUS[reason]
