"""Key sets: what an issuer publishes, reduced to the keys that may verify its tokens. Pure.

One key has one algorithm, chosen by the key and the issuer's configuration, never by a token. A set that is ambiguous or
holds a secret is refused whole; a key that is unfit is dropped and counted; an empty set means that all is revoked.
Source: RFC 7517, RFC 8725, IDENTITY.md section 2.3.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

from pdp.errors import Reason
from pdp.identity.gate import decode_base64url, read_object
from pdp.identity.profiles import CURVE_ALGORITHMS, KID, RSA_ALGORITHMS
from pdp.identity.types import Refusal
from pdp.limits import MAX_JWKS_BYTES, MAX_JWKS_KEYS, MAX_RSA_EXPONENT, RSA_KEY_BITS
from pdp.model import canonical

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

ALGORITHMS: Final = RSA_ALGORITHMS | frozenset(CURVE_ALGORITHMS.values())
"""Every algorithm that an issuer's entry may list: asymmetric, byte-exact. No HS*, no `none` (IS-2)."""

_EC_CURVES: Final[Mapping[str, EllipticCurve]] = MappingProxyType(
    {"P-256": SECP256R1(), "P-384": SECP384R1(), "P-521": SECP521R1()}
)
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})
_THUMBPRINT_MEMBERS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}
)
_SMALLEST_EXPONENT: Final = 3
_ED25519_PRIME: Final = 2**255 - 19
_ED25519_Y_MASK: Final = 2**255 - 1
_EIGHTH: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER: Final = frozenset({0, 1, _ED25519_PRIME - 1, _EIGHTH, _ED25519_PRIME - _EIGHTH})
"""The points of Ed25519 of order 1, 2, 4 and 8, by their y: the library takes them, and forged signatures of them."""
# CVE-2017-15361: moduli of the broken generator are powers of 65537 modulo each of these primes.
_ROCA_PRIMES: Final = (
    *(3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109),
    *(113, 127, 131, 137, 139, 149, 151, 157, 163, 167),
)
_ROCA_RESIDUES: Final = tuple((p, frozenset(pow(65537, i, p) for i in range(p))) for p in _ROCA_PRIMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """One usable public key: its id (None if the set gives none), its one algorithm and its RFC 7638 thumbprint."""

    kid: str | None
    alg: str
    thumbprint: str
    public: PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """The usable keys of one issuer; `dropped` counts the others by what made them unfit. Issuers never share keys (JW-9).

    `refresh_hint_s` is how often a SPIFFE bundle says that it changes; 0 = it does not say.
    """

    issuer: str
    keys: tuple[VerificationKey, ...]
    dropped: Mapping[str, int]
    refresh_hint_s: int = 0

    def find(self, kid: str | None) -> VerificationKey | Refusal:
        """Return the key that a header names; without `kid`, the only key there is."""
        if not self.keys:
            return Refusal(reason=Reason.ISSUER_KEYS_EMPTY, detail="the issuer has withdrawn every key")  # T-28, JW-8
        if kid is None and len(self.keys) > 1:
            return Refusal(reason=Reason.KID_MISSING, detail="no `kid` to choose among several keys")  # T-19
        for key in self.keys:
            if kid is None or key.kid == kid:
                return key
        return Refusal(reason=Reason.KEY_UNKNOWN, detail="no usable key has this `kid`")  # T-20, T-26

    def holds(self, *, kid: str | None, thumbprint: str) -> bool:
        """Tell whether the key that once verified a token still would (TC-3)."""
        key = self.find(kid)
        return isinstance(key, VerificationKey) and key.thumbprint == thumbprint


class _DroppedError(ValueError):
    """A key that the set keeps but nobody may use; the message is what it is counted under."""


def parse_jwks(raw: bytes, *, issuer: str, algs: frozenset[str], spiffe: bool = False) -> KeySet | Refusal:
    """Return the usable keys of a JWK set, or refuse it whole (JW-3..5, JW-8).

    Args:
        raw: the document, at most 64 KiB.
        issuer: whose keys these are.
        algs: the algorithms that the issuer's entry allows.
        spiffe: it is a SPIFFE bundle, of which only the keys for JWT-SVIDs count, each with a `kid`.
    """
    document = _document(raw)
    if isinstance(document, Refusal):
        return document
    entries = document["keys"]
    keys: list[VerificationKey] = []
    dropped: Counter[str] = Counter()
    for entry in entries:
        try:
            if spiffe:
                _check_spiffe(entry)
            keys.append(_usable(entry, algs, use="jwt-svid" if spiffe else "sig"))
        except _DroppedError as why:
            dropped[str(why)] += 1
    kids = [key.kid for key in keys if key.kid is not None]
    if len(set(kids)) != len(kids):
        return _refused("one `kid` names two keys")  # T-27, JW-3
    hint_s = document.get("spiffe_refresh_hint") if spiffe else 0
    return KeySet(
        issuer=issuer,
        keys=tuple(keys),
        dropped=MappingProxyType(dict(dropped)),
        refresh_hint_s=hint_s if type(hint_s) is int and hint_s > 0 else 0,
    )


def _check_spiffe(entry: Mapping[str, Any]) -> None:
    """Drop what is no key for JWT-SVIDs: a bundle holds those for X.509, too (SPIFFE Bundle section 4.2.2)."""
    if "use" not in entry:
        raise _DroppedError("use")
    if "kid" not in entry:
        raise _DroppedError("kid")


def _refused(detail: str) -> Refusal:
    return Refusal(reason=Reason.KEYS_UNAVAILABLE, detail=f"key set refused: {detail}")


def parse_public_jwk(jwk: Any, *, alg: str) -> VerificationKey | Refusal:
    """Return the one public key of a DPoP proof's header, to be used with `alg` alone (PR-3)."""
    if type(jwk) is not dict or jwk.get("kty") == "oct" or not _PRIVATE_MEMBERS.isdisjoint(jwk):
        return Refusal(reason=Reason.DPOP_PROOF_INVALID, detail="`jwk` is no public key", dpop=True)
    try:
        return _usable({"alg": alg} | jwk, frozenset({alg}))
    except _DroppedError as why:
        return Refusal(reason=Reason.DPOP_PROOF_INVALID, detail=f"`jwk` is unfit: {why}", dpop=True)


def _document(raw: bytes) -> Mapping[str, Any] | Refusal:
    """Return a well-formed set without secrets (JW-1, JW-3)."""
    if len(raw) > MAX_JWKS_BYTES:
        return _refused(f"more than {MAX_JWKS_BYTES} bytes")
    document = read_object(raw, duplicate=Reason.TOKEN_MALFORMED)
    if isinstance(document, Refusal):
        return _refused("not a strict JSON object with a list of `keys`")
    entries = document.get("keys")
    if type(entries) is not list or any(type(entry) is not dict for entry in entries):
        return _refused("not a strict JSON object with a list of `keys`")
    if len(entries) > MAX_JWKS_KEYS:
        return _refused(f"more than {MAX_JWKS_KEYS} keys")
    if any(entry.get("kty") == "oct" or not _PRIVATE_MEMBERS.isdisjoint(entry) for entry in entries):
        return _refused("it holds a symmetric or private key")  # T-27, JW-3
    return document


def _usable(entry: Mapping[str, Any], algs: frozenset[str], *, use: str = "sig") -> VerificationKey:
    """Return the key of one entry.

    Raises:
        _DroppedError: the key is unfit (JW-4).
    """
    kid = entry.get("kid")
    if kid is not None and (type(kid) is not str or not KID.fullmatch(kid)):
        raise _DroppedError("kid")
    if entry.get("use", use) != use:
        raise _DroppedError("use")  # T-26
    operations = entry.get("key_ops", ["verify"])
    if type(operations) is not list or "verify" not in operations:
        raise _DroppedError("key_ops")  # T-26
    fitting, public = _public_key(entry)
    return VerificationKey(kid=kid, alg=_algorithm(entry, fitting, algs), thumbprint=_thumbprint(entry), public=public)


def _algorithm(entry: Mapping[str, Any], fitting: frozenset[str], algs: frozenset[str]) -> str:
    """Return the one algorithm of a key: its own, else its curve's, else the issuer's only fitting one (JW-5)."""
    if "alg" in entry:
        named = entry["alg"]
        if type(named) is not str or named not in fitting & algs:
            raise _DroppedError("alg")
        return named
    allowed = fitting & algs
    if len(allowed) != 1:
        raise _DroppedError("alg")
    return next(iter(allowed))


def _public_key(entry: Mapping[str, Any]) -> tuple[frozenset[str], PublicKey]:
    """Return the algorithms that fit a key, and the key."""
    kty, crv = entry.get("kty"), entry.get("crv")
    if kty == "RSA":
        return RSA_ALGORITHMS, _rsa_key(_member(entry, "n"), _member(entry, "e"))
    if kty == "EC" and type(crv) is str and crv in _EC_CURVES:
        return frozenset({CURVE_ALGORITHMS[crv]}), _ec_key(crv, _member(entry, "x"), _member(entry, "y"))
    if kty == "OKP" and crv == "Ed25519":
        return frozenset({CURVE_ALGORITHMS[crv]}), _ed25519_key(_member(entry, "x"))
    raise _DroppedError("kty")


def _member(entry: Mapping[str, Any], name: str) -> bytes:
    value = entry.get(name)
    raw = decode_base64url(value.encode()) if type(value) is str else None
    if not raw:
        raise _DroppedError("malformed")
    return raw


def _rsa_key(modulus: bytes, exponent: bytes) -> RSAPublicKey:
    n, e = int.from_bytes(modulus), int.from_bytes(exponent)
    smallest, largest = RSA_KEY_BITS
    if not smallest <= n.bit_length() <= largest or modulus[0] == 0 or exponent[0] == 0:
        raise _DroppedError("size")  # T-26; a leading zero is a second spelling
    if not _SMALLEST_EXPONENT <= e <= MAX_RSA_EXPONENT or e % 2 == 0:
        # T-26: with e = 1 anything is a signature; and with a huge one, whoever binds a token to such a key stops the process.
        raise _DroppedError("exponent")
    if all(n % prime in residues for prime, residues in _ROCA_RESIDUES):
        raise _DroppedError("roca")  # T-26, CVE-2017-15361
    try:
        return RSAPublicNumbers(e, n).public_key()
    except ValueError as error:
        raise _DroppedError("malformed") from error


def _ec_key(crv: str, x: bytes, y: bytes) -> EllipticCurvePublicKey:
    curve = _EC_CURVES[crv]
    if len(x) != len(y) or len(x) != (curve.key_size + 7) // 8:
        raise _DroppedError("size")
    try:
        # Checks that the point lies on the curve (CVE-2015-7940 and its kind).
        return EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve).public_key()
    except ValueError as error:
        raise _DroppedError("malformed") from error


def _ed25519_key(x: bytes) -> Ed25519PublicKey:
    try:
        key = Ed25519PublicKey.from_public_bytes(x)
    except ValueError as error:
        raise _DroppedError("malformed") from error
    y = int.from_bytes(x, "little") & _ED25519_Y_MASK
    if y >= _ED25519_PRIME:
        raise _DroppedError("malformed")  # a second spelling of a point
    if y in _SMALL_ORDER:
        raise _DroppedError("order")  # T-26: whoever chooses a signature of nothing but zeros has signed anything
    return key


def _thumbprint(entry: Mapping[str, Any]) -> str:
    """Return the RFC 7638 thumbprint of a key whose members have been checked."""
    members = {name: entry[name] for name in _THUMBPRINT_MEMBERS[entry["kty"]]}
    digest = hashlib.sha256(canonical.dumps(members)).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
