"""`pdp.yaml`: how a PDP runs. One tree of frozen values; what is not understood is refused, and every default is secure.

Sources, later ones win: the defaults, the file, the environment (`PDP_GRPC__LISTEN=…`, two underscores for each level), the
flags. Nothing is read here: the caller brings values and says where in a file each of them stands. Relative paths in the
file are relative to it; in the environment and in flags, to the working directory.
"""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from pdp.errors import ConfigError
from pdp.limits import (
    DRAIN_GRACE_S,
    MAX_AUDIT_SINKS,
    MAX_GRACE_S,
    MAX_POINT_CHARS,
    MAX_PORT,
    MAX_STORE_COPIES,
    MAX_WORKERS,
)

Where = Callable[[tuple[str | int, ...]], str]
"""Says where a value stands, such as `pdp.yaml:3`, given the path to it."""

ENVIRONMENT_PREFIX: Final = "PDP_"
_CLIENT_NAMES: Final = frozenset(
    {"PDP_SERVER", "PDP_TOKEN_FILE", "PDP_CA", "PDP_CERT", "PDP_KEY", "PDP_PROBES", "PDP_CONFIG", "PDP_DEBUG"}
)
"""Names that mean something to our other commands."""
_LOOKS_ALIKE: Final = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a door listens: `HOST:PORT`, or `unix:PATH`."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the address that `text` names, or raise `ValueError` with a sentence."""
        if text.startswith("unix:") and len(text) > len("unix:"):
            return cls(path=text.removeprefix("unix:"))
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > MAX_PORT:
            raise ValueError("an address is HOST:PORT, such as 127.0.0.1:8181, or unix:PATH")
        return cls(host=host.removeprefix("[").removesuffix("]"), port=int(port))

    @property
    def local(self) -> bool:
        """True if nobody on another machine can reach it."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _address(value: Any) -> Any:
    return Address.parse(value) if isinstance(value, str) else value


Listen = Annotated[Address, BeforeValidator(_address)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\z")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def _no_blank(path: Path) -> Path:
    if not path.name:
        raise ValueError("a file name is missing")
    return path


File = Annotated[Path, AfterValidator(_no_blank)]


class Tls(_Part):
    """Files in PEM: our certificate and key and, for callers with certificates, the CAs that sign theirs."""

    cert: File
    key: File
    client_ca: File | None = None


def _origin(text: str) -> str:
    parts = urlsplit(text)
    bare = f"{parts.scheme}://{parts.netloc}"
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username is not None or text != bare:
        raise ValueError("an origin is a scheme and an authority, such as https://pdp.example:8181")
    return text


class Grpc(_Part):
    """The gRPC door; `origin` is how callers reach it, which their DPoP proofs must name (without it none holds)."""

    listen: Listen = Address(host="127.0.0.1", port=8181)
    origin: Annotated[str, AfterValidator(_origin)] | None = None
    tls: Tls | None = None


class Http(_Part):
    """The HTTP door (AuthZEN, console); not served in this version."""

    listen: Listen = Address(host="127.0.0.1", port=8182)


class Probes(_Part):
    """Readiness and metrics, on a port of their own."""

    listen: Listen = Address(host="127.0.0.1", port=8183)


class Sink(_Part):
    """Where a copy of the decision log goes as it grows, each record at least once.

    `form`: records as they are, or OCSF events (decisions alone). `mask`: what it must not see; `mask_key` makes pseudonyms
    that outlive a restart. `path` is a file's, `url` a collector's logs endpoint; `authorization_file` holds a header's value.
    """

    name: Name
    to: Literal["stdout", "file", "otlp"]
    form: Literal["json", "ocsf"] = "json"
    mask: tuple[Literal["principals", "attributes"], ...] = ()
    mask_key: File | None = None
    path: File | None = None
    url: str = ""
    ca: File | None = None
    authorization_file: File | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.to == "file") != (self.path is not None) or (self.to == "otlp") != bool(self.url):
            raise ValueError("a sink to a `file` has a `path`, one to `otlp` a `url`, and one to `stdout` neither")
        if self.url:
            _check_collector(self.url)
        if not self.url and (self.ca or self.authorization_file):
            raise ValueError("`ca` and `authorization_file` are for `otlp`")
        return self


def _check_collector(url: str) -> None:
    """Refuse what would send the decision log in the clear across a network."""
    parts = urlsplit(url)
    host = Address(host=parts.hostname or "")
    if not parts.hostname or parts.username is not None or parts.scheme not in ("http", "https"):
        raise ValueError("`url` is a collector's logs endpoint, such as https://collector:4318/v1/logs")
    if parts.scheme == "http" and not host.local:
        raise ValueError("`url` without TLS is for this machine only: use https")


def _check_sinks(sinks: tuple[Sink, ...]) -> tuple[Sink, ...]:
    names = [sink.name for sink in sinks]
    if len(names) > MAX_AUDIT_SINKS or len(set(names)) < len(names):
        raise ValueError(f"at most {MAX_AUDIT_SINKS} sinks, each under a name of its own")
    return sinks


class Audit(_Part):
    """Where the decision log lies, by default `audit` in the state directory, and where copies of it go.

    `durable`: an allow leaves only after its record is on disk. Without it what a crash takes is never missed: a degradation.
    """

    dir: File | None = None
    durable: bool = True
    sinks: Annotated[tuple[Sink, ...], AfterValidator(_check_sinks)] = ()


class Store(_Part):
    """Where the world log of several PDPs lies; without a URL this PDP stands alone, on SQLite in its state directory.

    `min_replicas`: copies of the store that must have a write before it counts.
    """

    url: str = ""
    password_file: File | None = None
    ca: File | None = None
    min_replicas: Annotated[int, Field(ge=0, le=MAX_STORE_COPIES)] = 0


class Log(_Part):
    """What the process says on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console", "auto"] = "auto"


