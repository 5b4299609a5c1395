"""Access just in time: asked for with a reason, approved by somebody else, ended by itself."""

import asyncio

import pytest

from pdp.errors import Reason
from pdp.service.access import lent
from pdp.service.drafts import from_pack
from tests.support.changes import ADA, EVE, MIA, OLGA, PEOPLE, Place, at_place, files, refusal

MEMBERS = PEOPLE + f"g, {MIA}, role:member, prod\n"
HOUR_MS = 3_600_000
ROLE = "role:release-manager"


async def asked(place: Place, *, by: str = MIA, role: str = ROLE, duration_ms: int = 2 * HOUR_MS) -> tuple[str, str]:
    proposal, wish = await place.access.request(
        role=role, environment="prod", duration_ms=duration_ms, reason="hotfix", who=place.acting(by)
    )
    assert wish.needed >= 1
    return proposal.id, proposal.digest


def held(place: Place) -> list[tuple[str, str, int]]:
    return [
        (row.fields[0], row.fields[1], end_ms - place.clock.now_ms())
        for row, end_ms in lent(place.replica.world, place.clock.now_ms())
    ]


def test_a_request_is_live_once_somebody_else_approves_and_its_time_counts_from_then() -> None:
    async def test(place: Place) -> None:
        found, digest = await asked(place)
        assert held(place) == []
        place.clock.advance(3_600)  # the reviewer was at lunch
        approved, world = await place.access.approve(found, expected=digest, message="", who=place.acting(EVE))
        assert (approved, len(world.proposals)) == ([EVE], 0)
        assert held(place) == [(MIA, ROLE, 2 * HOUR_MS)]
        place.clock.advance(7_201)
        assert held(place) == []

    at_place(test, MEMBERS)


def test_nobody_lends_themselves_anything() -> None:
    async def test(place: Place) -> None:
        for who in (MIA, ADA):
            found, digest = await asked(place, by=who)
            doing = place.access.approve(found, expected=digest, message="", who=place.acting(who))
            assert await refusal(doing) is Reason.SELF_APPROVAL

    at_place(test, MEMBERS)


def test_a_policy_that_demands_no_approval_still_gets_one() -> None:
    lax = files()
    lax["grants.csv"] = lax["grants.csv"].replace(
        b"change.duration_s <= 28800, approvals=1", b"change.duration_s <= 28800, "
    )

    async def test(place: Place) -> None:
        await asked(place)
        assert held(place) == []

    at_place(test, MEMBERS, shipped=lax)


@pytest.mark.parametrize(
    ("role", "duration_ms", "reason"),
    [
        ("role:policy-admin", HOUR_MS, Reason.NO_GRANT),
        ("role:operator", HOUR_MS, Reason.NO_GRANT),
        (ROLE, 9 * HOUR_MS, Reason.NO_GRANT),
        (ROLE, 0, Reason.BAD_REQUEST),
        (ROLE, 10_000 * HOUR_MS, Reason.BAD_REQUEST),
        ("role:x, prod\ng, user:mia@x.org", HOUR_MS, Reason.BAD_NAME),
    ],
)
def test_what_may_not_be_asked_for_is_refused(role: str, duration_ms: int, reason: Reason) -> None:
    async def test(place: Place) -> None:
        assert await refusal(asked(place, role=role, duration_ms=duration_ms)) is reason
        assert len(place.log.entries) == 1

    at_place(test, MEMBERS)


def test_who_may_not_ask_at_all_may_not_ask_for_access() -> None:
    async def test(place: Place) -> None:
        assert await refusal(asked(place, by="user:stranger@x.org")) is Reason.NO_GRANT

    at_place(test, MEMBERS)


def test_a_request_without_a_reason_is_none() -> None:
    async def test(place: Place) -> None:
        doing = place.access.request(
            role=ROLE, environment="prod", duration_ms=HOUR_MS, reason=" ", who=place.acting(MIA)
        )
        assert await refusal(doing) is Reason.BAD_REQUEST

    at_place(test, MEMBERS)


