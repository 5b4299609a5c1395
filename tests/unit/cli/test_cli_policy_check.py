"""`pdp policy check`: what CI learns of a change before anybody is asked, and what a hostile pack cannot make of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_pdp import ScriptedPdp

from pdp.v1 import policy_pb2
from tests.support.office import Office, in_office

Pdp = Callable[..., Any]
POLICIES = Path(__file__).parents[3] / "policies"
ADA, EVE = "user:ada@x.org", "user:eve@x.org"
PEOPLE = f"g, {ADA}, role:policy-admin, prod\ng, {EVE}, role:policy-approver, prod\n"
INSIDER = "g, user:bob@x.org, role:app, prod\n"
TEST = """
- name: "{name}"
  ask: {{subject: "user:nobody@x.org", action: dataset.read, resource: dataset/sales}}
  want: {{effect: allow}}
"""


def pack(directory: Path, **files: str) -> Path:
    """Return the shipped pack without its tests, with people and with `files`, in which `_` stands for a point."""
    made = Path(shutil.copytree(POLICIES, directory, ignore=shutil.ignore_patterns("tests", "golden")))
    (made / "people.csv").write_text(PEOPLE)
    for name, text in files.items():
        path = made / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return made


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tmp_path_factory.mktemp("live") / "pack")


def test_what_changes_nothing_is_good(pdp: Pdp, live: Path, tmp_path: Path) -> None:
    ended = pdp("policy", "check", pack(tmp_path / "same"), "--against", live)
    assert (ended.code, ended.out.splitlines()[-1]) == (0, "good: nothing would change")


def test_a_change_in_production_waits_for_an_approval_and_says_whose(pdp: Pdp, live: Path, tmp_path: Path) -> None:
    proposed = pack(tmp_path / "new", more_csv=INSIDER)
    ended = pdp("policy", "check", proposed, "--against", live, "--json")
    change = ended.json["change"]
    assert (ended.code, ended.json["exit_code"]) == (8, 8)
    assert (change["approvals_needed"], change["makers"], change["touches"]) == (1, {ADA: 1}, ["production"])
    assert EVE in change["approvers"]
    assert change["counts"]["gains"] == len(change["cells"]) > 0
    told = pdp("policy", "check", proposed, "--against", live).out
    assert "gains" in told
    assert f"it needs 1 approval, of {ADA}, {EVE}" in told


def test_who_gains_by_it_is_no_author_of_it(pdp: Pdp, live: Path, tmp_path: Path) -> None:
    proposed = pack(tmp_path / "mine", more_csv=f"g, {ADA}, role:app, prod\n")
    ended = pdp("policy", "check", proposed, "--against", live, "--author", ADA, "--json")
    assert (ended.code, ended.json["change"]["makers"]) == (3, {})
    assert ADA not in ended.json["change"]["approvers"]


def test_rights_by_a_group_count_and_a_group_that_gains_is_no_author(pdp: Pdp, tmp_path: Path) -> None:
    admins = "g, group:ml-admins@x.org, role:policy-admin, prod\n"
    held = pack(tmp_path / "held", people_csv=admins)
    proposed = pack(tmp_path / "new", people_csv=admins, more_csv=INSIDER)
    told = pdp("policy", "check", proposed, "--against", held, "--json").json["change"]
    assert (told["makers"], told["approvers"]) == ({"group:ml-admins@x.org": 1}, ["group:ml-admins@x.org"])
    by = ("--author", "user:kim@x.org", "--group", "group:ml-admins@x.org")
    assert pdp("policy", "check", proposed, "--against", held, *by, "--json").json["change"]["makers"] == {by[1]: 1}
    assert pdp("policy", "check", proposed, "--against", held, *by[2:]).code == 2
    gaining = pack(tmp_path / "mine", people_csv=admins, more_csv="g, group:ml-admins@x.org, role:app, prod\n")
    assert pdp("policy", "check", gaining, "--against", held).code == 3


def test_findings_and_failing_tests_refuse(pdp: Pdp, live: Path, tmp_path: Path) -> None:
    broken = pack(tmp_path / "broken", bad_csv="p, role:x, dataset.read\n")
    ended = pdp("policy", "check", broken, "--against", live)
    assert (ended.code, ended.out.splitlines()[0].startswith("bad.csv:1:")) == (2, True)
    failing = pack(tmp_path / "failing", tests__a_yaml=TEST.format(name="anybody reads"))
    ended = pdp("policy", "check", failing, "--against", live)
    assert (ended.code, ended.out.splitlines()[-1]) == (2, "refused: 0 errors, 1 of 1 test failed")
    assert "tests/a.yaml:2: anybody reads: wanted allow, got deny" in ended.out


def test_annotations_name_file_and_line(pdp: Pdp, live: Path, tmp_path: Path) -> None:
    broken = pack(tmp_path / "broken", bad_csv="\np, role:x, dataset.read\n")
    first = pdp("policy", "check", broken, "--against", live, "--github").out.splitlines()[0]
    assert first.startswith(f"::error file={broken}/bad.csv,line=2,col=1,title=PC112::wrong_arity: ")


def test_a_name_in_a_pack_gives_the_runner_no_command(pdp: Pdp, live: Path, tmp_path: Path) -> None:
    name = "x\\n::stop-commands::y\\r::add-mask::z\\u2028::debug::%0A"
    proposed = pack(tmp_path / "evil", tests__a_yaml=TEST.format(name=name))
    ended = pdp("policy", "check", proposed, "--against", live, "--github")
    commands = [line for line in ended.out.splitlines() if line.startswith("::")]
    assert ended.code == 2
    assert [line.partition(" ")[0] for line in commands] == ["::error", "::error"]
    assert "x%0A::stop-commands::y%0D::add-mask::z\\u2028::debug::%250A" in commands[0]


def test_the_live_policy_keeps_what_comes_from_no_pack(pdp: Pdp, server: ScriptedPdp, tmp_path: Path) -> None:
    proposed = pack(tmp_path / "new", more_csv=INSIDER)
    rows = [
        {"id": "edits.csv:1", "section": "g", "fields": ["user:kim@x.org", "role:viewer", "dev"]},
        {
            "id": "access.csv:1",
            "section": "p",
            "fields": ["role:viewer", "dataset.list", "dataset/**", "*", "", "", "allow"],
        },
    ]
    texts = {
        name: (proposed / f"{name}.{kind}").read_text() for name, kind in (("model", "conf"), ("vocabulary", "yaml"))
    }
    held = [policy_pb2.PolicyRow(**row) for row in rows]  # type: ignore[arg-type]
    server.script("PolicyService/Get", policy_pb2.GetPolicyResponse(revision="r", world_seq=9, rows=held, **texts))
    from_pdp = pdp("policy", "check", proposed, "--json").json["change"]
    assert from_pdp["rows_removed"] == 0
    (tmp_path / "live.json").write_text(json.dumps({"revision": "r", "world_seq": 9, "rows": rows, **texts}))
    assert pdp("policy", "check", proposed, "--against", tmp_path / "live.json", "--json").json["change"] == from_pdp


def test_a_state_directory_is_compared_with_without_a_pdp(pdp: Pdp, tmp_path: Path) -> None:
    async def nothing(_: Office) -> None:
        pass

    state = in_office(tmp_path, nothing)
    told = pdp("policy", "check", pack(tmp_path / "new"), "--against", state, "--json").json
    assert told["change"]["makers"]


@pytest.mark.parametrize("what", ["nowhere", "file"])
def test_what_is_none_of_them_is_said(pdp: Pdp, live: Path, tmp_path: Path, what: str) -> None:
    (tmp_path / "file").write_text("{}")
    ended = pdp("policy", "check", live, "--against", tmp_path / what)
    assert ended.code == 2
    assert what in ended.err
