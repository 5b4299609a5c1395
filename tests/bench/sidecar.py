"""Requests through Envoy: alone, and with the sidecar deciding each one.

Both are the same generated configuration on the same TLS listener; "alone" is it without the two filters that ask us. The
upstream answers at once (an Envoy with a direct response), so that the figures show the gate and not a model. Every allow is
durably recorded before it leaves, as in production.
"""

import copy
import datetime as dt
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from pdp.demo.child import Child
from pdp.demo.stage import Stage, set_stage
from pdp.demo.story import FRONTEND, PROD_MODEL, SAM, Token
from sidecar.envoy_names import type_url
from sidecar.supervisor import binary
from tests.bench.load import Load, Result, drive
from tests.bench.report import Figure

Json = dict[str, Any]
CONNECTIONS = (1, 16)
DURATION_S = 4.0
TOLERATED = 0.01
FILTERS = {"envoy.filters.http.ext_authz", "envoy.filters.http.ext_proc"}


def measure() -> list[Figure]:
    """Return requests per second and latencies of both, at each number of connections."""
    figures: list[Figure] = []
    now = dt.datetime.now(dt.UTC)
    with (
        _envoy(_instant_upstream()) as upstream,
        set_stage(lambda _what: nullcontext(), now=now, upstream=f"http://{upstream}") as stage,
        _envoy(_without_filters(_generated(stage))) as alone,
    ):
        stage.auditor.tail.stop()  # the demonstration's reader of every record is nobody's overhead but its own
        for connections in CONNECTIONS:
            bare = _checked(drive(_load(stage, alone, connections)))
            ours = _checked(drive(_load(stage, stage.gate_url.removeprefix("https://"), connections)))
            figures += _figures(connections, bare, ours)
    return figures


def _figures(connections: int, bare: Result, ours: Result) -> list[Figure]:
    alone, gate = f"Envoy alone, {connections} connections", f"Envoy + sidecar, {connections} connections"
    rate = ours.requests_per_s / bare.requests_per_s
    return [
        Figure(name=alone, value=bare.requests_per_s, unit="requests/s"),
        Figure(name=gate, value=ours.requests_per_s, unit="requests/s", versus=alone, ratio=rate),
        Figure(name=f"{alone}: p50", value=bare.p50_ms, unit="ms"),
        Figure(name=f"{gate}: p50", value=ours.p50_ms, unit="ms", versus=alone, ratio=ours.p50_ms / bare.p50_ms),
        Figure(name=f"{gate}: added p50", value=ours.p50_ms - bare.p50_ms, unit="ms"),
        Figure(name=f"{gate}: added p99", value=ours.p99_ms - bare.p99_ms, unit="ms"),
        Figure(name=f"{gate}: refused late", value=ours.failures, unit="requests"),
    ]


def _checked(result: Result) -> Result:
    """Return `result`, unless so many were refused that it shows something else; a few miss the 0.2 s of EX-17."""
    if result.failures > TOLERATED * DURATION_S * result.requests_per_s:
        sys.exit(f"bench: {result.failures} requests were not answered with 200; a figure would mean nothing")
    return result


def _load(stage: Stage, address: str, connections: int) -> Load:
    credential = stage.pki.workloads[FRONTEND]
    host, _, port = address.rpartition(":")
    token = stage.tokens[SAM, Token.FRESH].read_text().strip()
    return Load(
        host=host,
        port=int(port),
        path=f"/v2/models/{PROD_MODEL}/infer",
        body="{}",
        headers={"authorization": f"Bearer {token}", "content-type": "application/json"},
        ca=str(stage.pki.bundle),
        cert=str(credential.certificate),
        key=str(credential.key),
        connections=connections,
        duration_s=DURATION_S,
    )


# -- the Envoys beside the stage's own ---------------------------------------------------------------------------------


@contextmanager
def _envoy(config: Json) -> Iterator[str]:
    """Run an Envoy of our own and yield where it listens."""
    with TemporaryDirectory(prefix="pdp-bench-") as name, ExitStack() as cleanup:
        directory = Path(name)
        admin = directory / "admin"
        config = {**config, "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}}
        (directory / "envoy.json").write_text(json.dumps(config))
        command = [str(binary()), "-c", "envoy.json", "--use-dynamic-base-id", "--concurrency", "2"]
        command += ["--admin-address-path", str(admin)]
        child = Child.start("envoy", command, log=directory / "envoy.log", environment=os.environ)
        cleanup.callback(child.stop)
        child.wait_for("all dependencies initialized. starting workers")
        yield _listener(admin.read_text())


def _listener(admin: str) -> str:
    listed = httpx.get(f"http://{admin}/listeners?format=json").json()
    socket = listed["listener_statuses"][0]["local_address"]["socket_address"]
    return f"{socket['address']}:{socket['port_value']}"


def _generated(stage: Stage) -> Json:
    """Return the configuration that the stage's own sidecar runs."""
    (path,) = stage.directory.glob("sidecar/**/envoy.json")
    config: Json = json.loads(path.read_text())
    return config


def _without_filters(config: Json) -> Json:
    """Return the configuration with nobody asked: the same listener, routes and upstream."""
    bare = copy.deepcopy(config)
    manager = bare["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"] = [one for one in manager["http_filters"] if one["name"] not in FILTERS]
    for host in manager["route_config"]["virtual_hosts"]:
        for route in host["routes"]:
            route.pop("typed_per_filter_config", None)
    bare["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] = 0
    return bare


def _instant_upstream() -> Json:
    """Return the configuration of a server that answers every request with 200 at once."""
    manager = {
        "@type": type_url(".extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "upstream",
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": type_url(".extensions.filters.http.router.v3.Router")},
            }
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "{}"}}}
                    ],
                }
            ]
        },
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {"static_resources": {"listeners": [{"name": "upstream", "address": address, "filter_chains": [chain]}]}}
