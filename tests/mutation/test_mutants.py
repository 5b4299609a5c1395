"""The mutation runner itself: it changes what a function does, in place, and every change is one that code can notice."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation.mutants import ROOT, Function, mutants
from tests.mutation.table import TABLE


@pytest.mark.parametrize("path", TABLE)
def test_every_mutant_differs_from_its_original_by_what_it_says(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, Function)}
    found = list(mutants(path))
    assert len(found) > 5
    assert not [str(mutant) for mutant in found if ast.unparse(mutant.node) in functions]
    for mutant in found:
        compile(ast.Module(body=[mutant.node], type_ignores=[]), path, "exec")


@pytest.mark.parametrize("path", TABLE)
def test_the_tests_that_the_table_names_exist(path: str) -> None:
    assert all((ROOT / test).is_file() for test in TABLE[path].tests)


def test_a_file_that_the_table_does_not_know_is_refused_with_those_it_knows() -> None:
    command = [sys.executable, "-m", "tests.mutation", "pdp/errors.py"]
    done = subprocess.run(command, cwd=Path(ROOT), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pdp/engine/evaluate.py" in done.stderr
