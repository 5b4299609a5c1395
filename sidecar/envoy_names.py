"""The names and small words that every part of a generated Envoy configuration uses."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNMAPPED = "unmapped"
"""The name of the last route: what reaches it has no row."""

AGENT_HTTP, AGENT_GRPC, UPSTREAM, UPSTREAM_GRPC = "agent_http", "agent_grpc", "upstream", "upstream_grpc"
EXT_AUTHZ, EXT_PROC = "envoy.filters.http.ext_authz", "envoy.filters.http.ext_proc"

Json = dict[str, Any]


class EnvoyConfigError(ValueError):
    """The configuration asked for would open a door, or cannot be expressed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A TCP address; port 0 lets the kernel choose."""

    host: str
    port: int


def type_url(kind: str) -> str:
    """Return the type of an Any; `kind` starts below `envoy`."""
    return f"type.googleapis.com/envoy{kind}"


def pipe_address(path: Path) -> Json:
    """Return a Unix socket's address."""
    return {"pipe": {"path": str(path)}}


def socket_address(address: Address) -> Json:
    """Return a TCP address."""
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def seconds(value: float) -> str:
    """Return a duration as Envoy reads it."""
    return f"{value:g}s"
