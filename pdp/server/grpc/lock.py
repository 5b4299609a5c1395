"""LockService: revocations and kill switches, with receipts."""

from typing import Any

from pdp.errors import BadRequestError
from pdp.server.callers import CALLER
from pdp.server.grpc.convert import need, wait_s
from pdp.service.locks import Locks
from pdp.service.replicate import Receipt
from pdp.signals.locks import SCOPED, Lock, LockKind, LockTarget
from pdp.v1 import lock_pb2, lock_pb2_grpc


class LockServicer(lock_pb2_grpc.LockServiceServicer):
    """The RPCs of LockService, behind the guard."""

    def __init__(self, *, locks: Locks) -> None:
        self._locks = locks

    async def Lock(self, request: lock_pb2.LockRequest, context: Any) -> lock_pb2.LockResponse:  # noqa: N802 - gRPC's name
        """Set a lock and, if wanted, wait for those who enforce it."""
        made = await self._locks.add(
            target_of(request.target),
            reason=request.reason,
            author=CALLER.get().name,
            end_ms=request.end_ms,
            wait_s=wait_s(context) if request.wait_all else 0.0,
        )
        return lock_pb2.LockResponse(lock=_message(made.lock), receipt=_receipt(made.receipt))

    async def Unlock(self, request: lock_pb2.UnlockRequest, _context: Any) -> lock_pb2.UnlockResponse:  # noqa: N802 - gRPC's name
        """Remove a lock."""
        seq = await self._locks.remove(need(request.id, "id"), author=CALLER.get().name)
        return lock_pb2.UnlockResponse(world_seq=seq)

    async def List(self, _request: lock_pb2.ListLocksRequest, _context: Any) -> lock_pb2.ListLocksResponse:  # noqa: N802 - gRPC's name
        """Show every lock."""
        locks, world = self._locks.all()
        return lock_pb2.ListLocksResponse(locks=map(_message, locks), world_seq=world.seq)


def target_of(message: lock_pb2.LockTarget) -> LockTarget:
    """Return what a message locks.

    Raises:
        BadRequestError, BadNameError: nothing, or something malformed.
    """
    field = message.WhichOneof("target")
    if field in SCOPED:
        scoped = getattr(message, field)
        return LockTarget(kind=LockKind(field), issuer=scoped.issuer, value=scoped.id)
    if field == "issued_before":
        before = message.issued_before
        return LockTarget(
            kind=LockKind.ISSUED_BEFORE, issuer=before.issuer, time_s=before.time_s, principal=before.principal
        )
    if field == "certificate":
        return LockTarget(kind=LockKind.CERTIFICATE, value=message.certificate)
    if field == "principal":
        return LockTarget(kind=LockKind.PRINCIPAL, principal=message.principal)
    if field == "resource":
        return LockTarget(kind=LockKind.RESOURCE, resource=message.resource)
    raise BadRequestError("a lock needs a target")


def _target_message(target: LockTarget) -> lock_pb2.LockTarget:
    if target.kind in SCOPED:
        scoped = lock_pb2.IssuerScoped(issuer=target.issuer, id=target.value)
        message = lock_pb2.LockTarget()
        getattr(message, target.kind.value).CopyFrom(scoped)
        return message
    if target.kind is LockKind.ISSUED_BEFORE:
        before = lock_pb2.IssuedBefore(issuer=target.issuer, time_s=target.time_s, principal=target.principal)
        return lock_pb2.LockTarget(issued_before=before)
    if target.kind is LockKind.CERTIFICATE:
        return lock_pb2.LockTarget(certificate=target.value)
    if target.kind is LockKind.PRINCIPAL:
        return lock_pb2.LockTarget(principal=target.principal)
    return lock_pb2.LockTarget(resource=target.resource)


def _message(lock: Lock) -> lock_pb2.Lock:
    return lock_pb2.Lock(
        id=lock.id,
        target=_target_message(lock.target),
        reason=lock.reason,
        source=lock.source,
        world_seq=lock.world_seq,
        start_ms=lock.start_ms,
        end_ms=lock.end_ms,
    )


def _receipt(receipt: Receipt) -> lock_pb2.Receipt:
    return lock_pb2.Receipt(
        world_seq=receipt.world_seq,
        connected=receipt.connected,
        holding=receipt.holding,
        missing=receipt.missing,
        slowest_ms=receipt.slowest_ms,
    )
