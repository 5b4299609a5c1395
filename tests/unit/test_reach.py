"""From where what can be reached: agrees with `decide`, hop by hop, and finds the way through servers."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdp.decide import decide
from pdp.engine.compiler import Snapshot
from pdp.engine.pack import Pack, load_pack
from pdp.errors import BadRequestError, Reason
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from pdp.reach import Hop, Terrain
from pdp.world import World
from tests.support.changes import files
from tests.support.worlds import Scribe

NOW_MS = 1_790_000_000_000
HOUSE = "workload:spiffe://x.org/ns/"
PLACED = f"""
g3, {HOUSE}web/**, segment:apps
g3, {HOUSE}lab/**, segment:notebooks
g3, {HOUSE}ml/**, segment:serving
g3, {HOUSE}dev/**, segment:sandbox
g2, dataset/customers, collection:pii
"""
ASSETS = {
    "endpoint/prod": {"environment": "prod", "segment": "segment:serving"},
    "endpoint/dev": {"environment": "dev", "segment": "segment:sandbox"},
    "model/m@1": {"environment": "dev", "segment": "segment:registry"},
    "dataset/open": {"environment": "dev", "segment": "segment:data"},
    "dataset/customers": {"environment": "prod", "segment": "segment:data"},
    "dataset/lost": {"environment": "prod"},
}


def world_of(rows: str) -> World:
    scribe = Scribe()
    scribe.policy(files()["segmentation.csv"].decode() + files()["grants.csv"].decode() + PLACED + rows)
    return scribe.write("assets", {"assets": [{"name": name, "attributes": one} for name, one in ASSETS.items()]})


def terrain_of(world: World) -> Terrain:
    assert world.snapshot is not None
    return Terrain(world.snapshot, {name: asset.attributes for name, asset in world.assets.items()}, NOW_MS)


def terrain(rows: str = "") -> Terrain:
    return terrain_of(world_of(rows))


def told(found: list[Hop]) -> list[tuple[str, str]]:
    return [(hop.source, hop.asset) for hop in found]


def test_what_is_one_hop_away() -> None:
    (way,) = terrain().reach("segment:notebooks", "dataset/**", hops=1)
    (hop,) = way.hops
    assert (hop.asset, hop.to, way.certain) == ("dataset/open", "segment:data", True)
    assert "dataset.read" in hop.actions
    assert hop.rules[0].startswith("test.csv:")


def test_notebooks_reach_personal_data_through_a_server_that_may_read_it() -> None:
    """No rule lets a notebook near it; the sandbox's server may read data, and notebooks may ask the sandbox."""
    rows = "p2, segment:sandbox, dataset.read, segment:data, , allow\n"
    assert list(terrain().reach("segment:notebooks", "collection:pii", hops=2)) == []
    assert list(terrain(rows).reach("segment:notebooks", "collection:pii", hops=1)) == []
    (way,) = terrain(rows).reach("segment:notebooks", "collection:pii", hops=2)
    assert told(list(way.hops)) == [("segment:notebooks", "endpoint/dev"), ("segment:sandbox", "dataset/customers")]


def test_a_deny_between_segments_closes_the_way() -> None:
    rows = "p2, segment:sandbox, dataset.read, segment:data, , allow\np2, segment:sandbox, *, segment:data, , deny\n"
    assert list(terrain(rows).reach("segment:notebooks", "collection:pii", hops=3)) == []


def test_a_way_under_conditions_names_them() -> None:
    rows = "p2, segment:apps, dataset.read, segment:none, request.purpose == 'audit', allow\n"
    (way,) = terrain(rows).reach("segment:apps", "dataset/lost", hops=1)
    assert (way.certain, way.hops[0].depends_on) == (False, ("request.purpose == 'audit'",))


def test_one_workload_may_come_farther_than_its_segment() -> None:
    rows = f"p2, {HOUSE}web/sa/batch, dataset.read, segment:data, , allow\n"
    assert list(terrain(rows).reach(f"{HOUSE}web/sa/other", "dataset/customers", hops=1)) == []
    assert len(list(terrain(rows).reach(f"{HOUSE}web/sa/batch", "dataset/lost", hops=1))) == 0


@pytest.mark.parametrize(("start", "wanted"), [("role:app", "dataset/**"), ("segment:apps", "dataset/nowhere")])
def test_a_question_about_nothing_is_an_error_and_not_an_empty_answer(start: str, wanted: str) -> None:
    with pytest.raises(BadRequestError):
        list(terrain().reach(start, wanted, hops=2))


def test_what_is_probably_not_meant_is_told() -> None:
    odd = list(terrain().oddities())
    assert any(line.startswith("dataset/lost: stands in no segment") for line in odd)
    assert any(line.startswith("segment:training: rules say what it may reach, and no workload") for line in odd)


def test_a_policy_without_segmentation_says_so() -> None:
    pack = load_pack(files())
    assert isinstance(pack, Pack)
    snapshot: Snapshot = replace(pack.snapshot, contexts={"": pack.snapshot.contexts[""]})
    with pytest.raises(BadRequestError, match="no segmentation"):
        Terrain(snapshot, {}, NOW_MS)


SEGMENTS = ("apps", "notebooks", "serving", "sandbox", "data", "registry", "none")
RULES = st.builds(
    lambda source, action, target, effect: f"p2, segment:{source}, {action}, segment:{target}, , {effect}\n",
    st.sampled_from(SEGMENTS),
    st.sampled_from(("*", "endpoint.invoke", "dataset.*", "dataset.read", "model.download")),
    st.sampled_from(SEGMENTS),
    st.sampled_from(("allow", "deny")),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(RULES, max_size=5, unique=True))
def test_each_hop_is_one_that_segmentation_lets_through_and_no_other(rules: list[str]) -> None:
    """Law: a workload hops to an asset exactly if `decide` does not answer `segment_denied` for some action."""
    world = world_of("".join(rules))
    found = terrain_of(world)
    for room, segment in (("web", "apps"), ("lab", "notebooks"), ("ml", "serving"), ("dev", "sandbox")):
        workload = Principal.parse(f"{HOUSE}{room}/sa/x")
        hops = {(hop.asset, action) for hop in found.hops_from(str(workload)) for action in hop.actions}
        for name in ASSETS:
            asset = Resource.parse(name)
            assert world.snapshot is not None
            for verb in world.snapshot.vocabulary.types[asset.type].verbs:
                question = Question(
                    subject=Party(principal=Principal.parse("user:x@x.org")),
                    action=Action(type=asset.type, verb=verb),
                    resource=asset,
                    workload=workload,
                )
                answer = decide(world, question, NOW_MS).reason
                if answer is not Reason.BAD_REQUEST:
                    assert ((name, f"{asset.type}.{verb}") in hops) is (answer is not Reason.SEGMENT_DENIED)
        assert {hop.asset for hop in found.hops_from(f"segment:{segment}")} == {asset for asset, _ in hops}
