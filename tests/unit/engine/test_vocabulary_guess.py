"""A vocabulary from rows: every word is there, and the types are those that the conditions need."""

from pathlib import Path

import pytest

from pdp.engine.casbin_text import Row, parse_model, parse_rows
from pdp.engine.compiler import Snapshot, compile_policy
from pdp.engine.vocabulary_guess import NO_WORDS, derive_vocabulary
from pdp.engine.vocabulary_text import parse_vocabulary

ROOT = Path(__file__).parents[3]
MODEL = (ROOT / "policies/model.conf").read_text(encoding="utf-8")


def derived(rows: tuple[Row, ...]) -> str:
    model, found = parse_model(MODEL, file="model.conf")
    assert model is not None, found
    return derive_vocabulary(model, rows)


def test_the_shipped_pack_compiles_under_the_vocabulary_of_its_own_rows() -> None:
    model, _ = parse_model(MODEL, file="model.conf")
    assert model is not None
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "policies").glob("*.csv")))
    rows, found = parse_rows(text, file="all.csv", model=model)
    assert not found
    vocabulary, problems = parse_vocabulary(derive_vocabulary(model, rows), file="vocabulary.yaml")
    assert vocabulary is not None, problems
    assert isinstance(compile_policy(model, vocabulary, rows), Snapshot)


@pytest.mark.parametrize(
    ("condition", "kind"),
    [
        ("resource.x == 'a'", "string"),
        ("resource.x.startsWith('a')", "string"),
        ("resource.x in ['a']", "string"),
        ("resource.x >= 2", "int"),
        ("0.5 < resource.x || resource.x > 1.5", "double"),
        ("size(resource.x) > 1", "list"),
        ("'a' in resource.x", "list"),
        ("now > resource.x", "timestamp"),
        ("resource.x", "bool"),
        ("!resource.x", "bool"),
    ],
)
def test_the_type_of_an_attribute_follows_from_its_use(condition: str, kind: str) -> None:
    row = Row("p", ("role:a", "dataset.read", "dataset/**", "*", condition, "", "allow"), "rows.csv", 1)
    assert f"  resource.x: {{type: {kind}}}\n" in derived((row,))


def test_rows_without_words_need_none() -> None:
    assert derived(()) == NO_WORDS
