# ruff: noqa: E501 - a case is one line of a table
"""Each lint by the pack that it is about, and the same pack put right."""

import pytest

from pdp.engine.findings import Finding, Severity
from pdp.engine.lint import Surroundings, Use, justified, lint
from pdp.model.attributes import instant_ms
from tests.unit.engine.conftest import Workbench

NOW_MS = instant_ms("2026-06-01T00:00:00Z")
HELD = "g, user:a, role:a, *\n"
QUIET = {"PC608"}


def found(bench: Workbench, rows: str, **around: object) -> list[Finding]:
    surroundings = Surroundings(now_ms=NOW_MS, **around)  # type: ignore[arg-type]
    return [item for item in lint(bench.snapshot(HELD + rows), surroundings) if item.file == "rows.csv"]


def codes(bench: Workbench, rows: str, **around: object) -> list[tuple[str, int]]:
    return [(item.code, item.line) for item in found(bench, rows, **around)]


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        # PC601: another rule decides first, whatever is asked.
        ("p, role:a, dataset.read, dataset/x/**, dev, , , allow\np, role:a, dataset.read, dataset/x/y, dev, , , allow", [("PC601", 3)]),
        ("p, role:a, dataset.*, dataset/**, dev, , , allow\np, role:a, dataset.read, dataset/x, dev, resource.registered, , allow", [("PC601", 3)]),
        ("p, role:a, dataset.*, dataset/**, *, , , deny\np, role:a, dataset.read, dataset/x, dev, , , allow", [("PC601", 3)]),
        ("p, role:a, dataset.read, dataset/x/**, dev, , , allow\np, role:a, dataset.read, dataset/x, dev, , , allow", []),
        ("p, role:a, dataset.read, dataset/**, dev, , , allow\np, role:a, dataset.read, dataset/x, dev, , max_rows=1, allow", []),
        ("p, role:a, dataset.read, dataset/**, dev, , , allow\np, role:a, dataset.read, dataset/x, dev, , , deny", []),
        ("p, role:a, dataset.read, dataset/*, dev, , , allow\np, role:a, dataset.read, dataset/**, dev, , , allow", [("PC601", 2)]),
        # PC602: the same, granted and denied.
        ("p, role:a, dataset.read|list, dataset/x, dev, , , allow\np, role:a, dataset.read, dataset/x, *, , , deny", [("PC602", 2)]),
        ("p, role:a, dataset.read, dataset/x, dev, , , allow\np, role:a, dataset.read, dataset/x, prod, , , deny", []),
        # PC603: nobody holds the role, not even through another.
        ("p, role:b, dataset.read, dataset/x, dev, , , allow\np, role:b, dataset.list, dataset/x, dev, , , allow", [("PC603", 2)]),
        ("p, role:b, dataset.read, dataset/x, dev, , , allow\ng, role:a, role:b, dev", []),
        # PC605: what leaves the house, by wildcard, in prod.
        ("p, role:a, model.download, model/**, prod, , , allow", [("PC605", 2)]),
        ("p, role:a, dataset.*, dataset/x, *, , , allow", [("PC605", 2)]),
        ("p, role:a, model.download, model/**, prod, resource.signature_verified, , allow", []),
        ("p, role:a, model.download, model/**, dev, , , allow", []),
        # PC606: four eyes in one head.
        ("p, role:a, model.approve|promote, model/x, dev, , , allow", [("PC606", 2)]),
        ("p, role:a, model.approve, model/x, dev, , , allow\np, role:b, model.promote, model/x, dev, , , allow\ng, role:a, role:b, dev", [("PC606", 3)]),
        ("p, role:a, model.approve, model/x, dev, , , allow\np, role:b, model.promote, model/x, dev, , , allow\ng, user:b, role:b, dev", []),
        # PC607: a segment that nothing is in.
        ("p2, segment:x, *, segment:none, , allow", [("PC607", 2)]),
        ("p2, segment:x, *, segment:none, , allow\ng3, workload:spiffe://d/**, segment:x", []),
        # PC609: a condition that is none.
        ("p, role:a, dataset.read, dataset/x, dev, resource.registered || !resource.registered, , allow", [("PC609", 2)]),
        ("p, role:a, dataset.read, dataset/x, dev, request.n > 3 && request.n < 2, , allow", [("PC609", 2)]),
        ("p, role:a, dataset.read, dataset/x, dev, request.n > 3 && request.n < 9, , allow", []),
        ("p, role:a, dataset.read, dataset/x, dev, subject.id in resource.approvals, , allow", []),
        ("p, role:a, dataset.read, dataset/x, dev, subject.id == resource.owner, , allow", []),
        ("p, role:a, dataset.read, dataset/x, dev, \"request.ticket.matches('^T[0-9]+$')\", , allow", []),
        # PC610: what has ended.
        ("g, user:b, role:a, dev, _, 2026-05-01T00:00:00Z", [("PC610", 2)]),
        ("g, user:b, role:a, dev, _, 2026-07-01T00:00:00Z\ng, user:c, role:a, dev, 2026-05-01T00:00:00Z, _", []),
    ],
)  # fmt: skip
def test_what_is_probably_not_meant_is_found_and_what_is_meant_is_not(
    bench: Workbench, rows: str, wanted: list[tuple[str, int]]
) -> None:
    if not any(line.startswith("p,") for line in rows.splitlines()):
        rows += "\np, role:a, run.read, run/x, dev, , , allow"
    assert codes(bench, rows) == wanted
    assert all(item.severity is Severity.WARNING for item in found(bench, rows))


