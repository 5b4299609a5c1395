"""A good token, mutated in every way we can think of, is never accepted unless it is the same token."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdp.errors import Reason
from pdp.identity.gate import parse, read_object
from pdp.identity.types import Refusal, VerifiedIdentity
from pdp.limits import MAX_JSON_DEPTH
from tests.support.tokens import ALGS, NOW_S, b64, forge, good_claims, good_header, good_token, judge, reason_of, signer

GOOD = {alg: good_token(alg) for alg in ALGS}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def accepted(compact: str) -> bool:
    return isinstance(judge(f"Bearer {compact}"), VerifiedIdentity)


@pytest.mark.parametrize("alg", ALGS)
def test_every_single_byte_matters(alg: str) -> None:
    good = GOOD[alg]
    assert accepted(good)
    for place, byte in enumerate(good):
        other = "B" if byte != "B" else "C"
        assert not accepted(good[:place] + other + good[place + 1 :]), place


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(ALGS), st.data())
def test_bytes_inserted_removed_or_repeated(alg: str, data: st.DataObject) -> None:
    good = GOOD[alg]
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 8)))
    mutated = good[:start] + data.draw(st.text(max_size=8)) + good[end:]
    assert accepted(mutated) == (mutated == good)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(sorted(good_claims())), JSON)
def test_a_claim_changed_under_the_old_signature(name: str, value: Any) -> None:
    head, body, signature = GOOD["ES256"].split(".")
    changed = b64(json.dumps(good_claims() | {name: value}).encode())
    assert accepted(f"{head}.{changed}.{signature}") == (changed == body)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from([*sorted(good_claims()), "nbf", "act", "cnf", "scope", "roles", "nonce", "sid"]), JSON)
def test_a_claim_of_any_type_truly_signed_is_judged_and_never_raises(name: str, value: Any) -> None:
    by = signer()
    outcome = judge("Bearer " + forge(good_header(by), json.dumps(good_claims() | {name: value}), by))
    if isinstance(outcome, VerifiedIdentity):
        assert outcome.expires_at_s > NOW_S
        assert outcome.actors == ()
    else:
        assert outcome.reason is not Reason.VERIFIER_ERROR


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "cty", "x"]), JSON)
def test_a_header_of_any_type_truly_signed_is_judged_and_never_raises(name: str, value: Any) -> None:
    by = signer()
    header = good_header(by) | {name: value}
    outcome = judge("Bearer " + forge(json.dumps(header), good_claims(), by))
    assert isinstance(outcome, Refusal) == (header != good_header(by))
    assert reason_of(outcome) is not Reason.VERIFIER_ERROR


@pytest.mark.holds("L9", "adv_malformed_peer")
@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    assert isinstance(parse(raw), Refusal)
    outcome = read_object(raw, duplicate=Reason.DUPLICATE_CLAIM)
    assert isinstance(outcome, dict | Refusal)


@pytest.mark.holds("G6")
@settings(max_examples=120, deadline=None)
@given(st.dictionaries(st.text(), JSON))
def test_what_the_gate_reads_is_what_json_reads(value: dict[str, Any]) -> None:
    raw = json.dumps(value)
    outcome = read_object(raw.encode(), duplicate=Reason.DUPLICATE_CLAIM)
    if isinstance(outcome, dict):
        assert json.dumps(outcome) == raw
    else:
        assert outcome.reason in {Reason.NUMBER_INVALID, Reason.TOKEN_MALFORMED, Reason.TOKEN_TOO_DEEP}


@pytest.mark.holds("G5", "L1", "adv_recursion")
@pytest.mark.parametrize("depth", [MAX_JSON_DEPTH - 1, MAX_JSON_DEPTH, MAX_JSON_DEPTH + 1])
def test_the_depth_limit_is_exact_whatever_stands_in_strings(depth: int) -> None:
    inner = "[" * (depth - 1) + r'"[{\"[[[\\"' + "]" * (depth - 1)
    raw = f'{{"x": {inner}, "y": [[], [], [], [], {{}}, {{}}, [], [], [], [], [], []]}}'
    outcome = read_object(raw.encode(), duplicate=Reason.DUPLICATE_CLAIM)
    assert isinstance(outcome, Refusal) == (depth > MAX_JSON_DEPTH)


def test_a_string_without_end_costs_no_quadratic_time() -> None:
    # With a backtracking scan this takes minutes at this size, and the test's timeout ends it.
    raw = b"{" * 17 + b'"' + b'\\"' * 200_000
    assert read_object(raw, duplicate=Reason.DUPLICATE_CLAIM) == Refusal(
        reason=Reason.TOKEN_TOO_DEEP, detail=f"more than {MAX_JSON_DEPTH} levels"
    )
