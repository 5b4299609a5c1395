"""AuditService: enforcement points ship their chains here, auditors read all of them."""

import re
from collections.abc import AsyncIterator
from typing import Any, Final

from pdp.adapters.audit_index import Hit
from pdp.audit.query import NAMED, WILD, Wanted
from pdp.errors import BadRequestError
from pdp.limits import MAX_NAME_BYTES, MAX_PATTERN_WILDCARDS
from pdp.model.canonical import dumps_trusted
from pdp.server.callers import CALLER
from pdp.service.audit import AuditBook, AuditReceiver, Query
from pdp.service.audit_search import AuditSearch
from pdp.v1 import audit_pb2, audit_pb2_grpc

_CHAIN: Final = re.compile(r"[a-z0-9-]{1,128}")


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """The RPCs of AuditService, behind the guard."""

    def __init__(self, *, receiver: AuditReceiver, book: AuditBook, search: AuditSearch) -> None:
        self._receiver = receiver
        self._book = book
        self._search = search

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

    async def Query(self, request: audit_pb2.QueryRequest, _context: Any) -> audit_pb2.QueryResponse:  # noqa: N802 - gRPC's name
        """Find decisions: a page, newest first."""
        page = await self._search.page(
            _wanted(request), size=request.page_size, cursor=request.cursor, events=request.events
        )
        return audit_pb2.QueryResponse(
            records=map(_found, page.hits), events=map(_found, page.events), next_cursor=page.next_cursor
        )


def _wanted(request: audit_pb2.QueryRequest) -> Wanted:
    patterns = {name: str(getattr(request, name)) for name in NAMED}
    for name, pattern in patterns.items():
        if len(pattern.encode()) > MAX_NAME_BYTES or pattern.count(WILD) > MAX_PATTERN_WILDCARDS:
            message = f"`{name}` has at most {MAX_NAME_BYTES} bytes and {MAX_PATTERN_WILDCARDS} wildcards"
            raise BadRequestError(message)
    if request.effect not in ("", "allow", "deny"):
        raise BadRequestError("`effect` is `allow` or `deny`")
    if request.since_ms < 0 or request.until_ms < 0:
        raise BadRequestError("a time is not before 1970")
    return Wanted(
        effect=request.effect,
        world_seq=request.world_seq,
        since_ms=request.since_ms,
        until_ms=request.until_ms,
        **patterns,
    )


def _found(hit: Hit) -> audit_pb2.FoundRecord:
    record = b"" if hit.record is None else dumps_trusted(hit.record)
    return audit_pb2.FoundRecord(chain=hit.chain, n=hit.n, record=record)
