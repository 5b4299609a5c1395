"""The rows of IDENTITY.md section 3 for service-account tokens and JWT-SVIDs, and tokens of one kind shown as another."""

from collections.abc import Mapping
from typing import Any

import pytest

from pdp.errors import Reason
from pdp.identity.issuers import IssuerTable
from pdp.identity.keyset import KeySet
from pdp.identity.kubernetes import Review
from pdp.identity.types import Refusal, VerifiedIdentity
from pdp.identity.verifier import LiveAnswer, verify
from tests.support.tokens import (
    ALGS,
    ISS,
    NOW_MS,
    NOW_S,
    bound_token,
    forge,
    good_claims,
    good_header,
    good_token,
    keys_of,
    proof,
    reason_of,
    signer,
)
from tests.support.workloads import (
    ACCOUNT_UID,
    CLUSTER,
    DOMAIN,
    POD_UID,
    REVIEWED,
    SVID,
    account_token,
    bundle,
    cluster_claims,
    cluster_keys,
    svid_token,
    workloads,
)

TRUST = workloads()
KEYS = {
    ISS: keys_of(*(signer(alg) for alg in ALGS)),
    CLUSTER: cluster_keys(),
    f"spiffe://{DOMAIN}": bundle(),
    "spiffe://other.example": bundle("other.example", "other"),
}


def enter(
    compact: str,
    *,
    trust: IssuerTable = TRUST,
    keys: Mapping[str, KeySet] = KEYS,
    review: LiveAnswer | None = None,
    now_ms: int = NOW_MS,
) -> VerifiedIdentity | Refusal:
    return verify(f"Bearer {compact}", table=trust, keys=keys, live=review, now_ms=now_ms)


def test_a_service_account_is_a_workload_of_its_cluster() -> None:
    identity = enter(account_token())
    assert isinstance(identity, VerifiedIdentity)
    assert str(identity.party.principal) == "workload:cluster-a/system:serviceaccount:ml:scorer"
    assert (identity.facts.account_uid, identity.facts.pod_uid) == (ACCOUNT_UID, POD_UID)
    assert identity.facts.jti == "8f0a"


@pytest.mark.parametrize("header", [{"typ": "JWT"}, {"typ": ...}, {"typ": "JOSE"}])
def test_a_jwt_svid_is_the_workload_of_its_subject(header: dict[str, Any]) -> None:
    identity = enter(svid_token(header))
    assert isinstance(identity, VerifiedIdentity)
    assert str(identity.party.principal) == f"workload:{SVID}"
    assert identity.expires_at_s == NOW_S + 330


def kubernetes(**changes: Any) -> dict[str, Any]:
    return {**cluster_claims()["kubernetes.io"], **changes}


ACCOUNTS: dict[str, tuple[str, Reason]] = {
    "T-14-none": (account_token({"alg": "none"}), Reason.ALG_NOT_ALLOWED),
    "T-16-rs512": (account_token({"alg": "RS512"}), Reason.ALG_NOT_ALLOWED),
    "T-19-no-kid": (account_token({"kid": ...}), Reason.KID_MISSING),
    "T-23-at-jwt": (account_token({"typ": "at+jwt"}), Reason.TYP_NOT_ALLOWED),
    "T-23-secevent": (account_token({"typ": "secevent+jwt"}), Reason.TYP_NOT_ALLOWED),
    "T-23-empty": (account_token({"typ": ""}), Reason.TYP_NOT_ALLOWED),
    "T-23-null": (account_token({"typ": None}), Reason.TYP_NOT_ALLOWED),
    "T-31-api-server": (account_token(aud=["https://kubernetes.default.svc"]), Reason.AUDIENCE_MISMATCH),
    "T-32-both": (account_token(aud=["portcullis", "vault"]), Reason.AUDIENCE_NOT_EXCLUSIVE),
    "T-33-legacy-without-exp": (account_token(exp=...), Reason.CLAIM_MISSING),
    "T-30-legacy-issuer": (account_token(iss="kubernetes/serviceaccount"), Reason.ISSUER_UNKNOWN),
    "T-36-a-year": (account_token(exp=NOW_S + 365 * 86400), Reason.TOKEN_LIFETIME_EXCEEDED),
    **{f"T-39-no-{name}": (account_token(**{name: ...}), Reason.CLAIM_MISSING) for name in ("nbf", "iat", "jti", "sub")},
    "T-45-no-kubernetes": (account_token(**{"kubernetes.io": ...}), Reason.CLAIM_MISSING),
    **{
        f"T-47-{number}": (account_token(**{"kubernetes.io": value}), Reason.CLAIM_TYPE_INVALID)
        for number, value in enumerate((
            "ml", [], {}, kubernetes(namespace=1), kubernetes(namespace=""), kubernetes(namespace="ML"), kubernetes(pod="x"),
            kubernetes(pod={}), kubernetes(pod={"uid": 1}), kubernetes(pod={"uid": ""}), kubernetes(serviceaccount="scorer"),
            kubernetes(serviceaccount={"name": "scorer"}), kubernetes(serviceaccount={"name": "scorer", "uid": ""}),
            kubernetes(serviceaccount={"name": "scorer", "uid": "a b"}), kubernetes(namespace="ml:x"),
            kubernetes(serviceaccount={"name": "", "uid": "a"}), kubernetes(serviceaccount={"uid": "a"}),
        ))
    },
    "T-46-events": (account_token(events={}), Reason.CLAIM_FORBIDDEN),
    "T-51-act": (account_token(act={"sub": "x"}), Reason.CLAIM_FORBIDDEN),
    "T-48-cnf": (account_token(cnf={"jkt": "a"}), Reason.BINDING_REQUIRED),
    "T-55-other-account": (account_token(sub="system:serviceaccount:ml:admin"), Reason.SUBJECT_NOT_ALLOWED),
    "T-55-other-namespace": (account_token(sub="system:serviceaccount:kube-system:scorer"), Reason.SUBJECT_NOT_ALLOWED),
    "T-55-a-person": (account_token(sub="alice@example.com"), Reason.SUBJECT_NOT_ALLOWED),
    "T-55-a-node": (account_token(sub="system:node:n1"), Reason.SUBJECT_NOT_ALLOWED),
}  # fmt: skip

