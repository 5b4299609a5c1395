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
    assert "1 trap: 1 refused\nour answer: refused" in ended.out
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


def test_import_writes_a_pack_that_tests_and_verifies(pdp: Pdp, files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "pack"
    ended = pdp("policy", "import", "--model", files[0], "--policy", files[1], "--out", out)
    assert (ended.code, "1 row in" in ended.out) == (0, True)
    assert pdp("policy", "lint", out).code == 0
    assert pdp("policy", "test", out).out == "0 of 0 tests passed\n"
    told = pdp("policy", "verify", out)
    assert (told.code, told.out) == (0, "1 question, 0 differences, 0 unlisted\n")
    assert pdp("policy", "import", "--model", files[0], "--policy", files[1], "--out", out).code == 2


def test_import_through_an_adapter(pdp: Pdp, files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "pack"
    adapter = f'casbin.persist.adapters:FileAdapter("{files[1]}")'
    ended = pdp("policy", "import", "--model", files[0], "--adapter", adapter, "--out", out, "--json")
    assert (ended.code, ended.json["refused"]) == (0, [])
    assert (out / "policy.csv").read_text(encoding="utf-8") == "p, alice, data1, read, allow\n"


def test_a_refused_import_writes_nothing(pdp: Pdp, files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "pack"
    files[1].write_text('p, alice, data1, read, allow\n"p", eve, data1, read, deny # ours\n', encoding="utf-8")
    ended = pdp("policy", "import", "--model", files[0], "--policy", files[1], "--out", out)
    assert (ended.code, out.exists()) == (2, False)
    assert pdp("policy", "import", "--model", files[0], "--out", out).code == 2


def test_verify_asks_the_decisions_of_a_log(pdp: Pdp, tmp_path: Path) -> None:
    policies = Path(__file__).parents[3] / "policies"
    ended = pdp("policy", "verify", policies, "--audit", tmp_path / "none")
    assert (ended.code, "cannot read" in ended.err) == (2, True)
    log = tmp_path / "log"
    log.mkdir()
    told = pdp("policy", "verify", policies, "--audit", log, "--decisions", "5", "--json")
    assert (told.code, told.json["differences"], told.json["skipped"]) == (0, [], 0)


def test_the_page_for_migrants_shows_what_lint_prints(
    pdp: Pdp, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    files[0].write_text(MODEL.replace("r.obj == p.obj", "keyMatch(r.obj, p.obj)"), encoding="utf-8")
    files[1].write_text(
        "p, alice, data1, read, allow\np, eve, data1, read, Deny\np, bob, /models/*/metadata, read, allow\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(files[0].parent)
    page = (Path(__file__).parents[3] / "docs/casbin.md").read_text(encoding="utf-8")
    assert pdp("policy", "lint", "--from-casbin", files[0].name, files[1].name).out in page
