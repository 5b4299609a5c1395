import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.limits import LIMITS
from sidecar.sessions import Sessions, next_check

INFINITY = float("inf")


def test_a_session_is_due_at_its_time_and_not_before() -> None:
    table = Sessions()
    table.plan(1, 10.0)
    assert list(table.due(9.9)) == []
    assert list(table.due(10.0)) == [1]


def test_a_check_that_nobody_plans_again_comes_back() -> None:
    table = Sessions()
    table.plan(1, 10.0)
    assert list(table.due(10.0)) == [1]
    assert list(table.due(10.0 + LIMITS.retry_s)) == [1]


def test_the_newest_plan_counts() -> None:
    table = Sessions()
    table.plan(1, 10.0)
    table.plan(1, 20.0)
    assert list(table.due(15.0)) == []
    table.plan(1, 12.0)
    assert list(table.due(15.0)) == [1]


def test_a_closed_session_is_never_due() -> None:
    table = Sessions()
    table.plan(1, 10.0)
    table.close(1)
    table.close(1)
    assert table.next_due() is None
    assert list(table.due(99.0)) == []
    assert len(table) == 0


def test_a_session_closed_while_the_due_ones_are_walked_is_skipped() -> None:
    table = Sessions()
    table.plan(1, 1.0)
    table.plan(2, 2.0)
    walk = table.due(5.0)
    assert next(walk) == 1
    table.close(2)
    assert list(walk) == []


@pytest.mark.holds("L6")
def test_replanning_for_ever_keeps_the_heap_small() -> None:
    table = Sessions()
    for _ in range(10_000):
        table.plan(1, INFINITY)
    assert len(table._heap) < 200


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 100), st.booleans())))
def test_no_session_is_forgotten(steps: list[tuple[int, float, bool]]) -> None:
    table = Sessions()
    expected: dict[int, float] = {}
    for session, due, close in steps:
        if close:
            table.close(session)
            expected.pop(session, None)
        else:
            table.plan(session, due)
            expected[session] = due
    assert table.next_due() == (min(expected.values()) if expected else None)
    assert set(table.due(50.0)) == {session for session, due in expected.items() if due <= 50.0}


@pytest.mark.parametrize(
    ("recheck", "patience", "expires", "expected"),
    [
        (None, INFINITY, 0, INFINITY),
        (10.0, INFINITY, 0, 110.0),
        (None, 60.0, 0, 160.0),
        (10.0, 60.0, 1_005, 105.0),
        (10.0, 60.0, 1_020, 110.0),
        (10.0, 60.0, 900, 100.0),
        (0.0, 60.0, 0, 100.0 + LIMITS.recheck_floor_s),
        (10.0, -5.0, 0, 100.0 + LIMITS.recheck_floor_s),
    ],
)
def test_the_earliest_bound_is_the_next_check(
    recheck: float | None, patience: float, expires: int, expected: float
) -> None:
    due = next_check(
        mono_s=100.0, wall_s=1_000.0, recheck_after_s=recheck, patience_s=patience, expires_at_s=expires, jitter=0.0
    )
    assert due == expected


@given(st.floats(0, 1), st.floats(LIMITS.recheck_floor_s, 1_000))
def test_jitter_never_overruns_the_bound(jitter: float, bound: float) -> None:
    due = next_check(mono_s=0.0, wall_s=0.0, recheck_after_s=bound, patience_s=INFINITY, expires_at_s=0, jitter=jitter)
    assert due <= bound
