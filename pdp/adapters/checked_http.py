"""Asking an address that configuration chose: one answer, from a checked place, within all caps (IDENTITY.md JW-1).

The name is resolved once and the connected address is the one that was checked, so that a name which changes its mind (DNS
rebinding) leads nowhere; TLS still verifies the name. No redirect is followed, no proxy of the environment asked, no answer
unpacked. Shared by what fetches keys and what asks whether a token still counts.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from pdp.errors import ConfigError
from pdp.limits import MAX_TOKEN_BYTES

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_IPV4_MASK: Final = 0xFFFF_FFFF
_SCHEME_PORTS: Final = {"https": 443, "http": 80}


class FetchError(Exception):
    """An answer that could not be had; the message says why, and holds nothing that the other side sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One question over HTTP: a GET, or with `body` a POST of that media type. `statuses` are those of a good answer."""

    address: str
    max_bytes: int
    authorization: str = field(default="", repr=False)
    body: bytes | None = field(default=None, repr=False)
    media_type: str = ""
    statuses: tuple[int, ...] = (httpx.codes.OK,)

    def headers(self, url: httpx.URL) -> dict[str, str]:
        """Return the headers to send."""
        named = {"Content-Type": self.media_type, "Authorization": self.authorization}
        fixed = {"Host": url.netloc.decode("ascii"), "Accept": "application/json", "Accept-Encoding": "identity"}
        return fixed | {name: value for name, value in named.items() if value}


def tls_context(ca: str | None, directory: Path) -> ssl.SSLContext:
    """Return how servers are verified: against the CAs in a file below `directory`, or the system's.

    Raises:
        ConfigError: the file cannot be read, or holds no certificate.
    """
    if ca is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=str(directory / ca))
    except OSError as error:  # `ssl.SSLError` is one
        told = error.strerror if not isinstance(error, ssl.SSLError) else "no CA certificates in PEM"
        raise ConfigError(f"{directory / ca}: {told}", advice="name the file with the server's CA as `ca`") from error


def read_secret(path: Path) -> str:
    """Return the credential in a file, read again for each use: it rotates.

    Raises:
        FetchError: there is none that a header could hold.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_TOKEN_BYTES + 1).decode("ascii").strip()
    except OSError as error:
        raise FetchError(f"our credential cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FetchError("our credential is not ASCII") from error
    if not text or len(text) > MAX_TOKEN_BYTES or not text.isprintable():
        raise FetchError("our credential is not one line that a header can hold")
    return text


async def ask(call: Call, *, allow_private: Sequence[str], context: ssl.SSLContext, timeout_s: float) -> bytes:
    """Return the body of the answer to `call`, from a checked address.

    Raises:
        FetchError: anything else, redirects included.
    """
    url = httpx.URL(call.address)
    try:
        async with asyncio.timeout(timeout_s):
            return await _send(call, url, await _resolve(url, allow_private), context)
    except TimeoutError as error:
        raise FetchError(f"no whole answer within {timeout_s} s") from error
    except (httpx.HTTPError, OSError) as error:
        raise FetchError(f"{type(error).__name__} while fetching") from error


async def _resolve(url: httpx.URL, allow_private: Sequence[str]) -> Address:
    """Return the address to connect to, or refuse: the name may point to where only we can reach (SSRF)."""
    port = url.port or _SCHEME_PORTS[url.scheme]
    found = await asyncio.get_running_loop().getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
    for _family, _type, _protocol, _name, endpoint in found:
        address = ipaddress.ip_address(endpoint[0])
        named = _is_named(address, url.host, allow_private)
        if named or (is_public(address) and url.scheme == "https"):
            return address
    raise FetchError("its host has no address that is public, or named in `allow_private`")


def _is_named(address: Address, host: str, allow_private: Sequence[str]) -> bool:
    """Tell whether `allow_private` names the host, or a network that holds the address."""
    return any(
        entry == host if not _is_network(entry) else address in ipaddress.ip_network(entry) for entry in allow_private
    )


def _is_network(entry: str) -> bool:
    try:
        ipaddress.ip_network(entry)
    except ValueError:
        return False
    return True


def is_public(address: Address) -> bool:
    """Tell whether an address is none of loopback, private, link- or site-local, multicast, unspecified, also inside IPv6."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & _IPV4_MASK)
        if inner is not None or address.teredo is not None:
            return inner is not None and is_public(inner)
        if address.is_site_local:
            return False  # deprecated, routed by some all the same, and "global" to the library
    return address.is_global and not (address.is_multicast or address.is_unspecified or address.is_reserved)


async def _send(call: Call, url: httpx.URL, address: Address, context: ssl.SSLContext) -> bytes:
    async with (
        # No proxy from the environment, no redirect: the address we checked is the one we talk to.
        httpx.AsyncClient(verify=context, trust_env=False, follow_redirects=False) as client,
        client.stream(
            "GET" if call.body is None else "POST",
            url.copy_with(host=str(address)),
            headers=call.headers(url),
            content=call.body,
            extensions={"sni_hostname": url.host},  # TLS verifies the name, not the address
        ) as response,
    ):
        if response.status_code not in call.statuses:
            raise FetchError(f"status {response.status_code}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise FetchError("a compressed answer, though we asked for none")
        return await _read_bounded(response, call.max_bytes)


async def _read_bounded(response: httpx.Response, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > max_bytes:
            raise FetchError(f"more than {max_bytes} bytes")
    return bytes(body)
