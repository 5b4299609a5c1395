"""Checks from outside that the gate is closed: what an attacker would try first, tried by us.

Source: ENFORCEMENT.md 1, `pdp-sidecar doctor`.
"""

import asyncio
import contextlib
import os
import re
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from pdp.errors import ConfigError
from pdp.limits import MAX_STALENESS_S
from sidecar.envoy_names import Address
from sidecar.routes import RouteTable

_PATIENCE_S = 5.0
_DESCRIPTION_S = 30.0  # FastAPI writes it when it is first asked; vLLM's takes seconds
_LOOKS, _LOOK_S = 50, 0.1
_REFUSALS = "pdp_sidecar_envoy_refusals_total"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is examined, and what we may show it.

    Attributes:
        model: The model server's own URL; empty: its routes are not compared.
        table: The routes that the gate maps.
    """

    gate: Address
    probes: Address
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    model_ports: tuple[int, ...] = ()
    served: str = ""
    model: str = ""
    table: RouteTable | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check, whether it passed, and what was seen."""

    check: str
    passed: bool
    seen: str


_NO_TOKEN = ("a request without a token is 401", "/v2/models/{name}/infer", (), {"401"})
_ATTEMPTS = (
    ("an unmapped path is 403", "/portcullis-doctor-unmapped", (), {"403"}),
    ("an escaped slash is 400", "/v2%2Fmodels", (), {"400"}),
    ("an escaped backslash is 400", "/v2%5Cmodels", (), {"400"}),
    ("a header with an underscore is 400", "/v2/health/live", ("x_pdp_subject: doctor",), {"400"}),
)


async def examine(subject: Subject) -> tuple[Finding, ...]:
    """Return every check's finding; of a gate that cannot be reached only that, and what can be seen without it."""
    context = _tls(subject)
    unreached = await _unreached(subject.gate, context)
    attempts = () if unreached else (_NO_TOKEN, *_ATTEMPTS) if subject.served else _ATTEMPTS
    refused_before = (await _told(subject.probes)).get(_REFUSALS)
    gate = [
        await _attempt(subject.gate, context, check, target.format(name=subject.served), lines, wanted)
        for check, target, lines, wanted in attempts
    ]
    ready = await _attempt(subject.probes, None, "the sidecar is ready", "/readyz", (), {"200"}, method="GET")
    ports = [await _closed(host, port) for port in subject.model_ports for host in _own_addresses()]
    told = await _told(subject.probes) if ready.passed else {}
    age = [_age(told), *_durability(told), *_proofs(told)] if ready.passed else []
    if unreached:
        gate = [Finding(check="the gate answers", passed=False, seen=f"{unreached}; does it run, and is --gate right?")]
    elif refused_before is not None:  # a gate with an Envoy of its own
        by_envoy = sum(one.seen == "400" for one in gate)
        gate.append(await _recorded(subject.probes, refused_before, by_envoy))
    routes = [await _coverage(subject.model, subject.table)] if subject.model and subject.table is not None else []
    return (*gate, ready, *age, *ports, *routes)


def _tls(subject: Subject) -> ssl.SSLContext | None:
    if subject.ca is None:
        return None
    try:
        context = ssl.create_default_context(cafile=str(subject.ca))
        if subject.cert is not None:
            # Without the callback OpenSSL would ask the terminal for the passphrase, and wait for ever.
            context.load_cert_chain(subject.cert, subject.key, password=lambda: "")
    except OSError as fault:
        message = f"--ca, --cert, --key: {fault.strerror or fault}"
        raise ConfigError(message, advice="name PEM files, the key without a passphrase") from None
    return context


