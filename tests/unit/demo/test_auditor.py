"""Reasons come from the audit records that arrived, and from nothing else."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pdp.demo.auditor import Auditor
from pdp.demo.child import Child, StageError

DENIED = {"kind": "decision", "decision_id": "d.1", "reason": "no_grant"}
RECORDS: list[dict[str, Any]] = [
    {"kind": "open", "chain": "d.1"},
    {"kind": "decision", "decision_id": "d21", "reason": "granted"},
    {"kind": "stream", "event": "opened", "decision_id": "d.1"},
    DENIED,
    {"kind": "stream", "event": "cut", "decision_id": "d21", "reason": "locked"},
]


@pytest.fixture
def auditor(tmp_path: Path) -> Iterator[Auditor]:
    lines = "\n".join(json.dumps(record) for record in RECORDS)
    tail = Child.start(
        "tail", [sys.executable, "-c", f"print({lines!r})"], log=tmp_path / "tail.log", environment=os.environ
    )
    yield Auditor(tail=tail)
    tail.stop()


def test_the_record_of_exactly_that_decision_is_returned(auditor: Auditor) -> None:
    assert auditor.decision("d.1") == DENIED


def test_the_record_of_a_stream_event_is_returned(auditor: Auditor) -> None:
    assert auditor.stream_event("cut")["reason"] == "locked"


def test_a_record_that_never_arrives_is_an_error(auditor: Auditor) -> None:
    with pytest.raises(StageError, match="tail: ended before"):
        auditor.decision("d.2")
