import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_pdp import ScriptedPdp

from pdp.v1 import policy_pb2

Pdp = Callable[..., Any]
POLICIES = Path(__file__).parents[3] / "policies"
GRANT = "p, role:app, endpoint.invoke|read_metadata, endpoint/**, prod, , , allow\n"
GAIN = "p, role:app, endpoint.scale|cancel, endpoint/**, *, , , allow\ng, user:bob, role:app, prod\n"


@pytest.fixture
def packs(tmp_path: Path) -> tuple[Path, Path]:
    for name, rows in (("a", GRANT), ("b", GRANT + GAIN)):
        (tmp_path / name).mkdir()
        for file in ("model.conf", "vocabulary.yaml"):
            (tmp_path / name / file).write_bytes((POLICIES / file).read_bytes())
        (tmp_path / name / "rows.csv").write_text(rows)
    return tmp_path / "a", tmp_path / "b"


def test_cells_that_change_alike_are_one_line(pdp: Pdp, packs: tuple[Path, Path]) -> None:
    ended = pdp("policy", "diff", *map(str, packs))
    assert ended.code == 0
    assert [line.split() for line in ended.out.splitlines()] == [
        ["CHANGE", "WHO", "ACTION", "RESOURCE", "WHERE", "IF"],
        ["gains", "role:app", "(with", "1:", "user:bob)", "endpoint.cancel|scale", "endpoint/**", "prod"],
        ["gains", "user:bob", "endpoint.invoke|read_metadata", "endpoint/**", "prod"],
        ["gains", "role:app", "endpoint.cancel|scale", "endpoint/**", "dev,", "staging,", "test"],
        ["gains:", "2", "principals", "or", "roles,", "1", "resource", "class"],
        ["12", "cells", "change:", "12", "gains"],
    ]
    assert pdp("policy", "diff", str(packs[0]), str(packs[0])).out == "no cell changes\n"


CASBIN = """\
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = g(r.sub, p.sub) && keyMatch2(r.obj, p.obj) && regexMatch(r.act, p.act)
"""


def test_a_policy_of_casbin_is_told_by_its_names_and_by_its_patterns_with_their_functions(
    pdp: Pdp, tmp_path: Path
) -> None:
    rows = "p, sci, /data/:name, ^(GET|POST)$\ng, ana, sci\n"
    for name, text in (("a", rows), ("b", f"{rows}p, sci, /data/:name/rows, ^(GET|PUT)$\np, sci, /data/*, ^D.*\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.conf").write_text(CASBIN)
        (tmp_path / name / "vocabulary.yaml").write_text("types: {}\nattributes: {}\n")
        (tmp_path / name / "rows.csv").write_text(text)
    told = pdp("policy", "diff", str(tmp_path / "a"), str(tmp_path / "b")).out.splitlines()
    assert [re.split(r"  +", line.strip()) for line in told[1:-2]] == [
        ["gains", "ana", "regexMatch(^D.*)", "keyMatch2(/data/*)"],
        ["gains", "ana", "regexMatch(^D.*)", "keyMatch2(/data/:name)"],
        ["gains", "ana", "GET, PUT, regexMatch(^D.*)", "keyMatch2(/data/:name/rows)"],
        ["gains", "ana", "GET, PUT", "keyMatch2(/data/:name/rows), with a line break"],
    ]


def test_cells_are_json_one_by_one(pdp: Pdp, packs: tuple[Path, Path]) -> None:
    told = pdp("policy", "diff", *map(str, packs), "--json").json
    assert len(told) == 12
    assert told[0] == {
        "context": "grants",
        "cell": {"sub": "role:app", "act": "endpoint.cancel", "obj": "endpoint/**", "env": "prod"},
        "change": "gains",
        "always": True,
        "witness": {},
        "from_ms": 0,
        "names": ["user:bob"],
        "by": "",
    }


def test_one_pack_is_compared_with_the_live_policy(pdp: Pdp, server: ScriptedPdp, packs: tuple[Path, Path]) -> None:
    live = policy_pb2.GetPolicyResponse(
        model=(packs[0] / "model.conf").read_text(),
        vocabulary=(packs[0] / "vocabulary.yaml").read_text(),
        rows=[
            policy_pb2.PolicyRow(
                id="rows.csv:1",
                section="p",
                fields=["role:app", "endpoint.invoke|read_metadata", "endpoint/**", "prod", "", "", "allow"],
            )
        ],
    )
    server.script("PolicyService/Get", live)
    told = pdp("policy", "diff", str(packs[1])).out
    assert "12 cells change: 12 gains" in told
    assert re.search(r"^gains: \d+ principals? or roles?, \d+ resource class(es)?$", told, re.MULTILINE)
    assert pdp("policy", "diff", str(packs[0])).out == "no cell changes\n"


def test_rows_that_come_from_no_pack_are_not_lost_by_one(
    pdp: Pdp, packs: tuple[Path, Path], server: ScriptedPdp
) -> None:
    grant = ["role:sre", "endpoint.observe", "endpoint/**", "prod", "", "", "allow"]
    live = policy_pb2.GetPolicyResponse(
        model=(packs[0] / "model.conf").read_text(),
        vocabulary=(packs[0] / "vocabulary.yaml").read_text(),
        rows=[
            policy_pb2.PolicyRow(
                id=f"{file}:1", section="p", fields=["role:app", *grant[1:]] if file == "gone.csv" else grant
            )
            for file in ("genesis.csv", "edits.csv", "gone.csv")
        ],
    )
    server.script("PolicyService/Get", live)
    told = pdp("policy", "diff", str(packs[0])).out
    assert "role:sre" not in told, "the first administrators and what was granted since stay"
    assert "endpoint.observe" in told


def test_a_pack_with_errors_is_told_and_not_compared(pdp: Pdp, packs: tuple[Path, Path]) -> None:
    (packs[1] / "rows.csv").write_text("p, role:app\n")
    ended = pdp("policy", "diff", *map(str, packs))
    assert ended.code == 2
    assert "rows.csv:1:1: PC112" in ended.err
