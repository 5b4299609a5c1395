"""A throw-away certificate authority for the trust domain of the demonstration.

It signs server certificates for the loopback and X.509-SVIDs for workloads. Its own certificate is constrained to the
name `localhost` and the one trust domain, so that it can name no other host and no other workload. Everything is written 0600
into a directory that the stage removes afterwards, and expires in two days in case it does not.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pdp.demo.limits import LIMITS

TRUST_DOMAIN: Final = "demo.portcullis"
LOOPBACK_NAME: Final = "localhost"
LOOPBACK_ADDRESS: Final = ipaddress.ip_address("127.0.0.1")
CLOCK_SLACK: Final = dt.timedelta(minutes=5)
"""Certificates begin a little before now, for clocks that are a little behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A certificate and its private key, as files that only their owner reads."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """The authority: where it writes, its certificate, and the key that never leaves this process."""

    directory: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    now: dt.datetime

    @property
    def bundle(self) -> Path:
        """The file with the authority's certificate: what everybody trusts."""
        return self.directory / "ca.pem"

    def issue_server(self, name: str) -> Credential:
        """Sign a certificate for a server on the loopback."""
        names = x509.SubjectAlternativeName([x509.DNSName(LOOPBACK_NAME), x509.IPAddress(LOOPBACK_ADDRESS)])
        return self._issue(name, names, [ExtendedKeyUsageOID.SERVER_AUTH])

    def issue_workload(self, name: str, path: str) -> Credential:
        """Sign an X.509-SVID for `spiffe://demo.portcullis` + `path`; exactly one URI names it (IDENTITY.md XC-1)."""
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id(path))])
        return self._issue(name, names, [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])

    def _issue(self, name: str, names: x509.SubjectAlternativeName, usages: list[x509.ObjectIdentifier]) -> Credential:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(name, self.certificate.subject, key.public_key(), self.now)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(sign=True, certify=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(names, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return _write_credential(self.directory, name, certificate, key)


def create_authority(directory: Path, now: dt.datetime) -> Authority:
    """Make a new authority whose files stand in `directory` (made 0700 if missing)."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name("Portcullis demonstration authority (throw-away)")
    certificate = (
        _builder("Portcullis demonstration authority (throw-away)", subject, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(sign=False, certify=True), critical=True)
        .add_extension(_constraints(), critical=True)
        .sign(key, hashes.SHA256())
    )
    authority = Authority(directory=directory, certificate=certificate, key=key, now=now)
    write_private(authority.bundle, certificate.public_bytes(serialization.Encoding.PEM))
    return authority


def spiffe_id(path: str) -> str:
    """Return the SPIFFE ID of a workload of the demonstration's trust domain; `path` begins with a slash."""
    return f"spiffe://{TRUST_DOMAIN}{path}"


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that nobody else can read, not even for the moment between making and restricting it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)


def _builder(
    name: str, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, now: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + dt.timedelta(days=LIMITS.certificate_days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _constraints() -> x509.NameConstraints:
    # No address among them: the TLS library inside gRPC and Envoy refuses a chain with a constraint of that type.
    permitted: Sequence[x509.GeneralName] = (
        x509.DNSName(LOOPBACK_NAME),
        x509.UniformResourceIdentifier(TRUST_DOMAIN),
    )
    return x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None)


def _key_usage(*, sign: bool, certify: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        key_cert_sign=certify,
        crl_sign=certify,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _write_credential(
    directory: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> Credential:
    credential = Credential(certificate=directory / f"{name}.pem", key=directory / f"{name}.key")
    write_private(credential.certificate, certificate.public_bytes(serialization.Encoding.PEM))
    # PKCS#8 unencrypted: Envoy and gRPC read it without a prompt; the file mode and its short life protect it.
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_private(credential.key, pem)
    return credential
