"""Where copies of the decision log go: a file of JSON lines, standard output, an OpenTelemetry collector.

A sink either takes a batch whole or raises; whoever follows the chains then brings the same batch again, so that each record
arrives at least once. What writes to a file or a pipe does so in a daemon thread: a reader that stopped reading holds up nobody.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from json import dumps
from pathlib import Path
from typing import Any, Final

import httpx

from pdp.adapters.checked_http import Call, FetchError, ask, read_secret, tls_context
from pdp.audit.otlp import logs_request, rejected
from pdp.errors import PortcullisError, Reason
from pdp.limits import AUDIT_SINK_TIMEOUT_S, MAX_SINK_ANSWER_BYTES

Batch = Sequence[tuple[str, Mapping[str, Any]]]
_JSON: Final = "application/json"


class LineSink:
    """Writes records as JSON lines to standard output."""

    def __init__(self, write: Callable[[bytes], None] | None = None) -> None:
        self.rejected = 0
        self._write = write or _to_stdout

    async def deliver(self, batch: Batch) -> None:
        """Write a batch, or raise.

        Raises:
            PortcullisError: it was not written.
        """
        data = b"".join(dumps(record, separators=(",", ":")).encode() + b"\n" for _, record in batch)
        try:
            await _in_daemon(lambda: self._write(data))
        except (OSError, ValueError) as error:
            raise _not_taken(f"cannot be written: {getattr(error, 'strerror', None) or error}") from error


def file_sink(path: Path) -> LineSink:
    """Return a sink that appends to a file, durably; it is opened for each batch, so that it may be rotated by moving it."""
    return LineSink(lambda data: _append(path, data))


class OtlpSink:
    """Sends records to a collector over OTLP/HTTP."""

    def __init__(
        self, url: str, *, service: Mapping[str, str], ca: Path | None = None, authorization: Path | None = None
    ) -> None:
        """Prepare.

        Args:
            url: the collector's logs endpoint, `https://HOST:4318/v1/logs`.
            service: attributes of the resource that sends.
            ca: the CA of the collector, PEM; None: those of the system.
            authorization: a file with the value of the `Authorization` header, read anew for each batch.

        Raises:
            ConfigError: the CA file cannot be read.
        """
        self.rejected = 0
        self._url = url
        self._service = dict(service)
        self._context = tls_context(str(ca.absolute()) if ca else None, Path())
        self._authorization = authorization

    async def deliver(self, batch: Batch) -> None:
        """Send a batch; what a collector refuses for good is counted, and not sent again (OTLP: partial success).

        Raises:
            PortcullisError: it was not taken.
        """
        try:
            held = read_secret(self._authorization) if self._authorization else ""
            body = logs_request(batch, self._service)
            call = Call(
                address=self._url,
                max_bytes=MAX_SINK_ANSWER_BYTES,
                authorization=held,
                body=body,
                media_type=_JSON,
            )
            host = httpx.URL(self._url).host
            answer = await ask(call, allow_private=[host], context=self._context, timeout_s=AUDIT_SINK_TIMEOUT_S)
            self.rejected += rejected(answer)
        except (FetchError, ValueError) as error:
            raise _not_taken(str(error)) from error


def _append(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        before = os.fstat(descriptor).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fdatasync(descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, before)  # no torn line: the batch comes again
            raise
    finally:
        os.close(descriptor)


def _to_stdout(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


async def _in_daemon(job: Callable[[], None]) -> None:
    """Run `job` in a thread of its own, which does not keep the process if it never ends."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            job()
        except (OSError, ValueError) as caught:
            error = caught
        with suppress(RuntimeError):  # the loop ended first: nobody waits any more
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=run, name="audit sink", daemon=True).start()
    await done


def _not_taken(message: str) -> PortcullisError:
    return PortcullisError(Reason.STORE_UNAVAILABLE, message)
