"""Fuzzing with atheris: `python -m tests.fuzz TARGET [--seconds N]`, or `make fuzz FUZZ_S=N` for every target.

What the fuzzer learns is kept under `build/fuzz`; an input that breaks a target is written to `corpus/`, which
`test_corpus.py` replays in every run of the tests.
"""

import argparse
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["pdp.engine", "pdp.model", "pdp.audit", "pdp.identity", "pdp.trust", "sidecar"]
):
    from tests.fuzz.seeds import WORDS, seeds
    from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
LONGEST_BYTES = 4_096
PATIENCE_S = 10
"""An input that takes longer is a finding too: no text may hold up whoever reads it."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Try to break a parser with made-up bytes."
    )
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60, help="how long to try (default: 60)")
    given = parser.parse_args()
    learnt = ROOT / "build" / "fuzz" / given.target
    learnt.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(given.target)):
        (learnt / f"seed-{number}").write_bytes(seed)
    words = ROOT / "build" / "fuzz" / "words.dict"
    words.write_text("".join(f'"{word}"\n' for word in WORDS), encoding="utf-8")
    arguments = (
        f"-max_total_time={given.seconds}", f"-max_len={LONGEST_BYTES}", f"-timeout={PATIENCE_S}", f"-dict={words}",
        f"-artifact_prefix={CORPUS / given.target}-", "-print_final_stats=1", "-verbosity=0", str(learnt),
    )  # fmt: skip
    atheris.Setup([sys.argv[0], *arguments], TARGETS[given.target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
