"""Sockets: TLS by configuration, certificates read again when their files change, one process per port."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import grpc

from pdp.config import Address, Tls
from pdp.errors import ConfigError
from pdp.limits import HANDSHAKE_S, MAX_CALLS_PENDING, MAX_METADATA_BYTES, MAX_PACK_RPC_BYTES

SETTING: Final = "grpc.listen (--listen)"
_OPTIONS: Final[Sequence[tuple[str, Any]]] = (
    ("grpc.max_receive_message_length", MAX_PACK_RPC_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    # A compressed message is refused, not unpacked: its size says nothing of what it unpacks to (FAILURE.md L4).
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.server_handshake_timeout_ms", round(HANDSHAKE_S * 1000)),
    # Above the first number gRPC turns away calls at random, the well-behaved caller's too: streams that are begun and reset a
    # thousand times on two connections came that far.
    ("grpc.server.max_pending_requests", MAX_CALLS_PENDING),
    ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_CALLS_PENDING),
)


def make_server(guard: "grpc.aio.ServerInterceptor[Any, Any]", *, shared: bool = False) -> grpc.aio.Server:
    """Return a server whose every RPC passes `guard`; `shared`: workers of one PDP listen on its port together."""
    # Not else: a second PDP would bind the same port without a word, and each would get half of the calls.
    return grpc.aio.server(interceptors=[guard], options=[*_OPTIONS, ("grpc.so_reuseport", int(shared))])


def listen(server: grpc.aio.Server, address: Address, tls: Tls | None, *, shared: bool = False) -> Address:
    """Open the door and return where it really is; the port of a `shared` one is held by the supervisor.

    Raises:
        ConfigError: the port is in use, or a key file is missing or wrong.
    """
    credentials = None if tls is None else _Certificates(tls).credentials()
    if address.port and not shared:
        bind(address, setting=SETTING).close()  # gRPC would say less, and say it twice
    try:
        if credentials is None:
            port = server.add_insecure_port(str(address))
        else:
            port = server.add_secure_port(str(address), credentials)
    except RuntimeError as error:
        message = f"{SETTING}: cannot listen on {address}"
        raise ConfigError(message, advice="stop what uses the port, or choose another") from error
    if address.path:
        os.chmod(address.path, 0o600)  # noqa: PTH101 - a socket's path is a string to gRPC
        return address
    return Address(host=address.host, port=port)


def bind(address: Address, *, setting: str) -> socket.socket:
    """Return a socket that listens on `address`.

    Raises:
        ConfigError: the address is in use or not ours; the message names the setting.
    """
    return _bound(address, setting, (socket.SO_REUSEADDR,), listening=True)


def reserve(address: Address, *, setting: str) -> socket.socket:
    """Return a socket that keeps `address` for workers that will listen on it together, and takes no calls itself.

    Raises:
        ConfigError: the address is in use, by whomever.
    """
    if address.port:
        bind(address, setting=setting).close()  # else we might join strangers who share theirs
    return _bound(address, setting, (socket.SO_REUSEADDR, socket.SO_REUSEPORT), listening=False)


def _bound(address: Address, setting: str, options: Sequence[int], *, listening: bool) -> socket.socket:
    if address.path:
        raise ConfigError(f"{setting}: this door listens on HOST:PORT")
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        for option in options:
            listener.setsockopt(socket.SOL_SOCKET, option, 1)
        listener.bind((address.host, address.port))
        if listening:
            listener.listen()
    except OSError as error:
        listener.close()
        message = f"{setting}: cannot listen on {address}: {error.strerror or error}"
        raise ConfigError(message, advice="stop what uses the port, or choose another") from error
    return listener


class _Certificates:
    """Key and certificates in files that may rotate (FAILURE.md F25); new connections use what the files hold."""

    def __init__(self, tls: Tls) -> None:
        self._files = [path for path in (tls.cert, tls.key, tls.client_ca) if path is not None]
        self._tls = tls
        self._stamp = self._stamps()

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials that follow the files. With `client_ca`, a caller without a certificate is not let in."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(), self._renewed, require_client_authentication=self._tls.client_ca is not None
        )

    def _configuration(self) -> Any:
        pair = (
            read_pem(self._tls.key, "grpc.tls.key (--tls-key)"),
            read_pem(self._tls.cert, "grpc.tls.cert (--tls-cert)"),
        )
        roots = self._tls.client_ca
        return grpc.ssl_server_certificate_configuration(
            [pair], root_certificates=read_pem(roots, "grpc.tls.client_ca (--client-ca)") if roots else None
        )

    def _renewed(self) -> Any:
        """Return a new configuration if a file has changed, else None; a half-written change waits for the next time."""
        try:
            stamp = self._stamps()
            if stamp == self._stamp:
                return None
            renewed = self._configuration()
        except ConfigError:
            return None
        self._stamp = stamp
        return renewed

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        return tuple(_stamp(path) for path in self._files)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return status.st_mtime_ns, status.st_ino


def read_pem(path: Path, setting: str) -> bytes:
    """Return the bytes of a PEM file.

    Raises:
        ConfigError: it is missing or no PEM.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error, setting) from error
    if b"-----BEGIN " not in raw:
        raise ConfigError(f"{setting}: {path} is no PEM file", advice="name the file in PEM format")
    return raw


def _unreadable(path: Path, error: OSError, setting: str = "grpc.tls") -> ConfigError:
    message = f"{setting}: cannot read {path}: {error.strerror or error}"
    return ConfigError(message, advice="name the right file and let this user read it")
