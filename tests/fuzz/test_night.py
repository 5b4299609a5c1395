"""L9, by night: the fuzzer itself, at every decoder. What it breaks is written to `corpus/`, which `test_corpus.py` replays."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
SECONDS = 20


@pytest.mark.nightly
@pytest.mark.timeout(SECONDS * 10)
@pytest.mark.holds("L9", "P11", "adv_malformed_peer")
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is made for Linux on x86-64 only")
@pytest.mark.parametrize("target", TARGETS)
def test_no_made_up_bytes_break_a_decoder(target: str) -> None:
    command = [sys.executable, "-m", "tests.fuzz", target, "--seconds", str(SECONDS)]
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-4_000:]
    assert "stat::number_of_executed_units: 0\n" not in ended.stdout
    assert "stat::number_of_executed_units: " in ended.stdout  # it tried, and came to its end
