import pytest

from pdp.engine.diff import Cell, Change, diff
from pdp.errors import BadRequestError
from pdp.model.attributes import instant_ms
from tests.unit.engine.conftest import Workbench

NOW_MS = instant_ms("2026-06-01T00:00:00Z")
BASE = """
g, user:ana, role:sci, dev
g, group:team, role:sci, dev
p, role:sci, dataset.read, dataset/**, dev, , , allow
p, role:app, endpoint.invoke, endpoint/**, prod, , , allow
"""
READ = "p, role:sci, dataset.read, dataset/**, dev, , , allow"


def changes(bench: Workbench, after: str, before: str = BASE) -> list[Cell]:
    return list(diff(bench.snapshot(before), bench.snapshot(after), NOW_MS))


def test_a_grant_that_comes_is_a_gain_of_its_role_and_of_who_holds_it(bench: Workbench) -> None:
    found = changes(bench, BASE + "p, role:sci, dataset.write, dataset/finance/*, dev, , , allow")
    assert [(cell.change, cell.values, cell.always) for cell in found] == [
        (Change.GAINS, (who, "dataset.write", "dataset/finance/*", "dev"), True)
        for who in ("group:team", "role:sci", "user:ana")
    ]
    role = found[1]
    assert role.names == ("group:team", "user:ana")
    assert [cell.by for cell in found] == ["role:sci", "", "role:sci"]


def test_a_wide_grant_does_not_hide_among_many_narrow_ones(bench: Workbench) -> None:
    narrow = [f"p, role:sci, dataset.write, dataset/a{number}, dev, , , allow" for number in range(60)]
    wide = [
        "p, role:sci, dataset.write, dataset/team/**, dev, , , allow",
        "p, role:zz, dataset.write, dataset/**, dev, request.purpose != 'x', , allow",
    ]
    found = changes(bench, "\n".join([BASE, *narrow[:30], *wide, *narrow[30:]]))
    gains = [cell.values[2] for cell in found if cell.change is Change.GAINS]
    assert len(gains) > 60
    assert (gains[0], gains[1]) == ("dataset/**", "dataset/team/**")


def test_an_assignment_that_comes_is_a_gain_of_that_name_alone(bench: Workbench) -> None:
    found = changes(bench, BASE + "g, user:bob, role:app, prod")
    assert {cell.values[:2] for cell in found} == {("user:bob", "endpoint.invoke")}
    assert {cell.change for cell in found} == {Change.GAINS}
    assert {cell.by for cell in found} == {""}  # the role itself does not change


def test_an_assignment_with_a_start_gains_from_then(bench: Workbench) -> None:
    (cell,) = changes(bench, BASE + "g, user:bob, role:app, prod, 2026-07-01T00:00:00Z, 2026-08-01T00:00:00Z")
    assert (cell.change, cell.from_ms) == (Change.GAINS, instant_ms("2026-07-01T00:00:00Z") + 1)
    assert changes(bench, BASE + "g, user:bob, role:app, prod, _, 2026-05-01T00:00:00Z") == []


def test_a_deny_loses_where_something_was_granted_and_else_gives_another_reason(bench: Workbench) -> None:
    found = changes(bench, BASE + "p, role:sci, *, dataset/hr/**, *, , , deny")
    kinds = {cell.values[1:]: cell.change for cell in found if cell.values[0] == "role:sci"}
    assert kinds["dataset.read", "dataset/hr/**", "dev"] is Change.LOSES
    assert kinds["dataset.write", "dataset/hr/**", "dev"] is Change.REASON
    assert found[0].change is Change.LOSES  # the worst first


@pytest.mark.parametrize(
    ("row", "change", "witness"),
    [
        (
            READ.replace(", , , allow", ", request.purpose == 'x', , allow"),
            Change.LOSES,
            {"request.purpose": "something-else"},
        ),
        (READ.replace(", , , allow", ", , max_rows=5, allow"), Change.STRICTER, {}),
        (f"{READ}\n{READ.replace(', , , allow', ', resource.signature_verified, , allow')}", None, {}),
        (f"{READ}\n{READ.replace(', , , allow', ', request.n > 3, , deny')}", Change.LOSES, {"request.n": 4}),
    ],
)
def test_a_condition_that_comes_is_told_with_an_example(
    bench: Workbench, row: str, change: Change | None, witness: dict[str, object]
) -> None:
    found = {cell.values[0]: cell for cell in changes(bench, BASE.replace(READ, row))}
    if change is None:
        assert found == {}
        return
    cell = found["role:sci"]
    assert (cell.change, dict(cell.witness)) == (change, witness)
    assert cell.always is (not witness)


def test_conditions_that_say_the_same_in_other_words_are_told_apart_from_changes(bench: Workbench) -> None:
    one = BASE.replace(READ, READ.replace(", , , allow", ", request.purpose == 'x', , allow"))
    other = BASE.replace(READ, READ.replace(", , , allow", ", 'x' == request.purpose, , allow"))
    assert {cell.change for cell in changes(bench, other, one)} == {Change.REWRITTEN}


def test_segmentation_is_compared_too(bench: Workbench) -> None:
    (cell,) = changes(bench, BASE + "p2, segment:apps, endpoint.invoke, segment:serving, , allow")
    assert (cell.context, cell.values) == ("2", ("segment:apps", "endpoint.invoke", "segment:serving"))


def test_a_member_that_joins_a_collection_changes_only_itself(bench: Workbench) -> None:
    base = BASE + "p, role:sci, dataset.read, collection:pii, *, , , deny\n"
    found = changes(bench, base + "g2, dataset/hr/people, collection:pii\n", base)
    assert {cell.values[2] for cell in found} == {"dataset/hr/people"}
    assert {cell.change for cell in found if cell.values[3] == "dev"} == {Change.LOSES}


def test_a_comparison_that_is_too_large_is_refused_and_never_cut(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdp.engine.diff.MAX_DIFF_CELLS", 3)
    with pytest.raises(BadRequestError, match="more than 3 cells"):
        changes(bench, BASE + "p, role:sci, *, **, *, , , deny".replace("**", "dataset/**"))
