"""Changing the policy: alone where it may be, with somebody else's yes where not, and never unseen."""

import asyncio

import pytest

from pdp.errors import PortcullisError, Reason
from pdp.model import canonical
from pdp.service.drafts import from_pack, from_rows
from pdp.service.policy import Draft
from pdp.trust.entry import SignedEntry
from tests.support.changes import ADA, EVE, MIA, OLGA, PEOPLE, Place, at_place, files, refusal
from tests.support.logs import Authority, MemoryLog, lock_payload

DEV = f"g, {MIA}, role:data-scientist, dev"
PROD = f"g, {MIA}, role:app, prod"


def rows(*add: str, remove: tuple[str, ...] = ()) -> Draft:
    return from_rows(add, remove, message="why")


class YieldingLog(MemoryLog):
    """A log that lets others run while it writes, as every real one does."""

    async def append(self, entry: SignedEntry, *, seq: int, prev: bytes) -> None:
        await asyncio.sleep(0)
        await super().append(entry, seq=seq, prev=prev)


# Alone.


def test_what_touches_nothing_of_weight_is_live_at_once() -> None:
    async def test(place: Place) -> None:
        outcome = await place.policies.apply(rows(DEV), place.acting(ADA))
        assert (outcome.needed, outcome.proposal, outcome.world) == (0, None, place.replica.world)
        assert DEV in place.rows()

    at_place(test)


def test_applying_what_is_live_writes_nothing() -> None:
    async def test(place: Place) -> None:
        for way in (place.policies.apply, place.policies.propose):
            outcome = await way(await from_pack(files(people_csv=PEOPLE), message=""), place.acting(ADA))
            assert (outcome.world, outcome.proposal) == (place.replica.world, None)
        assert len(place.log.entries) == 1

    at_place(test)


def test_who_may_not_change_the_policy_changes_nothing() -> None:
    async def test(place: Place) -> None:
        for who in (MIA, EVE):
            assert await refusal(place.policies.apply(rows(DEV), place.acting(who))) is Reason.NO_GRANT
        assert len(place.log.entries) == 1

    at_place(test)


# With somebody else's yes.


def test_a_change_of_production_waits_until_somebody_else_approves_it() -> None:
    async def test(place: Place) -> None:
        policies = place.policies
        outcome = await policies.apply(rows(PROD), place.acting(ADA))
        assert outcome.proposal is not None
        assert (outcome.needed, outcome.world, outcome.proposal.id) == (1, None, "p2")
        assert PROD not in place.rows()
        assert await refusal(policies.activate("p2", who=place.acting(ADA))) is Reason.APPROVAL_MISSING
        digest = outcome.proposal.digest
        approved, _ = await policies.approve("p2", expected=digest, message="yes", who=place.acting(EVE))
        assert approved.approvers() == (EVE,)
        world = await policies.activate("p2", who=place.acting(ADA))
        assert PROD in place.rows()
        assert len(world.proposals) == 0

    at_place(test)


def test_the_log_says_who_wrote_and_who_approved() -> None:
    async def test(place: Place) -> None:
        outcome = await place.policies.apply(rows(PROD), place.acting(ADA))
        assert outcome.proposal is not None
        await place.policies.approve("p2", expected=outcome.proposal.digest, message="", who=place.acting(EVE))
        await place.policies.activate("p2", who=place.acting(OLGA))
        told = canonical.loads(place.log.entries[3].payload)
        assert (told["proposal"], told["authors"], told["message"]) == ("p2", [ADA], "why")
        assert told["approvals"] == [{"by": [EVE], "seq": 3}]

    at_place(test)


def test_a_rejected_proposal_is_gone_and_its_author_may_withdraw_it() -> None:
    async def test(place: Place) -> None:
        policies = place.policies
        for who in (EVE, ADA):
            outcome = await policies.propose(rows(PROD), place.acting(ADA))
            assert outcome.proposal is not None
            found = outcome.proposal.id
            assert await refusal(place.desk.reject(found, message="", who=place.acting(MIA))) is Reason.NO_GRANT
            await place.desk.reject(found, message="no", who=place.acting(who))
            assert place.desk.waiting() == ()
            assert await refusal(policies.activate(found, who=place.acting(ADA))) is Reason.NOT_FOUND

    at_place(test)


