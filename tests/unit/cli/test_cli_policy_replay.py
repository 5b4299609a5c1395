"""What a pack would have done to logged traffic: read from a state directory, and from a PDP."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_pdp import ScriptedPdp

from pdp.audit.chain import START, seal
from pdp.v1 import asset_pb2, audit_pb2, policy_pb2, types_pb2
from tests.support.office import BOB, EVE, PEOPLE, Office, in_office

Pdp = Callable[..., Any]
PACK = Path(__file__).parents[3] / "policies"
DENY = "p, role:data-scientist, dataset.read, dataset/sales, *, , , deny\n"


async def traffic(office: Office) -> None:
    for _ in range(3):
        await office.ask(BOB, "dataset.read", "dataset/sales")
    await office.ask(EVE, "dataset.read", "dataset/sales")
    await office.ask(EVE, "dataset.list", "dataset/sales")
    # What was changed since is not blamed on the pack: live and proposed policy are both decided here.
    await office.rows("g, user:new@x.org, role:viewer, dev\n")
    await office.publisher.publish(
        "lock",
        {
            "id": "l1", "target": {"kind": "principal", "principal": BOB}, "reason": "test", "source": "user:test",
            "start_ms": office.clock.now_ms(), "end_ms": 0,
        },
        author="user:test",
    )  # fmt: skip


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return in_office(tmp_path_factory.mktemp("office"), traffic)


@pytest.fixture
def proposed(tmp_path: Path) -> Path:
    pack = Path(shutil.copytree(PACK, tmp_path / "proposed", ignore=shutil.ignore_patterns("tests", "golden")))
    people = PEOPLE.replace("role:viewer", "role:data-scientist")
    (pack / "people.csv").write_text(people + "g, user:new@x.org, role:viewer, dev\n" + DENY.replace("sales", "other"))
    return pack


def test_flips_are_counted_by_rule_subject_and_resource(pdp: Pdp, state: Path, proposed: Path) -> None:
    told = pdp("policy", "diff", proposed, "--replay", "7d", "--state-dir", state, "--json").json
    (flip,) = told["flips"]
    assert (told["decided"], flip["decisions"], flip["change"]) == (5, 1, "gains")
    assert (flip["subject"], flip["action"], flip["resource"]) == (EVE, "dataset.read", "dataset/sales")
    assert (told["by_subject"], told["by_resource"]) == ({EVE: 1}, {"dataset/sales": 1})
    assert set(told["by_rule"]) == set(flip["after"]["determining"]) != set()


def test_a_loss_counts_every_decision_and_names_the_rule_that_makes_it(pdp: Pdp, state: Path, proposed: Path) -> None:
    with (proposed / "people.csv").open("a") as file:
        file.write(DENY)
    ended = pdp("policy", "diff", proposed, "--replay", "7d", "--state-dir", state)
    assert ended.code == 0
    assert "3 of 5 logged decisions would be answered otherwise" in ended.out
    first = ended.out.splitlines()[1].split()
    assert first[:5] == ["loses", "3", BOB, "dataset.read", "dataset/sales"]
    assert "people.csv:5  3" in ended.out


def test_what_is_older_than_the_window_is_left_out(
    pdp: Pdp, state: Path, proposed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns = time.time_ns()
    for days, decided in ((6, 5), (8, 0)):
        monkeypatch.setattr(time, "time_ns", lambda days=days: now_ns + days * 86_400 * 10**9)
        told = pdp("policy", "diff", proposed, "--replay", "7d", "--state-dir", state, "--json").json
        assert told["decided"] == decided


def test_two_packs_are_refused(pdp: Pdp, proposed: Path) -> None:
    assert pdp("policy", "diff", proposed, proposed, "--replay", "7d").code == 2
    assert pdp("policy", "diff", proposed, "--replay", "soon").code == 2


def row(line: int, section: str, *fields: str) -> policy_pb2.PolicyRow:
    return policy_pb2.PolicyRow(id=f"a.csv:{line}", section=section, fields=fields)


def test_a_pdp_is_asked_for_policy_inventory_and_records(pdp: Pdp, server: ScriptedPdp, proposed: Path) -> None:
    live = policy_pb2.GetPolicyResponse(
        model=(PACK / "model.conf").read_text(), vocabulary=(PACK / "vocabulary.yaml").read_text(),
        rows=[
            row(1, "p", "role:x", "dataset.read", "dataset/**", "*", "", "", "allow"),
            row(2, "g", BOB, "role:x", "prod"),
            row(3, "p2", "segment:none", "*", "segment:none", "", "allow"),
        ],
    )  # fmt: skip
    record = {
        "v": 1, "kind": "decision", "time_ms": 1, "now_ms": 1, "staleness_ms": 0, "clock_off": False, "decision_id": "d",
        "world_seq": 1, "principal": BOB, "groups": [], "actors": [], "workload": "", "action": "dataset.read",
        "resource": "dataset/prices", "serves": "", "attributes": {}, "claims": {}, "credential": {}, "supports": None,
        "effect": "allow", "reason": "granted", "determining": ["a.csv:1"], "obligations": [],
    }  # fmt: skip
    environment = types_pb2.Value(string_value="prod")
    asset = asset_pb2.Asset(name="dataset/prices", attributes={"environment": environment})
    server.script("PolicyService/Get", live)
    server.script("AssetService/List", asset_pb2.ListAssetsResponse(assets=[asset]))
    server.script("AuditService/Read", [audit_pb2.ReadResponse(chain="c", record=seal(record, START)[0])])
    told = pdp("policy", "diff", proposed, "--replay", "7d", "--json").json
    (flip,) = told["flips"]
    assert (flip["change"], flip["before"]["determining"]) == ("loses", ["a.csv:3", "a.csv:1"])
