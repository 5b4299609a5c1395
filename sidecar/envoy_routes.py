"""Envoy's routes, generated from the rows: each decided by exactly one filter, and a last one that catches everything else.

Source: ENFORCEMENT.md 2.1, EX-10, EX-18, EP-2.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from sidecar.envoy_names import (
    EXT_AUTHZ,
    EXT_PROC,
    UNMAPPED,
    UPSTREAM,
    UPSTREAM_GRPC,
    EnvoyConfigError,
    Json,
    seconds,
    type_url,
)
from sidecar.limits import LIMITS
from sidecar.routes import WEBSOCKET, Body, Placement, Row

_BODY_MODES = {Body.UNREAD: "NONE", Body.GRPC: "STREAMED"}


def routes_of(rows: Iterable[Row]) -> list[Json]:
    """Return the routes of our own Envoy, checked."""
    found = [*(route_of(row, cluster=UPSTREAM_GRPC if row.grpc else UPSTREAM) for row in placed(rows)), _last()]
    assert_decided(found)
    return found


def placed(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that Envoy has routes for; WebSockets first, whose handshake is a GET that another row may know, too."""
    ours = [row for row in rows if row.placement is not Placement.ASGI]
    return sorted(ours, key=lambda row: row.method != WEBSOCKET)


def assert_decided(routes: Iterable[Mapping[str, Any]]) -> None:
    """Refuse routes of which one has no deciding filter, or whose last one does not catch everything.

    Raises:
        EnvoyConfigError: Such a route exists (EX-10: it would be a door beside the gate).
    """
    listed = list(routes)
    for route in listed:
        per_filter = route.get("typed_per_filter_config", {})
        open_filters = [name for name in (EXT_AUTHZ, EXT_PROC) if not per_filter.get(name, {}).get("disabled", False)]
        if len(open_filters) != 1:
            raise EnvoyConfigError(
                f"route `{route.get('name')}` must be decided by one filter, not {len(open_filters)}"
            )
    if not listed or listed[-1].get("match") != {"prefix": "/"}:
        raise EnvoyConfigError("the last route must catch every unmapped path")


def route_of(row: Row | None, *, cluster: str) -> Json:
    """Return the Envoy route of one row to `cluster`; None: the last one, which catches what has no row."""
    if row is None:
        return _last()
    decided = _by_stream(row) if row.placement is Placement.EXT_PROC else _by_path()
    # An encoded answer can neither be stripped nor carry the event that says it was cut.
    plain = {"request_headers_to_remove": ["accept-encoding"]} if row.placement is Placement.EXT_PROC else {}
    return {
        "name": row.name,
        **plain,
        "match": {"safe_regex": {"regex": row.regex}, "headers": _matched(row)},
        "route": {"cluster": cluster, **_duration(row), **_upgrade(row)},
        "typed_per_filter_config": decided,
    }


def _matched(row: Row) -> list[Json]:
    method = "GET" if row.method == WEBSOCKET else row.method
    found: list[Json] = [{"name": ":method", "string_match": {"exact": method}}]
    if row.method == WEBSOCKET:
        found.append({"name": "upgrade", "string_match": {"exact": "websocket", "ignore_case": True}})
    return found


def _upgrade(row: Row) -> Json:
    """Return what lets this route alone become a WebSocket: any other upgrade is refused by Envoy itself."""
    return {"upgrade_configs": [{"upgrade_type": "websocket"}]} if row.method == WEBSOCKET else {}


def _duration(row: Row) -> Json:
    """Return how long an exchange may last: a stream ends by a cut or by itself, a unary one is bounded, decided once."""
    if row.placement is Placement.EXT_PROC:
        return {"timeout": seconds(0)}
    # `timeout` begins when the request has ended: a caller that never ends it would read a revoked answer for ever, so
    # the exchange as a whole is bounded too, from its first byte.
    bound = seconds(LIMITS.unary_s)
    return {"timeout": bound, "max_stream_duration": {"max_stream_duration": bound}}


def _last() -> Json:
    return {
        "name": UNMAPPED,
        "match": {"prefix": "/"},
        "direct_response": {
            "status": 403
        },  # never reached: the agent denies what has no row; the model is not behind it
        "typed_per_filter_config": _by_path(),
    }


def _by_path() -> Json:
    return {EXT_PROC: {"@type": type_url(".extensions.filters.http.ext_proc.v3.ExtProcPerRoute"), "disabled": True}}


def _by_stream(row: Row) -> Json:
    # Fixed modes (EP-2): a body that decides comes whole, a gRPC call's messages as they are sent, any other body unread.
    # The response is watched chunk by chunk.
    mode = {
        "request_header_mode": "SEND",
        "request_body_mode": _BODY_MODES.get(row.body, "BUFFERED"),
        "request_trailer_mode": "SKIP",
        "response_header_mode": "SEND",
        "response_body_mode": "STREAMED",
        "response_trailer_mode": "SKIP",
    }
    return {
        EXT_AUTHZ: {"@type": type_url(".extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"), "disabled": True},
        EXT_PROC: {
            "@type": type_url(".extensions.filters.http.ext_proc.v3.ExtProcPerRoute"),
            "overrides": {
                "grpc_initial_metadata": [{"key": "x-pdp-route", "value": row.name}],
                "processing_mode": mode,
            },
        },
    }
