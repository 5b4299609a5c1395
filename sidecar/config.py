"""What one sidecar is told: the command line's options and the routes file, checked before anything starts.

Every fault is a `ConfigError`: one line that says what is wrong, and what to do.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from pdp.errors import BadNameError, ConfigError
from pdp.model.names import ENVIRONMENTS, Resource
from pdp.yaml_text import read_yaml
from sidecar.envoy import EnvoySettings, ListenerTls, Sockets, Upstream
from sidecar.envoy_names import Address, EnvoyConfigError
from sidecar.routes import NO_TOKENS, WEBSOCKET, Body, Dialect, Placement, Registry, RouteTable, Row, Scope, Served
from sidecar.routes.assembly import DEFAULT, assemble

_PORTS = range(65_536)
_HEX_SHA256 = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PdpAccess:
    """How the sidecar reaches its PDP and what it believes.

    Attributes:
        address: `HOST:PORT`.
        ca: CA of the PDP's certificate.
        cert: The sidecar's own certificate (SPIFFE).
        key: Its key.
        token_file: Instead of a certificate: a projected token, read again for each connection.
        root_digest: SHA-256 of the root file in hex: never trust on first use.
        plaintext: Speak without TLS (loopback development).
    """

    address: str
    root_digest: str
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    token_file: Path | None = None
    plaintext: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreConfig:
    """What every placement needs in order to decide.

    `certificate_suffices`: callers may come with a client certificate and no token. `origin`: how callers reach the model,
    which their DPoP proofs must name; empty: no proof holds. `audit_durable`: an allow leaves only after its record is on disk;
    without it what a crash takes of the records is never missed: a degradation. `point`: the name under which a canary may
    name this enforcement point; several may share one.
    """

    table: RouteTable
    pdp: PdpAccess
    trust: Path
    state_dir: Path
    tenant: str = "main"
    certificate_suffices: bool = False
    origin: str = ""
    audit_durable: bool = True
    point: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarConfig(CoreConfig):
    """Everything `pdp-sidecar run` needs."""

    envoy: EnvoySettings
    probes: Address


class _ServedEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    resource: str
    model: str = ""
    upstream: str = ""
    pinned: bool = False


class _RouteEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "WEBSOCKET"]
    path: str
    action: str = "endpoint.invoke"
    resource: str = ""
    body: Literal["unread", "json", "multipart"] = "unread"
    stream: bool = False
    deny: bool = False


class _MlflowEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "mlflow"
    new: dict[str, str] = {}
    plain_aliases: frozenset[str] = frozenset()


class _RoutesFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    served: dict[str, _ServedEntry] = {}
    server: str = ""
    protocols: tuple[str, ...] = DEFAULT
    watch: bool = False
    routes: tuple[_RouteEntry, ...] = ()
    mlflow: _MlflowEntry | None = None


def parse_address(text: str, *, option: str) -> Address:
    """Return `HOST:PORT` (IPv6 in brackets).

    Raises:
        ConfigError: It is none.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) not in _PORTS:
        raise ConfigError(f"{option}: `{text}` is no address", advice="write HOST:PORT, such as 127.0.0.1:9081")
    return Address(host=host.removeprefix("[").removesuffix("]"), port=int(port))


def parse_origin(text: str) -> str:
    """Return the scheme and authority that callers' DPoP proofs must name; empty: none was given.

    Raises:
        ConfigError: It is no origin.
    """
    parts = urlsplit(text)
    bare = f"{parts.scheme}://{parts.netloc}"
    if text and (parts.scheme not in {"https", "http"} or not parts.hostname or "@" in text or text != bare):
        raise ConfigError(f"--origin: `{text}` is no origin", advice="write it as callers do: https://models.example")
    return text


