"""The issuers' verification keys, from files, addresses and sockets that configuration chose (IDENTITY.md JW-1..JW-8).

Theory of operation. Each issuer has its own source, so that one issuer's trouble never touches another. A file is read
again when it changes. An address is fetched when nothing is held, when the set is `refresh_s` old, and when a token names
a key that the set lacks; each time by one task for all who wait, and never twice within `cooldown_s`, whatever tokens ask
for. From half of `refresh_s` on, a request starts the next fetch without waiting for it. A failed fetch keeps the last
good set until `stale_max_s` after the last success; then the issuer's tokens are refused with `keys_unavailable`. A
successful one replaces the set, and never merges into it: an empty set withdraws every key.

An OpenID Provider's metadata is fetched in front of its key set, each time, and must name the issuer exactly (JW-2). A
SPIFFE Workload API tells each change itself: see `workload_api`.

How an address is asked, and which one never is: see `checked_http`.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from pdp.adapters.checked_http import Call, FetchError, ask, read_secret, tls_context
from pdp.adapters.workload_api import WorkloadApi, WorkloadApis
from pdp.errors import Reason
from pdp.identity.gate import read_object
from pdp.identity.issuers import Issuer, IssuerTable
from pdp.identity.keyset import KeySet, VerificationKey, parse_jwks
from pdp.identity.sources import check_url
from pdp.identity.types import Refusal
from pdp.limits import JWKS_TIMEOUT_S, KEY_FILE_LOOK_S, MAX_JWKS_BYTES, UNKNOWN_KIDS
from pdp.ports import Clock

_NEVER: Final = float("-inf")
_NOT_YET: Final = "not fetched yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStatus:
    """How one issuer's keys stand: usable or not, their age in seconds, what was dropped, and the last error."""

    issuer: str
    ready: bool
    age_s: float
    keys: int
    dropped: Mapping[str, int]
    fetches: int
    error: str


class KeyStore:
    """The key sets of all configured issuers. Made once; used from one event loop; `close` ends its tasks."""

    def __init__(
        self, *, issuers: IssuerTable, directory: Path, clock: Clock, timeout_s: float = JWKS_TIMEOUT_S
    ) -> None:
        """Prepare the sources; relative file names are below `directory`, that of `trust.yaml`."""
        self._bundles = WorkloadApis()
        self._sources = {
            issuer.iss: self._source(issuer, directory, clock, timeout_s) for issuer in issuers.key_holders
        }

    def _source(self, issuer: Issuer, directory: Path, clock: Clock, timeout_s: float) -> "_Source":
        if issuer.keys.file is not None:
            return _FileKeys(issuer, directory, clock)
        if issuer.keys.workload_api is not None:
            return _ApiKeys(issuer, clock, self._bundles.at(issuer.keys.workload_api), timeout_s)
        return _HttpKeys(issuer, directory, clock, timeout_s)

    async def key_set(self, issuer: Issuer, *, kid: str | None) -> KeySet | Refusal:
        """Return the usable keys of `issuer`; see `pdp.ports.KeyStore`."""
        return await self._sources[issuer.iss].key_set(kid)

    def status(self) -> Sequence[KeyStatus]:
        """Return how each issuer stands."""
        return [source.held.status() for source in self._sources.values()]

    def troubles(self) -> Sequence[str]:
        """Return what is wrong with the keys of which issuer, for the readiness page, alarms and `pdp doctor` (JW-3, JW-7)."""
        return [
            f"keys of `{one.issuer}`: {one.error}; {'the last good set serves' if one.ready else 'its tokens are refused'}"
            for one in self.status()
            if one.error and one.error != _NOT_YET
        ]

    async def close(self) -> None:
        """End every fetch under way."""
        for source in self._sources.values():
            await source.close()
        await self._bundles.close()


class _Source(Protocol):
    """Where the keys of one issuer come from."""

    held: "_Held"

    async def key_set(self, kid: str | None) -> KeySet | Refusal: ...

    async def close(self) -> None: ...


