"""The map stays readable, and well-formed, whatever segments are called and however much passes between them."""

import re
from xml.etree import ElementTree as ET

from pdp.cli.segment_map import svg
from pdp.reach import Terrain
from tests.support.changes import files
from tests.support.worlds import Scribe
from tests.unit.test_reach import HOUSE, NOW_MS, terrain_of

LONG = "segment:" + "W" * 60 + "-east"
ROWS = f"""
g3, {HOUSE}odd/**, {LONG}
p2, {LONG}, *, segment:serving, , allow
"""
TEXT = "{http://www.w3.org/2000/svg}text"
TITLE = "{http://www.w3.org/2000/svg}title"


def terrain() -> Terrain:
    scribe = Scribe()
    scribe.policy(files()["segmentation.csv"].decode() + files()["grants.csv"].decode() + ROWS)
    attributes = {"environment": "prod", "segment": "segment:serving"}
    assets = [
        {"name": name, "attributes": attributes} for name in ("endpoint/e", "dataset/d", "model/m", "experiment/x")
    ]
    return terrain_of(scribe.write("assets", {"assets": assets}))


def test_a_long_name_stays_in_its_box_and_is_told_whole_to_who_points_at_it() -> None:
    drawn = ET.fromstring(svg(terrain()))  # noqa: S314 - our own text
    ((name, title),) = [(one, each) for one in drawn.iter(TEXT) for each in one.iter(TITLE) if each.text == LONG]
    shown = title.tail or ""
    assert len(shown) == 19
    assert (shown[:5], shown[-5:]) == ("WWWWW", "-east"), "names differ at both ends"
    assert int(name.attrib["textLength"]) < 170


def test_what_does_not_fit_beside_an_arrow_is_counted() -> None:
    drawn = ET.fromstring(svg(terrain()))  # noqa: S314 - our own text
    labels = [one.find(TITLE) for one in drawn.iter(TEXT) if one.get("class") == "label"]
    cut = 0
    for title in labels:
        assert title is not None
        whole, shown = (title.text or "").split(", "), title.tail or ""
        told = re.fullmatch(r"(.*?)(?: \+(\d+) more)?", shown)
        assert told is not None
        kept, more = told[1].split(", "), int(told[2] or 0)
        assert (kept, len(kept) + more) == (whole[: len(kept)], len(whole))
        cut += more
    assert cut, "the row lets more through than fits"


def test_a_map_of_nothing_says_so() -> None:
    world = Scribe().policy("p, role:x, dataset.read, dataset/*, dev, , , allow")
    assert world.snapshot is not None
    assert "no segment has a workload or an asset in it" in svg(Terrain(world.snapshot, {}, NOW_MS))
