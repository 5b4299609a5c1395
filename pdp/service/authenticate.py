"""Authenticating as a use case: keys fetched, good tokens remembered for a moment, locks held against every use.

The cache of verified tokens. Key: SHA-256 of the whole token, intake, and the generation of the configuration, from which
the issuer's entry follows (TC-1). It keeps what a good token proves, never the token and never a refusal (TC-2).
Invalidation: at most 60 s and never past the token's end (TC-4); and on every hit `admit` looks again at all that can
change: time, key set, binding, certificate; then the locks (TC-3). Bypass: none is needed, for a hit and a miss answer alike.
"""

import asyncio
import hashlib
from collections import Counter, OrderedDict
from dataclasses import dataclass, replace
from typing import Final

from pdp.errors import Reason
from pdp.identity import gate
from pdp.identity.binding import Connection
from pdp.identity.certificates import PeerCertificate
from pdp.identity.gate import Credential, Scheme
from pdp.identity.issuers import Issuer, IssuerTable
from pdp.identity.proof import BoundRequest, Proof
from pdp.identity.types import Refusal, VerifiedIdentity
from pdp.identity.verifier import LiveAnswer, VerifiedToken, admit, examine, verify_certificate, verify_token
from pdp.limits import DEFAULT_LEEWAY_S, TOKEN_CACHE_ENTRIES, TOKEN_CACHE_LIFE_S
from pdp.ports import Clock, KeyStore, ReplayMemory
from pdp.service.live import LiveChecks
from pdp.service.nonces import Nonces
from pdp.signals.locks import LockKind, LockSet

CacheKey = tuple[str, str, bytes]

