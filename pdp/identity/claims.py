"""Claims: types, times, audience, subject and what the profile says besides; each rule refuses with its own reason.

Nothing here trusts a claim to have a type. `type(x) is int` is meant: `True` is an `int`, too (GA-8).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pdp.errors import BadNameError, PortcullisError, Reason
from pdp.identity.issuers import ANY, Issuer, IssuerTable, compile_pattern
from pdp.identity.types import Refusal
from pdp.limits import MAX_GROUPS, MAX_KID_BYTES, MAX_TIME_S
from pdp.model.attributes import AttributeType, Value, check_value
from pdp.model.names import GROUPING_PREFIXES, Kind, Principal, SpiffeId, check_grouping_name, check_identifier

Claims = Mapping[str, Any]

ABSENT: Final = object()
"""No such claim; null is a claim."""
_RESERVED: Final = (*GROUPING_PREFIXES, *(f"{kind.value}:" for kind in Kind))
_EXACT_TYPES: Final = {
    bool: AttributeType.BOOL,
    int: AttributeType.INT,
    float: AttributeType.DOUBLE,
    str: AttributeType.STRING,
    tuple: AttributeType.LIST,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """From when until when a token is good, as it says itself, in seconds since the epoch; 0 = it does not say."""

    issued_at_s: int
    not_before_s: int
    expires_at_s: int


def check_types(claims: Claims, issuer: Issuer) -> Refusal | None:
    """Refuse a token whose claims are missing or are not exactly of their type."""
    return (
        _check_present(claims, issuer)
        or _check_times_are_times(claims, issuer)
        or _check_strings(claims, issuer)
        or _check_lists(claims, issuer)
        or _check_identifiers(claims)
    )


def _check_present(claims: Claims, issuer: Issuer) -> Refusal | None:
    for name in issuer.rules.required:
        if claims.get(name) is None:
            return _missing(name)  # T-33, T-39
    if issuer.require_jti and claims.get("jti") in (None, ""):
        return _missing("jti")  # T-45: it could not be revoked
    return None


def _check_times_are_times(claims: Claims, issuer: Issuer) -> Refusal | None:
    for name in issuer.rules.times:
        if name in claims and not (type(claims[name]) is int and 1 <= claims[name] <= MAX_TIME_S):
            return _mistyped(name)  # T-33, T-35, T-38, GA-8
    return None


def _check_strings(claims: Claims, issuer: Issuer) -> Refusal | None:
    for name in issuer.rules.strings:
        if name in claims and type(claims[name]) is not str:
            return _mistyped(name)  # T-39, T-45, T-47
    return None


def _check_lists(claims: Claims, issuer: Issuer) -> Refusal | None:
    for name in (*issuer.rules.string_lists, *issuer.group_claims):
        value = claim_at(claims, name)
        if value is ABSENT:
            continue
        if type(value) is not list or len(value) > MAX_GROUPS or any(type(item) is not str for item in value):
            return _mistyped(name)  # T-47: in a string, a role would match as a substring
    return None


def claim_at(claims: Claims, name: str) -> Any:
    """Return the claim that an entry of the issuer table names, or `ABSENT`.

    `realm_access.roles` is `roles` within `realm_access`; a name with a `/`, such as an address, is one claim's whole name.
    Where something else stands than an object, the claim is null, to be refused for its type.
    """
    value: Any = claims
    for step in (name,) if "/" in name else name.split("."):
        if type(value) is not dict and value is not claims:
            return None
        if step not in value:
            return ABSENT
        value = value[step]
    return value


def _check_identifiers(claims: Claims) -> Refusal | None:
    """Refuse ids that could be read in two ways, and scopes that are too many or too long (NA-4, NA-5)."""
    for name in ("jti", "sid"):
        if name not in claims:
            continue
        try:
            check_identifier(claims[name], max_bytes=MAX_KID_BYTES)
        except BadNameError:
            return _mistyped(name)
    if "scope" not in claims:
        return None
    scopes = claims["scope"].split(" ")
    if len(scopes) > MAX_GROUPS or any(len(scope.encode()) > MAX_KID_BYTES for scope in scopes):
        return _mistyped("scope")
    return None


def read_times(claims: Claims) -> Times:
    """Return the times of a token whose types have been checked."""
    return Times(issued_at_s=claims.get("iat", 0), not_before_s=claims.get("nbf", 0), expires_at_s=claims["exp"])


def check_times(times: Times, issuer: Issuer, now_ms: int) -> Refusal | None:
    """Refuse a token that is over, not yet true, or lives too long (IS-4). Checked again whenever it is used."""
    leeway_ms = issuer.leeway_s * 1000
    if now_ms >= times.expires_at_s * 1000 + leeway_ms:
        return Refusal(reason=Reason.TOKEN_EXPIRED)  # T-34
    if times.not_before_s * 1000 > now_ms + leeway_ms:
        return Refusal(reason=Reason.TOKEN_NOT_YET_VALID)  # T-37
    if times.issued_at_s * 1000 > now_ms + leeway_ms:
        return Refusal(reason=Reason.TOKEN_ISSUED_IN_FUTURE)  # T-37
    # A JWT-SVID need not say when it was issued: then the cap counts from now.
    begins_ms = now_ms if issuer.profile == "jwt_svid" else times.issued_at_s * 1000
    if times.expires_at_s * 1000 - begins_ms > issuer.max_lifetime_s * 1000:
        return Refusal(reason=Reason.TOKEN_LIFETIME_EXCEEDED, detail=f"over {issuer.max_lifetime_s} s")  # T-36, T-38
    return None


def check_audience(claims: Claims, issuer: Issuer) -> Refusal | None:
    """Refuse a token that is not for us, or not for us alone (T-31, T-32)."""
    aud = claims.get("aud")
    names = [aud] if type(aud) is str else aud
    if type(names) is not list or any(type(name) is not str for name in names):
        return Refusal(reason=Reason.AUDIENCE_MISMATCH, detail="`aud` is neither a string nor a list of strings")
    if set(issuer.audiences).isdisjoint(names):
        return Refusal(reason=Reason.AUDIENCE_MISMATCH, detail="`aud` does not name us")
    if len(names) > 1 and issuer.aud_mode == "exact_single":
        # T-32: the other audience could present the token here.
        return Refusal(reason=Reason.AUDIENCE_NOT_EXCLUSIVE, detail="`aud` names others, too")
    return None


def read_principal(text: str, *, kind: Kind, issuer: Issuer, table: IssuerTable) -> Principal | Refusal:
    """Return the principal that a subject or actor names, within what its issuer may speak for (NA-1..5, IS-3)."""
    if issuer.profile == "jwt_svid":
        return _read_svid_subject(text, issuer)
    if text.lower().startswith(_RESERVED):
        return Refusal(reason=Reason.SUBJECT_RESERVED, detail="it begins like a role, group or principal")  # T-43, NA-3
    prefix = f"{issuer.namespace}/" if issuer.namespace else ""
    try:
        check_identifier(text)
        principal = Principal(kind=kind, id=prefix + text)
    except BadNameError as error:
        return Refusal(reason=Reason.SUBJECT_INVALID, detail=error.message)  # T-40..T-42
    # Every identifier matches the pattern that asks for nothing.
    if issuer.sub_pattern != ANY and compile_pattern(issuer.sub_pattern).fullmatch(text) is None:
        return Refusal(reason=Reason.SUBJECT_NOT_ALLOWED, detail="outside the issuer's `sub_pattern`")  # T-44
    if not prefix and text.partition("/")[0] in table.namespaces and "/" in text:
        # Otherwise `corp/alice` of this issuer would be `alice` of the issuer with namespace `corp`.
        return Refusal(reason=Reason.SUBJECT_NOT_ALLOWED, detail="it begins with another issuer's namespace")  # T-44
    return principal


def _read_svid_subject(text: str, issuer: Issuer) -> Principal | Refusal:
    """Return the workload of a JWT-SVID: of the very trust domain whose key verified it (SP-3)."""
    try:
        domain = SpiffeId.parse(text).trust_domain
    except BadNameError as error:
        return Refusal(reason=Reason.SPIFFE_ID_INVALID, detail=error.message)  # T-52
    if issuer.iss != f"spiffe://{domain}":
        return Refusal(reason=Reason.TRUST_DOMAIN_UNKNOWN, detail="not of the trust domain that signed")  # T-53
    return Principal(kind=Kind.WORKLOAD, id=text)


def check_forbidden(claims: Claims, issuer: Issuer) -> Refusal | None:
    """Refuse what makes the token one of another kind (T-46)."""
    if not issuer.rules.forbidden.isdisjoint(claims):
        return Refusal(reason=Reason.CLAIM_FORBIDDEN, detail=f"a claim that profile `{issuer.profile}` never has")
    return None


def read_groups(claims: Claims, issuer: Issuer) -> frozenset[str] | Refusal:
    """Return the groups from the claims which the issuer's entry names, and from no other; never a role (NA-2, NA-3)."""
    groups = frozenset(f"group:{item}" for name in issuer.group_claims for item in _items(claim_at(claims, name)))
    if len(groups) > MAX_GROUPS:
        return _mistyped("groups")
    for group in groups:
        try:
            check_grouping_name(group)
        except BadNameError:
            # Refused, not skipped: a rule that denies could stand on just this group.
            return Refusal(reason=Reason.CLAIM_TYPE_INVALID, detail="a group that the grammar of names refuses")
    return groups


def _items(value: Any) -> list[str]:
    """Return the list of a claim whose type has been checked."""
    return value if type(value) is list else []


def read_attributes(claims: Claims, issuer: Issuer) -> dict[str, Value] | Refusal:
    """Return the `subject.*` attributes from the claims which the issuer's entry names."""
    found: dict[str, Value] = {}
    for claim, name in issuer.attribute_claims.items():
        value = claim_at(claims, claim)
        if value is ABSENT:
            continue
        value = tuple(value) if type(value) is list else value
        kind = _EXACT_TYPES.get(type(value))
        if kind is None:
            return _mistyped(claim)
        try:
            check_value(name, value, kind)
        except PortcullisError:
            return _mistyped(claim)
        found[name] = value
    return found


def _missing(name: str) -> Refusal:
    return Refusal(reason=Reason.CLAIM_MISSING, detail=f"`{name}` is absent or null")


def _mistyped(name: str) -> Refusal:
    return Refusal(reason=Reason.CLAIM_TYPE_INVALID, detail=f"`{name}` is not of its type, or too long")
