"""`pdp doctor`: looks at everything between this terminal and a decision, in order, and says in plain words what is wrong."""

import base64
import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from pdp.cli.options import AsJson, Connection, connected
from pdp.cli.output import write_json, write_line, write_table
from pdp.errors import MEANINGS, ConfigError, PortcullisError, Reason
from pdp.limits import MAX_CLOCK_SKEW_S, MAX_JSON_DEPTH, MAX_LEEWAY_S, MAX_RPC_BYTES
from pdp.model.names import printable
from pdp.sdk import NotPermitted, PdpUnavailable
from pdp.sdk._settings import Settings

OK: Final = "ok"
WARNING: Final = "warning"
ERROR: Final = "error"
SKIPPED: Final = "skipped"

_SOON_S: Final = 7 * 86_400
_PROBES_PORT: Final = 8183
_HEAD_DIGITS: Final = 12
_WEAKENED: Final = "weakened"
_MENDS: Final = {
    "development mode": "not for production: leave `mode` out of pdp.yaml, or say `production`",
    "gRPC without TLS": "not for production: give `grpc.tls.cert` and `grpc.tls.key`",
    "a development issuer is trusted": "not for production: name your identity provider in trust.yaml",
    "the root key lies on this machine": "move it to where it is offline; the PDP never needs it",
    "the store is reached without TLS": "reach it by rediss://, with `store.ca`",
}
"""What to do about each control that a PDP's configuration weakens."""
_MEND: Final = "docs/failure-behaviour.md says what it means and what to do"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one look found: `state` is ok, warning, error or skipped; `advice` says what to do."""

    check: str
    state: str
    told: str
    advice: str = ""
    exit_code: int = 0


@connected
def doctor(
    *,
    probes: Annotated[
        str,
        typer.Option(
            metavar="URL", envvar="PDP_PROBES", help="Probes of the PDP; by default port 8183 of the server's host."
        ),
    ] = "",
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Find out why a decision does not come: address, TLS, credential, rights, readiness, clock, enforcement points.

    Exit code 0 if nothing is wrong (warnings do not count), else that of the first error.

    Example: `pdp doctor --server pdp.example:8181 --token-file token`
    """
    findings = list(examine(connection, probes))
    if as_json:
        write_json([_finding_json(found) for found in findings])
    else:
        write_table(("check", "state", "what"), [(found.check, found.state, found.told) for found in findings])
        advice = {f"{_subject(found)}: {found.advice}": None for found in findings if _needs_advice(found)}
        for line in advice:
            write_line(line)
    raise typer.Exit(next((found.exit_code for found in findings if found.state == ERROR), 0))


def examine(connection: Connection, probes: str) -> Iterator[Finding]:
    """Yield what each look finds, from the nearest to the farthest; those that an error makes pointless are left out."""
    settings = Settings.resolve(
        connection.server,
        token=connection.token_file,
        ca=connection.ca,
        cert=connection.cert,
        key=connection.key,
        timeout_s=connection.timeout_s,
    )
    yield Finding(check="settings", state=OK, told=_settings_told(settings))
    reached = _looked("connection", lambda: _connection(settings))
    yield reached
    token = _looked("token", lambda: _token(settings))
    yield token
    if reached.state != ERROR:
        asked = _looked("credential", lambda: _credential(connection))
        if asked.told != token.told:  # else it is the file that cannot be read, and that is told
            yield asked
        if asked.exit_code != MEANINGS[Reason.CREDENTIAL_MISSING].exit_code:
            yield _looked("enforcement points", lambda: _replicas(connection))
    yield from _probes(probes or _default_probes(settings), settings.timeout_s)


def _subject(found: Finding) -> str:
    """Return what an advice is about: of the weakened controls there are many under one name."""
    return found.told if found.check == _WEAKENED else found.check


def _looked(check: str, look: Callable[[], Finding]) -> Finding:
    """Return what `look` finds; a typed error is a finding too."""
    try:
        return look()
    except PortcullisError as error:
        told = error.message if error.reason in error.message else f"{error.reason}: {error.message}"
        advice = error.advice or f"docs/reason-codes.md says what to do for `{error.reason}`"
        return Finding(check=check, state=ERROR, told=told, advice=advice, exit_code=error.meaning.exit_code or 1)


def _settings_told(settings: Settings) -> str:
    if not settings.secure:
        return f"{settings.server}, clear text on this host"
    authorities = str(settings.tls.ca) if settings.tls.ca else "the system's authorities"
    own = f", our certificate {settings.tls.cert}" if settings.tls.cert else ""
    return f"{settings.server}, TLS, accepting {authorities}{own}"


# The connection: sockets of our own, since they tell more than an RPC that is "unavailable".


