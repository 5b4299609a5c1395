"""The three steps of the verifier, each by itself: none lets through what only the next one would catch."""

import hashlib
from typing import Any

import pytest

from pdp.errors import Reason
from pdp.identity import gate
from pdp.identity.binding import Connection
from pdp.identity.gate import Credential, Scheme
from pdp.identity.introspection import Introspection
from pdp.identity.issuers import IssuerTable
from pdp.identity.keyset import KeySet
from pdp.identity.proof import BoundRequest
from pdp.identity.types import Refusal, VerifiedIdentity
from pdp.identity.verifier import Candidate, VerifiedToken, admit, examine, verify, verify_token
from tests.support.tokens import (
    HTU,
    ISS,
    NOW_MS,
    bound_token,
    entry,
    good_token,
    keys_of,
    proof,
    reason_of,
    signer,
    table,
)
from tests.support.workloads import CLUSTER, REVIEWED, account_token, cluster_keys, workloads

TRUST = table()
KEYS = keys_of(signer())
OTHERS = keys_of(signer(), iss="https://other.example")
"""The same key, published by somebody else (JW-9, CVE-2026-49998)."""


def candidate(compact: str, trust: IssuerTable = TRUST, scheme: str = "Bearer") -> Candidate:
    credential = gate.present(f"{scheme} {compact}")
    assert isinstance(credential, Credential)
    found = examine(credential, table=trust)
    assert isinstance(found, Candidate), found
    return found


def proved(
    compact: str, *, keys: KeySet = KEYS, trust: IssuerTable = TRUST, connection: Connection | None = None
) -> VerifiedToken | Refusal:
    connection = connection or Connection()
    return verify_token(candidate(compact, trust), keys=keys, connection=connection, table=trust, now_ms=NOW_MS)


def admitted(token: VerifiedToken, **changes: Any) -> VerifiedIdentity | Refusal:
    return admit(token, **{"keys": KEYS, "connection": Connection(), "table": TRUST, "now_ms": NOW_MS} | changes)


def token_of(compact: str) -> VerifiedToken:
    token = proved(compact)
    assert isinstance(token, VerifiedToken), token
    return token


def reason(outcome: object) -> Reason | None:
    return outcome.reason if isinstance(outcome, Refusal) else None


def test_jw9_another_issuers_keys_prove_nothing_whatever_they_are() -> None:
    assert reason(proved(good_token(), keys=OTHERS)) is Reason.KEY_UNKNOWN
    assert (
        reason(verify(f"Bearer {good_token()}", table=TRUST, keys={ISS: OTHERS}, now_ms=NOW_MS)) is Reason.KEY_UNKNOWN
    )
    assert reason_of(admitted(token_of(good_token()), keys=OTHERS)) is Reason.KEY_UNKNOWN


def test_a_bound_token_without_its_proof_is_not_even_a_proved_one() -> None:
    """TC-2: else it would be remembered, and every use would rest on the second look alone."""
    trust = table(entry(cnf_kinds=["jkt"]))
    assert reason(proved(bound_token(), trust=trust)) is Reason.BINDING_REQUIRED
    digest = hashlib.sha256(bound_token().encode()).digest()
    silent = Connection(scheme=Scheme.DPOP, token=digest)
    assert reason(proved(bound_token(), trust=trust, connection=silent)) is Reason.DPOP_PROOF_INVALID


@pytest.mark.parametrize(
    ("later_ms", "wanted"), [(329_999, None), (330_000, Reason.TOKEN_EXPIRED), (-40_001, Reason.TOKEN_ISSUED_IN_FUTURE)]
)
def test_a_proved_token_meets_the_clock_again_on_each_use(later_ms: int, wanted: Reason | None) -> None:
    assert reason_of(admitted(token_of(good_token()), now_ms=NOW_MS + later_ms)) is wanted


def test_t28_a_proved_token_ends_with_its_key() -> None:
    token = token_of(good_token())
    assert reason_of(admitted(token)) is None
    assert reason_of(admitted(token, keys=keys_of(signer("ES256", "next")))) is Reason.KEY_UNKNOWN
    assert reason_of(admitted(token, keys=keys_of())) is Reason.ISSUER_KEYS_EMPTY


def test_an_answer_of_another_kind_of_live_check_is_none() -> None:
    trust = workloads(live_check=REVIEWED)
    yes = Introspection(members={"active": True})
    outcome = verify(f"Bearer {account_token()}", table=trust, keys={CLUSTER: cluster_keys()}, live=yes, now_ms=NOW_MS)
    assert reason(outcome) is Reason.LIVE_CHECK_UNAVAILABLE


def test_without_keys_at_hand_or_a_credential_nobody_is_anybody() -> None:
    assert reason(verify(f"Bearer {good_token()}", table=TRUST, keys={}, now_ms=NOW_MS)) is Reason.KEYS_UNAVAILABLE
    assert reason(verify(None, table=TRUST, keys={ISS: KEYS}, now_ms=NOW_MS)) is Reason.CREDENTIAL_MISSING


def test_a_proof_holds_for_its_request_and_for_none_without() -> None:
    trust, compact = table(entry(cnf_kinds=["jkt"])), bound_token()
    outcome = verify(f"DPoP {compact}", table=trust, keys={ISS: KEYS}, now_ms=NOW_MS)
    assert reason(outcome) is Reason.DPOP_PROOF_INVALID
    held = BoundRequest(method="POST", uri=HTU, proof=proof(compact))
    outcome = verify(f"DPoP {compact}", table=trust, keys={ISS: KEYS}, request=held, now_ms=NOW_MS)
    assert isinstance(outcome, VerifiedIdentity)
