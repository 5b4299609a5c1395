"""`trust.yaml` and the files that it names, read from disk and checked before anything listens."""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pdp.errors import ConfigError
from pdp.identity.issuers import Issuer, IssuerTable, TrustDomain, parse_trust
from pdp.identity.keyset import parse_jwks
from pdp.identity.types import Refusal
from pdp.limits import MAX_JWKS_BYTES, MAX_TRUST_FILE_BYTES


def load_trust(path: Path) -> IssuerTable:
    """Return the issuer table of a `trust.yaml`; the files it names are relative to it.

    Raises:
        ConfigError: the file or one that it names is missing, unreadable or refused; the message says what to do.
    """
    raw = _read(path, MAX_TRUST_FILE_BYTES, advice="name the issuer table with `--trust`, or run `pdp token init`")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8") from error
    table = parse_trust(text, file=str(path))
    for issuer in table.key_holders:
        _check_key_file(issuer, path.parent)
    authorities = {
        name: _read_authorities(domain, path.parent / domain.ca) if domain.ca is not None else ()
        for name, domain in sorted(table.trust_domains.items())
    }
    return table.with_authorities(authorities)


def _check_key_file(issuer: Issuer, directory: Path) -> None:
    """Refuse a key file that could verify nothing, now rather than at the first token."""
    if issuer.keys.file is None:
        return
    path = directory / issuer.keys.file
    raw = _read(path, MAX_JWKS_BYTES, advice=f"it holds the key set of issuer `{issuer.iss}`")
    keys = parse_jwks(raw, issuer=issuer.iss, algs=frozenset(issuer.algs), spiffe=issuer.profile == "jwt_svid")
    if isinstance(keys, Refusal):
        raise ConfigError(f"{path}: {keys.detail}", advice=f"write the public keys of issuer `{issuer.iss}`")


def _read_authorities(domain: TrustDomain, path: Path) -> tuple[bytes, ...]:
    raw = _read(path, MAX_TRUST_FILE_BYTES, advice=f"it holds the CA certificates of trust domain `{domain.domain}`")
    try:
        certificates = x509.load_pem_x509_certificates(raw)
    except ValueError as error:
        raise ConfigError(f"{path}: no PEM certificates") from error
    if not all(_is_ca(certificate) for certificate in certificates):
        raise ConfigError(f"{path}: a certificate that is no CA", advice="list only the CAs of the trust domain")
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates)


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _read(path: Path, limit: int, *, advice: str) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", advice=advice) from error
    if len(raw) > limit:
        raise ConfigError(f"{path}: more than {limit} bytes", advice=advice)
    return raw
