"""While the next world is made, the old one decides: what takes long is made beside the loop."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pdp.engine.digests import rows_digest
from pdp.replica import Replica
from pdp.service.aside import prepare
from pdp.service.replicate import Publisher
from pdp.trust.entry import Head, SignedEntry
from tests.support.logs import Authority, HandClock, MemoryLog, MemoryStore, lock_payload
from tests.support.worlds import MODEL, VOCABULARY, rows

AUTHORITY = Authority()


def policy_payload() -> dict[str, Any]:
    """Return the payload of a first policy of one row."""
    made = rows("p, role:app, endpoint.invoke, endpoint/**, prod, , , allow\n")
    return {
        "model": MODEL,
        "vocabulary": VOCABULARY,
        "added": [row.to_json() for row in made],
        "removed": [],
        "rows_digest": rows_digest(made).hex(),
    }


class Held:
    """Holds up each `prepare` of a replica, in whichever thread it runs, until it is let go."""

    def __init__(self, replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        self.threads: list[threading.Thread] = []
        real: Callable[..., Any] = replica.prepare

        def held(entry: SignedEntry, *, now_ms: int) -> object:
            self.threads.append(threading.current_thread())
            self.entered.set()
            assert self.go.wait(10)
            return real(entry, now_ms=now_ms)

        monkeypatch.setattr(replica, "prepare", held)


def test_the_old_world_decides_and_hears_heartbeats_while_a_policy_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        replica, clock = AUTHORITY.replica(), HandClock()
        publisher = Publisher(MemoryLog(), replica, AUTHORITY.keys, clock, MemoryStore())
        await publisher.publish("lock", lock_payload(1), author="user:ada")
        old = replica.world
        held = Held(replica, monkeypatch)
        change = asyncio.create_task(publisher.publish("policy", policy_payload(), author="user:ada"))
        assert await asyncio.to_thread(held.entered.wait, 10)
        # The loop is ours again, though the policy is not made yet.
        assert replica.world is old
        beat = AUTHORITY.heartbeat(Head(seq=old.seq, digest=old.head), time_ms=clock.now_ms())
        assert replica.heard(beat, now_ms=clock.now_ms(), mono_s=clock.mono_s()) is True
        held.go.set()
        assert await change == old.seq + 1
        assert replica.world.snapshot is not None
        assert old.snapshot is None

    asyncio.run(run())


def test_a_lock_is_not_sent_to_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        replica = AUTHORITY.replica()
        held = Held(replica, monkeypatch)
        held.go.set()
        for entry in (AUTHORITY.entry(), AUTHORITY.entry(payload=policy_payload(), kind="policy")):
            await prepare(replica, entry, now_ms=HandClock().now_ms())
        assert [thread is threading.main_thread() for thread in held.threads] == [True, False]

    asyncio.run(run())


def test_a_header_that_cannot_be_read_is_refused_as_before() -> None:
    async def run() -> None:
        replica = AUTHORITY.replica()
        genuine = AUTHORITY.entry()
        broken = SignedEntry(header=b"{", payload=genuine.payload, signatures=genuine.signatures)
        await prepare(replica, broken, now_ms=HandClock().now_ms())
        assert replica.world.seq == 0
        assert replica.last_error

    asyncio.run(run())
