"""What a good token may look like, and the exact edges of time."""

from typing import Any

import pytest

from pdp.errors import Reason
from pdp.identity.types import VerifiedIdentity
from tests.support.tokens import (
    ALGS,
    ISS,
    NOW_MS,
    NOW_S,
    entry,
    forge,
    good_claims,
    good_header,
    good_token,
    judge,
    reason_of,
    signer,
    table,
)


def accept(authorization: str, **setting: Any) -> VerifiedIdentity:
    identity = judge(authorization, **setting)
    assert isinstance(identity, VerifiedIdentity), identity
    return identity


@pytest.mark.parametrize("alg", ALGS)
@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+JWT"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_good_access_token(alg: str, typ: str, scheme: str) -> None:
    by = signer(alg)
    accept(f"{scheme} {forge(good_header(by, typ=typ), good_claims(), by)}")


def test_everything_that_is_read() -> None:
    trust = table(
        entry(
            max_act_depth=2, attribute_claims={"dept": "subject.department", "mfa": "subject.mfa", "t": "subject.tags"}
        )
    )
    compact = good_token(
        sid="s1", scope="read write", nbf=NOW_S - 5, act={"sub": "etl-bot", "act": {"sub": "scheduler"}}, may_act={"sub": "x"},
        dept="research", mfa=True, t=["a"], roles=["admin"], email="x",
    )  # fmt: skip
    identity = accept(f"Bearer {compact}", trust=trust)
    assert [str(actor.principal) for actor in identity.actors] == ["agent:etl-bot", "agent:scheduler"]
    assert dict(identity.attributes) == {"subject.department": "research", "subject.mfa": True, "subject.tags": ("a",)}
    assert identity.party.groups == {"group:ml-engineers"}
    facts = identity.facts
    assert (facts.issuer, facts.jti, facts.session, facts.fingerprint) == (ISS, "0001", "s1", "")
    assert (facts.issued_at_s, facts.expires_at_s, identity.expires_at_s) == (NOW_S - 10, NOW_S + 300, NOW_S + 330)


def test_groups_come_from_named_claims_only() -> None:
    compact = good_token(groups=["a"], roles=["b"], teams=["c", "a"])
    assert accept(f"Bearer {compact}", trust=table(entry(group_claims=None))).party.groups == frozenset()
    assert accept(f"Bearer {compact}", trust=table(entry(group_claims=["teams", "roles"]))).party.groups == {
        "group:a",
        "group:b",
        "group:c",
    }


def test_equal_subjects_of_two_issuers_never_meet() -> None:
    trust = table(entry(namespace="corp"), entry(iss="https://other.example"))
    identity = accept(f"Bearer {good_token(sub='alice')}", trust=trust)
    assert str(identity.party.principal) == "user:corp/alice"


def test_other_audiences_count_only_where_the_entry_says_so() -> None:
    for aud in (["portcullis"], "portcullis"):
        accept(f"Bearer {good_token(aud=aud)}")
    accept(f"Bearer {good_token(aud=['other', 'portcullis'])}", trust=table(entry(aud_mode="contains")))
    refused = judge(f"Bearer {good_token(aud=['other'])}", trust=table(entry(aud_mode="contains")))
    assert reason_of(refused) is Reason.AUDIENCE_MISMATCH


def test_a_token_without_jti_counts_only_where_the_entry_says_so() -> None:
    accept(f"Bearer {good_token(jti=...)}", trust=table(entry(require_jti=False)))


def test_thumbprint_headers_are_tolerated_unread_where_the_entry_says_so() -> None:
    by = signer()
    compact = forge(good_header(by, x5t="a"), good_claims(), by)
    accept(f"Bearer {compact}", trust=table(entry(unread_headers=["x5t"])))
    assert (
        reason_of(judge(f"Bearer {compact}", trust=table(entry(unread_headers=["x5t#S256"]))))
        is Reason.HEADER_NOT_ALLOWED
    )


@pytest.mark.holds("F13", "K7")
def test_the_edges_of_time_are_exact() -> None:
    compact = f"Bearer {good_token(iat=NOW_S, nbf=NOW_S, exp=NOW_S + 3600)}"
    first, last = NOW_MS - 30_000, NOW_MS + 3_630_000 - 1
    accept(compact, now_ms=first)
    accept(compact, now_ms=last)
    assert reason_of(judge(compact, now_ms=first - 1)) is Reason.TOKEN_NOT_YET_VALID
    assert reason_of(judge(compact, now_ms=last + 1)) is Reason.TOKEN_EXPIRED


@pytest.mark.holds("L1")
def test_limits_are_exact() -> None:
    accept(f"Bearer {good_token(sub='a' * 255)}")
    accept(f"Bearer {good_token(jti='a' * 128)}")
    accept(f"Bearer {good_token(groups=[f'g{number}' for number in range(256)])}")
    accept(f"Bearer {good_token(x=2**53 - 1, y=-(2**53) + 1)}")


@pytest.mark.parametrize(
    "changes", [{"dept": {"a": 1}}, {"dept": None}, {"dept": [1]}, {"dept": "a\nb"}, {"dept": "x" * 5000}]
)
def test_an_attribute_that_no_condition_could_read_is_refused(changes: dict[str, Any]) -> None:
    trust = table(entry(attribute_claims={"dept": "subject.department"}))
    assert reason_of(judge(f"Bearer {good_token(**changes)}", trust=trust)) is Reason.CLAIM_TYPE_INVALID


def test_groups_of_several_claims_are_counted_together() -> None:
    trust = table(entry(group_claims=["groups", "teams"]))
    many = {name: [f"{name}{number}" for number in range(129)] for name in ("groups", "teams")}
    assert reason_of(judge(f"Bearer {good_token(**many)}", trust=trust)) is Reason.CLAIM_TYPE_INVALID
    fitting = judge(f"Bearer {good_token(**many | {'teams': many['teams'][:127]})}", trust=trust)
    assert isinstance(fitting, VerifiedIdentity)
    assert len(fitting.party.groups) == 256


def test_a_claim_with_a_slash_in_its_name_is_one_name() -> None:
    name = "https://corp.example/groups"
    trust = table(entry(group_claims=[name], attribute_claims={"no.such": "subject.nothing"}))
    identity = judge(f"Bearer {good_token(**{name: ['a'], 'https://corp': {'example/groups': ['b']}})}", trust=trust)
    assert isinstance(identity, VerifiedIdentity)
    assert identity.party.groups == {"group:a"}
    assert identity.attributes == {}


def test_a_pattern_lets_in_whom_it_names() -> None:
    trust = table(entry(sub_pattern=r"[a-z]+@example\.com"))
    assert isinstance(judge(f"Bearer {good_token()}", trust=trust), VerifiedIdentity)
