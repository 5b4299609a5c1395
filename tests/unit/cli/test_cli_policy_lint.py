import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pdp.engine.findings import NAMES

Pdp = Callable[..., Any]
ROOT = Path(__file__).parents[3]


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "policies", tmp_path / "pack"))


def test_the_shipped_pack_is_clean_and_says_why_where_it_is_not(pdp: Pdp) -> None:
    ended = pdp("policy", "lint", str(ROOT / "policies"))
    assert ended.code == 0
    assert ended.out.splitlines() == ["0 errors, 0 warnings: good", "26 justified in their files"]


def test_a_warning_is_told_and_does_not_refuse(pdp: Pdp, pack: Path) -> None:
    (pack / "mine.csv").write_text("p, role:app, model.promote|approve, model/x, dev, , , allow\n")
    ended = pdp("policy", "lint", str(pack))
    assert ended.code == 0
    assert (
        "mine.csv:1:1: PC606 approve_and_promote: `role:app` may approve (mine.csv:1) and promote a model" in ended.out
    )


def test_use_comes_from_a_log_and_time_from_an_option(pdp: Pdp, pack: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    lines = (pack / "grants.csv").read_text().splitlines()
    line = 1 + lines.index("p, role:viewer, dataset.list|read_metadata, dataset/**, *, , , allow")
    record = {
        "effect": "allow",
        "determining": [f"grants.csv:{line}"],
        "action": "dataset.list",
        "resource": "dataset/a",
    }
    log.write_text(
        json.dumps(record) + "\n" + json.dumps({"effect": "deny", "determining": [f"grants.csv:{line + 1}"]}) + "\n"
    )
    (pack / "mine.csv").write_text("g, user:a, role:app, prod, _, 2026-01-01T00:00:00Z\n")
    told = pdp("policy", "lint", str(pack), "--used", str(log), "--at", "2025-01-01T00:00:00Z", "--json").json
    by_line = {(item["file"], item["line"]): item for item in told["findings"]}
    assert by_line["grants.csv", line]["message"].startswith(
        "wider than its use: never used for `dataset.read_metadata`"
    )
    assert by_line["grants.csv", line + 1]["message"] == "nothing in the log was ever granted by this rule"
    assert ("mine.csv", 1) not in by_line
    later = pdp("policy", "lint", str(pack), "--at", "2026-02-01T00:00:00Z", "--json").json
    assert [item["code"] for item in later["findings"]] == ["PC610"]
    log.write_text("no json\n")
    assert pdp("policy", "lint", str(pack), "--used", str(log)).code == 2


def test_every_lint_is_documented_with_its_fix() -> None:
    text = (ROOT / "docs" / "lint.md").read_text()
    for code, name in NAMES.items():
        if code.startswith("PC6"):
            assert f"### {code} {name}" in text
            section = text.partition(f"### {code} ")[2].partition("### ")[0]
            assert "**Fix.**" in section
