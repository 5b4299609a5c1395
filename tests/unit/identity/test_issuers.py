import json
from typing import Any

import pytest

from pdp.errors import ConfigError
from pdp.identity.development import DEVELOPMENT_ISS, DevelopmentIssuer, refuse_production, trust_text
from pdp.identity.issuers import parse_trust
from pdp.limits import MAX_SPIFFE_BYTES
from tests.support.tokens import ISS, entry, signer, table
from tests.support.workloads import CLUSTER, cluster_entry

GOOD = """\
issuers:
  - iss: https://login.example
    profile: at_jwt
    keys: {url: https://login.example/jwks}
    algs: [RS256, ES256]
    audiences: [portcullis]
    max_lifetime_s: 3600
trust_domains:
  - {domain: prod.example, ca: ca.pem}
"""


def refusal_of(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_trust(text)
    return caught.value.message


def test_a_good_file_and_its_defaults() -> None:
    trust = parse_trust(GOOD)
    issuer = trust.issuers["https://login.example"]
    assert (issuer.leeway_s, issuer.aud_mode, issuer.require_jti, issuer.max_act_depth) == (30, "exact_single", True, 0)
    assert (issuer.refresh_s, issuer.cooldown_s, issuer.stale_max_s, issuer.group_claims) == (300, 30, 3600, ())
    assert not trust.development
    assert list(trust.trust_domains) == ["prod.example"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("iss", "trust.yaml:2: `issuers[0].iss` is missing: write the issuer exactly"),
        ("audiences", "trust.yaml:2: `issuers[0].audiences` is missing: name us"),
        ("max_lifetime_s", "trust.yaml:2: `issuers[0].max_lifetime_s` is missing: cap the life"),
        ("algs", "trust.yaml:2: `issuers[0].algs` is missing: list what"),
        ("keys", "trust.yaml:2: `issuers[0].keys` is missing: write `keys:"),
        ("profile", "trust.yaml:2: `issuers[0].profile` is missing: write `profile: at_jwt`"),
    ],
)
def test_what_is_missing_is_named_with_its_place_and_what_to_do(line: str, told: str) -> None:
    lines = [text.replace(f"- {line}: https://login.example", "- leeway_s: 1") for text in GOOD.splitlines()]
    kept = "\n".join(text for text in lines if not text.strip().startswith(f"{line}:"))
    assert refusal_of(kept).startswith(told)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "hs256": ({"algs": ["ES256", "HS256"]}, "whoever verifies could sign"),
    "none": ({"algs": ["none"]}, "`none` is refused"),
    "wrong-case": ({"algs": ["es256"]}, "`es256` is refused"),
    "no-algs": ({"algs": []}, "algs"),
    "no-audiences": ({"audiences": []}, "audiences"),
    "empty-audience": ({"audiences": [""]}, "audiences"),
    "audience-text": ({"audiences": "portcullis"}, "audiences"),
    "unknown-key": ({"verify": False}, "`issuers[0].verify` is not a known key"),
    "unknown-profile": ({"profile": "none"}, "at_jwt"),
    "leeway-large": ({"leeway_s": 121}, "120"),
    "leeway-text": ({"leeway_s": "30"}, "integer"),
    "cap-zero": ({"max_lifetime_s": 0}, "greater than 0"),
    "cap-true": ({"max_lifetime_s": True}, "integer"),
    "depth": ({"max_act_depth": 5}, "4"),
    "pattern": ({"sub_pattern": "("}, "RE2"),
    "namespace": ({"namespace": "Corp"}, "NA-5"),
    "namespace-newline": ({"namespace": "corp\n"}, "NA-5"),
    "iss-blank": ({"iss": "https://a b"}, "without blank"),
    "iss-newline": ({"iss": "https://a\nb"}, "without blank"),
    "iss-not-ascii": ({"iss": "https://\u0430pple.example"}, "without blank"),
    "iss-long": ({"iss": "https://" + "a" * (MAX_SPIFFE_BYTES - 7)}, "without blank"),
    "iss-hash": ({"iss": "https://a#b"}, "without blank"),
    "no-source": ({"keys": {}}, "one of `file`, `url`"),
    "two-sources": ({"keys": {"file": "a", "url": "https://a"}}, "one of `file`, `url`"),
    "http": ({"keys": {"url": "http://login.example/jwks"}}, "use https"),
    "ftp": ({"keys": {"url": "ftp://login.example/jwks", "allow_private": ["10.0.0.0/8"]}}, "use https"),
    "discovery-http": ({"keys": {"discovery": "http://login.example/"}}, "use https"),
    "hosts-without-discovery": ({"keys": {"file": "a", "jwks_hosts": ["a"]}}, "`jwks_hosts` belongs"),
    "workload-api-tcp": ({"keys": {"workload_api": "tcp:127.0.0.1:1"}}, "unix:"),
    "credential-of-a-file": ({"keys": {"file": "a", "fetch_credential": "t"}}, "`fetch_credential` belongs"),
    "private-nothing": ({"keys": {"url": "https://a", "allow_private": [""]}}, "allow_private"),
    "url-without-host": ({"keys": {"url": "https:///jwks"}}, "has a host"),
    "url-fragment": ({"keys": {"url": "https://a/#b"}}, "neither user nor fragment"),
    "url-not-ascii": ({"keys": {"url": "https://\u0430pple.example/"}}, "has a host"),
    "live-client-newline": (
        {"live_check": {"by": "introspection", "url": "https://a", "credential": "t", "client_id": "a\nb"}},
        "`client_id` belongs",
    ),
    "userinfo": ({"keys": {"url": "https://a:b@login.example/jwks"}}, "neither user nor fragment"),
    "network": ({"keys": {"url": "https://a", "allow_private": ["10.0.0.0/33"]}}, "network"),
    "cnf-kind": ({"cnf_kinds": ["jwk"]}, "x5t#S256"),
    "nonce-without-jkt": ({"dpop_nonce": True}, "add `jkt`"),
    "cnf-required": ({"cnf_required": ["x5t#S256"]}, "cnf_kinds"),
    "attribute-name": ({"attribute_claims": {"a": "resource.owner"}}, "subject."),
    "stale": ({"stale_max_s": 10}, "refresh_s"),
    "cooldown": ({"cooldown_s": 301}, "refresh_s"),
    "live-text": ({"live_check": "token_review"}, "`issuers[0].live_check` is a mapping"),
    "live-without-place": ({"live_check": {"by": "introspection", "credential": "t"}}, "write where it is asked"),
    "live-without-credential": ({"live_check": {"by": "introspection", "url": "https://a"}}, "our own credential"),
    "live-http": ({"live_check": {"by": "introspection", "url": "http://a", "credential": "t"}}, "use https"),
    "live-of-another-profile": (
        {"live_check": {"by": "token_review", "url": "https://a", "credential": "t"}},
        "`introspection` of `at_jwt`",
    ),
    "live-client-of-cluster": (
        {"live_check": {"by": "token_review", "url": "https://a", "credential": "t", "client_id": "x"}},
        "`client_id` belongs",
    ),
    "live-action": (
        {"live_check": {"by": "introspection", "url": "https://a", "credential": "t", "actions": ["promote"]}},
        "an action is",
    ),
    "account-uids": ({"account_uids": {"ml/a": "b"}}, "belongs to profile `k8s_sa`"),
    "set-intake": ({"intake": "set"}, "bearer"),
}


