"""The replica inside a process: a thread with an event loop that follows a PDP, keeps the world, writes and ships records.

The same parts as in a sidecar, in the same order: state directory and trust table are looked at first, then the pinned root
of trust is had, then the log is followed. Deciding itself needs no loop: it reads the world in the caller's own thread.
"""

import asyncio
import secrets
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from pdp.adapters.audit_file import AuditChain
from pdp.adapters.audit_key import audit_signer
from pdp.adapters.clock import SystemClock
from pdp.adapters.follow_grpc import GrpcFeedSource
from pdp.adapters.ids import new_id
from pdp.adapters.keys_http import KeyStore
from pdp.adapters.live_http import LiveHttp
from pdp.adapters.replica_store import SqliteReplicaStore
from pdp.adapters.ship_grpc import GrpcAuditSink
from pdp.adapters.trust_file import load_trust
from pdp.errors import ConfigError, PortcullisError, Reason
from pdp.identity.certificates import PeerCertificate
from pdp.identity.types import Refusal
from pdp.limits import GOODBYE_S, MAX_STALENESS_S, READY_POLL_S
from pdp.replica import Replica
from pdp.sdk._core import call_error, closed_error
from pdp.sdk._settings import Settings
from pdp.sdk.errors import PdpUnavailable, typed
from pdp.service.audit import AuditShipper, AuditTrail
from pdp.service.authenticate import Authenticator
from pdp.service.decide import Decider
from pdp.service.follow import Follower, obtain_root
from pdp.service.lists import Lists
from pdp.service.live import LiveChecks
from pdp.service.watch_index import Watches
from pdp.trust.feed import Hello
from pdp.trust.verifier import TrustVerifier
from pdp.world import empty_world

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings:
    """What local mode needs beside a connection: the pinned root of trust, the issuer table, a directory of its own."""

    root_digest: str
    trust: Path
    state_dir: Path
    tenant: str

    def check(self) -> None:
        """Refuse what cannot work, before anything starts.

        Raises:
            ConfigError: the digest is none, or the directory cannot be used.
        """
        if len(self.root_digest) != 64 or set(self.root_digest) - set("0123456789abcdef"):  # noqa: PLR2004 - hex of SHA-256
            raise ConfigError(
                "root_digest: 64 hexadecimal digits are needed",
                advice="run `pdp init` or `pdp doctor` on the PDP's host, or `sha256sum root.json`",
            )
        try:
            self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.state_dir.chmod(0o700)
        except OSError as error:
            raise ConfigError(
                f"state_dir: cannot use {self.state_dir}: {error.strerror}",
                advice="name a directory of this process alone",
            ) from error


