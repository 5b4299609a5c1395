"""Mutation testing of `pdp.identity`: `python -m tests.mutation.identity`. One small change at a time, and does a test notice?

Each mutant is one function with one change: a comparison turned, a condition forced, a refusal left away, `and` for `or`, a
number moved by one. It takes the place of the original inside a forked process, in two stages: first every case of
`tests/attacks/test_token_doors.py` through the `Authenticator`; what survives meets the unit tests of the room. What survives
both is printed; `docs/mutation-identity.md` says of each why it is no hole.
"""

import ast
import asyncio
import copy
import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import _lru_cache_wrapper
from pathlib import Path
from typing import Any

import pytest

from pdp.identity.certificates import PeerCertificate
from pdp.identity.proof import BoundRequest
from pdp.identity.types import Refusal
from tests.attacks import test_token_doors as doors

ROOT = Path(__file__).parents[2]
MODULES = (
    "gate", "profiles", "keyset", "signature", "claims", "proof", "binding", "kubernetes", "delegation", "spiffe",
    "certificates", "verifier",
)  # fmt: skip
UNIT = {
    "keyset": ("tests/unit/identity/test_keyset.py", "tests/unit/identity/test_rfc7520.py"),
    "claims": ("tests/unit/identity/test_claims.py", "tests/unit/docs/test_identity_page.py"),
    "proof": ("tests/unit/identity/test_proof.py",),
    "spiffe": ("tests/unit/identity/test_certificates.py",),
    "certificates": ("tests/unit/identity/test_certificates.py",),
    "verifier": ("tests/unit/identity/test_certificates.py", "tests/attacks/test_workload_tokens.py"),
    "kubernetes": ("tests/attacks/test_workload_tokens.py",),
}
"""The tests that a survivor of the table meets, by module; the others have none of their own but the slow ones."""
PATIENCE_S = 60
_OPPOSITES = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.In: ast.NotIn,
    ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change: where it is, what it is, and the function that has it."""

    module: str
    line: int
    change: str
    function: str
    node: ast.FunctionDef

    def __str__(self) -> str:
        return f"{self.module}.py:{self.line} {self.function}: {self.change}"


def mutants(module: str) -> Iterator[Mutant]:
    """Yield every mutant of a module's functions."""
    tree = ast.parse((ROOT / "pdp/identity" / f"{module}.py").read_text())
    for owner, function in _functions(tree):
        for position, node in enumerate(ast.walk(function)):
            for change in range(_choices(node)):
                other = copy.deepcopy(function)
                changed = list(ast.walk(other))[position]
                told = _mutate(changed, change)
                ast.fix_missing_locations(other)
                name = f"{owner}.{function.name}" if owner else function.name
                yield Mutant(module=module, line=node.lineno, change=told, function=name, node=other)  # type: ignore[attr-defined]


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield "", node
        if isinstance(node, ast.ClassDef):
            yield from ((node.name, item) for item in node.body if isinstance(item, ast.FunctionDef))


def _choices(node: ast.AST) -> int:
    if isinstance(node, ast.If | ast.IfExp):
        return 2
    if isinstance(node, ast.Constant):
        return 1 if type(node.value) is int or node.value is True or node.value is False else 0
    if isinstance(node, ast.BoolOp):
        return 1 + len(node.values)
    unary = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    return int(unary or (isinstance(node, ast.Compare) and type(node.ops[0]) in _OPPOSITES))


def _mutate(node: Any, choice: int) -> str:
    before = ast.unparse(node).split("\n")[0]
    if isinstance(node, ast.If | ast.IfExp):
        node.test = ast.Constant(value=bool(choice))
        return f"`{before}` always {bool(choice)}"
    if isinstance(node, ast.Constant):
        node.value = (not node.value) if isinstance(node.value, bool) else node.value + 1
        return f"`{before}` becomes `{node.value}`"
    if isinstance(node, ast.BoolOp):
        if choice:
            left = ast.unparse(node.values.pop(choice - 1))
            return f"`{left}` left out of `{before}`"
        node.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
        return f"`{before}` with the other operator"
    if isinstance(node, ast.UnaryOp):
        node.op = ast.UAdd() if isinstance(node.operand, ast.Constant) else ast.Not()
        node.operand = ast.UnaryOp(op=ast.Not(), operand=node.operand)
        return f"`{before}` without `not`"
    node.ops[0] = _OPPOSITES[type(node.ops[0])]()
    return f"`{before}` turned"