def test_a_request_is_not_activated_around_its_approval() -> None:
    async def test(place: Place) -> None:
        found, _ = await asked(place)
        assert await refusal(place.policies.activate(found, who=place.acting(ADA))) is Reason.APPROVAL_MISSING

    at_place(test, MEMBERS)


def test_what_has_ended_is_cleared_away_by_the_next_grant() -> None:
    async def test(place: Place) -> None:
        for _ in range(2):
            found, digest = await asked(place)
            await place.access.approve(found, expected=digest, message="", who=place.acting(EVE))
            place.clock.advance(7_201)
        snapshot = place.replica.world.snapshot
        assert snapshot is not None
        assert len([row for row in snapshot.rows if row.file == "access.csv"]) == 1

    at_place(test, MEMBERS)


def test_a_pack_applied_meanwhile_takes_nothing_back() -> None:
    async def test(place: Place) -> None:
        found, digest = await asked(place)
        await place.access.approve(found, expected=digest, message="", who=place.acting(EVE))
        more = files(people_csv=MEMBERS + f"g, {MIA}, role:viewer, dev\n")
        await place.policies.apply(await from_pack(more, message=""), place.acting(ADA))
        assert held(place) == [(MIA, ROLE, 2 * HOUR_MS)]

    at_place(test, MEMBERS)


def test_two_approvals_at_once_grant_once() -> None:
    async def test(place: Place) -> None:
        found, digest = await asked(place)
        results = await asyncio.gather(
            *(place.access.approve(found, expected=digest, message="", who=place.acting(who)) for who in (EVE, OLGA)),
            return_exceptions=True,
        )
        assert any(isinstance(result, tuple) for result in results)
        assert held(place) == [(MIA, ROLE, 2 * HOUR_MS)]

    at_place(test, MEMBERS)


def test_an_approval_is_asked_with_the_time_that_the_access_would_last() -> None:
    short = files()
    short["grants.csv"] += (
        b"p, role:policy-approver, policy.approve, policy/main, prod, change.duration_s > 3600, , deny\n"
    )

    async def test(place: Place) -> None:
        for duration_ms, granted in ((HOUR_MS, True), (2 * HOUR_MS, False)):
            found, digest = await asked(place, duration_ms=duration_ms)
            doing = place.access.approve(found, expected=digest, message="", who=place.acting(EVE))
            if granted:
                await doing
            else:
                assert await refusal(doing) is Reason.DENIED_BY_RULE
        assert [end_ms for _, _, end_ms in held(place)] == [HOUR_MS]

    at_place(test, MEMBERS, shipped=short)


def test_rows_that_a_pack_puts_beside_lent_ones_stop_nobody_from_asking() -> None:
    others = files(access_csv=f"g, {MIA}, role:viewer, dev\np, role:viewer, model.list, model/x, dev, , , allow\n")

    async def test(place: Place) -> None:
        found, digest = await asked(place)
        await place.access.approve(found, expected=digest, message="", who=place.acting(EVE))
        assert held(place) == [(MIA, ROLE, 2 * HOUR_MS)]
        assert f"g, {MIA}, role:viewer, dev, _, _" in place.rows() or f"g, {MIA}, role:viewer, dev" in place.rows()

    at_place(test, MEMBERS, shipped=others)


def test_a_role_that_came_to_mean_more_since_it_was_asked_for_is_not_lent() -> None:
    async def test(place: Place) -> None:
        found, digest = await asked(place, role="role:viewer")
        more = MEMBERS + "p, role:viewer, lock.add, lock/all, prod, , , allow\n"
        outcome = await place.policies.apply(await from_pack(files(people_csv=more), message=""), place.acting(ADA))
        assert outcome.proposal is not None
        other = outcome.proposal
        await place.policies.approve(other.id, expected=other.digest, message="", who=place.acting(OLGA))
        await place.policies.activate(other.id, who=place.acting(ADA))
        doing = place.access.approve(found, expected=digest, message="", who=place.acting(EVE))
        assert await refusal(doing) is Reason.NO_GRANT
        assert held(place) == []

    at_place(test, MEMBERS)
