"""`pdp init` and `pdp serve`: make a PDP, and run it."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from pdp.adapters.interpreter import tune
from pdp.adapters.keys_files import load_root
from pdp.adapters.pack_files import read_pack, write_starter
from pdp.adapters.telemetry import setup_logging
from pdp.cli.settings import ConfigFile, StateDir, StoreUrl, configuration
from pdp.config import Config
from pdp.engine.findings import PackRefused
from pdp.engine.pack import Pack, load_pack
from pdp.errors import ConfigError
from pdp.server.app import Basis
from pdp.server.app import serve as run
from pdp.server.stores import open_stores
from pdp.server.supervisor import supervise
from pdp.service.genesis import Genesis, initialise

DEFAULT_PACK: Final = Path("policies")

PackDir = Annotated[
    Path | None,
    typer.Option(
        "--pack",
        metavar="DIR",
        help="The policy pack to begin with.  [policies; where that is not here, the starter pack, written there]",
    ),
]
Tenant = Annotated[str | None, typer.Option(metavar="NAME", help="Whose PDP this is.  [default: main]")]

First = Annotated[
    bool, typer.Option("--init", help="Make the PDP first if there is none: needs --admin, takes --pack.")
]
FirstAdmin = Annotated[str | None, typer.Option(metavar="PRINCIPAL", help="With --init: the first administrator.")]
ListenAt = Annotated[
    str | None,
    typer.Option(metavar="ADDR", help="gRPC: HOST:PORT (port 0: any free one) or unix:PATH.  [127.0.0.1:8181]"),
]
ProbesAt = Annotated[str | None, typer.Option(metavar="ADDR", help="/healthz, /readyz, /metrics.  [127.0.0.1:8183]")]
TrustFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Whose tokens and certificates count.  [trust.yaml]")
]
TlsCert = Annotated[Path | None, typer.Option(metavar="FILE", help="Our certificate chain, PEM.")]
TlsKey = Annotated[Path | None, typer.Option(metavar="FILE", help="Its key, PEM.")]
ClientCa = Annotated[
    Path | None, typer.Option(metavar="FILE", help="CAs of client certificates; with it, every caller needs one.")
]
AuditDir = Annotated[Path | None, typer.Option(metavar="DIR", help="The decision log.  [audit in the state directory]")]
Approvers = Annotated[
    list[str] | None,
    typer.Option(
        "--approver",
        metavar="PRINCIPAL",
        help="Who may approve the administrator's changes; may be given several times.",
    ),
]
Mode = Annotated[
    str | None,
    typer.Option(metavar="MODE", help="`production`, or `development`: a development issuer may be trusted."),
]
Grace = Annotated[
    float | None, typer.Option("--grace", metavar="S", help="Seconds for calls in flight at the end.  [10]")
]
Workers = Annotated[
    int | None,
    typer.Option(metavar="N", help="Processes behind the one port; each holds the whole world.  [1]"),
]
LogLevel = Annotated[str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")]
LogFormat = Annotated[str | None, typer.Option(metavar="FORMAT", help="json, console or auto.")]


def init(
    *,
    admin: Annotated[str, typer.Option(metavar="PRINCIPAL", help="The first administrator, such as `user:ada@x.org`.")],
    approver: Approvers = None,
    pack: PackDir = None,
    state_dir: StateDir = None,
    tenant: Tenant = None,
    store: StoreUrl = None,
    config: ConfigFile = None,
) -> None:
    """Make a new PDP: keys, root file, and a first world from a policy pack. Run again, it changes nothing.

    Exit code 2 if the pack is refused (every finding is shown) or a file cannot be written.

    Changes that matter need the yes of a second person: name one with `--approver`. Without one, the administrator may
    change everything alone, which is meant for a laptop.

    Without `--pack` and without a directory `policies` here, it writes the starter pack to `policies` and begins with that.

    Example: `pdp init --admin user:ada@demo.portcullis --approver user:olga@demo.portcullis`
    """
    settings = configuration(config, {("state_dir",): state_dir, ("tenant",): tenant, ("store", "url"): store})
    made = asyncio.run(_initialise(settings, pack, admin, approver or []))
    _tell(made, settings)


def serve(
    *,
    config: ConfigFile = None,
    first: First = False,
    admin: FirstAdmin = None,
    approver: Approvers = None,
    pack: PackDir = None,
    state_dir: StateDir = None,
    tenant: Tenant = None,
    listen: ListenAt = None,
    probes: ProbesAt = None,
    trust: TrustFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    client_ca: ClientCa = None,
    audit_dir: AuditDir = None,
    store: StoreUrl = None,
    mode: Mode = None,
    grace_s: Grace = None,
    workers: Workers = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Run a PDP until SIGTERM or Ctrl-C; prints one line `ready grpc=… probes=… world_seq=…` once it can decide.

    Everything can also stand in `pdp.yaml` or in the environment (`PDP_GRPC__LISTEN=…`); flags win.

    With `--workers N`, N processes answer on the one port, over SQLite or Redis; one that dies is started again.

    SIGTERM lets calls in flight finish within the grace; a second one does not wait. Exit codes: 0 ended as asked, 2 wrong
    configuration, key file or pack, port in use, or not initialised; one line says what to do.

    Examples:
    `pdp serve --mode development --init --admin user:ada@demo.portcullis` - try it on this machine

    `pdp serve --config /etc/portcullis/pdp.yaml` - run it
    """
    flags = {
        ("state_dir",): state_dir,
        ("tenant",): tenant,
        ("mode",): mode,
        ("grpc", "listen"): listen,
        ("grpc", "tls", "cert"): tls_cert,
        ("grpc", "tls", "key"): tls_key,
        ("grpc", "tls", "client_ca"): client_ca,
        ("probes", "listen"): probes,
        ("trust",): trust,
        ("audit", "dir"): audit_dir,
        ("store", "url"): store,
        ("grace_s",): grace_s,
        ("workers",): workers,
        ("log", "level"): log_level,
        ("log", "format"): log_format,
    }
    settings = configuration(config, flags)
    setup_logging(level=settings.log.level, form=settings.log.format)
    tune()
    asyncio.run(_serve(settings, admin if first else None, approver or [], pack, wanted=first))


