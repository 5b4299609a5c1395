"""Every input that a fuzzer once broke a parser with, and what it starts from, in every run of the tests."""

import re
from pathlib import Path

import pytest

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

FOUND = sorted(path for path in (Path(__file__).parent / "corpus").iterdir() if path.name.partition("-")[0] in TARGETS)


pytestmark = pytest.mark.holds("L9")


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_what_once_broke_a_parser_does_not_again(path: Path) -> None:
    TARGETS[path.name.partition("-")[0]](path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_what_the_fuzzer_starts_from_breaks_nothing_whole_or_cut(target: str) -> None:
    for seed in seeds(target):
        for end in (*range(0, len(seed), max(1, len(seed) // 20)), len(seed)):
            TARGETS[target](seed[:end])


def test_make_fuzz_tries_every_target() -> None:
    loop = re.search(r"for target in (.*); do", (Path(__file__).parents[2] / "Makefile").read_text())
    assert loop is not None
    assert loop[1].split() == list(TARGETS)
