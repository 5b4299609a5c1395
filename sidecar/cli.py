"""`pdp-sidecar run | serve | config | routes | doctor`: the enforcement point beside a model server.

Exit codes: 0 stopped as asked, or all checks passed; 1 our defect; 2 a bad option, file, port or upstream, named in one line
with what to do; 5 a part that must run does not; 130 interrupted.
"""

import asyncio
import json
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import uvloop

from pdp.adapters.interpreter import tune
from pdp.errors import ConfigError, PortcullisError
from sidecar.config import (
    CoreConfig,
    PdpAccess,
    SidecarConfig,
    check_pdp,
    listener_tls,
    load_routes,
    parse_address,
    parse_origin,
    parse_upstream,
    readable_file,
    sockets_in,
)
from sidecar.envoy import EnvoySettings, ListenerTls, Upstream, rendered
from sidecar.envoy_names import Address
from sidecar.routes import RouteTable, Row, Scope
from sidecar.snippets import Foreign, as_yaml
from sidecar.snippets import envoy as envoy_parts
from sidecar.snippets import istio as istio_filter
from sidecar.snippets import whole as envoy_whole
from sidecar.supervisor import EnvoyError

if TYPE_CHECKING:
    from sidecar.serving import Port

INTERRUPTED = 130
UNAVAILABLE = 5

app = typer.Typer(name="pdp-sidecar", no_args_is_help=True, add_completion=False, help=__doc__)

_ENVOY_SAYS = """Parts for your own Envoy. `http_connection_manager` goes into the listener's connection manager,
`http_filters` before its router, `routes` into the one virtual host that leads to the model (they must be all of its
routes), `clusters` beside yours. Run `pdp-sidecar serve` where the cluster `portcullis` says. Envoy 1.40."""
_WHOLE_SAYS = """A whole configuration: `envoy -c` it, and run `pdp-sidecar serve` where the cluster `portcullis` says. It has no
TLS: add your listener's certificate before callers come from elsewhere. Envoy 1.40."""
_ISTIO_SAYS = """For the inbound side of one workload's proxy. Run `pdp-sidecar serve` beside the model, in the same pod.
Callers then need mutual TLS or a token as ever; the proxy's own port is the only door to the model."""

UpstreamOption = Annotated[
    str, typer.Option(help="The model server: http://HOST:PORT, https://HOST:PORT, unix:///PATH.")
]
UpstreamGrpc = Annotated[
    str, typer.Option(help="Its gRPC port, if that is another: http://HOST:PORT, https://HOST:PORT, unix:///PATH.")
]
UpstreamCa = Annotated[Path | None, typer.Option(help="CA of an https model server's certificate.")]
Listen = Annotated[str, typer.Option(help="Where callers connect; port 0 lets the kernel choose.")]
TlsCert = Annotated[Path | None, typer.Option(help="Certificate chain shown to callers (PEM).")]
TlsKey = Annotated[Path | None, typer.Option(help="Its private key (PEM).")]
ClientCa = Annotated[Path | None, typer.Option(help="CA of the callers' client certificates.")]
RequireCert = Annotated[bool, typer.Option("--require-client-cert", help="Refuse callers without a certificate.")]
Routes = Annotated[Path, typer.Option(help="Which served name is which endpoint and model version (YAML).")]
StateDir = Annotated[Path, typer.Option(help="World, audit chain and sockets; created with mode 0700.")]
CertificateSuffices = Annotated[
    bool, typer.Option("--certificate-suffices", help="Let callers in with a client certificate and no token.")
]
Pdp = Annotated[str, typer.Option(help="The PDP's gRPC address, HOST:PORT.")]
RootDigest = Annotated[str, typer.Option(help="SHA-256 of the PDP's root file, in hex.")]
Trust = Annotated[Path, typer.Option(help="The issuer table, trust.yaml.")]
ProbesAt = Annotated[str, typer.Option(help="Where /healthz, /readyz and /metrics listen.")]
PdpCa = Annotated[Path | None, typer.Option(help="CA of the PDP's certificate.")]
Cert = Annotated[Path | None, typer.Option(help="The sidecar's own SPIFFE certificate.")]
Key = Annotated[Path | None, typer.Option(help="Its private key.")]
PdpToken = Annotated[Path | None, typer.Option(help="Instead of a certificate: a projected token.")]
PdpPlaintext = Annotated[bool, typer.Option("--pdp-plaintext", help="Reach the PDP without TLS.")]
Point = Annotated[
    str,
    typer.Option(
        help="A name of this enforcement point, for canaries that are to answer at some alone; may be shared."
    ),
]
Traces = Annotated[
    str,
    typer.Option(
        metavar="HOST:PORT",
        help="An OpenTelemetry collector (OTLP over HTTP, as 127.0.0.1:4318), to which Envoy sends a span of each request.",
    ),
]
Origin = Annotated[
    str, typer.Option(help="How callers reach the model, https://HOST[:PORT]: their DPoP proofs must name it.")
]
AuditDurable = Annotated[
    bool, typer.Option(help="Let an allow leave only once its record is on disk; off: a crash may take it unnoticed.")
]
Tenant = Annotated[str, typer.Option(help="The tenant whose log is followed.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more on standard error.")]
ForwardCredentials = Annotated[bool, typer.Option("--forward-credentials", help="Leave the token on the request.")]