class Config(_Part):
    """All of `pdp.yaml`."""

    mode: Literal["development", "production"] = "production"
    tenant: Name = "main"
    state_dir: File = Path("state")
    trust: File = Path("trust.yaml")
    grpc: Grpc = Grpc()
    http: Http = Http()
    probes: Probes = Probes()
    audit: Audit = Audit()
    store: Store = Store()
    log: Log = Log()
    grace_s: Annotated[float, Field(gt=0, le=MAX_GRACE_S)] = DRAIN_GRACE_S
    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = 1
    point: Annotated[str, Field(max_length=MAX_POINT_CHARS)] = ""
    """The name under which a canary may name this PDP as an enforcement point; several may share one."""

    @property
    def audit_dir(self) -> Path:
        """Where this process writes its own chain."""
        return self.audit.dir or self.state_dir / "audit"


_PATHS: Final = (
    ("state_dir",),
    ("trust",),
    ("audit", "dir"),
    ("store", "password_file"),
    ("store", "ca"),
    ("grpc", "tls", "cert"),
    ("grpc", "tls", "key"),
    ("grpc", "tls", "client_ca"),
)
_SINK_FILES: Final = ("path", "mask_key", "ca", "authorization_file")


def configure(
    values: Any = None,
    *,
    where: Where = lambda _path: "configuration",
    base: Path = Path(),
    environment: Mapping[str, str] | None = None,
    flags: Mapping[tuple[str, ...], Any] | None = None,
) -> Config:
    """Return the configuration of a process.

    Args:
        values: what the file holds, read by the caller; None without a file.
        where: says where in the file a value stands.
        base: the directory of the file, to which its relative paths belong.
        environment: the process's; only `PDP_…` names count.
        flags: values by path into the tree; None values are flags that were not given.

    Raises:
        ConfigError: the first thing that is wrong, in one line: where, what, and what to do.
    """
    if values is not None and not isinstance(values, dict):
        raise ConfigError(f"{where(())}: a configuration is a mapping of keys to values")
    tree = _anchored(values or {}, base)
    overridden: dict[tuple[str | int, ...], str] = {}
    for path, text, source in _from_environment(environment or {}):
        _put(tree, path, text, source)
        overridden[path] = source
    for path, value in (flags or {}).items():
        if value is not None:
            _put(tree, path, value, "flags")
            overridden[path] = "command line"
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        detail = error.errors()[0]
        place = overridden.get(tuple(detail["loc"])) or where(detail["loc"])
        raise ConfigError(f"{place}: {_problem(detail)}") from error


