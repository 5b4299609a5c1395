"""The composition root of `pdp-sidecar run`: replica, identity, decision, audit, data plane, probes; started and stopped.

Order of start: what can be refused is refused first (state directory, trust table, ports), then the pinned root of trust is
had, then Envoy opens the door. A door that opens before a fresh world is held denies (`world_stale`); *ready* means that
Envoy serves, the world is fresh, and the model server can be reached.

Order of a new world: verified, on disk, in force, every cut it demands ordered, and only then acknowledged.
"""

import asyncio
import logging
import secrets
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from random import random
from typing import Any

from pdp.adapters.audit_file import AuditChain
from pdp.adapters.clock import SystemClock
from pdp.adapters.follow_grpc import GrpcFeedSource
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
from pdp.identity.types import Refusal
from pdp.limits import MAX_STALENESS_S
from pdp.ports import Clock, FeedSource
from pdp.replica import Replica
from pdp.service.audit import AuditShipper, AuditSink, AuditTrail
from pdp.service.authenticate import Authenticator
from pdp.service.decide import Decider
from pdp.service.follow import Follower, obtain_root
from pdp.service.live import LiveChecks
from pdp.service.nonces import Nonces
from pdp.trust.feed import Hello
from pdp.trust.verifier import TrustVerifier
from pdp.world import World, empty_world
from sidecar.config import SidecarConfig
from sidecar.envoy import Address, Upstream
from sidecar.gate import Gate, Identified, Unidentified
from sidecar.limits import LIMITS
from sidecar.plane import DataPlane
from sidecar.probes import Probes, bound_socket
from sidecar.rechecks import Rechecker

_LOG = logging.getLogger(__name__)


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
        return Identified(
            party=outcome.party,
            actors=outcome.actors,
            workload=outcome.workload,
            facts=outcome.facts,
            claims=outcome.attributes,
            expires_at_s=outcome.expires_at_s,
        )