class _Held:
    """What is held of one issuer's keys."""

    def __init__(self, issuer: Issuer, clock: Clock) -> None:
        self.issuer = issuer
        self._clock = clock
        self.keys: KeySet | None = None
        self.succeeded_s = _NEVER
        self.fetches = 0
        self.error = _NOT_YET

    def replace(self, raw: bytes) -> None:
        """Take a fetched set, or note why not; only a whole good set replaces the last one (JW-3, JW-8)."""
        keys = parse_jwks(
            raw, issuer=self.issuer.iss, algs=frozenset(self.issuer.algs), spiffe=self.issuer.profile == "jwt_svid"
        )
        if isinstance(keys, Refusal):
            self.error = keys.detail
        else:
            self.keys, self.error = keys, ""
            self.confirm()

    def unload(self, why: str) -> None:
        """Forget the keys: the source says that they are no longer to be trusted."""
        self.keys, self.error = None, why

    def confirm(self) -> None:
        """Note that the set held is the issuer's at this moment."""
        self.succeeded_s = self._clock.mono_s()

    def age_s(self) -> float:
        return self._clock.mono_s() - self.succeeded_s

    def answer(self) -> KeySet | Refusal:
        """Return the set, unless there is none or it is too old to stand for the issuer's will (JW-7)."""
        if self.keys is None or self.age_s() > self.issuer.stale_max_s:
            return Refusal(reason=Reason.KEYS_UNAVAILABLE, detail=self.error)
        return self.keys

    def status(self) -> KeyStatus:
        keys = self.keys
        return KeyStatus(
            issuer=self.issuer.iss,
            ready=isinstance(self.answer(), KeySet),
            age_s=self.age_s(),
            keys=len(keys.keys) if keys else 0,
            dropped=keys.dropped if keys else {},
            fetches=self.fetches,
            error=self.error,
        )


class _FileKeys:
    """Keys in a file, read again whenever it changes."""

    def __init__(self, issuer: Issuer, directory: Path, clock: Clock) -> None:
        self.held = _Held(issuer, clock)
        self._path = directory / str(issuer.keys.file)
        self._seen: tuple[int, ...] = ()

    async def key_set(self, _kid: str | None) -> KeySet | Refusal:
        if self.held.error or self.held.age_s() >= KEY_FILE_LOOK_S:
            self._look()
        return self.held.answer()

    def _look(self) -> None:
        """Read the file if it is another one than last time; looking costs one system call."""
        try:
            stat = self._path.stat()
            seen = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            if seen != self._seen:
                self.held.fetches += 1
                with self._path.open("rb") as file:
                    self.held.replace(file.read(MAX_JWKS_BYTES + 1))
                self._seen = seen
        except OSError as error:
            self.held.error = f"the key file cannot be read: {error.strerror}"
            self._seen = ()
            return
        if not self.held.error:
            self.held.confirm()

    async def close(self) -> None:
        """A file leaves nothing open."""


class _ApiKeys:
    """Keys that a SPIFFE Workload API tells: each message is the full state (SP-3)."""

    def __init__(self, issuer: Issuer, clock: Clock, api: WorkloadApi, timeout_s: float) -> None:
        self.held = _Held(issuer, clock)
        self._api = api
        self._timeout_s = timeout_s
        self._seen = 0

    async def key_set(self, _kid: str | None) -> KeySet | Refusal:
        await self._api.told(self._timeout_s)
        if self._seen != self._api.messages:
            self._seen = self._api.messages
            self.held.fetches += 1
            raw = self._api.bundles.get(self.held.issuer.iss)
            if raw is None:
                self.held.unload("the Workload API tells no bundle of this trust domain")
            else:
                self.held.replace(raw)
        if self._api.error:
            self.held.error = self._api.error
        elif self.held.keys is not None and not self.held.error:
            self.held.confirm()  # while the stream stands, silence means that nothing has changed
        return self.held.answer()

    async def close(self) -> None:
        """The stream is closed by who opened it."""


