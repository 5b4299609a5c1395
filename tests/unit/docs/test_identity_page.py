"""`docs/identity.md`: every example of `trust.yaml` is one, and does what the page says of it."""

import json
import re
from pathlib import Path

import pytest

from pdp.errors import Reason
from pdp.identity.issuers import Issuer, IssuerTable, parse_trust
from pdp.identity.kubernetes import Review
from pdp.identity.types import VerifiedIdentity
from pdp.identity.verifier import verify
from tests.attacks.test_workload_tokens import GOOD_REVIEW
from tests.support.tokens import NOW_MS, forge, good_claims, good_header, key_set, reason_of, signer
from tests.support.workloads import ACCOUNT_UID, account_token

PAGE = (Path(__file__).parents[3] / "docs/identity.md").read_text()
EXAMPLES = dict(re.findall(r"^### ([^\n]+)\n\n```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
KEYCLOAK, KUBERNETES, INTROSPECTED, SPIFFE = EXAMPLES


def table_of(name: str) -> IssuerTable:
    return parse_trust(EXAMPLES[name], file="identity.md")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_accepted_as_it_stands(name: str) -> None:
    trust = table_of(name)
    assert trust.key_holders
    assert not trust.development


def test_realm_roles_become_groups() -> None:
    trust = table_of(KEYCLOAK)
    (issuer,) = trust.issuers.values()
    by = signer("RS256")
    claims = good_claims(
        iss=issuer.iss,
        groups=["other"],
        realm_access={"roles": ["ml-engineers", "admin"]},
        acr="2",
        exp=NOW_MS // 1000 + 60,
    )
    keys = {issuer.iss: key_set([by.public_jwk], algs=issuer.algs, iss=issuer.iss)}
    identity = verify(f"Bearer {forge(good_header(by), claims, by)}", table=trust, keys=keys, now_ms=NOW_MS)
    assert isinstance(identity, VerifiedIdentity)
    assert identity.party.groups == {"group:ml-engineers", "group:admin"}
    assert identity.attributes == {"subject.acr": "2"}
    for wrong in ("admin", ["admin"], {"roles": "admin"}, {"roles": [1]}, None):
        bad = forge(good_header(by), claims | {"realm_access": wrong}, by)
        assert reason_of(verify(f"Bearer {bad}", table=trust, keys=keys, now_ms=NOW_MS)) is Reason.CLAIM_TYPE_INVALID
    without = forge(good_header(by), {k: v for k, v in claims.items() if k != "realm_access"}, by)
    identity = verify(f"Bearer {without}", table=trust, keys=keys, now_ms=NOW_MS)
    assert isinstance(identity, VerifiedIdentity)
    assert identity.party.groups == set()


def test_the_service_account_has_the_name_that_the_page_says() -> None:
    trust = table_of(KUBERNETES)
    (issuer,) = trust.issuers.values()
    keys = {issuer.iss: key_set([signer("RS256", "cluster").public_jwk], algs=issuer.algs, iss=issuer.iss)}
    assert issuer.account_uids == {"ml/scorer": ACCOUNT_UID}
    compact = f"Bearer {account_token(iss=issuer.iss)}"
    identity = verify(compact, table=trust, keys=keys, live=Review(**GOOD_REVIEW), now_ms=NOW_MS)
    assert isinstance(identity, VerifiedIdentity)
    assert f"`{identity.party.principal}`" in PAGE


def test_the_issuers_of_the_examples_are_asked_as_the_page_says() -> None:
    (cluster,), (login,) = table_of(KUBERNETES).issuers.values(), table_of(INTROSPECTED).issuers.values()
    assert cluster.live_check is not None
    assert login.live_check is not None
    assert (cluster.live_check.by, login.live_check.by) == ("token_review", "introspection")
    assert cluster.live_check.asks_before("dataset.list")
    assert [login.live_check.asks_before(action) for action in ("", "model.promote", "model.read")] == [
        True,
        True,
        False,
    ]


def test_each_trust_domain_has_keys_of_its_own() -> None:
    assert {name: issuer.profile for name, issuer in table_of(SPIFFE).svids.items()} == {
        "prod.example": "jwt_svid",
        "partner.example": "jwt_svid",
    }


def test_the_page_names_every_field_of_an_issuer() -> None:
    unnamed = [name for name in Issuer.model_fields if f"`{name}`" not in PAGE and f"`{name}:" not in PAGE]
    assert unnamed == ["intake", "tenant", "unread_headers"], json.dumps(unnamed)
