"""Rights are held against what the log says was done with them."""

import csv
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_pdp import ScriptedPdp

from pdp.v1 import policy_pb2
from tests.support.office import BOB, EVE, PEOPLE, Office, in_office

Pdp = Callable[..., Any]
IDA, OLE, APP = "user:ida@x.org", "user:ole@x.org", "user:app@x.org"
ROWS = (
    PEOPLE + f"g, {IDA}, role:model-reviewer, prod\ng, {IDA}, role:release-manager, prod\n"
    f"g, {OLE}, role:sre, prod\ng, {APP}, role:app, prod\n"
)
ASSETS = """
dataset/eu/sales: {environment: dev}
dataset/eu/people: {environment: dev}
endpoint/shop: {environment: prod}
"""


async def history(office: Office) -> None:
    await office.rows("p2, segment:none, *, segment:none, resource.environment == 'prod', allow\n")
    for _ in range(5):
        await office.ask(BOB, "dataset.read", "dataset/eu/sales")
    await office.ask(BOB, "dataset.read", "dataset/eu/people")
    await office.ask(IDA, "dataset.read", "dataset/eu/people")
    await office.ask(EVE, "dataset.read", "dataset/eu/people")
    await office.ask(APP, "endpoint.invoke", "endpoint/shop")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return in_office(tmp_path_factory.mktemp("office"), history, rows=ROWS, assets=ASSETS)


def found(pdp: Pdp, state: Path) -> list[dict[str, str]]:
    ended = pdp("access", "review", "--state-dir", state, "--json")
    assert ended.code == 0, ended.err
    return list(ended.json["found"])


def kinds(pdp: Pdp, state: Path, who: str) -> set[str]:
    return {one["kind"] for one in found(pdp, state) if one["who"] == who}


def test_who_never_asked_is_dormant(pdp: Pdp, state: Path) -> None:
    assert kinds(pdp, state, OLE) == {"dormant"}


def test_a_role_of_which_nothing_was_used_is_found(pdp: Pdp, state: Path) -> None:
    assert kinds(pdp, state, EVE) == {"unused assignment"}
    assert kinds(pdp, state, BOB) == set(), "used, and in dev"


def test_both_sides_in_one_hand_are_a_conflict_with_the_rules_of_each(pdp: Pdp, state: Path) -> None:
    conflicts = [one for one in found(pdp, state) if one["kind"] == "conflict"]
    assert {one["who"] for one in conflicts} == {IDA}
    assert any("model.approve" in one["told"] and "model.promote" in one["told"] for one in conflicts)


def test_a_standing_right_in_prod_that_is_seldom_used_could_be_just_in_time(pdp: Pdp, state: Path) -> None:
    assert kinds(pdp, state, APP) == {"could be just in time"}


def test_a_grant_wider_than_its_use_comes_with_the_smallest_row_that_covers_it(pdp: Pdp, state: Path) -> None:
    rows = {one["replacement"] for one in found(pdp, state) if one["kind"] == "wider than used"}
    assert "p, role:data-scientist, dataset.read, dataset/eu/*, dev, , , allow" in rows
    assert "p, role:app, endpoint.invoke, endpoint/shop, prod, , recheck_after=10s, allow" in rows


def test_under_the_smaller_policy_every_logged_decision_is_answered_as_before(
    pdp: Pdp, state: Path, tmp_path: Path
) -> None:
    smaller = tmp_path / "smaller"
    assert pdp("access", "review", "--state-dir", state, "--proposal", smaller).code == 0
    assert pdp("policy", "lint", smaller).code == 0
    told = pdp("policy", "diff", smaller, "--replay", "7d", "--state-dir", state, "--json").json
    assert (told["flips"], told["decided"]) == ([], 9)
    assert pdp("access", "review", "--state-dir", state, "--proposal", smaller).code == 2, "nothing is overwritten"


def test_a_review_is_a_table_for_spreadsheets_and_a_page_for_signing(pdp: Pdp, state: Path, tmp_path: Path) -> None:
    ended = pdp("access", "review", "--state-dir", state, "--csv", tmp_path / "r.csv", "--html", tmp_path / "r.html")
    assert "findings in world" in ended.out
    rows = list(csv.reader(io.StringIO((tmp_path / "r.csv").read_text())))
    assert len(rows) == 1 + len(found(pdp, state))
    page = (tmp_path / "r.html").read_text()
    assert OLE in page
    assert "<script" not in page


def test_a_window_without_uses_finds_everybody_dormant(pdp: Pdp, state: Path) -> None:
    told = pdp("access", "review", "--state-dir", state, "--since", "2100-01-01T00:00:00Z", "--json").json["found"]
    assert {BOB, EVE, IDA, OLE, APP} <= {one["who"] for one in told if one["kind"] == "dormant"}


def signed(pdp: Pdp, state: Path, server: ScriptedPdp, report: Path) -> policy_pb2.SignOffRequest:
    report.write_text(pdp("access", "review", "--state-dir", state, "--json").out)
    server.script("PolicyService/SignOff", policy_pb2.SignOffResponse(world_seq=9))
    ended = pdp("access", "sign-off", report, "-m", "seen by both")
    assert ended.code == 0, ended.err
    assert "is signed off in entry 9" in ended.out
    ((_, request),) = server.calls
    return request


def test_a_report_is_signed_off_by_its_exact_bytes(pdp: Pdp, state: Path, server: ScriptedPdp, tmp_path: Path) -> None:
    report = tmp_path / "review.json"
    request = signed(pdp, state, server, report)
    assert request.report == hashlib.sha256(report.read_bytes()).hexdigest()
    assert (request.findings, request.message) == (len(found(pdp, state)), "seen by both")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"world_seq": 1, "since_ms": 0, "found": 3}', "[" * 5_000])
def test_what_is_no_report_is_not_signed_off(pdp: Pdp, tmp_path: Path, text: str) -> None:
    (tmp_path / "review.json").write_text(text)
    assert pdp("access", "sign-off", tmp_path / "review.json").code == 2
    assert pdp("access", "sign-off", tmp_path / "none.json").code == 2


def test_who_signed_which_report_is_in_the_log(pdp: Pdp, tmp_path: Path) -> None:
    report, other = tmp_path / "review.json", tmp_path / "other.json"
    report.write_text("{}")
    other.write_text("[]")

    async def sign(office: Office) -> None:
        payload = {
            "by": [BOB, "agent:helper@x.org"],
            "report": hashlib.sha256(b"{}").hexdigest(),
            "world_seq": 1,
            "since_ms": 0,
            "findings": 3,
            "message": "narrowed two",
        }
        await office.publisher.publish("sign_off", payload, author=BOB)

    state = in_office(tmp_path, sign)
    ((one),) = pdp("access", "sign-offs", "--report", report, "--state-dir", state, "--json").json
    assert (one["by"], one["findings"], one["message"]) == ([BOB, "agent:helper@x.org"], 3, "narrowed two")
    assert f"agent:helper@x.org for {BOB}" in pdp("access", "sign-offs", "--state-dir", state).out
    assert pdp("access", "sign-offs", "--report", other, "--state-dir", state).code == 7
