"""`pdp role`, `pdp segment`, `pdp collection`: rows without CSV, their effect shown before they are sent."""

from pathlib import Path

import pytest

from pdp.engine.pack import Pack, load_pack
from pdp.v1 import asset_pb2, policy_pb2, types_pb2
from tests.support.changes import MIA, PEOPLE, files
from tests.unit.cli.conftest import Pdp
from tests.unit.scripted_pdp import ScriptedPdp

LAB = "g3, workload:spiffe://x.org/ns/lab/**, segment:notebooks\n"


@pytest.fixture
def live(server: ScriptedPdp) -> ScriptedPdp:
    """A PDP with the shipped pack and some people; what is sent is live at once."""
    pack = load_pack(files(people_csv=PEOPLE + f"g, {MIA}, role:app, prod\ng, {MIA}, role:app, dev\n" + LAB))
    assert isinstance(pack, Pack)
    rows = [policy_pb2.PolicyRow(id=row.id, section=row.section, fields=row.fields) for row in pack.rows]
    policy = policy_pb2.GetPolicyResponse(
        revision="r", world_seq=3, model=pack.model_text, vocabulary=pack.vocabulary_text, rows=rows
    )
    server.script("PolicyService/Get", policy)
    server.script("PolicyService/Propose", policy_pb2.ProposeResponse(world_seq=4, revision="s", rows_added=1))
    assets = {
        "dataset/open": {"environment": "dev", "segment": "segment:data"},
        "endpoint/dev": {"environment": "dev", "segment": "segment:sandbox"},
    }
    messages = [
        asset_pb2.Asset(name=name, attributes={key: types_pb2.Value(string_value=one) for key, one in each.items()})
        for name, each in assets.items()
    ]
    server.script("AssetService/List", asset_pb2.ListAssetsResponse(assets=messages, world_seq=3))
    return server


def sent(server: ScriptedPdp) -> policy_pb2.ProposeRequest:
    (request,) = server.asked("PolicyService/Propose")
    assert isinstance(request, policy_pb2.ProposeRequest)
    return request


def test_a_role_is_granted_for_a_time_and_its_effect_is_shown(pdp: Pdp, live: ScriptedPdp) -> None:
    who = "user:bob@x.org"
    ended = pdp(
        "role", "grant", who, "role:release-manager", "--env", "prod", "--until", "2099-01-01T00:00:00Z", "-m", "x"
    )
    assert ended.code == 0
    assert "gains" in ended.out
    assert "model.deploy|promote" in ended.out
    row = f"g, {who}, role:release-manager, prod, _, 2099-01-01T00:00:00Z"
    assert (list(sent(live).edit.add), sent(live).message, sent(live).activate) == ([row], "x", True)


def test_a_dry_run_sends_nothing(pdp: Pdp, live: ScriptedPdp) -> None:
    ended = pdp("role", "grant", "user:bob@x.org", "role:app", "--env", "prod", "--dry-run")
    assert (ended.code, "gains" in ended.out) == (0, True)
    assert live.asked("PolicyService/Propose") == []


def test_a_grant_that_waits_is_exit_code_8(pdp: Pdp, live: ScriptedPdp) -> None:
    live.script("PolicyService/Propose", policy_pb2.ProposeResponse(proposal_id="p9", approvals_needed=1))
    assert pdp("role", "grant", "user:bob@x.org", "role:app", "--env", "prod").code == 8


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--until", "2000-01-01T00:00:00Z"), "has passed"),
        (("--until", "2099-01-01T00:00:00Z", "--for", "2h"), "not both"),
        (("--for", "2 hours"), "not a duration"),
        (("--from", "tomorrow"), "an instant is RFC 3339"),
    ],
)
def test_a_time_that_is_none_is_refused_before_anything_is_sent(
    pdp: Pdp, live: ScriptedPdp, more: tuple[str, ...], says: str
) -> None:
    ended = pdp("role", "grant", "user:bob@x.org", "role:app", "--env", "prod", *more)
    assert (ended.code, live.asked("PolicyService/Propose")) == (2, [])
    assert says in ended.err


