"""Workload identity: whom a client certificate names, and whether its trust domain may name anybody here (SP-1..3).

The TLS layer has verified the chain against the CAs of `trust.yaml`. With several trust domains that is not enough, since
TLS accepts a leaf under *any* of them: then the leaf must be issued directly by a CA of the very domain it names.
"""

from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from pdp.errors import BadNameError, Reason
from pdp.identity.certificates import PeerCertificate
from pdp.identity.issuers import Issuer, IssuerTable
from pdp.identity.types import Refusal
from pdp.model.names import Kind, Principal, SpiffeId


def read_workload(peer: PeerCertificate, *, table: IssuerTable, now_ms: int) -> Principal | Refusal | None:
    """Return the workload that a certificate names; None if it names none."""
    # Again on every use: a connection can outlive the certificate that opened it.
    if not peer.not_before_s * 1000 <= now_ms < (peer.not_after_s + 1) * 1000:
        return Refusal(reason=Reason.CERTIFICATE_INVALID, detail="outside its validity")
    if peer.spiffe_id is None:
        return None
    domain = peer.spiffe_id.trust_domain
    if domain not in table.trust_domains:
        return Refusal(reason=Reason.TRUST_DOMAIN_UNKNOWN, detail="not a trust domain of ours")  # T-53, SP-3
    if len(table.trust_domains) > 1 and not _issued_by(peer.der, table.authorities.get(domain, ())):
        return Refusal(reason=Reason.CERTIFICATE_INVALID, detail="not issued by a CA of its trust domain")  # SP-3
    return Principal(kind=Kind.WORKLOAD, id=str(peer.spiffe_id))


def select_svid_issuer(sub: str, table: IssuerTable) -> Issuer | Refusal:
    """Return whose keys verify a token with this SPIFFE ID as its subject, whatever its `iss` says (PR-1, SP-3)."""
    try:
        domain = SpiffeId.parse(sub).trust_domain
    except BadNameError as error:
        return Refusal(reason=Reason.SPIFFE_ID_INVALID, detail=error.message)  # T-52
    known = "has no JWT bundle" if domain in table.trust_domains else "is not one of ours"
    return table.svids.get(domain) or Refusal(
        reason=Reason.TRUST_DOMAIN_UNKNOWN, detail=f"the trust domain {known}"
    )  # T-53


@lru_cache(maxsize=1024)
def _issued_by(der: bytes, authorities: tuple[bytes, ...]) -> bool:
    return any(_directly_issued(der, authority) for authority in authorities)


def _directly_issued(der: bytes, authority: bytes) -> bool:
    leaf, issuer = x509.load_der_x509_certificate(der), x509.load_der_x509_certificate(authority)
    try:
        leaf.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
