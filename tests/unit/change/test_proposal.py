"""Proposals as values: bound to exact bytes, approved by distinct people, read back as written."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.change.proposal import Proposal, ProposalSet, Verdict, change_digest
from pdp.errors import BadRequestError

CHANGE = {"model": None, "vocabulary": None, "added": [["g", ["a", "b"], "x.csv", 1]], "removed": [], "message": "why"}
NAMES = tuple(f"user:n{number}" for number in range(6))
CHAINS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True).map(tuple)


def proposal(*authors: str, seq: int = 7) -> Proposal:
    raw = {"change": CHANGE, "revision": "r", "words": "w", "authors": authors or NAMES[:1], "groups": ["group:x"]}
    return Proposal.from_json({**raw, "seq": seq, "time_ms": 10, "expires_ms": 100})


def verdict(*by: str, time_ms: int = 20) -> Verdict:
    return Verdict(by=by, approves=True, message="", seq=8, time_ms=time_ms, groups=("group:y",))


@given(CHAINS, st.lists(CHAINS, max_size=4))
def test_approvers_are_distinct_people_who_had_no_hand_in_it(
    authors: tuple[str, ...], chains: list[tuple[str, ...]]
) -> None:
    """INVARIANT: however chains overlap, no two counted approvals share a person, and none shares one with the author."""
    found = replace(proposal(*authors), verdicts=tuple(verdict(*chain) for chain in chains)).approvers()
    assert not set(found) & set(authors)
    assert len(set(found)) == len(found) <= len(chains)
    used: set[str] = set(authors)
    for name in found:
        chain = next(one for one in chains if one[0] == name and used.isdisjoint(one))
        used.update(chain)


@given(CHAINS, st.lists(CHAINS, max_size=4))
def test_a_proposal_reads_back_as_it_was_written(authors: tuple[str, ...], chains: list[tuple[str, ...]]) -> None:
    made = replace(proposal(*authors), verdicts=tuple(verdict(*chain) for chain in chains))
    assert Proposal.from_json(made.to_json()) == made


def test_the_digest_names_every_byte_of_the_change() -> None:
    other = CHANGE | {"added": [["g", ["a", "b"], "x.csv", 2]]}
    assert change_digest(CHANGE) != change_digest(other)
    assert change_digest(CHANGE) == change_digest(dict(reversed(CHANGE.items())))


def test_a_verdict_on_another_change_or_by_the_author_makes_no_world() -> None:
    """What a PDP must not seal, no replica folds: the check stands where every replica has it."""
    held = ProposalSet.EMPTY.opened(proposal())
    for digest, by in (
        ("0" * 64, NAMES[1:2]),
        (change_digest(CHANGE), NAMES[:1]),
        (change_digest(CHANGE), NAMES[1::-1]),
    ):
        with pytest.raises(BadRequestError):
            held.judged("p7", digest, verdict(*by))
    with pytest.raises(BadRequestError):
        held.judged("p7", change_digest(CHANGE), verdict(NAMES[1], time_ms=100))
    with pytest.raises(BadRequestError):
        held.judged("p8", change_digest(CHANGE), verdict(NAMES[1]))


def test_a_full_house_takes_no_more_and_gives_none_up() -> None:
    held = ProposalSet.EMPTY
    for number in range(128):
        held = held.opened(proposal(f"user:a{number}", seq=number + 1))
    with pytest.raises(BadRequestError):
        held.opened(proposal("user:other", seq=500))
    assert len(held) == 128


def test_requests_for_access_keep_no_change_of_the_policy_out() -> None:
    held = ProposalSet.EMPTY
    for number in range(128):
        asked = proposal(f"user:a{number}", seq=number + 1)
        held = held.opened(replace(asked, change={**CHANGE, "access": {}}))
    with pytest.raises(BadRequestError):
        held.opened(replace(proposal("user:other", seq=500), change={**CHANGE, "access": {}}))
    assert len(held.opened(proposal("user:ada", seq=501))) == 129


def test_the_same_word_said_again_fills_nothing() -> None:
    held = ProposalSet.EMPTY.opened(proposal())
    for time_ms in range(20, 30):
        for by in (NAMES[1:2], NAMES[1:3]):
            held = held.judged("p7", change_digest(CHANGE), verdict(*by, time_ms=time_ms))
    (found,) = held
    assert [(one.by, one.time_ms) for one in found.verdicts] == [(NAMES[1:2], 29), (NAMES[1:3], 29)]


@pytest.mark.parametrize("authors", [(), ("role:admin",), ("ada",), NAMES])
def test_a_chain_is_principals_and_not_too_many(authors: tuple[str, ...]) -> None:
    with pytest.raises(BadRequestError if authors in ((), NAMES) else ValueError):
        verdict(*authors)
