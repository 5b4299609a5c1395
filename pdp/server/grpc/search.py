"""The lists of DecisionService: messages to queries, entries to messages."""

from collections.abc import Mapping
from typing import Final, Protocol

from pdp.ask import NOWHERE, Terms
from pdp.errors import PortcullisError
from pdp.identity.types import AssertedIdentity, Refusal, VerifiedIdentity
from pdp.model.attributes import Attributes
from pdp.model.listed import Access, Listed
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party
from pdp.server.callers import ASK, ASSERT, CALLER, Caller, Gate, Right, right
from pdp.service.decide import Decider
from pdp.service.lists import Lists, Page, PageRequest
from pdp.v1 import decision_pb2, types_pb2

READ_POLICY: Final = right("policy.read", "policy/main")
"""Who else holds what: as the table of rights says of `SearchSubjects`."""
_ACCESS: Final = {
    Access.DENY: decision_pb2.ACCESS_UNSPECIFIED,
    Access.CONDITIONAL: decision_pb2.ACCESS_CONDITIONAL,
    Access.ALLOW: decision_pb2.ACCESS_ALLOW,
}


class WhoReader(Protocol):
    """Says whom a message means, and what its caller may assert: `decision.Reader`."""

    async def who(self, subject: decision_pb2.Subject, caller: Caller) -> VerifiedIdentity | AssertedIdentity | Refusal:
        """Return whom a message means."""
        ...

    async def attributes(self, message: Mapping[str, types_pb2.Value], caller: Caller) -> Attributes:
        """Return attributes that the caller may assert."""
        ...


class Searches:
    """Answers the three Search RPCs."""

    def __init__(self, *, reader: WhoReader, gate: Gate, decider: Decider, lists: Lists) -> None:
        self._reader = reader
        self._gate = gate
        self._decider = decider
        self._lists = lists

    async def subjects(
        self, request: decision_pb2.SearchSubjectsRequest, patience_s: float
    ) -> decision_pb2.SearchResponse:
        """List who can do an action to a resource; from any workload, unless one is named."""
        await self._reach(request.terms.at_least, patience_s, READ_POLICY)
        action, resource = Action.parse(request.action), Resource.parse(request.resource)
        caller = CALLER.get()
        attributes = await self._reader.attributes(request.terms.attributes, caller)
        terms = _terms(request.terms.workload, attributes) or Terms(attributes=attributes)
        return _response(await self._lists.who_can(action, resource, terms, _wanted(request.terms)))

    async def resources(
        self, request: decision_pb2.SearchResourcesRequest, patience_s: float
    ) -> decision_pb2.SearchResponse:
        """List what a subject can do to every registered asset."""
        await self._reach(request.terms.at_least, patience_s, ASK)
        party, terms = await self._about(request.subject, request.terms)
        return _response(await self._lists.what_can(party, terms, _wanted(request.terms)))

    async def actions(
        self, request: decision_pb2.SearchActionsRequest, patience_s: float
    ) -> decision_pb2.SearchResponse:
        """List what a subject can do to one resource."""
        await self._reach(request.terms.at_least, patience_s, ASK)
        resource = Resource.parse(request.resource)
        party, terms = await self._about(request.subject, request.terms)
        return _response(await self._lists.actions(party, resource, terms, _wanted(request.terms)))

    async def _reach(self, at_least: int, patience_s: float, wanted: Right) -> None:
        """Wait for the world asked for, before anything is read: it may lock the caller out, or take what it asserts."""
        if await self._decider.reach(at_least, patience_s):
            await self._gate.authorise(CALLER.get(), wanted)

    async def _about(self, subject: decision_pb2.Subject, message: decision_pb2.SearchTerms) -> tuple[Party, Terms]:
        """Return whom a list is about, and its terms: the caller asks from where it is, about others from anywhere.

        Raises:
            PortcullisError: a credential that does not hold, or what this caller may not assert.
        """
        caller = CALLER.get()
        who = await self._reader.who(subject, caller)
        if isinstance(who, Refusal):
            raise PortcullisError(who.reason, "the credential in the question does not hold")
        attributes = await self._reader.attributes(message.attributes, caller)
        own = Terms(attributes=attributes, anywhere=False, workload=caller.identity.workload)
        default = own if subject.WhichOneof("who") is None else Terms(attributes=attributes)
        terms = _terms(message.workload, attributes) or default
        if not terms.anywhere and terms.workload != caller.identity.workload:
            await self._gate.authorise(caller, ASSERT)
        return who.party, terms


def _terms(workload: str, attributes: Attributes) -> Terms | None:
    """Return the terms of a list whose message names where it is asked from, or None."""
    if not workload:
        return None
    named = None if workload == NOWHERE else Principal.parse(workload)
    return Terms(attributes=attributes, anywhere=False, workload=named)


def _wanted(message: decision_pb2.SearchTerms) -> PageRequest:
    return PageRequest(size=message.page_size, cursor=message.cursor)


def _response(page: Page) -> decision_pb2.SearchResponse:
    return decision_pb2.SearchResponse(
        entries=map(_entry, page.entries), next_cursor=page.next_cursor, world_seq=page.world_seq, total=page.total
    )


def _entry(listed: Listed) -> decision_pb2.SearchEntry:
    return decision_pb2.SearchEntry(
        subject=listed.subject,
        action=listed.action,
        resource=listed.resource,
        access=_ACCESS[listed.access],
        depends_on=listed.depends_on,
        sources=listed.sources,
        determining=listed.rules,
        role_path=listed.role_path,
        obligations=[types_pb2.Obligation(name=duty.name, value=duty.value) for duty in listed.obligations],
    )
