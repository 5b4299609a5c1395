"""Workload identity: whom a client certificate names, and whether its trust domain may name anybody here (SP-1..3).

The TLS layer has verified the chain against the CAs that it was given, and accepts a leaf under *any* of them. That is not
enough: a path, through intermediates that came with the leaf, must lead to a CA of the very domain which the leaf names.
"""

from collections.abc import Iterator
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from pdp.errors import BadNameError, Reason
from pdp.identity.certificates import PeerCertificate
from pdp.identity.issuers import Issuer, IssuerTable
from pdp.identity.types import Refusal
from pdp.model.names import Kind, Principal, SpiffeId

Span = tuple[int, int]
"""The first and the last second in which something is valid."""


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
    # Also with one domain alone, and above all with none of its CAs: our TLS layer accepts leaves of every CA it was given,
    # and a domain whose entry has only `jwt` lets nobody in by certificate.
    if not _anchored(domain, peer, table.authorities.get(domain, ()), now_ms):
        return Refusal(reason=Reason.CERTIFICATE_INVALID, detail="no path to a CA of its trust domain")  # SP-3
    return Principal(kind=Kind.WORKLOAD, id=str(peer.spiffe_id))


def _anchored(domain: str, peer: PeerCertificate, authorities: tuple[bytes, ...], now_ms: int) -> bool:
    spans = _path_ends(domain, peer.der, peer.chain, authorities)
    return any(start_s * 1000 <= now_ms < (end_s + 1) * 1000 for start_s, end_s in spans)


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


# Key: every byte that the answer depends on; time is compared with what is remembered.
@lru_cache(maxsize=1024)
def _path_ends(domain: str, der: bytes, chain: tuple[bytes, ...], authorities: tuple[bytes, ...]) -> tuple[Span, ...]:
    """Return from when until when each path leads from a leaf to an authority of its trust domain; none = no path does."""
    anchors = [x509.load_der_x509_certificate(anchor) for anchor in authorities]
    try:
        pool = [x509.load_der_x509_certificate(link) for link in chain]
        return tuple(_spans(domain, x509.load_der_x509_certificate(der), pool, anchors, below=0))
    except (ValueError, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType):
        return ()


def _spans(
    domain: str, leaf: x509.Certificate, pool: list[x509.Certificate], anchors: list[x509.Certificate], *, below: int
) -> Iterator[Span]:
    """Yield the common validity of the authorities on each path; `below` counts the intermediates under this one."""
    for anchor in anchors:
        if _issued(leaf, anchor):
            yield _span(anchor)
    for link in pool:
        if link not in anchors and _may_sign(link, domain, below) and _issued(leaf, link):
            rest = [other for other in pool if other is not link]
            start_s, end_s = _span(link)
            for first_s, last_s in _spans(domain, link, rest, anchors, below=below + 1):
                yield max(start_s, first_s), min(end_s, last_s)


def _span(certificate: x509.Certificate) -> Span:
    return int(certificate.not_valid_before_utc.timestamp()), int(certificate.not_valid_after_utc.timestamp())


def _may_sign(link: x509.Certificate, domain: str, below: int) -> bool:
    """Tell whether an intermediate is a CA for so long a path and, if it has a SPIFFE ID, of this trust domain."""
    extensions = {item.oid: item.value for item in link.extensions}
    constraints = extensions.get(x509.BasicConstraints.oid)
    usage = extensions.get(x509.KeyUsage.oid)
    names = extensions.get(x509.SubjectAlternativeName.oid)
    if not isinstance(constraints, x509.BasicConstraints) or not constraints.ca:
        return False
    if constraints.path_length is not None and constraints.path_length < below:
        return False
    if not isinstance(usage, x509.KeyUsage) or not usage.key_cert_sign:
        return False
    own = f"spiffe://{domain}"
    uris = (
        names.get_values_for_type(x509.UniformResourceIdentifier)
        if isinstance(names, x509.SubjectAlternativeName)
        else []
    )
    return all(uri == own or uri.startswith(own + "/") for uri in uris)


def _issued(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
