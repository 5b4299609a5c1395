"""An expression as text again: for sentences that say which part of a matcher does not hold. Reading it gives the same tree."""

from collections.abc import Iterable

from pdp.engine.expression import And, Call, Compare, Expression, Field, In, Literal, Not, Or


def printed(tree: Expression) -> str:  # noqa: PLR0911 - one line for each kind of node
    """Return the text of `tree`, with brackets wherever two readers could differ."""
    match tree:
        case And():
            return " && ".join(_within(each) for each in tree.operands)
        case Or():
            return " || ".join(_within(each) for each in tree.operands)
        case Not():
            return f"!({printed(tree.operand)})"
        case Compare():
            return f"{_value(tree.left)} {tree.operator} {_value(tree.right)}"
        case In():
            items = f"({_list(tree.items)},)" if tree.items else "()"
            return f"{_value(tree.left)} in {printed(tree.source) if tree.source else items}"
        case Call():
            return f"{tree.function}({_list(tree.arguments)})"
        case Field():
            return ".".join((tree.scope, tree.name, *tree.rest))
        case Literal():
            return _literal(tree.value)


def _list(items: Iterable[Expression]) -> str:
    return ", ".join(map(printed, items))


def _within(tree: Expression) -> str:
    return f"({printed(tree)})" if isinstance(tree, And | Or) else printed(tree)


def _value(tree: Expression) -> str:
    return printed(tree) if isinstance(tree, Literal | Field | Call) else f"({printed(tree)})"


def _literal(value: str | float) -> str:
    if isinstance(value, str):
        return f"'{value}'" if '"' in value else f'"{value}"'
    return str(value)
