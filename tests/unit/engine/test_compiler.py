import pytest

from pdp.engine.casbin_text import Row, parse_model
from pdp.engine.compiler import Snapshot, compile_policy, compile_texts
from pdp.engine.digests import rows_digest
from pdp.engine.findings import Severity
from tests.unit.engine.conftest import Workbench

GRANT = "p, role:x, dataset.read, dataset/a, dev, , , allow\n"


@pytest.mark.parametrize(
    ("row", "code", "column", "hint"),
    [
        ("p, role:x, dataset.raed, dataset/a, dev, , , allow", "PC203", 12, "did you mean `dataset.read`"),
        ("p, role:x, dataset.read|raed, dataset/a, dev, , , allow", "PC203", 12, "`dataset.raed`"),
        ("p, role:x, datset.*, dataset/a, dev, , , allow", "PC203", 12, "did you mean `dataset.*`"),
        ("p, role:x, dataset, dataset/a, dev, , , allow", "PC203", 12, ""),
        ("p, role:x, dataset.read, datset/a, dev, , , allow", "PC203", 26, "did you mean `dataset`"),
        ("p, role:x, dataset.read, dataset/a/../b, dev, , , allow", "PC302", 26, ""),
        ("p, role:x, dataset.read, dataset//b, dev, , , allow", "PC302", 26, ""),
        ("p, role:x, dataset.read, dataset/a*, dev, , , allow", "PC307", 26, "whole segment"),
        ("p, role:x, dataset.read, dataset/**/a, dev, , , allow", "PC307", 26, ""),
        ("p, role:x, dataset.read, collection:a b, dev, , , allow", "PC115", 26, ""),
        ("p, role:x, dataset.read, dataset/a, produ, , , allow", "PC203", 37, "did you mean `prod`"),
        ("p, alice, dataset.read, dataset/a, dev, , , allow", "PC115", 4, "role:"),
        ("p, user:a*b, dataset.read, dataset/a, dev, , , allow", "PC307", 4, ""),
        ("p, role:x, dataset.read, dataset/a, dev, request.purpos == 'x', , allow", "PC203", 49, "request.purpose"),
        ('p, role:x, dataset.read, dataset/a, dev, "has(request.purpose)", , allow', "PC213", 43, ""),
        ("p, role:x, dataset.read, dataset/a, dev, true, , allow", "PC210", 42, ""),
        ("p, role:x, dataset.read, dataset/a, dev, , max_row=1, allow", "PC214", 44, "did you mean `max_rows`"),
        ("p, role:x, dataset.read, dataset/a, dev, , max_rows=1, deny", "PC214", 44, "a deny has none"),
        ("g, user:a, user:b, dev", "PC115", 12, ""),
        ("g, user:a, role:x, devv", "PC203", 20, "did you mean `dev`"),
        ("g, user:a, role:x, dev, 2026-11-20, _", "PC212", 25, ""),
        ("g, user:a, role:x, dev, 2026-11-20T08:00:00+01:00, _", "PC212", 25, ""),
        ("g, user:a, role:x, dev, 2026-13-20T08:00:00Z, _", "PC212", 25, ""),
        ("g, user:a, role:x, dev, 2026-11-21T08:00:00Z, 2026-11-20T08:00:00Z", "PC403", 47, ""),
        ("g3, workload:spiffe://X/**, segment:a", "PC307", 5, ""),
        ("g3, workload:spiffe://x/*/y, segment:a", "PC307", 5, ""),
        ("g2, dataset/a, dataset/b", "PC115", 16, ""),
        ("g, role:a, role:a, dev", "PC402", 4, "role:a -> role:a"),
    ],
)
def test_each_fault_of_meaning_has_its_code_and_place(
    bench: Workbench, row: str, code: str, column: int, hint: str
) -> None:
    found = bench.findings(GRANT + row + "\n")
    assert [(item.code, item.line, item.column) for item in found] == [(code, 2, column)], [str(item) for item in found]
    assert hint in found[0].message


@pytest.mark.holds("adv_cycles")
def test_roles_in_a_circle_are_refused_and_the_circle_is_shown(bench: Workbench) -> None:
    found = bench.findings(GRANT + "g, role:a, role:b, dev\ng, role:b, role:c, *\ng, role:c, role:a, dev\n")
    assert {item.code for item in found} == {"PC402"}
    assert "role:a -> role:b -> role:c -> role:a" in found[0].message


def test_a_circle_over_two_environments_is_none(bench: Workbench) -> None:
    bench.snapshot(GRANT + "g, role:a, role:b, dev\ng, role:b, role:a, prod\n")


def test_a_chain_of_sixty_four_roles_holds_and_one_more_is_refused(bench: Workbench) -> None:
    links = [f"g, role:r{n}, role:r{n + 1}, dev" for n in range(64)]
    chain = bench.snapshot(GRANT + "\n".join(links))
    assert "role:r64" in chain.groups_of("g", "role:r0", 0, "dev")
    assert [item.code for item in bench.findings(GRANT + "\n".join([*links, "g, role:r64, role:r65, dev"]))] == [
        "PC401"
    ]


