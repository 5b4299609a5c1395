"""A trace tells who reached what, why, and what else they could have; its page is safe whatever the log holds."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pdp.audit.record import refusal_record
from pdp.errors import Reason
from pdp.model.names import Principal
from pdp.model.request import Party
from tests.support.office import ADA, BOB, EVE, Office, in_office

Pdp = Callable[..., Any]
EVIL = "</td><script>alert(1)</script><img src=x onerror=alert(2)>\u202e\x1b[31m"
ASSETS = """
dataset/people@3: {environment: dev, sensitivity: high}
dataset/sales: {environment: dev}
model/fraud@7: {environment: dev, derived_from: ["dataset/people@3"]}
endpoint/fraud: {environment: dev, derived_from: ["model/fraud@7"]}
"""
GRANT = f"g, {EVE}, role:data-scientist, dev\n"


async def history(office: Office) -> None:
    await office.ask(EVE, "dataset.read", "dataset/people@3")
    office.clock.advance(60)
    await office.rows(GRANT, message="Eve helps out", approvals=[{"by": ["user:olga@x.org"]}], authors=[ADA])
    office.clock.advance(60)
    await office.ask(EVE, "dataset.read", "dataset/people@3")
    await office.decider.note("cut", decision_id="d1", reason="no_grant", messages=7)
    await office.ask(BOB, "model.download", "model/fraud@7")
    await office.ask(
        BOB, "endpoint.invoke", "endpoint/fraud", actors=(Party(principal=Principal.parse("agent:helper")),)
    )
    await office.ask(BOB, "dataset.read", "dataset/sales")
    # A circle of origins, from somebody who would have a tool run for ever.
    await office.assets({"dataset/people@3": {"environment": "dev", "derived_from": ["endpoint/fraud"]}})
    record = refusal_record(
        decision_id="evil", reason=Reason.TOKEN_EXPIRED, detail=EVIL, door="http", action=EVIL, resource="dataset/people@3",
        caller=EVIL, world_seq=2, time_ms=office.clock.now_ms(),
    )  # fmt: skip
    await office.trail.record([record | {"principal": EVE, "action": EVIL}], durable=True)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return in_office(tmp_path_factory.mktemp("office"), history, assets=ASSETS)


def told(pdp: Pdp, state: Path, name: str, *options: object) -> dict[str, Any]:
    ended = pdp("audit", "trace", name, "--state-dir", state, "--json", *options)
    assert ended.code == 0, ended.err
    return dict(ended.json)


def test_a_trace_of_a_person_tells_who_let_them(pdp: Pdp, state: Path) -> None:
    found = told(pdp, state, EVE)
    assert [one["record"]["effect"] for one in found["accesses"]] == ["deny", "allow", "deny"]
    (link,) = [because for because in found["accesses"][1]["because"] if because["text"] == GRANT.strip()]
    revision = link["revision"]
    assert (revision["authors"], revision["approvals"]) == ([ADA], [["user:olga@x.org"]])
    assert (revision["message"], revision["proposal"]) == ("Eve helps out", "")
    assert found["accesses"][0]["because"] == [], "nothing let her before"


def test_what_became_of_a_stream_stands_on_the_timeline_and_on_the_page(pdp: Pdp, state: Path, tmp_path: Path) -> None:
    (opened,) = [one for one in told(pdp, state, EVE)["accesses"] if one["record"]["decision_id"] == "d1"]
    assert [(event["event"], event["messages"]) for event in opened["events"]] == [("cut", 7)]
    lines = pdp("audit", "trace", EVE, "--state-dir", state).out.splitlines()
    (line,) = [line for line in lines if "  cut " in line]
    assert (EVE in line, "dataset/people@3" in line, "no_grant messages=7" in line) == (True, True, True)
    html = tmp_path / "page.html"
    pdp("audit", "trace", EVE, "--state-dir", state, "--html", html)
    assert html.read_text().count("no_grant messages=7") == 2, "in the drawing and in the table"


def test_what_else_was_within_reach_is_listed_and_what_was_used_is_not(pdp: Pdp, state: Path) -> None:
    (reach,) = told(pdp, state, EVE)["reach"]
    assert ["dataset/sales", "dataset.read"] in reach["unused"]
    assert ["dataset/people@3", "dataset.read"] not in reach["unused"]


def test_an_access_through_an_agent_is_found_by_either(pdp: Pdp, state: Path) -> None:
    for name in (BOB, "agent:helper"):
        assert "endpoint/fraud" in [one["record"]["resource"] for one in told(pdp, state, name)["accesses"]]


@pytest.mark.parametrize("name", ["dataset/people@3", "model/fraud@7", "endpoint/fraud"])
def test_a_trace_of_an_asset_follows_its_lineage_both_ways(pdp: Pdp, state: Path, name: str) -> None:
    found = told(pdp, state, name)
    assert {one["record"]["resource"] for one in found["accesses"]} == {
        "dataset/people@3", "model/fraud@7", "endpoint/fraud",
    }  # fmt: skip
    edges = {(origin, one["name"]) for one in found["lineage"] for origin in one["derived_from"]}
    assert {("dataset/people@3", "model/fraud@7"), ("model/fraud@7", "endpoint/fraud")} <= edges


def test_people_read_tables(pdp: Pdp, state: Path) -> None:
    out = pdp("audit", "trace", EVE, "--state-dir", state).out
    assert "Eve helps out" in out
    assert "user:olga@x.org" in out
    assert "\x1b" not in out
    assert "\u202e" not in out


class Reader(HTMLParser):
    """Collects what a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)


