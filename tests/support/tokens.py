"""Tokens for tests: real keys made once, one good token, and the tools to spoil it."""

import base64
import hashlib
import hmac
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Final

from jwt.algorithms import get_default_algorithms

from pdp.errors import Reason
from pdp.identity.certificates import PeerCertificate
from pdp.identity.development import DevelopmentIssuer
from pdp.identity.issuers import IssuerTable, parse_trust
from pdp.identity.keyset import KeySet, parse_jwks
from pdp.identity.proof import BoundRequest
from pdp.identity.types import Refusal, VerifiedIdentity
from pdp.identity.verifier import verify

NOW_S: Final = 1_800_000_000
NOW_MS: Final = NOW_S * 1000
ISS: Final = "https://login.example"
ALGS: Final = ("ES256", "RS256", "EdDSA")

Claims = dict[str, Any]
Change = Callable[[Claims], Any]


def signer(alg: str = "ES256", name: str = "") -> DevelopmentIssuer:
    """An issuer with a key of its own for each name; made once."""
    return _made(alg, name)


@cache
def _made(alg: str, _name: str) -> DevelopmentIssuer:
    return DevelopmentIssuer.generate(alg=alg, iss=ISS)


def entry(**changes: Any) -> dict[str, Any]:
    base = {
        "iss": ISS,
        "profile": "at_jwt",
        "keys": {"file": "jwks.json"},
        "algs": list(ALGS),
        "audiences": ["portcullis"],
        "max_lifetime_s": 3600,
        "group_claims": ["groups"],
    }
    return {name: value for name, value in (base | changes).items() if value is not None}


def table(*entries: dict[str, Any], domains: tuple[str, ...] = ()) -> IssuerTable:
    """The table of these entries, and of trust domains whose CA is `certificates.authority()`."""
    trust = {
        "development": True,
        "issuers": list(entries) or [entry()],
        "trust_domains": [{"domain": name, "ca": f"{name}.pem"} for name in domains],
    }
    return parse_trust(json.dumps(trust)).with_authorities({name: (_authority(),) for name in domains})


def _authority() -> bytes:
    from tests.support.certificates import authority, authority_der  # noqa: PLC0415 - it imports this module

    return authority_der(authority())


def keys_of(*signers: DevelopmentIssuer, algs: tuple[str, ...] = ALGS, iss: str = ISS) -> KeySet:
    return key_set([item.public_jwk for item in signers], algs=algs, iss=iss)


def key_set(
    jwks: list[dict[str, Any]], *, algs: tuple[str, ...] = ALGS, iss: str = ISS, spiffe: bool = False
) -> KeySet:
    parsed = parse_jwks(json.dumps({"keys": jwks}).encode(), issuer=iss, algs=frozenset(algs), spiffe=spiffe)
    assert isinstance(parsed, KeySet), parsed
    return parsed


def good_claims(**changes: Any) -> Claims:
    """The claims of a good token; a change to `...` removes the claim."""
    base = {
        "iss": ISS,
        "aud": "portcullis",
        "sub": "alice@example.com",
        "client_id": "notebook",
        "jti": "0001",
        "iat": NOW_S - 10,
        "exp": NOW_S + 300,
        "groups": ["ml-engineers"],
    }
    return {name: value for name, value in (base | changes).items() if value is not ...}


def good_header(by: DevelopmentIssuer, **changes: Any) -> Claims:
    base = {"alg": by.alg, "typ": "at+jwt", "kid": by.public_jwk["kid"]}
    return {name: value for name, value in (base | changes).items() if value is not ...}


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def spell(part: Mapping[str, Any] | bytes | str) -> bytes:
    if isinstance(part, bytes):
        return part
    return part.encode() if isinstance(part, str) else json.dumps(part).encode()


def forge(
    header: Mapping[str, Any] | bytes | str, payload: Mapping[str, Any] | bytes | str, by: DevelopmentIssuer
) -> str:
    """A token with exactly these bytes, truly signed: what an issuer gone wrong could send."""
    head = f"{b64(spell(header))}.{b64(spell(payload))}"
    signature = get_default_algorithms()[by.alg].sign(head.encode(), by.key)
    return f"{head}.{b64(signature)}"


def mac(header: Mapping[str, Any], payload: Mapping[str, Any], secret: bytes) -> str:
    head = f"{b64(spell(header))}.{b64(spell(payload))}"
    return f"{head}.{b64(hmac.new(secret, head.encode(), hashlib.sha256).digest())}"


def good_token(alg: str = "ES256", **claims: Any) -> str:
    by = signer(alg)
    return forge(good_header(by), good_claims(**claims), by)


def judge(
    authorization: str | None,
    *,
    trust: IssuerTable | None = None,
    keys: KeySet | None = None,
    peer: PeerCertificate | None = None,
    request: BoundRequest | None = None,
    now_ms: int = NOW_MS,
) -> VerifiedIdentity | Refusal:
    keys = keys or keys_of(*(signer(alg) for alg in ALGS))
    return verify(
        authorization, table=trust or table(), keys={keys.issuer: keys}, peer=peer, request=request, now_ms=now_ms
    )


def reason_of(outcome: VerifiedIdentity | Refusal) -> Reason | None:
    return outcome.reason if isinstance(outcome, Refusal) else None


def renamed(by: DevelopmentIssuer, iss: str) -> DevelopmentIssuer:
    return replace(by, iss=iss)


HTU: Final = "https://models.example/v2/models/fraud/infer"


def holder(name: str = "holder", alg: str = "ES256") -> DevelopmentIssuer:
    """The key to which a test's tokens are bound."""
    return signer(alg, name)


def jkt_of(by: DevelopmentIssuer) -> str:
    thumbprint: str = by.public_jwk["kid"]
    return thumbprint


def bound_token(by: DevelopmentIssuer | None = None, **claims: Any) -> str:
    return good_token(cnf={"jkt": jkt_of(by or holder())}, **claims)


def proof(compact: str, *, by: DevelopmentIssuer | None = None, header: Claims | None = None, **claims: Any) -> str:
    """A good DPoP proof for `compact`; a change to `...` removes the claim or header."""
    by = by or holder()
    jwk = {name: by.public_jwk[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in by.public_jwk}
    head = {"typ": "dpop+jwt", "alg": by.alg, "jwk": jwk} | (header or {})
    base = {
        "jti": f"p{next(_PROOFS)}",
        "htm": "POST",
        "htu": HTU,
        "iat": NOW_S,
        "ath": b64(hashlib.sha256(compact.encode()).digest()),
    }
    body = {name: value for name, value in (base | claims).items() if value is not ...}
    return forge({name: value for name, value in head.items() if value is not ...}, body, by)


_PROOFS: Final = itertools.count()
