"""How a client reaches its PDP: address, credential, TLS, deadline; from arguments, else from the environment.

Nothing is sent in clear text to another machine: without TLS files, a server that is not on this host is reached by TLS
with the system's authorities.
"""

import ipaddress
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pdp.errors import ConfigError, Reason
from pdp.limits import DECISION_CACHE_S, DEFAULT_DEADLINE_S, MAX_DEADLINE_S, MAX_DECISION_CACHE_S, MAX_TOKEN_BYTES
from pdp.sdk.errors import CredentialRefused

TokenSource = str | Path | Callable[[], str] | None
"""A token, a file that holds one and may rotate, or a function that returns one; the last two are read on every call."""

_LOOPBACK_NAMES: Final = frozenset({"localhost", "ip6-localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files: the authorities we accept, and our own certificate and key. Any may be missing; the last two together."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __bool__(self) -> bool:
        return self.ca is not None or self.cert is not None

    def check(self) -> None:
        """Refuse files that do not exist or do not fit, here rather than as an unexplained handshake later.

        Raises:
            ConfigError: with the file's name and what is wrong.
        """
        if (self.cert is None) != (self.key is None):
            raise ConfigError(
                "a client certificate and its key come together", advice="give both cert and key, or none"
            )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca is not None:
            _load(self.ca, lambda: context.load_verify_locations(cafile=self.ca))
        if self.cert is not None and self.key is not None:
            cert, key = self.cert, self.key
            _load(cert, lambda: context.load_cert_chain(cert, key, password=_no_passphrase))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a client is configured by, checked when made."""

    server: str
    token: TokenSource
    tls: TlsFiles
    timeout_s: float
    cache_s: float = 0.0

    @classmethod
    def resolve(
        cls,
        server: str | None,
        *,
        token: TokenSource,
        ca: str | Path | None,
        cert: str | Path | None,
        key: str | Path | None,
        timeout_s: float | None,
        cache_s: float | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Self:
        """Return the settings; what is None comes from `PDP_SERVER`, `PDP_TOKEN_FILE`, `PDP_CA`, `PDP_CERT`, `PDP_KEY`.

        Raises:
            ConfigError: no server, a file that cannot be used, or a time out of bounds.
        """
        env = os.environ if environment is None else environment
        address = server or env.get("PDP_SERVER", "")
        if not address:
            raise ConfigError(
                "no PDP address", advice="give `server` (`--server`), or set PDP_SERVER, such as 127.0.0.1:8181"
            )
        tls = TlsFiles(
            ca=_path(ca, env.get("PDP_CA")), cert=_path(cert, env.get("PDP_CERT")), key=_path(key, env.get("PDP_KEY"))
        )
        tls.check()
        return cls(
            server=address,
            token=_token_source(token, env),
            tls=tls,
            timeout_s=_deadline(timeout_s),
            cache_s=_cache_life(cache_s),
        )

    @property
    def local(self) -> bool:
        """True if the server is on this host, so that clear text does not leave it."""
        return is_local(self.server)

    @property
    def secure(self) -> bool:
        """True if the connection uses TLS."""
        return bool(self.tls) or not self.local

    def read_token(self) -> str:
        """Return the token to send now, or an empty text if we have none.

        Raises:
            CredentialRefused: the source gives nothing that could be a token.
        """
        if self.token is None or self.token == "":
            return ""
        if isinstance(self.token, Path):
            return _checked_token(_read_file(self.token), f"the token file {self.token}")
        if isinstance(self.token, str):
            return _checked_token(self.token, "the token")
        return _checked_token(self.token(), "the token function")


def _path(given: str | Path | None, from_environment: str | None) -> Path | None:
    chosen = given if given is not None else from_environment
    return Path(chosen) if chosen else None


def _token_source(given: TokenSource, env: Mapping[str, str]) -> TokenSource:
    if given is None:
        name = env.get("PDP_TOKEN_FILE", "")
        return Path(name) if name else None
    if isinstance(given, str) and "/" in given:
        # No JWT holds a slash. Sent as a token, a path would be refused with a reason that misleads.
        raise ConfigError("the token looks like a file name", advice="pass pathlib.Path(name) for a file that rotates")
    return given


def _deadline(given: float | None) -> float:
    timeout_s = DEFAULT_DEADLINE_S if given is None else given
    if not 0 < timeout_s <= MAX_DEADLINE_S:
        raise ConfigError(f"timeout_s must be above 0 and at most {MAX_DEADLINE_S:g} seconds")
    return timeout_s


def _cache_life(given: float | None) -> float:
    cache_s = DECISION_CACHE_S if given is None else given
    if not 0 <= cache_s <= MAX_DECISION_CACHE_S:
        raise ConfigError(f"cache_s must be from 0 (keep nothing) to {MAX_DECISION_CACHE_S:g} seconds")
    return cache_s


def is_local(server: str) -> bool:
    """Tell whether `server` is on this host: a Unix socket, a loopback address, or a name of one."""
    if server.startswith("unix:"):
        return True
    host = server.removeprefix("dns:///").rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in _LOOPBACK_NAMES


def read_credential(path: Path) -> str:
    """Return somebody's token in a file, without the scheme that may stand before it.

    Raises:
        CredentialRefused: it cannot be read, or is none.
    """
    text = _read_file(path, advice="name the file that holds the token alone").strip()
    return _checked_token(text.removeprefix("DPoP "), str(path))


def _read_file(path: Path, *, advice: str = "check PDP_TOKEN_FILE or --token-file") -> str:
    try:
        # Read on every call: 20 us, and a rotated file is never missed, whatever its time stamp says.
        return path.read_bytes()[: MAX_TOKEN_BYTES + 2].decode("ascii", errors="replace")
    except OSError as error:
        raise CredentialRefused(
            Reason.CREDENTIAL_MISSING,
            f"cannot read the token file {path}: {error.strerror}",
            advice=advice,
        ) from error


def _checked_token(text: str, source: str) -> str:
    """Refuse what cannot be a token before it is sent: a header must not carry blanks or line ends (FAILURE.md N4)."""
    token = text.strip().removeprefix("Bearer ")
    if not token:
        raise CredentialRefused(Reason.CREDENTIAL_MISSING, f"{source} is empty")
    if len(token) > MAX_TOKEN_BYTES:
        raise CredentialRefused(Reason.TOKEN_TOO_LARGE, f"{source} holds more than {MAX_TOKEN_BYTES} bytes")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise CredentialRefused(Reason.TOKEN_MALFORMED, f"{source} holds something that is not a token")
    return token


def _load(path: Path, load: Callable[[], None]) -> None:
    try:
        load()
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot use {path}: {what}", advice="check ca, cert and key: PEM files that fit") from error


def _no_passphrase() -> str:
    """Stand in for OpenSSL's prompt on the terminal: a program must not hang on an encrypted key."""
    return ""
