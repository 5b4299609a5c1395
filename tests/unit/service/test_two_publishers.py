"""F27 as a property: whatever two PDPs over one log do, in whatever order, one history comes out and nothing is lost."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pdp.errors import ConflictError, PortcullisError, Reason
from pdp.service.replicate import HeartbeatLoop, Publisher
from tests.support.logs import Authority, HandClock, MemoryLog, MemoryStore, head_of, lock_payload

AUTHORITY = Authority()
WHICH = st.sampled_from([0, 1])
T = TypeVar("T")


class TwoPublishers(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.log = MemoryLog()
        self.clock = HandClock()
        self.stores = [MemoryStore(), MemoryStore()]
        self.acknowledged: dict[int, str] = {}
        self.number = 0
        self.replicas = [AUTHORITY.replica(), AUTHORITY.replica()]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(work)

    def publisher(self, which: int) -> Publisher:
        return Publisher(self.log, self.replicas[which], AUTHORITY.keys, self.clock, self.stores[which])

    @rule(which=WHICH)
    def publish(self, which: int) -> None:
        self.number += 1
        behind = self.replicas[which].head != head_of(self.log.entries)
        payload = lock_payload(self.number)
        try:
            seq = self.run(self.publisher(which).publish("lock", payload, author="user:ada"))
        except ConflictError as conflict:
            assert behind
            assert conflict.head_seq == len(self.log.entries)  # noqa: PT017 - one of three outcomes
        except PortcullisError as error:
            assert error.reason is Reason.STORE_UNAVAILABLE  # noqa: PT017 - another
            assert self.log.down
        else:
            assert not behind
            assert seq not in self.acknowledged
            self.acknowledged[seq] = payload["id"]

    @rule(which=WHICH)
    def catch_up(self, which: int) -> None:
        try:
            self.run(self.publisher(which).catch_up())
        except PortcullisError:
            assert self.log.down
        else:
            assert self.replicas[which].head == head_of(self.log.entries)

    @rule(which=WHICH)
    def kill_and_restart(self, which: int) -> None:
        self.replicas[which] = AUTHORITY.replica()

    @rule(which=WHICH, seconds=st.floats(0, 10))
    def beat(self, which: int, seconds: float) -> None:
        self.clock.advance(seconds)
        replica = self.replicas[which]
        beats = HeartbeatLoop(self.log, replica, AUTHORITY.keys, self.clock, self.stores[which])
        at_head = replica.head == head_of(self.log.entries) and replica.world.seq >= replica.mark
        assert self.run(beats.beat()) is (at_head and not self.log.down)

    @rule()
    def cut_or_mend(self) -> None:
        self.log.down = not self.log.down

    @invariant()
    def nothing_acknowledged_is_lost(self) -> None:
        for seq, lock_id in self.acknowledged.items():
            assert lock_id.encode() in self.log.entries[seq - 1].payload

    @invariant()
    def every_replica_stands_on_the_one_history(self) -> None:
        for replica in self.replicas:
            assert replica.head == head_of(self.log.entries[: replica.world.seq])


TestTwoPublishers = pytest.mark.holds("F27")(TwoPublishers.TestCase)
TestTwoPublishers.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
