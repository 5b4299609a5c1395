"""Binding: a token that names its holder's key is worth nothing without the proof of that key (PR-4, RFC 8705).

This version proves `x5t#S256` against the certificate that our own TLS layer saw, where the issuer's entry lists it.
Every other confirmation, and every DPoP presentation, is refused and never ignored.
"""

import base64
from dataclasses import dataclass

from pdp.errors import Reason
from pdp.identity.certificates import PeerCertificate
from pdp.identity.claims import Claims
from pdp.identity.gate import Scheme
from pdp.identity.issuers import X5T_S256, Issuer
from pdp.identity.types import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How a credential reached us: the scheme it was presented with, and the peer certificate of our TLS layer."""

    scheme: Scheme = Scheme.BEARER
    peer: PeerCertificate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """What the holder of a token has to prove; an empty member needs no proof."""

    x5t_s256: str = ""


def read_confirmation(claims: Claims, issuer: Issuer) -> Confirmation | Refusal:
    """Return what must be proved, or refuse what cannot be (T-48)."""
    if "cnf" not in claims:
        return _required("this issuer's tokens are bound") if issuer.cnf_required else Confirmation()
    members = claims["cnf"]
    if type(members) is not dict or not members or not set(issuer.cnf_kinds).issuperset(members):
        return _required("bound in a way that is not proved here")
    thumbprint = members.get(X5T_S256, "")
    if type(thumbprint) is not str or not thumbprint:
        return _required("not a certificate thumbprint")
    return Confirmation(x5t_s256=thumbprint)


def check_binding(confirmation: Confirmation, connection: Connection) -> Refusal | None:
    """Refuse a token whose holder this connection does not prove (T-49, T-50). Checked again on every use."""
    if connection.scheme is not Scheme.BEARER:
        return Refusal(reason=Reason.DPOP_PROOF_INVALID, detail="DPoP proofs are not verified here")
    if not confirmation.x5t_s256:
        return None
    if connection.peer is None or _thumbprint(connection.peer) != confirmation.x5t_s256:
        return Refusal(reason=Reason.BINDING_MISMATCH, detail="not the certificate that the token names")
    return None


def _thumbprint(peer: PeerCertificate) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(peer.fingerprint)).rstrip(b"=").decode()


def _required(detail: str) -> Refusal:
    return Refusal(reason=Reason.BINDING_REQUIRED, detail=detail)
