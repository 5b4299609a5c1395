"""What the policy was, who brought each row, and back to what it was."""

import pytest

from pdp.errors import PortcullisError, Reason
from pdp.service.drafts import from_history, from_pack, from_rows
from pdp.service.history import History
from tests.support.changes import ADA, EVE, MIA, OLGA, PEOPLE, Place, at_place, files, refusal

DEV = f"g, {MIA}, role:data-scientist, dev"


async def changed(place: Place) -> None:
    """Ada lets Mia into dev (entry 2); Olga moves that row into a pack (entry 3)."""
    await place.policies.apply(from_rows([DEV], [], message="mia joins"), place.acting(ADA))
    pack = files(people_csv=PEOPLE, team_csv=f"# the team\n{DEV}\n", edits_csv="# nothing\n")
    await place.policies.apply(await from_pack(pack, message="tidy"), place.acting(OLGA))


def test_every_change_is_there_oldest_first_with_who_and_why() -> None:
    async def test(place: Place) -> None:
        await changed(place)
        found = [one async for one in History(place.log).revisions()]
        assert [(one.seq, one.authors, one.message) for one in found] == [
            (1, ("genesis",), "genesis"),
            (2, (ADA,), "mia joins"),
            (3, (OLGA,), "tidy"),
        ]
        assert [(len(one.added), len(one.removed)) for one in found[1:]] == [(1, 0), (1, 1)]

    at_place(test)


def test_a_row_that_only_moved_is_still_blamed_on_who_brought_it() -> None:
    async def test(place: Place) -> None:
        await changed(place)
        blamed = {row.fields: (row.id, revision.seq) for row, revision in await History(place.log).blame()}
        assert blamed[MIA, "role:data-scientist", "dev"] == ("team.csv:2", 2)

    at_place(test)


def test_a_row_taken_away_and_brought_back_is_blamed_on_the_last() -> None:
    async def test(place: Place) -> None:
        for draft in (
            from_rows([DEV], [], message=""),
            from_rows([], [DEV], message=""),
            from_rows([DEV], [], message=""),
        ):
            await place.policies.apply(draft, place.acting(ADA))
        blamed = {row.fields: revision.seq for row, revision in await History(place.log).blame()}
        assert blamed[MIA, "role:data-scientist", "dev"] == 4

    at_place(test)


def test_a_rollback_brings_back_the_old_rows_as_a_new_change_under_the_same_rules() -> None:
    async def test(place: Place) -> None:
        before = place.rows()
        await changed(place)
        held = await History(place.log).at(1)
        outcome = await place.policies.apply(from_history(held, message="back"), place.acting(ADA))
        assert place.rows() == before
        assert (outcome.world is place.replica.world, place.replica.world.seq) == (True, 4)
        # What took a yes to take away takes a yes to bring back.
        prod = f"g, {MIA}, role:app, prod"
        waits = await place.policies.apply(from_rows([prod], [], message=""), place.acting(ADA))
        assert waits.proposal is not None
        digest = waits.proposal.digest
        await place.policies.approve(waits.proposal.id, expected=digest, message="", who=place.acting(EVE))
        await place.policies.activate(waits.proposal.id, who=place.acting(ADA))
        again = await place.policies.apply(from_history(held, message="back"), place.acting(ADA))
        assert again.needed == 1

    at_place(test)


def test_before_the_first_policy_there_was_none() -> None:
    async def test(place: Place) -> None:
        assert await refusal(History(place.log).at(0)) is Reason.NOT_FOUND

    at_place(test)


def test_a_log_that_was_cut_says_so_instead_of_telling_half() -> None:
    async def test(place: Place) -> None:
        await changed(place)
        del place.log.entries[0]
        with pytest.raises(PortcullisError, match="begins with entry 2"):
            await History(place.log).blame()

    at_place(test)