SVIDS: dict[str, tuple[str, Reason]] = {
    "T-14-none": (svid_token({"alg": "none"}), Reason.ALG_NOT_ALLOWED),
    "T-16-eddsa": (svid_token({"alg": "EdDSA"}), Reason.ALG_NOT_ALLOWED),
    "T-19-no-kid": (svid_token({"kid": ...}), Reason.KID_MISSING),
    "T-20-unknown": (svid_token({"kid": "nobody"}), Reason.KEY_UNKNOWN),
    "T-23-at-jwt": (svid_token({"typ": "at+jwt"}), Reason.TYP_NOT_ALLOWED),
    "T-23-secevent": (svid_token({"typ": "secevent+jwt"}), Reason.TYP_NOT_ALLOWED),
    "T-24-x5t": (svid_token({"x5t": "a"}), Reason.HEADER_NOT_ALLOWED),
    "T-31-other": (svid_token(aud=["other"]), Reason.AUDIENCE_MISMATCH),
    "T-31-none": (svid_token(aud=...), Reason.AUDIENCE_MISMATCH),
    "T-32-two": (svid_token(aud=["portcullis", "other"]), Reason.AUDIENCE_NOT_EXCLUSIVE),
    "T-33-no-exp": (svid_token(exp=...), Reason.CLAIM_MISSING),
    "T-34-expired": (svid_token(exp=NOW_S - 30), Reason.TOKEN_EXPIRED),
    "T-36-too-long": (svid_token(exp=NOW_S + 3601), Reason.TOKEN_LIFETIME_EXCEEDED),
    "T-36-too-long-in-spite-of-iat": (svid_token(iat=NOW_S - 1, exp=NOW_S + 7200), Reason.TOKEN_LIFETIME_EXCEEDED),
    "T-37-iat-ahead": (svid_token(iat=NOW_S + 31), Reason.TOKEN_ISSUED_IN_FUTURE),
    "T-46-events": (svid_token(events={}), Reason.CLAIM_FORBIDDEN),
    "T-46-kubernetes": (svid_token(**{"kubernetes.io": {}}), Reason.CLAIM_FORBIDDEN),
    "T-48-cnf": (svid_token(cnf={"jkt": "a"}), Reason.BINDING_REQUIRED),
    "T-51-act": (svid_token(act={"sub": "x"}), Reason.CLAIM_FORBIDDEN),
    **{
        f"T-52-{sub}": (svid_token(sub=sub), Reason.SPIFFE_ID_INVALID)
        for sub in (f"spiffe://{DOMAIN}", f"Spiffe://{DOMAIN}/a", f"spiffe://{DOMAIN}/%61", f"spiffe://{DOMAIN}/../a",
                    f"spiffe://{DOMAIN}/a/", f"spiffe://{DOMAIN}:1/a", f"spiffe://u@{DOMAIN}/a", f"spiffe://{DOMAIN}/a?b",
                    f"spiffe://{DOMAIN.upper()}/a", f"spiffe://{DOMAIN}//a", "spiffe:")
    },
    "T-53-unknown-domain": (svid_token(sub="spiffe://evil.example/a"), Reason.TRUST_DOMAIN_UNKNOWN),
    "T-53-another-domains-key": (svid_token(by="other"), Reason.KEY_UNKNOWN),
    "T-53-issuer-speaks-for-a-domain": (good_token(sub=SVID), Reason.TYP_NOT_ALLOWED),
    "T-53-no-spiffe-subject": (svid_token(sub="alice@example.com", iss=f"spiffe://{DOMAIN}"), Reason.ISSUER_UNKNOWN),
    "T-39-no-sub": (svid_token(sub=..., iss=f"spiffe://{DOMAIN}"), Reason.ISSUER_UNKNOWN),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCOUNTS)
