"""The net under all tests (`tests/conftest.py`): a private key in what a test says or logs fails that test."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pdp.trust.keys import SigningKey
from tests.support.canaries import canaries, leaks

ROOT = Path(__file__).parents[2]
_TESTS = """
import sys
from pathlib import Path
from pdp.trust.keys import SigningKey

def planted(tmp_path):
    (tmp_path / "key.pem").write_bytes(SigningKey.generate().to_pem())
    return (tmp_path / "key.pem").read_text()

def test_says(tmp_path):
    print(planted(tmp_path))

def test_command_says(tmp_path, capsys):
    print(planted(tmp_path), file=sys.stderr)
    capsys.readouterr()

def test_logs(tmp_path):
    (tmp_path / "pdp.log").write_text("{" + planted(tmp_path).splitlines()[1] + "}")

def test_is_silent(tmp_path, capsys):
    print("made", len(planted(tmp_path)))
    capsys.readouterr()
"""


@pytest.mark.holds("S9")
def test_a_line_of_a_private_key_is_found_and_a_certificate_is_none(tmp_path: Path) -> None:
    pem = SigningKey.generate().to_pem()
    (tmp_path / "chain.pem").write_bytes(
        pem + b"-----BEGIN CERTIFICATE-----\n" + b"A" * 64 + b"\n-----END CERTIFICATE-----\n"
    )
    (line,) = canaries(tmp_path)
    assert leaks(tmp_path, "A" * 64) == []
    assert leaks(tmp_path, f"error: {line.decode()}") == ["output"]
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "pdp.log").write_bytes(b"x" + line)
    assert leaks(tmp_path, "") == [str(tmp_path / "deep" / "pdp.log")]
    (tmp_path / "chain.pem").unlink()  # or this test would be caught


@pytest.mark.nightly
@pytest.mark.holds("S9")
def test_whoever_shows_a_key_fails_and_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "test_made.py").write_text(_TESTS)
    words = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        str(ROOT / "pyproject.toml"),
        f"--rootdir={tmp_path}",
        "-p",
        "tests.conftest",
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *words, f"--basetemp={tmp_path / 'base'}", str(tmp_path / "test_made.py")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    shutil.rmtree(tmp_path / "base")  # or this test would be caught
    assert "4 passed, 3 errors" in ended.stdout, ended.stdout
    assert "test_is_silent" not in ended.stdout
