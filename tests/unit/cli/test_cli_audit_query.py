"""Decisions are found through an index that is never what is believed."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pdp.adapters.audit_file import segments
from pdp.adapters.audit_index import FILE_NAME, AuditIndex
from pdp.audit.chain import START, Link, frame, frames, seal
from pdp.audit.query import Wanted
from tests.support.office import ADA, BOB, EVE, Office, in_office

Pdp = Callable[..., Any]


async def history(office: Office) -> None:
    await office.ask(BOB, "dataset.read", "dataset/sales")
    await office.ask(EVE, "dataset.read", "dataset/people@3")
    await office.rows(f"g, {EVE}, role:data-scientist, dev\n")
    await office.ask(EVE, "dataset.read", "dataset/people@3")
    await office.ask(BOB, "model.download", "model/fraud@7")
    await office.ask(ADA, "asset.read", "asset/all")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return in_office(tmp_path_factory.mktemp("office"), history)


@pytest.fixture
def audit(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "audit", tmp_path / "audit"))


def found(pdp: Pdp, audit: Path, *options: object) -> list[str]:
    ended = pdp("audit", "query", "--audit", audit, "--json", *options)
    assert ended.code == 0, ended.err
    return [json.loads(line)["decision_id"] for line in ended.out.splitlines()]


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ((), ["d0", "d1", "d2", "d3", "d4"]),
        (("--subject", BOB), ["d0", "d3"]),
        (("--subject", "user:*@x.org"), ["d0", "d1", "d2", "d3"]),
        (("--resource", "dataset/people"), ["d1", "d2"]),
        (("--resource", "dataset/people@3", "--effect", "allow"), ["d2"]),
        (("--version", "7"), ["d3"]),
        (("--version", "*", "--action", "dataset.*"), ["d1", "d2"]),
        (("--reason", "no_grant"), ["d1"]),
        (("--world", "3"), ["d2", "d3", "d4"]),
        (("--since", "7d", "--limit", "2"), ["d3", "d4"]),
        (("--until", "2001-01-01T00:00:00Z"), []),
        (("--subject", "user:nobody"), []),
        (("--subject", "user:'; DROP TABLE record; --"), []),
    ],
)
def test_each_filter_finds_what_it_names(pdp: Pdp, audit: Path, options: tuple[str, ...], ids: list[str]) -> None:
    assert found(pdp, audit, *options) == ids


def test_a_rule_is_found_in_any_place_among_several(pdp: Pdp, audit: Path) -> None:
    (first,) = [json.loads(pdp("audit", "query", "--audit", audit, "--json", "-n", "1", "--action", "model.*").out)]
    assert len(first["determining"]) == 2
    for rule in first["determining"]:
        assert "d3" in found(pdp, audit, "--rule", rule)


def test_people_read_a_line_for_each_and_how_many(pdp: Pdp, audit: Path) -> None:
    lines = pdp("audit", "query", "--audit", audit, "--subject", EVE).out.splitlines()
    assert lines[-1] == "2 decisions"
    assert f"DENY  {EVE}  dataset.read  dataset/people@3  no_grant" in lines[0]


def test_a_record_changed_behind_the_index_is_told_and_not_shown(pdp: Pdp, audit: Path) -> None:
    assert len(found(pdp, audit)) == 5
    (segment,) = segments(audit)
    segment.path.write_bytes(segment.path.read_bytes().replace(b'"reason":"no_grant"', b'"reason":"no_grunt"'))
    ended = pdp("audit", "query", "--audit", audit)
    assert ended.code == 1
    assert "is no longer what was indexed" in ended.out
    assert "no_grunt" not in ended.out


def test_an_index_that_lies_makes_no_record(pdp: Pdp, audit: Path) -> None:
    assert found(pdp, audit, "--subject", EVE) == ["d1", "d2"]
    with sqlite3.connect(audit / FILE_NAME) as database:
        database.execute("UPDATE record SET subject = (SELECT id FROM name WHERE text = ?)", (EVE,))
    database.close()
    assert found(pdp, audit, "--subject", EVE) == ["d1", "d2"], "what is read back does not fit"
    assert found(pdp, audit, "--subject", BOB) == [], "it can hide a record"
    assert found(pdp, audit, "--subject", BOB, "--rebuild") == ["d0", "d3"], "until it is made anew"


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0 and then nothing", b""])
def test_an_index_that_is_damaged_is_made_anew(pdp: Pdp, audit: Path, content: bytes) -> None:
    found(pdp, audit)
    (audit / FILE_NAME).write_bytes(content)
    assert len(found(pdp, audit)) == 5


def test_the_index_reads_on_from_where_it_stopped(audit: Path) -> None:
    (segment,) = segments(audit)
    whole = segment.path.read_bytes()
    ends = [end for end, _ in frames(whole)]
    for cut, known in ((ends[2], 2), (ends[3] + 7, 3), (len(whole), 5)):
        segment.path.write_bytes(whole[:cut])
        with AuditIndex.open(audit) as index:
            assert len(index.find(Wanted(), limit=0)) == known


def test_a_segment_in_the_place_of_another_is_read_anew(audit: Path) -> None:
    with AuditIndex.open(audit) as index:
        assert len(index.find(Wanted(), limit=0)) == 5
    (segment,) = segments(audit)
    segment.path.write_bytes(segment_of(1, START))
    with AuditIndex.open(audit) as index:
        assert [hit.n for hit in index.find(Wanted(), limit=0)] == [2]


def segment_of(count: int, link: Link) -> bytes:
    data = b""
    for n in range(count + 1):
        record = {
            "v": 1, "kind": "decision" if n else "open", "time_ms": n, "world_seq": 1, "effect": "allow", "principal": "user:x",
            "actors": [], "workload": "", "action": "dataset.read", "resource": "dataset/a", "version": "",
            "reason": "granted", "determining": [],
        }  # fmt: skip
        content, link = seal(record, link)
        data += frame(content)
    return data


def test_what_was_never_acknowledged_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "pdp-1.000000000001.log").write_bytes(segment_of(5, START))
    with AuditIndex.open(tmp_path) as index:
        assert len(index.find(Wanted(), limit=0)) == 5
    (tmp_path / "pdp-1.000000000004.log").write_bytes(segment_of(1, Link(n=3, digest="0" * 64)))
    with AuditIndex.open(tmp_path) as index:
        assert sorted(hit.n for hit in index.find(Wanted(), limit=0)) == [2, 3, 5]


def test_chains_in_folders_below_are_found_by_their_place(tmp_path: Path) -> None:
    (tmp_path / "received").mkdir()
    (tmp_path / "received" / "abc.000000000001.log").write_bytes(segment_of(1, START))
    with AuditIndex.open(tmp_path) as index:
        (hit,) = index.find(Wanted(), limit=0)
    assert hit.chain == "received/abc"


def test_decisions_are_counted_by_parts(audit: Path) -> None:
    with AuditIndex.open(audit) as index:
        told = index.count(Wanted(action="dataset.read"), ["subject", "resource"])
    assert {names: count for names, count, _ in told} == {(BOB, "dataset/sales"): 1, (EVE, "dataset/people@3"): 2}


@pytest.mark.parametrize("options", [("--effect", "maybe"), ("--since", "soon"), ("--limit", "-1")])
def test_a_filter_that_makes_no_sense_is_refused(pdp: Pdp, audit: Path, options: tuple[str, ...]) -> None:
    assert pdp("audit", "query", "--audit", audit, *options).code == 2


def test_a_directory_without_a_chain_is_an_error(pdp: Pdp, tmp_path: Path) -> None:
    assert pdp("audit", "query", "--audit", tmp_path).code == 2


def test_an_export_is_records_or_events_one_a_line(pdp: Pdp, audit: Path) -> None:
    lines = pdp("audit", "export", "--audit", audit, "--as", "json", "--subject", EVE).out.splitlines()
    assert [json.loads(line)["decision_id"] for line in lines] == ["d1", "d2"]
    events = [json.loads(line) for line in pdp("audit", "export", "--audit", audit, "--as", "ocsf").out.splitlines()]
    assert {event["class_uid"] for event in events} == {6003}
    assert [event["metadata"]["uid"] for event in events] == ["d0", "d1", "d2", "d3", "d4"]


def test_an_export_masks_with_a_key_of_its_own_or_ours(pdp: Pdp, audit: Path, tmp_path: Path) -> None:
    command = ("audit", "export", "--audit", audit, "--as", "json", "--mask", "principals")
    assert "bob" not in pdp(*command).out
    assert pdp(*command).out != pdp(*command).out
    (tmp_path / "key").write_bytes(b"k" * 32)
    assert pdp(*command, "--mask-key", tmp_path / "key").out == pdp(*command, "--mask-key", tmp_path / "key").out
    (tmp_path / "key").write_bytes(b"k")
    assert pdp(*command, "--mask-key", tmp_path / "key").code == 2