def test_a_proposal_and_its_approvals_end_with_their_time() -> None:
    async def test(place: Place) -> None:
        outcome = await place.policies.apply(rows(PROD), place.acting(ADA))
        assert outcome.proposal is not None
        digest = outcome.proposal.digest
        await place.policies.approve("p2", expected=digest, message="", who=place.acting(EVE))
        place.clock.advance(8 * 86_400.0)
        assert place.desk.waiting() == ()
        assert await refusal(place.policies.activate("p2", who=place.acting(ADA))) is Reason.NOT_FOUND
        late = place.policies.approve("p2", expected=digest, message="", who=place.acting(OLGA))
        assert await refusal(late) is Reason.NOT_FOUND

    at_place(test)


def test_open_proposals_are_bounded_for_each_author_and_none_is_pushed_out() -> None:
    async def test(place: Place) -> None:
        for number in range(16):
            await place.policies.propose(rows(f"g, user:n{number}@x.org, role:app, prod"), place.acting(ADA))
        more = place.policies.propose(rows("g, user:one-more@x.org, role:app, prod"), place.acting(ADA))
        assert await refusal(more) is Reason.POLICY_REFUSED
        await place.policies.propose(rows(PROD), place.acting(OLGA))
        assert len(place.desk.waiting()) == 17

    at_place(test)


# A head that moved.


def test_a_proposal_is_carried_over_where_its_rows_still_fit() -> None:
    async def test(place: Place) -> None:
        outcome = await place.policies.propose(rows(PROD), place.acting(ADA))
        assert outcome.proposal is not None
        await place.policies.apply(
            await from_pack(files(people_csv=PEOPLE + DEV + "\n"), message=""), place.acting(OLGA)
        )
        await place.policies.approve(
            outcome.proposal.id, expected=outcome.proposal.digest, message="", who=place.acting(EVE)
        )
        await place.policies.activate(outcome.proposal.id, who=place.acting(ADA))
        assert {DEV, PROD} <= place.rows()

    at_place(test)


def test_two_edits_that_wait_do_not_stand_in_each_others_way() -> None:
    viewer = f"g, {MIA}, role:viewer, dev"

    async def test(place: Place) -> None:
        for row in (DEV, viewer):
            await place.policies.propose(rows(row), place.acting(ADA))
        for proposal in ("p3", "p2"):
            await place.policies.activate(proposal, who=place.acting(ADA))
        assert {DEV, viewer} <= place.rows()

    at_place(test)


def test_rows_that_collide_are_named() -> None:
    async def test(place: Place) -> None:
        await place.policies.apply(rows(DEV), place.acting(ADA))
        outcome = await place.policies.propose(from_rows([], [DEV], message="why"), place.acting(ADA))
        assert outcome.proposal is not None
        await place.policies.apply(from_rows([], [DEV], message="why"), place.acting(OLGA))
        with pytest.raises(PortcullisError, match=r"rows have changed since: edits\.csv:1") as refused:
            await place.policies.activate(outcome.proposal.id, who=place.acting(ADA))
        assert refused.value.reason is Reason.CONFLICT

    at_place(test)


def test_words_and_rows_never_mix_unseen() -> None:
    """One changes the vocabulary, one rows: each compiles after the other, and nobody has looked at the two together."""

    async def test(place: Place) -> None:
        words = files(people_csv=PEOPLE)
        words["vocabulary.yaml"] = words["vocabulary.yaml"].replace(b"  resource.license: {type: string}\n", b"")
        one = await place.policies.propose(await from_pack(words, message=""), place.acting(ADA))
        other = await place.policies.propose(rows(DEV), place.acting(ADA))
        assert one.proposal is not None
        assert other.proposal is not None
        await place.policies.approve("p2", expected=one.proposal.digest, message="", who=place.acting(EVE))
        results = await asyncio.gather(
            *(place.policies.activate(found, who=place.acting(ADA)) for found in ("p2", "p3")), return_exceptions=True
        )
        assert [getattr(result, "reason", None) for result in results].count(Reason.CONFLICT) == 1

    at_place(test, log=YieldingLog())


