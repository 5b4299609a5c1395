"""Row T-54, and the workload that a client certificate names."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pdp.errors import Reason
from pdp.identity.certificates import PeerCertificate
from pdp.identity.issuers import parse_trust
from pdp.identity.types import Refusal, VerifiedIdentity
from pdp.limits import MAX_ATTRIBUTE_BYTES, MAX_CHAIN_CERTIFICATES
from tests.support.certificates import SPIFFE, authority, authority_der, intermediate, key_usage, leaf
from tests.support.tokens import NOW_MS, NOW_S, b64, entry, good_token, judge, reason_of, table

TRUST = table(entry(), domains=("prod.example",))
GOOD = leaf()


def peer_of(der: bytes) -> PeerCertificate:
    peer = PeerCertificate.from_der(der)
    assert isinstance(peer, PeerCertificate), peer
    return peer


BAD: dict[str, dict[str, Any]] = {
    "two-uris": {"uris": [SPIFFE, SPIFFE + "2"]},
    "same-uri-twice": {"uris": [SPIFFE, SPIFFE]},
    "https-uri": {"uris": ["https://prod.example/scorer"]},
    "no-path": {"uris": ["spiffe://prod.example"]},
    "root-path": {"uris": ["spiffe://prod.example/"]},
    "upper-case-scheme": {"uris": ["Spiffe://prod.example/a"]},
    "dot-segment": {"uris": ["spiffe://prod.example/a/../b"]},
    "percent": {"uris": ["spiffe://prod.example/%61"]},
    "port": {"uris": ["spiffe://prod.example:443/a"]},
    "ca": {"ca": True},
    "no-key-usage": {"with_usage": False},
    "key-usage-not-critical": {"critical": False},
    "no-digital-signature": {"usage": key_usage(digital_signature=False)},
    "signs-certificates": {"usage": key_usage(sign=True)},
    "signs-crls": {"usage": key_usage(crl=True)},
    "server-only": {"extended": [ExtendedKeyUsageOID.SERVER_AUTH]},
    "client-only": {"extended": [ExtendedKeyUsageOID.CLIENT_AUTH]},
    "anonymous-ca": {"uris": [], "ca": True},
    "anonymous-signer": {"uris": [], "usage": key_usage(sign=True)},
    "anonymous-server": {"uris": [], "extended": [ExtendedKeyUsageOID.SERVER_AUTH]},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD)
def test_t54_a_certificate_that_breaks_the_leaf_rules(changes: dict[str, Any]) -> None:
    refusal = PeerCertificate.from_der(leaf(**changes))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.CERTIFICATE_INVALID


@pytest.mark.parametrize(
    "der", [b"", b"x", GOOD[:-1], GOOD[:100], b"0" * 500], ids=["empty", "byte", "cut", "head", "zeros"]
)
def test_t54_no_certificate_at_all(der: bytes) -> None:
    refusal = PeerCertificate.from_der(der)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.CERTIFICATE_INVALID


def test_what_the_backend_did_not_foresee_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(_der: bytes) -> None:
        raise AssertionError

    monkeypatch.setattr(x509, "load_der_x509_certificate", explode)
    refusal = PeerCertificate.from_der(GOOD)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.VERIFIER_ERROR


@pytest.mark.parametrize("changes", [{}, {"ca": None}, {"extended": None}])
def test_a_workload_alone_is_itself(changes: dict[str, Any]) -> None:
    peer = peer_of(leaf(**changes))
    identity = judge(None, trust=TRUST, peer=peer)
    assert isinstance(identity, VerifiedIdentity)
    assert str(identity.party.principal) == f"workload:{SPIFFE}"
    assert identity.workload == identity.party.principal
    assert identity.expires_at_s == NOW_S + 3601
    assert identity.facts.fingerprint == hashlib.sha256(peer.der).hexdigest()


def test_with_a_token_the_party_is_the_tokens_and_the_workload_the_certificates() -> None:
    identity = judge(f"Bearer {good_token()}", trust=TRUST, peer=peer_of(GOOD))
    assert isinstance(identity, VerifiedIdentity)
    assert str(identity.party.principal) == "user:alice@example.com"
    assert str(identity.workload) == f"workload:{SPIFFE}"
    assert identity.facts.fingerprint == peer_of(GOOD).fingerprint
    assert identity.expires_at_s == NOW_S + 330


def test_an_identity_ends_with_its_certificate() -> None:
    peer = peer_of(leaf(until_s=NOW_S + 60))
    identity = judge(f"Bearer {good_token()}", trust=TRUST, peer=peer)
    assert isinstance(identity, VerifiedIdentity)
    assert identity.expires_at_s == NOW_S + 61
    for authorization in (None, f"Bearer {good_token()}"):
        assert reason_of(judge(authorization, trust=TRUST, peer=peer, now_ms=NOW_MS + 60_999)) is None
        assert (
            reason_of(judge(authorization, trust=TRUST, peer=peer, now_ms=NOW_MS + 61_000))
            is Reason.CERTIFICATE_INVALID
        )
    assert reason_of(judge(None, trust=TRUST, peer=peer, now_ms=NOW_MS - 3_600_001)) is Reason.CERTIFICATE_INVALID


def test_an_unknown_trust_domain_is_nobody_also_beside_a_good_token() -> None:
    for authorization in (None, f"Bearer {good_token()}"):
        assert reason_of(judge(authorization, peer=peer_of(GOOD))) is Reason.TRUST_DOMAIN_UNKNOWN


def test_a_bad_token_is_not_saved_by_a_good_certificate() -> None:
    for authorization, reason in {"": Reason.CREDENTIAL_MISSING, "Bearer x": Reason.TOKEN_MALFORMED}.items():
        assert reason_of(judge(authorization, trust=TRUST, peer=peer_of(GOOD))) is reason


def test_a_certificate_without_a_name_is_no_workload() -> None:
    nameless = peer_of(leaf(uris=[], extended=[ExtendedKeyUsageOID.CLIENT_AUTH]))
    assert reason_of(judge(None, trust=TRUST, peer=nameless)) is Reason.CERTIFICATE_INVALID
    identity = judge(f"Bearer {good_token()}", trust=TRUST, peer=nameless)
    assert isinstance(identity, VerifiedIdentity)
    assert identity.workload is None


def test_with_several_trust_domains_a_leaf_is_issued_by_the_ca_of_the_one_it_names() -> None:
    ours, theirs = authority("prod"), authority("other")
    trust = table(entry(), domains=("prod.example", "other.example"))
    known = trust.with_authorities({"prod.example": (authority_der(ours),), "other.example": (authority_der(theirs),)})
    assert known.generation != trust.generation
    honest, intruder = peer_of(leaf(by=ours)), peer_of(leaf(by=theirs))
    assert reason_of(judge(None, trust=known, peer=honest)) is None
    assert reason_of(judge(None, trust=known, peer=intruder)) is Reason.CERTIFICATE_INVALID
    bare = trust.with_authorities({})
    assert reason_of(judge(None, trust=bare, peer=honest)) is Reason.CERTIFICATE_INVALID  # no bundle: untrusted


def test_a_domain_known_by_its_tokens_alone_lets_nobody_in_by_certificate() -> None:
    """SP-3: whatever CA the listener accepts, the domain has named none. Also where it is the only domain."""
    tokens = {"bundle": {"file": "b.json"}, "audiences": ["portcullis"], "max_lifetime_s": 600}
    trust = parse_trust(json.dumps({"trust_domains": [{"domain": "prod.example", "jwt": tokens}]}))
    for known in (trust, trust.with_authorities({"prod.example": ()})):
        assert reason_of(judge(None, trust=known, peer=peer_of(GOOD))) is Reason.CERTIFICATE_INVALID


ROOT, OTHER = authority("root"), authority("other-root")
TWO_DOMAINS = table(entry(), domains=("prod.example", "other.example")).with_authorities(
    {"prod.example": (authority_der(ROOT),), "other.example": (authority_der(OTHER),)}
)


def through(*chain: bytes, by: str, now_ms: int = NOW_MS) -> Reason | None:
    peer = PeerCertificate.from_der(leaf(by=authority(by)), chain=chain)
    assert isinstance(peer, PeerCertificate)
    return reason_of(judge(None, trust=TWO_DOMAINS, peer=peer, now_ms=now_ms))


def test_a_path_through_intermediates_leads_to_the_ca_of_the_trust_domain() -> None:
    upper, lower = intermediate("upper", ROOT), intermediate("lower", authority("upper"))
    assert through(upper, by="upper") is None
    assert through(lower, upper, by="lower") is None
    assert through(upper, lower, by="lower") is None
    assert through(intermediate("upper", ROOT, uri="spiffe://prod.example"), by="upper") is None
    assert through(intermediate("upper", ROOT, path_length=0), by="upper") is None


def test_a_path_that_is_none_is_refused() -> None:
    upper, lower = intermediate("upper", ROOT), intermediate("lower", authority("upper"))
    for chain, by in (
        ((), "upper"),
        ((lower,), "lower"),
        ((intermediate("upper", OTHER),), "upper"),
        ((intermediate("upper", ROOT, ca=False),), "upper"),
        ((intermediate("upper", ROOT, sign=False),), "upper"),
        ((intermediate("upper", ROOT, uri="spiffe://other.example"),), "upper"),
        ((intermediate("upper", ROOT, uri="spiffe://prod.example.evil"),), "upper"),
        ((lower, intermediate("upper", ROOT, path_length=0)), "lower"),
        ((b"no certificate",), "root"),
        ((intermediate("lower", authority("upper")), intermediate("upper", authority("lower"))), "lower"),
    ):
        assert through(*chain, by=by) is Reason.CERTIFICATE_INVALID
    assert through(upper, by="upper", now_ms=NOW_MS + 3_602_000) is Reason.CERTIFICATE_INVALID


def test_an_expired_intermediate_ends_the_path() -> None:
    upper = intermediate("upper", ROOT, until_s=NOW_S + 5)
    assert through(upper, by="upper", now_ms=NOW_MS + 5_999) is None
    assert through(upper, by="upper", now_ms=NOW_MS + 6_000) is Reason.CERTIFICATE_INVALID


def test_with_one_trust_domain_the_path_is_looked_at_too() -> None:
    one = table(entry(), domains=("prod.example",)).with_authorities({"prod.example": (authority_der(ROOT),)})
    assert reason_of(judge(None, trust=one, peer=peer_of(leaf(by=ROOT)))) is None
    assert reason_of(judge(None, trust=one, peer=peer_of(leaf(by=OTHER)))) is Reason.CERTIFICATE_INVALID


def pem(*ders: bytes) -> bytes:
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in ders)


def test_the_leaf_comes_first_and_its_chain_is_bounded() -> None:
    own, upper = leaf(by=authority("upper")), intermediate("upper", ROOT)
    peer = PeerCertificate.from_pem(pem(own, own, upper, upper))
    assert isinstance(peer, PeerCertificate)
    assert (peer.der, peer.chain) == (own, (upper,))
    assert reason_of(PeerCertificate.from_pem(pem(own, *(leaf() for _ in range(5))))) is Reason.CERTIFICATE_INVALID  # type: ignore[arg-type]
    for raw in (b"", b"-----BEGIN CERTIFICATE-----", b"\xff", pem(own)[:200]):
        assert reason_of(PeerCertificate.from_pem(raw)) is Reason.CERTIFICATE_INVALID  # type: ignore[arg-type]


def test_t49_a_bound_token_needs_the_very_certificate() -> None:
    trust = table(entry(cnf_kinds=["x5t#S256"], cnf_required=["x5t#S256"]), domains=("prod.example",))
    holder, thief = peer_of(GOOD), peer_of(leaf())
    bound = f"Bearer {good_token(cnf={'x5t#S256': b64(bytes.fromhex(holder.fingerprint))})}"
    assert reason_of(judge(bound, trust=trust, peer=holder)) is None
    assert reason_of(judge(bound, trust=trust, peer=thief)) is Reason.BINDING_MISMATCH
    assert reason_of(judge(bound, trust=trust)) is Reason.BINDING_MISMATCH
    assert reason_of(judge(bound, trust=TRUST, peer=holder)) is Reason.BINDING_REQUIRED


def named(common_name: str) -> Reason | None:
    """The refusal of a leaf whose issuer has this name."""
    outcome = PeerCertificate.from_der(leaf(by=replace(authority(), name=x509.Name([attribute(common_name)]))))
    return outcome.reason if isinstance(outcome, Refusal) else None


def attribute(common_name: str) -> x509.NameAttribute[str]:
    return x509.NameAttribute(NameOID.ORGANIZATION_NAME, common_name, _validate=False)


def test_an_issuers_name_that_could_be_read_in_two_ways_is_refused() -> None:
    """It stands in locks and records: a line end or an invisible character would make two names of one."""
    assert named("ca") is None
    for bad in ("a\nb", "a\u200bb", "a\u202eb"):
        assert named(bad) is Reason.CERTIFICATE_INVALID
    assert named("x" * (MAX_ATTRIBUTE_BYTES - 2)) is None
    assert named("x" * (MAX_ATTRIBUTE_BYTES - 1)) is Reason.CERTIFICATE_INVALID


def test_a_certificate_without_a_name_needs_no_workloads_key_usage() -> None:
    for changes in ({"with_usage": False}, {"critical": False}):
        assert peer_of(leaf(uris=[], **changes)).spiffe_id is None  # type: ignore[arg-type]


def test_one_certificate_alone_is_the_leaf_and_as_many_cas_as_the_limit_may_follow() -> None:
    alone = PeerCertificate.from_pem(pem(GOOD))
    assert isinstance(alone, PeerCertificate)
    assert (alone.der, alone.chain) == (GOOD, ())
    full = PeerCertificate.from_pem(pem(GOOD, *(leaf() for _ in range(MAX_CHAIN_CERTIFICATES))))
    assert isinstance(full, PeerCertificate)
    assert len(full.chain) == MAX_CHAIN_CERTIFICATES


def test_the_validity_of_a_certificate_is_exact_at_both_ends() -> None:
    peer = peer_of(GOOD)
    first_ms, last_ms = peer.not_before_s * 1000, peer.not_after_s * 1000 + 999
    for now_ms, reason in (
        (first_ms - 1, Reason.CERTIFICATE_INVALID),
        (first_ms, None),
        (last_ms, None),
        (last_ms + 1, Reason.CERTIFICATE_INVALID),
    ):
        assert reason_of(judge(None, trust=TRUST, peer=peer, now_ms=now_ms)) is reason


def test_an_intermediate_of_a_path_below_its_own_trust_domain_may_have_a_path_of_it() -> None:
    assert through(intermediate("upper", ROOT, uri="spiffe://prod.example/ca"), by="upper") is None


def test_intermediates_without_constraints_or_usage_sign_nothing() -> None:
    for changes in ({"constrained": False}, {"with_usage": False}):
        assert through(intermediate("upper", ROOT, **changes), by="upper") is Reason.CERTIFICATE_INVALID
