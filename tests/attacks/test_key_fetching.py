"""Attacks on the way to an issuer's keys: where a name leads, what answers there, and what its metadata says."""

import asyncio
import json
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from pdp.adapters import checked_http
from pdp.adapters.checked_http import Address, Call, FetchError, ask
from pdp.adapters.keys_http import KeyStore
from pdp.errors import Reason
from pdp.identity.keyset import KeySet
from pdp.identity.types import Refusal
from tests.support.tokens import ISS, entry, signer, table
from tests.support.web import Server, serving
from tests.unit.adapters.test_keys_http import Clock

KEYS = {"keys": [signer().public_jwk]}
PUBLIC, METADATA, LOOPBACK = "8.8.8.8", "169.254.169.254", "127.0.0.1"


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let each look-up of a name give the next of these answers; returns the addresses that were connected to."""
    left, connected = list(answers), []

    async def getaddrinfo(_self: Any, _host: str, port: int, **_options: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in left.pop(0)]

    async def send(_call: Call, _url: Any, address: Address, _context: ssl.SSLContext) -> bytes:
        connected.append(str(address))
        return b"{}"

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(checked_http, "_send", send)
    return connected


def fetch(url: str = "https://login.example/jwks", allow: tuple[str, ...] = ()) -> bytes:
    call = Call(address=url, max_bytes=100)
    return asyncio.run(ask(call, allow_private=allow, context=ssl.create_default_context(), timeout_s=5.0))


def test_ssrf_a_name_that_changes_its_mind_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the second answer, which a connecting library would use, is never asked for."""
    connected = resolving(monkeypatch, [PUBLIC], [METADATA])
    fetch()
    assert connected == [PUBLIC]


@pytest.mark.parametrize("answer", [[METADATA], [LOOPBACK, METADATA], ["::1"], ["::ffff:10.0.0.1"], ["fec0::1"], []])
def test_ssrf_a_name_that_leads_inside_is_not_followed(monkeypatch: pytest.MonkeyPatch, answer: list[str]) -> None:
    connected = resolving(monkeypatch, answer)
    with pytest.raises(FetchError, match="no address that is public"):
        fetch()
    assert connected == []


def test_ssrf_among_several_addresses_only_a_public_one_is_talked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    connected = resolving(monkeypatch, [METADATA, LOOPBACK, PUBLIC])
    fetch()
    assert connected == [PUBLIC]


@pytest.mark.parametrize(
    "url", ["https://2130706433/", "https://0x7f000001/", "https://127.1/", "https://[::ffff:127.0.0.1]/"]
)
def test_ssrf_a_number_by_another_spelling_is_the_loopback(url: str) -> None:
    with pytest.raises(FetchError):
        fetch(url)


def test_clear_text_goes_to_named_places_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    connected = resolving(monkeypatch, [PUBLIC], ["10.1.2.3"], ["10.1.2.3"])
    with pytest.raises(FetchError):
        fetch("http://login.example/", allow=("10.0.0.0/8",))
    fetch("http://login.example/", allow=("10.0.0.0/8",))
    with pytest.raises(FetchError):
        fetch("https://login.example/", allow=("10.2.0.0/16",))
    assert connected == ["10.1.2.3"]


Story = Callable[[Server, KeyStore], Awaitable[KeySet | Refusal]]


def with_server(
    answer: Callable[[Server], Any], source: Callable[[Server], dict[str, Any]], directory: Path, **how: Any
) -> tuple[KeySet | Refusal, Server]:
    async def run() -> tuple[KeySet | Refusal, Server]:
        async with serving(Server(), how.get("context")) as server:
            server.answer = answer(server)
            trust = table(entry(keys=source(server)))
            store = KeyStore(issuers=trust, directory=directory, clock=Clock(), timeout_s=how.get("timeout_s", 5.0))
            try:
                return await store.key_set(trust.issuers[ISS], kid=None), server
            finally:
                await store.close()

    return asyncio.run(run())


def flood(piece: bytes, first: bytes = b"") -> Callable[[Server], Any]:
    """Answer with `first`, and then with `piece` for as long as somebody listens."""

    def of(_server: Server) -> Any:
        async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(first)
            while True:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)

        return answer

    return of


FLOODS = {
    "headers-without-end": flood(b"X-A: " + b"a" * 4096 + b"\r\n", b"HTTP/1.1 200 OK\r\n"),
    "one-header-without-end": flood(b"a" * 4096, b"HTTP/1.1 200 OK\r\nX-A: "),
    "not-yet-for-ever": flood(b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "status-line-without-end": flood(b"H" * 4096),
    "chunk-size-without-end": flood(b"0" * 4096, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "drip": flood(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{"),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_an_answer_without_end_ends_within_its_time(tmp_path: Path, kind: str) -> None:
    outcome, server = with_server(FLOODS[kind], plain, tmp_path, timeout_s=0.5)
    assert isinstance(outcome, Refusal)
    assert outcome.reason is Reason.KEYS_UNAVAILABLE
    assert len(server.requests) == 1


def plain(server: Server) -> dict[str, Any]:
    return {"url": f"http://127.0.0.1:{server.port}/jwks", "allow_private": [LOOPBACK]}


@pytest.mark.parametrize("downgraded", [True, False])
def test_metadata_that_came_by_tls_never_leads_to_clear_text(tmp_path: Path, *, downgraded: bool) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    def answer(server: Server) -> Any:
        scheme = "http" if downgraded else "https"
        metadata = {"issuer": ISS, "jwks_uri": f"{scheme}://localhost:{server.port}/keys"}

        async def either(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            first = server.requests[-1].startswith(b"GET /meta ")
            await server.body(json.dumps(metadata if first else KEYS).encode())(reader, writer)

        return either

    def source(server: Server) -> dict[str, Any]:
        return {"discovery": f"https://localhost:{server.port}/meta", "ca": "ca.pem", "allow_private": ["localhost"]}

    outcome, server = with_server(answer, source, tmp_path, context=context)
    assert isinstance(outcome, Refusal) is downgraded, outcome
    assert len(server.requests) == (1 if downgraded else 2)


def test_keys_come_from_an_ipv6_address_too(tmp_path: Path) -> None:
    async def run() -> KeySet | Refusal:
        server = Server()
        server.answer = server.json(KEYS)
        try:
            listener = await asyncio.start_server(server.serve, "::1", 0)
        except OSError:
            pytest.skip("no IPv6 here")
        port = listener.sockets[0].getsockname()[1]
        trust = table(entry(keys={"url": f"http://[::1]:{port}/jwks", "allow_private": ["::1"]}))
        store = KeyStore(issuers=trust, directory=tmp_path, clock=Clock())
        async with listener:
            try:
                return await store.key_set(trust.issuers[ISS], kid=None)
            finally:
                await store.close()

    assert isinstance(asyncio.run(run()), KeySet)