def test_a_change_that_is_no_policy_does_not_stand_in_the_way() -> None:
    async def test(place: Place) -> None:
        lock = place.publisher.publish("lock", lock_payload(1), author=ADA)
        await asyncio.gather(lock, place.policies.apply(rows(DEV), place.acting(ADA)))
        assert len(place.replica.world.locks) == 1
        assert DEV in place.rows()

    at_place(test, log=YieldingLog())


def test_a_proposal_activated_twice_at_once_is_one_entry() -> None:
    async def test(place: Place) -> None:
        await place.policies.propose(rows(DEV), place.acting(ADA))
        results = await asyncio.gather(
            *(place.policies.activate("p2", who=place.acting(ADA)) for _ in range(2)), return_exceptions=True
        )
        assert [getattr(result, "reason", None) for result in results].count(Reason.NOT_FOUND) == 1
        assert len(place.log.entries) == 3

    at_place(test, log=YieldingLog())


def test_a_store_that_cannot_be_followed_is_a_conflict_and_no_endless_loop() -> None:
    async def test(place: Place) -> None:
        place.log.entries.append(Authority().chain(2)[1])  # an entry 2 that this PDP does not believe
        assert await refusal(place.policies.apply(rows(DEV), place.acting(ADA))) is Reason.CONFLICT

    at_place(test)


# Whose yes still counts.

AGENT = "agent:scribe@x.org"


async def approved_by_eve(place: Place, *actors: str, groups: tuple[str, ...] = ()) -> None:
    outcome = await place.policies.apply(rows(PROD), place.acting(ADA))
    assert outcome.proposal is not None
    acting = place.acting(EVE, *actors, groups=groups)
    await place.policies.approve("p2", expected=outcome.proposal.digest, message="yes", who=acting)


async def taken_away(place: Place, row: str) -> None:
    outcome = await place.policies.apply(rows(remove=(row,)), place.acting(OLGA))
    assert outcome.proposal is not None
    found = outcome.proposal
    await place.policies.approve(found.id, expected=found.digest, message="", who=place.acting(ADA))
    await place.policies.activate(found.id, who=place.acting(OLGA))


def test_a_yes_of_somebody_who_lost_the_right_since_does_not_count() -> None:
    async def test(place: Place) -> None:
        await approved_by_eve(place)
        await taken_away(place, f"g, {EVE}, role:policy-approver, prod")
        assert await refusal(place.policies.activate("p2", who=place.acting(ADA))) is Reason.APPROVAL_MISSING
        assert PROD not in place.rows()

    at_place(test)


def test_a_yes_through_an_agent_that_is_locked_since_does_not_count() -> None:
    async def test(place: Place) -> None:
        await approved_by_eve(place, AGENT)
        target = {"kind": "principal", "principal": AGENT}
        await place.publisher.publish("lock", {**lock_payload(1), "target": target}, author=ADA)
        assert await refusal(place.policies.activate("p2", who=place.acting(ADA))) is Reason.APPROVAL_MISSING

    at_place(test, PEOPLE + f"g, {AGENT}, role:policy-approver, prod\n")


def test_a_yes_by_the_right_of_a_group_counts_as_long_as_the_group_has_it() -> None:
    held = "g, group:reviewers, role:policy-approver, prod"
    people = PEOPLE.replace(f"g, {EVE}, role:policy-approver, prod", held)

    async def test(place: Place) -> None:
        await approved_by_eve(place, groups=("group:reviewers",))
        await place.policies.activate("p2", who=place.acting(ADA))
        assert PROD in place.rows()

    async def gone(place: Place) -> None:
        await approved_by_eve(place, groups=("group:reviewers",))
        await taken_away(place, held)
        assert await refusal(place.policies.activate("p2", who=place.acting(ADA))) is Reason.APPROVAL_MISSING

    at_place(test, people)
    at_place(gone, people)