@app.command()
def run(
    upstream: UpstreamOption,
    routes: Routes,
    pdp: Pdp,
    root_digest: RootDigest,
    trust: Trust,
    listen: Listen = "127.0.0.1:9081",
    probes: ProbesAt = "127.0.0.1:9082",
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    client_ca: ClientCa = None,
    require_client_cert: RequireCert = False,
    upstream_grpc: UpstreamGrpc = "",
    upstream_ca: UpstreamCa = None,
    pdp_ca: PdpCa = None,
    cert: Cert = None,
    key: Key = None,
    pdp_token_file: PdpToken = None,
    pdp_plaintext: PdpPlaintext = False,
    forward_credentials: ForwardCredentials = False,
    state_dir: StateDir = Path("state/sidecar"),
    certificate_suffices: CertificateSuffices = False,
    origin: Origin = "",
    audit_durable: AuditDurable = True,
    point: Point = "",
    traces: Traces = "",
    tenant: Tenant = "main",
    verbose: Verbose = False,
) -> None:
    """Enforce beside a model server until told to stop."""
    _logging(verbose=verbose)
    table = load_routes(routes)
    checked = SidecarConfig(
        envoy=_settings(
            table,
            upstream=parse_upstream(upstream, ca=readable_file(upstream_ca, option="--upstream-ca")),
            upstream_grpc=_grpc(upstream_grpc, readable_file(upstream_ca, option="--upstream-ca")),
            listen=listen,
            tls=_tls(tls_cert, tls_key, client_ca, required=require_client_cert),
            state_dir=state_dir,
            forward_credentials=forward_credentials,
            traces=traces,
        ),
        table=table,
        pdp=_access(pdp, root_digest, pdp_ca, cert, key, pdp_token_file, plaintext=pdp_plaintext),
        trust=trust,
        probes=parse_address(probes, option="--probes"),
        state_dir=state_dir.absolute(),
        tenant=tenant,
        certificate_suffices=certificate_suffices,
        origin=parse_origin(origin),
        audit_durable=audit_durable,
        point=point,
    )
    _serve(checked)


def _logging(*, verbose: bool) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s %(message)s")


def _access(
    pdp: str, digest: str, ca: Path | None, cert: Path | None, key: Path | None, token: Path | None, *, plaintext: bool
) -> PdpAccess:
    return check_pdp(
        PdpAccess(
            address=pdp,
            root_digest=digest.removeprefix("sha256:").lower(),
            ca=readable_file(ca, option="--pdp-ca"),
            cert=readable_file(cert, option="--cert"),
            key=readable_file(key, option="--key"),
            token_file=readable_file(token, option="--pdp-token-file"),
            plaintext=plaintext,
        )
    )


def _tls(cert: Path | None, key: Path | None, client_ca: Path | None, *, required: bool) -> ListenerTls | None:
    return listener_tls(
        readable_file(cert, option="--tls-cert"),
        readable_file(key, option="--tls-key"),
        readable_file(client_ca, option="--client-ca"),
        required=required,
    )


def _grpc(text: str, ca: Path | None) -> Upstream | None:
    return parse_upstream(text, ca=ca, option="--upstream-grpc") if text else None


def _settings(
    table: RouteTable,
    *,
    upstream: Upstream,
    upstream_grpc: Upstream | None,
    listen: str,
    tls: ListenerTls | None,
    state_dir: Path,
    forward_credentials: bool,
    traces: str = "",
) -> EnvoySettings:
    return EnvoySettings(
        listen=parse_address(listen, option="--listen"),
        upstream=upstream,
        upstream_grpc=upstream_grpc,
        sockets=sockets_in(state_dir),
        rows=table.rows,
        tls=tls,
        forward_credentials=forward_credentials,
        traces=parse_address(traces, option="--traces") if traces else None,
    )


def _serve(config: SidecarConfig) -> None:
    # We start Envoy by exec, never by fork alone; gRPC's fork handlers would only complain that threads run.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    from sidecar.agent import serve  # noqa: PLC0415 - `config` and `--help` need none of it

    tune()
    uvloop.run(serve(config, announce=lambda line: print(line, flush=True)))  # noqa: T201 - what scripts wait for