def install(mutant: Mutant) -> None:
    """Put a mutant's code into the function that everybody holds."""
    module = importlib.import_module(f"pdp.identity.{mutant.module}")
    owner, _, name = mutant.function.rpartition(".")
    found: Any = getattr(module, owner).__dict__[name] if owner else getattr(module, name)
    for inner in ("fget", "__func__", "__wrapped__"):
        found = getattr(found, inner, None) or found
    node = mutant.node
    node.decorator_list, node.returns = [], None
    scope: dict[str, Any] = {}
    code = compile(ast.Module(body=[node], type_ignores=[]), f"{mutant.module}.py", "exec")
    exec(code, module.__dict__ | {}, scope)  # noqa: S102 - what is executed is our own source with one change
    found.__code__ = scope[node.name].__code__
    for item in gc.get_objects():
        if isinstance(item, _lru_cache_wrapper) and item.__module__.startswith("pdp.identity"):
            item.cache_clear()


def judge_all() -> bool:
    """Tell whether every case of the table comes out as it must."""

    async def outcome(case: doors.Case) -> Any:
        door = case.authenticator()
        peer = PeerCertificate.from_der(case.certificate) if case.certificate else None
        if isinstance(peer, Refusal):
            return peer.reason
        text = case.proof(doors.ORIGIN + doors.UNARY)
        request = BoundRequest(method="POST", uri=doors.ORIGIN + doors.UNARY, proof=text)
        for _ in range(case.before + 1):
            found = await door.authenticate(case.authorization, peer, locks=case.locks, request=request)
        return (found.reason, found.dpop) if isinstance(found, Refusal) else (None, False)

    async def all_of_them() -> bool:
        for case in doors.CASES:
            found = await outcome(case)
            if found not in ((case.reason, case.dpop), case.reason):
                return False
        return True

    return asyncio.run(all_of_them())


def survives(mutant: Mutant) -> bool:
    """Tell whether no test notices a mutant; in a process of its own, with an end."""
    child = os.fork()
    if child == 0:
        os._exit(_run(mutant))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _run(mutant: Mutant) -> int:
    signal.alarm(PATIENCE_S)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    try:
        install(mutant)
        if not judge_all():
            return 1
        return (
            int(
                pytest.main(
                    [
                        "-x",
                        "-q",
                        "-p",
                        "no:cacheprovider",
                        "-W",
                        "ignore",
                        "--timeout",
                        "0",
                        *UNIT.get(mutant.module, ()),
                    ]
                )
            )
            if mutant.module in UNIT
            else 0
        )
    except BaseException:  # noqa: BLE001 - whatever a mutant breaks, it was noticed
        return 1


def main(names: list[str]) -> None:
    """Print the survivors of the modules named, or of all."""
    function = next(node for _, node in _functions(ast.parse((ROOT / "pdp/identity/binding.py").read_text())))
    nothing = Mutant(module="binding", line=1, change="none", function="Connection.proof", node=function)
    if not survives(nothing):
        raise SystemExit("the tests do not hold without any change: a mutant that dies would mean nothing")
    for name in names or MODULES:
        wanted = list(mutants(name))
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            alive = [mutant for mutant, lives in zip(wanted, pool.map(survives, wanted), strict=True) if lives]
        sys.stdout.write(f"{name}: {len(wanted)} mutants, {len(alive)} survive\n")
        sys.stdout.writelines(f"  {mutant}\n" for mutant in alive)
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