async def _unreached(address: Address, context: ssl.SSLContext | None) -> str:
    """Return why no connection to `address` can be had; empty if one can."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            _, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    except OSError as fault:
        return f"{_authority(address)}: {_why(fault)}"
    writer.close()
    return ""


def _why(fault: OSError) -> str:
    if isinstance(fault, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {fault.verify_message}"
    if isinstance(fault, ssl.SSLError):
        return f"the TLS handshake failed: {fault.reason}"
    if isinstance(fault, TimeoutError):
        return f"nothing within {_PATIENCE_S:.0f} s"
    # Of an error number asyncio keeps only its own words, which say less.
    return os.strerror(fault.errno) if fault.errno and fault.errno > 0 else fault.strerror or str(fault)


async def _attempt(  # noqa: PLR0917 - one row of the table above
    address: Address,
    context: ssl.SSLContext | None,
    check: str,
    target: str,
    lines: Iterable[str],
    wanted: set[str],
    *,
    method: str = "POST",
) -> Finding:
    request = [f"{method} {target} HTTP/1.1", "host: doctor", "connection: close", "content-length: 0", *lines, "", ""]
    try:
        async with asyncio.timeout(_PATIENCE_S):
            reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
            writer.write("\r\n".join(request).encode())
            status = (await reader.readline()).decode(errors="replace").split(" ")
            writer.close()
    except OSError as fault:
        return Finding(check=check, passed=False, seen=f"no answer from {_authority(address)}: {_why(fault)}")
    seen = status[1] if len(status) > 1 else "no status"
    return Finding(check=check, passed=seen in wanted, seen=seen)


async def _told(probes: Address) -> dict[str, float]:
    """Return what the sidecar says of itself, by metric name; nothing if it does not answer."""
    try:
        async with httpx.AsyncClient(timeout=_PATIENCE_S, trust_env=False) as client:
            text = (await client.get(f"http://{_authority(probes)}/metrics")).text
    except httpx.HTTPError:
        return {}
    return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", text, re.MULTILINE)}


async def _recorded(probes: Address, before: float, wanted: int) -> Finding:
    """Look whether what Envoy has just refused of ours by itself came on record, which it tells a moment later."""
    now = before
    for _ in range(_LOOKS):
        now = (await _told(probes)).get(_REFUSALS, before)
        if now - before >= wanted:
            break
        await asyncio.sleep(_LOOK_S)
    return Finding(
        check="what envoy refuses by itself is on record",
        passed=now - before >= wanted,
        seen=f"{now - before:.0f} of {wanted}",
    )


def _age(told: Mapping[str, float]) -> Finding:
    """Compare the age of the world that decides with the strictest bound."""
    age_s = told.get("pdp_sidecar_staleness_seconds", float("inf"))
    bound_s = MAX_STALENESS_S["high"]
    fresh = age_s <= bound_s
    seen = f"{age_s:.1f} s old" if fresh else f"{age_s:.1f} s old, of {bound_s:.0f}; does the sidecar reach its PDP?"
    return Finding(check="the world that decides is fresh", passed=fresh, seen=seen)


def _durability(told: Mapping[str, float]) -> Iterator[Finding]:
    """Say whether an allow waits for its record; a sidecar that was told not to let it is weakened."""
    durable = told.get("pdp_sidecar_audit_durable")
    if durable is not None:
        seen = "it does" if durable else "weakened: it does not, by `--no-audit-durable` or `audit: {durable: false}`"
        yield Finding(check="an allow waits until its record is on disk", passed=bool(durable), seen=seen)


def _proofs(told: Mapping[str, float]) -> Iterator[Finding]:
    """Say who knows a used DPoP proof again, where the issuer table asks for proofs."""
    if told.get("pdp_sidecar_takes_proofs"):
        seen = "by this sidecar, restarts included; a proof names its own authority and opens no other door"
        yield Finding(check="a used DPoP proof is known again", passed=True, seen=seen)


async def _coverage(model: str, table: RouteTable) -> Finding:
    """Compare the routes that the server describes (OpenAPI) with the table: what has no row is denied, which may surprise."""
    check = "every route of the model server has a row"
    routes = await _described(f"{model.rstrip('/')}/openapi.json") or await _described(f"{model.rstrip('/')}/docs.json")
    if not routes:
        return Finding(check=check, passed=False, seen=f"no OpenAPI description at {model}/openapi.json or /docs.json")
    without = [f"{verb} {path}" for verb, path in routes if not table.knows(verb, path)]
    return Finding(check=check, passed=not without, seen=", ".join(sorted(without)) or f"all {len(routes)}")


async def _described(url: str) -> list[tuple[str, str]]:
    """Return method and path of each route in the OpenAPI description at `url`; nothing if there is none."""
    try:
        async with httpx.AsyncClient(timeout=_DESCRIPTION_S, trust_env=False) as client:
            paths = (await client.get(url)).json()["paths"]
        return [(verb.upper(), path) for path, verbs in paths.items() for verb in verbs]
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _authority(address: Address) -> str:
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"


def _own_addresses() -> tuple[str, ...]:
    """Return this machine's addresses other than loopback, as its own name and its default route show them."""
    found = set()
    with contextlib.suppress(OSError):
        found |= {str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None)}
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # a datagram socket sends nothing by this; it only picks a route
        found.add(probe.getsockname()[0])
    return tuple(sorted(one for one in found if not one.startswith("127.") and one != "::1"))


async def _closed(host: str, port: int) -> Finding:
    check = f"the model's port {port} refuses on {host}"
    try:
        async with asyncio.timeout(_PATIENCE_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return Finding(check=check, passed=True, seen="refused")
    writer.close()
    return Finding(check=check, passed=False, seen="open: callers can walk around the gate")
