"""What decides, without a door: replica, verified identity, decision, audit, re-checks; started and stopped.

Every placement stands on one `Core`: `agent.Agent` puts Envoy before it, `serving.Service` a gRPC port, `asgi.PolicyMiddleware`
an application. The same `Gate` answers for all, so that they cannot differ.

Order of start: what can be refused is refused first (state directory, trust table), then the pinned root of trust is had.
Order of a new world: verified, on disk, in force, every cut it demands ordered, and only then acknowledged.
"""

import asyncio
import logging
import secrets
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from random import random
from typing import Any, TypeVar

from pdp.adapters.audit_file import AuditChain
from pdp.adapters.audit_key import audit_signer
from pdp.adapters.follow_grpc import GrpcFeedSource
from pdp.adapters.ids import new_id
from pdp.adapters.keys_http import KeyStore
from pdp.adapters.live_http import LiveHttp
from pdp.adapters.replay_sqlite import SqliteReplay
from pdp.adapters.replica_store import SqliteReplicaStore
from pdp.adapters.ship_grpc import GrpcAuditSink
from pdp.adapters.trust_file import load_trust
from pdp.errors import ConfigError, Reason
from pdp.identity.certificates import PeerCertificate
from pdp.identity.challenge import challenge
from pdp.identity.issuers import IssuerTable
from pdp.identity.proof import BoundRequest
from pdp.identity.types import Refusal, VerifiedIdentity
from pdp.limits import AUDIT_GATHER_S, MAX_STALENESS_S
from pdp.model.recent import Recent
from pdp.ports import Clock, FeedSource
from pdp.replica import Replica
from pdp.service.audit import AuditShipper, AuditSink, AuditTrail
from pdp.service.authenticate import Authenticator
from pdp.service.decide import Decider
from pdp.service.follow import Follower, obtain_root
from pdp.service.live import LiveChecks
from pdp.service.nonces import Nonces
from pdp.service.watch_index import Watches
from pdp.trust.feed import Hello
from pdp.trust.verifier import TrustVerifier
from pdp.world import World, empty_world
from sidecar.asked import Identified, Unidentified
from sidecar.config import CoreConfig, PdpAccess
from sidecar.gate import Gate
from sidecar.limits import LIMITS
from sidecar.metrics import Tally, exposition
from sidecar.rechecks import Rechecker

_LOG = logging.getLogger(__name__)


_Part = TypeVar("_Part")


def _version() -> str:
    try:
        return version("portcullis")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"


@lru_cache(maxsize=LIMITS.certificates)
def _peer(certificate_pem: bytes) -> PeerCertificate | Refusal:
    """Read a client certificate; a pure function of its bytes, so that there is nothing to invalidate."""
    return PeerCertificate.from_pem(certificate_pem)


class Identifier:
    """Turns what Envoy saw into an identity, with the locks of the world in force.

    Args:
        authenticator: Verifies.
        replica: Holds the locks.
        certificate_suffices: A client certificate alone identifies its workload; otherwise a token is needed as well.
    """

    def __init__(self, authenticator: Authenticator, replica: Replica, *, certificate_suffices: bool) -> None:
        self._authenticator = authenticator
        self._replica = replica
        self._certificate_suffices = certificate_suffices
        # By identity, which is held beside it: a pure function of it, so that there is nothing to invalidate.
        self._known: Recent[int, tuple[Identified, VerifiedIdentity]] = Recent(LIMITS.identities)

    async def __call__(
        self, authorization: str | None, certificate_pem: bytes | None, request: BoundRequest, action: str
    ) -> Identified | Unidentified:
        """Return who asks, or why nobody can say."""
        if authorization is None and not self._certificate_suffices:
            return Unidentified(reason=Reason.CREDENTIAL_MISSING, detail="no token")
        peer = _peer(certificate_pem) if certificate_pem is not None else None
        if isinstance(peer, Refusal):
            return Unidentified(reason=peer.reason, detail=peer.detail)
        outcome = await self._authenticator.authenticate(
            authorization, peer, locks=self._replica.world.locks, request=request, action=action
        )
        if isinstance(outcome, Refusal):
            headers = challenge(outcome, nonce=self._authenticator.nonce())
            return Unidentified(reason=outcome.reason, detail=outcome.detail, challenge=headers)
        known = self._known.find(id(outcome))
        if known is None:
            known = _identified(outcome), outcome
            self._known.keep(id(outcome), known)
        return known[0]


def _identified(identity: VerifiedIdentity) -> Identified:
    return Identified(
        party=identity.party,
        actors=identity.actors,
        workload=identity.workload,
        facts=identity.facts,
        claims=identity.attributes,
        expires_at_s=identity.expires_at_s,
    )


