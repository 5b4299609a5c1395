"""The inventory as a use case: what two administrators do to it at once, none of them undoes unseen."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from pdp.errors import BadRequestError, PortcullisError, Reason
from pdp.model.attributes import has_come, instant_of
from pdp.service.assets import Assets, Registration, Reviews
from tests.support import changes
from tests.support.changes import ADA, OLGA, Place
from tests.support.logs import lock_payload

FRAUD = Registration(name="model/fraud", attributes={"environment": "prod"})
NOON_MS = 1_893_499_200_000
MOVED = Registration(name="model/fraud", attributes={"environment": "dev"})


def room(test: Callable[[Place, Assets], Awaitable[None]]) -> Callable[[], None]:
    async def run() -> None:
        place = Place()
        await place.open(changes.PEOPLE)
        assets = Assets(replica=place.replica, publisher=place.publisher)
        await assets.register([FRAUD], author=ADA)
        await test(place, assets)

    def wrapped() -> None:
        asyncio.run(run())

    wrapped.__name__ = test.__name__
    return wrapped


@room
async def test_an_import_that_waits_behind_a_retirement_does_not_undo_it(place: Place, assets: Assets) -> None:
    """The nightly import looked when the asset was in use; it is written when it no longer is."""
    retiring = assets.retire(["model/fraud"], reason="poisoned", author=OLGA)
    importing = assets.register([MOVED], author=ADA)
    _, refused = await asyncio.gather(retiring, importing, return_exceptions=True)
    assert isinstance(refused, PortcullisError)
    assert refused.reason is Reason.CONFLICT
    assert "--revive" in refused.advice
    assert "model/fraud" in place.replica.world.retired


@room
async def test_two_who_retire_the_same_asset_at_once_both_have_what_they_want(place: Place, assets: Assets) -> None:
    first, second = await asyncio.gather(
        *(assets.retire(["model/fraud"], reason="poisoned", author=who) for who in (ADA, OLGA))
    )
    assert first == second == place.replica.world.seq


@room
async def test_an_asset_is_registered_behind_whatever_comes_first(place: Place, assets: Assets) -> None:
    lock = place.publisher.publish("lock", lock_payload(1), author=OLGA)
    _, seq = await asyncio.gather(lock, assets.register([MOVED], author=ADA))
    assert seq == place.replica.world.seq
    assert place.replica.world.assets["model/fraud"].environment == "dev"


@room
async def test_assets_are_due_for_review_from_their_date_on(place: Place, assets: Assets) -> None:
    reviews = Reviews(place.replica)
    assert reviews.due(NOON_MS) == 0  # model/fraud has no date
    dated = FRAUD.attributes | {"review_date": instant_of(NOON_MS)}
    await assets.register([Registration(name="model/fraud", attributes=dated)], author=ADA)
    assert (reviews.due(NOON_MS - 1), reviews.due(NOON_MS)) == (0, 1)
    await assets.retire(["model/fraud"], reason="superseded", author=OLGA)
    assert reviews.due(NOON_MS) == 0


@room
async def test_a_review_date_is_an_instant(place: Place, assets: Assets) -> None:
    soon = Registration(name="model/fraud", attributes=FRAUD.attributes | {"review_date": "soon"})
    with pytest.raises(BadRequestError, match="an instant is RFC 3339"):
        await assets.register([soon], author=ADA)
    assert "model/fraud" in place.replica.world.assets
    assert has_come("soon", 0)  # a vocabulary of one's own may call it text: somebody notices