def check_doors(config: Config) -> None:
    """Refuse to serve in the clear: tokens and decisions cross no network unprotected, by default or by a setting.

    Raises:
        ConfigError: gRPC has no TLS, and is not a trial on this machine.
    """
    if config.grpc.tls is not None or (config.mode == "development" and config.grpc.listen.local):
        return
    where = "in production" if config.mode == "production" else f"on {config.grpc.listen}"
    raise ConfigError(
        f"gRPC {where} needs TLS: set grpc.tls (--tls-cert, --tls-key)",
        advice="for a trial on this machine, listen on 127.0.0.1 with --mode development",
    )


def _from_environment(environment: Mapping[str, str]) -> list[tuple[tuple[str, ...], str, str]]:
    known = {_variable(path): path for path in _leaves(Config)}
    found = []
    for name in sorted(environment):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in _CLIENT_NAMES:
            continue
        if name in known:
            found.append((known[name], environment[name], name))
            continue
        close = get_close_matches(name, known, n=1, cutoff=_LOOKS_ALIKE)
        # Orchestrators set variables such as PDP_SERVICE_HOST for a service of our name; those are not meant for us.
        if close or "__" in name:
            meant = f": do you mean {close[0]}?" if close else ""
            raise ConfigError(f"environment: {name} is no setting{meant}", advice="unset it or correct its spelling")
    return found


def _variable(path: tuple[str, ...]) -> str:
    return ENVIRONMENT_PREFIX + "__".join(path).upper()


def _leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        part = Tls if name == "tls" else field.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            found += _leaves(part, (*path, name))
        else:
            found.append((*path, name))
    return found


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any, source: str) -> None:
    for name in path[:-1]:
        below = tree.get(name)
        if below is not None and not isinstance(below, dict):
            raise ConfigError(f"{source}: `{name}` is not a mapping in the file, so nothing can be set inside it")
        tree[name] = below = dict(below or {})
        tree = below
    tree[path[-1]] = value


def _anchored(values: dict[str, Any], base: Path) -> dict[str, Any]:
    """Return `values` with the relative paths among them made relative to `base`."""
    tree = dict(values)
    for path in _PATHS:
        value: Any = tree
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, str):
            _put(tree, path, str(base / value), "file")
    audit = tree.get("audit")
    if isinstance(audit, dict) and isinstance(audit.get("sinks"), list):
        tree["audit"] = audit | {"sinks": [_anchored_sink(sink, base) for sink in audit["sinks"]]}
    return tree


def _anchored_sink(sink: Any, base: Path) -> Any:
    if not isinstance(sink, dict):
        return sink
    files = {name: str(base / sink[name]) for name in _SINK_FILES if isinstance(sink.get(name), str) and sink[name]}
    return {**sink, **files}


def _problem(detail: ErrorDetails) -> str:
    path = detail["loc"]
    spelled = ".".join(str(part) for part in path)
    if detail["type"] == "extra_forbidden":
        close = get_close_matches(str(path[-1]), _siblings(path), n=1)
        return f"`{spelled}` is not a known key" + (f"; do you mean `{close[0]}`?" if close else "; remove it")
    if detail["type"] == "missing":
        return f"`{spelled}` is missing"
    message = detail["msg"].removeprefix("Value error, ")
    return f"`{spelled}`: {message}" if spelled else message


def _siblings(path: tuple[str | int, ...]) -> list[str]:
    depth = len(path)
    return sorted(
        {leaf[depth - 1] for leaf in _leaves(Config) if len(leaf) >= depth and leaf[: depth - 1] == path[:-1]}
    )
