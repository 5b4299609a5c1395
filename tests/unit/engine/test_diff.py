import pytest

from pdp.engine.casbin_text import parse_model, parse_rows
from pdp.engine.compiler import Snapshot, compile_policy
from pdp.engine.diff import Cell, Change, diff
from pdp.engine.vocabulary_text import parse_vocabulary
from pdp.errors import BadRequestError
from pdp.model.attributes import instant_ms
from pdp.model.vocabulary import Vocabulary
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


def test_who_holds_a_role_later_gains_by_it_from_then(bench: Workbench) -> None:
    before = BASE + "g, user:tim, role:app, prod, 2026-07-01T00:00:00Z, _\n"
    found = changes(bench, before + "p, role:app, endpoint.scale, endpoint/**, prod, , , allow", before)
    assert {cell.values[0]: cell.from_ms for cell in found} == {
        "role:app": 0,
        "user:tim": instant_ms("2026-07-01T00:00:00Z") + 1,
    }


def test_whom_a_role_barred_gains_when_it_ends(bench: Workbench) -> None:
    before = BASE + "g, user:tim, role:app, prod\ng, user:tim, role:barred, prod, _, 2026-07-01T00:00:00Z\n"
    before += "p, role:barred, *, endpoint/**, prod, , , deny\n"
    found = changes(bench, before + "p, role:app, endpoint.scale, endpoint/**, prod, , , allow", before)
    (tim,) = (cell for cell in found if cell.values[0] == "user:tim")
    assert (tim.change, tim.from_ms) == (Change.GAINS, instant_ms("2026-07-01T00:00:00Z"))


def test_an_action_that_leaves_the_vocabulary_is_lost_by_who_had_every_action(bench: Workbench) -> None:
    rows = "p, role:ops, endpoint.*, endpoint/**, prod, , , allow\n"
    before = bench.snapshot(rows)
    vocabulary, found = parse_vocabulary(bench.vocabulary_text.replace("scale, ", ""), file="vocabulary.yaml")
    assert vocabulary is not None, found
    after = compile_policy(bench.model, vocabulary, before.rows)
    assert isinstance(after, Snapshot)
    told = {(cell.values[0], cell.values[1]): cell.change for cell in diff(before, after, NOW_MS)}
    assert told == {("role:ops", "endpoint.scale"): Change.LOSES}
    told = {(cell.values[0], cell.values[1]): cell.change for cell in diff(after, before, NOW_MS)}
    assert told == {("role:ops", "endpoint.scale"): Change.GAINS}


PLAIN = """
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act, start, end, eft
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = g(r.sub, p.sub) && keyMatch(r.obj, p.obj) && regexMatch(r.act, p.act) && timeMatch(p.start, p.end)
"""


def plain(*lines: str) -> Snapshot:
    model, found = parse_model(PLAIN, file="model.conf")
    assert model is not None, found
    rows, found = parse_rows("\n".join(lines), file="rows.csv", model=model)
    assert not found, [str(item) for item in found]
    compiled = compile_policy(model, Vocabulary(types={}, attributes={}), rows)
    assert isinstance(compiled, Snapshot), [str(item) for item in compiled]
    return compiled


def test_rows_of_casbin_are_compared_by_their_patterns_and_at_the_times_they_write() -> None:
    lines = ["g, ana, sci", "p, sci, /data/*, ^(read|list)$, _, _, allow"]
    added = "p, sci, /data/hr/*, ^w.*, 2026-07-01 00:00:00, 2026-08-01 00:00:00, allow"
    found = diff(plain(*lines), plain(*lines, added), NOW_MS)
    assert [(cell.values, cell.change, cell.from_ms) for cell in found] == [
        (
            ("ana", "keyMatch(/data/hr/*)", "regexMatch(^w.*)"),
            Change.GAINS,
            instant_ms("2026-07-01T00:00:00Z") + 1,
        )
    ]
    gone = diff(plain(*lines), plain(lines[0], lines[1].replace("(read|list)", "read")), NOW_MS)
    assert [(cell.values, cell.change) for cell in gone] == [(("ana", "keyMatch(/data/*)", "list"), Change.LOSES)]


def test_of_many_names_only_those_are_compared_that_a_changed_row_meets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdp.engine.diff.MAX_DIFF_CELLS", 400)
    lines = [f"p, role{number}, /data/{number}, ^read$, _, _, allow" for number in range(40)]
    lines += [f"g, user{number}, role{number % 40}" for number in range(80)]
    found = diff(plain(*lines), plain(*lines, "p, role7, /new, ^read$, _, _, allow"), NOW_MS)
    assert {cell.values for cell in found} == {(who, "/new", "read") for who in ("user7", "user47")}
    joined = diff(plain(*lines), plain(*lines, "g, user7, role9"), NOW_MS)
    assert {cell.values for cell in joined} == {("user7", "/data/9", "read")}


def test_a_comparison_that_is_too_large_is_refused_and_never_cut(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdp.engine.diff.MAX_DIFF_CELLS", 3)
    with pytest.raises(BadRequestError, match="more than 3 cells"):
        changes(bench, BASE + "p, role:sci, *, **, *, , , deny".replace("**", "dataset/**"))
