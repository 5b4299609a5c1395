"""DPoP: the twelve points of RFC 9449 section 4.3, its own examples, and what a proof may not be used for."""

import asyncio
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdp.adapters.replay_memory import MemoryReplay
from pdp.errors import Reason
from pdp.identity import proof as proofs
from pdp.identity.proof import BoundRequest, Proof, check_proof, normalise, read_proof
from pdp.identity.types import Refusal, VerifiedIdentity
from pdp.limits import DPOP_NONCE_LIFE_S, DPOP_WINDOW_S
from pdp.service.nonces import Nonces
from tests.support.tokens import (
    HTU,
    NOW_MS,
    NOW_S,
    b64,
    bound_token,
    entry,
    forge,
    good_token,
    holder,
    jkt_of,
    judge,
    proof,
    reason_of,
    signer,
    table,
)

TRUST = table(entry(cnf_kinds=["jkt"]))
TOKEN = bound_token()
DIGEST = hashlib.sha256(TOKEN.encode()).digest()
RFC_TOKEN = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
RFC_JKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
RFC_PROOF = (
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQy"
    "VVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJ"
    "lMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsIml"
    "hdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71E"
    "OptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
)
RFC_REQUEST = BoundRequest(method="GET", uri="https://resource.example.org/protectedresource", proof=RFC_PROOF)


def request(text: str | None, **changes: Any) -> BoundRequest:
    return BoundRequest(**({"method": "POST", "uri": HTU, "proof": text} | changes))


def enter(
    text: str | None, *, compact: str = TOKEN, scheme: str = "DPoP", **changes: Any
) -> VerifiedIdentity | Refusal:
    return judge_bound(f"{scheme} {compact}", request(text, **changes))


def judge_bound(authorization: str, bound: BoundRequest, now_ms: int = NOW_MS) -> VerifiedIdentity | Refusal:
    return judge(authorization, trust=TRUST, request=bound, now_ms=now_ms)


def test_the_proof_of_rfc_9449_section_7_1_holds_for_its_request_and_token() -> None:
    found = read_proof(RFC_REQUEST, token=hashlib.sha256(RFC_TOKEN.encode()).digest())
    assert found == Proof(jkt=RFC_JKT, jti="e1j3V_bKic8-LAEB", issued_at_s=1562262618, nonce="")
    assert check_proof(found, jkt=RFC_JKT, nonces=None, now_ms=1562262618_000) is None


def test_the_proof_of_rfc_9449_is_refused_for_another_token_and_for_a_post() -> None:
    other = read_proof(RFC_REQUEST, token=hashlib.sha256(b"another").digest())
    post = BoundRequest(method="POST", uri=RFC_REQUEST.uri, proof=RFC_PROOF)
    assert isinstance(other, Refusal)
    assert isinstance(read_proof(post, token=hashlib.sha256(RFC_TOKEN.encode()).digest()), Refusal)


@pytest.mark.parametrize("alg", ["ES256", "RS256", "EdDSA"])
def test_a_good_proof_of_each_kind_of_key_is_accepted(alg: str) -> None:
    by = holder("kinds", alg)
    compact = bound_token(by)
    assert isinstance(enter(proof(compact, by=by), compact=compact), VerifiedIdentity)


def private_jwk() -> dict[str, Any]:
    return {**proof_jwk(), "d": b64(b"x" * 32)}


def proof_jwk(name: str = "holder", alg: str = "ES256") -> dict[str, Any]:
    by = holder(name, alg)
    return {key: value for key, value in by.public_jwk.items() if key not in ("kid", "alg", "use")}


def flipped(text: str) -> str:
    head, _, signature = text.rpartition(".")
    return f"{head}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


