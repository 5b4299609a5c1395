"""Client certificates for tests: good SPIFFE leaves, and every way to spoil one."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support.tokens import NOW_S

SPIFFE = "spiffe://prod.example/ns/ml/sa/scorer"
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    key: ec.EllipticCurvePrivateKey
    name: x509.Name

    def certificate(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.issuer_name(self.name).sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)


@cache
def authority(name: str = "ca") -> Authority:
    return Authority(
        key=ec.generate_private_key(ec.SECP256R1()), name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    )


def authority_der(by: Authority) -> bytes:
    return by.certificate(
        _builder(by.name, by.key).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )


def intermediate(name: str, by: Authority, *, until_s: int = NOW_S + 3600, **changes: object) -> bytes:
    """A CA under another, for `authority(name)`; `ca`, `constrained`, `path_length`, `sign`, `with_usage` and `uri` spoil it."""
    own = authority(name)
    builder = _builder(own.name, own.key, until_s)
    if changes.get("constrained", True):
        length = changes.get("path_length")
        constraints = x509.BasicConstraints(ca=bool(changes.get("ca", True)), path_length=length)  # type: ignore[arg-type]
        builder = builder.add_extension(constraints, critical=True)
    if changes.get("with_usage", True):
        builder = builder.add_extension(key_usage(sign=bool(changes.get("sign", True))), critical=True)
    if "uri" in changes:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(changes["uri"]))])
        builder = builder.add_extension(names, critical=False)
    return by.certificate(builder)


def key_usage(*, digital_signature: bool = True, sign: bool = False, crl: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=True, key_cert_sign=sign, crl_sign=crl, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def leaf(
    *,
    uris: Sequence[str] = (SPIFFE,),
    ca: bool | None = False,
    usage: x509.KeyUsage | None = None,
    with_usage: bool = True,
    critical: bool = True,
    extended: Sequence[x509.ObjectIdentifier] | None = BOTH,
    until_s: int = NOW_S + 3600,
    by: Authority | None = None,
) -> bytes:
    by = by or authority()
    builder = _builder(x509.Name([]), ec.generate_private_key(ec.SECP256R1()), until_s)
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if with_usage:
        builder = builder.add_extension(usage or key_usage(), critical=critical)
    if extended is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
    builder = builder.add_extension(x509.SubjectAlternativeName([*names, x509.DNSName("scorer")]), critical=False)
    return by.certificate(builder)


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, until_s: int = NOW_S + 3600
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime.fromtimestamp(NOW_S - 3600, dt.UTC))
        .not_valid_after(dt.datetime.fromtimestamp(until_s, dt.UTC))
    )
