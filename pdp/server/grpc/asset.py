"""AssetService: the inventory."""

from typing import Any

from pdp.errors import BadRequestError
from pdp.inventory import Asset
from pdp.model.attributes import AttributeType
from pdp.model.names import printable
from pdp.server.callers import CALLER
from pdp.server.grpc.convert import need, value_message, value_of
from pdp.service.assets import Assets, Registration, plain_attributes
from pdp.v1 import asset_pb2, asset_pb2_grpc
from pdp.world import World


class AssetServicer(asset_pb2_grpc.AssetServiceServicer):
    """The RPCs of AssetService, behind the guard."""

    def __init__(self, *, assets: Assets) -> None:
        self._assets = assets

    async def Register(self, request: asset_pb2.RegisterRequest, _context: Any) -> asset_pb2.RegisterResponse:  # noqa: N802 - gRPC's name
        """Register assets or change them."""
        registrations = [_registration(asset) for asset in request.assets]
        seq = await self._assets.register(registrations, author=CALLER.get().name, revive=request.revive)
        return asset_pb2.RegisterResponse(world_seq=seq)

    async def Retire(self, request: asset_pb2.RetireRequest, _context: Any) -> asset_pb2.RetireResponse:  # noqa: N802 - gRPC's name
        """Take assets out of use."""
        seq = await self._assets.retire(request.names, reason=request.reason, author=CALLER.get().name)
        return asset_pb2.RetireResponse(world_seq=seq)

    async def Get(self, request: asset_pb2.GetAssetRequest, _context: Any) -> asset_pb2.GetAssetResponse:  # noqa: N802 - gRPC's name
        """Show one asset."""
        asset, world = self._assets.get(need(request.name, "name"))
        return asset_pb2.GetAssetResponse(asset=_message(asset, world), world_seq=world.seq)

    async def List(self, request: asset_pb2.ListAssetsRequest, _context: Any) -> asset_pb2.ListAssetsResponse:  # noqa: N802 - gRPC's name
        """Show the assets that a pattern names."""
        assets, world = self._assets.matching(request.pattern)
        return asset_pb2.ListAssetsResponse(assets=[_message(asset, world) for asset in assets], world_seq=world.seq)


def _registration(asset: asset_pb2.Asset) -> Registration:
    attributes = {}
    for name in asset.attributes:
        if name.startswith("resource."):
            raise BadRequestError(f"write `{printable(name.removeprefix('resource.'))}`, without `resource.`")
        attributes[name] = value_of(printable(name), asset.attributes[name])[1]
    return Registration(name=need(asset.name, "name"), attributes=attributes)


def _message(asset: Asset, world: World) -> asset_pb2.Asset:
    known = world.snapshot.vocabulary.attributes if world.snapshot else {}
    kinds: dict[str, AttributeType] = {name: info.type for name, info in known.items()}
    values = {
        name: value_message(value, kinds.get(f"resource.{name}")) for name, value in plain_attributes(asset).items()
    }
    return asset_pb2.Asset(name=str(asset.resource), attributes=values)
