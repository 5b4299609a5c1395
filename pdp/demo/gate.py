"""Calls through the real gate: a client certificate, a token, and JSON over TLS, as any caller's own code would do it."""

import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from pdp.demo.authority import Credential
from pdp.demo.child import StageError
from pdp.demo.limits import LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back: the HTTP status, and the JSON body (None if it was none)."""

    status: int
    body: Any

    def get(self, name: str) -> str:
        """Return a field of the body as text, or nothing."""
        return str(self.body.get(name, "")) if isinstance(self.body, Mapping) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How a stream ended.

    `events` came; then access ended at `mono_s` (monotonic) and `wall_ms` (wall clock): when the gate's error event took the
    model's place, or the connection broke. `broken` means without the last chunk, `last_error` is the event's text.
    """

    events: int
    mono_s: float
    wall_ms: float
    broken: bool
    last_error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The gate as one workload sees it."""

    url: str
    bundle: Path
    credential: Credential

    def post(self, path: str, body: object, token: str | None) -> Answer:
        """Ask once and wait for the whole answer."""
        with self._client() as client:
            response = client.post(path, json=body, headers=_authorization(token))
        return Answer(status=response.status_code, body=_json(response.content))

    @contextmanager
    def stream(self, path: str, body: object, token: str) -> Iterator["RunningStream"]:
        """Open a stream and read it in the background until it ends.

        Raises:
            StageError: the gate did not open it.
        """
        with (
            self._client() as client,
            client.stream("POST", path, json=body, headers=_authorization(token)) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise StageError(f"the gate did not open the stream: {response.status_code} {response.read()!r}")
            running = RunningStream(response)
            yield running
            running.cut()

    def _client(self) -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self.bundle))
        context.load_cert_chain(self.credential.certificate, self.credential.key)
        return httpx.Client(base_url=self.url, verify=context, timeout=LIMITS.call_s, trust_env=False)


class RunningStream:
    """A stream of events being read by a thread of its own; the main thread waits for events, or for the end."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._news = threading.Condition()
        self._events = 0
        self._cut: Cut | None = None
        self._ended: tuple[float, float] | None = None
        self._last_error = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for_events(self, count: int) -> None:
        """Wait until so many events have come.

        Raises:
            StageError: the stream ended, or nothing came in time.
        """
        with self._news:
            self._news.wait_for(lambda: self._events >= count or self._cut, LIMITS.call_s)
            if self._events < count:
                raise StageError(f"the stream gave {self._events} events instead of {count}: {self._cut}")

    def cut(self) -> Cut:
        """Wait for the end of the stream.

        Raises:
            StageError: it went on.
        """
        with self._news:
            self._news.wait_for(lambda: self._cut is not None, LIMITS.cut_s)
            if self._cut is None:
                raise StageError(f"the stream was not cut within {LIMITS.cut_s:g} s")
            return self._cut

    def _read(self) -> None:
        broken = False
        try:
            for line in self._response.iter_lines():
                if line.startswith("data:"):
                    self._hear(line.removeprefix("data:"))
        except (httpx.TransportError, httpx.StreamError):
            # The body ended without its last chunk: what a client must never mistake for success.
            broken = True
        self._note_end()
        mono_s, wall_ms = self._ended or (0.0, 0.0)
        with self._news:
            self._cut = Cut(
                events=self._events, mono_s=mono_s, wall_ms=wall_ms, broken=broken, last_error=self._last_error
            )
            self._news.notify_all()

    def _hear(self, data: str) -> None:
        """Count an event of the model, or note the error that the gate put in its place."""
        event = _json(data.encode())
        if isinstance(event, Mapping) and "error" in event:
            error = event["error"]  # OpenAI's protocol wraps the words in an object
            self._last_error = str(error["message"] if isinstance(error, Mapping) else error)
            self._note_end()
            return
        with self._news:
            self._events += 1
            self._news.notify_all()

    def _note_end(self) -> None:
        # The first sign counts; Envoy keeps a cut HTTP/1.1 connection open a little longer, with nothing more on it.
        if self._ended is None:
            self._ended = (time.monotonic(), time.time() * 1_000)


def _authorization(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None
