"""`pdp token`: an issuer for development, and a look at why a token is refused.

The development issuer signs for whoever can read its key. It says so whenever it is used, and refuses to run where
anything says production: the flag, the environment, `pdp.yaml`, or a `trust.yaml` that is not marked `development: true`.
"""

import asyncio
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from pdp.adapters.clock import SystemClock
from pdp.adapters.keys_files import write_durably
from pdp.adapters.keys_http import KeyStore
from pdp.adapters.live_http import LiveHttp
from pdp.adapters.replay_memory import MemoryReplay
from pdp.adapters.trust_file import load_trust
from pdp.cli.options import AsJson, check_proof_options, parse_duration_ms, parse_pairs
from pdp.cli.output import write_fields, write_json_line, write_line
from pdp.errors import MEANINGS, BadRequestError, ConfigError, Reason
from pdp.identity import gate
from pdp.identity.development import AUDIENCE, CLIENT_ID, DEVELOPMENT_ISS, DevelopmentIssuer, issue, trust_text
from pdp.identity.gate import read_object
from pdp.identity.issuers import IssuerTable
from pdp.identity.proof import BoundRequest
from pdp.identity.types import Refusal, VerifiedIdentity
from pdp.limits import MAX_TRUST_FILE_BYTES
from pdp.model.names import Kind, printable
from pdp.service.authenticate import Authenticator
from pdp.service.live import LiveChecks
from pdp.signals.locks import LockSet
from pdp.yaml_text import read_yaml

app: Final = typer.Typer(rich_markup_mode="markdown", no_args_is_help=True)
keys_app: Final = typer.Typer(rich_markup_mode="markdown", no_args_is_help=True, help="Keys of the development issuer.")
app.add_typer(keys_app, name="keys")

WARNING: Final = (
    "WARNING: this is a development issuer: it signs for whoever can read its key. "
    "Its tokens must never count in production."
)
_PRIVATE: Final = 0o600
_PUBLIC: Final = 0o644
_EXPIRED_LIFE_S: Final = 300
"""How long a token lived that is issued already expired."""

Directory = Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where the issuer's key and key set are.")]
Issuer = Annotated[str, typer.Option("--issuer", metavar="ISS", help="The issuer's name, as `trust.yaml` has it.")]
Audience = Annotated[str, typer.Option("--audience", metavar="AUD", help="Whom the token is for.")]
Mode = Annotated[str, typer.Option("--mode", envvar="PDP_MODE", metavar="MODE", help="`production` refuses to run.")]
ConfigFile = Annotated[
    Path,
    typer.Option("--config", envvar="PDP_CONFIG", metavar="FILE", help="The PDP's configuration, if there is one."),
]
Trust = Annotated[
    Path | None, typer.Option("--trust", metavar="FILE", help="The issuer table; by default `trust.yaml` in DIR.")
]


@app.command()
def init(
    *,
    directory: Directory = Path("dev-issuer"),
    issuer: Issuer = DEVELOPMENT_ISS,
    audience: Audience = AUDIENCE,
    alg: Annotated[str, typer.Option("--alg", help="`ES256`, `RS256` or `EdDSA`.")] = "ES256",
    mode: Mode = "development",
    config: ConfigFile = Path("pdp.yaml"),
) -> None:
    """Make a development issuer: a key, its key set `jwks.json`, and a `trust.yaml` that trusts it."""
    _refuse_production(mode, config)
    _warn()
    key_file = directory / "issuer.pem"
    if key_file.exists():
        raise ConfigError(f"{key_file} exists already", advice="issue with it, or remove the directory first")
    made = DevelopmentIssuer.generate(alg=alg, iss=issuer)
    directory.mkdir(parents=True, exist_ok=True)
    write_durably(key_file, made.to_pem(), mode=_PRIVATE)
    write_durably(directory / "jwks.json", made.jwks(), mode=_PUBLIC)
    text = trust_text(made, jwks_file="jwks.json", audience=audience)
    write_durably(directory / "trust.yaml", text.encode(), mode=_PUBLIC)
    write_line(
        f"issuer {issuer} in {directory}; start the PDP with `--mode development --trust {directory / 'trust.yaml'}`"
    )


