import pytest

from pdp.audit.query import Wanted, fits

RECORD = {
    "kind": "decision", "time_ms": 50, "world_seq": 3, "effect": "allow", "principal": "user:bob@x.org",
    "actors": [{"principal": "agent:etl"}, {"principal": "agent:planner"}], "workload": "workload:spiffe://x/web",
    "action": "dataset.read", "resource": "dataset/pii/people@3", "version": "3", "reason": "granted",
    "determining": ["grants.csv:6", "segmentation.csv:2"],
}  # fmt: skip


@pytest.mark.parametrize(
    "asked",
    [
        {}, {"subject": "user:bob@x.org"}, {"subject": "user:*"}, {"actor": "agent:planner"}, {"actor": "*etl"},
        {"resource": "dataset/pii/*"}, {"resource": "dataset/pii/people"}, {"resource": "dataset/pii/people@3"},
        {"resource": "dataset/**/people@*"}, {"version": "3"}, {"rule": "grants.csv:*"}, {"rule": "segmentation.csv:2"},
        {"effect": "allow"}, {"world_seq": 3}, {"since_ms": 50, "until_ms": 50}, {"workload": "*web"}, {"reason": "granted"},
        {"action": "dataset.*", "subject": "*@x.org"},
    ],
)  # fmt: skip
def test_what_fits_is_found(asked: dict[str, object]) -> None:
    assert Wanted(**asked).matches(RECORD)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "asked",
    [
        {"subject": "user:bob"}, {"subject": "bob@x.org"}, {"subject": "user:bob@x-org"}, {"actor": "agent:etl*planner"},
        {"resource": "dataset/pii/people@4"}, {"resource": "dataset/pii"}, {"version": "4"}, {"rule": "grants.csv:"},
        {"effect": "deny"}, {"world_seq": 2}, {"since_ms": 51}, {"until_ms": 49}, {"reason": "no_grant"},
        {"action": "dataset.*", "subject": "user:eve"},
    ],
)  # fmt: skip
def test_what_does_not_fit_is_not(asked: dict[str, object]) -> None:
    assert not Wanted(**asked).matches(RECORD)  # type: ignore[arg-type]


def test_only_decisions_are_found() -> None:
    assert not Wanted().matches(RECORD | {"kind": "stream"})


def test_nothing_but_the_star_is_special() -> None:
    assert fits("subject", "user:a[b].?+(c)", "user:a[b].?+(c)")
    assert not fits("subject", "user:a[b]", "user:ab")
    assert not fits("subject", "user:a.c", "user:abc")