class Machine:
    """A running replica. `start` it, `run` coroutines on its loop, `stop` it."""

    def __init__(self, settings: Settings, local: LocalSettings) -> None:
        local.check()
        self._settings = settings
        self._local = local
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._turn, name="pdp replica", daemon=True)
        self._shipper: AuditShipper | None = None
        self._trail: AuditTrail | None = None
        self.clock = SystemClock()
        self.peer = _peer(settings.tls.cert)
        self.trust = load_trust(local.trust)
        self.replica: Replica
        self.decider: Decider
        self.authenticator: Authenticator
        self.lists: Lists
        self.watches: Watches

    def start(self, timeout_s: float) -> None:
        """Start, and wait for a fresh world.

        Raises:
            ConfigError: the PDP's root of trust is another than the pinned one, or a file cannot be used.
            PdpUnavailable: no fresh world was had in time.
        """
        self._thread.start()
        try:
            self.run(self._start(), timeout_s=timeout_s)
            self.run(self._fresh(), timeout_s=timeout_s)
        except BaseException:
            self.stop()
            raise

    def run(self, work: Coroutine[Any, Any, T], *, timeout_s: float) -> T:
        """Run `work` on the loop and return its result, from any other thread.

        Raises:
            PdpUnavailable: it took longer than `timeout_s`.
            ClientUnusable: the client was closed meanwhile.
        """
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # the loop has ended since the caller looked
            work.close()
            raise closed_error() from None
        try:
            return future.result(timeout_s)
        except PortcullisError as error:
            raise typed(error) from error
        except TimeoutError:
            future.cancel()
            raise self._late() from None
        except CancelledError:
            raise closed_error() from None

    def soon(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Begin `work` on the loop and return its task; `end` ends it."""

        async def begin() -> asyncio.Task[None]:
            return asyncio.create_task(work)

        return self.run(begin(), timeout_s=self._settings.timeout_s)

    def end(self, task: "asyncio.Task[None]") -> None:
        """Cancel a task of the loop, from any thread; nothing happens on a loop that has ended."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(task.cancel)

    def stop(self) -> None:
        """Ship what is recorded, end everything. Safe to call twice."""
        if not self._thread.is_alive():
            return
        future = asyncio.run_coroutine_threadsafe(self._stop(), self._loop)
        try:
            future.result(4 * GOODBYE_S)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(GOODBYE_S)

    def staleness_s(self) -> float:
        """Return how old the newest proof that our world is current is, in seconds."""
        return self.replica.staleness_s(now_ms=self.clock.now_ms(), mono_s=self.clock.mono_s())

    def _turn(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    async def _start(self) -> None:
        tls, token = self._settings.tls, None if self._settings.token is None else self._settings.read_token
        server, state = self._settings.server, self._local.state_dir
        source = GrpcFeedSource(server, clock=self.clock, ca=tls.ca, cert=tls.cert, key=tls.key, token=token)
        sink = GrpcAuditSink(server, ca=tls.ca, cert=tls.cert, key=tls.key, token=token)
        self._stack.push_async_callback(sink.close)
        store = SqliteReplicaStore(state / "replica")
        self._stack.push_async_callback(store.close)
        hello = Hello(
            seq=0, head=b"", version=_version(), role="sdk", tenant=self._local.tenant, instance=await store.instance()
        )
        root = await obtain_root(state_dir=state, pinned=self._local.root_digest, source=source, hello=hello)
        self.replica = Replica(verifier=TrustVerifier(root, self._local.tenant), world=empty_world(self._local.tenant))
        trail, chain = self._open_audit()
        self.decider = Decider(replica=self.replica, audit=trail, clock=self.clock, new_id=new_id)
        keys = KeyStore(issuers=self.trust, directory=self._local.trust.absolute().parent, clock=self.clock)
        self._stack.push_async_callback(keys.close)
        live = LiveChecks(
            source=LiveHttp(issuers=self.trust, directory=self._local.trust.absolute().parent), clock=self.clock
        )
        self._stack.push_async_callback(live.close)
        self.authenticator = Authenticator(issuers=self.trust, keys=keys, clock=self.clock, live=live)
        self.lists = Lists(replica=self.replica, clock=self.clock, secret=secrets.token_bytes(32))
        self.watches = Watches(self.replica)
        follower = Follower(self.replica, store, source, clock=self.clock, hello=hello, audit_head=lambda: trail.head)
        self._shipper = AuditShipper(trail=trail, chain=chain, sink=sink)
        self._tasks = [asyncio.create_task(follower.run()), asyncio.create_task(self._shipper.run())]

    def _open_audit(self) -> tuple[AuditTrail, AuditChain]:
        chain = AuditChain.open(
            self._local.state_dir / "audit",
            name="sdk",
            who=lambda: {"version": _version(), "trust": self.trust.generation, "world_seq": self.replica.world.seq},
            now_ms=self.clock.now_ms,
            signer=audit_signer(self._local.state_dir),
        )
        trail = self._trail = AuditTrail(chain, now_ms=self.clock.now_ms)
        self._stack.push_async_callback(trail.close)
        return trail, chain

    async def _fresh(self) -> None:
        while self.staleness_s() > MAX_STALENESS_S["normal"]:  # noqa: ASYNC110 - heartbeats tell nobody
            await asyncio.sleep(READY_POLL_S)

    async def _stop(self) -> None:
        if self._shipper is not None and self._trail is not None:
            await self._trail.record((), durable=True)  # what nobody waited for, too
            await self._shipper.drained(GOODBYE_S)  # what is left stays on disk, and goes out at the next start
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._stack.aclose()

    def _late(self) -> PortcullisError:
        replica: Replica | None = getattr(self, "replica", None)
        if replica is not None and not self._shipper:
            return call_error("DEADLINE_EXCEEDED", server=self._settings.server)
        if replica is None or self.staleness_s() > MAX_STALENESS_S["normal"]:
            told = replica.last_error if replica is not None else "its root of trust could not be had"
            return PdpUnavailable(
                Reason.PDP_UNREACHABLE,
                f"{self._settings.server}: no fresh world was had: {told or 'no heartbeat yet'}",
                advice="check the PDP, our credential, and that it holds replica.subscribe",
            )
        return call_error("DEADLINE_EXCEEDED", server=self._settings.server)


def _peer(certificate: Path | None) -> PeerCertificate | None:
    """Return our own certificate, which stands for our workload as it does in a connection.

    Raises:
        ConfigError: it cannot be read as one.
    """
    if certificate is None:
        return None
    peer = PeerCertificate.from_pem(certificate.read_bytes())
    if isinstance(peer, Refusal):
        raise ConfigError(f"{certificate}: {peer.detail}")
    return peer


def _version() -> str:
    try:
        return version("portcullis")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