@pytest.mark.holds("adv_cycles", "F19", "L3")
def test_a_chain_of_ten_thousand_roles_is_a_finding_and_no_traceback(bench: Workbench) -> None:
    rows = [Row("p", ("role:x", "*", "dataset/**", "*", "", "", "allow"), "g.csv", 1)]
    rows += [Row("g", (f"role:r{n}", f"role:r{n + 1}", "dev"), "r.csv", n) for n in range(10_000)]
    found = compile_policy(bench.model, bench.vocabulary, rows)
    assert isinstance(found, tuple)
    assert {item.code for item in found} == {"PC401"}


def test_a_repeated_row_warns_and_a_policy_without_grants_is_refused(bench: Workbench) -> None:
    (warning,) = bench.findings(GRANT + GRANT)
    assert (warning.code, warning.line, warning.severity) == ("PC117", 2, Severity.WARNING)
    assert [item.code for item in bench.findings("g, user:a, role:x, dev\n")] == ["PC501"]


def test_rows_from_the_log_are_checked_as_those_from_a_file(bench: Workbench) -> None:
    bad = [
        Row("p", ("role:x",), "g.csv", 1),
        Row("zz", (), "g.csv", 2),
        Row("g", (), "g.csv", 3),
        Row("p", ("role:x", "dataset.read", "dataset/a", "dev", "", "", "maybe"), "g.csv", 4),
    ]
    found = compile_texts(bench.model_text, bench.vocabulary_text, bad)
    assert isinstance(found, tuple)
    assert [item.code for item in found] == ["PC112", "PC110", "PC113", "PC101"]
    odd = [Row("p", ("role:\ud800", "dataset.\x00", "dataset/\u200b", "dev", "\ud800", "\ud800=", "allow"), "g.csv", 1)]
    assert isinstance(compile_policy(bench.model, bench.vocabulary, odd), tuple)


@pytest.mark.holds("adv_closed_functions")
@pytest.mark.parametrize(
    ("matcher", "code", "construct"),
    [
        ("actionMatch(p.act, r.act)", "PC202", "a pattern from the request (the field `r.act`) is refused"),
        ("actionMatch(r.act, 'dataset.read')", "PC202", "it takes a column"),
        ("r.act + 'x' == p.act", "PC202", "arithmetic"),
        ("lower(r.act)", "PC202", "`lower` is not supported"),
        ("r.act == p.act.verb", "PC202", "a column is text, without attributes"),
        ("eval('true')", "PC202", "it takes a column"),
        ("keyMatch(r.act, r.obj)", "PC202", "from the request"),
        ("keyMatch(r.act, 'a*b')", "PC301", "must be last"),
        ("timeMatch('yesterday', '_')", "PC212", "is not an instant"),
        ("keyMatch(r.act, 5)", "PC206", "functions take texts"),
        ("r.act == p.act && p.role", "PC205", "neither true nor false"),
        ("p.act == 5", "PC206", "cannot be compared"),
        ("r.act == p.act && (r.env in ('a', 5))", "PC206", "unlike kinds"),
        ("p.act == 'x'", "PC210", "reads nothing of the request"),
        ("r.act in p.act", "PC207", "of the request"),
    ],
)
def test_a_construct_outside_the_grammar_is_named(bench: Workbench, matcher: str, code: str, construct: str) -> None:
    lines = [line for line in bench.model_text.split("\n") if not line.startswith("m ")]
    model, found = parse_model("\n".join([*lines, f"m = {matcher}"]), file="model.conf")
    assert model is None
    assert [item.code for item in found] == [code], [str(item) for item in found]
    assert construct in found[0].message


def test_a_matcher_that_never_reads_its_conditions_is_refused(bench: Workbench) -> None:
    text = "\n".join(
        [line for line in bench.model_text.split("\n") if not line.startswith("m ")] + ["m = r.act == p.act"]
    )
    model, _ = parse_model(text, file="model.conf")
    assert model is not None
    refused = compile_policy(model, bench.vocabulary, ())
    assert isinstance(refused, tuple)
    assert [(item.code, "never reads the column `when`" in item.message) for item in refused] == [("PC202", True)]


def test_the_digest_of_rows_is_of_the_set_with_its_places() -> None:
    one, two = Row("p", ("a",), "f", 1, (4,)), Row("p", ("a",), "f", 2)
    assert rows_digest([one, two]) == rows_digest([two, one, one])
    assert rows_digest([one]) != rows_digest([two])
    assert rows_digest([Row("p", ("a",), "f", 1)]) == rows_digest([one])
    assert rows_digest([]) != rows_digest([one])


def test_a_snapshot_names_its_roles_and_groups(bench: Workbench) -> None:
    snapshot = bench.snapshot(
        GRANT
        + "g, user:a, role:x, dev\ng3, workload:spiffe://d/ns/web/**, segment:apps\ng3, segment:apps, segment:all\n"
        + "g3, model/fraud, segment:registry\ng3, endpoint/*, segment:serving\n"
    )
    assert isinstance(snapshot, Snapshot)
    assert snapshot.role_names == {"role:x"}
    assert snapshot.groups_of("g3", "workload:spiffe://d/ns/web/sa/shop", 0) == {"segment:apps", "segment:all"}
    assert snapshot.groups_of("g3", "workload:spiffe://d/ns/webx/sa/shop", 0) == frozenset()
    assert snapshot.groups_of("g3", "model/fraud@7", 0) == {"segment:registry"}
    assert snapshot.groups_of("g3", "endpoint/x", 0) == {"segment:serving"}
    assert snapshot.groups_of("g9", "endpoint/x", 0) == frozenset()
