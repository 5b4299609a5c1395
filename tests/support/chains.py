"""Signed chains as a process leaves them, for whoever attacks, prunes or proves them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pdp.adapters.audit_file import AuditChain
from pdp.adapters.audit_key import AuditSigner
from pdp.audit.record import refusal_record
from pdp.errors import Reason
from pdp.trust.keys import SigningKey
from tests.support.logs import HandClock

START_MS = 1_800_000_000_000


def signer() -> AuditSigner:
    """Return a key of its own."""
    return AuditSigner(SigningKey.generate())


def decision(n: int) -> dict[str, Any]:
    """Return a record that says which it is."""
    return refusal_record(
        decision_id=f"d{n}",
        reason=Reason.NO_GRANT,
        detail=f"no {n}",
        door="grpc",
        action="dataset.read",
        resource="dataset/people",
        caller="",
        world_seq=1,
        time_ms=START_MS + n,
    )


def written(
    directory: Path,
    key: AuditSigner | None,
    *,
    segments: int = 3,
    each: int = 5,
    step_ms: int = 30_000,
    name: str = "pdp",
) -> str:
    """Write a chain of so many segments with so many decisions each, `step_ms` apart; returns its name."""
    clock = HandClock(wall_ms=START_MS)
    chain = AuditChain.open(directory, name=name, who=dict, now_ms=clock.now_ms, reserve_bytes=0, signer=key)
    chain.segment_bytes = 10**9
    for number, full in _numbered(segments, each):
        chain.segment_bytes = 1 if full else 10**9
        chain.append([decision(number)])
        clock.wall_ms += step_ms
    chain.close()
    return chain.name


def _numbered(segments: int, each: int) -> Iterator[tuple[int, bool]]:
    for number in range(segments * each):
        yield number, number > 0 and number % each == 0
