"""Filter and route snippets for an Envoy that is not ours: plain Envoy, and Istio by an `EnvoyFilter`.

The hardening is ours, word for word: the same listener settings, the same early removal of a client's copies, one filter per
route, and a last route that catches everything. Without the routes a path that no row knows would reach the model, so they
are part of the snippet, and the model is behind nothing else.

Source: ENFORCEMENT.md 1, 2.1, EX-10, EX-18.
"""

from dataclasses import dataclass
from typing import Any

import yaml

from sidecar.envoy import Upstream, cluster, ext_authz_rules, ext_proc, hardening, upstream_cluster
from sidecar.envoy_names import EXT_AUTHZ, EXT_PROC, Address, Json, pipe_address, seconds, socket_address, type_url
from sidecar.envoy_routes import assert_decided, placed, route_of
from sidecar.limits import LIMITS
from sidecar.routes import Placement, Row

AGENT = "portcullis"
"""The cluster through which a foreign Envoy reaches `pdp-sidecar serve`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """What a foreign Envoy is told.

    Attributes:
        rows: The routes.
        agent: Where `pdp-sidecar serve` listens.
        cluster: The Envoy cluster of the model server.
        grpc_cluster: The one of its gRPC port.
    """

    rows: tuple[Row, ...]
    agent: Upstream
    cluster: str
    grpc_cluster: str = ""


def envoy(foreign: Foreign) -> Json:
    """Return the parts of an Envoy configuration: connection manager settings, filters before the router, routes, cluster.

    Raises:
        EnvoyConfigError: A route would pass with no filter deciding it.
    """
    routes = _routes(foreign)
    assert_decided(routes)
    return {
        "http_connection_manager": hardening(),
        "http_filters": _filters(),
        "routes": routes,
        "clusters": [_agent(foreign.agent)],
    }


def whole(foreign: Foreign, *, listen: Address, upstream: Upstream, upstream_grpc: Upstream | None = None) -> Json:
    """Return a whole configuration with the parts in their places, to start an Envoy with, or to compare yours with.

    Raises:
        EnvoyConfigError: A route would pass with no filter deciding it.
    """
    parts = envoy(foreign)
    router = {"@type": type_url(".extensions.filters.http.router.v3.Router")}
    manager = {
        "@type": type_url(_MANAGER),
        "stat_prefix": "model",
        **parts["http_connection_manager"],
        "http_filters": [*parts["http_filters"], {"name": "envoy.filters.http.router", "typed_config": router}],
        "route_config": {"virtual_hosts": [{"name": "model", "domains": ["*"], "routes": parts["routes"]}]},
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    buffered = {"per_connection_buffer_limit_bytes": LIMITS.body_bytes}
    listener = {"name": "callers", "address": socket_address(listen), **buffered, "filter_chains": [chain]}
    models = [upstream_cluster(foreign.cluster, upstream)]
    if foreign.grpc_cluster and any(row.grpc for row in foreign.rows):
        models.append(upstream_cluster(foreign.grpc_cluster, upstream_grpc or upstream, h2=True))
    return {"static_resources": {"listeners": [listener], "clusters": [*models, *parts["clusters"]]}}


def istio(foreign: Foreign, *, name: str, namespace: str, labels: dict[str, str], port: int) -> Json:
    """Return an `EnvoyFilter` that puts all of it into the inbound side of one workload's sidecar proxy.

    Not an `AuthorizationPolicy` with `action: CUSTOM`: its paths are no regular expressions, so that between what it leaves to
    the streams and what the streams' routes match a path could fall through to the model.
    """
    parts = envoy(foreign)
    manager = {"name": "envoy.filters.network.http_connection_manager"}
    listener = {"portNumber": port, "filterChain": {"filter": manager}}
    before_router = {**manager, "subFilter": {"name": "envoy.filters.http.router"}}
    vhost = {"context": "SIDECAR_INBOUND", "routeConfiguration": {"vhost": {"name": f"inbound|http|{port}"}}}
    settings = {"@type": type_url(_MANAGER), **parts["http_connection_manager"]}
    patches: list[Json] = [_patch("CLUSTER", {"context": "SIDECAR_INBOUND"}, "ADD", one) for one in parts["clusters"]]
    patches.append(
        _patch("NETWORK_FILTER", _inbound(listener), "MERGE", {"name": manager["name"], "typed_config": settings})
    )
    before = _inbound({**listener, "filterChain": {"filter": before_router}})
    patches += [_patch("HTTP_FILTER", before, "INSERT_BEFORE", one) for one in parts["http_filters"]]
    # Each goes first, so that the last one added is the first one matched.
    patches += [_patch("HTTP_ROUTE", vhost, "INSERT_FIRST", one) for one in reversed(parts["routes"])]
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"workloadSelector": {"labels": labels}, "configPatches": patches},
    }


def as_yaml(value: Json, *, comment: str) -> str:
    """Return a snippet as people paste it."""
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    return head + yaml.dump(value, Dumper=_Plain, sort_keys=False, width=120)


_MANAGER = ".extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


class _Plain(yaml.SafeDumper):
    """Writes no aliases: the snippet is cut and pasted in parts."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - YAML's signature
        return True


def _inbound(listener: Json) -> Json:
    return {"context": "SIDECAR_INBOUND", "listener": listener}


def _patch(kind: str, match: Json, operation: str, value: Json) -> Json:
    return {"applyTo": kind, "match": match, "patch": {"operation": operation, "value": value}}


def _agent(agent: Upstream) -> Json:
    if agent.pipe is not None:
        return cluster(AGENT, pipe_address(agent.pipe), h2=True)
    return cluster(AGENT, socket_address(agent.address or Address(host="", port=0)), h2=True, kind="STRICT_DNS")


def _filters() -> list[Json]:
    check = {
        "@type": type_url(".extensions.filters.http.ext_authz.v3.ExtAuthz"),
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": AGENT}, "timeout": seconds(LIMITS.filter_timeout_s)},
        **ext_authz_rules(),
    }
    return [{"name": EXT_AUTHZ, "typed_config": check}, {"name": EXT_PROC, "typed_config": ext_proc(AGENT)}]


def _routes(foreign: Foreign) -> list[Json]:
    rows = placed(foreign.rows)
    found = [
        route_of(row, cluster=(foreign.grpc_cluster or foreign.cluster) if row.grpc else foreign.cluster)
        for row in rows
    ]
    for row, route in zip(rows, found, strict=True):
        if row.placement is Placement.EXT_AUTHZ:
            route["typed_per_filter_config"][EXT_AUTHZ] = _named(row.name)
    last = route_of(None, cluster=foreign.cluster)
    last["typed_per_filter_config"][EXT_AUTHZ] = _named(last["name"])
    return [*found, last]


def _named(route: str) -> Json:
    """Tell the agent which route Envoy chose, where no client can write it (EX-18)."""
    return {
        "@type": type_url(".extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"),
        "check_settings": {"context_extensions": {"route": route}},
    }
