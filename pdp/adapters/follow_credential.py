"""The credential with which a replica follows its PDP, as the files hold it: read anew when they change.

A token that was exchanged goes up the open feed. A certificate belongs to the connection: a new one, once it fits its key,
takes a new connection. A file caught half-written changes nothing; the next look finds it whole.
"""

import re
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import grpc

from pdp.errors import ConfigError, PortcullisError, Reason
from pdp.limits import MAX_TOKEN_BYTES

_TOKEN: Final = re.compile(rb"[\x21-\x7e]+")
Token = Path | Callable[[], str]
_Stamp = tuple[tuple[int, int, int] | None, ...]


class CredentialFiles:
    """The files of one replica's credential.

    Args:
        ca: certificates that the PDP's must chain to; None only where the connection needs no TLS (a test, one machine).
        cert, key: this replica's own certificate and key.
        token: a file with a bearer token or a function that returns one, instead of or beside the certificate.

    Raises:
        ConfigError: a certificate without its key, or without a CA to know the PDP by.
    """

    def __init__(self, *, ca: Path | None, cert: Path | None, key: Path | None, token: Token | None) -> None:
        if (cert is None) is not (key is None) or (cert is not None and ca is None):
            raise ConfigError("a client certificate needs its key, and a CA to know the PDP by")
        self._ca = ca
        self._cert = cert
        self._key = key
        self._token = token

    def open(self) -> "OpenCredential":
        """Read the credential for a new connection.

        Raises:
            PortcullisError: `credential_missing` if it cannot be read.
        """
        return OpenCredential(
            pair=None if self._cert is None or self._key is None else (self._cert, self._key),
            token=self._token,
            channel=self._channel_credentials,
        )

    def _channel_credentials(self) -> grpc.ChannelCredentials | None:
        if self._ca is None:
            return None
        return grpc.ssl_channel_credentials(
            root_certificates=read(self._ca),
            private_key=read(self._key) if self._key else None,
            certificate_chain=read(self._cert) if self._cert else None,
        )


class OpenCredential:
    """The credential that a connection was opened with, beside what the files hold since."""

    def __init__(
        self,
        *,
        pair: tuple[Path, Path] | None,
        token: Token | None,
        channel: Callable[[], grpc.ChannelCredentials | None],
    ) -> None:
        self._pair = pair
        self._token = token
        # Looked at before they are read: what changes in between is found changed at the next look.
        self._pair_stamp, self._token_stamp = _stamp(pair or ()), self._stamped()
        self.authorization = spoken(token)
        self.channel = channel()

    @property
    def outworn(self) -> bool:
        """True once the files hold another certificate, with the key that fits it."""
        if self._pair is None or _stamp(self._pair) == self._pair_stamp:
            return False
        cert, key = self._pair
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key)
        except (OSError, ValueError):
            return False
        return True

    def fresh(self) -> str:
        """Return the `authorization` value of a token that has been exchanged since the last look; empty if none has."""
        stamp = self._stamped()
        if self._token is None or (stamp and stamp == self._token_stamp):
            return ""
        try:
            found = spoken(self._token)
        except PortcullisError:
            return ""
        self._token_stamp = stamp
        if found == self.authorization:
            return ""
        self.authorization = found
        return found

    def _stamped(self) -> _Stamp:
        return _stamp([self._token]) if isinstance(self._token, Path) else ()


def spoken(token: Token | None) -> str:
    """Return the `authorization` value that shows `token`, read now; empty if there is none.

    Raises:
        PortcullisError: it cannot be had.
    """
    if token is None:
        return ""
    return bearer(token) if isinstance(token, Path) else f"Bearer {token()}"


def authorization(token: Token | None) -> tuple[tuple[str, str], ...]:
    """Return the metadata that shows `token`, as `spoken` does."""
    value = spoken(token)
    return (("authorization", value),) if value else ()


def bearer(path: Path) -> str:
    """Return the `authorization` value for the token in a file.

    Raises:
        PortcullisError: `credential_missing` if it cannot be read, or holds what no header can carry: gRPC would raise an
            error of its own kind, by which a file caught half-written would end the process.
    """
    token = read(path)[: MAX_TOKEN_BYTES + 2].strip()
    if len(token) > MAX_TOKEN_BYTES or not _TOKEN.fullmatch(token):
        raise PortcullisError(Reason.CREDENTIAL_MISSING, f"`{path}` holds no token")
    return f"Bearer {token.decode('ascii')}"


def read(path: Path) -> bytes:
    """Return what a file of the credential holds.

    Raises:
        PortcullisError: `credential_missing`.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise PortcullisError(Reason.CREDENTIAL_MISSING, f"`{path}`: {error.strerror}") from error


def _stamp(paths: Sequence[Path]) -> _Stamp:
    return tuple(map(_stamp_of, paths))


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
