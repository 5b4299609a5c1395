"""Ships audit records to the PDP over gRPC: the `AuditSink` of `pdp.service.audit.AuditShipper`."""

from collections.abc import Callable, Sequence

import grpc
import grpc.aio

from pdp.errors import PortcullisError, Reason
from pdp.limits import DEFAULT_DEADLINE_S
from pdp.v1 import audit_pb2, audit_pb2_grpc

Metadata = tuple[tuple[str, str], ...]


class GrpcAuditSink:
    """The PDP's `AuditService.Append`.

    Args:
        channel: To the PDP.
        metadata: Called for each RPC, so that a projected token is read again.
    """

    def __init__(self, channel: grpc.aio.Channel, metadata: Callable[[], Metadata]) -> None:
        self._stub = audit_pb2_grpc.AuditServiceStub(channel)  # type: ignore[no-untyped-call] # generated
        self._metadata = metadata

    async def append(self, chain: str, records: Sequence[bytes]) -> tuple[bytes, int]:
        """Store records of `chain` and return (digest, number) of the last one stored; with none, just tell.

        Raises:
            PortcullisError: They were not stored.
        """
        request = audit_pb2.AppendRequest(chain=chain, records=records)
        try:
            answer = await self._stub.Append(request, timeout=DEFAULT_DEADLINE_S, metadata=self._metadata())
        except grpc.aio.AioRpcError as fault:
            message = f"the PDP did not take the audit records: {fault.code().name}: {fault.details()}"
            raise PortcullisError(Reason.PDP_UNREACHABLE, message) from None
        return answer.head, answer.stored