BAD = {
    "1-two-headers": f"{proof(TOKEN)}, {proof(TOKEN)}",
    "2-empty": "",
    "2-no-jwt": "proof",
    "2-newline": proof(TOKEN) + "\n",
    "2-not-ascii": proof(TOKEN) + "é",
    "2-padding": proof(TOKEN) + "=",
    "2-too-large": proof(TOKEN, x="y" * 9000),
    "2-duplicate-claim": forge(
        {"typ": "dpop+jwt", "alg": "ES256", "jwk": proof_jwk()}, '{"jti": "a", "jti": "b"}', holder()
    ),
    **{f"3-without-{name}": proof(TOKEN, **{name: ...}) for name in ("jti", "htm", "htu", "iat", "ath")},
    **{f"3-null-{name}": proof(TOKEN, **{name: None}) for name in ("jti", "htm", "htu", "iat", "ath", "nonce")},
    **{f"3-iat-{value!r}": proof(TOKEN, iat=value) for value in (True, float(NOW_S), str(NOW_S), 0, -1, 253402300800)},
    "3-jti-empty": proof(TOKEN, jti=""),
    "3-jti-long": proof(TOKEN, jti="a" * 129),
    "3-jti-control": proof(TOKEN, jti="a\nb"),
    **{f"4-typ-{typ!r}": proof(TOKEN, header={"typ": typ}) for typ in ("JWT", "at+jwt", ..., None, 1, "dpop+jw\u1e6d")},
    **{f"5-alg-{alg!r}": proof(TOKEN, header={"alg": alg}) for alg in ("none", "HS256", None, ..., "RS256", "ES384", 1)},
    "5-header-kid": proof(TOKEN, header={"kid": "a"}),
    "5-header-jku": proof(TOKEN, header={"jku": "https://evil.example"}),
    "5-header-crit": proof(TOKEN, header={"crit": ["exp"]}),
    "6-signature": flipped(proof(TOKEN)),
    "6-by-another-key": proof(TOKEN, by=holder("thief"), header={"jwk": proof_jwk()}),
    "7-private": proof(TOKEN, header={"jwk": private_jwk()}),
    "7-symmetric": proof(TOKEN, header={"jwk": {"kty": "oct", "k": "c2VjcmV0"}}),
    **{f"7-jwk-{jwk!r}": proof(TOKEN, header={"jwk": jwk}) for jwk in (..., None, "a", [], {}, {"kty": "EC"})},
    "7-for-encryption": proof(TOKEN, header={"jwk": proof_jwk() | {"use": "enc"}}),
    # Whoever bound a token to such a key would have us look at each proof for milliseconds.
    "7-endless-exponent": proof(
        TOKEN, header={"alg": "RS256", "jwk": proof_jwk("r", "RS256") | {"e": b64(b"\x7f" + b"\xff" * 255)}}
    ),
    "7-small-order": proof(
        TOKEN, header={"alg": "EdDSA", "jwk": {"kty": "OKP", "crv": "Ed25519", "x": b64(b"\x01" + bytes(31))}}
    ),
    "7-other-alg": proof(TOKEN, header={"jwk": proof_jwk() | {"alg": "RS256"}}),
    "7-off-curve": proof(TOKEN, header={"jwk": proof_jwk() | {"y": proof_jwk()["x"]}}),
    "8-htm": proof(TOKEN, htm="GET"),
    "8-htm-lower-case": proof(TOKEN, htm="post"),
    **{
        f"9-htu-{htu}": proof(TOKEN, htu=htu)
        for htu in (
            HTU + "/", HTU.replace("fraud", "other"), HTU.replace("https", "http"), HTU.replace(".example", ".evil"),
            HTU.replace("models.example", "models.example:444"), HTU.replace("models.example", "models.example@evil.example"),
            HTU.replace("models.example", "eve@models.example"), "", "/v2/models/fraud/infer", "https:", HTU + "%2f", HTU + "%",
            HTU.upper(), "https://models.example", HTU + "\\", " " + HTU, HTU.replace("/v2", "//v2"), "https://[::1", "https://a:b",
        )
    },
    "11-old": proof(TOKEN, iat=NOW_S - 61),
    "11-ahead": proof(TOKEN, iat=NOW_S + 61),
    "12-ath-of-another-token": proof(good_token()),
    "12-ath-padded": proof(TOKEN, ath=b64(DIGEST) + "="),
    "12-key-of-another": proof(TOKEN, by=holder("thief")),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_t50_a_proof_that_fails_a_point_is_refused(name: str) -> None:
    outcome = enter(BAD[name])
    assert isinstance(outcome, Refusal)
    assert (outcome.reason, outcome.dpop) == (Reason.DPOP_PROOF_INVALID, True)


def test_t50_no_proof_and_no_authority_are_no_proof() -> None:
    assert reason_of(enter(None)) is Reason.DPOP_PROOF_INVALID
    assert reason_of(enter(proof(TOKEN), uri="")) is Reason.DPOP_PROOF_INVALID
    assert reason_of(enter(proof(TOKEN), method="")) is Reason.DPOP_PROOF_INVALID
    # Nothing is not matched by nothing.
    assert reason_of(enter(proof(TOKEN, htm=""), method="")) is Reason.DPOP_PROOF_INVALID
    assert reason_of(enter(proof(TOKEN, htu=""), uri="")) is Reason.DPOP_PROOF_INVALID


def test_t50_a_token_without_a_key_does_not_become_one_by_the_scheme() -> None:
    compact = good_token()
    assert reason_of(enter(proof(compact), compact=compact)) is Reason.DPOP_PROOF_INVALID


def test_t48_a_bound_token_as_a_bearer_is_refused_with_and_without_a_proof() -> None:
    for text in (None, proof(TOKEN)):
        outcome = enter(text, scheme="Bearer")
        assert isinstance(outcome, Refusal)
        assert (outcome.reason, outcome.dpop) == (Reason.BINDING_REQUIRED, True)


@pytest.mark.parametrize(("age_s", "good"), [(60, True), (61, False), (-60, True), (-61, False)])
def test_the_window_of_a_proof_is_a_minute_each_way(age_s: int, *, good: bool) -> None:
    outcome = judge_bound(f"DPoP {TOKEN}", request(proof(TOKEN, iat=NOW_S - age_s)))
    assert isinstance(outcome, VerifiedIdentity) == good


@pytest.mark.parametrize(
    "htu",
    [
        HTU.replace("https", "HTTPS"), HTU.replace("models.example", "Models.EXAMPLE"), HTU + "?a=1", HTU + "#a", HTU + "?",
        HTU.replace("models.example", "models.example:443"), HTU.replace("fraud", "fr%61ud"), HTU.replace("/v2", "/x/../v2"),
        HTU.replace("/v2", "/./v2"),
    ],
)  # fmt: skip
def test_two_spellings_of_one_address_are_one_address(htu: str) -> None:
    assert isinstance(enter(proof(TOKEN, htu=htu)), VerifiedIdentity)


@pytest.mark.parametrize(
    ("uri", "normal"),
    [
        ("https://a", "https://a/"),
        ("https://a/b/c", "https://a/b/c"),
        ("https://a//b", "https://a//b"),
        ("https://a/x%2fy", "https://a/x%2Fy"),
        ("https://a/%7Eb", "https://a/~b"),
        ("https://a/b/.", "https://a/b/"),
        ("https://a/b/..", "https://a/"),
        ("https://a/../../b", "https://a/b"),
        ("https://a/b/c/d/../e", "https://a/b/c/e"),
        ("https://a/b/./c", "https://a/b/c"),
        ("https://a:443/", "https://a/"),
        ("http://a:443/", "http://a:443/"),
        ("https://[2001:DB8::1]:8443/a", "https://[2001:db8::1]:8443/a"),
        ("https://[2001:db8::1]/a", "https://[2001:db8::1]/a"),
        ("ftp://a/", None),
        ("https:///a", None),
        ("https://a:99999/", None),
        ("https://a/%zz", None),
        ("https://a\\b/", None),
        ("https://u@a/", None),
        ("", None),
    ],
)
def test_an_address_has_one_normal_form_and_others_have_others(uri: str, normal: str | None) -> None:
    assert normalise(uri) == normal


def test_a_configured_address_that_is_none_matches_nothing() -> None:
    for uri in ("nowhere", "ftp://models.example/", "https://a\\b/"):
        assert reason_of(enter(proof(TOKEN, htu=uri), uri=uri)) is Reason.DPOP_PROOF_INVALID


def test_what_a_bound_request_holds_is_not_printed() -> None:
    text = proof(TOKEN)
    assert text not in repr(request(text))


def test_a_proof_is_remembered_until_it_is_too_old_to_be_taken() -> None:
    found = read_proof(request(proof(TOKEN, iat=NOW_S)), token=DIGEST)
    assert isinstance(found, Proof)
    last_ms = NOW_MS + DPOP_WINDOW_S * 1000
    assert check_proof(found, jkt=found.jkt, nonces=None, now_ms=last_ms) is None
    assert check_proof(found, jkt=found.jkt, nonces=None, now_ms=last_ms + 1) is not None
    assert found.until_s * 1000 > last_ms


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=30) | st.from_regex(r"https?://[a-z.]{1,8}(:[0-9]{1,4})?(/[a-z%0-9.~]{0,6}){0,4}", fullmatch=True)
)
def test_a_normal_address_is_its_own_normal_form(uri: str) -> None:
    once = normalise(uri)
    assert once is None or normalise(once) == once


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_proof_with_other_bytes_is_another_proof_or_none(data: st.DataObject) -> None:
    good = proof(TOKEN, jti="same")
    place = data.draw(st.integers(0, len(good) - 1))
    mutated = good[:place] + data.draw(st.characters(codec="utf-8")) + good[place + 1 :]
    assert isinstance(enter(mutated), VerifiedIdentity) == (mutated == good)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["jti", "htm", "htu", "iat", "ath", "nonce"]),
    st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers(), max_size=2),
)
def test_a_proofs_claim_of_any_type_is_judged_and_never_raises(name: str, value: Any) -> None:
    outcome = enter(proof(TOKEN, **{name: json.loads(json.dumps(value))}))
    assert reason_of(outcome) in (None, Reason.DPOP_PROOF_INVALID)


