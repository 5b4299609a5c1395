import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.engine.casbin_text import EffectRule, Model, Row, parse_model, parse_rows, print_row, split_csv
from pdp.engine.expression import describe, walk
from pdp.errors import BadRequestError

GOOD = """
[request_definition]
r = sub, act, obj, env
[policy_definition]
p = role, act, obj, env, when, then, eft
[role_definition]
g = _, _, _, (_, _)
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = g(r.sub, p.role, r.env) && actionMatch(r.act, p.act) && when(p.when)
"""


def codes(text: str) -> list[tuple[str, int, int]]:
    model, found = parse_model(text, file="model.conf")
    assert (model is None) is bool(found)
    return [(item.code, item.line, item.column) for item in found]


def test_a_model_holds_its_sets_roles_and_effect() -> None:
    model, found = parse_model(GOOD, file="model.conf")
    assert model is not None
    assert found == ()
    assert model.sections == ("p", "g")
    assert model.contexts[""].request == ("sub", "act", "obj", "env")
    assert model.contexts[""].effect is EffectRule.ALLOW_AND_DENY
    assert model.contexts[""].condition_columns == {"when"}
    assert (model.roles["g"].places, model.roles["g"].temporal) == (3, True)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("&& !some(where (p.eft == deny))", "&& p.eft", [("PC102", 9, 5)]),
        ("some(where (p.eft == allow)) && !some", "!some", [("PC120", 9, 5)]),
        (
            "e = some(where (p.eft == allow)) && !some(where (p.eft == deny))",
            "e = priority(p.eft)",
            [("PC102", 9, 5)],
        ),
        ("[matchers]", "[matcher]", [("PC104", 1, 1), ("PC203", 10, 1)]),
        ("r = sub, act, obj, env", "r = sub, act, obj, env\nr = sub", [("PC118", 4, 1)]),
        ("r = sub, act, obj, env", "r = sub, act, obj, env\nr3 = sub", [("PC103", 4, 1)] * 3 + [("PC111", 4, 1)]),
        ("r = sub, act, obj, env", "r = sub, act, obj, env\nr2 = sub", [("PC103", 4, 1)] * 3),
        ("r = sub, act, obj, env", "r = sub, sub, act, obj, env", [("PC118", 3, 5)]),
        ("r = sub, act, obj, env", "r = sub, , act, obj, env", [("PC201", 3, 5)]),
        ("g = _, _, _, (_, _)", "g = _, x", [("PC201", 7, 5), ("PC202", 11, 5)]),
        ("when(p.when)", "when(p.wen)", [("PC203", 11, 66)]),
        ("when(p.when)", "when(q.when)", [("PC203", 11, 66)]),
        ("when(p.when)", "keyMatch9(r.obj, p.obj)", [("PC202", 11, 61)]),
        ("when(p.when)", "when(p.when, p.then)", [("PC202", 11, 61)]),
        ("when(p.when)", "when(p.when); True", [("PC204", 11, 73)]),
        ("when(p.when)", "when(p.when", [("PC201", 11, 72)]),
        ("when(p.when)", "when(p.when) # note", [("PC201", 11, 74)]),
        ("m = g", "m g", [("PC104", 1, 1), ("PC103", 11, 1)]),
        ("m = g", "x = g", [("PC104", 1, 1), ("PC203", 11, 1)]),
        ("[matchers]\n", "[matchers]\n\u200b", [("PC115", 11, 1)]),
        ("[matchers]\n", "[matchers]\r\n", [("PC115", 10, 11)]),
        ("when(p.when)", "\\\n  when(p.wen)", [("PC203", 12, 8)]),
        ("when(p.when)", "\\\n\n when(p.when)", [("PC201", 11, 1)]),
        ("when(p.when)", "\\\n# note\n when(p.when)", [("PC201", 11, 1)]),
        ("when(p.when)", "\\\n[when]", [("PC201", 11, 1), ("PC203", 12, 1)]),
        ("&& when(p.when)", "&& \\", [("PC201", 11, 1)]),
    ],
)
def test_each_fault_of_a_model_has_its_code_and_place(old: str, new: str, expected: list[tuple[str, int, int]]) -> None:
    assert old in GOOD
    found = codes(GOOD.replace(old, new))
    assert {code for code, _, _ in found} >= {code for code, _, _ in expected if code != "PC103"}
    assert set(found) >= {item for item in expected if item[0] not in {"PC103", "PC104"}}


