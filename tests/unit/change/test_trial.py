"""Trials as values: for whom a canary answers, and what of a trial cannot be."""

from typing import Any

import pytest

from pdp.change.proposal import Proposal, ProposalSet
from pdp.change.trial import NO_TRIALS, Mode, Scope, Stop, Trial, TrialSet
from pdp.errors import BadRequestError
from pdp.limits import MAX_POINTS, MAX_SHADOWS, MAX_TRIAL_S

SUBJECTS = [f"user:u{number}@x.org" for number in range(2_000)]


def proposal(number: int = 2, **changed: Any) -> Proposal:
    change = {"model": None, "vocabulary": None, "added": [], "removed": [], "message": "", **changed}
    raw = {"change": change, "revision": "r", "words": "w", "authors": ["user:a"], "groups": []}
    return Proposal.from_json({**raw, "seq": number, "time_ms": 1, "expires_ms": 1_000_000})


PROPOSALS = ProposalSet({f"p{number}": proposal(number) for number in range(2, 12)})


def trial(mode: Mode = Mode.SHADOW, number: int = 2, **options: Any) -> Trial:
    canary = (
        {"revision": "r", "scope": Scope(share=10), "stop": Stop(loses=10, gains=False)} if mode is Mode.CANARY else {}
    )
    base: dict[str, Any] = {
        "seq": 20 + number,
        "mode": mode,
        "proposal": f"p{number}",
        "digest": proposal(number).digest,
    }
    return Trial(**{**base, "by": ("user:a",), "start_ms": 1_000, "end_ms": 2_000, **canary, **options})


def test_a_share_is_about_so_many_and_who_is_in_it_stays_in_a_larger_one() -> None:
    def covered(share: int) -> set[str]:
        return {name for name in SUBJECTS if Scope(share=share).covers(b"salt", name, "")}

    assert 60 < len(covered(5)) < 140
    assert covered(5) < covered(25) < covered(100) == set(SUBJECTS)
    assert covered(25) != {name for name in SUBJECTS if Scope(share=25).covers(b"another", name, "")}


def test_named_points_are_exactly_those() -> None:
    scope = Scope(points=("edge",))
    assert [scope.covers(b"", SUBJECTS[0], point) for point in ("edge", "Edge", "", "edge2")] == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    "scope",
    [
        {},
        {"share": 101},
        {"share": -1},
        {"share": True},
        {"share": 5, "points": ("edge",)},
        {"points": ("",)},
        {"points": ("a\nb",)},
        {"points": tuple(f"p{n}" for n in range(MAX_POINTS + 1))},
    ],
)
def test_a_scope_that_is_none_is_refused(scope: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError):
        Scope(**scope)


def test_a_trial_ends() -> None:
    for end_ms in (1_000, 999, 1_001 + int(MAX_TRIAL_S * 1000)):
        with pytest.raises(BadRequestError):
            trial(end_ms=end_ms)
    late = trial(Mode.CANARY, scope=Scope(share=100))
    assert [late.covers("user:x", "", now_ms) for now_ms in (1_999, 2_000)] == [True, False]


def test_a_canary_without_a_condition_or_a_scope_is_none() -> None:
    for missing in ({"stop": None}, {"scope": None}, {"revision": ""}):
        with pytest.raises(BadRequestError):
            trial(Mode.CANARY, **missing)
    with pytest.raises(BadRequestError):
        trial(Mode.SHADOW, scope=Scope(share=5))


def test_it_is_read_as_it_was_written() -> None:
    for one in (trial(), trial(Mode.CANARY), trial(Mode.CANARY, scope=Scope(points=("a", "b")))):
        assert Trial.from_json(one.to_json()) == one


def test_one_canary_and_a_few_shadows_run_at_once() -> None:
    running = NO_TRIALS.begun(trial(Mode.CANARY), PROPOSALS)
    with pytest.raises(BadRequestError, match="end it first"):
        running.begun(trial(Mode.CANARY, 3), PROPOSALS)
    for number in range(2, 2 + MAX_SHADOWS):
        running = running.begun(trial(Mode.SHADOW, number), PROPOSALS)
    with pytest.raises(BadRequestError, match="already"):
        running.begun(trial(Mode.SHADOW, 3), PROPOSALS)
    with pytest.raises(BadRequestError, match="end it first"):
        running.begun(trial(Mode.SHADOW, 9), PROPOSALS)
    # What is over and nobody has said so does not stand in the way.
    later = trial(Mode.SHADOW, 9, start_ms=2_000, end_ms=3_000)
    assert list(running.begun(later, PROPOSALS)) == [later]


@pytest.mark.parametrize("options", [{"digest": "00"}, {"proposal": "p99"}, {"end_ms": 1_000_001}])
def test_a_trial_is_of_exactly_one_open_proposal_and_no_longer(options: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError):
        NO_TRIALS.begun(trial(**options), PROPOSALS)


def test_a_request_for_access_is_not_tried() -> None:
    asking = proposal(2, access={})
    with pytest.raises(BadRequestError):
        NO_TRIALS.begun(trial(digest=asking.digest), ProposalSet({"p2": asking}))


def test_what_is_no_longer_proposed_is_no_longer_tried() -> None:
    running = TrialSet((trial(Mode.CANARY), trial(Mode.SHADOW, 3)))
    assert [one.proposal for one in running.of(PROPOSALS.closed("p2"))] == ["p3"]
    assert [one.mode for one in running.without_canary()] == [Mode.SHADOW]
    with pytest.raises(BadRequestError):
        running.ended(1)
    assert running.ended(22).canary is None
