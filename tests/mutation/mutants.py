"""Mutants: the functions of a module with one small change each, and how one of them takes its original's place.

A comparison turned, a condition forced, `and` for `or`, a part of a condition left out, a number moved by one. Only what a
function *does* is changed: its defaults, annotations and decorators are not, nor are tables and patterns at module level.
"""

import ast
import copy
import gc
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import _lru_cache_wrapper
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_OPPOSITES = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.In: ast.NotIn,
    ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip


Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change: the file and line, what it is, and the function that has it (`owner` is its class, or empty)."""

    path: str
    line: int
    change: str
    owner: str
    node: Function

    def __str__(self) -> str:
        return f"{Path(self.path).name}:{self.line} {self.owner and self.owner + '.'}{self.node.name}: {self.change}"


def mutants(path: str) -> Iterator[Mutant]:
    """Yield every mutant of the functions in a file, named from the root of the tree."""
    for owner, function in _functions(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        for position, node in enumerate(_body(function)):
            for choice in range(_choices(node)):
                other = copy.deepcopy(function)
                told = _mutate(list(_body(other))[position], choice)
                ast.fix_missing_locations(other)
                line: int = getattr(node, "lineno", function.lineno)
                yield Mutant(path=path, line=line, change=told, owner=owner, node=other)


def unchanged(path: str) -> Mutant:
    """Return a mutant without a change: the tests must hold with it."""
    owner, function = next(_functions(ast.parse((ROOT / path).read_text(encoding="utf-8"))))
    return Mutant(path=path, line=function.lineno, change="nothing", owner=owner, node=function)


def install(mutant: Mutant) -> None:
    """Put a mutant's code into the function that everybody holds."""
    module = importlib.import_module(mutant.path.removesuffix(".py").replace("/", "."))
    found: Any = getattr(module, mutant.owner).__dict__ if mutant.owner else module.__dict__
    found = found[mutant.node.name]
    for inner in ("fget", "__func__", "__wrapped__"):
        found = getattr(found, inner, None) or found
    found.__code__ = _code(mutant, module.__dict__)
    for item in gc.get_objects():
        if isinstance(item, _lru_cache_wrapper) and item.__module__.startswith("pdp."):
            item.cache_clear()


def _code(mutant: Mutant, names: dict[str, Any]) -> Any:
    node = copy.deepcopy(mutant.node)
    node.decorator_list, node.returns = [], None
    body: list[ast.stmt] = [node]
    if mutant.owner:  # inside its class, so that `super()` and private names mean what they mean there
        body = [ast.ClassDef(name=mutant.owner, bases=[], keywords=[], body=[node], decorator_list=[])]
    tree = ast.fix_missing_locations(ast.Module(body=body, type_ignores=[]))
    scope: dict[str, Any] = {}
    exec(compile(tree, mutant.path, "exec"), dict(names), scope)  # noqa: S102 - our own source with one change
    made = scope[mutant.owner].__dict__[node.name] if mutant.owner else scope[node.name]
    return made.__code__


def _functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    for node in tree.body:
        if isinstance(node, Function):
            yield "", node
        if isinstance(node, ast.ClassDef):
            yield from ((node.name, item) for item in node.body if isinstance(item, Function))


def _body(function: Function) -> Iterator[ast.AST]:
    for statement in function.body:
        yield from ast.walk(statement)


def _choices(node: ast.AST) -> int:
    """Return how many changes a node can have."""
    match node:
        case ast.If() | ast.IfExp():
            return 2
        case ast.Constant():
            return int(type(node.value) in {int, bool})
        case ast.BoolOp():
            return 1 + len(node.values)
        case ast.comprehension():
            return len(node.ifs)
        case ast.Compare():
            return len(node.ops)
        case _:
            return int(isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not))


def _mutate(node: Any, choice: int) -> str:
    """Change a node in place; return what was done, in words."""
    before = ast.unparse(node).strip().split("\n")[0]
    match node:
        case ast.If() | ast.IfExp():
            node.test = ast.Constant(value=bool(choice))
            done = f"always {bool(choice)}"
        case ast.Constant():
            node.value = (not node.value) if isinstance(node.value, bool) else node.value + 1
            done = f"becomes `{node.value}`"
        case ast.BoolOp():
            done = _bend(node, choice)
        case ast.comprehension():
            done = f"without `if {ast.unparse(node.ifs.pop(choice))}`"
        case ast.Compare():
            node.ops[choice] = _OPPOSITES[type(node.ops[choice])]()
            done = "turned" if len(node.ops) == 1 else f"turned at {choice + 1}"
        case _:
            node.operand = ast.UnaryOp(op=ast.Not(), operand=node.operand)
            done = "without `not`"
    return f"`{before}` {done}"


def _bend(node: ast.BoolOp, choice: int) -> str:
    if not choice:
        node.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
        return "with the other operator"
    left = ast.unparse(node.values.pop(choice - 1))
    if len(node.values) == 1:  # a `BoolOp` has two parts: `True and x` is `x`
        node.op, node.values = ast.And(), [ast.Constant(value=True), *node.values]
    return f"without `{left}`"