def parse_upstream(text: str, *, ca: Path | None = None, option: str = "--upstream") -> Upstream:
    """Return the model server that `http://HOST:PORT`, `https://HOST:PORT` or `unix:///PATH` names.

    Raises:
        ConfigError: It names none.
    """
    advice = "write http://HOST:PORT, https://HOST:PORT or unix:///PATH"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ConfigError(f"{option}: `{text}` is no URL", advice=advice) from None
    if parts.scheme == "unix" and parts.path and not parts.netloc:
        return Upstream(pipe=Path(parts.path))
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ConfigError(f"{option}: `{text}` is not where a model server listens", advice=advice)
    tls = parts.scheme == "https"
    if tls and ca is None:
        raise ConfigError(
            f"{option}: an https model server needs `--upstream-ca`", advice="name the CA of its certificate"
        )
    return Upstream(address=Address(host=parts.hostname, port=port or (443 if tls else 80)), tls=tls, ca=ca)


def readable_file(path: Path | None, *, option: str) -> Path | None:
    """Return `path` if it can be read.

    Raises:
        ConfigError: It cannot.
    """
    if path is None:
        return None
    try:
        path.open("rb").close()
    except OSError as fault:
        raise ConfigError(
            f"{option}: cannot read `{path}`: {fault.strerror}", advice="name a file that this user can read"
        ) from None
    return path.absolute()


def load_routes(path: Path, *, inside: bool = False) -> RouteTable:
    """Return the route table of a routes file.

    Args:
        path: The file.
        inside: It is for a gate inside the server, which can ask the server what an id stands for.

    Raises:
        ConfigError: The file cannot be read, is no YAML, has an unknown key, names what is no resource, or a server that can be
            decided from inside only.
    """
    table = _load_routes(path)
    if table.registry is not None and not inside:
        message = f"--routes: `{path}`: `mlflow` is decided inside MLflow's server, where ids can be looked up"
        raise ConfigError(message, advice="run `mlflow server --app-name pdp` with this file; see docs/sidecar.md")
    return table


def _load_routes(path: Path) -> RouteTable:
    try:
        document = read_yaml(path.read_text("utf-8"), file=str(path))
        parsed = _RoutesFile.model_validate(document.value)
        served = {name: _served(name, entry) for name, entry in parsed.served.items()}
        if parsed.server:
            Resource.parse(parsed.server)
        return assemble(
            served=served,
            server=parsed.server,
            protocols=parsed.protocols,
            own=tuple(_row(entry) for entry in parsed.routes),
            watch=parsed.watch,
            registry=_registry(parsed),
        )
    except OSError as fault:
        raise ConfigError(f"--routes: cannot read `{path}`: {fault.strerror}", advice="name a readable file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--routes: `{path}` is not UTF-8") from None
    except ValidationError as fault:
        first = fault.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        advice = (
            "write `served: {NAME: {resource: endpoint/…, model: model/…@VERSION}}`; docs/sidecar.md shows every key"
        )
        raise ConfigError(f"--routes: `{path}`: {where}: {first['msg'].lower()}", advice=advice) from None
    except BadNameError as fault:
        raise ConfigError(f"--routes: `{path}`: {fault.message}") from None
    except ValueError as fault:
        raise ConfigError(f"--routes: `{path}`: {fault}") from None


def _registry(parsed: _RoutesFile) -> Registry | None:
    """Return how an MLflow server's objects are called; a table that has its rows always knows."""
    if "mlflow" not in parsed.protocols:
        if parsed.mlflow is not None:
            raise ValueError(
                "mlflow: says how an MLflow server's objects are called, and `protocols` names no `mlflow`"
            )
        return None
    entry = parsed.mlflow or _MlflowEntry()
    Resource.parse(f"experiment/{entry.name}")
    if "/" in entry.name or "@" in entry.name:
        raise ValueError(f"mlflow.name: `{entry.name}` is not one segment of a name")
    if entry.new and entry.new.get("environment") not in ENVIRONMENTS:
        raise ValueError(f"mlflow.new: needs an environment: one of {', '.join(ENVIRONMENTS)}")
    return Registry(name=entry.name, new=entry.new, plain_aliases=entry.plain_aliases)