@pytest.mark.parametrize(("changes", "told"), BAD.values(), ids=BAD)
def test_a_bad_entry_is_refused(changes: dict[str, Any], told: str) -> None:
    message = refusal_of(json.dumps({"issuers": [entry(**changes)]}))
    assert message.startswith("trust.yaml:1: ")
    assert told in message


def test_every_finding_is_told_at_once_with_its_line() -> None:
    message = refusal_of(GOOD.replace("RS256", "HS256").replace("3600", "0").replace("domain: prod", "domain: Prod"))
    assert [line.split(" ")[0] for line in message.splitlines() if "after validation" not in line] == [
        "trust.yaml:5:", "trust.yaml:7:", "trust.yaml:9:",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "nobody could authenticate"),
        ("issuers: []", "nobody could authenticate"),
        ("[]", "mapping"),
        ("a: 1", "`a` is not a known key"),
        ("issuers: [", "trust.yaml:1"),
        ("issuers: []\nissuers: []", "trust.yaml:2: `issuers` stands twice"),
        ("issuers: &a []\ntrust_domains: *a", "aliases"),
        ("1: 2", "a key is plain text"),
        ("? [a]\n: b", "a key is plain text"),
        ("x: 2026-13-45", "trust.yaml:1"),
        ("[" * 5000, "trust.yaml:1"),
    ],
)
def test_a_bad_document_is_refused(text: str, told: str) -> None:
    assert told in refusal_of(text)


def test_one_issuer_has_one_entry() -> None:
    with pytest.raises(ConfigError, match="stands twice"):
        table(entry(), entry(namespace="b"))