async def _serve(
    settings: Config, admin: str | None, approvers: Sequence[str], pack: Path | None, *, wanted: bool
) -> None:
    if wanted:
        if admin is None:
            raise ConfigError("--init needs a first administrator", advice="give --admin user:YOU")
        await _initialise(settings, pack, admin, approvers)
    basis = Basis.read(settings)
    await (run(basis, say=_say) if settings.workers == 1 else supervise(basis, say=_say))


async def _initialise(settings: Config, pack: Path | None, admin: str, approvers: Sequence[str]) -> Genesis:
    loaded = load(pack or _here(settings))
    try:
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot make the state directory {settings.state_dir}: {error.strerror or error}"
        raise ConfigError(message, advice="name another with --state-dir, or make it writable") from error
    stores = open_stores(settings, create=True)
    try:
        if stores.board is not None and load_root(settings.state_dir) is None and (await stores.log.head()).seq:
            told = "the store holds a log already, and this machine no root file"
            raise ConfigError(
                told, advice="join it: `pdp keys init` here, `pdp keys rotate --add` where the root key is"
            )
        return await initialise(
            state_dir=settings.state_dir,
            pack=loaded,
            admin=admin,
            approvers=approvers,
            tenant=settings.tenant,
            log=stores.log,
            store=stores.store,
        )
    finally:
        await stores.close()


def _here(settings: Config) -> Path:
    """Return the directory `policies`; a new PDP without one gets the starter pack there, to begin with and to edit."""
    if not DEFAULT_PACK.exists() and load_root(settings.state_dir) is None:
        write_starter(DEFAULT_PACK)
        _say(f"wrote the starter pack to {DEFAULT_PACK}; it is yours to edit")
    return DEFAULT_PACK


def load(directory: Path) -> Pack:
    """Return the pack in `directory`.

    Raises:
        PackRefused: it has errors; the exception holds every finding.
    """
    pack = load_pack(read_pack(directory))
    if not isinstance(pack, Pack):
        raise PackRefused(pack)
    return pack


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _tell(made: Genesis, settings: Config) -> None:
    _say(f"{'initialised' if made.created else 'already initialised:'} {settings.state_dir} at world {made.world_seq}")
    _say(f"root digest {made.root_digest}")
    if made.created and made.sole:
        _say(
            "one person may change everything alone: give a second one role:policy-approver, then take role:sole-admin away"
        )
    if made.root_key is not None:
        _say(f"move {made.root_key} to a place that is offline; the PDP never needs it")
    if made.created:
        _say("next: `pdp serve`; to try it on this machine, `pdp token init` and what that says")
