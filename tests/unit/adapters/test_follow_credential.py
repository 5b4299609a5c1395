"""A credential in files: what was exchanged is noticed once, and what is half-written changes nothing."""

from pathlib import Path

import pytest
import trustme

from pdp.adapters.follow_credential import CredentialFiles, OpenCredential
from pdp.errors import ConfigError


def opened(**files: Path) -> OpenCredential:
    return CredentialFiles(**{"ca": None, "cert": None, "key": None, "token": None, **files}).open()


def test_a_token_that_was_exchanged_is_told_once(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")
    credential = opened(token=token)
    assert (credential.authorization, credential.fresh()) == ("Bearer one", "")
    token.write_text("one\n")  # written again, and the same
    assert credential.fresh() == ""
    token.write_text("three")
    assert credential.fresh() == "Bearer three"
    assert credential.fresh() == ""


@pytest.mark.parametrize("half", ["", "t o k e n", "x" * 100_000])
def test_a_token_caught_half_written_is_found_at_the_next_look(tmp_path: Path, half: str) -> None:
    token = tmp_path / "token"
    token.write_text("one")
    credential = opened(token=token)
    token.write_text(half)
    assert credential.fresh() == ""
    token.unlink()
    assert credential.fresh() == ""
    token.write_text("whole")
    assert credential.fresh() == "Bearer whole"


def test_a_token_from_a_function_is_asked_for_each_time() -> None:
    tokens = iter(("one", "one", "two"))
    credential = CredentialFiles(ca=None, cert=None, key=None, token=lambda: next(tokens)).open()
    assert [credential.fresh(), credential.fresh()] == ["", "Bearer two"]


def test_a_certificate_is_outworn_once_the_new_one_fits_its_key(tmp_path: Path) -> None:
    authority = trustme.CA()
    files = {name: tmp_path / name for name in ("ca", "cert", "key")}
    files["ca"].write_bytes(authority.cert_pem.bytes())

    def install(leaf: trustme.LeafCert, *names: str) -> None:
        found = {"cert": leaf.cert_chain_pems[0].bytes(), "key": leaf.private_key_pem.bytes()}
        for name in names:
            files[name].write_bytes(found[name])

    install(authority.issue_cert("one.example"), "cert", "key")
    credential = opened(**files)
    assert not credential.outworn
    second = authority.issue_cert("two.example.long")
    install(second, "cert")  # the key is still the first's
    assert not credential.outworn
    install(second, "key")
    assert credential.outworn


def test_half_a_certificate_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs its key"):
        opened(cert=tmp_path / "cert")
