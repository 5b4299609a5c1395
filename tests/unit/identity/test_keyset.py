import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from pdp.errors import Reason
from pdp.identity.keyset import _ROCA_PRIMES, KeySet, VerificationKey, parse_jwks
from pdp.identity.types import Refusal
from pdp.limits import MAX_JWKS_BYTES, MAX_JWKS_KEYS
from tests.support.tokens import ALGS, ISS, b64, key_set, keys_of, signer

ES = signer().public_jwk
RS = signer("RS256").public_jwk


def number(value: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8)).rstrip(b"=").decode()


def value_of(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=="))


def without(jwk: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in jwk.items() if name not in names}


def roca_modulus() -> int:
    primorial = 1
    for prime in _ROCA_PRIMES:
        primorial *= prime
    base = pow(65537, 12345, primorial)
    return base + primorial * (2**2047 // primorial + 2)


def small_rsa() -> dict[str, Any]:
    return RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True)  # noqa: S505 - the point


SMALL_ORDER = [
    "01" + "00" * 31,
    "01" + "00" * 30 + "80",
    "ec" + "ff" * 30 + "7f",
    "ec" + "ff" * 31,
    "00" * 32,
    "00" * 31 + "80",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]
"""Every spelling of the points of order 1, 2, 4 and 8 with a canonical y (eight points; two have a second sign)."""


def test_the_library_takes_forged_signatures_of_points_of_small_order() -> None:
    """Why we do not: R the neutral point, S zero, and nothing of the message or a secret in it."""
    point = Ed25519PublicKey.from_public_bytes(bytes.fromhex(SMALL_ORDER[0]))
    point.verify(bytes.fromhex(SMALL_ORDER[0]) + bytes(32), b"whatever the attacker likes")


UNFIT = {
    "use-enc": (ES | {"use": "enc"}, "use"),
    "ops-without-verify": (ES | {"key_ops": ["sign", "encrypt"]}, "key_ops"),
    "unknown-kty": (ES | {"kty": "AKP"}, "kty"),
    "no-kty": (without(ES, "kty"), "kty"),
    "unknown-curve": (ES | {"crv": "secp256k1"}, "kty"),
    "curve-list": (ES | {"crv": ["P-256"]}, "kty"),
    "x25519": ({"kty": "OKP", "crv": "X25519", "x": ES["x"]}, "kty"),
    "alg-of-another-kind": (ES | {"alg": "RS256"}, "alg"),
    "alg-hs256": (RS | {"alg": "HS256"}, "alg"),
    "alg-not-the-issuers": (RS | {"alg": "RS512"}, "alg"),
    "kid-number": (ES | {"kid": 1}, "kid"),
    "kid-path": (ES | {"kid": "../a"}, "kid"),
    "coordinate-short": (ES | {"x": number(1)}, "size"),
    "coordinate-off-curve": (ES | {"y": ES["x"]}, "malformed"),
    "coordinate-padded": (ES | {"x": ES["x"] + "="}, "malformed"),
    "coordinate-missing": (without(ES, "y"), "malformed"),
    **{
        f"ed25519-small-order-{name[:6]}-{name[-2:]}": (
            {"kty": "OKP", "crv": "Ed25519", "x": b64(bytes.fromhex(name))},
            "order",
        )
        for name in SMALL_ORDER
    },
    "ed25519-second-spelling": (
        {"kty": "OKP", "crv": "Ed25519", "x": b64(bytes.fromhex("ee" + "ff" * 30 + "7f"))},
        "malformed",
    ),
    "ed25519-prime": ({"kty": "OKP", "crv": "Ed25519", "x": b64(bytes.fromhex("ed" + "ff" * 30 + "7f"))}, "malformed"),
    "ed25519-short": ({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}, "malformed"),
    "rsa-1024": (small_rsa() | {"alg": "RS256"}, "size"),
    "rsa-huge": (RS | {"n": number(2**8192 + 1)}, "size"),
    "rsa-leading-zero": (
        RS | {"n": base64.urlsafe_b64encode(b"\0" + value_of(RS["n"]).to_bytes(256)).rstrip(b"=").decode()},
        "size",
    ),
    "alg-list": (ES | {"alg": ["ES256"]}, "alg"),
    "alg-null": (ES | {"alg": None}, "alg"),
    "okp-in-disguise": ({"kty": "EC", "crv": "Ed25519", "x": signer("EdDSA").public_jwk["x"]}, "kty"),
    "ec-in-disguise": (ES | {"kty": "OKP"}, "kty"),
    "coordinate-long": (ES | {"y": "AAAA" + ES["y"]}, "size"),
    "coordinates-long": (ES | {"x": "AAAA" + ES["x"], "y": "AAAA" + ES["y"]}, "size"),
    "rsa-2047": (RS | {"n": number(2**2046 + 1)}, "size"),
    "rsa-e-leading-zero": (RS | {"e": "AAEAAQ"}, "size"),
    "rsa-e-huge": (RS | {"e": number(2**31 + 1)}, "exponent"),
    "rsa-e-as-long-as-n": (RS | {"e": number(2**2040 + 1)}, "exponent"),
    "rsa-e-1": (RS | {"e": "AQ"}, "exponent"),
    "rsa-e-even": (RS | {"e": "Ag"}, "exponent"),
    "rsa-e-65536": (RS | {"e": number(65536)}, "exponent"),
    "rsa-roca": (RS | {"n": number(roca_modulus())}, "roca"),
}


@pytest.mark.parametrize(("jwk", "why"), UNFIT.values(), ids=UNFIT)
def test_an_unfit_key_is_dropped_and_counted_and_the_others_stay(jwk: dict[str, Any], why: str) -> None:
    other = signer("EdDSA").public_jwk
    keys = key_set([jwk, other])
    assert dict(keys.dropped) == {why: 1}
    assert [key.kid for key in keys.keys] == [other["kid"]]


def test_a_key_has_one_algorithm_its_own_or_its_curves_or_the_issuers_only_rsa_one() -> None:
    bare = [without(ES, "alg"), without(RS, "alg")]
    assert {key.alg for key in key_set(bare).keys} == {"ES256", "RS256"}
    ambiguous = key_set(bare, algs=("ES256", "RS256", "PS256"))
    assert [key.alg for key in ambiguous.keys] == ["ES256"]
    assert dict(ambiguous.dropped) == {"alg": 1}
    assert [key.alg for key in key_set([RS | {"alg": "PS256"}], algs=("RS256", "PS256")).keys] == ["PS256"]


@pytest.mark.parametrize(("curve", "alg"), [(ec.SECP384R1(), "ES384"), (ec.SECP521R1(), "ES512")])
def test_larger_curves(curve: ec.EllipticCurve, alg: str) -> None:
    jwk = ECAlgorithm.to_jwk(ec.generate_private_key(curve).public_key(), as_dict=True)
    assert [key.alg for key in key_set([jwk], algs=(alg,)).keys] == [alg]


def test_without_kid_only_the_only_key_is_found() -> None:
    one, two = keys_of(signer()), keys_of(signer(), signer("RS256"))
    assert isinstance(one.find(None), VerificationKey)
    assert two.find(None) == Refusal(reason=Reason.KID_MISSING, detail="no `kid` to choose among several keys")
    nameless = key_set([without(ES, "kid")])
    assert isinstance(nameless.find(None), VerificationKey)
    assert isinstance(nameless.find("anything"), Refusal)


def test_thumbprints_are_those_of_rfc_7638() -> None:
    example = {
        "kty": "RSA", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs"
        "tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n"
        "91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    }  # fmt: skip
    (key,) = key_set([example]).keys
    assert key.thumbprint == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


REFUSED = {
    "not-json": b"{",
    "array": b"[]",
    "no-keys": b"{}",
    "keys-object": b'{"keys": {}}',
    "key-text": b'{"keys": ["a"]}',
    "duplicate-name": b'{"keys": [], "keys": []}',
    "duplicate-member": b'{"keys": [{"kty": "EC", "kty": "RSA"}]}',
    "nan": b'{"keys": [], "x": NaN}',
    "utf-16": '{"keys": []}'.encode("utf-16"),
    "too-many": json.dumps({"keys": [{"kty": "x"}] * (MAX_JWKS_KEYS + 1)}).encode(),
    "too-large": b'{"keys": []}' + b" " * MAX_JWKS_BYTES,
    "symmetric": b'{"keys": [{"kty": "oct", "use": "enc"}]}',
    "symmetric-in-disguise": json.dumps({"keys": [ES | {"k": "AAAA"}]}).encode(),
    "private-exponent": json.dumps({"keys": [ES | {"d": "AAAA"}]}).encode(),
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED)
def test_an_ambiguous_or_secret_set_is_refused_whole(raw: bytes) -> None:
    refusal = parse_jwks(raw, issuer=ISS, algs=frozenset(ALGS))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.KEYS_UNAVAILABLE


def test_a_repeated_kid_on_an_unusable_key_is_no_ambiguity() -> None:
    keys = key_set([ES, RS | {"kid": ES["kid"], "use": "enc"}])
    assert [key.alg for key in keys.keys] == ["ES256"]


def test_the_limits_are_exact() -> None:
    assert isinstance(key_set([ES] + [{"kty": "x"}] * (MAX_JWKS_KEYS - 1)), KeySet)
    raw = json.dumps({"keys": [ES]}).encode()
    padded = raw + b" " * (MAX_JWKS_BYTES - len(raw))
    assert isinstance(parse_jwks(padded, issuer=ISS, algs=frozenset(ALGS)), KeySet)


def modulus(bits: int) -> str:
    """A number of that size which no broken generator made; nothing here needs its factors."""
    return number(2 ** (bits - 1) + 2 ** (bits // 2) + 15)


@pytest.mark.parametrize(("bits", "good"), [(2047, False), (2048, True), (8192, True), (8193, False)])
def test_the_sizes_of_rsa_keys_are_exact(bits: int, *, good: bool) -> None:
    keys = key_set([RS | {"n": modulus(bits)}])
    assert (len(keys.keys), dict(keys.dropped)) == ((1, {}) if good else (0, {"size": 1}))


@pytest.mark.parametrize("exponent", [3, 65537, 2**31 - 1])
def test_exponents_from_three_to_the_limit_are_taken(exponent: int) -> None:
    assert len(key_set([RS | {"e": number(exponent)}]).keys) == 1


def test_t27_one_kid_on_two_usable_keys_refuses_the_set() -> None:
    raw = json.dumps({"keys": [ES, RS | {"kid": ES["kid"]}]}).encode()
    refusal = parse_jwks(raw, issuer=ISS, algs=frozenset(ALGS))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.KEYS_UNAVAILABLE
    two = [without(ES, "kid"), without(RS, "kid")]
    assert len(key_set(two).keys) == 2  # no `kid` at all is no `kid` twice


def test_t28_a_key_is_held_only_under_its_own_thumbprint() -> None:
    keys = keys_of(signer())
    (key,) = keys.keys
    assert keys.holds(kid=key.kid, thumbprint=key.thumbprint)
    assert not keys.holds(kid=key.kid, thumbprint=RS["kid"])  # another key took its name
    assert not keys.holds(kid="gone", thumbprint=key.thumbprint)
    assert not key_set([]).holds(kid=key.kid, thumbprint=key.thumbprint)


SVID = without(ES, "alg") | {"use": "jwt-svid"}


def test_of_a_spiffe_bundle_only_the_keys_for_jwt_svids_count_each_with_a_kid() -> None:
    entries = [
        SVID,
        without(ES, "use"),
        without(SVID, "kid"),
        ES | {"use": "x509-svid", "kid": "x"},
        RS | {"use": "sig"},
    ]
    keys = key_set(entries, iss="spiffe://prod.example", spiffe=True)
    assert [key.kid for key in keys.keys] == [ES["kid"]]
    assert dict(keys.dropped) == {"use": 3, "kid": 1}
    assert dict(key_set([SVID]).dropped) == {"use": 1}  # and those are nobody else's


@pytest.mark.parametrize(
    ("hint", "told"), [(60, 60), (1, 1), (0, 0), (-5, 0), (True, 0), ("60", 0), (60.5, 0), (None, 0), (..., 0)]
)
@pytest.mark.parametrize("spiffe", [True, False])
def test_a_bundles_hint_is_a_positive_whole_number_of_seconds(hint: Any, told: int, *, spiffe: bool) -> None:
    document = {"keys": []} if hint is ... else {"keys": [], "spiffe_refresh_hint": hint}
    keys = parse_jwks(json.dumps(document).encode(), issuer=ISS, algs=frozenset(ALGS), spiffe=spiffe)
    assert isinstance(keys, KeySet)
    assert keys.refresh_hint_s == (told if spiffe else 0)


@settings(max_examples=120, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "n", "e", "alg", "use", "key_ops", "kid"]),
        st.one_of(
            st.none(),
            st.integers(-9, 9),
            st.text(),
            st.lists(st.text()),
            st.sampled_from(["EC", "RSA", "OKP", "P-256"]),
        ),
    )
)
def test_whatever_a_set_holds_parsing_answers(changes: dict[str, Any]) -> None:
    for jwk in (ES, RS):
        parsed = parse_jwks(json.dumps({"keys": [jwk | changes]}).encode(), issuer=ISS, algs=frozenset(ALGS))
        assert isinstance(parsed, KeySet)
        assert len(parsed.keys) + sum(parsed.dropped.values()) == 1
