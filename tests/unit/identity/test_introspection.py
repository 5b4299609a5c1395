"""What an issuer says of a token now, held against the token (IS-5, T-56)."""

from typing import Any

import pytest

from pdp.errors import Reason
from pdp.identity.introspection import Introspection
from pdp.identity.types import Refusal, VerifiedIdentity
from pdp.identity.verifier import verify
from tests.support.tokens import (
    ISS,
    NOW_MS,
    NOW_S,
    entry,
    good_token,
    holder,
    jkt_of,
    keys_of,
    reason_of,
    signer,
    table,
)

LIVE = {"by": "introspection", "url": "https://login.example/introspect", "credential": "secret"}
TRUST = table(entry(live_check=LIVE))


def asked(compact: str | None = None, **members: Any) -> VerifiedIdentity | Refusal:
    live = Introspection(members=members)
    keys = {ISS: keys_of(signer())}
    return verify(f"Bearer {compact or good_token()}", table=TRUST, keys=keys, live=live, now_ms=NOW_MS)


CONFIRMED: list[dict[str, Any]] = [
    {"active": True},
    {"active": True, "iss": ISS, "sub": "alice@example.com", "aud": "portcullis", "jti": "0001", "client_id": "x"},
    {"active": True, "aud": ["other", "portcullis"], "exp": NOW_S - 29, "cnf": {}},
]


@pytest.mark.parametrize("members", CONFIRMED)
def test_a_token_that_its_issuer_confirms_gets_in_as_itself(members: dict[str, Any]) -> None:
    identity = asked(**members)
    assert isinstance(identity, VerifiedIdentity)
    assert identity.party.principal.id == "alice@example.com"


DENIED: list[dict[str, Any]] = [
    {},
    {"active": False},
    {"active": None},
    {"active": 1},
    {"active": "true"},
    {"active": [True]},
    {"active": True, "iss": ISS + "/"},
    {"active": True, "iss": None},
    {"active": True, "sub": "eve@example.com"},
    {"active": True, "sub": ["alice@example.com"]},
    {"active": True, "sub": None},
    {"active": True, "jti": "0002"},
    {"active": True, "aud": "portcullis2"},
    {"active": True, "aud": []},
    {"active": True, "aud": None},
    {"active": True, "aud": {"portcullis": 1}},
    {"active": True, "aud": [["portcullis"]]},
    {"active": True, "exp": NOW_S - 30},
    {"active": True, "exp": str(NOW_S + 60)},
    {"active": True, "exp": True},
    {"active": True, "exp": NOW_S + 60.5},
    {"active": True, "cnf": {"jkt": jkt_of(holder())}},
    {"active": True, "cnf": None},
]


@pytest.mark.parametrize("members", DENIED)
def test_t56_what_the_issuer_does_not_confirm_is_refused(members: dict[str, Any]) -> None:
    assert reason_of(asked(**members)) is Reason.TOKEN_INACTIVE


def test_a_token_without_an_id_is_not_held_against_one() -> None:
    trust = table(entry(live_check=LIVE, require_jti=False))
    live = Introspection(members={"active": True, "jti": "of-the-server"})
    keys = {ISS: keys_of(signer())}
    outcome = verify(f"Bearer {good_token(jti=...)}", table=trust, keys=keys, live=live, now_ms=NOW_MS)
    assert isinstance(outcome, VerifiedIdentity)


def test_no_answer_is_no_yes() -> None:
    keys = {ISS: keys_of(signer())}
    outcome = verify(f"Bearer {good_token()}", table=TRUST, keys=keys, now_ms=NOW_MS)
    assert reason_of(outcome) is Reason.LIVE_CHECK_UNAVAILABLE
