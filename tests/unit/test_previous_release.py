"""What the first release that had a log wrote, byte for byte, is read by this one: entries, a snapshot, a heartbeat, a root file.

`golden/log-2026-11-23.json` was written by the code of that day, and stays as it is: when a test here fails, the software is
wrong or `ENGINE` must be raised. The answers in it are those that the code of that day gave.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from pdp.decide import decide
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from pdp.replica import Prepared, Replica
from pdp.trust.entry import Signature, SignedEntry, SignedHeartbeat, SignedSnapshot
from pdp.trust.keys import RootFile
from pdp.trust.verifier import TrustVerifier
from pdp.world import empty_world, spell_state
from tests.support.worlds import START_MS, TENANT

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden/log-2026-11-23.json").read_text())
SNAPSHOT_AT = 4


def signatures(raw: list[list[str]]) -> tuple[Signature, ...]:
    return tuple(Signature(key_id=key_id, signature=bytes.fromhex(value)) for key_id, value in raw)


def entries() -> list[SignedEntry]:
    return [
        SignedEntry(
            header=raw["header"].encode(), payload=raw["payload"].encode(), signatures=signatures(raw["signatures"])
        )
        for raw in GOLDEN["entries"]
    ]


def snapshot() -> SignedSnapshot:
    raw = GOLDEN["snapshot"]
    return SignedSnapshot(
        header=raw["header"].encode(), state=raw["state"].encode(), signatures=signatures(raw["signatures"])
    )


def heartbeat() -> SignedHeartbeat:
    raw = GOLDEN["heartbeat"]
    return SignedHeartbeat(body=raw["body"].encode(), signature=signatures([raw["signature"]])[0])


def replica() -> Replica:
    root = RootFile.parse(GOLDEN["root"].encode())
    return Replica(verifier=TrustVerifier(root, TENANT), world=empty_world(TENANT))


def folded(cell: Replica, log: list[SignedEntry]) -> Replica:
    for entry in log:
        prepared = cell.prepare(entry, now_ms=START_MS)
        assert isinstance(prepared, Prepared), prepared
        cell.commit(prepared)
    return cell


def from_snapshot() -> Replica:
    cell = replica()
    prepared = cell.prepare_stored(snapshot(), now_ms=START_MS)
    assert isinstance(prepared, Prepared), prepared
    cell.commit(prepared)
    assert cell.world.seq == SNAPSHOT_AT
    return folded(cell, entries()[SNAPSHOT_AT:])


def answers(cell: Replica) -> list[list[str]]:
    found = []
    for subject, resource, purpose, _ in GOLDEN["answers"]:
        question = Question(
            subject=Party(principal=Principal.parse(subject)),
            action=Action.parse("dataset.read"),
            resource=Resource.parse(resource),
            attributes={"request.purpose": purpose},
        )
        found.append([subject, resource, purpose, decide(cell.world, question, START_MS).reason.value])
    return found


@pytest.mark.holds("F28", "V6")
def test_a_log_of_the_first_release_folds_to_the_head_and_the_answers_of_its_day() -> None:
    cell = folded(replica(), entries())
    assert cell.head.digest.hex() == GOLDEN["head"]
    assert answers(cell) == GOLDEN["answers"]


@pytest.mark.holds("F28")
def test_a_snapshot_of_the_first_release_and_what_follows_it_make_the_same_world() -> None:
    loaded, whole = from_snapshot(), folded(replica(), entries())
    assert spell_state(loaded.world) == spell_state(whole.world)
    assert answers(loaded) == GOLDEN["answers"]


@pytest.mark.holds("F28")
def test_a_heartbeat_of_the_first_release_proves_its_world_fresh() -> None:
    cell = folded(replica(), entries())
    now_ms = START_MS + 2_000
    assert cell.heard(heartbeat(), now_ms=now_ms, mono_s=0.0) is True
    assert cell.staleness_s(now_ms=now_ms, mono_s=0.0) == 1.0
