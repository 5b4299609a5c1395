"""A logged decision is decided again from a copy of the state directory, and a log that lies is found out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pdp.adapters.audit_reader import read_segments
from pdp.audit.chain import START, frame, frames, seal, unseal
from tests.support.office import ADA, BOB, EVE, Office, in_office

Pdp = Callable[..., Any]
GRANT = f"g, {EVE}, role:data-scientist, dev\n"


async def history(office: Office) -> None:
    await office.ask(BOB, "dataset.read", "dataset/sales")
    await office.ask(EVE, "dataset.read", "dataset/sales")
    await office.rows(GRANT)
    await office.ask(EVE, "dataset.read", "dataset/sales")
    await office.rows("g2, dataset/people@3, collection:pii\n")
    await office.ask(BOB, "dataset.read", "dataset/people@3")
    await office.ask(BOB, "dataset.read", "dataset/nothing")
    await office.rows("", GRANT)
    await office.ask(EVE, "dataset.read", "dataset/sales")
    await office.ask(ADA, "asset.read", "asset/all")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return in_office(tmp_path_factory.mktemp("office"), history)


@pytest.fixture
def state(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def records(state: Path) -> list[dict[str, Any]]:
    (held,) = read_segments(state / "audit").values()
    return [unseal(content)[0] for _, data in held for _, content in frames(data)]


def rewrite(state: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Forge the whole chain anew: every digest is right, and one record says something else."""
    (path,) = (state / "audit").glob("*.log")
    link, data = START, b""
    for record in records(state):
        change(record)
        content, link = seal(
            {name: value for name, value in record.items() if name not in {"n", "prev", "digest"}}, link
        )
        data += frame(content)
    path.write_bytes(data)


def test_every_decision_is_the_same_answer_again(pdp: Pdp, state: Path) -> None:
    effects = [record["effect"] for record in records(state) if record["kind"] == "decision"]
    assert effects == ["allow", "deny", "allow", "deny", "deny", "deny", "allow"], (
        "the story has both, in several worlds"
    )
    ended = pdp("audit", "replay", "--state-dir", state)
    assert (ended.code, ended.out) == (0, "7 decisions are the same answer again, 0 not\n")


@pytest.mark.parametrize(
    ("field", "value"),
    [("effect", "deny"), ("reason", "no_grant"), ("determining", []), ("obligations", ["mask=x"]), ("world_seq", 1)],
)
def test_a_chain_forged_whole_is_found_out_by_what_it_says(pdp: Pdp, state: Path, field: str, value: object) -> None:
    def change(record: dict[str, Any]) -> None:
        if record.get("decision_id") == "d2":
            record[field] = value

    rewrite(state, change)
    assert pdp("audit", "verify", state / "audit").code == 0, "by its digests alone it holds"
    ended = pdp("audit", "replay", "--state-dir", state, "--json")
    assert ended.code == 1
    (found,) = ended.json["differences"]
    assert (found["decision_id"], ended.json["same"]) == ("d2", 6)
    assert found["again"]["effect"] == ("deny" if field == "world_seq" else "allow")
    assert "d2" in pdp("audit", "replay", "--state-dir", state).out


def test_a_chain_that_does_not_verify_is_not_replayed(pdp: Pdp, state: Path) -> None:
    (path,) = (state / "audit").glob("*.log")
    path.write_bytes(path.read_bytes().replace(b'"effect":"deny"', b'"effect":"allow"', 1))
    ended = pdp("audit", "replay", "--state-dir", state)
    assert (ended.code, ended.out) == (2, "")
    assert "does not verify" in ended.err


def test_a_world_that_the_log_does_not_hold_is_told(pdp: Pdp, state: Path) -> None:
    rewrite(state, lambda record: record.update(world_seq=99) if record.get("decision_id") == "d0" else None)
    ended = pdp("audit", "replay", "--state-dir", state, "--json")
    assert (ended.code, ended.json["same"]) == (3, 6)
    assert ended.json["not_decided_again"] == {"the world it names is not in this log": 1}


def test_records_out_of_the_order_of_their_worlds_are_replayed_too(pdp: Pdp, state: Path, tmp_path: Path) -> None:
    lines = [json.dumps(record) for record in reversed(records(state)) if record["kind"] == "decision"]
    (tmp_path / "tail.jsonl").write_text("\n".join(lines))
    ended = pdp("audit", "replay", tmp_path / "tail.jsonl", "--state-dir", state, "--json")
    assert (ended.code, ended.json["same"]) == (0, 7)


def test_a_line_that_was_changed_is_refused(pdp: Pdp, state: Path, tmp_path: Path) -> None:
    lines = [json.dumps(record | {"effect": "allow"}) for record in records(state) if record.get("effect") == "deny"]
    (tmp_path / "tail.jsonl").write_text("\n".join(lines))
    ended = pdp("audit", "replay", tmp_path / "tail.jsonl", "--state-dir", state)
    assert (ended.code, ended.out) == (2, "")
    assert "tail.jsonl:1: not a whole record" in ended.err


@pytest.mark.parametrize("missing", ["world.db", "root.json"])
def test_a_state_directory_that_is_none_is_an_error(pdp: Pdp, state: Path, missing: str) -> None:
    for path in state.glob(f"{missing}*"):
        path.unlink()
    shutil.rmtree(state / "roots", ignore_errors=True)
    ended = pdp("audit", "replay", "--state-dir", state)
    assert (ended.code, ended.out) == (2, "")
