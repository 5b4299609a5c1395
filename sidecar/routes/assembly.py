"""The table of one server: the protocols it speaks, its own routes, and the names it serves, put together and checked.

Rows are matched in order: a server's own routes first, then its protocols as listed. Where two protocols have one method and
path the first has it. Whatever stands in none is denied.

Source: ENFORCEMENT.md 3.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from pdp.errors import BadNameError
from pdp.model.names import Action, Resource
from sidecar.routes import (
    Body,
    Placement,
    Registry,
    RouteTable,
    Row,
    Scope,
    Served,
    bentoml,
    kserve_v1,
    mlflow,
    oip,
    oip_grpc,
    openai,
)

PROTOCOLS: Final[Mapping[str, tuple[Row, ...]]] = MappingProxyType(
    {
        "oip": oip.ROWS,
        "oip-grpc": oip_grpc.ROWS,
        "kserve-v1": kserve_v1.ROWS,
        "openai": openai.ROWS,
        "kserve-openai": openai.KSERVE,
        "tgi": openai.TGI,
        "mlflow-gateway": openai.GATEWAY,
        "mlflow": mlflow.ROWS,
        "bentoml": bentoml.ROWS,
    }
)
"""Every protocol that `routes.yaml` may name."""

DEFAULT: Final = ("oip",)
"""What a server speaks that names nothing."""


def assemble(
    *,
    served: Mapping[str, Served],
    server: str = "",
    protocols: Sequence[str] = DEFAULT,
    own: Iterable[Row] = (),
    watch: bool = False,
    registry: Registry | None = None,
) -> RouteTable:
    """Return the table of one server.

    Args:
        served: Served name to what it stands for.
        server: What server-wide rows ask about; empty: they are denied.
        protocols: Names out of `PROTOCOLS`.
        own: The server's own routes.
        watch: Follow every invocation while it runs, also where the path alone decides: the obligations that need a body
            or a running response can then be met, at the price of one more hop for each chunk.
        registry: How an MLflow server's objects are called.

    Raises:
        ValueError: A served name, an own route, or a protocol that cannot be.
    """
    unknown = [name for name in protocols if name not in PROTOCOLS]
    if unknown:
        raise ValueError(f"protocols: `{unknown[0]}` is none of {', '.join(PROTOCOLS)}")
    if "oip" in protocols:
        oip.check_names(served)
    rows = [*own, *(row for name in protocols for row in PROTOCOLS[name])]
    for row in rows:
        _check(row)
    slashed = next((one.upstream for one in served.values() if "/" in one.upstream), "")
    if slashed and any(row.scope is Scope.SERVED for row in rows):
        raise ValueError(f"upstream: `{slashed}` cannot stand in a path, and a route here names the model there")
    rewritten = any(one.rewrites for one in served.values())
    placed = [_placed(row, watch=watch, rewritten=rewritten) for row in _distinct(rows)]
    return RouteTable(rows=tuple(placed), served=served, server=server, registry=registry)


def _distinct(rows: Iterable[Row]) -> list[Row]:
    first: dict[tuple[str, str], Row] = {}
    for row in rows:
        first.setdefault((row.method, row.path), row)
    return list(first.values())


def _placed(row: Row, *, watch: bool, rewritten: bool) -> Row:
    """Return the row where it can be carried out: ext_authz changes nothing and decides once."""
    if row.placement is not Placement.EXT_AUTHZ or row.scope is not Scope.SERVED:
        return row
    if watch and row.action == "endpoint.invoke":
        return replace(row, placement=Placement.EXT_PROC, body=Body.JSON)
    return replace(row, placement=Placement.EXT_PROC) if rewritten else row


def _check(row: Row) -> None:
    try:
        Action.parse(row.action)
        if row.scope is Scope.FIXED:
            Resource.parse(row.resource)
    except BadNameError as fault:
        raise ValueError(f"routes.{row.name}: {fault.message}") from None
    if row.scope is Scope.SERVED and "{m}" not in row.path:
        raise ValueError(f"routes.{row.name}: its path has no `{{m}}`: name a `resource`, or let its `body` decide")
    if row.scope is not Scope.SERVED and row.body is Body.GRPC and row.placement is not Placement.EXT_PROC:
        raise ValueError(f"routes.{row.name}: a gRPC message is read by ext_proc only")
