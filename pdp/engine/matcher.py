"""What a matcher, or the text of an `eval` column, may say: names, arities and kinds, checked on its tree at load.

pycasbin finds these at the first request, or never (CASBIN.md D-17 to D-23). Here each is a problem with its offset.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from pdp.engine.expression import And, Call, Compare, Expression, Field, In, Literal, Not, Or, describe, reads, walk
from pdp.engine.findings import suggest
from pdp.engine.functions import FUNCTIONS, OWN_FUNCTIONS
from pdp.engine.patterns import OPEN_TIME, PATTERN_FUNCTIONS, PatternError, parse_time, read_pattern

Problem = tuple[str, str, int]
"""A code, a message, and the offset in the text."""

_COLUMN_CALLS: Final = ("when", "eval")
"""Calls whose argument is a column that holds a text to be compiled."""


class Scope(NamedTuple):
    """What an expression may name: fields by scope (`r`, `p2`), role sections with their places, functions of the caller."""

    fields: Mapping[str, tuple[str, ...]]
    places: Mapping[str, int]
    local: frozenset[str] = frozenset()


def check_expression(tree: Expression, scope: Scope, *, row_text: bool = False) -> Iterator[Problem]:
    """Yield what is wrong with a boolean expression; `row_text` if it stands in a row and so may not hold another."""
    found = [problem for node in walk(tree) for problem in _check_node(node, scope, row_text=row_text)]
    found[:0] = _check_truth(tree)
    yield from found
    if not found and not reads(tree, "r") and not any(_reads_elsewhere(node, scope) for node in walk(tree)):
        yield "PC210", "an expression that reads nothing of the request is always true or always false", 0


def _reads_elsewhere(node: Expression, scope: Scope) -> bool:
    """Tell whether a call reads what the tree does not show: a text of the row, the clock, or what the caller likes."""
    return isinstance(node, Call) and (node.function in {*_COLUMN_CALLS, "timeMatch"} or node.function in scope.local)


def _check_node(node: Expression, scope: Scope, *, row_text: bool) -> Iterator[Problem]:
    match node:
        case Field():
            yield from _check_field(node, scope.fields)
        case Call():
            yield from _check_call(node, scope, row_text=row_text)
        case Compare():
            yield from _check_compare(node)
        case In():
            yield from _check_in(node)
        case And() | Or():
            for operand in node.operands:
                yield from _check_truth(operand)
        case Not():
            yield from _check_truth(node.operand)


def column_patterns(call: Call) -> tuple[str, ...]:
    """Return the columns whose text a call reads as a pattern or an instant."""
    positions = {"timeMatch": (0, 1)}.get(call.function, (1,) if call.function in FUNCTIONS else ())
    arguments = (call.arguments[position] for position in positions)
    return tuple(node.name for node in arguments if isinstance(node, Field) and node.scope.startswith("p"))


def _check_field(node: Field, known: Mapping[str, tuple[str, ...]]) -> Iterator[Problem]:
    if node.scope not in known:
        yield "PC203", f"`{node.scope}` is not defined here; it is {' or '.join(known)}", node.at
    elif node.name not in known[node.scope]:
        yield "PC203", f"`{node.scope}` has no field `{node.name}`{suggest(node.name, known[node.scope])}", node.at
    elif node.rest and node.scope.startswith("p"):
        yield "PC202", f"{describe(node)} is not supported: a column is text, without attributes", node.at


def _check_call(node: Call, scope: Scope, *, row_text: bool) -> Iterator[Problem]:
    if node.function in scope.local:
        return
    wanted = _arity(node.function, scope.places)
    if wanted == 0 or (row_text and node.function in _COLUMN_CALLS):
        hint = suggest(node.function, (*FUNCTIONS, *scope.places, "timeMatch", *_COLUMN_CALLS))
        yield "PC202", f"the function `{node.function}` is not supported{'' if row_text else hint}", node.at
    elif len(node.arguments) != wanted:
        yield "PC202", f"`{node.function}` takes {wanted} arguments, not {len(node.arguments)}", node.at
    else:
        for argument in node.arguments:
            if not isinstance(argument, Field) and not (isinstance(argument, Literal) and type(argument.value) is str):
                yield "PC206", f"{describe(argument)} is no text; functions take texts", argument.at
        yield from _check_arguments(node)


def _arity(function: str, places: Mapping[str, int]) -> int:
    """Return how many arguments a function takes; 0 if there is no such function."""
    if function in places:
        return places[function]
    return {"when": 1, "eval": 1, "timeMatch": 2}.get(function, 2 if function in FUNCTIONS else 0)


def _check_arguments(node: Call) -> Iterator[Problem]:
    """Check that what is compiled at load stands in a column or in the matcher, never in the request."""
    compiled = {"when": (0,), "eval": (0,), "timeMatch": (0, 1)}.get(node.function, ())
    if node.function in FUNCTIONS:
        compiled = (1,)
    column_only = node.function in OWN_FUNCTIONS or node.function in _COLUMN_CALLS
    for position in compiled:
        argument = node.arguments[position]
        if isinstance(argument, Literal):
            if column_only:
                yield (
                    "PC202",
                    f"`{node.function}` of {describe(argument)} is not supported; it takes a column",
                    argument.at,
                )
            else:
                yield from _check_literal(node.function, str(argument.value), argument.at)
        elif isinstance(argument, Field) and argument.scope.startswith("r"):
            yield (
                "PC202",
                f"`{node.function}` with a pattern from the request ({describe(argument)}) is refused",
                argument.at,
            )


def _check_literal(function: str, text: str, at: int) -> Iterator[Problem]:
    try:
        if function in PATTERN_FUNCTIONS:
            read_pattern(function, text)
        elif function == "timeMatch" and text != OPEN_TIME:
            parse_time(text)
    except PatternError as error:
        yield error.code, error.message, at + 1 + error.at


def _check_truth(tree: Expression) -> Iterator[Problem]:
    """Refuse what is no truth value where one is wanted (D-20)."""
    column = isinstance(tree, Field) and tree.scope.startswith("p")
    if column or (isinstance(tree, Literal) and type(tree.value) is not bool):
        yield "PC205", f"{describe(tree)} is neither true nor false", tree.at


def _check_compare(node: Compare) -> Iterator[Problem]:
    left, right = _kind(node.left), _kind(node.right)
    unlike = left and right and left != right
    if unlike or (node.operator not in {"==", "!="} and "truth" in {left, right}):
        message = f"{describe(node.left)} and {describe(node.right)} cannot be compared with `{node.operator}`"
        yield "PC206", message, node.at


def _check_in(node: In) -> Iterator[Problem]:
    kinds = {_kind(node.left), *map(_kind, node.items)} - {""}
    if len(kinds) > 1:
        yield "PC206", f"`in` over values of unlike kinds ({', '.join(sorted(kinds))})", node.at


def _kind(tree: Expression) -> str:
    """Return what kind of value a tree has: a text, a number, a truth value; empty if only the request says."""
    if isinstance(tree, Literal):
        return _KINDS[type(tree.value)]
    if isinstance(tree, Field):
        return "text" if tree.scope.startswith("p") else ""
    return "truth"


_KINDS: Final[Mapping[Callable[..., object], str]] = MappingProxyType(
    {str: "text", int: "number", float: "number", bool: "truth"}
)
