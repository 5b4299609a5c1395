"""`pdp serve --workers N`: one process that decides nothing, and keeps N that do.

    supervisor: holds the gRPC port (SO_REUSEPORT), the probes' socket and the nudge sockets; starts, counts, restarts, ends
      worker 0: gRPC, and the probes and metrics of all
      worker 1 … N-1: gRPC

Every worker is a whole PDP process over the same log: any may take a write, and the compare-and-set on the head decides. The
supervisor holds the sockets: a worker that dies takes no port with it, and the kernel sends new connections to the others.
"""

import asyncio
import contextlib
import json
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from pdp.config import Address, Config
from pdp.errors import ConfigError, PortcullisError, Reason
from pdp.limits import (
    MAX_WORKER_LINE_BYTES,
    WORKER_END_S,
    WORKER_REST_MAX_S,
    WORKER_REST_MIN_S,
    WORKER_STABLE_S,
)
from pdp.server.app import PROBES, Basis, announce, ready_line, signals
from pdp.server.transport import SETTING, bind, reserve
from pdp.server.worker import Spec

_log = structlog.get_logger("pdp")
# `-P`: the directory that the operator happens to be in is no place to import from.
_COMMAND: Final = (sys.executable, "-P", "-m", "pdp.server.worker")


@dataclass(slots=True, kw_only=True, eq=False)
class _Member:
    """One worker, through all its lives."""

    spec: Spec
    process: asyncio.subprocess.Process | None = None
    ready: bool = False
    ever_ready: bool = False
    world_seq: int = 0
    page: str = ""
    failure: PortcullisError | None = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The sockets that it inherits."""
        probes = () if self.spec.probes is None else (self.spec.probes,)
        return (self.spec.inbox, *self.spec.peers, *probes)

    def heard(self, message: dict[str, Any]) -> None:
        """Take in one line of the worker's."""
        if "ready" in message:
            self.ready = self.ever_ready = True
            self.world_seq = message["ready"]
        elif "page" in message:
            self.page = message["page"]
        elif "failed" in message:
            reason, told, advice = message["failed"]
            self.failure = PortcullisError(Reason(reason), told, advice=advice)

    def tell(self, message: bytes) -> None:
        """Send one line to the worker; one that does not read misses it, and gets the next."""
        pipe = self.process.stdin if self.process is not None else None
        if pipe is not None and not pipe.is_closing() and pipe.transport.get_write_buffer_size() == 0:
            pipe.write(message)

    def signal(self, number: int) -> None:
        """Send a signal, if there is a process."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)


async def supervise(basis: Basis, *, say: Callable[[str], None]) -> None:
    """Run the workers of a PDP until SIGTERM or SIGINT; `say` gets the line that tells that all are ready.

    Raises:
        ConfigError: a port is in use.
        PortcullisError: what a worker could not start for, or that one had to be killed at the end.
    """
    stop, hasten = asyncio.Event(), asyncio.Event()
    with signals(stop, hasten), _doors(basis.config) as (specs, address, listener):
        announce(basis)
        crew = Crew(
            specs,
            grace_s=basis.config.grace_s,
            ready=lambda seq: say(ready_line(basis.config, address, listener, seq)),
        )
        await crew.run(stop, hasten)
    _log.info("stopped")


@contextlib.contextmanager
def _doors(config: Config) -> Iterator[tuple[tuple[Spec, ...], Address, socket.socket]]:
    """Open what outlives a worker; yields what each worker is told, where gRPC answers, and the probes' socket."""
    if config.grpc.listen.path:
        raise ConfigError(f"{SETTING}: workers share a port: write HOST:PORT", advice="or serve with one worker")
    with contextlib.ExitStack() as stack:
        door = stack.enter_context(reserve(config.grpc.listen, setting=SETTING))
        listener = stack.enter_context(bind(config.probes.listen, setting=PROBES))
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(config.workers)]
        for pair in pairs:
            stack.enter_context(pair[0])
            stack.enter_context(pair[1])
        address = Address(host=config.grpc.listen.host, port=door.getsockname()[1])
        settled = config.model_copy(update={"grpc": config.grpc.model_copy(update={"listen": address})})
        secret = secrets.token_bytes(32)
        specs = tuple(
            Spec(
                config=settled,
                index=index,
                secret=secret,
                inbox=pairs[index][0].fileno(),
                peers=tuple(pair[1].fileno() for number, pair in enumerate(pairs) if number != index),
                probes=None if index else listener.fileno(),
            )
            for index in range(config.workers)
        )
        yield specs, address, listener