@app.command("issue")
def issue_token(
    *,
    sub: Annotated[str, typer.Option("--sub", help="The subject, without a kind: `alice@example.com`.")],
    groups: Annotated[list[str], typer.Option("--groups", help="Groups; comma-separated, or repeated.")] = [],  # noqa: B006
    ttl: Annotated[str, typer.Option("--ttl", help="Life: `5m`, `1h`; `-5m` expired five minutes ago.")] = "5m",
    claim: Annotated[list[str], typer.Option("--claim", metavar="NAME=VALUE", help="A further claim.")] = [],  # noqa: B006
    directory: Directory = Path("dev-issuer"),
    issuer: Issuer = "",
    audience: Audience = AUDIENCE,
    client_id: Annotated[str, typer.Option("--client-id", help="The client it is issued to.")] = CLIENT_ID,
    output: Annotated[Path | None, typer.Option("--output", help="Write to this file (0600), not to stdout.")] = None,
    trust: Trust = None,
    mode: Mode = "development",
    config: ConfigFile = Path("pdp.yaml"),
) -> None:
    """Issue a token: it alone goes to standard output, for `TOKEN=$(pdp token issue --sub …)`."""
    _refuse_production(mode, config)
    table = load_trust(trust or directory / "trust.yaml")
    _refuse_real_issuers(table)
    _warn()
    if sub.partition(":")[0] in Kind._value2member_map_:
        raise BadRequestError(
            "a subject is written without its kind: `alice@example.com`, not `user:alice@example.com`"
        )
    signer = DevelopmentIssuer.from_pem(_read_key(directory / "issuer.pem"), iss=issuer or _only_issuer(table))
    life_s, issued_s = _life(ttl, now_s=int(time.time()))
    token = issue(
        signer,
        sub=sub,
        jti=secrets.token_hex(16),
        now_s=issued_s,
        ttl_s=life_s,
        groups=[name for text in groups for name in text.split(",") if name],
        audience=audience,
        client_id=client_id,
        claims=parse_pairs(claim),
    )
    if output is None:
        write_line(token)
    else:
        write_durably(output, token.encode() + b"\n", mode=_PRIVATE)


@keys_app.command()
def rotate(
    *,
    directory: Directory = Path("dev-issuer"),
    withdraw_old: Annotated[
        bool, typer.Option("--withdraw-old", help="Leave the old keys out of the set: their tokens stop counting.")
    ] = False,
    mode: Mode = "development",
    config: ConfigFile = Path("pdp.yaml"),
) -> None:
    """Give the development issuer a new key; the old one still verifies what it has signed, until `--withdraw-old`.

    Example: `pdp token keys rotate`, and once the last old token has ended, `pdp token keys rotate --withdraw-old`.
    """
    _refuse_production(mode, config)
    _warn()
    key_file, set_file = directory / "issuer.pem", directory / "jwks.json"
    old = DevelopmentIssuer.from_pem(_read_key(key_file))
    older = [] if withdraw_old else _public_keys(set_file)
    new = DevelopmentIssuer.generate(alg=old.alg)
    # The set first: a token of the new key must never come before the key.
    write_durably(set_file, new.jwks(older), mode=_PUBLIC)
    write_durably(key_file, new.to_pem(), mode=_PRIVATE)
    write_line(f"new key {new.public_jwk['kid']}; the set holds {len(older)} older")


@app.command()
def inspect(
    source: Annotated[
        str, typer.Argument(metavar="-", help="`-`: tokens are read from standard input, one a line.")
    ] = "-",
    *,
    trust: Annotated[Path, typer.Option("--trust", metavar="FILE", help="The issuer table.")] = Path("trust.yaml"),
    proof: Annotated[str, typer.Option(metavar="PROOF", help="The `DPoP` header that came with the token.")] = "",
    method: Annotated[str, typer.Option(metavar="METHOD", help="The method of the request that the proof names.")] = "",
    url: Annotated[str, typer.Option(metavar="URL", help="Its URL, as configuration spells the authority.")] = "",
    as_json: AsJson = False,
) -> None:
    """Say of each token what is in it, and whether and why it is refused. Nothing printed can be used as a token.

    With a proof, tokens are read as `DPoP` ones. Exit code 0 if every token is accepted, 4 if one is refused.
    """
    if source != "-":
        raise BadRequestError("tokens are read from standard input only: on a command line others could read them")
    check_proof_options(proof, method, url)
    table = load_trust(trust)
    lines = (line.rstrip(b"\r\n").decode("latin-1") for line in sys.stdin.buffer)
    request = BoundRequest(method=method, uri=url, proof=proof or None)
    if not asyncio.run(_inspect_all(lines, table, trust.parent, request, as_json=as_json)):
        raise typer.Exit(MEANINGS[Reason.TOKEN_MALFORMED].exit_code)


