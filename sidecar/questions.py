"""The question behind an admitted request; requests that are alike ask the very same one.

A question follows from who asks, from the row and names that the request was mapped to, and from what its body and its caller
say. Where these say nothing, it is kept: the same caller asks it again, and what was decided of it may lie with it
(`Question.settled`), as does what the decision log writes.
"""

from pdp.model.attributes import Value
from pdp.model.names import Action, Resource
from pdp.model.recent import Recent
from pdp.model.request import Question
from sidecar.asked import Admitted, Identified
from sidecar.bodies import UNREAD, Content
from sidecar.duties import supported
from sidecar.limits import LIMITS
from sidecar.routes import WEBSOCKET, Mapped, Row


class Questions:
    """Makes questions.

    - Key: caller and mapping by identity, the method, the placement: all that a question without attributes of its own is made
      of. INVARIANT: both are held beside it, so that no other object can come to have their ids. Of the credential it holds
      what the token proves, and never the token (TC-1).
    - Invalidation: none; a question is a pure function of these. Whether it is still this caller's was found out just before.
    - Bound: entries.
    - Bypass: whatever a body or an assertion is part of.
    """

    def __init__(self) -> None:
        self._kept: Recent[object, tuple[Question, Identified, Mapped]] = Recent(LIMITS.questions)

    def of(self, admitted: Admitted, mapped: Mapped, content: Content) -> Question:
        """Return the question of a request that was admitted, by `mapped`, with such a body."""
        ask, who = admitted.ask, admitted.who
        if content is not UNREAD or ask.asserted:
            return _made(admitted, mapped, content)
        key = id(who), id(mapped), ask.method, admitted.placement
        kept = self._kept.find(key)
        if kept is None:
            kept = _made(admitted, mapped, content), who, mapped
            self._kept.keep(key, kept)
        return kept[0]


def _made(admitted: Admitted, mapped: Mapped, content: Content) -> Question:
    row, who, ask = mapped.row, admitted.who, admitted.ask
    attributes: dict[str, Value] = {
        "request.protocol": _protocol(row),
        "request.method": ask.method,
        "request.route": row.name,
        "request.stream": row.stream or content.stream,
        **content.attributes,
    }
    if content.name:
        attributes["request.model_requested"] = content.name
    if mapped.served is not None and mapped.served.upstream:
        attributes["request.alias"] = mapped.name
    for name, value in ask.asserted.items():
        attributes[f"request.{name}"] = value
    return Question(
        subject=who.party,
        action=Action.parse(content.action or row.action),
        resource=Resource.parse(mapped.resource),
        actors=who.actors,
        workload=who.workload,
        serves=Resource.parse(mapped.model) if mapped.model else None,
        attributes=attributes,
        claims=who.claims,
        credential=who.facts,
        supports=supported(row, admitted.placement),
    )


def _protocol(row: Row) -> str:
    if row.method == WEBSOCKET:
        return "websocket"
    return "grpc" if row.grpc else "http"
