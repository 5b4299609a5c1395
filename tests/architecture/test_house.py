"""The house stays the house: layers, sizes, one `casbin`, generated code that matches its source, and no way around them."""

import ast
import importlib
import statistics
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path
    for top in ("pdp", "sidecar")
    for path in (ROOT / top).rglob("*.py")
    if "v1" not in path.relative_to(ROOT).parts
)
LONGEST_FUNCTION = 60
LONG_FUNCTION = 30


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in MODULES}


@pytest.fixture(scope="module")
def functions(trees: dict[Path, ast.Module]) -> list[tuple[str, int]]:
    """Every function, and how many lines it has."""
    return list(measured(trees))


def measured(trees: dict[Path, ast.Module]) -> Iterator[tuple[str, int]]:
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                where = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
                yield where, node.end_lineno - node.lineno + 1


def test_no_function_is_over_sixty_lines(functions: list[tuple[str, int]]) -> None:
    assert [where for where, size in functions if size > LONGEST_FUNCTION] == []


def test_nine_functions_in_ten_are_under_thirty_lines(functions: list[tuple[str, int]]) -> None:
    sizes = [size for _, size in functions]
    assert statistics.quantiles(sizes, n=10)[-1] < LONG_FUNCTION


def test_the_executable_specification_stays_short() -> None:
    tree = ast.parse((ROOT / "pdp/engine/reference.py").read_text())
    docstrings = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node)
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    text = (ROOT / "pdp/engine/reference.py").read_text().splitlines()
    code = [
        line
        for number, line in enumerate(text, start=1)
        if line.strip() and not line.strip().startswith("#") and number not in docstrings
    ]
    assert len(code) <= 120


def test_every_module_says_what_it_is_for(trees: dict[Path, ast.Module]) -> None:
    assert [str(path) for path, tree in trees.items() if ast.get_docstring(tree) is None] == []


def test_casbin_comes_from_the_maintained_distribution() -> None:
    assert set(packages_distributions()["casbin"]) == {"pycasbin"}


def test_only_the_bridge_imports_casbin(trees: dict[Path, ast.Module]) -> None:
    importers = {
        str(path.relative_to(ROOT))
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "casbin" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "casbin")
    }
    assert importers <= {"pdp/adapters/casbin_bridge.py"}


def test_layers_hold() -> None:
    result = subprocess.run(  # the same command as `make lint`, so that a test run alone notices too
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "proto/pdp/v1").glob("*.proto")), ids=lambda path: path.stem)
def test_generated_code_describes_the_proto_it_came_from(path: Path) -> None:
    """Every message, field, service and method of the source stands in the generated descriptor (CI regenerates too)."""
    module = importlib.import_module(f"pdp.v1.{path.stem}_pb2")
    generated = {*module.DESCRIPTOR.message_types_by_name, *module.DESCRIPTOR.services_by_name}
    methods = {method.name for service in module.DESCRIPTOR.services_by_name.values() for method in service.methods}
    words = [line.split() for line in path.read_text().splitlines()]
    assert {line[1] for line in words if line[:1] in (["message"], ["service"])} == generated
    assert {line[1].split("(")[0] for line in words if line[:1] == ["rpc"]} == methods


def test_the_zero_value_of_the_effect_is_deny() -> None:
    types = importlib.import_module("pdp.v1.types_pb2")
    assert types.Effect.Name(0) == "EFFECT_DENY"


def test_no_committed_file_names_a_place_outside_the_project() -> None:
    """Lock files and documents carry names, versions and hashes, never an index or a path of the machine they grew on."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    locks = [ROOT / name for name in tracked if name.startswith("requirements/")]
    assert [
        f"{path.name}:{number}"
        for path in locks
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if "://" in line or "--index-url" in line
    ] == []
