from dataclasses import replace

import pytest

from pdp.errors import PortcullisError, Reason
from pdp.limits import MAX_CLOCK_SKEW_S
from pdp.replica import NEVER, Prepared, Replica
from pdp.trust.entry import Head
from pdp.trust.verifier import Fault, Refused
from pdp.world import World
from tests.support.logs import START_MS, Authority, head_of, lock_payload, take

AUTHORITY = Authority()
CHAIN = AUTHORITY.chain(4)


def prepared(replica: Replica, number: int) -> Prepared:
    result = replica.prepare(CHAIN[number - 1], now_ms=START_MS)
    assert isinstance(result, Prepared), result
    return result


def test_preparing_moves_nothing_and_committing_swaps_and_tells() -> None:
    replica, told = AUTHORITY.replica(), []
    replica.on_change(told.append)
    before, ready = replica.world, prepared(replica, 1)
    assert replica.world is before
    replica.commit(ready)
    assert replica.world.seq == 1
    assert replica.head == head_of(CHAIN[:1])
    assert told == [replica.world]


@pytest.mark.holds("P4")
def test_a_pinned_world_does_not_change_under_its_reader() -> None:
    replica = take(AUTHORITY.replica(), CHAIN[:1])
    pinned = replica.world
    take(replica, CHAIN[1:2])
    assert (pinned.seq, len(pinned.locks)) == (1, 1)
    assert (replica.world.seq, len(replica.world.locks)) == (2, 2)


def test_what_was_prepared_on_another_world_is_not_committed() -> None:
    replica = AUTHORITY.replica()
    one, other = prepared(replica, 1), prepared(replica, 1)
    replica.commit(one)
    with pytest.raises(PortcullisError) as refusal:
        replica.commit(other)
    assert refusal.value.reason is Reason.CONFLICT


def test_a_listener_that_unsubscribed_hears_no_more() -> None:
    told: list[World] = []
    replica = AUTHORITY.replica()
    stop = replica.on_change(told.append)
    stop()
    stop()
    take(replica, CHAIN[:1])
    assert told == []


def test_infinitely_stale_before_the_first_heartbeat() -> None:
    assert take(AUTHORITY.replica(), CHAIN).staleness_s(now_ms=START_MS, mono_s=0.0) == float("inf")


def test_a_heartbeat_that_names_our_head_makes_us_fresh_and_ages_by_the_monotonic_clock() -> None:
    replica = take(AUTHORITY.replica(), CHAIN)
    assert replica.heard(AUTHORITY.heartbeat(replica.head), now_ms=START_MS + 500, mono_s=50.0) is True
    assert replica.staleness_s(now_ms=START_MS, mono_s=52.0) == 2.5
    assert replica.staleness_s(now_ms=START_MS - 10**9, mono_s=52.0) == 2.5
    assert replica.proof == AUTHORITY.heartbeat(replica.head)
    assert replica.heartbeat_ms == START_MS


def test_a_heartbeat_for_an_entry_to_come_counts_once_the_entry_is_in_force() -> None:
    replica = take(AUTHORITY.replica(), CHAIN[:3])
    assert replica.heard(AUTHORITY.heartbeat(head_of(CHAIN)), now_ms=START_MS, mono_s=50.0) is False
    assert replica.staleness_s(now_ms=START_MS, mono_s=50.0) == float("inf")
    take(replica, CHAIN[3:])
    assert replica.staleness_s(now_ms=START_MS, mono_s=51.0) == 1.0


def test_a_heartbeat_for_another_entry_under_the_number_to_come_never_counts() -> None:
    replica = take(AUTHORITY.replica(), CHAIN[:3])
    replica.heard(AUTHORITY.heartbeat(Head(seq=4, digest=b"\x01" * 32)), now_ms=START_MS, mono_s=50.0)
    take(replica, CHAIN[3:])
    assert replica.staleness_s(now_ms=START_MS, mono_s=50.0) == float("inf")
    assert replica.last_error.startswith(Fault.EQUIVOCATION)


def test_a_heartbeat_we_have_passed_counts_for_the_time_it_was_read() -> None:
    replica = take(AUTHORITY.replica(), CHAIN)
    assert replica.heard(AUTHORITY.heartbeat(head_of(CHAIN[:3])), now_ms=START_MS, mono_s=50.0) is True


@pytest.mark.holds("F5", "V4")
def test_a_heartbeat_over_another_entry_than_the_one_we_have_passed_is_refused_at_once() -> None:
    replica = take(AUTHORITY.replica(), CHAIN[:3])
    other = AUTHORITY.entry(head_of(CHAIN[:1]), payload=lock_payload(99))
    forked = AUTHORITY.heartbeat(Head(seq=2, digest=other.digest), time_ms=START_MS + 1_000)
    refused = replica.heard(forked, now_ms=START_MS + 1_000, mono_s=1.0)
    assert isinstance(refused, Refused)
    assert refused.reason is Fault.EQUIVOCATION
    assert replica.staleness_s(now_ms=START_MS, mono_s=1.0) == NEVER


