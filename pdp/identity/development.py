"""The development issuer: it signs access tokens for whoever asks, so it must never be trusted in production.

Pure: keys, time and ids come in. `pdp token`, the demonstration and the tests use it; `refuse_production` is what keeps
its tokens out of a production configuration.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.api_jws import PyJWS

from pdp.errors import ConfigError
from pdp.identity.issuers import IssuerTable
from pdp.limits import RSA_KEY_BITS
from pdp.model import canonical

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey

DEVELOPMENT_ISS: Final = "https://issuer.portcullis.invalid/development"
"""`.invalid` can never be somebody's domain (RFC 2606)."""
AUDIENCE: Final = "portcullis"
CLIENT_ID: Final = "pdp-token"
ALGORITHMS: Final = ("ES256", "RS256", "EdDSA")
MAX_LIFETIME_S: Final = 24 * 3600
"""The cap that the development issuer's own entry in `trust.yaml` sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevelopmentIssuer:
    """An issuer with its private key. The key id is the key's RFC 7638 thumbprint."""

    key: PrivateKey = field(repr=False)
    alg: str
    iss: str = DEVELOPMENT_ISS

    @classmethod
    def generate(cls, *, alg: str = "ES256", iss: str = DEVELOPMENT_ISS) -> Self:
        """Return an issuer with a new key for `alg`: ES256, RS256 or EdDSA."""
        return cls(key=_generate(alg), alg=alg, iss=iss)

    @classmethod
    def from_pem(cls, pem: bytes, *, iss: str = DEVELOPMENT_ISS) -> Self:
        """Return the issuer whose private key is in `pem`.

        Raises:
            ConfigError: not an unencrypted private key of a kind that we use.
        """
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError) as error:
            raise ConfigError(
                "the issuer's key file holds no unencrypted private key", advice="run `pdp token init`"
            ) from error
        if isinstance(key, RSAPrivateKey):
            return cls(key=key, alg="RS256", iss=iss)
        if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
            return cls(key=key, alg="ES256", iss=iss)
        if isinstance(key, Ed25519PrivateKey):
            return cls(key=key, alg="EdDSA", iss=iss)
        raise ConfigError("the issuer's key is neither RSA, P-256 nor Ed25519", advice="run `pdp token init`")

    def to_pem(self) -> bytes:
        """Return the private key, unencrypted: for a file that only its owner reads."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def public_jwk(self) -> dict[str, Any]:
        """The public key as the key set publishes it."""
        members = _public_members(self.key)
        digest = hashlib.sha256(canonical.dumps(members)).digest()
        kid = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        return members | {"kid": kid, "alg": self.alg, "use": "sig"}

    def jwks(self, older: Sequence[Mapping[str, Any]] = ()) -> bytes:
        """Return the issuer's key set; `older` are the public keys whose tokens still count."""
        return json.dumps({"keys": [self.public_jwk, *older]}, indent=2).encode() + b"\n"


def issue(
    issuer: DevelopmentIssuer,
    *,
    sub: str,
    jti: str,
    now_s: int,
    ttl_s: int = 300,
    groups: Sequence[str] = (),
    audience: str = AUDIENCE,
    client_id: str = CLIENT_ID,
    claims: Mapping[str, Any] | None = None,
) -> str:
    """Return a signed RFC 9068 access token.

    Args:
        issuer: who signs.
        sub: the subject, without a kind: `alice@example.com`.
        jti: a new id; the caller brings the randomness.
        now_s: the time of issue in seconds since the epoch.
        ttl_s: life in seconds.
        groups: values of the claim `groups`, without `group:`.
        audience: whom the token is for.
        client_id: the client it was issued to.
        claims: further claims; they replace the usual ones, as tests need.
    """
    body: dict[str, Any] = {
        "iss": issuer.iss,
        "aud": audience,
        "sub": sub,
        "client_id": client_id,
        "jti": jti,
        "iat": now_s,
        "exp": now_s + ttl_s,
    }
    if groups:
        body["groups"] = list(groups)
    return sign(issuer, header={}, claims=body | dict(claims or {}))


def sign(issuer: DevelopmentIssuer, *, header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    """Return `claims` signed under the issuer's usual header, overridden by `header`."""
    headers = {"typ": "at+jwt", "kid": issuer.public_jwk["kid"]} | dict(header)
    return PyJWS().encode(json.dumps(claims).encode(), issuer.key, algorithm=issuer.alg, headers=headers)


def trust_text(issuer: DevelopmentIssuer, *, jwks_file: str, audience: str = AUDIENCE) -> str:
    """Return a `trust.yaml` that trusts this issuer, and says that it is for development."""
    return f"""\
# Written by `pdp token init`. This issuer signs for whoever can read its key: never use it in production.
development: true
issuers:
  - iss: {issuer.iss}
    profile: at_jwt
    keys: {{file: {jwks_file}}}
    algs: [{issuer.alg}]
    audiences: [{audience}]
    max_lifetime_s: {MAX_LIFETIME_S}
    kind: user
    group_claims: [groups]
trust_domains: []
"""


def refuse_production(table: IssuerTable, *, production: bool) -> None:
    """Refuse to use a table that trusts a development issuer where it must not be.

    Raises:
        ConfigError: the mode is production and `trust.yaml` says `development: true`, or trusts the development issuer.
    """
    if production and (table.development or DEVELOPMENT_ISS in table.issuers):
        raise ConfigError(
            "`trust.yaml` trusts a development issuer, and the mode is production",
            advice="name your identity provider in `issuers` and remove `development: true`",
        )


def _generate(alg: str) -> PrivateKey:
    if alg == "ES256":
        return generate_private_key(SECP256R1())
    if alg == "RS256":
        return generate_rsa_key(public_exponent=65537, key_size=RSA_KEY_BITS[0])
    if alg == "EdDSA":
        return Ed25519PrivateKey.generate()
    raise ConfigError(f"the development issuer signs with {', '.join(ALGORITHMS)}")


def _public_members(key: PrivateKey) -> dict[str, Any]:
    """Return exactly the members over which RFC 7638 computes a thumbprint."""
    if isinstance(key, RSAPrivateKey):
        members = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    elif isinstance(key, EllipticCurvePrivateKey):
        members = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        members = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {name: members[name] for name in ("crv", "e", "kty", "n", "x", "y") if name in members}
