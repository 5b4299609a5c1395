"""AuditService: enforcement points ship their chains here, auditors read all of them."""

import re
from collections.abc import AsyncIterator
from typing import Any, Final

from pdp.errors import BadRequestError
from pdp.server.callers import CALLER
from pdp.service.audit import AuditBook, AuditReceiver, Query
from pdp.v1 import audit_pb2, audit_pb2_grpc

_CHAIN: Final = re.compile(r"[a-z0-9-]{1,128}")


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """The RPCs of AuditService, behind the guard."""

    def __init__(self, *, receiver: AuditReceiver, book: AuditBook) -> None:
        self._receiver = receiver
        self._book = book

    async def Append(self, request: audit_pb2.AppendRequest, _context: Any) -> audit_pb2.AppendResponse:  # noqa: N802 - gRPC's name
        """Store records of the caller's own chain; with none, tell where the chain stands."""
        if not _CHAIN.fullmatch(request.chain):
            raise BadRequestError("a chain's name is lower-case letters, digits and `-`")
        head = await self._receiver.append(owner=CALLER.get().name, chain=request.chain, records=tuple(request.records))
        return audit_pb2.AppendResponse(head=bytes.fromhex(head.digest), stored=head.n)

    async def Read(self, request: audit_pb2.ReadRequest, _context: Any) -> AsyncIterator[audit_pb2.ReadResponse]:  # noqa: N802 - gRPC's name
        """Send records, oldest first."""
        if request.chain and not _CHAIN.fullmatch(request.chain):
            raise BadRequestError("a chain's name is lower-case letters, digits and `-`")
        query = Query(chain=request.chain, since_ms=request.since_ms, last=request.last)
        async for chain, record in self._book.read(query, follow=request.follow):
            yield audit_pb2.ReadResponse(chain=chain, record=record)