def test_the_backends_surprise_about_a_proof_is_a_refusal_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    text = proof(TOKEN)
    monkeypatch.setattr(proofs, "check_signature", lambda *_args: Refusal(reason=Reason.VERIFIER_ERROR))
    assert reason_of(read_proof(request(text), token=DIGEST)) is Reason.VERIFIER_ERROR  # type: ignore[arg-type]


def test_a_second_spelling_of_the_signature_is_the_same_use() -> None:
    good = proof(TOKEN)
    head, _, signature = good.rpartition(".")
    raw = bytearray(proofs.gate.decode_base64url(signature.encode()) or b"")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    raw[32:] = (order - int.from_bytes(raw[32:])).to_bytes(32)
    twin = f"{head}.{b64(bytes(raw))}"
    first, second = (read_proof(request(text), token=DIGEST) for text in (good, twin))
    assert isinstance(first, Proof)
    assert isinstance(second, Proof)
    assert first.replay_key() == second.replay_key()


def test_a_proof_of_the_issuers_own_key_is_worth_no_more() -> None:
    assert reason_of(enter(proof(TOKEN, by=signer()))) is Reason.DPOP_PROOF_INVALID
    assert jkt_of(signer()) != jkt_of(holder())


class Clock:
    def __init__(self) -> None:
        self.s = 0.0

    def now_ms(self) -> int:
        return int(self.s * 1000)

    def mono_s(self) -> float:
        return self.s


