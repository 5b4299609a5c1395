"""Ships audit records to a PDP over gRPC: the `AuditSink` of `pdp.service.audit.AuditShipper`.

The channel is made anew after every failure, and its credential read from disk then: a rotated certificate or token is in
use from the next attempt on.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import grpc.aio

from pdp.adapters.follow_credential import authorization
from pdp.errors import PortcullisError, Reason
from pdp.limits import DEFAULT_DEADLINE_S
from pdp.v1 import audit_pb2, audit_pb2_grpc


class GrpcAuditSink:
    """The PDP's `AuditService.Append`. Arguments as of `GrpcFeedSource`."""

    def __init__(
        self,
        target: str,
        *,
        ca: Path | None = None,
        cert: Path | None = None,
        key: Path | None = None,
        token: Path | Callable[[], str] | None = None,
    ) -> None:
        self._target = target
        self._ca = ca
        self._cert = cert
        self._key = key
        self._token = token
        self._channel: grpc.aio.Channel | None = None

    async def append(self, chain: str, records: Sequence[bytes]) -> tuple[bytes, int]:
        """Store records of `chain` and return (digest, number) of the last one stored; with none, just tell.

        Raises:
            PortcullisError: They were not stored.
        """
        if self._channel is None:
            self._channel = self._connect()
        stub = audit_pb2_grpc.AuditServiceStub(self._channel)  # type: ignore[no-untyped-call] # generated
        request = audit_pb2.AppendRequest(chain=chain, records=records)
        try:
            answer = await stub.Append(request, timeout=DEFAULT_DEADLINE_S, metadata=authorization(self._token))
        except grpc.aio.AioRpcError as fault:
            await self.close()
            message = f"the PDP did not take the audit records: {fault.code().name}: {fault.details()}"
            raise PortcullisError(Reason.PDP_UNREACHABLE, message) from None
        return answer.head, answer.stored

    async def close(self) -> None:
        """Drop the channel. Safe to call twice."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(None)

    def _connect(self) -> grpc.aio.Channel:
        if self._ca is None:
            return grpc.aio.insecure_channel(self._target)
        credentials = grpc.ssl_channel_credentials(
            root_certificates=_read(self._ca), private_key=_read(self._key), certificate_chain=_read(self._cert)
        )
        return grpc.aio.secure_channel(self._target, credentials)


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as fault:
        raise PortcullisError(Reason.CREDENTIAL_MISSING, f"`{path}`: {fault.strerror}") from fault
