import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.engine.expression import And, Call, Compare, ExpressionError, Field, In, Literal, Not, Or, parse


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
