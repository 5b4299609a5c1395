"""What a door asks the gate, what it is told, and what the gate asks of others: values and protocols, nothing that decides."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from pdp.errors import Reason
from pdp.identity.challenge import Header
from pdp.identity.proof import BoundRequest
from pdp.model.attributes import NO_ATTRIBUTES, Attributes
from pdp.model.decision import Answer
from pdp.model.names import Principal, Resource
from pdp.model.request import CredentialFacts, Party, Question
from sidecar.duties import NO_DUTIES, Duties
from sidecar.replies import Denial, denial
from sidecar.routes import Mapped, Placement, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request, as Envoy described it.

    Attributes:
        method: HTTP method.
        target: Request target as sent on, path and query.
        route: The Envoy route's name; None: an Envoy that is not ours, which names none.
        authorization: Every value of that header, comma-joined; None: the header is absent.
        certificate: `x-forwarded-client-cert` as Envoy set it; empty: no client certificate.
        source_ip: The connection's peer.
        asserted: `purpose`, `run_id`, `ticket`, as the caller asserts them.
        proof: Every value of the `dpop` header, comma-joined; None: the header is absent.
        traceparent: The W3C header of that name; its trace id goes into the record.
    """

    method: str
    target: str
    route: str | None
    authorization: str | None = None
    certificate: str = ""
    source_ip: str = ""
    asserted: Mapping[str, str] = field(default_factory=dict)
    proof: str | None = field(default=None, repr=False)
    traceparent: str | None = None


class Verdict(NamedTuple):
    """The answer to one `Ask`; a named tuple, because one is made for each: a frozen dataclass takes three times as long.

    Attributes:
        allowed: True only for an allow whose record is durable.
        reason: Why; for the record and the status, not for the caller.
        decision_id: The id under which the audit chain holds it; empty: not recorded, counted.
        world_seq: The world it was decided on.
        question: What was asked, for re-checks; None on a refusal before there was a question.
        recheck_after_s: When a running response must be decided again; None: no bound.
        expires_at_s: When the credential ends (wall clock, seconds); 0: with the connection.
        reveal: The caller may see the reason of a 403 or 503, not only that it is one.
        challenge: The headers by which a refused credential is asked for again.
        mapped: What the request was taken for; None on a refusal.
        visible: The names that a list may show, as the server writes them; None: the reply is no list.
        duties: What the allow obliges to.
    """

    allowed: bool
    reason: Reason
    decision_id: str = ""
    world_seq: int = 0
    question: Question | None = None
    recheck_after_s: float | None = None
    expires_at_s: int = 0
    reveal: bool = False
    challenge: tuple[Header, ...] = ()
    mapped: Mapped | None = None
    duties: Duties = NO_DUTIES
    visible: frozenset[str] | None = None

    @property
    def subject(self) -> str:
        """The verified principal, in printable ASCII by its grammar (EX-15); empty: none."""
        return str(self.question.subject.principal) if self.question is not None else ""

    @property
    def denial(self) -> Denial:
        """What the refused caller sees."""
        return denial(self.reason, self.decision_id, reveal=self.reveal, challenge=self.challenge)

    @property
    def given(self) -> tuple[tuple[str, str], ...]:
        """The headers that tell the model about an allow (the names of `envoy.GIVEN_HEADERS`)."""
        return (
            ("x-pdp-decision-id", self.decision_id),
            ("x-pdp-subject", self.subject),
            ("x-pdp-world-seq", str(self.world_seq)),
        )

    def refused(self, reason: Reason) -> "Verdict":
        """Return this verdict turned into a refusal."""
        return self._replace(allowed=False, reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identified:
    """What the gate needs of a verified identity; made from one by the composition root."""

    party: Party
    actors: tuple[Party, ...] = ()
    workload: Principal | None = None
    facts: CredentialFacts = field(default_factory=CredentialFacts)
    claims: Attributes = field(default_factory=lambda: NO_ATTRIBUTES)
    expires_at_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A request whose route is known and whose credential holds; what it asks may still stand in its body."""

    ask: Ask
    mapped: Mapped
    who: Identified
    placement: Placement

    @property
    def row(self) -> Row:
        """The row it came by."""
        return self.mapped.row


@dataclass(frozen=True, slots=True, kw_only=True)
class Unidentified:
    """A refused credential; `challenge` holds the headers by which it is asked for again."""

    reason: Reason
    detail: str = ""
    challenge: tuple[Header, ...] = ()


class Identifies(Protocol):
    """Turns a credential and the connection's certificate into an identity."""

    async def __call__(
        self, authorization: str | None, certificate_pem: bytes | None, request: BoundRequest, action: str
    ) -> Identified | Unidentified:
        """Return who asks, or why nobody can say; `action` is what they are about to do."""
        ...


class Decides(Protocol):
    """The part of `pdp.service.decide.Decider` that the gate uses."""

    async def answer(self, question: Question, *, door: str, caller: str = "") -> Answer:
        """Decide, record, and return."""
        ...

    async def refuse(self, reason: Reason, *, detail: str, door: str, action: str = "", resource: str = "") -> Answer:
        """Record a refusal for which there is no question."""
        ...

    def digest(self, resource: Resource) -> str:
        """Return the digest that the inventory holds for `resource`; empty: none."""
        ...


def readable(value: str) -> bool:
    """Whether a header we read holds printable ASCII only (EX-13)."""
    return value.isascii() and value.isprintable()