def _served(name: str, entry: _ServedEntry) -> Served:
    Resource.parse(entry.resource)
    if entry.model and not Resource.parse(entry.model).version:
        raise ValueError(f"served.{name}.model: a route decided by its path needs one version: `{entry.model}@VERSION`")
    if entry.upstream and not _UPSTREAM.fullmatch(entry.upstream):
        raise ValueError(f"served.{name}.upstream: `{entry.upstream}` is no name of a model")
    if entry.pinned and not entry.model:
        raise ValueError(f"served.{name}.pinned: there is no version to pin: name the `model`")
    return Served(resource=entry.resource, model=entry.model, upstream=entry.upstream, pinned=entry.pinned)


_UPSTREAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:/-]*")
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~:@!$&'()*+,=-]|\{(?:m|v|id)\})*)+")


def _row(entry: _RouteEntry) -> Row:
    """Return one of the server's own routes."""
    if not _PATH.fullmatch(entry.path) or "//" in entry.path:
        raise ValueError(f"routes.{entry.name}.path: `{entry.path}` is no path; `{{m}}` stands for a served name")
    if entry.method == WEBSOCKET and entry.body != "unread":
        raise ValueError(f"routes.{entry.name}: a WebSocket has no body: `{{m}}` in its path, or a `resource`")
    return Row(
        name=f"own.{entry.name}",
        method=entry.method,
        path=entry.path,
        action=entry.action,
        scope=_scope(entry),
        placement=_placement(entry),
        body=Body(entry.body),
        dialect=Dialect.PLAIN,
        stream=entry.stream,
        limit=None if entry.action == "endpoint.invoke" else NO_TOKENS,
        resource=entry.resource,
    )


def _placement(entry: _RouteEntry) -> Placement:
    lasts = entry.stream or entry.method == WEBSOCKET
    return Placement.EXT_PROC if lasts or entry.body != "unread" else Placement.EXT_AUTHZ


def _scope(entry: _RouteEntry) -> Scope:
    if entry.deny:
        return Scope.NEVER
    if entry.resource:
        return Scope.FIXED
    if "{m}" in entry.path:
        return Scope.SERVED
    if entry.body != "unread":
        return Scope.BODY
    raise ValueError(f"routes.{entry.name}: what does it ask about? `{{m}}` in its path, a `body`, or a `resource`")


def check_pdp(access: PdpAccess) -> PdpAccess:
    """Return `access` if it can identify us and holds what we believe.

    Raises:
        ConfigError: Something is missing or contradictory.
    """
    parse_address(access.address, option="--pdp")
    if len(access.root_digest) != _HEX_SHA256 or not set(access.root_digest) <= set("0123456789abcdef"):
        raise ConfigError(
            "--root-digest: 64 hexadecimal digits are needed", advice="run `pdp init` or `pdp doctor` on the PDP's host"
        )
    if (access.cert is None) != (access.key is None):
        raise ConfigError("--cert and --key belong together", advice="name both, or neither with --pdp-token-file")
    if access.cert is None and access.token_file is None:
        raise ConfigError("the sidecar has no credential", advice="name --cert and --key, or --pdp-token-file")
    if access.ca is None and not access.plaintext:
        raise ConfigError(
            "--pdp-ca is missing", advice="name the CA of the PDP's certificate, or --pdp-plaintext on one machine"
        )
    return access


def listener_tls(cert: Path | None, key: Path | None, client_ca: Path | None, *, required: bool) -> ListenerTls | None:
    """Return the listener's TLS, or None where it was given no certificate.

    Raises:
        ConfigError: Half of it was given.
    """
    if (cert is None) != (key is None):
        raise ConfigError("--tls-cert and --tls-key belong together", advice="name both")
    if cert is None or key is None:
        if client_ca is not None or required:
            raise ConfigError("--client-ca needs TLS", advice="name --tls-cert and --tls-key")
        return None
    if required and client_ca is None:
        raise ConfigError("--require-client-cert needs --client-ca", advice="name the CA of the callers' certificates")
    return ListenerTls(certificate=cert, key=key, client_ca=client_ca, client_certificate_required=required)


def sockets_in(state_dir: Path) -> Sockets:
    """Return the Unix sockets below the state directory.

    Raises:
        ConfigError: Its path is too long for one.
    """
    try:
        return Sockets(directory=state_dir.absolute() / "envoy")
    except EnvoyConfigError as fault:
        raise ConfigError(f"--state-dir: {fault}") from None
