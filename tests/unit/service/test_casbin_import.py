"""A Casbin policy becomes a pack, whole or not at all; what matches less here is told, and a deny of that kind waits."""

from pathlib import Path

from pdp.engine.casbin_text import Row
from pdp.engine.pack import Pack, load_pack
from pdp.service.casbin_import import import_policy, pack_of

ROOT = Path(__file__).parents[3]
SHIPPED = (ROOT / "policies/model.conf").read_text(encoding="utf-8")
ROLES = """[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act, eft
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = r.sub == p.sub && r.obj == p.obj && r.act == p.act
"""


def rows(*each: tuple[str, ...]) -> tuple[Row, ...]:
    return tuple(Row(section, tuple(fields), "rows", line) for line, (section, *fields) in enumerate(each, start=1))


def test_rows_become_a_pack_that_loads() -> None:
    made = import_policy(ROLES, rows(("p", "alice", "data, 1", "read", "allow")))
    assert made.refused == ()
    pack = load_pack(made.files)
    assert isinstance(pack, Pack)
    assert [row.fields for row in pack.rows] == [("alice", "data, 1", "read", "allow")]
    assert set(made.files) == {"model.conf", "vocabulary.yaml", "policy.csv", "tests/imported.yaml"}


def test_rows_of_our_own_model_bring_the_vocabulary_that_they_need() -> None:
    made = import_policy(
        SHIPPED,
        rows(
            ("p", "role:a", "dataset.read|list", "dataset/**", "dev", "resource.signed", "", "allow"),
            ("p2", "segment:a", "*", "segment:b", "", "allow"),
            ("g", "user:u", "role:a", "dev"),
        ),
    )
    assert made.refused == ()
    assert b"dataset: {verbs: [list, read]}" in made.files["vocabulary.yaml"]
    assert b"resource.signed: {type: bool}" in made.files["vocabulary.yaml"]


def test_a_trap_that_is_refused_refuses_the_import() -> None:
    made = import_policy(ROLES, rows(("p", "alice", "data1", "read", "Deny"), ("p", "bob", "data1", "read", "allow")))
    assert [reason.split(": ")[0] for reason in made.refused] == ["rows:1:1"]
    assert "D-04 PC101 unknown_effect" in made.refused[0]


def test_a_row_of_a_type_that_the_model_does_not_define_is_not_lost() -> None:
    made = import_policy(ROLES, rows(("p", "alice", "data1", "read", "allow"), ("p2", "eve", "data1", "read", "deny")))
    assert "D-09 PC110 unknown_ptype" in made.refused[0]


def test_a_model_that_is_none_is_refused_with_its_findings() -> None:
    made = pack_of("[matchers]\nm = \n", ())
    assert {found.code for found in made.findings} >= {"PC104", "PC201"}
    assert import_policy("[matchers]\nm = \n", ()).refused


def test_a_value_that_would_turn_into_a_rule_is_refused() -> None:
    """D-14: saved as text and loaded again, what stands behind the line break would be a rule of its own."""
    made = import_policy(ROLES, rows(("p", "alice", "data1\np, eve, data1, read, allow", "read", "allow")))
    assert ["D-14 PC116 unrepresentable" in reason for reason in made.refused] == [True]


def test_a_deny_that_matches_less_here_waits_for_somebody_to_acknowledge_it() -> None:
    model = ROLES.replace("r.obj == p.obj", "keyMatch2(r.obj, p.obj)")
    policy = rows(("p", "alice", "/v1.0/x", "read", "deny"), ("p", "bob", "/v1.0/x", "read", "allow"))
    waits = import_policy(model, policy)
    assert ["D-28" in reason and "rows:1" in reason for reason in waits.refused] == [True]
    assert [trap.line for trap in waits.narrower] == [1, 2]
    taken = import_policy(model, policy, acknowledged=True)
    assert taken.refused == ()
    assert taken.files["policy.csv"].startswith(b"# acknowledged: D-28, row 1: ")
    assert isinstance(load_pack(taken.files), Pack)
