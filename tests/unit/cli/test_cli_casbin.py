"""`pdp policy` for files of Casbin."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Pdp = Callable[..., Any]

MODEL = """[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act, eft
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = r.sub == p.sub && r.obj == p.obj && r.act == p.act
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    model, policy = tmp_path / "model.conf", tmp_path / "policy.csv"
    model.write_text(MODEL, encoding="utf-8")
    policy.write_text("p, alice, data1, read, allow\n", encoding="utf-8")
    return model, policy


def test_lint_of_sound_files_accepts(pdp: Pdp, files: tuple[Path, Path]) -> None:
    ended = pdp("policy", "lint", "--from-casbin", *files)
    assert (ended.code, ended.out.splitlines()[0]) == (0, "0 traps")
    assert "our answer: accepted" in ended.out


def test_lint_names_the_trap_its_place_and_our_answer(pdp: Pdp, files: tuple[Path, Path]) -> None:
    files[1].write_text("p, alice, data1, read, allow\np, eve, data1, read, Deny\n", encoding="utf-8")
    ended = pdp("policy", "lint", "--from-casbin", *files)
    assert ended.code == 2
    assert ended.out.startswith(f"{files[1]}:2:22: D-04 PC101 unknown_effect: ")
    assert "1 traps: 1 refused\nour answer: refused" in ended.out
    told = pdp("policy", "lint", "--json", "--from-casbin", *files)
    (trap,) = told.json["traps"]
    assert (told.json["refused"], trap["divergence"], trap["code"], trap["line"]) == (True, "D-04", "PC101", 2)


def test_lint_of_a_model_that_we_do_not_serve(pdp: Pdp, files: tuple[Path, Path]) -> None:
    files[0].write_text(MODEL.replace("some(where (p.eft == allow)) && ", ""), encoding="utf-8")
    ended = pdp("policy", "lint", "--from-casbin", *files)
    assert (ended.code, "D-01 PC120 allow_by_default" in ended.out) == (2, True)


def test_lint_wants_either_a_pack_or_files_that_are_there(pdp: Pdp, files: tuple[Path, Path]) -> None:
    assert pdp("policy", "lint").code == 2
    assert pdp("policy", "lint", ".", "--from-casbin", *files).code == 2
    assert "cannot read" in pdp("policy", "lint", "--from-casbin", files[0], files[1].with_suffix(".none")).err