def test_a_value_goes_on_behind_a_backslash() -> None:
    spread = GOOD.replace(" && ", " \\\n    && ").replace("r = sub,", "r = \\\n  sub,")
    assert spread.count("\n") > GOOD.count("\n") + 3
    one, other = (parse_model(text, file="model.conf") for text in (GOOD, spread))
    assert (one[1], other[1]) == ((), ())
    assert one[0] is not None
    assert other[0] is not None
    assert one[0].contexts[""].request == other[0].contexts[""].request
    assert one[0].contexts[""].effect is other[0].contexts[""].effect
    assert describe_all(one[0]) == describe_all(other[0])


def describe_all(model: Model) -> list[str]:
    return [describe(node) for node in walk(model.contexts[""].matcher)]


def test_a_byte_order_mark_is_refused() -> None:
    assert codes("\ufeff" + GOOD) == [("PC115", 1, 1)]


def rows_of(text: str) -> tuple[list[tuple[str, ...]], list[tuple[str, int, int]]]:
    model, _ = parse_model(GOOD, file="model.conf")
    assert model is not None
    rows, found = parse_rows(text, file="grants.csv", model=model)
    return [(row.section, *row.fields) for row in rows], [(item.code, item.line, item.column) for item in found]


def test_rows_are_read_with_quotes_blanks_and_comments() -> None:
    text = '# a comment, with a comma\n\np, role:x,a.b ,  "d/""e"", f" , dev, "size(x) > 1, y" ,, allow\n'
    assert rows_of(text) == ([("p", "role:x", "a.b", 'd/"e", f', "dev", "size(x) > 1, y", "", "allow")], [])


def test_open_time_bounds_may_be_left_out_or_written() -> None:
    written, _ = rows_of("g, user:a, role:x, dev, _, _\n")
    assert written == rows_of("g, user:a, role:x, dev\n")[0]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("p, role:x, a.b, c/d, dev, , , Allow", ("PC101", 1, 31)),
        ("p, role:x, a.b, c/d, dev, , , ", ("PC101", 1, 31)),
        ("P, role:x, a.b, c/d, dev, , , allow", ("PC110", 1, 1)),
        ("p3, role:x, a.b, c/d, dev, , , allow", ("PC110", 1, 1)),
        ("p, role:x, a.b, c/d, dev, , allow", ("PC112", 1, 1)),
        ("p, role:x, a.b, c/d, dev, , , allow,", ("PC112", 1, 1)),
        ("g, user:a, role:x", ("PC113", 1, 1)),
        ("g, user:a, role:x, dev, _", ("PC113", 1, 1)),
        ("g, user:a, , dev", ("PC115", 1, 12)),
        ("p, , a.b, c/d, dev, , , allow", ("PC115", 1, 4)),
        ('p, ro"le, a.b', ("PC114", 1, 6)),
        ('p, "role', ("PC114", 1, 4)),
        ('p, "role" x, a.b', ("PC114", 1, 4)),
        ("p, role:x\u200d, a.b, c/d, dev, , , allow", ("PC115", 1, 10)),
        ("p, role:e\u0301, a.b, c/d, dev, , , allow", ("PC115", 1, 1)),
        ("p, role:x, a.b, c/d, dev, , , allow\r", ("PC115", 1, 36)),
        (", role:x", ("PC110", 1, 1)),
    ],
)
def test_each_fault_of_a_row_has_its_code_and_place(row: str, expected: tuple[str, int, int]) -> None:
    rows, found = rows_of(row)
    assert found == [expected]
    assert rows == []


def test_every_fault_is_reported_at_once() -> None:
    _, found = rows_of("P, x\np, y\ng, z\n")
    assert [code for code, _, _ in found] == ["PC110", "PC112", "PC113"]


@given(
    st.lists(
        st.text(alphabet=st.characters(exclude_categories=("C", "Z"), exclude_characters="\t"), max_size=8), min_size=1
    )
)
def test_printing_and_splitting_gives_the_same_values(values: list[str]) -> None:
    line = print_row(Row("p", tuple(values), "f", 1))
    assert [value for value, _ in split_csv(line)] == ["p", *values]


def test_a_row_travels_as_json() -> None:
    row = Row("g", ("user:a", "role:x", "dev"), "a.csv", 7, (4, 12, 20))
    assert Row.from_json(row.to_json()) == row
    assert row.id == "a.csv:7"
    for raw in (
        None,
        [],
        ["g", ["a"], "f"],
        ["g", [1], "f", 1],
        ["g", "ab", "f", 1],
        ["g", ["a"], "f", "1"],
        ["g", ["a"], "f", True],
        ["g", ["a"], "f\n", 1],
    ):
        with pytest.raises(BadRequestError):
            Row.from_json(raw)
