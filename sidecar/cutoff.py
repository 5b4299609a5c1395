"""How a running response is ended so that no client takes the end for success.

A quiet end, or a final chunk, reads as "complete". So a cut server-sent stream carries an error event in place of its next
chunk and is then aborted; where an event cannot go out (idle, not SSE, encoded, of fixed length) it is aborted at once.

Source: ENFORCEMENT.md 4.
"""

import json
from dataclasses import dataclass

from pdp.errors import Reason
from sidecar.limits import LIMITS
from sidecar.replies import word_of
from sidecar.routes import Dialect

_TAIL = 4  # enough to see whether the last event was complete


@dataclass(slots=True, kw_only=True)
class Delivered:
    """What of one response the client already has; fed with its headers and chunks.

    Attributes:
        started: The response headers went out.
        events_fit: An error event can be put into this response.
        chunks: Chunks delivered.
        events: Server-sent events delivered.
        size_bytes: Bytes delivered.
        last_mono_s: When the last chunk went out.
    """

    started: bool = False
    events_fit: bool = False
    chunks: int = 0
    events: int = 0
    size_bytes: int = 0
    last_mono_s: float = float("-inf")
    _tail: bytes = b"\n\n"  # nothing is open yet

    def headers(self, headers: dict[str, str]) -> None:
        """Note the response headers."""
        self.started = True
        media = headers.get("content-type", "").partition(";")[0].strip().lower()
        encoded = headers.get("content-encoding", "identity") != "identity"
        self.events_fit = media == "text/event-stream" and not encoded and "content-length" not in headers

    @property
    def messages(self) -> int:
        """What a session's bounds count: events of a stream of events, else chunks."""
        return self.events if self.events_fit else self.chunks

    def chunk(self, body: bytes, mono_s: float) -> None:
        """Note a delivered chunk."""
        self.chunks += 1
        self.events += _ends(self._tail[-1:] + body) if self.events_fit else 0
        self.size_bytes += len(body)
        self.last_mono_s = mono_s
        self._tail = (self._tail + body)[-_TAIL:]

    def wait_s(self, mono_s: float) -> float:
        """Return how long a cut waits for the next chunk to carry its event: 0 when idle, so that silence ends at once."""
        flowing = mono_s - self.last_mono_s <= LIMITS.busy_gap_s
        return LIMITS.busy_wait_s if self.events_fit and flowing else 0.0

    def error_event(self, reason: Reason, *, reveal: bool, dialect: Dialect = Dialect.PLAIN) -> bytes:
        """Return the last event of a cut stream; it first closes an event that was delivered in part."""
        complete = self._tail.endswith((b"\n\n", b"\r\n\r\n", b"\r\r"))
        said = json.dumps({"error": _error(word_of(reason, reveal=reveal), dialect)})
        return b"".join((b"" if complete else b"\n\n", b"data: ", said.encode(), b"\n\n"))


def _error(word: str, dialect: Dialect) -> str | dict[str, str]:
    """Return the error in its protocol's shape; OpenAI's client raises on an object, with the message in it."""
    message = f"access ended: {word}"
    return {"message": message, "type": "access_ended", "code": word} if dialect is Dialect.OPENAI else message


def _ends(text: bytes) -> int:
    """Return how many events end in `text`; an end over two chunks is seen by the byte kept of the one before."""
    return text.count(b"\n\n") + text.count(b"\n\r\n")