async def _inspect_all(
    lines: Iterable[str], table: IssuerTable, directory: Path, request: BoundRequest, *, as_json: bool
) -> bool:
    accepted = True
    scheme = "Bearer" if request.proof is None else "DPoP"
    async with _authenticator(table, directory) as authenticator:
        for line in lines:
            named = line[:7].lower() == "bearer " or line[:5].lower() == "dpop "
            authorization = line if named else f"{scheme} {line}"
            outcome = await authenticator.authenticate(authorization, None, locks=LockSet.EMPTY, request=request)
            report = _report(authorization, outcome)
            accepted = accepted and report["accepted"]
            if as_json:
                write_json_line(report)
            else:
                _tell(report)
    return accepted


@asynccontextmanager
async def _authenticator(table: IssuerTable, directory: Path) -> AsyncIterator[Authenticator]:
    clock = SystemClock()
    keys = KeyStore(issuers=table, directory=directory, clock=clock)
    live = LiveChecks(source=LiveHttp(issuers=table, directory=directory), clock=clock)
    try:
        yield Authenticator(issuers=table, keys=keys, clock=clock, replay=MemoryReplay(clock=clock), live=live)
    finally:
        await live.close()
        await keys.close()


def _public_keys(path: Path) -> list[Mapping[str, Any]]:
    """Return the public keys of the development issuer's own key set."""
    document = read_object(_read_key(path), duplicate=Reason.TOKEN_MALFORMED)
    keys = None if isinstance(document, Refusal) else document.get("keys")
    if not isinstance(keys, list):
        raise ConfigError(f"{path}: not a key set", advice="run `pdp token init` in another directory")
    return keys


def _report(authorization: str, outcome: VerifiedIdentity | Refusal) -> dict[str, Any]:
    """Return what may be shown: header and claims, which alone are no credential, and the outcome."""
    credential = gate.present(authorization)
    parsed = credential if isinstance(credential, Refusal) else gate.parse(credential.token)
    shown = {} if isinstance(parsed, Refusal) else {"header": dict(parsed.header), "claims": dict(parsed.claims)}
    if isinstance(outcome, Refusal):
        return {"accepted": False, "reason": outcome.reason.value, "detail": outcome.detail, **shown}
    party = outcome.party
    who = {
        "principal": str(party.principal),
        "groups": sorted(party.groups),
        "actors": [str(actor.principal) for actor in outcome.actors],
    }
    return {"accepted": True, "reason": "", "detail": "", **who, **shown}


def _tell(report: dict[str, Any]) -> None:
    fields = {
        name: printable(str(value)) if name == "claims" else str(value) for name, value in report.items() if value
    }
    for name, value in report.get("claims", {}).items():
        fields[f"claims.{printable(name)}"] = printable(str(value))
    fields.pop("claims", None)
    fields.pop("accepted", None)
    write_fields("accepted" if report["accepted"] else f"refused: {report['reason']}", fields)


def _warn() -> None:
    sys.stderr.write(WARNING + "\n")


def _refuse_production(mode: str, config: Path) -> None:
    """Refuse to sign anything where the option, the environment or the PDP's own file says production."""
    said = "`--mode` or PDP_MODE" if {mode, os.environ.get("PDP_MODE", mode)} != {"development"} else ""
    if not said and config.exists():
        document = read_yaml(config.read_text(encoding="utf-8"), file=str(config)).value
        # The default of the PDP's mode is production.
        if not isinstance(document, dict) or document.get("mode", "production") == "production":
            said = f"`{config}`"
    if said:
        raise ConfigError(
            f"the development issuer does not run in production, which {said} says",
            advice="get tokens from your identity provider",
        )


def _refuse_real_issuers(table: IssuerTable) -> None:
    if not table.development:
        raise ConfigError(
            "`trust.yaml` is not marked `development: true`",
            advice="the development issuer signs only for a table that says so; get tokens from your identity provider",
        )


def _only_issuer(table: IssuerTable) -> str:
    if len(table.issuers) != 1:
        raise ConfigError("`trust.yaml` has several issuers", advice="name one with `--issuer`")
    return next(iter(table.issuers))


def _read_key(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_TRUST_FILE_BYTES)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", advice="run `pdp token init`, or name its --dir") from error


def _life(ttl: str, *, now_s: int) -> tuple[int, int]:
    """Return life and time of issue, in seconds: a negative life is a token that expired that long ago."""
    if ttl.startswith("-"):
        return _EXPIRED_LIFE_S, now_s - parse_duration_ms(ttl[1:]) // 1000 - _EXPIRED_LIFE_S
    return parse_duration_ms(ttl) // 1000, now_s