def test_two_issuers_never_name_the_same_principals() -> None:
    other = "https://other.example"
    with pytest.raises(ConfigError, match="its own `namespace`"):
        table(entry(), entry(iss=other))
    with pytest.raises(ConfigError, match="its own `namespace`"):
        table(entry(max_act_depth=1), entry(iss=other, kind="agent"))
    table(entry(), entry(iss=other, kind="agent"), entry(iss=other + "/2", namespace="b"))


def test_a_trust_domain_stands_once() -> None:
    with pytest.raises(ConfigError, match=r"`prod\.example` stands twice"):
        table(entry(), domains=("prod.example", "prod.example"))


def test_the_generation_is_that_of_the_content() -> None:
    assert parse_trust(GOOD).generation == parse_trust("# a comment\n" + GOOD).generation
    assert parse_trust(GOOD).generation != parse_trust(GOOD.replace("3600", "3599")).generation


def test_production_refuses_a_development_issuer() -> None:
    development = parse_trust(trust_text(DevelopmentIssuer.generate(), jwks_file="jwks.json"))
    refuse_production(development, production=False)
    refuse_production(parse_trust(GOOD), production=True)
    disguised = parse_trust(json.dumps({"issuers": [entry(iss=DEVELOPMENT_ISS)]}))
    for trust in (development, disguised):
        with pytest.raises(ConfigError, match="development issuer"):
            refuse_production(trust, production=True)


@pytest.mark.parametrize("alg", ["ES256", "RS256", "EdDSA"])
def test_a_development_key_survives_its_file(alg: str) -> None:
    made = signer(alg)
    again = DevelopmentIssuer.from_pem(made.to_pem(), iss=made.iss)
    assert (again.alg, again.public_jwk) == (alg, made.public_jwk)
    assert "d" not in again.public_jwk


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN PRIVATE KEY-----\n", signer().jwks()])
def test_a_file_without_a_key_is_a_configuration_error(pem: bytes) -> None:
    with pytest.raises(ConfigError, match="no unencrypted private key"):
        DevelopmentIssuer.from_pem(pem)
    with pytest.raises(ConfigError, match="ES256, RS256, EdDSA"):
        DevelopmentIssuer.generate(alg="HS256")


def test_a_table_says_whether_used_proofs_must_be_known_again() -> None:
    assert not table(entry()).takes_proofs
    assert table(entry(), entry(iss="https://other.example", namespace="other", cnf_kinds=["jkt"])).takes_proofs


GOOD_SOURCES: list[dict[str, Any]] = [
    {"keys": {"discovery": "https://a/", "jwks_hosts": ["b"], "fetch_credential": "t"}},
    {"keys": {"url": "http://keys.internal/", "allow_private": ["keys.internal", "10.0.0.0/8", "::1"]}},
    {"keys": {"url": "https://a", "fetch_credential": "t"}},
    {"keys": {"workload_api": "unix:/run/a.sock"}},
    {"live_check": {"by": "introspection", "url": "https://a", "credential": "t", "client_id": "portcullis"}},
    {"live_check": "none"},
]


@pytest.mark.parametrize("changes", GOOD_SOURCES)
def test_a_good_place_to_ask_is_accepted(changes: dict[str, Any]) -> None:
    assert table(entry(**changes)).issuers


def test_an_issuer_without_named_actions_is_asked_before_each() -> None:
    live = {"by": "introspection", "url": "https://a", "credential": "t"}
    (issuer,) = table(entry(live_check=live)).issuers.values()
    assert issuer.live_check is not None
    assert issuer.live_check.asks_before("dataset.read")
    (issuer,) = table(entry(live_check="none")).issuers.values()
    assert issuer.live_check is None


TOKENS = {"bundle": {"file": "b.json"}, "audiences": ["portcullis"], "max_lifetime_s": 600}


def domain(**changes: Any) -> str:
    return json.dumps({"trust_domains": [{"domain": "prod.example"} | changes]})


def test_the_longest_name_of_an_issuer_is_taken() -> None:
    assert table(entry(iss="https://" + "a" * (MAX_SPIFFE_BYTES - 8))).issuers


def test_a_trust_domain_lets_in_by_certificate_by_token_or_by_both_and_not_by_neither() -> None:
    assert "name the file of its CA certificates" in refusal_of(domain())
    by_certificate, by_token = parse_trust(domain(ca="ca.pem")), parse_trust(domain(jwt=TOKENS))
    both = parse_trust(domain(ca="ca.pem", jwt=TOKENS))
    assert [list(known.svids) for known in (by_certificate, by_token, both)] == [[], ["prod.example"], ["prod.example"]]
    assert [known.trust_domains["prod.example"].ca for known in (by_certificate, by_token, both)] == [
        "ca.pem",
        None,
        "ca.pem",
    ]
    assert [len(known.key_holders) for known in (by_certificate, by_token, both)] == [0, 1, 1]


