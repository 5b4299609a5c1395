"""The one place where a signature is checked, by itself."""

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import ECAlgorithm

from pdp.errors import Reason
from pdp.identity import gate
from pdp.identity.development import DevelopmentIssuer
from pdp.identity.gate import ParsedToken
from pdp.identity.keyset import VerificationKey
from pdp.identity.signature import check_signature
from pdp.identity.types import Refusal
from tests.support.tokens import ISS, forge, good_claims, good_header, good_token, keys_of, signer


def parsed(compact: str) -> ParsedToken:
    found = gate.parse(compact.encode())
    assert isinstance(found, ParsedToken)
    return found


def reason(outcome: Refusal | None) -> Reason | None:
    return outcome.reason if outcome is not None else None


def test_a_key_that_is_too_short_proves_nothing_though_it_got_past_the_key_set() -> None:
    """A second look after JW-4: the library only warns."""
    key = rsa.generate_private_key(65537, 1024)  # noqa: S505 - the point
    weak = DevelopmentIssuer(iss=ISS, alg="RS256", key=key)
    compact = forge(good_header(weak), good_claims(), weak)
    held = VerificationKey(kid="w", alg="RS256", thumbprint="", public=key.public_key())
    assert reason(check_signature(parsed(compact), held)) is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize("alg", ["HS256", "none", ""])
def test_an_algorithm_that_does_not_exist_here_verifies_nothing(alg: str) -> None:
    (key,) = keys_of(signer()).keys
    held = VerificationKey(kid=key.kid, alg=alg, thumbprint=key.thumbprint, public=key.public)
    assert reason(check_signature(parsed(good_token()), held)) is Reason.VERIFIER_ERROR


@pytest.mark.parametrize("answer", [1, "yes", object(), None, False])
def test_only_true_itself_is_a_proof(monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    (key,) = keys_of(signer()).keys
    assert check_signature(parsed(good_token()), key) is None
    monkeypatch.setattr(ECAlgorithm, "verify", lambda *_: answer)
    assert reason(check_signature(parsed(good_token()), key)) is Reason.SIGNATURE_INVALID
