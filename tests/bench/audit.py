"""The decision log alone: records of real decisions appended in groups, each caller waiting until its own are on disk.

Beside it the same bytes written without any work on them, one fdatasync for as many: what the disk gives.
"""

import asyncio
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from pdp.adapters.audit_file import AuditChain
from pdp.adapters.audit_key import audit_signer
from pdp.adapters.audit_reader import read_segments
from pdp.adapters.clock import SystemClock
from pdp.audit.record import Circumstances, DecisionRecord
from pdp.errors import Reason
from pdp.model.decision import Decision, Effect
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from pdp.service.audit import AuditTrail
from tests.bench.report import Figure

RECORDS = 100_000
CALLERS = 64
GROUPS = (1, 100)


def measure() -> list[Figure]:
    """Return records per second for lone records and for batches, and what a bare write of the same bytes takes."""
    found: list[Figure] = []
    for size in GROUPS:
        with TemporaryDirectory(prefix="portcullis-bench-") as name:
            directory = Path(name)
            rate = asyncio.run(_append(directory / "audit", size))
            versus = f"bare write and fdatasync, {CALLERS * size:,} records at once"
            bare = _bare(directory, CALLERS * size)
            found.append(Figure(name=versus, value=bare, unit="records/s"))
            title = f"audit append, {CALLERS} callers, groups of {size}"
            found.append(Figure(name=title, value=rate, unit="records/s", versus=versus, ratio=rate / bare))
    return found


async def _append(directory: Path, size: int) -> float:
    clock = SystemClock()
    signer = audit_signer(directory.parent / "state")  # as a PDP does: checkpoints are part of what is measured
    chain = AuditChain.open(directory, name="bench", who=dict, now_ms=clock.now_ms, signer=signer)
    trail = AuditTrail(chain, now_ms=clock.now_ms)
    groups = iter([_records(number, size) for number in range(RECORDS // size)])

    async def caller() -> None:
        for group in groups:
            await trail.record(group, durable=True)

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    elapsed = time.perf_counter() - start
    await trail.close()
    return RECORDS / elapsed


def _records(number: int, size: int) -> list[DecisionRecord]:
    around = Circumstances(
        now_ms=number, staleness_ms=5, clock_off=False, door="grpc", caller="user:gate@x", time_ms=number
    )
    return [_record(number * size + place, around) for place in range(size)]


def _record(number: int, around: Circumstances) -> DecisionRecord:
    question = Question(
        subject=Party(principal=Principal.parse(f"user:person{number % 1_000}@example.com")),
        action=Action.parse("dataset.read"),
        resource=Resource.parse(f"dataset/area{number % 10}/table{number % 500}"),
    )
    decision = Decision(effect=Effect.ALLOW, reason=Reason.GRANTED, world_seq=7, determining=("grants.csv:6",))
    return DecisionRecord(decision_id=f"{number:032x}", decision=decision, question=question, digest="", around=around)


def _bare(directory: Path, at_once: int) -> float:
    """Return how many records a second could be written if there were nothing to do for them."""
    (((_, data), *_),) = read_segments(directory / "audit").values()
    lines = data.splitlines(keepends=True)
    chunks = [b"".join(lines[at : at + at_once]) for at in range(0, len(lines), at_once)]
    descriptor = os.open(directory / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        start = time.perf_counter()
        for chunk in chunks:
            os.write(descriptor, chunk)
            os.fdatasync(descriptor)
        return len(lines) / (time.perf_counter() - start)
    finally:
        os.close(descriptor)