def test_a_grant_is_compared_with_its_use(bench: Workbench) -> None:
    rows = "p, role:a, dataset.read|list, dataset/**, dev, , , allow\np, role:a, run.read, run/x, dev, , , allow"
    assert codes(bench, rows) == []
    uses = (
        Use(rule="rows.csv:2", action="dataset.read", resource="dataset/fin/a"),
        Use(rule="rows.csv:2", action="dataset.read", resource="dataset/fin/b@1"),
    )
    idle, unused = found(bench, rows, uses=uses)
    assert (idle.code, idle.line) == ("PC604", 2)
    assert idle.message == "wider than its use: never used for `dataset.list`; all its uses are on `dataset/fin/*`"
    assert (unused.code, unused.line) == ("PC604", 3)
    fitting = "p, role:a, dataset.read, dataset/fin/*, dev, , , allow"
    assert codes(bench, fitting, uses=uses) == []


def test_the_inventory_says_which_members_and_segments_are_none(bench: Workbench) -> None:
    rows = "g2, dataset/a, collection:c\ng2, dataset/gone, collection:c\ng2, dataset/x/*, collection:c\n"
    rows += "p, role:a, dataset.read, collection:c, dev, , , allow\np2, segment:s, *, segment:none, , allow"
    assert codes(bench, rows) == [("PC607", 6)]
    assert codes(bench, rows, assets={"dataset/a@1": "segment:s"}) == [("PC611", 3)]


def test_types_and_assets_without_any_grant_are_named(bench: Workbench) -> None:
    rows = HELD + "p, role:a, dataset.read, dataset/x/**, dev, , , allow\n"
    assets = {"dataset/x/y": "", "dataset/z": ""}
    messages = [
        item.message
        for item in lint(bench.snapshot(rows), Surroundings(now_ms=NOW_MS, assets=assets))
        if item.code == "PC608"
    ]
    assert "no rule grants anything on `dataset/z`" in messages
    assert "no rule grants anything on a model" in messages
    assert not any("dataset/x/y" in message or "a dataset" in message for message in messages)


def test_a_finding_is_answered_in_its_file_with_a_reason() -> None:
    text = "# lint: PC603 because nobody is named\n# lint: PC605\n p, # lint: PC606 because x\n  #lint: PC607 because y"
    assert justified({"a.csv": text, "b.csv": ""}) == {("a.csv", "PC603"), ("a.csv", "PC607")}
