"""The reader of a vocabulary: read once for one text, however often it is asked."""

from pathlib import Path

import pytest

from pdp.engine.vocabulary_text import parse_vocabulary
from pdp.limits import VOCABULARY_CACHE_CHARACTERS

SHIPPED = (Path(__file__).parents[3] / "policies/vocabulary.yaml").read_text(encoding="utf-8")
BROKEN = "types: {a: {verbs: [b]}}\nattributes: []\n"


def test_one_text_is_read_once_and_another_anew() -> None:
    read, findings = parse_vocabulary(SHIPPED, file="vocabulary.yaml")
    assert read is not None
    assert not findings
    assert parse_vocabulary(f"{SHIPPED}", file="vocabulary.yaml")[0] is read
    other, _ = parse_vocabulary(SHIPPED.replace("read_metadata", "look"), file="vocabulary.yaml")
    assert other is not None
    assert other != read


def test_findings_name_the_file_of_their_own_reading() -> None:
    for file in ("one.yaml", "two.yaml"):
        assert [found.file for found in parse_vocabulary(BROKEN, file=file)[1]] == [file]


def test_a_vocabulary_beyond_the_bound_is_read_and_not_kept() -> None:
    large = f"{SHIPPED}# {'x' * VOCABULARY_CACHE_CHARACTERS}\n"
    first, second = (parse_vocabulary(large, file="vocabulary.yaml")[0] for _ in range(2))
    assert first == second
    assert first is not second


@pytest.mark.parametrize("text", ["a: &x 1\nb: *x", "a: !!str 1", "a: 1\n---\nb: 2", "[" * 5_000, "a: " + "{a: " * 17])
def test_what_two_readers_could_see_differently_is_refused_with_its_place(text: str) -> None:
    vocabulary, (finding,) = parse_vocabulary(text, file="vocabulary.yaml")
    assert vocabulary is None
    assert (finding.code, finding.file) == ("PC505", "vocabulary.yaml")