def test_a_page_holds_no_markup_that_the_log_brought(pdp: Pdp, state: Path, tmp_path: Path) -> None:
    file = tmp_path / "trace.html"
    assert pdp("audit", "trace", EVE, "--state-dir", state, "--html", file).code == 0
    text = file.read_text()
    reader = Reader()
    reader.feed(text)
    assert reader.tags.isdisjoint({"script", "img", "iframe", "link", "object", "a"})
    assert not [name for name in reader.attributes if name.startswith("on") or name in {"src", "href"}]
    assert "&lt;script&gt;" in text, "the attacker's text is there, as text"
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert not re.search(r"url\(|@import|https?://", text), "it loads nothing"
    assert "default-src 'none'" in text


def test_refusals_in_the_same_second_do_not_cover_an_access(pdp: Pdp, state: Path, tmp_path: Path) -> None:
    """In the log the refusal comes after the allowed read; drawn in that order, it would hide it."""
    file = tmp_path / "trace.html"
    pdp("audit", "trace", EVE, "--state-dir", state, "--html", file)
    dots = re.findall(r'<circle class="(.)" cx="(\d+)" cy="(\d+)" r="(\d)"', file.read_text())
    assert [kind for kind, *_ in dots] == ["d", "d", "a"]
    assert dots[1][1:3] == dots[2][1:3], "they lie on one another"
    assert dots[2][3] < dots[1][3]


def test_a_page_about_nothing_says_so(pdp: Pdp, state: Path, tmp_path: Path) -> None:
    file = tmp_path / "trace.html"
    assert pdp("audit", "trace", "user:nobody@x.org", "--state-dir", state, "--html", file).code == 0
    assert "No decision in this log is about it" in file.read_text()


def test_the_newest_are_shown_and_the_rest_counted(pdp: Pdp, state: Path) -> None:
    found = told(pdp, state, EVE, "--limit", "1")
    assert (len(found["accesses"]), found["not_shown"]) == (1, 2)


@pytest.mark.parametrize("name", ["user:", "user:a b", "nobody:x"])
def test_a_name_that_is_none_is_refused(pdp: Pdp, state: Path, name: str) -> None:
    assert pdp("audit", "trace", name, "--state-dir", state).code == 2
