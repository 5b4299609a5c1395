"""`pdp policy fmt` and `pdp policy test --coverage`: on copies of the shipped pack."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Pdp = Callable[..., Any]
POLICIES = Path(__file__).parents[3] / "policies"


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return Path(shutil.copytree(POLICIES, tmp_path / "pack"))


def test_fmt_rewrites_what_is_written_otherwise_and_nothing_else(pdp: Pdp, pack: Path) -> None:
    assert pdp("policy", "fmt", str(pack), "--check").code == 0
    untidy = "g,user:a ,  role:app,dev\n\n# x  \n"
    (pack / "mine.csv").write_text(untidy)
    ended = pdp("policy", "fmt", str(pack), "--check")
    assert (ended.code, ended.out) == (2, "mine.csv: would change\n1 of 5 files would change\n")
    assert (pack / "mine.csv").read_text() == untidy
    assert pdp("policy", "fmt", str(pack), "--json").json == {"changed": ["mine.csv"]}
    assert (pack / "mine.csv").read_text() == "g, user:a, role:app, dev\n\n# x\n"
    assert pdp("policy", "fmt", str(pack)).out == "0 of 5 files changed\n"
    assert not list(pack.glob("*~"))


def test_fmt_leaves_a_pack_with_errors_alone(pdp: Pdp, pack: Path) -> None:
    (pack / "mine.csv").write_text("g,user:a\n")
    assert pdp("policy", "fmt", str(pack)).code == 2
    assert (pack / "mine.csv").read_text() == "g,user:a\n"


def test_coverage_names_the_rules_that_decide_in_no_test(pdp: Pdp, pack: Path) -> None:
    told = pdp("policy", "test", str(pack), "--coverage", "--json").json
    missed = {item["rule"] for item in told["uncovered"]}
    assert "grants.csv:51" not in missed  # an application invokes an endpoint
    assert 0 < told["coverage_percent"] < 100
    ended = pdp("policy", "test", str(pack), "--coverage")
    assert ended.code == 0
    assert sum("decides in no test" in line for line in ended.out.splitlines()) == len(missed)
    assert ended.out.splitlines()[-1].endswith(f"rules decide in a test: {told['coverage_percent']:.1f} %")


def test_too_little_coverage_fails(pdp: Pdp, pack: Path) -> None:
    percent = pdp("policy", "test", str(pack), "--coverage", "--json").json["coverage_percent"]
    assert pdp("policy", "test", str(pack), "--fail-under", str(percent - 1)).code == 0
    assert pdp("policy", "test", str(pack), "--fail-under", str(percent + 1)).code == 2
    assert pdp("policy", "test", str(pack), "--fail-under", "101").code == 2


def test_a_rule_that_decides_in_a_failing_test_is_not_covered(pdp: Pdp, pack: Path) -> None:
    before = pdp("policy", "test", str(pack), "--coverage", "--json").json["coverage_percent"]
    for path in (pack / "tests").glob("*.yaml"):
        path.write_text(path.read_text().replace("effect: allow", "effect: deny"))
    ended = pdp("policy", "test", str(pack), "--coverage", "--json")
    assert ended.code == 2
    assert ended.json["coverage_percent"] < before
