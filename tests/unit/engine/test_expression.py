import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.engine.expression import And, Call, Compare, ExpressionError, Field, In, Literal, Not, Or, parse, walk
from pdp.limits import MAX_EXPRESSION_DEPTH


def test_and_binds_tighter_than_or_and_not_looser_than_a_comparison() -> None:
    tree = parse("!r.a == p.a && r.b == p.b || r.c == p.c")
    assert isinstance(tree, Or)
    first, second = tree.operands
    assert isinstance(second, Compare)
    assert isinstance(first, And)
    assert isinstance(first.operands[0], Not)
    assert isinstance(first.operands[0].operand, Compare)


def test_word_forms_mean_the_same() -> None:
    spelled, signs = (
        parse("not r.a == p.a and r.b == p.b or r.c == p.c"),
        parse("!r.a == p.a && r.b == p.b || r.c == p.c"),
    )
    assert type(spelled) is type(signs)
    assert isinstance(spelled, Or)


def test_operators_within_strings_are_text() -> None:
    tree = parse("r.a == '&& ! r.b #;'")
    assert isinstance(tree, Compare)
    assert isinstance(tree.right, Literal)
    assert tree.right.value == "&& ! r.b #;"


def test_in_takes_a_list_or_a_tuple() -> None:
    tree = parse('r.a not in ("x", "y")')
    assert isinstance(tree, Not)
    assert isinstance(tree.operand, In)
    assert len(tree.operand.items) == 2
    assert isinstance(parse('r.a in ["x"]'), In)
    assert isinstance(parse('r.a in ("x",)'), In)


def test_calls_and_attribute_paths() -> None:
    tree = parse("f(r.a.b.c, 1.5, true)")
    assert isinstance(tree, Call)
    assert isinstance(tree.arguments[0], Field)
    assert tree.arguments[0].rest == ("b", "c")


@pytest.mark.holds("adv_closed_functions")
@pytest.mark.parametrize(
    ("text", "code", "at"),
    [
        ("", "PC201", 0),
        ("r.a ==", "PC201", 6),
        ("r.a == p.a p.b", "PC201", 11),
        ("(r.a == p.a", "PC201", 11),
        ("r.a == p.a; true", "PC204", 10),
        ("r.a + 1 == p.a", "PC202", 4),
        ("r.a in 'x'", "PC207", 7),
        ("r.a in ('x')", "PC207", 7),
        ("r.a == 'x", "PC201", 7),
        ("r.a == 'x\\'", "PC201", 7),
        ("r.a == p.a == p.b", "PC201", 11),
        ("alice == r.a", "PC203", 0),
        ("r.1 == 2", "PC201", 2),
        ("f(r.a p.b)", "PC201", 6),
        ("r.a == 12345678901234567890", "PC201", 7),
        ("(" * 100, "PC201", 64),
        ("r.a == \u00e9", "PC201", 7),
    ],
)
def test_what_is_outside_the_grammar_is_refused_at_its_column(text: str, code: str, at: int) -> None:
    with pytest.raises(ExpressionError) as refused:
        parse(text)
    assert (refused.value.code, refused.value.at) == (code, at)


@pytest.mark.holds("L9", "adv_malformed_peer")
@given(st.text(alphabet="rp.ab&|!()=<>'\",; in12[]\n", max_size=60))
def test_any_text_is_a_tree_or_a_refusal(text: str) -> None:
    refusals = []
    try:
        parse(text)
    except ExpressionError as refused:
        refusals.append(refused)
    assert all(0 <= refused.at <= len(text) for refused in refusals)


@pytest.mark.parametrize("opener", ["(", "!", "g("])
def test_nesting_is_counted_and_not_left_to_the_stack(opener: str) -> None:
    closer = ")" if "(" in opener else ""
    for depth, taken in ((MAX_EXPRESSION_DEPTH - 1, True), (MAX_EXPRESSION_DEPTH, False)):
        text = opener * depth + "r.a" + closer * depth
        if taken:
            parse(text)
        else:
            with pytest.raises(ExpressionError, match="nested deeper"):
                parse(text)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("== r.a)", "PC201"),
        (", r.a)", "PC201"),
        ("[r.a)", "PC201"),
        (")", "PC201"),
        ("r.a ! r.b", "PC201"),
        ("r.a !", "PC201"),
        ('r.a in < "x", "y")', "PC207"),
        ('r.a in "(x"', "PC207"),
        ("r.a in 5", "PC207"),
        ("r.sub in p.sub", "PC207"),
        ("r.sub in f(r.obj, p.obj)", "PC207"),
        ("r.sub not in true", "PC207"),
        ("r.sub in p2.sub.list", "PC207"),
        ("r.a == 12345678901234567", "PC201"),
    ],
)
def test_what_only_looks_like_an_expression_is_refused(text: str, code: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert caught.value.code == code


def test_a_text_without_end_is_told_from_a_character_that_means_nothing() -> None:
    for text, message in (("r.a == 'x", "a string that does not end"), ("r.a == €", "is not part of an expression")):
        with pytest.raises(ExpressionError, match=message):
            parse(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("True", True),
        ("false", False),
        ("False", False),
        ("1234567890123456", 1234567890123456),
        ("1.5", 1.5),
    ],
)
def test_a_literal_has_its_value_and_kind(text: str, value: object) -> None:
    tree = parse(f"r.a == {text}")
    assert isinstance(tree, Compare)
    assert isinstance(tree.right, Literal)
    assert (tree.right.value, type(tree.right.value)) == (value, type(value))


def test_lists_may_be_empty_end_with_a_comma_and_hold_any_expression() -> None:
    for text, count in (("r.a in []", 0), ("r.a in ()", 0), ('r.a in ("x",)', 1), ('r.a in ["x", "y",]', 2)):
        tree = parse(text)
        assert isinstance(tree, In)
        assert len(tree.items) == count
        assert [type(node) for node in walk(tree)] == [In, Field, *[Literal] * count]
    call = parse("f(r.a || r.b, !r.c)")
    assert isinstance(call, Call)
    assert [type(each) for each in call.arguments] == [Or, Not]


def test_what_is_not_in_an_attribute_is_negated_and_the_attribute_is_looked_at() -> None:
    inside, outside = parse("p.obj in r.sub.list"), parse("p.obj not in r.sub.list")
    assert isinstance(inside, In)
    assert isinstance(outside, Not)
    assert isinstance(outside.operand, In)
    assert outside.operand.source is not None
    assert (outside.operand.source.name, outside.operand.source.rest) == ("sub", ("list",))
    assert [node.scope for node in walk(inside) if isinstance(node, Field)] == ["p", "r"]


def test_chains_of_one_operator_are_flat_with_and_without_brackets() -> None:
    for text in ("r.a && r.b && r.c", "(r.a && r.b) && r.c", "r.a && (r.b && r.c)"):
        tree = parse(text)
        assert isinstance(tree, And)
        assert [type(each) for each in tree.operands] == [Field] * 3
    mixed = parse("r.a || r.b && r.c || r.d")
    assert isinstance(mixed, Or)
    assert [type(each) for each in mixed.operands] == [Field, And, Field]


def test_the_length_of_an_expression_is_bounded_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdp.engine.expression.MAX_LINE_BYTES", len("r.a == r.b"))
    assert isinstance(parse("r.a == r.b"), Compare)
    with pytest.raises(ExpressionError, match="at most 10 characters") as caught:
        parse("r.a == r.b ")
    assert caught.value.code == "PC506"
