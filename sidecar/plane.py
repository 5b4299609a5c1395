"""The data plane of one sidecar: the agent's two sockets and the Envoy that asks them, started and stopped as one."""

import asyncio
import logging
from collections.abc import Callable

import grpc.aio
from envoy.service.accesslog.v3 import als_pb2_grpc as als_grpc
from envoy.service.auth.v3 import external_auth_pb2_grpc as auth_grpc
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc as proc_grpc

from pdp.errors import Reason
from sidecar.envoy import EnvoySettings
from sidecar.envoy_names import Address
from sidecar.ext_authz import AuthorizationService, AuthzServer
from sidecar.ext_proc import ExternalProcessorService
from sidecar.gate import Gate
from sidecar.limits import LIMITS
from sidecar.rechecks import Notes, Rechecker, Time
from sidecar.refusals import RefusalsService
from sidecar.rotation import Rotation
from sidecar.supervisor import EnvoyProcess, prepare, validate

_LOG = logging.getLogger(__name__)


class DataPlane:
    """Envoy and the agent's sockets.

    Args:
        settings: What Envoy is to be.
        gate: Answers.
        rechecker: Follows running responses.
        notes: Records their changes of state.
        time: Clocks.
        on_ready: Called with each change of Envoy's readiness.
    """

    def __init__(
        self,
        *,
        settings: EnvoySettings,
        gate: Gate,
        rechecker: Rechecker,
        notes: Notes,
        time: Time,
        on_ready: Callable[[bool], None] = lambda _ready: None,
    ) -> None:
        self._settings = settings
        self._rechecker = rechecker
        self._services = (
            AuthorizationService(gate),
            ExternalProcessorService(gate=gate, rechecker=rechecker, notes=notes, time=time),
        )
        self.refusals = RefusalsService(gate)
        self._authz = AuthzServer(gate, settings.sockets.http)
        self._grpc: grpc.aio.Server | None = None
        self._config = prepare(settings)
        self.rotation = Rotation(settings.tls, settings.sockets.secrets) if settings.tls is not None else None
        self._looking: asyncio.Task[None] | None = None
        self.envoy = EnvoyProcess(
            config=self._config,
            sockets=settings.sockets,
            on_ready=on_ready,
            on_line=lambda line: _LOG.warning("envoy: %s", line),
        )

    async def start(self) -> Address:
        """Open the sockets, start Envoy, and return where clients connect.

        Raises:
            EnvoyError: Envoy refuses its configuration or does not start.
            ConfigError: The listener's certificate cannot be used.
        """
        try:
            if self.rotation is not None:
                self.rotation.begin()
                self._looking = asyncio.create_task(self.rotation.run(), name="certificates")
            await validate(self._config)
            await self._authz.start()
            await self._start_grpc()
            await self.envoy.start()
            return await self.envoy.address()
        except BaseException:
            await self.stop(drain_s=0)
            raise

    async def stop(self, *, drain_s: float = LIMITS.drain_s) -> None:
        """Let running streams end, cut the rest with records, end Envoy, close the sockets. Safe to call twice."""
        if self._looking is not None:
            self._looking.cancel()
        await self._drain(drain_s)
        self._rechecker.cut_all(Reason.PDP_UNREACHABLE)
        await self.refusals.close()
        if self._grpc is not None:
            await self._grpc.stop(grace=LIMITS.stop_s)  # the cuts go out, and their records are written
            self._grpc = None
        await self._services[1].settled()
        await self.envoy.stop()
        await self.close_agent_http()
        self._settings.sockets.grpc.unlink(missing_ok=True)

    async def close_agent_http(self) -> None:
        """Close the ext_authz socket: from here on Envoy answers 503."""
        await self._authz.stop()

    async def _drain(self, drain_s: float) -> None:
        try:
            async with asyncio.timeout(drain_s):
                await self._rechecker.idle()
        except TimeoutError:
            _LOG.info("%d streams outlast the drain and are cut", len(self._rechecker))

    async def _start_grpc(self) -> None:
        socket = self._settings.sockets.grpc
        socket.unlink(missing_ok=True)
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", LIMITS.grpc_message_bytes)])
        auth_grpc.add_AuthorizationServicer_to_server(self._services[0], server)
        proc_grpc.add_ExternalProcessorServicer_to_server(self._services[1], server)
        als_grpc.add_AccessLogServiceServicer_to_server(self.refusals, server)
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
        socket.chmod(0o600)
        self._grpc = server
