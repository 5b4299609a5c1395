"""L6: names that nobody knows leave nothing behind: memory stays flat over as many questions as somebody cares to ask."""

import asyncio
import gc
import itertools
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from pdp.adapters.audit_file import AuditChain
from pdp.adapters.clock import SystemClock
from pdp.model import names
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from pdp.replica import Replica
from pdp.service.audit import AuditTrail
from pdp.service.decide import Decider
from tests.support.logs import HandClock
from tests.support.worlds import Scribe, verifier

POLICY = "p, role:reader, dataset.read, dataset/**, *, , , allow\ng, user:ada@x, role:reader, *\n"
BATCH = 100
FLAT = BATCH * 20
"""Blocks of memory: a fifth of what one object kept for each of ten thousand questions would take."""
FULL_CACHES, FULL_SMALL_CACHES = 700, 60
"""Batches after which every bounded cache is as full as it gets: the largest keep 65,536 names, in the quick test 1,024."""


def unknown() -> Iterator[Question]:
    for number in itertools.count():
        yield Question(
            subject=Party(principal=Principal.parse(f"user:u{number}@nowhere"), groups=frozenset({f"group:g{number}"})),
            action=Action.parse("dataset.read"),
            resource=Resource.parse(f"dataset/d{number}/x"),
        )


def grown(directory: Path, batches: int, *, warm: int) -> int:
    """Return by how many blocks memory grew over so many batches, once all caches are full."""
    scribe = Scribe()
    scribe.policy(POLICY)
    replica = Replica(verifier=verifier(), world=scribe.world)
    questions = unknown()

    async def work() -> int:
        chain = AuditChain.open(directory, name="pdp", who=dict, now_ms=SystemClock().now_ms)
        trail = AuditTrail(chain, now_ms=SystemClock().now_ms)
        decider = Decider(replica=replica, audit=trail, clock=HandClock(), new_id=map(str, itertools.count()).__next__)

        async def ask() -> None:
            answers = await decider.answer_many(list(itertools.islice(questions, BATCH)))
            assert not any(answer.decision.allowed for answer in answers)
            await trail.record((), durable=True)

        for _ in range(warm):
            await ask()
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(batches):
            await ask()
        gc.collect()
        after = sys.getallocatedblocks()
        await trail.close()
        return after - before

    return asyncio.run(work())


@pytest.mark.holds("L6")
def test_ten_thousand_unknown_names_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cache in ("_parse_principal", "_parse_resource"):
        monkeypatch.setattr(names, cache, lru_cache(1_024)(getattr(names, cache).__wrapped__))
    assert grown(tmp_path, 100, warm=FULL_SMALL_CACHES) < FLAT


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.holds("L6")
def test_a_million_unknown_names_leave_nothing_behind(tmp_path: Path) -> None:
    assert grown(tmp_path, 10_000, warm=FULL_CACHES) < FLAT