def test_a_name_with_a_comma_or_a_line_is_no_second_row(pdp: Pdp, live: ScriptedPdp) -> None:
    for name in ("user:a, role:policy-admin, prod\ng, user:b", "user:a,b", "user:a # x"):
        assert pdp("role", "grant", name, "role:app", "--env", "prod").code == 2
    assert live.asked("PolicyService/Propose") == []


def test_a_role_is_taken_away_everywhere_or_in_one_environment(pdp: Pdp, live: ScriptedPdp) -> None:
    assert pdp("role", "revoke", MIA, "role:app").code == 0
    assert set(sent(live).edit.remove) == {f"g, {MIA}, role:app, prod", f"g, {MIA}, role:app, dev"}
    assert pdp("role", "revoke", MIA, "role:app", "--env", "dev").code == 0
    assert list(live.asked("PolicyService/Propose")[1].edit.remove) == [f"g, {MIA}, role:app, dev"]
    assert pdp("role", "revoke", MIA, "role:sre").code == 7


@pytest.mark.usefixtures("live")
def test_who_holds_what_is_listed(pdp: Pdp) -> None:
    told = pdp("role", "list", MIA, "--json").json
    assert [(one["role"], one["environment"], one["when"]) for one in told] == [
        ("role:app", "prod", "always"),
        ("role:app", "dev", "always"),
    ]
    assert "role:policy-approver" in pdp("role", "list", "--role", "role:policy-approver").out


def test_collections(pdp: Pdp, live: ScriptedPdp) -> None:
    assert pdp("collection", "add", "dataset/customers/**", "collection:pii").code == 0
    assert list(sent(live).edit.add) == ["g2, dataset/customers/**, collection:pii"]
    assert pdp("collection", "list").code == 0


def test_segments_are_edited(pdp: Pdp, live: ScriptedPdp) -> None:
    assert (
        pdp(
            "segment",
            "allow",
            "segment:apps",
            "dataset.read",
            "segment:data",
            "--when",
            "resource.environment == 'dev'",
        ).code
        == 0
    )
    assert pdp("segment", "deny", "segment:apps", "*", "segment:registry").code == 0
    assert pdp("segment", "assign", "workload:spiffe://x.org/ns/web/**", "segment:apps").code == 0
    rows = [row for request in live.asked("PolicyService/Propose") for row in request.edit.add]
    assert rows == [
        "p2, segment:apps, dataset.read, segment:data, resource.environment == 'dev', allow",
        "p2, segment:apps, *, segment:registry, , deny",
        "g3, workload:spiffe://x.org/ns/web/**, segment:apps",
    ]


@pytest.mark.usefixtures("live")
def test_reach_tells_each_way_with_its_rules(pdp: Pdp) -> None:
    ended = pdp("segment", "reach", "segment:notebooks", "--to", "dataset/open")
    assert ended.code == 0
    assert "dataset/open: 1 hop\n" in ended.out
    assert "by segmentation.csv:" in ended.out
    none = pdp("segment", "reach", "segment:apps", "--to", "dataset/open", "--json")
    assert (none.code, none.json) == (3, [])
    assert pdp("segment", "reach", "segment:apps", "--to", "dataset/nowhere").code == 2


@pytest.mark.usefixtures("live")
def test_the_map_is_a_picture_and_a_graph(pdp: Pdp, tmp_path: Path) -> None:
    assert pdp("segment", "map", "--out", tmp_path / "map.svg").code == 0
    picture = (tmp_path / "map.svg").read_text()
    assert picture.startswith("<svg xmlns=")
    assert ">notebooks</text>" in picture
    graph = pdp("segment", "map", "--as", "dot").out
    assert '"segment:notebooks" -> "segment:data"' in graph
    assert pdp("segment", "list").code == 0
