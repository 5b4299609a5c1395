"""A running exchange, the same behind Envoy and in ASGI: what goes which way, what is counted, checked and stripped on its way.

Source: ENFORCEMENT.md 4, 5.3.
"""

from collections.abc import Callable, Mapping
from functools import reduce

from pdp.errors import Reason
from sidecar import messages
from sidecar.asked import Verdict
from sidecar.bodies import BadBody, Content
from sidecar.cutoff import Delivered
from sidecar.outputs import Lister, StripError, Stripper, Whole, readable_media
from sidecar.results import Giver, Results
from sidecar.routes import NO_TOKENS, Body, Row


class NotPassableError(Exception):
    """A message that may not go on; it ends the exchange."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Exchange:
    """One allowed request and its response.

    Args:
        verdict: The allow.
        content: What its body, or its first message, said.
        carried: Told how many messages it is about to have carried, either way.
        results: Where the id that a stored answer is given is noted; None: nowhere.
    """

    def __init__(
        self,
        verdict: Verdict,
        content: Content,
        *,
        carried: Callable[[int], None] = lambda _count: None,
        results: Results | None = None,
    ) -> None:
        self._verdict, self._content, self._carried, self._results = verdict, content, carried, results
        self._giver: Giver | None = None
        self._asked = 1
        self._answers = messages.Counter()
        self._answered = 0
        self._stripper: Stripper | None = None
        self._wholes: list[Whole] = []
        self.delivered = Delivered()

    @property
    def row(self) -> Row:
        """The row it came by.

        Raises:
            ValueError: It was not allowed.
        """
        if self._verdict.mapped is None:
            raise ValueError("only what is allowed runs")
        return self._verdict.mapped.row

    def asked(self, message: bytes) -> bytes:
        """Check a further gRPC message of the caller's, and return it.

        Raises:
            NotPassableError: A unary method has no further one, or it names another model, version or action than the first.
        """
        content = messages.read(self.row, message)
        if isinstance(content, BadBody) or not self.row.stream:
            raise NotPassableError(Reason.BAD_REQUEST)
        if _decides(content) != _decides(self._content):
            raise NotPassableError(Reason.UNMAPPED_ROUTE)
        self._asked += 1
        self._carried(max(self._asked, self._answered))
        return message

    def headers(self, headers: Mapping[str, str]) -> bool:
        """Note the response headers; return whether the body must come whole, to be stripped.

        Raises:
            NotPassableError: The reply must be stripped, and cannot be read.
        """
        self.delivered.headers(dict(headers))
        if self._verdict.visible is not None:
            self._wholes.append(Lister(self._verdict.visible))
            self._readable(headers, "json")
            return True
        return self._strips(headers) | self._gives(headers)

    def _gives(self, headers: Mapping[str, str]) -> bool:
        """Note whether the reply gives an id that can be read; one that cannot is nobody's, and goes on."""
        media = readable_media(headers.get("content-type", ""))
        encoded = headers.get("content-encoding", "identity") != "identity"
        if not self.row.stores or self._results is None or encoded or not media:
            return False
        giver = Giver(self._given)
        if media == "events":
            self._giver = giver
            return False
        self._wholes.append(giver)
        return True

    def _given(self, given: str) -> None:
        mapped, question = self._verdict.mapped, self._verdict.question
        if self._results is not None and mapped is not None and question is not None:
            self._results.note(given, chain=(question.subject, *question.actors), name=mapped.name)

    def _strips(self, headers: Mapping[str, str]) -> bool:
        strip = self._verdict.duties.strip
        if strip is None or (self.row.limit == NO_TOKENS and self.row.body is not Body.JSON):
            return False
        media = self._readable(headers, "json", "events")
        self._stripper = Stripper(strip)
        if media == "json":
            self._wholes.append(self._stripper)
        return media == "json"

    def _readable(self, headers: Mapping[str, str], *wanted: str) -> str:
        media = readable_media(headers.get("content-type", ""))
        if media not in wanted or headers.get("content-encoding", "identity") != "identity":
            raise NotPassableError(Reason.OBLIGATION_UNSUPPORTED)
        return media

    def chunk(self, body: bytes, mono_s: float, *, last: bool) -> bytes | None:
        """Return what of a chunk of the response goes on in its place; None: the chunk as it is.

        Raises:
            NotPassableError: It must be stripped, and cannot be read.
        """
        stripped = self._stripped(body, last=last)
        self.delivered.chunk(body if stripped is None else stripped, mono_s)
        if self.row.body is Body.GRPC:
            self._answered += self._answers.feed(body)
        else:
            self._answered = self.delivered.messages
        if body:  # an empty last chunk carries nothing, and must not be the message that is one too many
            self._carried(max(self._asked, self._answered))
        return stripped

    def error_event(self, reason: Reason) -> bytes:
        """Return the event that ends a cut stream."""
        return self.delivered.error_event(reason, reveal=self._verdict.reveal, dialect=self.row.dialect)

    def ended(self, cut: Reason | None) -> dict[str, str | int]:
        """Return what the record of the end says."""
        fields: dict[str, str | int] = {"messages": self.delivered.chunks, "size_bytes": self.delivered.size_bytes}
        if self.row.body is Body.GRPC:
            fields["messages"] = self._answered
        return fields | ({"reason": cut.value} if cut is not None else {})

    def _stripped(self, body: bytes, *, last: bool) -> bytes | None:
        if not body and not last:
            return None
        try:
            if self._giver is not None:
                self._giver.events(body)
            if self._wholes:
                return reduce(lambda text, one: one.whole(text), self._wholes, body) if body else None
            return self._stripper.events(body, last=last) if self._stripper is not None else None
        except StripError:
            raise NotPassableError(Reason.OBLIGATION_UNSUPPORTED) from None


def _decides(content: Content) -> tuple[object, ...]:
    """Return all that a message says, but for its size: what the decision may have been made on."""
    attributes = {name: value for name, value in content.attributes.items() if name != "request.bytes"}
    return content.name, content.version, content.action, sorted(attributes.items())