class _HttpKeys:
    """Keys behind an address: single flight, cool-down, unknown ids remembered."""

    def __init__(self, issuer: Issuer, directory: Path, clock: Clock, timeout_s: float) -> None:
        self.held = _Held(issuer, clock)
        self._issuer = issuer
        self._clock = clock
        self._timeout_s = timeout_s
        self._directory = directory
        self._context = tls_context(issuer.keys.ca, directory)
        self._tried_s = _NEVER
        self._flight: asyncio.Task[None] | None = None
        self._unknown: OrderedDict[str | None, float] = OrderedDict()

    async def key_set(self, kid: str | None) -> KeySet | Refusal:
        wanted = self._wanted(kid)
        if wanted or self._expired() or isinstance(self.held.answer(), Refusal):
            fetched = await self._refresh()
            if fetched and self._lacks(kid):
                self._remember(kid)
        elif self.held.age_s() >= self._refresh_s() / 2:
            self._start()
        return self.held.answer()

    def _expired(self) -> bool:
        """Tell whether to wait for a new set: it is due, and the source was well when last asked (JW-6)."""
        # While fetching fails, nobody waits: the last good set serves, and the next try runs beside (JW-7).
        return self.held.age_s() >= self._refresh_s() and not self.held.error

    def _refresh_s(self) -> int:
        """Return the age at which the set is fetched again; a SPIFFE bundle may ask for a shorter one (JW-6)."""
        hint_s = self.held.keys.refresh_hint_s if self.held.keys is not None else 0
        return max(self._issuer.cooldown_s, min(hint_s, self._issuer.refresh_s)) if hint_s else self._issuer.refresh_s

    def _wanted(self, kid: str | None) -> bool:
        """Tell whether a fetch could bring a key that a token asks for; an id just found unknown waits for nothing."""
        asked_s = self._unknown.get(kid, _NEVER)
        return self._lacks(kid) and self._clock.mono_s() - asked_s >= self._issuer.cooldown_s

    def _lacks(self, kid: str | None) -> bool:
        if self.held.keys is None:
            return False
        found = self.held.keys.find(kid)
        return not isinstance(found, VerificationKey) and found.reason is not Reason.KID_MISSING

    def _remember(self, kid: str | None) -> None:
        self._unknown[kid] = self._clock.mono_s()
        self._unknown.move_to_end(kid)
        if len(self._unknown) > UNKNOWN_KIDS:
            self._unknown.popitem(last=False)

    async def _refresh(self) -> bool:
        """Wait for the fetch under way, or for a new one if the cool-down is over; tell whether there was one."""
        flight = self._start()
        if flight is None:
            return False
        # Shielded: a caller that goes away must not end the fetch of the others (TC-2).
        await asyncio.shield(flight)
        return True

    def _start(self) -> asyncio.Task[None] | None:
        """Start a fetch unless one runs or the last one is too recent; return the one that runs, if any."""
        if self._flight is None and self._clock.mono_s() - self._tried_s >= self._issuer.cooldown_s:
            self._tried_s = self._clock.mono_s()
            self._flight = asyncio.create_task(self._fetch(), name="pdp-jwks")
        return self._flight

    async def _fetch(self) -> None:
        self.held.fetches += 1
        try:
            self.held.replace(await self._fetched())
        except FetchError as error:
            self.held.error = str(error)
        except Exception as error:  # noqa: BLE001 - the outermost boundary of a background task: a failed fetch (JW-7)
            self.held.error = f"{type(error).__name__} while fetching"
        finally:
            self._flight = None

    async def _fetched(self) -> bytes:
        """Return the key set, found through the provider's metadata where configuration says so."""
        source = self._issuer.keys
        if source.discovery is None:
            return await self._get(str(source.url))
        return await self._get(jwks_address(await self._get(source.discovery), self._issuer))

    async def _get(self, address: str) -> bytes:
        name = self._issuer.keys.fetch_credential
        credential = f"Bearer {read_secret(self._directory / name)}" if name is not None else ""
        call = Call(address=address, authorization=credential, max_bytes=MAX_JWKS_BYTES)
        return await ask(
            call, allow_private=self._issuer.keys.allow_private, context=self._context, timeout_s=self._timeout_s
        )

    async def close(self) -> None:
        """End the fetch under way."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.gather(self._flight, return_exceptions=True)


def jwks_address(raw: bytes, issuer: Issuer) -> str:
    """Return the address of the key set that a provider's metadata names (JW-2).

    Raises:
        FetchError: it is another issuer's metadata, or the address is none that configuration admits.
    """
    metadata = read_object(raw, duplicate=Reason.TOKEN_MALFORMED)
    if isinstance(metadata, Refusal):
        raise FetchError("the provider's metadata is no strict JSON object")
    if metadata.get("issuer") != issuer.iss:
        raise FetchError("the provider's metadata is that of another issuer")
    address, source = metadata.get("jwks_uri"), issuer.keys
    if type(address) is not str or not address.isascii() or not address.isprintable():
        raise FetchError("the provider's metadata names no `jwks_uri`")
    try:
        # Metadata that came by TLS never leads to clear text, where a key set could be anybody's.
        plain = bool(source.allow_private) and str(source.discovery).startswith("http:")
        check_url(address, private=plain)
        host, own = urlsplit(address).hostname, urlsplit(str(source.discovery)).hostname
    except ValueError as error:
        raise FetchError("the provider's `jwks_uri` is no address we fetch from") from error
    if host not in (source.jwks_hosts or (own,)):
        raise FetchError("the provider's `jwks_uri` is on a host that `jwks_hosts` does not name")
    return address
