"""The composition root of `pdp serve`: everything is made here, started in order, and ended in order.

Start: configuration and keys are read and the ports bound before anything else, so that a mistake ends the start in one
line; then probes (alive, not ready), the log and its replica, then gRPC. The PDP is ready once it holds a world that a
heartbeat has proved fresh. End: not ready, streams ended, calls in flight finish within the grace, then the log's loops,
the decision log, and the stores; a second signal ends the grace at once.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog
from grpc_reflection.v1alpha import reflection

from pdp import __version__
from pdp.adapters.audit_file import RECEIVED, AuditChain
from pdp.adapters.audit_key import audit_signer
from pdp.adapters.clock import SystemClock
from pdp.adapters.ids import new_id
from pdp.adapters.interpreter import set_aside
from pdp.adapters.keys_files import key_path, load_pdp_keys, load_root, load_roots
from pdp.adapters.keys_http import KeyStore
from pdp.adapters.live_http import LiveHttp
from pdp.adapters.telemetry import Merged, Metrics
from pdp.adapters.trial_file import TrialFile
from pdp.adapters.trust_file import load_trust
from pdp.config import Address, Config, check_doors
from pdp.errors import ConfigError, Reason
from pdp.identity.development import refuse_production
from pdp.identity.issuers import IssuerTable
from pdp.limits import READY_POLL_S
from pdp.ports import Board
from pdp.replica import Replica
from pdp.server.callers import Gate
from pdp.server.discretion import Discretion
from pdp.server.grpc.interceptors import Guard
from pdp.server.grpc.rights import RULES
from pdp.server.grpc.services import Rooms, add_services
from pdp.server.place import Place
from pdp.server.probes import Probes, application
from pdp.server.replay import open_replay
from pdp.server.sinks import followers
from pdp.server.stores import WORLD_FILE, RootWatch, Stores, local_store, open_stores
from pdp.server.transport import bind, listen, make_server
from pdp.server.watchdog import Alarms, LoopWatchdog
from pdp.service.assets import Reviews
from pdp.service.audit import AuditBook, AuditReceiver, AuditTrail
from pdp.service.audit_search import AuditSearch
from pdp.service.authenticate import Authenticator
from pdp.service.decide import Decider
from pdp.service.desk import Desk
from pdp.service.health import Health
from pdp.service.live import LiveChecks
from pdp.service.nonces import Nonces
from pdp.service.positions import Positions
from pdp.service.redecide import GAINS, LOSES
from pdp.service.replicate import Replication
from pdp.service.trials import TrialWatch
from pdp.service.watch_index import Watches
from pdp.trust.keys import PdpKeys, Role, RootFile
from pdp.trust.verifier import TrustVerifier
from pdp.world import empty_world

_log = structlog.get_logger("pdp")
PROBES: Final = "probes.listen (--probes)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What a PDP stands on, read from disk before it opens anything."""

    config: Config
    issuers: IssuerTable
    root: RootFile
    keys: PdpKeys

    @classmethod
    def read(cls, config: Config) -> "Basis":
        """Read keys, root file and issuer table.

        Raises:
            ConfigError: something is missing or wrong, or this PDP was never initialised.
        """
        check_doors(config)
        issuers = load_trust(config.trust)
        refuse_production(issuers, production=config.mode == "production")
        root = load_root(config.state_dir)
        if root is None or not (config.store.url or (config.state_dir / WORLD_FILE).exists()):
            message = f"{config.state_dir} holds no PDP yet"
            raise ConfigError(message, advice="run `pdp init`, or `pdp serve --init`, with --admin user:YOU")
        return cls(config=config, issuers=issuers, root=root, keys=load_pdp_keys(config.state_dir))

    def degradations(self) -> tuple[str, ...]:
        """Return the controls that configuration weakens; they are said at start and shown by health (P13)."""
        config = self.config
        found = {
            "development mode": config.mode == "development",
            "gRPC without TLS": config.grpc.tls is None,
            "a development issuer is trusted": self.issuers.development,
            "the root key lies on this machine": key_path(config.state_dir, Role.ROOT).exists(),
            "an allow does not wait for its record": not config.audit.durable,
            "the store is reached without TLS": config.store.url.startswith("redis:") and not local_store(config),
        }
        return tuple(text for text, holds in found.items() if holds)