@pytest.mark.holds("F4", "F5")
def test_a_store_that_stays_behind_what_we_hold_is_a_rollback() -> None:
    replica = take(AUTHORITY.replica(), CHAIN)
    late = START_MS + round(MAX_CLOCK_SKEW_S * 1000) + 1
    result = replica.heard(AUTHORITY.heartbeat(head_of(CHAIN[:3]), time_ms=late), now_ms=late, mono_s=50.0)
    assert isinstance(result, Refused)
    assert result.reason is Fault.ROLLBACK


@pytest.mark.holds("F12")
def test_now_is_never_before_the_newest_signed_time() -> None:
    replica = take(AUTHORITY.replica(), CHAIN)
    assert replica.now_ms(START_MS - 5) == START_MS
    replica.heard(AUTHORITY.heartbeat(replica.head, time_ms=START_MS + 9), now_ms=START_MS, mono_s=0.0)
    assert replica.now_ms(START_MS) == START_MS + 9
    assert replica.now_ms(START_MS + 10) == START_MS + 10


@pytest.mark.holds("F13")
def test_skew_tells_how_far_the_clock_is_off_signed_time() -> None:
    replica = take(AUTHORITY.replica(), CHAIN)
    assert replica.skew_s(now_ms=START_MS, mono_s=0.0) == 0
    replica.heard(AUTHORITY.heartbeat(replica.head), now_ms=START_MS, mono_s=10.0)
    assert replica.skew_s(now_ms=START_MS + 300_000, mono_s=11.0) == 299


@pytest.mark.holds("F12")
def test_a_stored_heartbeat_ages_by_wall_time_across_the_restart() -> None:
    replica = take(AUTHORITY.replica(), CHAIN)
    heartbeat = AUTHORITY.heartbeat(replica.head)
    assert replica.restore_heartbeat(heartbeat, now_ms=START_MS + 40_000, mono_s=1.0) is True
    assert replica.staleness_s(now_ms=START_MS, mono_s=2.0) == 41


@pytest.mark.holds("F12")
def test_a_clock_behind_the_stored_heartbeat_is_stale() -> None:
    replica = take(AUTHORITY.replica(), CHAIN)
    replica.restore_heartbeat(AUTHORITY.heartbeat(replica.head), now_ms=START_MS - 1, mono_s=1.0)
    assert replica.staleness_s(now_ms=START_MS, mono_s=1.0) == float("inf")


@pytest.mark.holds("V4", "V9")
def test_nothing_below_the_mark_is_fresh() -> None:
    replica = take(AUTHORITY.replica(), CHAIN[:3])
    replica.remember(4)
    replica.heard(AUTHORITY.heartbeat(replica.head), now_ms=START_MS, mono_s=0.0)
    assert replica.staleness_s(now_ms=START_MS, mono_s=0.0) == float("inf")
    take(replica, CHAIN[3:])
    assert replica.staleness_s(now_ms=START_MS, mono_s=0.0) == 0
    assert replica.mark == 4


def test_a_snapshot_brings_the_same_world_as_the_entries() -> None:
    source = take(AUTHORITY.replica(), CHAIN)
    replica = AUTHORITY.replica()
    ready = replica.prepare_snapshot(AUTHORITY.snapshot(source), now_ms=START_MS)
    assert isinstance(ready, Prepared)
    replica.commit(ready)
    assert replica.head == source.head
    assert [lock.id for lock in replica.world.locks] == [lock.id for lock in source.world.locks]


def test_a_fresh_heartbeat_over_our_head_clears_the_last_error() -> None:
    replica = take(AUTHORITY.replica(), CHAIN)
    replica.prepare(CHAIN[0], now_ms=START_MS)
    assert replica.last_error
    replica.heard(AUTHORITY.heartbeat(replica.head), now_ms=START_MS, mono_s=0.0)
    assert replica.last_error == ""
    assert replica.counters["refused_rollback"] == 1


def test_failures_around_the_replica_are_counted_and_shown() -> None:
    replica = AUTHORITY.replica()
    replica.failed("store_unavailable", "the disk is full")
    assert replica.last_error == "store_unavailable: the disk is full"
    assert replica.counters["failed_store_unavailable"] == 1


def test_an_entry_of_a_retired_engine_level_is_still_read() -> None:
    old = AUTHORITY.entry(min_engine=0)
    assert isinstance(AUTHORITY.replica().prepare(old, now_ms=START_MS), Prepared)
    assert replace(AUTHORITY.entry(), payload=b"") != old
