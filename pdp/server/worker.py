"""One worker of a PDP: `python -m pdp.server.worker`, started by the supervisor and by nobody else.

What it is comes as the first line of standard input, since the secret that workers share belongs on no command line. The end of
that input is the end of the supervisor, and the worker drains as on SIGTERM: no worker outlives what would restart it.
Standard output carries lines of JSON up to the supervisor; the log goes to standard error, like that of any process.
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from pdp.adapters.interpreter import tune
from pdp.adapters.nudge import Nudges
from pdp.adapters.telemetry import setup_logging
from pdp.config import Config
from pdp.errors import MEANINGS, PortcullisError, Reason
from pdp.limits import MAX_WORKER_LINE_BYTES, WORKER_REPORT_S
from pdp.server.app import Application, Basis, housed, signals, until_told
from pdp.server.place import Place, Standing

_INPUT: Final = 0
_OUTPUT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What the supervisor tells a worker of itself: sockets are numbers of descriptors that it inherits."""

    config: Config
    index: int
    secret: bytes
    inbox: int
    peers: tuple[int, ...]
    probes: int | None

    def to_line(self) -> bytes:
        """Return it as one line."""
        told = {
            "config": self.config.model_dump(mode="json"),
            "index": self.index,
            "secret": self.secret.hex(),
            "inbox": self.inbox,
            "peers": self.peers,
            "probes": self.probes,
        }
        return json.dumps(told).encode() + b"\n"

    @classmethod
    def from_line(cls, raw: bytes) -> Self:
        """Read what `to_line` wrote."""
        told = json.loads(raw)
        return cls(
            config=Config.model_validate(told["config"]),
            index=told["index"],
            secret=bytes.fromhex(told["secret"]),
            inbox=told["inbox"],
            peers=tuple(told["peers"]),
            probes=told["probes"],
        )

    def place(self) -> Place:
        """Return this worker's place, with its sockets open."""
        nudges = Nudges(socket.socket(fileno=self.inbox), [socket.socket(fileno=number) for number in self.peers])
        return Place(index=self.index, workers=self.config.workers, secret=self.secret, nudges=nudges)


def main() -> int:
    """Run a worker to its end; returns its exit code."""
    spec = Spec.from_line(_first_line())
    setup_logging(level=spec.config.log.level, form=spec.config.log.format)
    tune()
    try:
        asyncio.run(_work(spec))
    except PortcullisError as error:
        # The supervisor says it, once: this process may be the third to fail alike.
        _write({"failed": [error.reason.value, error.message, error.advice]})
        return error.meaning.exit_code or MEANINGS[Reason.INTERNAL_ERROR].exit_code
    return 0


async def _work(spec: Spec) -> None:
    stop, hasten = asyncio.Event(), asyncio.Event()
    basis, place = Basis.read(spec.config), spec.place()
    probes = None if spec.probes is None else socket.socket(fileno=spec.probes)
    with signals(stop, hasten):
        async with (
            _background(_obey(place.standing, stop)),
            housed(basis, place, probes) as (app, _),
            _background(_report(app)),
        ):
            await until_told(app, stop, hasten, lambda seq: _write({"ready": seq}))


@contextlib.asynccontextmanager
async def _background(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _obey(standing: Standing, stop: asyncio.Event) -> None:
    """Take in what the supervisor tells of the others; drain when it is gone."""
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(limit=MAX_WORKER_LINE_BYTES)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(_INPUT), "rb", buffering=0)
    )
    try:
        while line := await reader.readline():
            told = json.loads(line)
            standing.ready = told["ready"]
            standing.pages = {int(index): page for index, page in told["pages"].items()}
    finally:
        # However the hearing ended, also in the middle of a line: a worker that hears nobody must not go on serving.
        stop.set()
        transport.close()


async def _report(app: Application) -> None:
    """Send our metrics up, for the worker that shows them."""
    while app.place.index:
        page = await asyncio.to_thread(app.metrics.page)
        await asyncio.to_thread(_write, {"page": page.decode()})
        await asyncio.sleep(WORKER_REPORT_S)


def _write(message: Mapping[str, Any]) -> None:
    """Tell the supervisor; one that is gone is told nothing, and `_obey` notices."""
    line = json.dumps(message).encode() + b"\n"
    with contextlib.suppress(OSError):
        while line:
            line = line[os.write(_OUTPUT, line) :]


def _first_line() -> bytes:
    """Read up to the first newline and not a byte further: the rest of the input is `_obey`'s."""
    line = bytearray()
    while (byte := os.read(_INPUT, 1)) not in (b"", b"\n"):
        line += byte
    return bytes(line)


if __name__ == "__main__":
    sys.exit(main())
