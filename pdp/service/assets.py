"""The inventory: registering assets, and looking them up. What is not registered is not accessible."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pdp.change.proposal import check_message
from pdp.errors import BadRequestError, ConflictError, PortcullisError, Reason
from pdp.inventory import REVIEW_DATE, Asset, Retired
from pdp.limits import MAX_BATCH
from pdp.model.attributes import Value, has_come
from pdp.model.names import Resource, ResourcePattern
from pdp.replica import Replica
from pdp.service.replicate import Publisher
from pdp.world import World, make_asset

KIND: Final = "assets"
RETIRE: Final = "retire"
_PREFIX: Final = "resource."


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What an administrator says of an asset: attributes without the `resource.` in front."""

    name: str
    attributes: Mapping[str, Any]


class Assets:
    """Registers and shows assets."""

    def __init__(self, *, replica: Replica, publisher: Publisher) -> None:
        self._replica = replica
        self._publisher = publisher

    async def register(self, registrations: Sequence[Registration], *, author: str, revive: bool = False) -> int:
        """Register assets, or change their attributes, all or none; return the number of the world that has them.

        Raises:
            BadRequestError, BadNameError: an asset that the live vocabulary does not admit; nothing was changed.
            PortcullisError: `conflict`: an asset was retired, and nobody said `revive`; nothing was changed.
        """
        if not 0 < len(registrations) <= MAX_BATCH:
            raise BadRequestError(f"between 1 and {MAX_BATCH} assets are registered at once")

        def changed(world: World) -> Mapping[str, Any] | None:
            assets = [make_asset(world, item.name, item.attributes) for item in registrations]
            if len({str(asset.resource) for asset in assets}) < len(assets):
                raise BadRequestError("an asset stands twice")
            if not revive:
                _check_in_use(world, assets)
            others = [asset for asset in assets if world.assets.get(str(asset.resource)) != asset]
            return {"assets": [_payload(asset) for asset in others]} if others else None

        return await self._publish(KIND, changed, author)

    async def retire(self, names: Sequence[str], *, reason: str, author: str) -> int:
        """Take assets out of use, all or none; return the number of the world that refuses them.

        Raises:
            BadRequestError, BadNameError: no name, too many, or no reason.
            PortcullisError: `not_found`: one is not registered; nothing was changed.
        """
        if not 0 < len(names) <= MAX_BATCH:
            raise BadRequestError(f"between 1 and {MAX_BATCH} assets are retired at once")
        wanted = sorted({str(Resource.parse(name)) for name in names})

        def left(world: World) -> Mapping[str, Any] | None:
            names = [name for name in wanted if name not in world.retired]
            for name in names:
                if name not in world.assets:
                    raise PortcullisError(Reason.NOT_FOUND, f"`{name}` is not registered", advice="pdp asset list")
            if names and not reason.strip():
                raise BadRequestError("say why it is retired")
            check_message(reason)
            return {"names": names, "reason": reason} if names else None

        return await self._publish(RETIRE, left, author)

    async def _publish(self, kind: str, make: Callable[[World], Mapping[str, Any] | None], author: str) -> int:
        """Publish what `make` makes of the world of now, on exactly that world; None is in force already.

        Else a registration that waits behind a retirement would undo it, and nobody would have said `revive`.
        """
        while True:
            world = self._replica.world
            payload = make(world)
            if payload is None:
                return world.seq
            try:
                return await self._publisher.publish(kind, payload, author=author, expected_seq=world.seq)
            except ConflictError:
                if self._replica.world is world:
                    raise  # what came first cannot be taken in here: asking again would not end

    def get(self, name: str) -> tuple[Asset, World]:
        """Return an asset and the world it is in.

        Raises:
            PortcullisError: `not_found`.
        """
        world = self._replica.world
        asset = world.asset(Resource.parse(name))
        if asset is None:
            retired = world.retired.get(str(Resource.parse(name)))
            if retired is not None:
                raise PortcullisError(Reason.NOT_FOUND, _told(name, retired), advice=f"pdp asset history {name}")
            raise PortcullisError(Reason.NOT_FOUND, f"`{name}` is not registered", advice="pdp asset register")
        return asset, world

    def matching(self, pattern: str) -> tuple[list[Asset], World]:
        """Return the assets that `pattern` names (empty: all), in order, and the world they are in."""
        world = self._replica.world
        wanted = ResourcePattern.parse(pattern) if pattern else None
        found = [asset for asset in world.assets.values() if wanted is None or wanted.matches(asset.resource)]
        return sorted(found, key=lambda asset: str(asset.resource)), world


def plain_attributes(asset: Asset) -> dict[str, Any]:
    """Return an asset's attributes as people write them: without the `resource.` in front."""
    return {name.removeprefix(_PREFIX): value for name, value in asset.attributes.items()}


class Reviews:
    """Counts the assets whose review is due; an inventory is looked through once, however often it is asked."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._seen: Mapping[str, Asset] = {}
        self._dates: Sequence[Value] = ()

    def due(self, now_ms: int) -> int:
        """Return how many registered assets are due for review."""
        assets = self._replica.world.assets
        if assets is not self._seen:
            dates = (asset.attributes.get(_PREFIX + REVIEW_DATE) for asset in assets.values())
            self._seen, self._dates = assets, [date for date in dates if date is not None]
        return sum(has_come(date, now_ms) for date in self._dates)


def _check_in_use(world: World, assets: Sequence[Asset]) -> None:
    """Refuse to bring back what was retired: a nightly import of an old list must not."""
    for asset in assets:
        retired = world.retired.get(str(asset.resource))
        if retired is not None:
            advice = "say --revive if it is to be used again"
            raise PortcullisError(Reason.CONFLICT, _told(str(asset.resource), retired), advice=advice)


def _told(name: str, retired: Retired) -> str:
    return f"`{name}` was retired in entry {retired.seq} by {retired.by}: {retired.reason}"


def _payload(asset: Asset) -> dict[str, Any]:
    return {"name": str(asset.resource), "attributes": plain_attributes(asset)}
