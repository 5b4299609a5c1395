"""What the sidecar's figures are measured on: a PDP, two sidecars, and beside them the Envoys they are compared with.

Everything speaks plain HTTP on the loopback, so that `wrk` can drive it and no handshake is measured. The world is the
demonstration's, but for one row more: callers without a certificate may reach what serves. One sidecar lets an allow leave
when its record is on disk, the other (`--no-audit-durable`) does not wait.
"""

import copy
import datetime as dt
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil

from pdp.demo import commands
from pdp.demo.authority import Authority, Credential, create_authority
from pdp.demo.child import Child
from pdp.demo.pack import write_pack, write_routes, write_trust
from pdp.demo.story import ADA, SAM, SIDECAR, Person
from pdp.sdk.admin import AdminClient
from sidecar.config import load_routes
from sidecar.envoy import Upstream
from sidecar.envoy_names import AGENT_HTTP, Json, type_url
from sidecar.snippets import Foreign
from sidecar.snippets import envoy as foreign_parts
from sidecar.supervisor import binary

FILTERS = {"envoy.filters.http.ext_authz", "envoy.filters.http.ext_proc"}
READY = r"^ready .*?\b(?:grpc|listen)=(\S+)"
_PASSING = "p2, segment:none, endpoint.invoke|read_metadata, segment:serving, , allow\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where something listens, and the processes behind it: who decides, and the Envoy before."""

    address: str
    agent: int = 0
    envoy: int = 0
    state: Path = Path()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """A directory, a running PDP, and what is needed to speak with it."""

    directory: Path
    authority: Authority
    sidecar: Credential
    pdp_address: str
    token: str
    cleanup: ExitStack

    def administers(self) -> AdminClient:
        """Return a client that may lock people out."""
        own = self.sidecar
        token = self.directory / "ada.token"
        return AdminClient(
            self.pdp_address, token=token, ca=self.authority.bundle, cert=own.certificate, key=own.key, timeout_s=30
        )

    def start(self, name: str, command: list[str], environment: Mapping[str, str] | None = None) -> Child:
        """Start a process that ends with the ground."""
        settings = commands.base_environment() | dict(environment or {})
        child = Child.start(name, command, log=self.directory / f"{name}.log", environment=settings)
        self.cleanup.callback(child.stop)
        return child

    def follows(self) -> dict[str, str]:
        """Return what an enforcement point is told of the PDP."""
        digest = hashlib.sha256((self.directory / "pdp" / "root.json").read_bytes()).hexdigest()
        return {
            "--pdp": self.pdp_address,
            "--pdp-ca": str(self.authority.bundle),
            "--cert": str(self.sidecar.certificate),
            "--key": str(self.sidecar.key),
            "--trust": str(self.directory / "trust.yaml"),
            "--routes": str(self.directory / "routes.yaml"),
            "--root-digest": digest,
        }


@contextmanager
def prepared() -> Iterator[Ground]:
    """Write the world's sources and start its PDP."""
    with TemporaryDirectory(prefix="pdp-bench-") as name, ExitStack() as cleanup:
        directory = Path(name)
        authority = create_authority(directory / "pki", dt.datetime.now(dt.UTC))
        issuer = directory / "issuer"
        commands.must(["token", "init", "--dir", str(issuer)], where=directory, as_json=False)
        write_trust(directory / "trust.yaml", jwks=issuer / "jwks.json", ca=authority.bundle)
        write_routes(directory / "routes.yaml")
        write_pack(directory / "pack")
        with (directory / "pack" / "segmentation.csv").open("a") as rows:
            rows.write(_PASSING)
        for person in (SAM, ADA):
            _issue(directory, person)
        ground = Ground(
            directory=directory,
            authority=authority,
            sidecar=authority.issue_workload("sidecar", SIDECAR.path),
            pdp_address="",
            token=(directory / "sam.token").read_text().strip(),
            cleanup=cleanup,
        )
        yield _with_pdp(ground)


def _issue(directory: Path, person: Person) -> None:
    files = ["--dir", str(directory / "issuer"), "--output", str(directory / f"{person.name}.token")]
    issue = ["token", "issue", "--sub", person.id, "--groups", "members", "--ttl=12h", *files]
    commands.must(issue, where=directory, as_json=False)


def _with_pdp(ground: Ground) -> Ground:
    own = ground.authority.issue_server("pdp")
    options = {
        "--state-dir": str(ground.directory / "pdp"),
        "--pack": str(ground.directory / "pack"),
        "--trust": str(ground.directory / "trust.yaml"),
        "--tls-cert": str(own.certificate),
        "--tls-key": str(own.key),
        "--client-ca": str(ground.authority.bundle),
        "--admin": ADA.principal,
        "--listen": "127.0.0.1:0",
        "--probes": "127.0.0.1:0",
        "--mode": "development",
    }
    child = ground.start("pdp", [*commands.PDP, "serve", "--init", *_flat(options)])
    address = child.wait_for(READY)[1]
    return Ground(
        **{name: getattr(ground, name) for name in ("directory", "authority", "sidecar", "token", "cleanup")},
        pdp_address=address,
    )


