"""Texts that the engine's tests share: the shipped model, a small vocabulary, and a way to read findings off a pack."""

from pathlib import Path

import pytest

from pdp.engine.casbin_text import Model, parse_model, parse_rows
from pdp.engine.compiler import Snapshot, compile_policy
from pdp.engine.findings import Finding
from pdp.engine.vocabulary_text import parse_vocabulary
from pdp.model.vocabulary import Vocabulary

POLICIES = Path(__file__).parents[3] / "policies"


class Workbench:
    """The shipped model and vocabulary, and rows compiled against them."""

    def __init__(self) -> None:
        self.model_text = (POLICIES / "model.conf").read_text(encoding="utf-8")
        self.vocabulary_text = (POLICIES / "vocabulary.yaml").read_text(encoding="utf-8")
        model, model_findings = parse_model(self.model_text, file="model.conf")
        vocabulary, word_findings = parse_vocabulary(self.vocabulary_text, file="vocabulary.yaml")
        assert model is not None, model_findings
        assert vocabulary is not None, word_findings
        self.model: Model = model
        self.vocabulary: Vocabulary = vocabulary

    def snapshot(self, text: str) -> Snapshot:
        rows, found = parse_rows(text, file="rows.csv", model=self.model)
        assert not found, [str(item) for item in found]
        compiled = compile_policy(self.model, self.vocabulary, rows)
        assert isinstance(compiled, Snapshot), [str(item) for item in compiled]
        return compiled

    def findings(self, text: str) -> tuple[Finding, ...]:
        rows, found = parse_rows(text, file="rows.csv", model=self.model)
        if found:
            return found
        compiled = compile_policy(self.model, self.vocabulary, rows)
        return compiled.warnings if isinstance(compiled, Snapshot) else compiled


@pytest.fixture(scope="session")
def bench() -> Workbench:
    return Workbench()


@pytest.fixture(scope="session")
def shipped() -> dict[str, bytes]:
    return {path.relative_to(POLICIES).as_posix(): path.read_bytes() for path in POLICIES.rglob("*") if path.is_file()}
