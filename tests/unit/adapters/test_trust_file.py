import json
from pathlib import Path

import pytest
import trustme

from pdp.adapters.trust_file import load_trust
from pdp.errors import ConfigError
from pdp.limits import MAX_TRUST_FILE_BYTES
from tests.support.tokens import entry, signer

Files = dict[str, bytes]


@pytest.fixture
def files() -> Files:
    trust = {"issuers": [entry()], "trust_domains": [{"domain": "prod.example", "ca": "ca.pem"}]}
    return {
        "trust.yaml": json.dumps(trust).encode(),
        "jwks.json": signer().jwks(),
        "ca.pem": trustme.CA().cert_pem.bytes(),
    }


def load(directory: Path, files: Files) -> object:
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return load_trust(directory / "trust.yaml")


def test_files_are_relative_to_trust_yaml(tmp_path: Path, files: Files) -> None:
    load(tmp_path, files)
    trust = load_trust(tmp_path / "trust.yaml")
    assert len(trust.authorities["prod.example"]) == 1
    (tmp_path / "ca.pem").write_bytes(files["ca.pem"] + trustme.CA().cert_pem.bytes())
    assert load_trust(tmp_path / "trust.yaml").generation != trust.generation


@pytest.mark.parametrize("name", ["trust.yaml", "jwks.json", "ca.pem"])
def test_a_missing_file_is_named_with_what_to_do(tmp_path: Path, files: Files, name: str) -> None:
    del files[name]
    with pytest.raises(ConfigError, match=rf"{name}: No such file") as caught:
        load(tmp_path, files) if name != "trust.yaml" else load_trust(tmp_path / name)
    assert caught.value.advice


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("trust.yaml", b"\xff\xfe", "not UTF-8"),
        ("trust.yaml", b" " * (MAX_TRUST_FILE_BYTES + 1), "more than"),
        ("trust.yaml", b"issuers: [{}]", r"trust\.yaml:1: `issuers\[0\]\.iss` is missing"),
        ("jwks.json", b"{", "key set refused"),
        ("jwks.json", b'{"keys": [{"kty": "oct", "k": "AAAA"}]}', "symmetric"),
        ("ca.pem", b"", "no PEM certificates"),
        ("ca.pem", trustme.CA().issue_cert("a.example").cert_chain_pems[0].bytes(), "no CA"),
    ],
)
def test_a_file_that_could_not_serve_is_refused_at_the_start(
    tmp_path: Path, files: Files, name: str, content: bytes, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        load(tmp_path, files | {name: content})