def sidecar(ground: Ground, name: str, upstream: str, *more: str) -> Door:
    """Start a sidecar as an operator does; return its door."""
    state = ground.directory / name
    options = {
        **ground.follows(),
        "--upstream": f"http://{upstream}",
        "--state-dir": str(state),
        "--listen": "127.0.0.1:0",
        "--probes": "127.0.0.1:0",
    }
    child = ground.start(name, [*commands.SIDECAR, "run", *_flat(options), *more])
    address = child.wait_for(READY)[1]
    below = psutil.Process(child.pid).children(recursive=True)
    its_envoy = next(one.pid for one in below if "envoy" in one.name())
    return Door(address=address, agent=child.pid, envoy=its_envoy, state=state)


def module(
    ground: Ground, name: str, program: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> Door:
    """Start one of this benchmark's own servers; it says `ready listen=WHERE`."""
    child = ground.start(name, [sys.executable, "-m", f"tests.bench.{program}", *arguments], environment)
    return Door(address=child.wait_for(READY)[1], agent=child.pid)


def _flat(options: Mapping[str, str]) -> list[str]:
    return [part for option in options.items() for part in option]


# -- the Envoys beside the sidecars' own ----------------------------------------------------------------------------------


def envoy(ground: Ground, name: str, config: Json) -> Door:
    """Start an Envoy of our own and return where it listens."""
    home = ground.directory / f"envoy-{name}"
    home.mkdir()
    admin = home / "admin"
    config = {**config, "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}}
    (home / "envoy.json").write_text(json.dumps(config))
    command = [str(binary()), "-c", str(home / "envoy.json"), "--use-dynamic-base-id", "--concurrency", "2"]
    command += ["--admin-address-path", str(admin)]
    child = ground.start(f"envoy-{name}", command, dict(os.environ))
    child.wait_for("all dependencies initialized. starting workers")
    listed = httpx.get(f"http://{admin.read_text()}/listeners?format=json").json()
    socket = listed["listener_statuses"][0]["local_address"]["socket_address"]
    return Door(address=f"{socket['address']}:{socket['port_value']}", envoy=child.pid)


def generated(door: Door) -> Json:
    """Return the configuration that a sidecar's own Envoy runs, to listen elsewhere."""
    (path,) = door.state.glob("**/envoy.json")
    config: Json = json.loads(path.read_text())
    config["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] = 0
    return config


def manager(config: Json) -> Any:
    """Return the one connection manager of a configuration."""
    return config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]


def without_filters(config: Json) -> Json:
    """Return the configuration with nobody asked: the same listener, routes and upstream."""
    bare = copy.deepcopy(config)
    chain = manager(bare)
    chain["http_filters"] = [one for one in chain["http_filters"] if one["name"] not in FILTERS]
    for host in chain["route_config"]["virtual_hosts"]:
        for route in host["routes"]:
            route.pop("typed_per_filter_config", None)
    return bare


def asking(config: Json, socket: Path) -> Json:
    """Return the configuration with its ext_authz questions (HTTP) sent to `socket`."""
    other = copy.deepcopy(config)
    for cluster in other["static_resources"]["clusters"]:
        if cluster["name"] == AGENT_HTTP:
            (group,) = cluster["load_assignment"]["endpoints"]
            (endpoint,) = group["lb_endpoints"]
            endpoint["endpoint"]["address"]["pipe"]["path"] = str(socket)
    return other


def over_grpc(ground: Ground, config: Json, socket: Path) -> Json:
    """Return the configuration as `pdp-sidecar config --envoy` makes it: the same agent, asked by gRPC `Check`."""
    other = copy.deepcopy(config)
    rows = load_routes(ground.directory / "routes.yaml").rows
    parts = foreign_parts(
        Foreign(rows=rows, agent=Upstream(pipe=socket), cluster="upstream", grpc_cluster="upstream_grpc")
    )
    chain = manager(other)
    kept = [one for one in chain["http_filters"] if one["name"] not in FILTERS]
    chain["http_filters"] = [*parts["http_filters"], *kept]
    chain["route_config"]["virtual_hosts"][0]["routes"] = parts["routes"]
    other["static_resources"]["clusters"] += parts["clusters"]
    return other


def instant_upstream() -> Json:
    """Return the configuration of a server that answers every request with 200 at once."""
    router = {"@type": type_url(".extensions.filters.http.router.v3.Router")}
    answer = {"status": 200, "body": {"inline_string": "{}"}}
    kind = ".extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    connections = {
        "@type": type_url(kind),
        "stat_prefix": "upstream",
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "direct_response": answer}]}
            ]
        },
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": connections}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {"static_resources": {"listeners": [{"name": "upstream", "address": address, "filter_chains": [chain]}]}}