def _connection(settings: Settings) -> Finding:
    if settings.server.startswith("unix:"):
        return Finding(check="connection", state=SKIPPED, told="a Unix socket")
    host, port = _address(settings.server)
    try:
        with socket.create_connection((host, port), timeout=settings.timeout_s) as plain:
            if not settings.secure:
                return Finding(check="connection", state=OK, told=f"{host}:{port} accepts connections")
            with _context(settings).wrap_socket(plain, server_hostname=host) as secured:
                return _certificate(secured.getpeercert() or {}, time.time())
    except ssl.SSLCertVerificationError as error:
        raise _unreachable(f"the server's certificate is not accepted: {error.verify_message}", "check --ca") from error
    except ssl.SSLError as error:
        told = f"the TLS handshake failed: {error.reason}"
        raise _unreachable(told, "does the server speak TLS, and does it want a client certificate?") from error
    except socket.gaierror as error:
        raise _unreachable(f"the name `{host}` does not resolve: {error.strerror}", "check --server") from error
    except OSError as error:
        told = f"{host}:{port}: {error.strerror or error}"
        raise _unreachable(told, "is `pdp serve` running there, and may we reach the port?") from error


def _unreachable(told: str, advice: str) -> PdpUnavailable:
    return PdpUnavailable(Reason.PDP_UNREACHABLE, told, advice=advice)


def _address(server: str) -> tuple[str, int]:
    host, _, port = server.removeprefix("dns:///").rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"`{server}` is not HOST:PORT", advice="give --server, such as 127.0.0.1:8181")
    return host.strip("[]"), int(port)


def _context(settings: Settings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.tls.ca)
    context.set_alpn_protocols(["h2"])
    if settings.tls.cert is not None:
        context.load_cert_chain(settings.tls.cert, settings.tls.key)
    return context


def _certificate(certificate: Mapping[str, Any], now_s: float) -> Finding:
    """Tell of the server's certificate; it has already been verified."""
    left_s = ssl.cert_time_to_seconds(str(certificate.get("notAfter"))) - now_s
    told = f"TLS, the server's certificate is good for {_span(left_s)}"
    if left_s < _SOON_S:
        return Finding(check="connection", state=WARNING, told=told, advice="renew the server's certificate soon")
    return Finding(check="connection", state=OK, told=told)


# The credential: what it says about us, and what the PDP says about it.


def _token(settings: Settings) -> Finding:
    token = settings.read_token()
    if not token and settings.tls.cert is None:
        advice = "give --token-file, or --cert and --key"
        return Finding(check="token", state=WARNING, told="no token and no client certificate", advice=advice)
    if not token:
        return Finding(check="token", state=OK, told="none; our certificate speaks for us")
    return _claims_told(_claims(token), time.time())


def _claims(token: str) -> Mapping[str, Any]:
    """Return what a token says of itself: unverified, for a person to read, never to decide on."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _claims_told(claims: Mapping[str, Any], now_s: float) -> Finding:
    expires, issued = claims.get("exp"), claims.get("iat")
    who = f"says it is `{claims.get('sub', '?')}` of {claims.get('iss', '?')}"
    if not isinstance(expires, int | float):
        return Finding(check="token", state=WARNING, told=f"{who}; it names no expiry", advice="is it a JWT?")
    if expires <= now_s <= expires + MAX_LEEWAY_S:
        told = f"{who}; it expired {_span(now_s - expires)} ago, within what clocks are forgiven"
        return Finding(check="token", state=WARNING, told=told, advice="get a new token")
    if expires <= now_s:
        told, advice = f"{who}; it expired {_span(now_s - expires)} ago", "get a new token"
        return Finding(check="token", state=ERROR, told=told, advice=advice, exit_code=4)
    if isinstance(issued, int | float) and issued > now_s + MAX_CLOCK_SKEW_S:
        told = f"{who}; it was issued {_span(issued - now_s)} from now"
        return Finding(check="token", state=WARNING, told=told, advice="our clock, or the issuer's, is wrong")
    return Finding(check="token", state=OK, told=f"{who}; good for {_span(expires - now_s)}")


def _credential(connection: Connection) -> Finding:
    with connection.client() as client:
        decision = client.check("decision.ask", "decision/main", supports=None)
    who = decision.role_path[0] if decision.role_path else "our identity"
    if decision.allowed:
        told = f"accepted; {who} may ask for decisions (world {decision.world_seq})"
        return Finding(check="credential", state=OK, told=told)
    told = f"accepted, but asking is denied: {decision.reason} (decision {decision.decision_id})"
    advice = "have an administrator grant `decision.ask` on decision/main"
    return Finding(check="credential", state=ERROR, told=told, advice=advice, exit_code=3)


def _replicas(connection: Connection) -> Finding:
    check = "enforcement points"
    try:
        with connection.admin() as admin:
            told = admin.replicas()
    except NotPermitted:
        return Finding(check=check, state=SKIPPED, told="we may not see them (replica.read)")
    late = [replica.identity for replica in told.replicas if replica.connected and replica.seq < told.head_seq]
    gone = [replica.identity for replica in told.replicas if not replica.connected]
    summary = f"{len(told.replicas) - len(gone)} connected, head is world {told.head_seq}"
    if late or gone:
        lines = [f"behind: {', '.join(late)}"] if late else []
        lines += [f"not connected: {', '.join(gone)}"] if gone else []
        return Finding(check=check, state=WARNING, told=f"{summary}; {'; '.join(lines)}", advice="see `pdp replicas`")
    return Finding(check=check, state=OK, told=summary)


# The probes: what the PDP says about itself.


def _default_probes(settings: Settings) -> str:
    if settings.server.startswith("unix:"):
        return ""
    host, _ = _address(settings.server)
    return f"http://{f'[{host}]' if ':' in host else host}:{_PROBES_PORT}"


def _probes(url: str, timeout_s: float) -> Iterator[Finding]:
    try:
        ready, state, date = _fetch(url, timeout_s)
    except (OSError, http.client.HTTPException, ValueError) as error:
        garbled = isinstance(error, http.client.BadStatusLine)
        why = "what answers there is no HTTP" if garbled else getattr(error, "strerror", None) or error
        told = f"{url or 'no address'}: {why}"
        yield Finding(check="readiness", state=WARNING, told=told, advice="give --probes, the URL of the PDP's probes")
        return
    yield _readiness(state, ready=ready)
    yield from _weakened(state)
    yield from _used_proofs(state)
    yield _clock(date, time.time())


def _fetch(url: str, timeout_s: float) -> tuple[bool, Mapping[str, Any], str]:
    """Return whether the PDP is ready, what it says of its state, and its `Date`."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("a URL such as http://127.0.0.1:8183 is wanted")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=timeout_s)
    try:
        connection.request("GET", "/readyz", headers={"Accept": "application/json"})
        response = connection.getresponse()
        body = response.read(MAX_RPC_BYTES)
        return response.status == http.client.OK, _state(body), response.getheader("Date", "")
    finally:
        connection.close()