def test_the_authority_of_a_trust_domain_is_an_issuer_of_svids_alone() -> None:
    issuer = parse_trust(domain(jwt=TOKENS)).svids["prod.example"]
    assert (issuer.iss, issuer.profile, issuer.kind.value, issuer.require_jti) == (
        "spiffe://prod.example", "jwt_svid", "workload", False,
    )  # fmt: skip
    assert (issuer.audiences, issuer.max_lifetime_s, issuer.cnf_kinds, issuer.max_act_depth) == (
        ("portcullis",),
        600,
        (),
        0,
    )
    assert "is signed with ES256" in refusal_of(domain(jwt=TOKENS | {"algs": ["EdDSA"]}))


def test_proofs_are_remembered_only_where_some_issuers_tokens_need_them() -> None:
    assert not table().takes_proofs
    assert not table(entry(cnf_kinds=["x5t#S256"])).takes_proofs
    assert table(entry(), entry(iss="https://b", namespace="b", cnf_kinds=["jkt"])).takes_proofs


def test_whatever_changes_the_table_changes_its_generation() -> None:
    """TC-1: it is part of every cache key."""
    tables = [
        table(),
        table(entry(leeway_s=29)),
        table(entry(aud_mode="contains")),
        table(entry(), domains=("prod.example",)),
    ]
    tables.append(tables[-1].with_authorities({"prod.example": (b"another",)}))
    tables.append(tables[-1].with_authorities({"prod.example": ()}))
    assert len({known.generation for known in tables}) == len(tables)
    assert table().generation == table().generation


BAD_CLUSTERS: dict[str, tuple[dict[str, Any], str]] = {
    "no-namespace": ({"namespace": ""}, "a `namespace` of its own"),
    "no-jti": ({"require_jti": False}, "tokens with an end and a `jti`"),
    "legacy": ({"iss": "kubernetes/serviceaccount"}, "tokens with an end and a `jti`"),
    "binds": ({"cnf_kinds": ["jkt"]}, "neither binds nor delegates"),
    "delegates": ({"max_act_depth": 1}, "neither binds nor delegates"),
    "names-people": ({"kind": "user"}, "neither binds nor delegates"),
    "introspects": (
        {"live_check": {"by": "introspection", "url": "https://a", "credential": "t"}},
        "`introspection` of `at_jwt`",
    ),
    "a-domains-name": ({"iss": "spiffe://prod.example"}, "below `trust_domains`"),
    "svid-profile": ({"profile": "jwt_svid", "algs": ["ES256"]}, "below `trust_domains`"),
    "svid-issuer": (
        {"profile": "jwt_svid", "iss": "spiffe://a", "algs": ["ES256"], "namespace": ""},
        "below `trust_domains`",
    ),
}


@pytest.mark.parametrize(("changes", "told"), BAD_CLUSTERS.values(), ids=BAD_CLUSTERS)
def test_a_bad_entry_of_a_cluster_is_refused(changes: dict[str, Any], told: str) -> None:
    assert told in refusal_of(json.dumps({"issuers": [cluster_entry(**changes)]}))


def test_a_cluster_names_workloads_below_its_namespace() -> None:
    trust = parse_trust(json.dumps({"issuers": [entry(), cluster_entry(account_uids={"ml/a": "u"})]}))
    assert trust.issuers[CLUSTER].kind.value == "workload"
    assert trust.issuers[ISS].kind.value == "user"
    assert trust.namespaces == {"cluster-a"}


@pytest.mark.parametrize(
    "changes",
    [
        {"stale_max_s": 300, "refresh_s": 300},
        {"cooldown_s": 300, "refresh_s": 300},
        {"dpop_nonce": True, "cnf_kinds": ["jkt"]},
    ],
)
def test_what_is_just_consistent_is_taken(changes: dict[str, Any]) -> None:
    assert table(entry(**changes)).issuers


@pytest.mark.parametrize("text", ['{"issuers": ["a"]}', '{"issuers": [[]]}', '{"issuers": [null]}'])
def test_an_entry_that_is_no_mapping_is_a_finding_and_no_fault(text: str) -> None:
    assert "`issuers[0]` is a mapping" in refusal_of(text)
