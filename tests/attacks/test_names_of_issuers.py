"""Issuer confusion: no two issuers can name the same principal, whatever they write into `sub` or `act` (NA-1, IS-3)."""

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pdp.identity.issuers import Issuer, IssuerTable, parse_trust
from pdp.identity.keyset import KeySet
from pdp.identity.types import VerifiedIdentity
from pdp.identity.verifier import verify
from tests.support.tokens import NOW_MS, NOW_S, entry, forge, good_claims, good_header, key_set, signer
from tests.support.workloads import cluster_entry, domain_entry

ACTING = {"max_act_depth": 2}
PEOPLE = [
    entry(iss="https://home.example", **ACTING),
    entry(iss="https://corp.example", namespace="corp", **ACTING),
    entry(iss="https://robots.example", kind="workload", actor_kind="workload", **ACTING),
    entry(iss="https://fleet.example", kind="workload", actor_kind="agent", namespace="fleet", **ACTING),
]
CLUSTERS = [
    cluster_entry(iss="https://a.example", namespace="cluster-a"),
    cluster_entry(iss="https://b.example", namespace="cluster-b"),
]
DOMAINS = ["prod.example", "partner.example"]
TRUST: IssuerTable = parse_trust(
    json.dumps({"issuers": [*PEOPLE, *CLUSTERS], "trust_domains": [domain_entry(name) for name in DOMAINS]})
)
HOLDERS: dict[str, Issuer] = {issuer.iss: issuer for issuer in TRUST.key_holders}


def keys() -> Iterator[tuple[str, KeySet]]:
    for iss, issuer in HOLDERS.items():
        jwk = signer("ES256", iss).public_jwk
        spiffe = issuer.profile == "jwt_svid"
        entry_of = {k: v for k, v in jwk.items() if k != "alg"} | {"use": "jwt-svid"} if spiffe else jwk
        yield iss, key_set([entry_of], algs=("ES256",), iss=iss, spiffe=spiffe)


KEYS = dict(keys())
ACCOUNT = "system:serviceaccount:ml:scorer"
PIECES = st.sampled_from(
    [
        "corp", "fleet", "cluster-a", "cluster-b", "/", ":", "alice", "@", "home.example", "agent:", "user:", "workload:",
        "role:", "group:", "spiffe:", "spiffe://prod.example/x", "spiffe://partner.example/x", "Spiffe://prod.example/x",
        ACCOUNT, "system", ".", "..", "//", "%2f", "\u200b", "\u0430lice", "\uff0f", "ALICE", "K",
    ]
)  # fmt: skip
NAMES = st.lists(PIECES, min_size=1, max_size=4).map("".join)


def token(iss: str, claims: dict[str, Any]) -> str:
    by, profile = signer("ES256", iss), HOLDERS[iss].profile
    typ = {"at_jwt": "at+jwt"}.get(profile, "JWT")
    return forge(good_header(by, typ=typ), claims, by)


def enter(iss: str, sub: str, actors: list[str]) -> VerifiedIdentity | None:
    """Let an issuer say what it likes, in every shape that its own profile has."""
    acting: dict[str, Any] = {}
    for name in reversed(actors):
        acting = {"act": {"sub": name} | acting}
    claims = good_claims(iss=iss, sub=sub, exp=NOW_S + 60, groups=...) | acting
    if HOLDERS[iss].profile == "k8s_sa":
        named = {"namespace": "ml", "serviceaccount": {"name": "scorer", "uid": "u"}}
        claims |= {"nbf": NOW_S - 10, "kubernetes.io": named}
    if HOLDERS[iss].profile == "jwt_svid":
        claims = {"sub": sub, "aud": ["portcullis"], "exp": NOW_S + 60, "iss": iss} | acting
    outcome = verify(f"Bearer {token(iss, claims)}", table=TRUST, keys=KEYS, now_ms=NOW_MS)
    return outcome if isinstance(outcome, VerifiedIdentity) else None


OWNERS: dict[str, str] = {}
"""Every principal that an issuer ever got in here, over all examples."""


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(sorted(HOLDERS)), NAMES, st.lists(NAMES, max_size=2))
def test_no_issuer_gets_a_principal_of_another_in(iss: str, sub: str, actors: list[str]) -> None:
    identity = enter(iss, sub, actors)
    if identity is None:
        return
    issuer = HOLDERS[iss]
    for party in (identity.party, *identity.actors):
        principal = party.principal
        assert OWNERS.setdefault(str(principal), iss) == iss, principal
        assert principal.kind in {issuer.kind, issuer.actor_kind}
        assert principal.id.startswith(f"{issuer.namespace}/") or not issuer.namespace
        assert not party.groups


def test_each_issuer_gets_its_own_in() -> None:
    """The property above would hold of a verifier that lets nobody in."""
    found = {
        str(identity.party.principal)
        for iss, sub in {
            "https://home.example": "alice",
            "https://corp.example": "alice",
            "https://robots.example": "alice",
            "https://fleet.example": "alice",
            "https://a.example": ACCOUNT,
            "https://b.example": ACCOUNT,
            "spiffe://prod.example": "spiffe://prod.example/x",
            "spiffe://partner.example": "spiffe://partner.example/x",
        }.items()
        if (identity := enter(iss, sub, [])) is not None
    }
    assert found == {
        "user:alice", "user:corp/alice", "workload:alice", "workload:fleet/alice", f"workload:cluster-a/{ACCOUNT}",
        f"workload:cluster-b/{ACCOUNT}", "workload:spiffe://prod.example/x", "workload:spiffe://partner.example/x",
    }  # fmt: skip
    acting = enter("https://corp.example", "alice", ["bot", "clerk"])
    assert acting is not None
    assert [str(actor.principal) for actor in acting.actors] == ["agent:corp/bot", "agent:corp/clerk"]