def _state(body: bytes) -> Mapping[str, Any]:
    if body.count(b"{") + body.count(b"[") > MAX_JSON_DEPTH * MAX_JSON_DEPTH:
        return {}
    try:
        state = json.loads(body)
    except ValueError:
        return {}
    return state if isinstance(state, dict) else {}


def _readiness(state: Mapping[str, Any], *, ready: bool) -> Finding:
    head = state.get("head")
    facts = {
        "world": state.get("world_seq"),
        "head": f"{head[:_HEAD_DIGITS]}…" if isinstance(head, str) and head else None,
        "staleness": f"{state['staleness_s']} s" if state.get("staleness_s") is not None else None,
        "last error": state.get("last_error"),
        "refused": f"{state['refused']} of what the log carried" if state.get("refused") else None,
        "reason": state.get("reason"),
    }
    told = ", ".join(f"{name} {value}" for name, value in facts.items() if value not in (None, ""))
    if ready:
        return Finding(check="readiness", state=OK, told=f"ready; {told}".rstrip("; "))
    advice = "the PDP does not hold a fresh world: look at its log, and at its store"
    return Finding(check="readiness", state=ERROR, told=f"not ready; {told}".rstrip("; "), advice=advice, exit_code=5)


def _weakened(state: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield one warning for each control that the PDP says is weakened (FAILURE.md P13)."""
    degradations = state.get("degradations")
    for degradation in degradations if isinstance(degradations, list) else ():
        told = degradation if isinstance(degradation, str) else json.dumps(degradation, ensure_ascii=False)
        yield Finding(check=_WEAKENED, state=WARNING, told=told, advice=_MENDS.get(told, _MEND))


def _used_proofs(state: Mapping[str, Any]) -> Iterator[Finding]:
    """Tell who knows a used DPoP proof again, where the PDP takes proofs (IDENTITY.md PR-3)."""
    scope = state.get("used_proofs")
    if isinstance(scope, str) and scope:
        yield Finding(check="used proofs", state=OK, told=f"a DPoP proof is taken once by {printable(scope)}")


def _clock(date: str, now_s: float) -> Finding:
    try:
        skew_s = now_s - parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return Finding(check="clock", state=SKIPPED, told="the PDP does not tell its time")
    told = f"ours and the PDP's differ by about {abs(skew_s):.0f} s"
    if abs(skew_s) > MAX_CLOCK_SKEW_S:
        return Finding(
            check="clock", state=ERROR, told=told, advice="set the clock: tokens and roles need it", exit_code=5
        )
    return Finding(check="clock", state=OK, told=told)


def _span(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _needs_advice(found: Finding) -> bool:
    return bool(found.advice) and found.state in {WARNING, ERROR}


def _finding_json(found: Finding) -> dict[str, Any]:
    return {"check": found.check, "state": found.state, "told": found.told, "advice": found.advice}
