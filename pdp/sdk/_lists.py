"""Lists without their I/O: page after page until the list is whole, or an error."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from pdp.errors import BadNameError, BadRequestError, Reason
from pdp.model.decision import Obligation
from pdp.model.listed import Access, Listed
from pdp.model.names import Action, Principal, Resource
from pdp.sdk._core import ACTIONS, WHAT_CAN, WHO_CAN, Core, Rpc, request_attributes, subject_message
from pdp.sdk.errors import BadQuestion, Conflict, PdpFault
from pdp.sdk.values import Dpop, Listing, Subject, Terms
from pdp.v1 import decision_pb2

_NOWHERE: Final = "none"
_STARTS: Final = 3
"""How often a list is begun anew when the world moves on between two pages; beyond that the caller decides."""
_ACCESS: Final = {
    decision_pb2.ACCESS_CONDITIONAL: Access.CONDITIONAL,
    decision_pb2.ACCESS_ALLOW: Access.ALLOW,
}

Search = TypeVar(
    "Search",
    decision_pb2.SearchSubjectsRequest,
    decision_pb2.SearchResourcesRequest,
    decision_pb2.SearchActionsRequest,
)


@dataclass(slots=True, kw_only=True)
class Paging(Generic[Search]):
    """One list over however many pages it takes."""

    core: Core
    rpc: Rpc[Search, decision_pb2.SearchResponse]
    request: Search
    done: bool = field(default=False, init=False)
    _entries: list[Listed] = field(default_factory=list, init=False)
    _starts: int = field(default=1, init=False)
    _world_seq: int = field(default=0, init=False)

    @classmethod
    def who_can(
        cls, core: Core, action: str, resource: str, terms: Terms
    ) -> "Paging[decision_pb2.SearchSubjectsRequest]":
        """Return the list of those who can."""
        with _checked():
            request = decision_pb2.SearchSubjectsRequest(
                action=str(Action.parse(action)), resource=str(Resource.parse(resource)), terms=_terms(terms)
            )
        return Paging(core=core, rpc=WHO_CAN, request=request)

    @classmethod
    def what_can(cls, core: Core, subject: Subject, terms: Terms) -> "Paging[decision_pb2.SearchResourcesRequest]":
        """Return the list of what a subject can."""
        with _checked():
            request = decision_pb2.SearchResourcesRequest(subject=_lasting(subject), terms=_terms(terms))
        return Paging(core=core, rpc=WHAT_CAN, request=request)

    @classmethod
    def actions(
        cls, core: Core, resource: str, subject: Subject, terms: Terms
    ) -> "Paging[decision_pb2.SearchActionsRequest]":
        """Return the list of what a subject can do to one resource."""
        with _checked():
            request = decision_pb2.SearchActionsRequest(
                subject=_lasting(subject), resource=str(Resource.parse(resource)), terms=_terms(terms)
            )
        return Paging(core=core, rpc=ACTIONS, request=request)

    def message(self) -> Search:
        """Return the message that asks for the next page."""
        if not self.request.terms.cursor:
            self.request.terms.at_least = self.core.world_seq
        return self.request

    def take(self, response: decision_pb2.SearchResponse) -> None:
        """Take one page.

        Raises:
            PdpFault: pages of two worlds, an entry that is not understood, or fewer or more entries than there are.
        """
        if self._entries and response.world_seq != self._world_seq:
            raise _fault("pages of two worlds")
        self._world_seq = response.world_seq
        self._entries.extend(_entry(message) for message in response.entries)
        self.request.terms.cursor = response.next_cursor
        self.done = not response.next_cursor
        short = len(self._entries) < response.total
        if len(self._entries) > response.total or self.done is short or not (self.done or response.entries):
            raise _fault(f"{len(self._entries)} entries of {response.total}")

    def again(self, error: Conflict) -> None:
        """Start from the first page: the world moved on. Raises `error` if it does so again and again."""
        if self._starts == _STARTS:
            raise error
        self._starts += 1
        self._entries.clear()
        self.request.terms.cursor = ""

    def listing(self) -> Listing:
        """Return the whole list."""
        self.core.seen(self._world_seq)
        return Listing(entries=tuple(self._entries), world_seq=self._world_seq)


def _lasting(subject: Subject) -> decision_pb2.Subject | None:
    """Return the message of a subject that can be asked about again: a list comes in pages, and a proof is taken once."""
    if isinstance(subject, Dpop):
        raise BadRequestError("a DPoP proof is of one request and cannot be listed for: check it")
    return subject_message(subject)


@contextmanager
def _checked() -> Iterator[None]:
    """Turn what no PDP would accept into the error that a caller of the SDK expects."""
    try:
        yield
    except (BadNameError, BadRequestError) as error:
        raise BadQuestion(error.reason, error.message) from error


def _terms(terms: Terms) -> decision_pb2.SearchTerms:
    workload = terms.get("workload", "")
    if workload and workload != _NOWHERE:
        workload = str(Principal.parse(workload))
    return decision_pb2.SearchTerms(workload=workload, attributes=request_attributes(terms.get("attributes", {})))


def _entry(message: decision_pb2.SearchEntry) -> Listed:
    access = _ACCESS.get(message.access)
    if access is None:
        raise _fault("an entry that says neither allow nor conditional")
    return Listed(
        subject=message.subject,
        action=message.action,
        resource=message.resource,
        access=access,
        depends_on=tuple(message.depends_on),
        sources=tuple(message.sources),
        rules=tuple(message.determining),
        role_path=tuple(message.role_path),
        obligations=tuple(Obligation(name=duty.name, value=duty.value) for duty in message.obligations),
    )


def _fault(what: str) -> PdpFault:
    return PdpFault(
        Reason.INTERNAL_ERROR, f"the list is not whole: {what}", advice="use no part of it; ask again, and report this"
    )
