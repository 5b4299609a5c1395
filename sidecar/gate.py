"""The one mapping and the one decision behind every door: what Envoy told us, to an answer.

`ext_authz` (HTTP and gRPC), `ext_proc` and `asgi` only translate: each builds an `Ask`, awaits `Gate.decide`, and writes the
`Verdict` in its own protocol. Where the body names the model there are two steps: `Gate.admit` (route and credential, before
a byte of the body is read) and `Gate.judge` (the question). INVARIANT: each returns; none raises, and whatever goes wrong is
a deny.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Sequence
from functools import lru_cache
from typing import TypeVar
from urllib.parse import unquote

from pdp.errors import PortcullisError, Reason
from pdp.identity.proof import BoundRequest
from pdp.model.decision import Decision
from pdp.model.names import Resource
from pdp.model.request import Party, Question
from pdp.model.trace import TRACE, trace_id
from sidecar.asked import Admitted, Ask, Decides, Identifies, Unidentified, Verdict
from sidecar.bodies import UNREAD, BadBody, Content
from sidecar.duties import Duties
from sidecar.limits import LIMITS
from sidecar.metrics import Tally
from sidecar.patience import Patience
from sidecar.questions import Questions
from sidecar.results import Results
from sidecar.routes import WEBSOCKET, Body, Mapped, Placement, RouteTable, Row, Scope, Unmapped
from sidecar.target import BadTarget, canonical

_LOG = logging.getLogger(__name__)

# What SANITIZE_SET writes for one TLS peer. The certificate is percent-encoded, so the quotes cannot be forged inside it;
# the `URI=` that may follow is not read: the certificate itself says it without a second syntax.
_XFCC = re.compile(
    r'Hash=[0-9a-f]{64};Cert="([A-Za-z0-9%._~+/=-]+)"(?:;Chain="([A-Za-z0-9%._~+/=-]+)")?(?:;(?!Chain=|Cert=).*)?'
)
_UNPROVEN = BoundRequest()
"""The request of a question that comes without a proof: whoever needs one refuses it, whatever it is."""

_T = TypeVar("_T")


class Gate:
    """Answers for one model server.

    Args:
        table: Its routes.
        identify: Verifies credentials.
        decider: Decides and records.
        unary_s: The route timeout of rows that are decided once.
        reveal: Tell refused callers the exact reason (development).
        origin: Scheme and authority by which callers reach the model, for DPoP proofs; empty: no proof holds.
        tally: Counts the answers.
    """

    def __init__(
        self,
        *,
        table: RouteTable,
        identify: Identifies,
        decider: Decides,
        unary_s: float = LIMITS.unary_s,
        reveal: bool = False,
        origin: str = "",
        tally: Tally | None = None,
    ) -> None:
        self._table = table
        self._identify = identify
        self._decider = decider
        self._unary_s = unary_s
        self._reveal = reveal
        self._origin = origin
        self._tally = tally or Tally()
        self.results = Results()
        self._questions = Questions()
        self._patience = Patience(LIMITS.decide_s)  # EX-17: a deny of ours, before Envoy's own timeout
        # A pure function of its arguments and of the table, which stays: nothing to invalidate. Short requests only.
        self._remembered = lru_cache(maxsize=LIMITS.target_cache_entries)(self._read)
        self.failures = 0

    async def decide(self, ask: Ask, placement: Placement, content: Content = UNREAD) -> Verdict:
        """Return the answer to `ask`; within the time budget, and never by an exception."""
        return await self._guarded(self._decide(ask, placement, content), ask)

    async def admit(self, ask: Ask, placement: Placement) -> Admitted | Verdict:
        """Return the request with its route and its caller, or the refusal; as `decide`, it returns."""
        return await self._guarded(self._admit(ask, placement), ask)

    async def judge(self, admitted: Admitted, content: Content | BadBody) -> Verdict:
        """Return the answer to an admitted request, now that its body (or one message) is known; as `decide`, it returns."""
        return await self._guarded(self._judge(admitted, content), admitted.ask)

    async def refused_unasked(self, reason: Reason, detail: str) -> None:
        """Record what Envoy refused without asking; as `decide`, it returns."""
        await self._bounded(self._decider.refuse(reason, detail=detail, door="envoy"))

    async def _guarded(self, work: Awaitable[_T], ask: Ask) -> _T | Verdict:
        TRACE.set(trace_id(ask.traceparent))
        outcome = await self._bounded(work)
        if isinstance(outcome, Verdict):
            self._tally.decided(outcome.reason, allowed=outcome.allowed)
        return outcome

    async def _bounded(self, work: Awaitable[_T]) -> _T | Verdict:
        try:
            return await self._patience.within(work)
        except TimeoutError:
            self.failures += 1
            return Verdict(allowed=False, reason=Reason.DEADLINE_EXCEEDED)
        except PortcullisError as fault:
            self.failures += 1
            return Verdict(allowed=False, reason=fault.reason)
        except Exception:  # noqa: BLE001 - the outermost boundary of every door: no error may become an allow (P2)
            self.failures += 1
            _LOG.exception("a decision failed")
            return Verdict(allowed=False, reason=Reason.INTERNAL_ERROR)

    async def _decide(self, ask: Ask, placement: Placement, content: Content) -> Verdict:
        admitted = await self._admit(ask, placement)
        return admitted if isinstance(admitted, Verdict) else await self._judge(admitted, content)

    async def _admit(self, ask: Ask, placement: Placement) -> Admitted | Verdict:
        mapped = self._map(ask, placement)
        if isinstance(mapped, Unidentified):
            return await self._refuse(mapped, placement)
        certificate = _certificate(ask.certificate)
        if isinstance(certificate, Unidentified):
            return await self._refuse(certificate, placement, mapped)
        # Where a body may make it another action (`endpoint.load_override`), it is not known yet: or an issuer that is to be
        # asked before that one would not be.
        row = mapped.row
        said = row is not None and row.body is Body.UNREAD and row.scope is not Scope.LOOKED_UP
        action = row.action if row is not None and said else ""
        who = await self._identify(ask.authorization, certificate, self._bound(ask), action)
        if isinstance(who, Unidentified):
            return await self._refuse(who, placement, mapped)
        if isinstance(mapped, Unmapped):  # only now: 401 for a served name and 403 for any other would tell them apart
            return await self._refuse(Unidentified(reason=Reason.UNMAPPED_ROUTE, detail=mapped.why), placement)
        return Admitted(ask=ask, mapped=mapped, who=who, placement=placement)

    async def _judge(self, admitted: Admitted, content: Content | BadBody) -> Verdict:
        if isinstance(content, BadBody):
            return await self._refuse(
                Unidentified(reason=Reason.BAD_REQUEST, detail=content.why), admitted.placement, admitted.mapped
            )
        if admitted.row.scope is Scope.LIST:
            return await self._list(admitted, content)
        mapped = self._meant(admitted.mapped, content, (admitted.who.party, *admitted.who.actors))
        if isinstance(mapped, Unmapped):
            return await self._refuse(Unidentified(reason=Reason.UNMAPPED_ROUTE, detail=mapped.why), admitted.placement)
        return await self._ask(self._questions.of(admitted, mapped, content), mapped, admitted)

    async def _list(self, admitted: Admitted, content: Content) -> Verdict:
        """Ask for each served name; what may be seen is shown, and nothing at all is a deny."""
        each = [
            mapped for name in self._table.served if isinstance(mapped := self._table.named(admitted.row, name), Mapped)
        ]
        asked = [self._ask(self._questions.of(admitted, mapped, content), mapped, admitted) for mapped in each]
        verdicts = await asyncio.gather(*asked)  # at once: their records share one flush
        shown = [(mapped, verdict) for mapped, verdict in zip(each, verdicts, strict=True) if verdict.allowed]
        if not shown:
            nothing = Unidentified(reason=Reason.UNMAPPED_ROUTE, detail="nothing is served")
            return verdicts[0] if verdicts else await self._refuse(nothing, admitted.placement)
        names = frozenset(mapped.served.upstream or mapped.name for mapped, _ in shown if mapped.served is not None)
        return shown[0][1]._replace(visible=names)

    def _meant(self, mapped: Mapped, content: Content, chain: Sequence[Party]) -> Mapped | Unmapped:
        """Return what path and body mean together; where both name a model they must name one (FAILURE.md N4)."""
        if content.continues and not self.results.name(content.continues, chain):
            return Unmapped(why="goes on from an answer that is nobody's, or another's", row=mapped.row)
        if mapped.row.scope is Scope.RESULT:
            return self._table.named(mapped.row, self.results.name(mapped.name, chain))
        if not mapped.resource:
            return self._table.named(mapped.row, content.name, content.version)
        if mapped.served is None or not (content.name or content.version):
            return mapped
        if content.name not in {"", mapped.name}:
            return Unmapped(why="path and body name two models", row=mapped.row)
        return self._table.named(mapped.row, mapped.name, content.version)

    def _bound(self, ask: Ask) -> BoundRequest:
        """Return what a DPoP proof must name: the authority is configured, and never what the client called us (PR-3)."""
        if ask.proof is None:
            return _UNPROVEN
        path = ask.target.partition("?")[0]
        method = "GET" if ask.method == WEBSOCKET else ask.method  # the handshake's, which is what a proof names
        return BoundRequest(method=method, uri=self._origin + path if self._origin else "", proof=ask.proof)

    def _map(self, ask: Ask, placement: Placement) -> Mapped | Unmapped | Unidentified:
        """Map the request by our own reading of it; Envoy's choice of route must agree.

        What is `Unmapped` for its served name alone is refused after the credential, like any other served name.
        """
        short = len(ask.method) + len(ask.target) <= LIMITS.target_cache_bytes
        mapped = (self._remembered if short else self._read)(ask.method, ask.target)
        if isinstance(mapped, Unidentified):
            return mapped
        if mapped.row is None:
            return Unidentified(reason=Reason.UNMAPPED_ROUTE, detail=mapped.why)
        if not _stands(mapped.row, placement) or ask.route not in {None, mapped.row.name}:
            return Unidentified(reason=Reason.UNMAPPED_ROUTE, detail="envoy and agent disagree on the route")
        return mapped

    def _read(self, method: str, target: str) -> Mapped | Unmapped | Unidentified:
        read = canonical(target)
        if isinstance(read, BadTarget):
            return Unidentified(reason=Reason.BAD_REQUEST, detail=read.why)
        return self._table.map(method, read)

    async def _ask(self, question: Question, mapped: Mapped, admitted: Admitted) -> Verdict:
        placement = admitted.placement
        answer = await self._decider.answer(question, door=placement.value)
        decision = answer.decision
        duties = Duties.of(decision.obligations)
        why = self._unable(decision, duties, mapped, admitted) if decision.allowed else ""
        if why:
            return await self._refuse(Unidentified(reason=Reason.OBLIGATION_UNSUPPORTED, detail=why), placement, mapped)
        return Verdict(
            allowed=decision.allowed,
            reason=decision.reason,
            decision_id=answer.decision_id,
            world_seq=decision.world_seq,
            question=question,
            recheck_after_s=decision.recheck_after_s,
            expires_at_s=admitted.who.expires_at_s,
            reveal=self._reveal,
            mapped=mapped,
            duties=duties,
        )

    def _unable(self, decision: Decision, duties: Duties, mapped: Mapped, admitted: Admitted) -> str:
        """Return which obligation this one request cannot be made to meet; empty: it meets all."""
        if admitted.placement is Placement.EXT_AUTHZ and not self._ends_in_time(decision):
            return "the route outlasts `recheck_after`"
        if duties.purpose and admitted.ask.asserted.get("purpose") != duties.purpose:
            return "another purpose than the one granted"
        if duties.pin and (mapped.served is None or duties.pin != mapped.served.version):
            return "another version than the pinned one"
        if duties.pin and not (admitted.placement is not Placement.EXT_AUTHZ or mapped.version == duties.pin):
            return "the version cannot be pinned where only the path is seen"
        if duties.digest and (not mapped.model or self._decider.digest(Resource.parse(mapped.model)) != duties.digest):
            return "another digest than the required one"
        return ""

    def _ends_in_time(self, decision: Decision) -> bool:
        duties = [duty for duty in decision.obligations if duty.name == "recheck_after"]
        return not duties or decision.recheck_after_s is None or decision.recheck_after_s >= self._unary_s

    async def _refuse(
        self, why: Unidentified, placement: Placement, mapped: Mapped | Unmapped | None = None
    ) -> Verdict:
        known = mapped if isinstance(mapped, Mapped) else None
        answer = await self._decider.refuse(
            why.reason,
            detail=why.detail,
            door=placement.value,
            action=known.row.action if known else "",
            resource=known.resource if known else "",
        )
        return Verdict(
            allowed=False,
            reason=why.reason,
            decision_id=answer.decision_id,
            world_seq=answer.decision.world_seq,
            reveal=self._reveal,
            challenge=why.challenge,
        )


def _stands(row: Row, placement: Placement) -> bool:
    """Whether `row` is decided at `placement`: in the server's own process every row is, but for those over gRPC."""
    return not row.grpc if placement is Placement.ASGI else row.placement is placement


@lru_cache(maxsize=1_024)
def _certificate(header: str) -> bytes | Unidentified | None:
    if not header:
        return None
    found = _XFCC.fullmatch(header)
    if found is None:
        return Unidentified(reason=Reason.CERTIFICATE_INVALID, detail="not one certificate set by our Envoy")
    return unquote(found[1] + (found[2] or "")).encode("ascii", "replace")