@app.command()
def serve(
    routes: Routes,
    pdp: Pdp,
    root_digest: RootDigest,
    trust: Trust,
    listen: Annotated[
        str,
        typer.Option(help="Where your Envoy asks: unix:///PATH or HOST:PORT (beyond loopback only with mutual TLS)."),
    ] = "127.0.0.1:9083",
    probes: ProbesAt = "127.0.0.1:9082",
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    client_ca: Annotated[Path | None, typer.Option(help="CA of the Envoys that may ask.")] = None,
    pdp_ca: PdpCa = None,
    cert: Cert = None,
    key: Key = None,
    pdp_token_file: PdpToken = None,
    pdp_plaintext: PdpPlaintext = False,
    state_dir: StateDir = Path("state/sidecar"),
    certificate_suffices: CertificateSuffices = False,
    origin: Origin = "",
    audit_durable: AuditDurable = True,
    point: Point = "",
    tenant: Tenant = "main",
    verbose: Verbose = False,
) -> None:
    """Answer for an Envoy or Istio that is already there: ext_authz and ext_proc over gRPC. See `config --envoy`, `--istio`."""
    _logging(verbose=verbose)
    from sidecar.serving import Port  # noqa: PLC0415 - `--help` needs none of it

    where = parse_upstream(listen if "://" in listen else f"http://{listen}", option="--listen")
    port = Port(
        address=where.address,
        pipe=where.pipe,
        cert=readable_file(tls_cert, option="--tls-cert"),
        key=readable_file(tls_key, option="--tls-key"),
        client_ca=readable_file(client_ca, option="--client-ca"),
    )
    checked = CoreConfig(
        table=load_routes(routes),
        pdp=_access(pdp, root_digest, pdp_ca, cert, key, pdp_token_file, plaintext=pdp_plaintext),
        trust=trust,
        state_dir=state_dir.absolute(),
        tenant=tenant,
        certificate_suffices=certificate_suffices,
        origin=parse_origin(origin),
        audit_durable=audit_durable,
        point=point,
    )
    _serve_foreign(checked, port, parse_address(probes, option="--probes"))


def _serve_foreign(config: CoreConfig, port: "Port", probes: Address) -> None:
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    from sidecar.serving import serve_foreign  # noqa: PLC0415 - as above

    tune()
    uvloop.run(
        serve_foreign(config, port, probes, announce=lambda line: print(line, flush=True))  # noqa: T201 - what scripts wait for
    )


@app.command()
def config(
    routes: Routes,
    upstream: Annotated[str, typer.Option(help="The model server, as for `run`.")] = "",
    listen: Listen = "127.0.0.1:9081",
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    client_ca: ClientCa = None,
    require_client_cert: RequireCert = False,
    upstream_grpc: UpstreamGrpc = "",
    upstream_ca: UpstreamCa = None,
    forward_credentials: ForwardCredentials = False,
    state_dir: StateDir = Path("state/sidecar"),
    envoy: Annotated[
        bool,
        typer.Option(
            "--envoy", help="Instead: parts for your own Envoy, which asks `serve`; with --upstream, a whole file."
        ),
    ] = False,
    istio: Annotated[bool, typer.Option("--istio", help="Instead: an EnvoyFilter for Istio.")] = False,
    agent: Annotated[str, typer.Option(help="--envoy, --istio: where `serve` listens.")] = "127.0.0.1:9083",
    cluster: Annotated[str, typer.Option(help="--envoy: your cluster of the model server.")] = "model",
    grpc_cluster: Annotated[str, typer.Option(help="--envoy: your cluster of its gRPC port.")] = "",
    name: Annotated[str, typer.Option(help="--istio: the EnvoyFilter's name.")] = "portcullis",
    namespace: Annotated[str, typer.Option(help="--istio: its namespace.")] = "default",
    app_label: Annotated[str, typer.Option(help="--istio: the `app` label of the model's pods.")] = "model",
    port: Annotated[int, typer.Option(help="--istio: the model's port in the pod.")] = 8080,
) -> None:
    """Print the Envoy configuration that `run` would use, or the parts that an Envoy of yours needs."""
    if envoy or istio:
        parts = Foreign(
            rows=load_routes(routes).rows,
            agent=parse_upstream(agent if "://" in agent else f"http://{agent}", option="--agent"),
            cluster=f"inbound|{port}||" if istio else cluster,
            grpc_cluster="" if istio else grpc_cluster or ("model_grpc" if upstream else ""),
        )
        if istio:
            value = istio_filter(parts, name=name, namespace=namespace, labels={"app": app_label}, port=port)
            comment = _ISTIO_SAYS
        elif upstream:
            model, grpc = parse_upstream(upstream, ca=upstream_ca), _grpc(upstream_grpc, upstream_ca)
            at = parse_address(listen, option="--listen")
            value, comment = envoy_whole(parts, listen=at, upstream=model, upstream_grpc=grpc), _WHOLE_SAYS
        else:
            value, comment = envoy_parts(parts), _ENVOY_SAYS
        typer.echo(as_yaml(value, comment=comment), nl=False)
        return
    if not upstream:
        raise ConfigError("--upstream is missing", advice="name the model server, or ask for --envoy or --istio")
    settings = _settings(
        load_routes(routes),
        upstream=parse_upstream(upstream, ca=upstream_ca),
        upstream_grpc=_grpc(upstream_grpc, upstream_ca),
        listen=listen,
        tls=listener_tls(tls_cert, tls_key, client_ca, required=require_client_cert),
        state_dir=state_dir,
        forward_credentials=forward_credentials,
    )
    typer.echo(rendered(settings))


