"""`pdp-sidecar serve`: answers for an Envoy that somebody else runs (Envoy, Istio): ext_authz `Check` and ext_proc `Process`.

The same core and the same gate as `run`; only the door is the two gRPC services, on a Unix socket or a TCP port. Whoever can
reach the port can ask what an identity may do, and have the answers recorded: so a port that is not loopback's demands mutual
TLS. What a foreign Envoy says in headers about certificates is not read (EP-8, EX-16); the filters that `config --envoy`
prints say it by other ways.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
from envoy.service.auth.v3 import external_auth_pb2_grpc as auth_grpc
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc as proc_grpc

from pdp.adapters.clock import SystemClock
from pdp.errors import ConfigError, Reason
from pdp.ports import Clock, FeedSource
from pdp.service.audit import AuditSink
from sidecar.config import CoreConfig
from sidecar.core import Core, follow_pdp
from sidecar.envoy_names import Address
from sidecar.ext_authz import AuthorizationService
from sidecar.ext_proc import ExternalProcessorService
from sidecar.gate import Gate
from sidecar.limits import LIMITS
from sidecar.probes import Probes, bound_socket
from sidecar.process import until_told
from sidecar.rechecks import Notes, Rechecker, Time

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """Where the two services listen: a Unix socket (`pipe`), or an address.

    Attributes:
        cert: PEM chain shown to Envoy; None: no TLS, which only loopback may have.
        key: Its key.
        client_ca: CA of the Envoys that may ask.
    """

    address: Address | None = None
    pipe: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None

    def __post_init__(self) -> None:
        """Refuse a port at which strangers could ask."""
        if (self.address is None) == (self.pipe is None):
            raise ConfigError("--listen: name HOST:PORT or unix:///PATH")
        tls = (self.cert, self.key, self.client_ca)
        if any(tls) and not all(tls):
            raise ConfigError("--tls-cert, --tls-key and --client-ca belong together", advice="name all three, or none")
        if self.address is not None and self.address.host not in _LOOPBACK and not all(tls):
            raise ConfigError(
                f"--listen: `{self.address.host}` can be reached by strangers, who could ask what anybody may do",
                advice="listen on loopback or unix:///PATH, or give --tls-cert, --tls-key and --client-ca",
            )


class ForeignDoor:
    """The two services on their port."""

    def __init__(self, port: Port, *, gate: Gate, rechecker: Rechecker, notes: Notes, time: Time) -> None:
        self._port, self._rechecker = port, rechecker
        self._processor = ExternalProcessorService(gate=gate, rechecker=rechecker, notes=notes, time=time, foreign=True)
        self._checks = AuthorizationService(gate)
        self._server: grpc.aio.Server | None = None

    async def start(self) -> Address:
        """Listen; return where (port 0 lets the kernel choose; a Unix socket has none).

        Raises:
            ConfigError: The port cannot be had.
        """
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", LIMITS.grpc_message_bytes)])
        auth_grpc.add_AuthorizationServicer_to_server(self._checks, server)
        proc_grpc.add_ExternalProcessorServicer_to_server(self._processor, server)
        bound = self._bind(server)
        await server.start()
        if self._port.pipe is not None:
            self._port.pipe.chmod(
                0o660
            )  # Envoy often runs as another user: who may ask is the group's and directory's affair
        self._server = server
        return Address(host=self._port.address.host if self._port.address else str(self._port.pipe), port=bound)

    def _bind(self, server: grpc.aio.Server) -> int:
        where = self._where()
        try:
            if self._port.cert is None or self._port.key is None or self._port.client_ca is None:
                return server.add_insecure_port(where)
            return server.add_secure_port(where, _mutual_tls(self._port.cert, self._port.key, self._port.client_ca))
        except (RuntimeError, OSError) as fault:
            raise ConfigError(f"--listen: cannot listen on {where}: {fault}", advice="choose another") from None

    def _where(self) -> str:
        if self._port.pipe is not None:
            self._port.pipe.unlink(missing_ok=True)
            return f"unix:{self._port.pipe}"
        address = self._port.address or Address(host="", port=0)
        host = f"[{address.host}]" if ":" in address.host else address.host
        return f"{host}:{address.port}"

    async def stop(self) -> None:
        """Cut what runs, with records, and stop listening. Safe to call twice."""
        self._rechecker.cut_all(Reason.PDP_UNREACHABLE)
        if self._server is not None:
            await self._server.stop(grace=LIMITS.stop_s)
            self._server = None
        await self._processor.settled()
        if self._port.pipe is not None:
            self._port.pipe.unlink(missing_ok=True)


def _mutual_tls(cert: Path, key: Path, client_ca: Path) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(key.read_bytes(), cert.read_bytes())],
        root_certificates=client_ca.read_bytes(),
        require_client_auth=True,
    )


class Service:
    """`pdp-sidecar serve`: core, door, probes.

    Args:
        config: What it was told.
        port: Where it answers.
        probes: Where its probes listen.
        source: Where it follows the log.
        sink: Where it ships its audit records; None: nowhere.
        clock: Time.
    """

    def __init__(
        self,
        config: CoreConfig,
        *,
        port: Port,
        probes: Address,
        source: FeedSource,
        sink: AuditSink | None,
        clock: Clock | None = None,
    ) -> None:
        self.core = Core(config, source=source, sink=sink, clock=clock or SystemClock())
        self._port, self._probes = port, probes
        self._stack = AsyncExitStack()
        self._door: ForeignDoor | None = None
        self._stopping = False

    async def start(self) -> tuple[Address, Address]:
        """Start everything; return where Envoy asks, and the probes.

        Raises:
            ConfigError: Something given cannot be used.
        """
        try:
            return await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> tuple[Address, Address]:
        listener = bound_socket(self._probes, option="--probes")
        bound = listener.getsockname()
        probes = Probes(ready=self._why_not_ready, metrics=self.core.page)
        await probes.start(listener)
        self._stack.push_async_callback(probes.stop)
        await self.core.start()
        self._door = ForeignDoor(
            self._port,
            gate=self.core.gate,
            rechecker=self.core.rechecker,
            notes=self.core.notes,
            time=self.core.clock,
        )
        listen = await self._door.start()
        self.core.follow()
        return listen, Address(host=bound[0], port=bound[1])

    async def fresh(self) -> int:
        """Wait until a fresh world is held; return its number."""
        return await self.core.fresh()

    async def failed(self) -> None:
        """Wait until a part that must run for ever has ended; raise what ended it."""
        await self.core.failed()

    async def stop(self) -> None:
        """Not ready, cut, record, ship, end. Safe to call twice."""
        self._stopping = True
        if self._door is not None:
            await self._door.stop()
            self._door = None
        await self.core.stop()
        await self._stack.aclose()

    async def _why_not_ready(self) -> str:
        return "stopping" if self._stopping else self.core.why_not_fresh()


async def serve_foreign(config: CoreConfig, port: Port, probes: Address, *, announce: Callable[[str], None]) -> None:
    """Run `pdp-sidecar serve` until SIGTERM or SIGINT.

    Raises:
        ConfigError: Something given cannot be used.
    """
    clock = SystemClock()
    source, sink = follow_pdp(config.pdp, clock)
    service = Service(config, port=port, probes=probes, source=source, sink=sink, clock=clock)
    await until_told(service, announce=announce, after=sink.close)
