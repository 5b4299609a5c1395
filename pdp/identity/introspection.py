"""Token introspection (RFC 7662): what an issuer says of a token now, held against what the token says of itself (IS-5).

The answer comes in as a value, and nothing in it is believed to be of its type. It can only end a token: whoever the token
does not name, and whatever it does not hold, no answer adds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pdp.errors import Reason
from pdp.identity.binding import Confirmation
from pdp.identity.issuers import JKT, X5T_S256, Issuer
from pdp.identity.types import Refusal, VerifiedIdentity

_ABSENT: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Introspection:
    """What an introspection endpoint answered, as it came."""

    members: Mapping[str, Any]

    @property
    def active(self) -> bool:
        """Whether the issuer says that the token counts; a text or a number says nothing (IS-5)."""
        return self.members.get("active") is True


def check_introspection(
    answer: Introspection, *, identity: VerifiedIdentity, confirmation: Confirmation, issuer: Issuer, now_ms: int
) -> Refusal | None:
    """Refuse a token that its issuer does not confirm: for us, for this subject, bound as it is, and still (T-56)."""
    if not answer.active:
        return _inactive("the issuer says that it does not count")  # IS-5: nothing more is read
    if not _same_token(answer.members, identity, confirmation, issuer):
        return _inactive("the issuer describes another token")
    expires_s = answer.members.get("exp", _ABSENT)
    if expires_s is not _ABSENT and (type(expires_s) is not int or now_ms >= (expires_s + issuer.leeway_s) * 1000):
        return _inactive("the issuer says that it is over")
    return None


def _same_token(
    members: Mapping[str, Any], identity: VerifiedIdentity, confirmation: Confirmation, issuer: Issuer
) -> bool:
    """Tell whether each optional member (RFC 7662 section 2.2) is absent or what the token itself says."""
    facts = identity.facts
    said = {"iss": facts.issuer, "sub": identity.party.principal.id, "jti": facts.jti}
    if any(value and members.get(name, value) != value for name, value in said.items()):
        return False
    return _names_us(members.get("aud", _ABSENT), issuer) and _binds_alike(members.get("cnf", _ABSENT), confirmation)


def _names_us(audiences: Any, issuer: Issuer) -> bool:
    if audiences is _ABSENT:
        return True
    named = [audiences] if type(audiences) is str else audiences
    return type(named) is list and any(type(name) is str and name in issuer.audiences for name in named)


def _binds_alike(members: Any, confirmation: Confirmation) -> bool:
    """Tell whether the issuer knows of no other binding: an answer for another holder's token is none for this one."""
    bound = {JKT: confirmation.jkt, X5T_S256: confirmation.x5t_s256}
    return members is _ABSENT or members == {name: value for name, value in bound.items() if value}


def _inactive(detail: str) -> Refusal:
    return Refusal(reason=Reason.TOKEN_INACTIVE, detail=detail)
