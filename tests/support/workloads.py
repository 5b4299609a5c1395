"""Good tokens of the other profiles: a Kubernetes service account, a SPIFFE workload, and tables that trust them."""

import json
from typing import Any, Final

from pdp.identity.issuers import IssuerTable, parse_trust
from pdp.identity.keyset import KeySet
from tests.support.tokens import NOW_S, Claims, entry, forge, key_set, signer

CLUSTER: Final = "https://kubernetes.default.svc.cluster-a"
DOMAIN: Final = "prod.example"
SVID: Final = f"spiffe://{DOMAIN}/ns/ml/sa/scorer"
ACCOUNT_UID: Final = "0d4b9c6e-3d9f-4c0e-9a55-1f2f6c1f1d11"
POD_UID: Final = "5a1b7e02-0a3b-4f8f-8d6f-0e8f7c1b2a33"


REVIEWED: Final = {
    "by": "token_review",
    "url": "https://127.0.0.1/apis/authentication.k8s.io/v1/tokenreviews",
    "credential": "token",
}


def cluster_entry(**changes: Any) -> dict[str, Any]:
    return entry(
        **{
            "iss": CLUSTER,
            "profile": "k8s_sa",
            "algs": ["RS256", "ES256"],
            "namespace": "cluster-a",
            "group_claims": None,
            **changes,
        }
    )


def domain_entry(name: str = DOMAIN, **changes: Any) -> dict[str, Any]:
    tokens = {"bundle": {"file": "bundle.json"}, "audiences": ["portcullis"], "max_lifetime_s": 3600}
    return {"domain": name, "ca": f"{name}.pem", "jwt": tokens | changes}


def workloads(
    *, domains: tuple[str, ...] = (DOMAIN,), svid: dict[str, Any] | None = None, **cluster: Any
) -> IssuerTable:
    trust = {
        "issuers": [entry(), cluster_entry(**cluster)],
        "trust_domains": [domain_entry(name, **(svid or {})) for name in domains],
    }
    return parse_trust(json.dumps(trust))


def cluster_keys() -> KeySet:
    return key_set([signer("RS256", "cluster").public_jwk], algs=("RS256", "ES256"), iss=CLUSTER)


def bundle(name: str = DOMAIN, by: str = "spire") -> KeySet:
    jwk = {key: value for key, value in signer("ES256", by).public_jwk.items() if key != "alg"}
    return key_set([jwk | {"use": "jwt-svid"}], algs=("ES256", "RS256"), iss=f"spiffe://{name}", spiffe=True)


def cluster_claims(**changes: Any) -> Claims:
    base = {
        "iss": CLUSTER,
        "sub": "system:serviceaccount:ml:scorer",
        "aud": ["portcullis"],
        "iat": NOW_S - 10,
        "nbf": NOW_S - 10,
        "exp": NOW_S + 590,
        "jti": "8f0a",
        "kubernetes.io": {
            "namespace": "ml",
            "serviceaccount": {"name": "scorer", "uid": ACCOUNT_UID},
            "pod": {"name": "scorer-0", "uid": POD_UID},
            "node": {"name": "n1", "uid": "n"},
        },
    }
    return {name: value for name, value in (base | changes).items() if value is not ...}


def account_token(header: Claims | None = None, **claims: Any) -> str:
    by = signer("RS256", "cluster")
    head = {"alg": "RS256", "kid": by.public_jwk["kid"]} | (header or {})
    return forge({name: value for name, value in head.items() if value is not ...}, cluster_claims(**claims), by)


def svid_token(header: Claims | None = None, *, by: str = "spire", **claims: Any) -> str:
    key = signer("ES256", by)
    head = {"alg": "ES256", "kid": key.public_jwk["kid"], "typ": "JWT"} | (header or {})
    body = {"sub": SVID, "aud": ["portcullis"], "exp": NOW_S + 300} | claims
    return forge(
        {name: value for name, value in head.items() if value is not ...},
        {name: value for name, value in body.items() if value is not ...},
        key,
    )
