"""Profiles: one table row per kind of token, chosen by configuration and never by the token (PR-1, RFC 8725 section 3.12).

Access tokens (RFC 9068), projected service-account tokens of Kubernetes, JWT-SVIDs of SPIFFE. The rule sets are mutually
exclusive: no token satisfies two of them. A security event token satisfies none: its type and its `events` are refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from pdp.errors import Reason
from pdp.identity.types import Refusal
from pdp.limits import MAX_KID_BYTES

RSA_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
CURVE_ALGORITHMS: Final[Mapping[str, str]] = MappingProxyType(
    {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}
)

KID: Final = re.compile(rf"(?!/)(?!.*\.\.)(?!.*//)[A-Za-z0-9._~+/=-]{{1,{MAX_KID_BYTES}}}")
"""A key id that can be no path, query, pipe or URL (T-18)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The static rules of one kind of token.

    `typ` holds the accepted header types in lower case, the empty one for none at all. `required` claims are present and not
    null; `aud` and `iss` have rules of their own. `strings` and `string_lists` have that type
    wherever they stand; `forbidden` never stand.
    """

    name: str
    header_names: frozenset[str]
    typ: frozenset[str]
    kid_required: bool
    required: tuple[str, ...]
    times: tuple[str, ...]
    strings: tuple[str, ...]
    string_lists: tuple[str, ...]
    forbidden: frozenset[str]
    algs: frozenset[str]


AT_JWT: Final = Profile(
    name="at_jwt",
    header_names=frozenset({"alg", "kid", "typ"}),
    typ=frozenset({"at+jwt", "application/at+jwt"}),
    kid_required=False,
    required=("exp", "sub", "client_id", "iat"),
    times=("exp", "iat", "nbf"),
    strings=("sub", "client_id", "jti", "scope", "sid"),
    string_lists=("roles", "groups", "entitlements"),
    forbidden=frozenset({"nonce", "at_hash", "events"}),  # an ID token's, an ID token's, a security event's (T-46)
    algs=RSA_ALGORITHMS | frozenset(CURVE_ALGORITHMS.values()),
)

K8S_SA: Final = Profile(
    name="k8s_sa",
    header_names=frozenset({"alg", "kid", "typ"}),
    typ=frozenset({"", "jwt"}),
    kid_required=True,
    required=("exp", "sub", "iat", "nbf", "jti", "kubernetes.io"),
    times=("exp", "iat", "nbf"),
    strings=("sub", "jti"),
    string_lists=(),
    forbidden=frozenset({"nonce", "at_hash", "events", "act"}),
    algs=frozenset({"RS256", "ES256"}),
)

JWT_SVID: Final = Profile(
    name="jwt_svid",
    header_names=frozenset({"alg", "kid", "typ"}),
    typ=frozenset({"", "jwt", "jose"}),
    kid_required=True,
    required=("exp", "sub"),
    times=("exp", "iat", "nbf"),
    strings=("sub", "jti"),
    string_lists=(),
    forbidden=frozenset({"nonce", "at_hash", "events", "act", "kubernetes.io"}),
    algs=RSA_ALGORITHMS | frozenset({"ES256", "ES384", "ES512"}),  # JWT-SVID section 2.1
)

PROFILES: Final[Mapping[str, Profile]] = MappingProxyType({rules.name: rules for rules in (AT_JWT, K8S_SA, JWT_SVID)})


def check_header(
    header: Mapping[str, Any], profile: Profile, *, algs: frozenset[str], unread: frozenset[str] = frozenset()
) -> Refusal | None:
    """Refuse a header that asks for anything we do not do: what is not read is unsafe (GA-7, T-14..T-24).

    Args:
        header: the decoded header.
        profile: the issuer's profile.
        algs: the issuer's algorithms.
        unread: certificate thumbprint parameters that the issuer's entry tolerates; they are not looked at.
    """
    return (
        _check_names(header, profile.header_names | unread)
        or _check_algorithm(header.get("alg"), algs)
        or _check_typ(header, profile)
        or _check_kid(header, profile)
    )


def _check_names(header: Mapping[str, Any], allowed: frozenset[str]) -> Refusal | None:
    if header.get("b64", True) is not True:
        return Refusal(reason=Reason.HEADER_NOT_ALLOWED, detail="`b64` changes what is signed")  # T-22
    if "crit" in header:
        return Refusal(reason=Reason.CRIT_NOT_SUPPORTED, detail="no extension is known here")  # T-21
    if not allowed.issuperset(header):
        return Refusal(reason=Reason.HEADER_NOT_ALLOWED, detail="a parameter we do not read")  # T-17, T-22, T-24
    return None


def _check_algorithm(alg: Any, algs: frozenset[str]) -> Refusal | None:
    if type(alg) is not str or alg not in algs:
        return Refusal(reason=Reason.ALG_NOT_ALLOWED, detail="not an algorithm of this issuer")  # T-14..T-16
    return None


def _check_typ(header: Mapping[str, Any], profile: Profile) -> Refusal | None:
    typ = header.get("typ", "")
    if typ == "" and "typ" in header:
        typ = None  # absent is one thing, empty another
    # `isascii`: some letters beyond ASCII become ASCII in lower case.
    if type(typ) is not str or not typ.isascii() or typ.lower() not in profile.typ:
        return Refusal(reason=Reason.TYP_NOT_ALLOWED, detail=f"not the type of profile `{profile.name}`")  # T-23
    return None


def _check_kid(header: Mapping[str, Any], profile: Profile) -> Refusal | None:
    if "kid" not in header:
        if profile.kid_required:
            return Refusal(reason=Reason.KID_MISSING, detail=f"profile `{profile.name}` needs a `kid`")  # T-19
        return None
    kid = header["kid"]
    if type(kid) is not str or not KID.fullmatch(kid):
        return Refusal(reason=Reason.KID_INVALID, detail="not a plain key id")  # T-18
    return None
