"""A second JWT implementation as an oracle: what it signs we accept, what we sign it accepts, and both read the same."""

import json
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws, jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

from pdp.identity.development import issue
from pdp.identity.types import VerifiedIdentity
from tests.support.tokens import ALGS, ISS, NOW_S, forge, good_claims, good_header, judge, signer

# RFC 9864 renames `EdDSA`; issuers still use the old name, and the oracle says so each time.
pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
KINDS = {"ES256": ECKey, "RS256": RSAKey, "EdDSA": OKPKey}
SUBJECTS = st.from_regex(r"[A-Za-z0-9._+-]{1,40}(@[a-z0-9.-]{1,20})?", fullmatch=True)
GROUPS = st.lists(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,20}", fullmatch=True), max_size=5)
EXTRA = st.dictionaries(
    st.from_regex(r"x_[a-z]{1,8}", fullmatch=True),
    st.text(st.characters(codec="utf-8")) | st.integers(-(2**53) + 1, 2**53 - 1),
)


@cache
def oracle_key(alg: str) -> Any:
    return KINDS[alg].import_key(signer(alg).to_pem().decode())


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ALGS), SUBJECTS, GROUPS, st.integers(1, 3000), EXTRA)
def test_what_the_oracle_signs_is_accepted_and_reads_the_same(
    alg: str, sub: str, groups: list[str], left_s: int, extra: dict[str, Any]
) -> None:
    claims = good_claims(sub=sub, groups=groups, exp=NOW_S + left_s, **extra)
    compact = jwt.encode(good_header(signer(alg)), claims, oracle_key(alg), algorithms=[alg])
    identity = judge(f"Bearer {compact}")
    assert isinstance(identity, VerifiedIdentity), identity
    assert str(identity.party.principal) == f"user:{sub}"
    assert identity.party.groups == {f"group:{name}" for name in groups}
    assert identity.expires_at_s == NOW_S + left_s + 30
    assert (identity.facts.jti, identity.facts.issued_at_s) == ("0001", NOW_S - 10)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ALGS), SUBJECTS, GROUPS)
def test_what_the_development_issuer_signs_the_oracle_accepts(alg: str, sub: str, groups: list[str]) -> None:
    compact = issue(signer(alg), sub=sub, jti="1", now_s=NOW_S, groups=groups)
    token = jwt.decode(compact, oracle_key(alg), algorithms=[alg])
    assert token.header["typ"] == "at+jwt"
    assert (token.claims["sub"], token.claims.get("groups", [])) == (sub, groups)
    assert isinstance(judge(f"Bearer {compact}"), VerifiedIdentity)


VALUES = (
    st.none() | st.booleans() | st.integers(-(2**55), 2**55) | st.floats() | st.text(max_size=12)
    | st.sampled_from(["portcullis", ISS, ISS + "/", "alice@example.com", "role:admin", "at+jwt", "JWT", "ES256", "none"])
    | st.lists(st.sampled_from(["portcullis", "other", ISS, ""]) | st.text(max_size=3), max_size=3)
    | st.integers(NOW_S - 4000, NOW_S + 4000)
)  # fmt: skip
CLAIM_NAMES = st.sampled_from([*sorted(good_claims()), "nbf", "scope", "sid", "roles", "cnf", "act", "events", "nonce"])
HEADER_NAMES = st.sampled_from(["alg", "typ", "kid", "crit", "b64", "cty", "jwk", "x5c", "x"])


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(ALGS),
    st.dictionaries(CLAIM_NAMES, VALUES, max_size=3),
    st.dictionaries(HEADER_NAMES, VALUES, max_size=1),
    st.sets(CLAIM_NAMES, max_size=1),
)
def test_whatever_we_let_in_the_oracle_lets_in_as_the_same_person(
    alg: str, claims: dict[str, Any], header: dict[str, Any], absent: set[str]
) -> None:
    """The other way round is no rule: most of what we refuse, a library lets pass."""
    by = signer(alg)
    body = {name: value for name, value in (good_claims() | claims).items() if name not in absent}
    compact = forge(json.dumps(good_header(by) | header), json.dumps(body), by)
    identity = judge(f"Bearer {compact}")
    if not isinstance(identity, VerifiedIdentity):
        return
    token = jwt.decode(compact, oracle_key(alg), algorithms=[alg])
    RULES.validate(token.claims)
    assert str(identity.party.principal) == f"user:{token.claims['sub']}"
    assert identity.facts.jti == token.claims["jti"]
    assert identity.party.groups == {f"group:{name}" for name in token.claims.get("groups", [])}
    assert (identity.facts.issued_at_s, identity.facts.expires_at_s) == (token.claims["iat"], token.claims["exp"])


RULES = jwt.JWTClaimsRegistry(
    now=NOW_S,
    leeway=30,
    iss={"essential": True, "value": ISS},
    aud={"essential": True, "value": "portcullis"},
    sub={"essential": True},
    exp={"essential": True},
    iat={"essential": True},
    jti={"essential": True},
)


def test_a_signature_that_we_refuse_the_oracle_refuses_too() -> None:
    for alg in ALGS:
        compact = jws.serialize_compact(
            good_header(signer(alg)), json.dumps(good_claims()), oracle_key(alg), algorithms=[alg]
        )
        head, _, signature = compact.rpartition(".")
        for place in range(0, len(signature) - 2, 17):
            other = "A" if signature[place] != "A" else "B"
            spoiled = f"{head}.{signature[:place]}{other}{signature[place + 1 :]}"
            assert not isinstance(judge(f"Bearer {spoiled}"), VerifiedIdentity)
            assert not verifies(spoiled, alg)


def verifies(compact: str, alg: str) -> bool:
    try:
        jws.deserialize_compact(compact, oracle_key(alg), algorithms=[alg])
    except ValueError:
        return False
    except Exception as error:  # noqa: BLE001 - the oracle has its own errors
        return type(error).__name__ not in {"BadSignatureError", "DecodeError"}
    return True
