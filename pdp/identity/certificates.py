"""Client certificates: which workload one names, or why it names nobody (IDENTITY.md XC-1).

The TLS layer that received the certificate has proved possession of its key and verified its chain. What a certificate
authority should never have signed as a leaf is refused here nevertheless.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from pdp.errors import BadNameError, Reason
from pdp.identity.types import Refusal
from pdp.limits import MAX_ATTRIBUTE_BYTES, MAX_CHAIN_CERTIFICATES
from pdp.model.names import SpiffeId

_T = TypeVar("_T", bound=x509.ExtensionType)
_BOTH_USAGES: Final = frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH})
_UNREADABLE: Final = (ValueError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCertificate:
    """The leaf that *our* TLS layer saw. `fingerprint` is SHA-256 of the DER in hex; times in seconds since the epoch.

    `spiffe_id` is None for a certificate without any URI name: it can confirm a bound token, but names no workload.
    `issuer` is the distinguished name of who signed it, as RFC 4514 writes it. `chain` holds the intermediate CAs that came
    with it (DER), unverified.
    """

    spiffe_id: SpiffeId | None
    fingerprint: str
    issuer: str
    serial: int
    not_before_s: int
    not_after_s: int
    der: bytes = field(repr=False)
    chain: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def from_pem(cls, pem: bytes) -> "PeerCertificate | Refusal":
        """Return what the first certificate in `pem` says; the others are what its holder sent to lead to an authority."""
        try:
            ders = [certificate.public_bytes(Encoding.DER) for certificate in x509.load_pem_x509_certificates(pem)]
        except _UNREADABLE:
            return Refusal(reason=Reason.CERTIFICATE_INVALID, detail="not readable X.509 certificates")
        except Exception as error:  # noqa: BLE001 - the backend boundary, as below (ER-2)
            return Refusal(reason=Reason.VERIFIER_ERROR, detail=type(error).__name__)
        chain = tuple(dict.fromkeys(der for der in ders[1:] if der != ders[0]))
        if len(chain) > MAX_CHAIN_CERTIFICATES:
            return Refusal(reason=Reason.CERTIFICATE_INVALID, detail="too long a chain")
        return cls.from_der(ders[0], chain=chain)

    @classmethod
    def from_der(cls, der: bytes, *, chain: tuple[bytes, ...] = ()) -> "PeerCertificate | Refusal":
        """Return what the certificate says, or a refusal if it breaks XC-1 (T-54)."""
        try:
            return _read(der, chain)
        except _BadLeafError as error:
            return Refusal(reason=Reason.CERTIFICATE_INVALID, detail=str(error))
        except _UNREADABLE:
            return Refusal(reason=Reason.CERTIFICATE_INVALID, detail="not a readable X.509 certificate")
        except Exception as error:  # noqa: BLE001 - the backend boundary: what it did not foresee proves nothing (ER-2)
            return Refusal(reason=Reason.VERIFIER_ERROR, detail=type(error).__name__)


class _BadLeafError(ValueError):
    """A certificate that XC-1 refuses; the message says which rule."""


def _read(der: bytes, chain: tuple[bytes, ...]) -> PeerCertificate:
    certificate = x509.load_der_x509_certificate(der)
    spiffe_id = _spiffe_id(certificate.extensions)
    _check_leaf(certificate.extensions, workload=spiffe_id is not None)
    issuer = certificate.issuer.rfc4514_string()
    if len(issuer.encode()) > MAX_ATTRIBUTE_BYTES or not issuer.isprintable():
        raise _BadLeafError("its issuer's name is too long, or could be read in two ways")
    return PeerCertificate(
        spiffe_id=spiffe_id,
        fingerprint=hashlib.sha256(der).hexdigest(),
        issuer=issuer,
        serial=certificate.serial_number,
        not_before_s=int(certificate.not_valid_before_utc.timestamp()),
        not_after_s=int(certificate.not_valid_after_utc.timestamp()),
        der=der,
        chain=chain,
    )


def _spiffe_id(extensions: x509.Extensions) -> SpiffeId | None:
    """Return the one URI name; two would leave the choice to the reader."""
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if not uris:
        return None
    if len(uris) > 1:
        raise _BadLeafError("more than one URI name")
    try:
        return SpiffeId.parse(uris[0])
    except BadNameError as error:
        raise _BadLeafError("its URI name is not a SPIFFE ID with a path") from error


def _check_leaf(extensions: x509.Extensions, *, workload: bool) -> None:
    constraints = _extension(extensions, x509.BasicConstraints)
    if constraints is not None and constraints.value.ca:
        raise _BadLeafError("a CA certificate never authenticates")  # CVE-2024-2048
    usage = _extension(extensions, x509.KeyUsage)
    if usage is None:
        if workload:
            raise _BadLeafError("no key usage")
    elif not usage.critical and workload:
        raise _BadLeafError("its key usage is not critical")
    elif not usage.value.digital_signature or usage.value.key_cert_sign or usage.value.crl_sign:
        raise _BadLeafError("its key usage is not that of a leaf")
    extended = _extension(extensions, x509.ExtendedKeyUsage)
    wanted = _BOTH_USAGES if workload else {ExtendedKeyUsageOID.CLIENT_AUTH}
    if extended is not None and not wanted <= set(extended.value):
        raise _BadLeafError("its extended key usage does not admit a client")


def _extension(extensions: x509.Extensions, kind: type[_T]) -> x509.Extension[_T] | None:
    try:
        return extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None
