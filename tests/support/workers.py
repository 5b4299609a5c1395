"""A PDP of several processes, started as an operator does; what runs is found by asking the system."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil

from pdp.adapters.clock import SystemClock
from pdp.adapters.follow_grpc import GrpcFeedSource
from pdp.identity.development import DevelopmentIssuer, issue

PATIENCE_S = 30.0
_READY = re.compile(r"ready grpc=(\S+) probes=(\S+) world_seq=(\d+)")


@dataclass(kw_only=True)
class Workers:
    """The processes of one PDP, and where they answer."""

    process: subprocess.Popen[str]
    address: str
    probes: str
    issuer: DevelopmentIssuer
    directory: Path
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def token(self, sub: str, **options: Any) -> str:
        now_s = int(time.time())
        return issue(self.issuer, sub=sub, jti=os.urandom(8).hex(), **{"now_s": now_s} | options)

    def metadata(self, sub: str) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token(sub)}"),)

    def channel(self) -> grpc.aio.Channel:
        """Return a channel with a connection of its own, which the kernel gives to one of the workers."""
        options = (("grpc.use_local_subchannel_pool", 1),)
        self.channels.append(grpc.aio.insecure_channel(self.address, options=options))
        return self.channels[-1]

    def source(self, sub: str) -> GrpcFeedSource:
        path = self.directory / f"{sub}.token"
        path.write_text(self.token(sub))
        return GrpcFeedSource(self.address, clock=SystemClock(), token=path)

    async def close(self) -> None:
        for channel in self.channels:
            await channel.close()
        self.channels.clear()

    def get(self, page: str) -> str:
        with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(f"http://{self.probes}{page}") as got:
            return str(got.read().decode())
        return ""

    def until(self, met: Callable[[], bool]) -> None:
        """Wait until the system shows what another process does; it tells nobody here."""
        end = time.monotonic() + PATIENCE_S
        while not met():
            assert time.monotonic() < end
            time.sleep(0.05)

    def until_whole(self) -> None:
        """Wait until every worker is ready: the readiness page says when one is not."""

        def whole() -> bool:
            page = self.get("/readyz")
            return bool(page) and not any("workers" in text for text in json.loads(page)["degradations"])

        self.until(whole)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextlib.contextmanager
def serving(directory: Path, issuer: DevelopmentIssuer, *more: str, workers: int = 2) -> Iterator[Workers]:
    """Run `pdp serve --workers N` on what `initialised` made in `directory`; every process is gone at the end."""
    command = [
        sys.executable, "-m", "pdp", "serve", "--mode", "development", "--workers", str(workers),
        "--state-dir", str(directory / "state"), "--trust", str(directory / "trust.yaml"),
        "--listen", "127.0.0.1:0", "--probes", "127.0.0.1:0", *more,
    ]  # fmt: skip
    with (directory / "serve.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        said = _READY.match(process.stdout.readline())
        assert said is not None, (directory / "serve.log").read_text()
        yield Workers(process=process, address=said[1], probes=said[2], issuer=issuer, directory=directory)
    finally:
        left = psutil.Process(process.pid).children() if process.poll() is None else []
        if process.poll() is None:
            process.terminate()
        process.stdout.close()
        process.wait(PATIENCE_S)
        _, alive = psutil.wait_procs(left, timeout=PATIENCE_S)
        assert not alive