class Core:
    """The deciding part of one sidecar.

    Args:
        config: What it was told.
        source: Where it follows the log.
        sink: Where it ships its audit records; None: nowhere.
        clock: Time.
    """

    def __init__(self, config: CoreConfig, *, source: FeedSource, sink: AuditSink | None, clock: Clock) -> None:
        self._config, self._source, self._sink = config, source, sink
        self.clock = clock
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._replica: Replica | None = None
        self._store: SqliteReplicaStore | None = None
        self._hello: Hello | None = None
        self._decider: Decider | None = None
        self._rechecker: Rechecker | None = None
        self._tally = Tally()
        self._gate: Gate | None = None
        self._takes_proofs = False
        self._keys: KeyStore | None = None
        self._live: LiveChecks | None = None
        self._trail: AuditTrail | None = None
        self._chain: AuditChain | None = None
        self._shipper: AuditShipper | None = None

    async def start(self) -> None:
        """Become able to decide: on the world from the disk, or on none, which denies.

        Raises:
            ConfigError: Something given cannot be used.
        """
        private_directory(self._config.state_dir)
        trust = load_trust(self._config.trust)
        replica = await self._make_replica()
        trail = self._open_audit(trust)
        self._decider = Decider(replica=replica, audit=trail, clock=self.clock, new_id=new_id, point=self._config.point)
        self._gate = self._make_gate(trust, replica, self._decider)
        self._rechecker = Rechecker(
            decider=self._decider, time=self.clock, jitter=random, concerns=Watches(replica), tally=self._tally
        )
        self._background("re-checks", self._rechecker.run())

    def follow(self) -> None:
        """Follow the log and ship the audit chain from now on; the door stands, so that new worlds find its responses."""
        if self._replica is None or self._store is None or self._hello is None or self._trail is None:
            raise RuntimeError("a core follows once it has started")
        trail = self._trail
        follower = Follower(
            self._replica,
            self._store,
            self._source,
            clock=self.clock,
            hello=self._hello,
            on_commit=self._world_changed,
            audit_head=lambda: trail.head,
        )
        self._background("follower", follower.run())
        if self._sink is not None and self._chain is not None:
            self._shipper = AuditShipper(trail=trail, chain=self._chain, sink=self._sink)
            self._background("audit shipper", self._shipper.run())

    async def fresh(self) -> int:
        """Wait until a fresh world is held; return its number."""
        while self.why_not_fresh():  # noqa: ASYNC110 - heartbeats tell nobody
            await asyncio.sleep(LIMITS.fresh_poll_s)
        return self.world_seq

    async def failed(self) -> None:
        """Wait until a part that must run for ever has ended; raise what ended it."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Ship what is not shipped, and end everything. Safe to call twice."""
        if self._shipper is not None and self._shipper.acknowledged.n:
            await self._shipper.drained(LIMITS.stop_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._stack.aclose()

    # -- what doors use ----------------------------------------------------------------------------------------------

    @property
    def gate(self) -> Gate:
        """Answers."""
        return _started(self._gate)

    @property
    def rechecker(self) -> Rechecker:
        """Follows running responses."""
        return _started(self._rechecker)

    @property
    def notes(self) -> Decider:
        """Records their changes of state."""
        return _started(self._decider)

    @property
    def world(self) -> World:
        """The world held."""
        return _started(self._replica).world

    @property
    def world_seq(self) -> int:
        """The number of the world held; 0: none."""
        return self._replica.world.seq if self._replica is not None else 0

    def staleness_s(self) -> float:
        """Return the age of the world held."""
        if self._replica is None:
            return float("inf")
        return self._replica.staleness_s(now_ms=self.clock.now_ms(), mono_s=self.clock.mono_s())

    def why_not_fresh(self) -> str:
        """Return why no fresh world is held; empty: one is."""
        if self._replica is None:
            return "waiting for the PDP's root file"
        if self.staleness_s() > MAX_STALENESS_S["normal"]:
            return f"no fresh world is held: {self._replica.last_error or 'no heartbeat yet'}"
        return ""

    def page(self, more: Mapping[str, float] | None = None) -> str:
        """Return the page of metrics, with `more` numbers than those of this core."""
        return exposition({**self._numbers(), **(more or {})}, self._tally)

    def _numbers(self) -> dict[str, float]:
        found: dict[str, float] = {
            "pdp_sidecar_world_seq": self.world_seq,
            "pdp_sidecar_staleness_seconds": self.staleness_s(),
        }
        if self._rechecker is not None and self._gate is not None:
            found["pdp_sidecar_streams"] = len(self._rechecker)
            found["pdp_sidecar_rechecks_total"] = self._rechecker.checks
            found["pdp_sidecar_decision_failures_total"] = self._gate.failures
        if self._keys is not None and self._live is not None:
            found["pdp_sidecar_takes_proofs"] = self._takes_proofs
            found["pdp_sidecar_key_sets_failing"] = len(self._keys.troubles())
            found["pdp_sidecar_live_checks_total"] = self._live.counters["asked"]
            found["pdp_sidecar_live_checks_unanswered_total"] = self._live.counters["unanswered"]
        if self._trail is not None:
            found["pdp_sidecar_audit_records_total"] = self._trail.written
            found["pdp_sidecar_audit_lost_total"] = self._trail.lost
            found["pdp_sidecar_audit_degraded"] = bool(self._trail.degraded)
            found["pdp_sidecar_audit_durable"] = self._config.audit_durable
        if self._shipper is not None:
            found["pdp_sidecar_audit_behind"] = self._shipper.behind
        return found

    # -- parts -------------------------------------------------------------------------------------------------------

    async def _make_replica(self) -> Replica:
        self._store = store = SqliteReplicaStore(self._config.state_dir / "replica")
        self._stack.push_async_callback(store.close)
        self._hello = hello = Hello(
            seq=0,
            head=b"",
            version=_version(),
            role="sidecar",
            tenant=self._config.tenant,
            instance=await store.instance(),
        )
        pinned = self._config.pdp.root_digest
        # Whatever keeps the PDP away (a wrong address, a refused certificate), somebody must see that we wait for it.
        patience = asyncio.get_running_loop().call_later(
            LIMITS.patience_s, _LOG.warning, "still waiting for the PDP at %s", self._config.pdp.address
        )
        self._stack.callback(patience.cancel)
        root = await obtain_root(state_dir=self._config.state_dir, pinned=pinned, source=self._source, hello=hello)
        patience.cancel()
        verifier = TrustVerifier(root, self._config.tenant)
        self._replica = Replica(verifier=verifier, world=empty_world(self._config.tenant))
        return self._replica

    def _open_audit(self, trust: IssuerTable) -> AuditTrail:
        self._chain = AuditChain.open(
            self._config.state_dir / "audit",
            name="sidecar",
            who=lambda: {"version": _version(), "trust": trust.generation, "world_seq": self.world_seq},
            now_ms=self.clock.now_ms,
            signer=audit_signer(self._config.state_dir),
        )
        durable = self._config.audit_durable
        if not durable:
            _LOG.warning("weakened: an allow does not wait for its record (audit durability is off)")
        self._trail = AuditTrail(self._chain, now_ms=self.clock.now_ms, waits=durable, gather_s=AUDIT_GATHER_S)
        self._stack.push_async_callback(self._trail.close)
        return self._trail

    def _make_gate(self, trust: IssuerTable, replica: Replica, decider: Decider) -> Gate:
        directory = self._config.trust.absolute().parent
        self._takes_proofs = trust.takes_proofs
        self._keys = keys = KeyStore(issuers=trust, directory=directory, clock=self.clock)
        self._stack.push_async_callback(keys.close)
        self._live = live = LiveChecks(source=LiveHttp(issuers=trust, directory=directory), clock=self.clock)
        self._stack.push_async_callback(live.close)
        # Of this sidecar alone, which is enough: a proof names our own authority and so opens no other door. In a file, so
        # that a restart does not let a proof in for the second time.
        replay = SqliteReplay(self._config.state_dir / "proofs.db", clock=self.clock)
        self._stack.push_async_callback(replay.close)
        identify = Identifier(
            Authenticator(
                issuers=trust,
                keys=keys,
                clock=self.clock,
                replay=replay,
                nonces=Nonces(clock=self.clock, secret=secrets.token_bytes(32)),
                live=live,
            ),
            replica,
            certificate_suffices=self._config.certificate_suffices,
        )
        return Gate(
            table=self._config.table,
            identify=identify,
            decider=decider,
            reveal=trust.development,
            origin=self._config.origin,
            tally=self._tally,
        )

    def _background(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    async def _world_changed(self, world: World) -> None:
        if self._rechecker is None:
            return
        before = self._rechecker.cuts
        await self._rechecker.world_changed()
        if self._rechecker.cuts > before:  # a world that ends nothing revokes nothing that could be late
            self._tally.revoked((self.clock.now_ms() - world.signed_ms) / 1000)


def follow_pdp(access: PdpAccess, clock: Clock) -> tuple[GrpcFeedSource, GrpcAuditSink]:
    """Return where the log is followed and the audit chain shipped."""
    source = GrpcFeedSource(
        access.address, clock=clock, ca=access.ca, cert=access.cert, key=access.key, token=access.token_file
    )
    sink = GrpcAuditSink(access.address, ca=access.ca, cert=access.cert, key=access.key, token=access.token_file)
    return source, sink


def _started(part: _Part | None) -> _Part:
    if part is None:
        raise RuntimeError("the core has not started")
    return part


def private_directory(path: Path) -> None:
    """Make a directory of mode 0700.

    Raises:
        ConfigError: It cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as fault:
        message = f"--state-dir: cannot use `{path}`: {fault.strerror}"
        raise ConfigError(message, advice="name a directory that this user can write") from None