class Crew:
    """The workers: started, restarted and ended together.

    Args:
        specs: what each is told.
        grace_s: how long one may drain.
        ready: called once, with the number of the oldest world held, when all are ready.
    """

    def __init__(self, specs: Sequence[Spec], *, grace_s: float, ready: Callable[[int], None]) -> None:
        self.members = [_Member(spec=spec) for spec in specs]
        self._grace_s = grace_s
        self._ready: Callable[[int], None] | None = ready
        self._stopping = asyncio.Event()

    async def run(self, stop: asyncio.Event, hasten: asyncio.Event) -> None:
        """Keep every worker until `stop`.

        Raises:
            PortcullisError: a worker cannot start, or did not end by itself.
        """
        ending = asyncio.create_task(self._end(stop, hasten))
        try:
            async with asyncio.TaskGroup() as group:
                for member in self.members:
                    group.create_task(self._keep(member))
        except* PortcullisError as errors:
            raise errors.exceptions[0] from None
        finally:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)

    async def _end(self, stop: asyncio.Event, hasten: asyncio.Event) -> None:
        await stop.wait()
        self._stopping.set()
        for event in (None, hasten):
            if event is not None:
                await event.wait()
            for member in self.members:
                member.signal(signal.SIGTERM)

    async def _keep(self, member: _Member) -> None:
        """Live through the lives of one worker."""
        rest_s = WORKER_REST_MIN_S
        while not self._stopping.is_set():
            started_s = time.monotonic()
            code = await self._live(member)
            if self._stopping.is_set():
                return _settled(member, code)
            if member.failure is not None and not member.ever_ready:
                raise member.failure
            lived_s = time.monotonic() - started_s
            rest_s = WORKER_REST_MIN_S if lived_s >= WORKER_STABLE_S else min(2 * rest_s, WORKER_REST_MAX_S)
            _log.error(
                "worker ended", worker=member.spec.index, code=code, said=str(member.failure or ""), rest_s=rest_s
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await self._stopping.wait()
        return None

    async def _live(self, member: _Member) -> int:
        """Run one process of a worker to its end; returns its exit code."""
        process = member.process = await asyncio.create_subprocess_exec(
            *_COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=MAX_WORKER_LINE_BYTES,
            pass_fds=member.descriptors,
            process_group=0,  # a Ctrl-C at the terminal is for the supervisor, which passes it on once
        )
        member.failure = None
        member.tell(member.spec.to_line())
        dying = asyncio.create_task(self._bounded(member))
        try:
            await self._listen(member, process.stdout)
            return await process.wait()
        finally:
            dying.cancel()
            await self._gone(member)

    async def _listen(self, member: _Member, output: asyncio.StreamReader | None) -> None:
        while output is not None and (line := await _line(output)):
            told = _told(line)
            if told is None:  # it was killed in the middle of it, or a library speaks where it should not
                _log.warning("a worker said what is no message", worker=member.spec.index)
                continue
            member.heard(told)
            self._tell()
        member.ready, member.page = False, ""
        self._tell()

    def _tell(self) -> None:
        """Tell every worker how many are ready, and the first what the others count."""
        ready = [member for member in self.members if member.ready]
        if self._ready is not None and len(ready) == len(self.members):
            said, self._ready = self._ready, None
            said(min(member.world_seq for member in ready))
        for member in self.members:
            pages = {} if member.spec.index else {other.spec.index: other.page for other in self.members if other.page}
            member.tell(json.dumps({"ready": len(ready), "pages": pages}).encode() + b"\n")

    async def _bounded(self, member: _Member) -> None:
        """Kill a worker that does not end in its time: a decision log that cannot be closed must not keep a node."""
        await self._stopping.wait()
        await asyncio.sleep(self._grace_s + WORKER_END_S)
        member.signal(signal.SIGKILL)

    async def _gone(self, member: _Member) -> None:
        """Leave no process behind, however we came here."""
        process, member.process = member.process, None
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(self._grace_s + WORKER_END_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _line(output: asyncio.StreamReader) -> bytes:
    """Return the next line; one beyond all bounds counts as an unreadable one."""
    try:
        return await output.readline()
    except ValueError:
        return b"\n"


def _told(line: bytes) -> dict[str, Any] | None:
    """Return the message of a worker's line, or None if it is none."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def _settled(member: _Member, code: int) -> None:
    """Refuse to call an end orderly that was not."""
    if code and member.ever_ready:
        told = f"worker {member.spec.index} ended with {code}: its last records may be missing from the decision log"
        raise PortcullisError(Reason.INTERNAL_ERROR, told, advice="`pdp audit verify` says how far it reaches")