def test_a_bad_service_account_token_is_refused(name: str) -> None:
    compact, reason = ACCOUNTS[name]
    assert reason_of(enter(compact)) is reason


@pytest.mark.parametrize("name", SVIDS)
def test_a_bad_jwt_svid_is_refused(name: str) -> None:
    compact, reason = SVIDS[name]
    assert reason_of(enter(compact)) is reason


def test_t53_each_trust_domain_is_verified_by_its_own_bundle_alone() -> None:
    trust = workloads(domains=(DOMAIN, "other.example"))
    other = "spiffe://other.example/x"
    assert isinstance(enter(svid_token(sub=other, by="other"), trust=trust), VerifiedIdentity)
    assert reason_of(enter(svid_token(sub=other), trust=trust)) is Reason.KEY_UNKNOWN
    assert reason_of(enter(svid_token(by="other"), trust=trust)) is Reason.KEY_UNKNOWN


def test_no_token_of_one_kind_is_one_of_another() -> None:
    """RFC 8725 section 3.12: each issuer's key under every other issuer's claims, header and kind."""
    people, cluster, spire = signer(), signer("RS256", "cluster"), signer("ES256", "spire")
    for by, header, claims in (
        (cluster, good_header(cluster), good_claims(iss=CLUSTER)),
        (people, good_header(people, typ="JWT"), cluster_claims(iss=ISS)),
        (spire, good_header(spire), good_claims()),
        (spire, good_header(spire, typ="JWT"), cluster_claims()),
        (cluster, good_header(cluster, typ="JWT"), {"sub": SVID, "aud": ["portcullis"], "exp": NOW_S + 9}),
        (people, good_header(people, typ="secevent+jwt"), good_claims(events={})),
        (people, {"typ": "dpop+jwt", "alg": "ES256", "jwk": people.public_jwk}, good_claims()),
    ):
        assert isinstance(enter(forge(header, claims, by)), Refusal)
    assert isinstance(enter(proof(bound_token())), Refusal)


RECORDED = workloads(account_uids={"ml/scorer": "another-uid"})
LIVE = workloads(live_check=REVIEWED)
GOOD_REVIEW: dict[str, Any] = {
    "authenticated": True,
    "audiences": ["portcullis"],
    "username": "system:serviceaccount:ml:scorer",
    "uid": ACCOUNT_UID,
    "pod_uid": POD_UID,
}


def test_t55_an_account_with_another_uid_than_the_one_on_record_was_made_anew() -> None:
    assert reason_of(enter(account_token(), trust=RECORDED)) is Reason.SUBJECT_RECREATED
    matching = workloads(account_uids={"ml/scorer": ACCOUNT_UID, "ml/other": "x"})
    assert isinstance(enter(account_token(), trust=matching), VerifiedIdentity)


def test_a_cluster_that_confirms_the_token_lets_it_in() -> None:
    assert isinstance(enter(account_token(), trust=LIVE, review=Review(**GOOD_REVIEW)), VerifiedIdentity)
    unbound = account_token(**{"kubernetes.io": {k: v for k, v in kubernetes().items() if k != "pod"}})
    assert isinstance(enter(unbound, trust=LIVE, review=Review(**GOOD_REVIEW | {"pod_uid": None})), VerifiedIdentity)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"authenticated": False}, Reason.TOKEN_INACTIVE),
        ({"authenticated": None}, Reason.TOKEN_INACTIVE),
        ({"authenticated": "true"}, Reason.TOKEN_INACTIVE),
        ({"authenticated": 1}, Reason.TOKEN_INACTIVE),
        ({"audiences": None}, Reason.TOKEN_INACTIVE),
        ({"audiences": []}, Reason.TOKEN_INACTIVE),
        ({"audiences": "portcullis"}, Reason.TOKEN_INACTIVE),
        ({"audiences": ["https://kubernetes.default.svc"]}, Reason.TOKEN_INACTIVE),
        ({"username": "system:serviceaccount:ml:admin"}, Reason.SUBJECT_NOT_ALLOWED),
        ({"username": None}, Reason.SUBJECT_NOT_ALLOWED),
        ({"uid": "new"}, Reason.SUBJECT_RECREATED),
        ({"uid": None}, Reason.SUBJECT_RECREATED),
        ({"pod_uid": None}, Reason.WORKLOAD_GONE),
        ({"pod_uid": "new"}, Reason.WORKLOAD_GONE),
    ],
)
def test_t55_t56_what_the_cluster_does_not_confirm_is_refused(changes: dict[str, Any], reason: Reason) -> None:
    assert reason_of(enter(account_token(), trust=LIVE, review=Review(**GOOD_REVIEW | changes))) is reason


def test_a_live_check_that_did_not_answer_is_no_yes() -> None:
    assert reason_of(enter(account_token(), trust=LIVE)) is Reason.LIVE_CHECK_UNAVAILABLE
