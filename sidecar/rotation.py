"""The listener's certificate and the callers' CA, handed to Envoy so that they can be replaced without a restart.

Envoy reads them from secret files in the private directory (SDS by path) and takes up a file that is renamed into place; only
new connections see the new certificate, running ones go on. Whatever replaces the originals (a copy, a rename, a Kubernetes
projected volume) is found by looking at their content. A pair that does not fit together, as in the middle of a rotation, is
not handed on: the old one serves until the new one is whole.

Source: ENFORCEMENT.md 2.1; Envoy's SDS, "key rotation".
"""

import asyncio
import base64
import json
import logging
import os
import ssl
from pathlib import Path

from pdp.errors import ConfigError
from sidecar.envoy import ListenerTls, SecretFiles
from sidecar.envoy_names import Json, type_url
from sidecar.limits import LIMITS

_LOG = logging.getLogger(__name__)


class Rotation:
    """Keeps the secret files of one listener as its certificate files are.

    Args:
        tls: Where the originals are.
        files: Where Envoy reads.
    """

    def __init__(self, tls: ListenerTls, files: SecretFiles) -> None:
        self._tls, self._files = tls, files
        self._given: tuple[bytes, bytes, bytes] | None = None
        self.rotations = 0

    def begin(self) -> None:
        """Write the secrets for the first time.

        Raises:
            ConfigError: They cannot be read, or do not fit together.
        """
        self._give(self._read())

    def look(self) -> bool:
        """Hand on what changed; return whether something did. What cannot be used is logged, and the old one serves on."""
        try:
            found = self._read()
            if found == self._given:
                return False
            self._give(found)
        except ConfigError as fault:
            _LOG.warning("the listener keeps its certificate: %s", fault)
            return False
        self.rotations += 1
        _LOG.info("the listener's certificate was replaced")
        return True

    async def run(self) -> None:
        """Look from time to time, for ever."""
        while True:
            await asyncio.sleep(LIMITS.rotation_s)
            await asyncio.to_thread(self.look)

    def _read(self) -> tuple[bytes, bytes, bytes]:
        tls = self._tls
        try:
            authority = tls.client_ca.read_bytes() if tls.client_ca is not None else b""
            return tls.certificate.read_bytes(), tls.key.read_bytes(), authority
        except OSError as fault:
            raise ConfigError(f"--tls-cert, --tls-key, --client-ca: {fault}", advice="name readable files") from None

    def _give(self, found: tuple[bytes, bytes, bytes]) -> None:
        certificate, key, authority = found
        self._check(certificate, key, authority)
        pair = {"certificate_chain": _inline(certificate), "private_key": _inline(key)}
        _replace(self._files.certificate, _secret("listener", {"tls_certificate": pair}))
        if authority:
            trusted = {"validation_context": {"trusted_ca": _inline(authority)}}
            _replace(self._files.client_ca, _secret("callers", trusted))
        self._given = found

    def _check(self, certificate: bytes, key: bytes, authority: bytes) -> None:
        """Refuse what Envoy could not use; checked on a copy, as the originals may change meanwhile.

        Raises:
            ConfigError: Certificate and key do not fit together, or there is no CA in the bundle.
        """
        both = self._files.certificate.with_suffix(".check")
        try:
            _private(both, certificate + b"\n" + key)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            # Without the callback OpenSSL would ask the terminal for the passphrase, and wait for ever.
            context.load_cert_chain(both, password=lambda: "")
            if authority:
                context.load_verify_locations(cadata=authority.decode("ascii", "replace"))
        except (ssl.SSLError, ValueError):
            message = "--tls-cert, --tls-key, --client-ca: not a certificate, its key and a CA that fit together"
            raise ConfigError(message, advice="name PEM files, the key without a passphrase") from None
        finally:
            both.unlink(missing_ok=True)


def _inline(content: bytes) -> Json:
    return {"inline_bytes": base64.b64encode(content).decode()}


def _secret(name: str, value: Json) -> bytes:
    kind = type_url(".extensions.transport_sockets.tls.v3.Secret")
    return json.dumps({"resources": [{"@type": kind, "name": name, **value}]}).encode()


def _replace(path: Path, content: bytes) -> None:
    """Put a file into its place by renaming it, which is what Envoy watches for."""
    fresh = path.with_suffix(".new")
    _private(fresh, content)
    fresh.replace(path)


def _private(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