_NO_REQUEST: Final = BoundRequest()
_LOCK_REASONS: Final = {  # T-57
    LockKind.JTI: Reason.TOKEN_REVOKED,
    LockKind.SESSION: Reason.TOKEN_REVOKED,
    LockKind.ISSUED_BEFORE: Reason.TOKEN_REVOKED,
    LockKind.CERTIFICATE: Reason.CERTIFICATE_REVOKED,
    LockKind.SERIAL: Reason.CERTIFICATE_REVOKED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remembered:
    """A verified token, and the monotonic time until which it may be used without a new signature check."""

    token: VerifiedToken
    until_s: float


class Authenticator:
    """Turns what a caller presents into a `VerifiedIdentity`, or into a refusal. Used from one event loop.

    `counters` holds outcomes by reason (`accepted` for the good ones), cache `hits`, and `backend_leaks`: surprises of the
    JWT or crypto library, each of which was a refusal (`identity_backend_leak_total`).
    """

    def __init__(
        self,
        *,
        issuers: IssuerTable,
        keys: KeyStore,
        clock: Clock,
        replay: ReplayMemory | None = None,
        nonces: Nonces | None = None,
        live: LiveChecks | None = None,
        entries: int = TOKEN_CACHE_ENTRIES,
    ) -> None:
        """Prepare; without `replay` no DPoP proof is taken, without `nonces` none that needs one.

        Without `live` no token is taken of an issuer whose entry asks for a live check.
        """
        self.issuers = issuers
        self._replay = replay
        self._nonces = nonces
        self._live = live
        self.counters: Counter[str] = Counter()
        self._keys = keys
        self._clock = clock
        self._entries = entries
        self._cache: OrderedDict[CacheKey, _Remembered] = OrderedDict()
        self._flights: dict[tuple[CacheKey, Connection], asyncio.Future[VerifiedToken | Refusal | None]] = {}

    async def authenticate(
        self,
        authorization: str | None,
        peer: PeerCertificate | None,
        *,
        locks: LockSet,
        request: BoundRequest | None = None,
        action: str = "",
    ) -> VerifiedIdentity | Refusal:
        """Return who presents this credential.

        Args:
            authorization: the one value of the `Authorization` header or metadata (`gate.single_value`); None = none.
            peer: the client certificate whose key and chain *our own* TLS layer verified; None = none.
            locks: those of the pinned world.
            request: what a DPoP proof must name; None where no proof can be had.
            action: what the caller is about to do, where it is known: an issuer may be asked before some actions only.
        """
        if authorization is None and peer is not None:
            identity = verify_certificate(peer, table=self.issuers, now_ms=self._clock.now_ms())
            outcome = self._unlocked(identity, locks)
        else:
            outcome = await self._present(authorization, peer, locks, request or _NO_REQUEST, action)
        self._count(outcome)
        return outcome

    def nonce(self) -> str:
        """Return the nonce for a client's next DPoP proof; empty if none are issued."""
        return self._nonces.current() if self._nonces is not None else ""

    async def _present(
        self,
        authorization: str | None,
        peer: PeerCertificate | None,
        locks: LockSet,
        request: BoundRequest,
        action: str,
    ) -> VerifiedIdentity | Refusal:
        credential = gate.present(authorization)
        if isinstance(credential, Refusal):
            return credential
        connection = Connection(
            scheme=credential.scheme,
            peer=peer,
            request=request,
            token=hashlib.sha256(credential.token).digest(),
        )
        outcome = self._unlocked(await self._identify(credential, connection, action), locks)
        if isinstance(outcome, Refusal) or credential.scheme is Scheme.BEARER:
            return outcome
        # Last, so that only what is good in all else uses up its proof.
        return await self._first_use(connection.proof()) or outcome

    async def _identify(
        self, credential: Credential, connection: Connection, action: str
    ) -> VerifiedIdentity | Refusal:
        key = self._cache_key(connection.token)
        token = self._recall(key) or await self._verified(key, credential, connection)
        if isinstance(token, Refusal):
            return token
        connection = self._with_nonces(connection, token.issuer)
        keys = await self._keys.key_set(token.issuer, kid=token.kid)
        if isinstance(keys, Refusal):
            return keys
        live = await self._live_answer(token, credential, connection.token) if token.is_asked_about(action) else None
        if isinstance(live, Refusal):
            return live
        now_ms = self._clock.now_ms()
        identity = admit(
            token, keys=keys, connection=connection, table=self.issuers, now_ms=now_ms, live=live, action=action
        )
        if isinstance(identity, Refusal) and identity.reason in (Reason.KEY_UNKNOWN, Reason.ISSUER_KEYS_EMPTY):
            self._cache.pop(key, None)
        return identity

    async def _live_answer(self, token: VerifiedToken, credential: Credential, digest: bytes) -> LiveAnswer | Refusal:
        if self._live is None:
            return Refusal(reason=Reason.LIVE_CHECK_UNAVAILABLE, detail="no live check here")
        return await self._live.answer(token.issuer, credential.token, digest=digest)

    def _with_nonces(self, connection: Connection, issuer: Issuer) -> Connection:
        """Ask a DPoP proof for a nonce of ours where the issuer's entry does."""
        if not issuer.dpop_nonce or connection.scheme is Scheme.BEARER:
            return connection
        # Where none can be issued none can match: refused, and never waived.
        nonces = self._nonces.taken() if self._nonces is not None else ()
        return replace(connection, request=replace(connection.request, nonces=nonces))

    async def _first_use(self, proof: Proof | Refusal) -> Refusal | None:
        """Refuse a proof that was used before (T-58), or of which nobody can say whether it was."""
        if isinstance(proof, Refusal):
            return proof
        if self._replay is None:
            return Refusal(reason=Reason.REPLAY_STORE_UNAVAILABLE, detail="no memory of used proofs")
        ttl_s = proof.until_s - self._clock.now_ms() / 1000 + DEFAULT_LEEWAY_S
        return await self._replay.use(proof.replay_key(), ttl_s=ttl_s)

    def _unlocked(self, identity: VerifiedIdentity | Refusal, locks: LockSet) -> VerifiedIdentity | Refusal:
        """Refuse an identity that a lock meets: subject, actors, workload, token or certificate (RV-2, T-57)."""
        if isinstance(identity, Refusal):
            return identity
        parties = [identity.party.principal, *(actor.principal for actor in identity.actors)]
        if identity.workload is not None:
            parties.append(identity.workload)
        lock = locks.match_credential(principals=parties, credential=identity.facts, now_ms=self._clock.now_ms())
        if lock is None:
            return identity
        # The record of a refusal at intake has no principal: without the name, nobody could tell who tried.
        detail = f"lock `{lock.id}` on `{identity.party.principal}`"
        return Refusal(reason=_LOCK_REASONS.get(lock.target.kind, Reason.LOCKED), detail=detail)

    def _cache_key(self, token: bytes) -> CacheKey:
        # The whole token: a key of signature, payload or `jti` would let another token through (CVE-2026-33496).
        return "bearer", self.issuers.generation, token

    def _recall(self, key: CacheKey) -> VerifiedToken | None:
        remembered = self._cache.get(key)
        if remembered is None:
            return None
        if self._clock.mono_s() >= remembered.until_s:
            del self._cache[key]
            return None
        self._cache.move_to_end(key)
        self.counters["hits"] += 1
        return remembered.token

    async def _verified(self, key: CacheKey, credential: Credential, connection: Connection) -> VerifiedToken | Refusal:
        """Verify once for all who hold the same bytes on the same connection (TC-5)."""
        name = (key, connection)
        while (flight := self._flights.get(name)) is not None:
            # Shielded: one waiter that goes away must not end the wait of the others.
            outcome = await asyncio.shield(flight)
            if outcome is not None:
                return outcome
        flight = self._flights[name] = asyncio.get_running_loop().create_future()
        try:
            outcome = await self._verify(credential, connection)
            flight.set_result(outcome)
        finally:
            del self._flights[name]
            if not flight.done():
                flight.set_result(None)  # cancelled or failed: nothing is stored, the next holder tries (TC-2)
        if isinstance(outcome, VerifiedToken):
            self._remember(key, outcome)
        return outcome

    async def _verify(self, credential: Credential, connection: Connection) -> VerifiedToken | Refusal:
        candidate = examine(credential, table=self.issuers)
        if isinstance(candidate, Refusal):
            return candidate
        keys = await self._keys.key_set(candidate.issuer, kid=candidate.kid)
        if isinstance(keys, Refusal):
            return keys
        now_ms = self._clock.now_ms()
        connection = self._with_nonces(connection, candidate.issuer)
        return verify_token(candidate, keys=keys, connection=connection, table=self.issuers, now_ms=now_ms)

    def _remember(self, key: CacheKey, token: VerifiedToken) -> None:
        left_s = token.refused_from_s - self._clock.now_ms() / 1000
        self._cache[key] = _Remembered(token=token, until_s=self._clock.mono_s() + min(left_s, TOKEN_CACHE_LIFE_S))
        if len(self._cache) > self._entries:
            self._cache.popitem(last=False)

    def _count(self, outcome: VerifiedIdentity | Refusal) -> None:
        if isinstance(outcome, VerifiedIdentity):
            self.counters["accepted"] += 1
            return
        self.counters[outcome.reason.value] += 1
        if outcome.reason is Reason.VERIFIER_ERROR:
            self.counters["backend_leaks"] += 1
