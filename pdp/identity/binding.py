"""Binding: a token that names its holder's key is worth nothing without the proof of that key (PR-4, RFC 8705, RFC 9449).

`x5t#S256` is proved by the certificate that our own TLS layer saw, `jkt` by a DPoP proof of the request. A confirmation
that the issuer's entry does not list is refused and never ignored.
"""

import base64
from dataclasses import dataclass, field

from pdp.errors import Reason
from pdp.identity.certificates import PeerCertificate
from pdp.identity.claims import Claims
from pdp.identity.gate import Scheme
from pdp.identity.issuers import JKT, X5T_S256, Issuer
from pdp.identity.proof import BoundRequest, Proof, check_proof, read_proof
from pdp.identity.types import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How a credential reached us: its scheme, the peer certificate of our TLS layer, and the request it came with.

    `token` is SHA-256 of the token, which a DPoP proof must name.
    """

    scheme: Scheme = Scheme.BEARER
    peer: PeerCertificate | None = None
    request: BoundRequest = field(default_factory=BoundRequest)
    token: bytes = b""

    def proof(self) -> Proof | Refusal:
        """Return the DPoP proof of this request, all but its time, nonce and key checked."""
        return read_proof(self.request, token=self.token)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """What the holder of a token has to prove; an empty member needs no proof."""

    x5t_s256: str = ""
    jkt: str = ""


def read_confirmation(claims: Claims, issuer: Issuer) -> Confirmation | Refusal:
    """Return what must be proved, or refuse what cannot be (T-48)."""
    if "cnf" not in claims:
        return _required("this issuer's tokens are bound", issuer) if issuer.cnf_required else Confirmation()
    members = claims["cnf"]
    if type(members) is not dict or not members or not set(issuer.cnf_kinds).issuperset(members):
        return _required("bound in a way that is not proved here", issuer)
    if any(type(value) is not str or not value for value in members.values()):
        return _required("not a thumbprint", issuer)
    if not set(issuer.cnf_required).issubset(members):
        return _required("not bound in each way that this issuer's tokens are", issuer)
    return Confirmation(x5t_s256=members.get(X5T_S256, ""), jkt=members.get(JKT, ""))


def check_binding(confirmation: Confirmation, connection: Connection, now_ms: int) -> Refusal | None:
    """Refuse a token whose holder this connection does not prove (T-48..T-50). Checked again on every use."""
    return _check_key(confirmation.jkt, connection, now_ms) or _check_certificate(confirmation.x5t_s256, connection)


def _check_key(jkt: str, connection: Connection, now_ms: int) -> Refusal | None:
    if connection.scheme is Scheme.BEARER:
        # RFC 9449 section 7.2: else whoever stole the token would leave the proof away.
        return (
            Refusal(reason=Reason.BINDING_REQUIRED, detail="bound to a key, sent as a bearer", dpop=True)
            if jkt
            else None
        )
    if not jkt:
        return Refusal(reason=Reason.DPOP_PROOF_INVALID, detail="the token is bound to no key", dpop=True)
    proof = connection.proof()
    if isinstance(proof, Refusal):
        return proof
    return check_proof(proof, jkt=jkt, nonces=connection.request.nonces, now_ms=now_ms)


def _check_certificate(x5t_s256: str, connection: Connection) -> Refusal | None:
    if x5t_s256 and (connection.peer is None or _thumbprint(connection.peer) != x5t_s256):
        return Refusal(reason=Reason.BINDING_MISMATCH, detail="not the certificate that the token names")
    return None


def _thumbprint(peer: PeerCertificate) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(peer.fingerprint)).rstrip(b"=").decode()


def _required(detail: str, issuer: Issuer) -> Refusal:
    return Refusal(reason=Reason.BINDING_REQUIRED, detail=detail, dpop=JKT in issuer.cnf_kinds)
