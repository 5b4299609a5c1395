"""The demonstration's throw-away authority signs what it should, for its own trust domain, and for nobody else."""

from __future__ import annotations

import datetime as dt
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from pdp.demo.authority import Authority, Credential, create_authority, spiffe_id

NOW = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return create_authority(tmp_path / "pki", NOW)


def leaf(credential: Credential) -> x509.Certificate:
    return x509.load_pem_x509_certificate(credential.certificate.read_bytes())


def policy(authority: Authority, moment: dt.datetime = NOW) -> PolicyBuilder:
    return PolicyBuilder().store(Store([authority.certificate])).time(moment)


def test_a_workload_certificate_names_exactly_one_spiffe_id(authority: Authority) -> None:
    certificate = leaf(authority.issue_workload("frontend", "/ns/apps/sa/frontend"))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("spiffe://demo.portcullis/ns/apps/sa/frontend")]


def test_a_workload_certificate_follows_xc_1(authority: Authority) -> None:
    extensions = leaf(authority.issue_workload("frontend", "/ns/apps/sa/frontend")).extensions
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert not usage.value.crl_sign
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    purposes = set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert purposes == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_a_server_certificate_verifies_for_the_loopback_names(authority: Authority) -> None:
    certificate = leaf(authority.issue_server("pdp"))
    verifier = policy(authority).build_server_verifier(x509.DNSName("localhost"))
    assert verifier.verify(certificate, [])[0] == certificate
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_a_server_certificate_is_of_no_use_to_a_client(authority: Authority) -> None:
    purposes = leaf(authority.issue_server("pdp")).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_the_authority_can_name_no_other_host_and_no_other_workload(authority: Authority) -> None:
    constraints = authority.certificate.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    permitted = {str(name.value) for name in constraints.value.permitted_subtrees or []}
    assert permitted == {"localhost", "demo.portcullis"}


def test_certificates_are_short_lived(authority: Authority) -> None:
    for certificate in (authority.certificate, leaf(authority.issue_server("pdp"))):
        life = certificate.not_valid_after_utc - NOW
        assert dt.timedelta(0) < life <= dt.timedelta(days=2)


def test_every_file_is_readable_by_its_owner_only(authority: Authority) -> None:
    authority.issue_server("pdp")
    authority.issue_workload("frontend", "/ns/apps/sa/frontend")
    assert stat.S_IMODE(authority.directory.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in authority.directory.iterdir()}
    assert modes == dict.fromkeys(("ca.pem", "pdp.pem", "pdp.key", "frontend.pem", "frontend.key"), 0o600)


def test_the_authority_keeps_its_own_key_out_of_the_directory(authority: Authority) -> None:
    assert [path.name for path in authority.directory.iterdir()] == ["ca.pem"]


def test_a_second_authority_never_overwrites_the_first(authority: Authority) -> None:
    with pytest.raises(FileExistsError):
        create_authority(authority.directory, NOW)


def test_spiffe_ids_are_of_the_demo_trust_domain() -> None:
    assert spiffe_id("/ns/ml/sa/sidecar") == "spiffe://demo.portcullis/ns/ml/sa/sidecar"