class Agent:
    """One running sidecar.

    Args:
        config: What it was told.
        source: Where it follows the log.
        sink: Where it ships its audit records; None: nowhere.
        clock: Time.
    """

    def __init__(
        self,
        config: SidecarConfig,
        *,
        source: FeedSource,
        sink: AuditSink | None,
        clock: Clock,
    ) -> None:
        self._config = config
        self._source = source
        self._sink = sink
        self._clock = clock
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._replica: Replica | None = None
        self._plane: DataPlane | None = None
        self._rechecker: Rechecker | None = None
        self._gate: Gate | None = None
        self._trail: AuditTrail | None = None
        self._shipper: AuditShipper | None = None
        self._stopping = False

    async def start(self) -> tuple[Address, Address]:
        """Start everything; return where callers connect, and the probes.

        Raises:
            ConfigError: Something given cannot be used.
            EnvoyError: Envoy refuses to start.
        """
        try:
            return await self._start()
        except BaseException:
            await self.stop(drain_s=0)
            raise

    async def _start(self) -> tuple[Address, Address]:
        _private_directory(self._config.state_dir)
        trust = load_trust(self._config.trust)
        probes = await self._start_probes()
        replica, store, hello = await self._make_replica()
        trail, chain = self._open_audit(trust)
        decider = Decider(replica=replica, audit=trail, clock=self._clock, new_id=_decision_id)
        listen = await self._start_plane(trust, replica, decider)
        follower = Follower(
            replica,
            store,
            self._source,
            clock=self._clock,
            hello=hello,
            on_commit=self._world_changed,
            audit_head=lambda: trail.head,
        )
        self._background("follower", follower.run())
        if self._sink is not None:
            self._shipper = AuditShipper(trail=trail, chain=chain, sink=self._sink)
            self._background("audit shipper", self._shipper.run())
        return listen, probes

    async def fresh(self) -> int:
        """Wait until a fresh world is held; return its number."""
        while self._replica is None or self._staleness_s() > MAX_STALENESS_S["normal"]:  # noqa: ASYNC110 - heartbeats tell nobody
            await asyncio.sleep(LIMITS.fresh_poll_s)
        return self._replica.world.seq

    async def failed(self) -> None:
        """Wait until a part that must run for ever has ended; raise what ended it."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self, *, drain_s: float = LIMITS.drain_s) -> None:
        """Not ready, drain, cut the rest with records, ship them, end everything. Safe to call twice."""
        self._stopping = True
        if self._plane is not None:
            await self._plane.stop(drain_s=drain_s)
            self._plane = None
        if self._shipper is not None and self._shipper.acknowledged.n:
            await self._shipper.drained(LIMITS.stop_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._stack.aclose()

    # -- parts -------------------------------------------------------------------------------------------------------

    async def _start_probes(self) -> Address:
        listener = bound_socket(self._config.probes, option="--probes")
        bound = listener.getsockname()
        probes = Probes(ready=self._why_not_ready, metrics=self._metrics)
        await probes.start(listener)
        self._stack.push_async_callback(probes.stop)
        return Address(host=bound[0], port=bound[1])

    async def _make_replica(self) -> tuple[Replica, SqliteReplicaStore, Hello]:
        store = SqliteReplicaStore(self._config.state_dir / "replica")
        self._stack.push_async_callback(store.close)
        hello = Hello(
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
        return self._replica, store, hello

    def _open_audit(self, trust: IssuerTable) -> tuple[AuditTrail, AuditChain]:
        chain = AuditChain.open(
            self._config.state_dir / "audit",
            name="sidecar",
            who=lambda: {"version": _version(), "trust": trust.generation, "world_seq": self._world_seq()},
            now_ms=self._clock.now_ms,
        )
        self._trail = AuditTrail(chain, now_ms=self._clock.now_ms)
        self._stack.push_async_callback(self._trail.close)
        return self._trail, chain

    async def _start_plane(self, trust: IssuerTable, replica: Replica, decider: Decider) -> Address:
        keys = KeyStore(issuers=trust, directory=self._config.trust.absolute().parent, clock=self._clock)
        self._stack.push_async_callback(keys.close)
        live = LiveChecks(
            source=LiveHttp(issuers=trust, directory=self._config.trust.absolute().parent), clock=self._clock
        )
        self._stack.push_async_callback(live.close)
        # Of this sidecar alone, which is enough: a proof names our own authority and so opens no other door. In a file, so
        # that a restart does not let a proof in for the second time.
        replay = SqliteReplay(self._config.state_dir / "proofs.db", clock=self._clock)
        self._stack.push_async_callback(replay.close)
        identify = Identifier(
            Authenticator(
                issuers=trust,
                keys=keys,
                clock=self._clock,
                replay=replay,
                nonces=Nonces(clock=self._clock, new_id=_decision_id),
                live=live,
            ),
            replica,
            certificate_suffices=self._config.certificate_suffices,
        )
        self._gate = Gate(
            table=self._config.table,
            identify=identify,
            decider=decider,
            reveal=trust.development,
            origin=self._config.origin,
        )
        self._rechecker = Rechecker(decider=decider, time=self._clock, jitter=random)
        self._background("re-checks", self._rechecker.run())
        self._plane = DataPlane(
            settings=self._config.envoy,
            gate=self._gate,
            rechecker=self._rechecker,
            notes=decider,
            time=self._clock,
        )
        return await self._plane.start()

    def _background(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    async def _world_changed(self, _world: World) -> None:
        if self._rechecker is not None:
            await self._rechecker.world_changed()

    # -- what it says of itself --------------------------------------------------------------------------------------

    def _world_seq(self) -> int:
        return self._replica.world.seq if self._replica is not None else 0

    def _staleness_s(self) -> float:
        if self._replica is None:
            return float("inf")
        return self._replica.staleness_s(now_ms=self._clock.now_ms(), mono_s=self._clock.mono_s())

    async def _why_not_ready(self) -> str:
        if self._stopping:
            return "stopping"
        if self._replica is None:
            return "waiting for the PDP's root file"
        if self._plane is None or not self._plane.envoy.ready:
            return "envoy does not serve"
        if self._staleness_s() > MAX_STALENESS_S["normal"]:
            return f"no fresh world is held: {self._replica.last_error or 'no heartbeat yet'}"
        return await _unreachable(self._config.envoy.upstream)

    def _metrics(self) -> Mapping[str, float]:
        found: dict[str, float] = {
            "pdp_sidecar_world_seq": self._world_seq(),
            "pdp_sidecar_staleness_seconds": self._staleness_s(),
        }
        if self._rechecker is not None and self._gate is not None:
            found["pdp_sidecar_streams"] = len(self._rechecker)
            found["pdp_sidecar_rechecks_total"] = self._rechecker.checks
            found["pdp_sidecar_cuts_total"] = self._rechecker.cuts
            found["pdp_sidecar_decision_failures_total"] = self._gate.failures
        if self._plane is not None:
            found["pdp_sidecar_envoy_restarts_total"] = self._plane.envoy.restarts
        if self._trail is not None:
            found["pdp_sidecar_audit_records_total"] = self._trail.written
            found["pdp_sidecar_audit_lost_total"] = self._trail.lost
            found["pdp_sidecar_audit_degraded"] = bool(self._trail.degraded)
        if self._shipper is not None:
            found["pdp_sidecar_audit_behind"] = self._shipper.behind
        return found


def _decision_id() -> str:
    return secrets.token_hex(16)


def _private_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as fault:
        message = f"--state-dir: cannot use `{path}`: {fault.strerror}"
        raise ConfigError(message, advice="name a directory that this user can write") from None


async def _unreachable(upstream: Upstream) -> str:
    """Return why the model server cannot be reached; empty: it can."""
    try:
        async with asyncio.timeout(LIMITS.connect_s):
            if upstream.pipe is not None:
                _, writer = await asyncio.open_unix_connection(str(upstream.pipe))
            else:
                address = upstream.address or Address(host="", port=0)
                _, writer = await asyncio.open_connection(address.host, address.port)
    except (OSError, TimeoutError, socket.gaierror):
        return "the model server cannot be reached: check `--upstream`"
    writer.close()
    return ""


async def serve(config: SidecarConfig, *, announce: Callable[[str], None]) -> None:
    """Run a sidecar until SIGTERM or SIGINT.

    Args:
        config: What it was told.
        announce: Takes the one line that says it is ready.

    Raises:
        ConfigError: Something given cannot be used.
        EnvoyError: Envoy refuses to start.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    clock, access = SystemClock(), config.pdp
    source = GrpcFeedSource(
        access.address, clock=clock, ca=access.ca, cert=access.cert, key=access.key, token=access.token_file
    )
    sink = GrpcAuditSink(access.address, ca=access.ca, cert=access.cert, key=access.key, token=access.token_file)
    agent = Agent(config, source=source, sink=sink, clock=clock)
    running = asyncio.create_task(_run(agent, announce))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({stopped, running}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    ended = running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await agent.stop()
    await sink.close()
    if ended:
        running.result()


async def _run(agent: Agent, announce: Callable[[str], None]) -> None:
    listen, probes = await agent.start()
    fresh = asyncio.create_task(agent.fresh())
    failed = asyncio.create_task(agent.failed())
    try:
        await asyncio.wait({fresh, failed}, return_when=asyncio.FIRST_COMPLETED)
        if fresh.done():
            announce(f"ready listen={_text(listen)} probes={_text(probes)} world_seq={fresh.result()}")
        await failed
    finally:
        fresh.cancel()
        failed.cancel()


def _text(address: Address) -> str:
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"
