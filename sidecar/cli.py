"""`pdp-sidecar run | config | routes | doctor`: the enforcement point beside a model server.

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
from typing import Annotated

import typer
import uvloop

from pdp.errors import ConfigError, PortcullisError
from pdp.limits import SWITCH_INTERVAL_S
from sidecar.config import (
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
from sidecar.routes import RouteTable, Row, Scope
from sidecar.supervisor import EnvoyError

INTERRUPTED = 130
UNAVAILABLE = 5

app = typer.Typer(name="pdp-sidecar", no_args_is_help=True, add_completion=False, help=__doc__)

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
ForwardCredentials = Annotated[bool, typer.Option("--forward-credentials", help="Leave the token on the request.")]


@app.command()
def run(
    upstream: UpstreamOption,
    routes: Routes,
    pdp: Annotated[str, typer.Option(help="The PDP's gRPC address, HOST:PORT.")],
    root_digest: Annotated[str, typer.Option(help="SHA-256 of the PDP's root file, in hex.")],
    trust: Annotated[Path, typer.Option(help="The issuer table, trust.yaml.")],
    listen: Listen = "127.0.0.1:9081",
    probes: Annotated[str, typer.Option(help="Where /healthz, /readyz and /metrics listen.")] = "127.0.0.1:9082",
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    client_ca: ClientCa = None,
    require_client_cert: RequireCert = False,
    upstream_grpc: UpstreamGrpc = "",
    upstream_ca: UpstreamCa = None,
    pdp_ca: Annotated[Path | None, typer.Option(help="CA of the PDP's certificate.")] = None,
    cert: Annotated[Path | None, typer.Option(help="The sidecar's own SPIFFE certificate.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
    pdp_token_file: Annotated[Path | None, typer.Option(help="Instead of a certificate: a projected token.")] = None,
    pdp_plaintext: Annotated[bool, typer.Option("--pdp-plaintext", help="Reach the PDP without TLS.")] = False,
    forward_credentials: ForwardCredentials = False,
    state_dir: StateDir = Path("state/sidecar"),
    certificate_suffices: CertificateSuffices = False,
    origin: Annotated[
        str, typer.Option(help="How callers reach the model, https://HOST[:PORT]: their DPoP proofs must name it.")
    ] = "",
    tenant: Annotated[str, typer.Option(help="The tenant whose log is followed.")] = "main",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on standard error.")] = False,
) -> None:
    """Enforce beside a model server until told to stop."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    access = PdpAccess(
        address=pdp,
        root_digest=root_digest.removeprefix("sha256:").lower(),
        ca=readable_file(pdp_ca, option="--pdp-ca"),
        cert=readable_file(cert, option="--cert"),
        key=readable_file(key, option="--key"),
        token_file=readable_file(pdp_token_file, option="--pdp-token-file"),
        plaintext=pdp_plaintext,
    )
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
        ),
        table=table,
        pdp=check_pdp(access),
        trust=trust,
        probes=parse_address(probes, option="--probes"),
        state_dir=state_dir.absolute(),
        tenant=tenant,
        certificate_suffices=certificate_suffices,
        origin=parse_origin(origin),
    )
    _serve(checked)


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
) -> EnvoySettings:
    return EnvoySettings(
        listen=parse_address(listen, option="--listen"),
        upstream=upstream,
        upstream_grpc=upstream_grpc,
        sockets=sockets_in(state_dir),
        rows=table.rows,
        tls=tls,
        forward_credentials=forward_credentials,
    )


def _serve(config: SidecarConfig) -> None:
    # We start Envoy by exec, never by fork alone; gRPC's fork handlers would only complain that threads run.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    from sidecar.agent import serve  # noqa: PLC0415 - `config` and `--help` need none of it

    sys.setswitchinterval(SWITCH_INTERVAL_S)
    uvloop.run(serve(config, announce=lambda line: print(line, flush=True)))  # noqa: T201 - what scripts wait for


@app.command()
def config(
    upstream: UpstreamOption,
    routes: Routes,
    listen: Listen = "127.0.0.1:9081",
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    client_ca: ClientCa = None,
    require_client_cert: RequireCert = False,
    upstream_grpc: UpstreamGrpc = "",
    upstream_ca: UpstreamCa = None,
    forward_credentials: ForwardCredentials = False,
    state_dir: StateDir = Path("state/sidecar"),
) -> None:
    """Print the Envoy configuration that `run` would use."""
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
    table = load_routes(file)
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
    asks = {Scope.SERVED: "the name in its path", Scope.BODY: f"the model in its {row.body.value}"}
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