@app.command()
def routes(
    file: Annotated[Path, typer.Argument(metavar="ROUTES.YAML", help="The routes file that `run` would read.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the whole route table: what is mapped, what it asks, and where it is decided. All else is denied."""
    table = load_routes(file, inside=True)
    rows = [_shown(row, server=table.server) for row in table.rows]
    if as_json:
        typer.echo(json.dumps({"served": {name: asdict(one) for name, one in table.served.items()}, "routes": rows}))
        return
    widths = {key: max(len(row[key]) for row in rows) for key in rows[0]} if rows else {}
    for row in rows:
        typer.echo("  ".join(value.ljust(widths[key]) for key, value in row.items()).rstrip())


def _shown(row: Row, *, server: str) -> dict[str, str]:
    """Return one row as people read it; a row that is always denied says so in place of its door."""
    opens = row.scope is not Scope.NEVER and (row.scope is not Scope.SERVER or bool(server))
    asks = {
        Scope.SERVED: "the name in its path",
        Scope.LIST: "each served name",
        Scope.RESULT: "what made the answer",
        Scope.LOOKED_UP: "what its words name",
        Scope.BODY: f"the model in its {row.body.value}",
    }
    return {
        "method": row.method,
        "path": row.path,
        "action": row.action,
        "asks about": asks.get(row.scope) or row.resource or server or "-",
        "decided by": row.placement.value if opens else "nobody: always denied",
        "name": row.name,
    }


@app.command()
def doctor(
    gate: Annotated[str, typer.Option(help="The sidecar's address, HOST:PORT.")] = "127.0.0.1:9081",
    ca: Annotated[Path | None, typer.Option(help="CA of its certificate; none: plain HTTP.")] = None,
    cert: Annotated[Path | None, typer.Option(help="A client certificate to show.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
    probes: Annotated[str, typer.Option(help="The sidecar's probes, HOST:PORT.")] = "127.0.0.1:9082",
    model_ports: Annotated[
        list[int] | None, typer.Option(min=1, max=65_535, help="The model server's own ports, which must refuse.")
    ] = None,
    served: Annotated[str, typer.Option(help="A served name, to try without a token.")] = "",
    model: Annotated[str, typer.Option(help="The model server's URL: are all its routes mapped? Needs --routes.")] = "",
    routes: Annotated[Path | None, typer.Option(help="The routes file that the gate uses.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check from outside that the gate is closed; exit 5 if one check fails."""
    from sidecar.doctor import Subject, examine  # noqa: PLC0415 - `--help` needs none of it

    subject = Subject(
        gate=parse_address(gate, option="--gate"),
        probes=parse_address(probes, option="--probes"),
        ca=readable_file(ca, option="--ca"),
        cert=readable_file(cert, option="--cert"),
        key=readable_file(key, option="--key"),
        model_ports=tuple(model_ports or ()),
        served=served,
        model=model,
        table=load_routes(routes) if routes is not None else None,
    )
    findings = asyncio.run(examine(subject))
    if as_json:
        typer.echo(json.dumps([{"check": one.check, "passed": one.passed, "seen": one.seen} for one in findings]))
    else:
        for one in findings:
            typer.echo(f"{'ok  ' if one.passed else 'FAIL'}  {one.check}: {one.seen}")
    if not all(one.passed for one in findings):
        raise typer.Exit(UNAVAILABLE)


def main() -> None:
    """Run the command line; every foreseen fault is one line and an exit code."""
    try:
        app(standalone_mode=True)
    except ConfigError as fault:
        _fail(str(fault), fault.meaning.exit_code)
    except PortcullisError as fault:
        _fail(str(fault), fault.meaning.exit_code)
    except EnvoyError as fault:
        _fail(str(fault), 2)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"pdp-sidecar: {message}\n")
    sys.exit(code)