def test_the_memory_of_proofs_forgets_by_time_alone_and_is_bounded() -> None:
    async def story() -> None:
        clock = Clock()
        memory = MemoryReplay(clock=clock, entries=2)
        assert await memory.use(b"a", ttl_s=10) is None
        assert reason_of(await memory.use(b"a", ttl_s=10)) is Reason.TOKEN_REPLAYED  # type: ignore[arg-type]
        assert await memory.use(b"b", ttl_s=10) is None
        assert reason_of(await memory.use(b"c", ttl_s=10)) is Reason.REPLAY_STORE_UNAVAILABLE  # type: ignore[arg-type]
        clock.s = 9.999
        assert reason_of(await memory.use(b"a", ttl_s=10)) is Reason.TOKEN_REPLAYED  # type: ignore[arg-type]
        clock.s = 10
        assert await memory.use(b"c", ttl_s=10) is None
        assert len(memory) == 1

    asyncio.run(story())


def test_a_nonce_lasts_its_minute_and_the_next() -> None:
    clock = Clock()
    nonces = Nonces(clock=clock, secret=b"a")
    clock.s = 600.0
    first = nonces.current()
    clock.s += DPOP_NONCE_LIFE_S - 0.001
    assert nonces.current() == first
    clock.s += 0.001
    second = nonces.current()
    assert second != first
    assert nonces.taken() == (second, first)
    clock.s += DPOP_NONCE_LIFE_S
    assert first not in nonces.taken()
    assert len({*nonces.taken(), second, first}) == 3


def test_who_shares_the_secret_gives_and_takes_the_same_nonces_and_nobody_else() -> None:
    """The workers of one PDP, and a PDP that starts anew with the secret it had."""
    clock = Clock()
    clock.s = 600.0
    one, other, stranger = (Nonces(clock=clock, secret=secret) for secret in (b"a", b"a", b"b"))
    assert one.taken() == other.taken()
    assert not set(one.taken()) & set(stranger.taken())