class Application:
    """A running PDP. Make it with `running`."""

    def __init__(
        self, basis: Basis, *, place: Place, replication: Replication, replica: Replica, trail: AuditTrail
    ) -> None:
        config = basis.config
        self.place = place
        self.clock = SystemClock()
        self.basis = basis
        self.replica = replica
        self.replication = replication
        self.trail = trail
        self.metrics = Metrics(methods=RULES, reasons=[reason.value for reason in Reason])
        self.key_store = KeyStore(issuers=basis.issuers, directory=config.trust.parent, clock=self.clock)
        self.replay = open_replay(config, self.clock)
        self.live = LiveChecks(source=LiveHttp(issuers=basis.issuers, directory=config.trust.parent), clock=self.clock)
        self.authenticator = Authenticator(
            issuers=basis.issuers,
            keys=self.key_store,
            clock=self.clock,
            replay=self.replay,
            nonces=Nonces(clock=self.clock, secret=place.secret),
            live=self.live,
        )
        self.decider = Decider(replica=replica, audit=trail, clock=self.clock, new_id=new_id, point=config.point)
        # As at the sidecar's door: a development installation says every reason, so that people can learn from it.
        self.discretion = Discretion(decider=self.decider, reveal=basis.issuers.development)
        self.gate = Gate(
            authenticator=self.authenticator, decider=self.decider, replica=replica, origin=config.grpc.origin or ""
        )
        self.watches = Watches(replica)
        self.guard = Guard(gate=self.gate, watches=self.watches, clock=self.clock, metrics=self.metrics, new_id=new_id)
        self.sinks = followers(config, place, trail)
        self.receiver = AuditReceiver(config.audit_dir / RECEIVED)
        self.book = AuditBook(
            own=place.audit(config.audit_dir),
            trail=trail,
            received=self.receiver,
            others=[place.audit(config.audit_dir, index) for index in range(place.workers) if index != place.index],
        )
        self.shown = TrialFile(config.state_dir)
        self.trials = self._trial_watch()
        self.watchdog = LoopWatchdog()
        standing = basis.degradations()
        self.health = Health(
            replica=replica,
            trail=trail,
            clock=self.clock,
            standing=standing,
            used_proofs=self.replay.scope if basis.issuers.takes_proofs else "",
            more=lambda: (*place.degradations(), *self.key_store.troubles(), *self._sink_troubles()),
            unfit=lambda: self.watchdog.told,
        )
        # Those that stand are said at the start, once.
        self.alarms = Alarms(lambda: [text for text in self.health.report().degradations if text not in standing])
        self.server = make_server(self.guard, shared=place.workers > 1)
        self._show_metrics()

    def _trial_watch(self) -> TrialWatch:
        return TrialWatch(
            replica=self.replica,
            desk=Desk(replica=self.replica, publisher=self.replication.publisher, clock=self.clock),
            directories=self.book.directories,
            board=self.shown,
            clock=self.clock,
        )

    def open(self) -> Address:
        """Register every service and bind the gRPC port; returns where it is."""
        names = add_services(
            self.server,
            Rooms(
                gate=self.gate,
                authenticator=self.authenticator,
                decider=self.decider,
                replica=self.replica,
                replication=self.replication,
                receiver=self.receiver,
                book=self.book,
                search=AuditSearch(self.basis.config.audit_dir, secret=self.place.secret),
                health=self.health,
                metrics=self.metrics,
                clock=self.clock,
                new_id=new_id,
                discretion=self.discretion,
                watches=self.watches,
                trials=self.shown,
                cursor_secret=self.place.secret,
            ),
        )
        reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], self.server)
        config = self.basis.config
        return listen(self.server, config.grpc.listen, config.grpc.tls, shared=self.place.workers > 1)

    async def until_ready(self) -> None:
        """Return once a fresh world is held."""
        # A heartbeat makes no new world, and staleness ends by itself: there is no event to wait for.
        while not self.health.ready:  # noqa: ASYNC110
            await asyncio.sleep(READY_POLL_S)

    async def drain(self, hasten: asyncio.Event) -> None:
        """Let calls in flight finish within the grace, or at once when `hasten` is set."""
        self.health.draining = True
        self.guard.drain()
        stopping = asyncio.create_task(self.server.stop(self.basis.config.grace_s))
        hurry = asyncio.create_task(hasten.wait())
        await asyncio.wait((stopping, hurry), return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not stopping.done():
            await self.server.stop(None)
        await stopping

    async def close(self) -> None:
        """Release what the application made."""
        await self.server.stop(None)
        await self.receiver.close()
        await self.key_store.close()
        await self.live.close()
        await self.replay.close()

    def page(self) -> bytes:
        """Return the metrics of this PDP: of every worker, if it has several."""
        own = self.metrics.page()
        if self.place.workers == 1:
            return own
        return Merged({**self.place.standing.pages, self.place.index: own.decode()}).page()

    def _show_metrics(self) -> None:
        show, trail, replica = self.metrics.gauge, self.trail, self.replica
        show("pdp_world_seq", "Number of the world in force", lambda: replica.world.seq)
        show("pdp_staleness_seconds", "Age of the newest proof of freshness", lambda: self.health.staleness_s)
        show("pdp_ready", "1 while ready", lambda: float(self.health.ready))
        show("pdp_audit_records", "Records in the chain of this process", lambda: trail.link.n)
        show("pdp_audit_lost", "Records that could not be written", lambda: trail.lost)
        show("pdp_audit_failures", "Groups that could not be written", lambda: trail.failures)
        show("pdp_log_refused", "What the log carried and did not verify", lambda: self.health.refused)
        show("pdp_loop_blocked", "Times that the event loop answered nobody", lambda: self.watchdog.blocked)
        show("pdp_degradations", "Weakened controls, as the readiness page lists them", self._degradations)
        show("pdp_replicas", "Enforcement points connected", self._connected)
        show("pdp_watches", "Watches open", lambda: float(len(self.watches)))
        show("pdp_watches_woken", "Watches that a new world had decided again", lambda: float(self.watches.woken))
        show("pdp_identity_backend_leaks", "Surprises of the JWT backend", self._leaks)
        reviews, clock = Reviews(replica), self.clock
        show("pdp_assets_due", "Registered assets whose review is due", lambda: reviews.due(clock.now_ms()))
        self._show_sinks()
        self._show_trials()
        refused = self.authenticator.counters
        self.metrics.by_reason("pdp_credentials_refused", "Credentials refused, by reason", lambda: refused)
        show("pdp_key_sets_failing", "Issuers whose keys could not be had", lambda: len(self.key_store.troubles()))
        show("pdp_live_checks", "Times an issuer was asked about a token", self._live("asked"))
        show("pdp_live_checks_unanswered", "Times it did not answer", self._live("unanswered"))

    def _sink_troubles(self) -> list[str]:
        return [sink.trouble for sink in self.sinks if sink.trouble]

    def _show_sinks(self) -> None:
        show, sinks, trail = self.metrics.by_sink, self.sinks, self.trail
        show("pdp_audit_sink_records", "Records delivered", lambda: {sink.name: sink.delivered for sink in sinks})
        show("pdp_audit_sink_failures", "Batches not taken", lambda: {sink.name: sink.failures for sink in sinks})
        show(
            "pdp_audit_sink_rejected", "Records refused for good", lambda: {sink.name: sink.rejected for sink in sinks}
        )
        show(
            "pdp_audit_sink_behind",
            "Records of this process that are not delivered yet",
            lambda: {sink.name: sink.behind(trail.name, trail.link.n) for sink in sinks},
            counts=False,
        )

    def _show_trials(self) -> None:
        # No label tells trials apart: whoever may propose would make the number of series grow.
        show, watch = self.metrics.gauge, self.trials
        show("pdp_trials", "Shadows and canaries that run", lambda: len(self.replica.world.trials.running))
        show(
            "pdp_trials_blind",
            "Of them, those that cannot be compared",
            lambda: sum(bool(t.trouble) for t in watch.tallies),
        )
        show(
            "pdp_trial_gains", "Decisions they would newly allow", lambda: sum(t.changes[GAINS] for t in watch.tallies)
        )
        show("pdp_trial_loses", "Decisions they would newly deny", lambda: sum(t.changes[LOSES] for t in watch.tallies))
        show("pdp_canaries_rolled_back", "Canaries rolled back by their conditions", lambda: watch.rolled_back)

    def _degradations(self) -> int:
        return len(self.health.report().degradations)

    def _connected(self) -> int:
        return sum(1 for item in self.replication.subscribers.list() if item.connected)

    def _live(self, name: str) -> Callable[[], float]:
        return lambda: float(self.live.counters[name])

    def _leaks(self) -> float:
        return float(self.authenticator.counters["backend_leaks"])


@contextlib.asynccontextmanager
async def running(basis: Basis) -> AsyncIterator[tuple[Application, Address, socket.socket]]:
    """Start a PDP, and end it with everything it started; yields it, its gRPC address and its probes' socket."""
    listener = bind(basis.config.probes.listen, setting=PROBES)
    with contextlib.closing(listener):
        async with housed(basis, Place(), listener) as (app, address):
            yield app, address, listener


@contextlib.asynccontextmanager
async def housed(
    basis: Basis, place: Place, listener: socket.socket | None
) -> AsyncIterator[tuple[Application, Address]]:
    """Start the process of a PDP at `place`; the one with a `listener` shows probes."""
    config = basis.config
    async with contextlib.AsyncExitStack() as stack:
        replica = Replica(verifier=TrustVerifier(basis.root, config.tenant), world=empty_world(config.tenant))
        stores = open_stores(config, place=place)
        stack.push_async_callback(stores.close)
        trail = _trail(basis, place, replica)
        stack.push_async_callback(trail.close)
        replication = _replication(basis, place, replica, stores)
        app = Application(basis, place=place, replication=replication, replica=replica, trail=trail)
        stack.push_async_callback(app.close)
        address = app.open()
        if listener is not None:
            probes = Probes(listener, application(app.health, app.page))
            await probes.start()
            stack.push_async_callback(probes.stop)
        app.watchdog.start()
        stack.push_async_callback(app.watchdog.stop)
        await replication.start()
        stack.push_async_callback(replication.stop)
        await app.server.start()
        loops = [("alarms", app.alarms.run()), *((f"audit sink {sink.name}", sink.run()) for sink in app.sinks)]
        if place.index == 0:  # one worker watches for all: it reads the others' chains, too
            loops.append(("trials", app.trials.run()))
        for name, loop in loops:
            stack.callback(asyncio.create_task(loop, name=name).cancel)
        yield app, address


def _trail(basis: Basis, place: Place, replica: Replica) -> AuditTrail:
    clock = SystemClock()
    chain = AuditChain.open(
        place.audit(basis.config.audit_dir),
        name=place.chain,
        who=lambda: _who(basis, place, replica.world.seq),
        now_ms=clock.now_ms,
        signer=audit_signer(basis.config.state_dir),
    )
    return AuditTrail(chain, now_ms=clock.now_ms, waits=basis.config.audit.durable)


def _replication(basis: Basis, place: Place, replica: Replica, stores: Stores) -> Replication:
    state_dir = basis.config.state_dir
    return Replication(
        log=stores.log,
        replica=replica,
        keys=basis.keys,
        clock=SystemClock(),
        store=stores.store,
        roots=load_roots(state_dir),
        positions=_positions(basis, place, replica, stores.board),
        watch_root=RootWatch(state_dir, replica, stores.board).look,
    )


def _positions(basis: Basis, place: Place, replica: Replica, board: Board | None) -> Positions | None:
    if board is None:
        return None
    # The name outlives restarts: a process that comes back replaces what it showed before.
    name = f"{basis.keys.publish.key_id}{place.suffix}"
    return Positions(board=board, replica=replica, key=basis.keys.timestamp, name=name)


def _who(basis: Basis, place: Place, world_seq: int) -> dict[str, Any]:
    """Return what an `open` record says of this process."""
    return {
        "role": "pdp",
        "identity": f"pdp:{basis.keys.publish.key_id}{place.suffix}",
        "version": __version__,
        "tenant": basis.config.tenant,
        "trust": basis.issuers.generation,
        "world_seq": world_seq,
    }


async def serve(basis: Basis, *, say: Callable[[str], None]) -> None:
    """Run a PDP until SIGTERM or SIGINT; `say` gets the line that tells that it is ready.

    Raises:
        ConfigError: it cannot start.
    """
    stop, hasten = asyncio.Event(), asyncio.Event()
    with signals(stop, hasten):
        async with running(basis) as (app, address, listener):
            announce(basis)
            await until_told(app, stop, hasten, lambda seq: say(ready_line(basis.config, address, listener, seq)))
    _log.info("stopped")


async def until_told(
    app: Application, stop: asyncio.Event, hasten: asyncio.Event, ready: Callable[[int], None]
) -> None:
    """Call `ready` with the world's number once one is held that is fresh; at `stop`, drain."""
    waiting = asyncio.create_task(app.until_ready())
    asked = asyncio.create_task(stop.wait())
    await asyncio.wait((waiting, asked), return_when=asyncio.FIRST_COMPLETED)
    if not stop.is_set():
        set_aside()
        ready(app.replica.world.seq)
        await asked
    waiting.cancel()
    _log.info("draining", grace_s=app.basis.config.grace_s, worker=app.place.index)
    await app.drain(hasten)


def ready_line(config: Config, address: Address, listener: socket.socket, world_seq: int) -> str:
    """Return the line that tells where a PDP answers."""
    probes = Address(host=config.probes.listen.host, port=listener.getsockname()[1])
    return f"ready grpc={address} probes={probes} world_seq={world_seq}"


def announce(basis: Basis) -> None:
    """Say every weakened control, once, at the start (P13)."""
    for text in basis.degradations():
        _log.warning("degraded", control=text)


@contextlib.contextmanager
def signals(stop: asyncio.Event, hasten: asyncio.Event) -> Any:
    """The first SIGTERM or SIGINT sets `stop`, the second `hasten`."""
    loop = asyncio.get_running_loop()

    def told() -> None:
        (hasten if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
