import re
from pathlib import Path

import pdp.engine
from pdp.engine.findings import NAMES, PackRefused, Severity, errors, finding, in_order, nearest
from pdp.errors import Reason

ENGINE = Path(pdp.engine.__file__).parent


def test_a_finding_is_one_line_with_its_place() -> None:
    item = finding("PC112", "seven fields", file="grants.csv", line=6, column=3)
    assert str(item) == "grants.csv:6:3: PC112 wrong_arity: seven fields"
    assert item.severity is Severity.ERROR
    assert finding("PC117", "again", file="f").severity is Severity.WARNING


def test_findings_are_sorted_once_each_and_warnings_do_not_refuse() -> None:
    late, early = finding("PC112", "x", file="b", line=2), finding("PC117", "x", file="a", line=9)
    assert in_order([late, early, late]) == (early, late)
    assert errors([late, early]) == (late,)


def test_the_nearest_word_is_offered_and_a_far_one_is_not() -> None:
    assert nearest("dataset.raed", ["dataset.read", "model.promote"]) == "dataset.read"
    assert nearest("zzz", ["dataset.read"]) == ""


def test_a_refused_pack_carries_its_findings_to_the_door() -> None:
    refused = PackRefused((finding("PC112", "x", file="f"),))
    assert refused.reason is Reason.POLICY_REFUSED
    assert refused.message == "the pack is refused: 1 error"
    assert len(refused.findings) == 1


def test_every_code_is_reported_somewhere_and_every_reported_code_has_a_name() -> None:
    sources = {
        path.name: path.read_text(encoding="utf-8") for path in ENGINE.glob("*.py") if path.name != "findings.py"
    }
    used = {code for text in sources.values() for code in re.findall(r'"(PC\d{3})"', text)}
    assert used == set(NAMES)


def test_every_code_has_a_test() -> None:
    folders = (Path(__file__).parent, Path(__file__).parents[2] / "spec")
    tests = "\n".join(path.read_text(encoding="utf-8") for folder in folders for path in folder.glob("test_*.py"))
    assert {code for code in NAMES if code not in tests} == set()


def test_codes_that_the_log_and_the_importer_report_have_their_names_here() -> None:
    """PC116, PC502 and PC503 are what a Casbin file turns into; the engine itself never sees such a text."""
    assert [NAMES[code] for code in ("PC116", "PC502", "PC503")] == [
        "unrepresentable",
        "incomplete_revision",
        "partial_load",
    ]
