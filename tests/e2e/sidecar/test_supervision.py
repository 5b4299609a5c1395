"""Envoy as a child: restarted when killed, gone when we are gone, its files private."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from sidecar import supervisor
from sidecar.envoy import Sockets
from sidecar.envoy_names import Address
from sidecar.limits import LIMITS
from sidecar.supervisor import EnvoyError

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, never written
INFER = "/v2/models/fraud/infer"


def shared_memory() -> set[Path]:
    return set(SHARED_MEMORY.glob("envoy_shared_memory_*"))


def test_a_killed_envoy_is_restarted(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        first = lab.plane.envoy.pid
        assert await lab.readiness.get() is True
        os.kill(first, signal.SIGKILL)
        assert await asyncio.wait_for(lab.readiness.get(), 10) is False
        assert await asyncio.wait_for(lab.readiness.get(), 10) is True
        lab.address = await lab.plane.envoy.address()
        assert b"200 OK" in await lab.post(INFER)
        assert lab.plane.envoy.restarts == 1

    in_lab(body)


def test_files_and_sockets_are_ours_alone(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        directory = lab.sockets.directory
        assert directory.stat().st_mode & 0o777 == 0o700
        for path in directory.iterdir():
            assert path.stat().st_mode & 0o077 == 0, path

    in_lab(body)


def test_no_process_and_no_shared_memory_stays(in_lab: Callable[..., None]) -> None:
    before = shared_memory()
    pids: list[int] = []

    async def body(lab: Any) -> None:
        pids.append(lab.plane.envoy.pid)

    in_lab(body)
    assert not psutil.pid_exists(pids[0])
    assert shared_memory() == before


def test_a_port_in_use_is_one_line(in_lab: Callable[..., None]) -> None:
    async def body(lab: Any) -> None:
        del lab

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EnvoyError, match="in use"):
            in_lab(body, listen=Address(host="127.0.0.1", port=port))


def test_a_killed_sidecar_takes_its_envoy_along(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import asyncio, sys
        from pathlib import Path
        from sidecar.envoy import *
        from sidecar.envoy_names import *
        from sidecar.supervisor import *
        async def main():
            sockets = Sockets(directory=Path(sys.argv[1]))
            settings = EnvoySettings(listen=Address(host="127.0.0.1", port=0), sockets=sockets, rows=(),
                upstream=Upstream(address=Address(host="127.0.0.1", port=9)))
            envoy = EnvoyProcess(config=prepare(settings), sockets=sockets)
            await envoy.start()
            print(envoy.pid, flush=True)
            await asyncio.Event().wait()
        asyncio.run(main())
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "s")], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    ) as sidecar:
        envoy = psutil.Process(int(sidecar.stdout.readline()))
        sidecar.kill()
        sidecar.wait(10)
    envoy.wait(10)


def test_a_hung_envoy_is_ended_and_its_successor_serves(
    in_lab: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "LIMITS", replace(LIMITS, hang_look_s=0.1, hang_misses=2))

    async def body(lab: Any) -> None:
        first = lab.plane.envoy.pid
        assert await lab.readiness.get() is True
        os.kill(first, signal.SIGSTOP)
        assert await asyncio.wait_for(lab.readiness.get(), 10) is False
        assert await asyncio.wait_for(lab.readiness.get(), 10) is True
        assert not psutil.pid_exists(first)
        lab.address = await lab.plane.envoy.address()
        assert b"200 OK" in await lab.post(INFER)

    in_lab(body)


def test_a_configuration_that_envoy_refuses_opens_nothing(tmp_path: Path) -> None:
    """A config error is one line from Envoy, before a socket is opened."""
    config = tmp_path / "envoy.json"
    config.write_text('{"static_resources": {"listeners": [{"name": "open", "nonsense": 1}]}}')
    with pytest.raises(EnvoyError, match="nonsense"):
        asyncio.run(supervisor.validate(config))


def test_restarts_wait_longer_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An Envoy that serves and dies at once is not started in a busy loop."""
    pauses: list[float] = []

    async def run() -> None:
        sockets = Sockets(directory=tmp_path / "s")
        envoy = supervisor.EnvoyProcess(config=tmp_path / "none", sockets=sockets)
        envoy._served = True
        enough = asyncio.Event()

        async def dies() -> None:
            await asyncio.Event().wait() if enough.is_set() else None

        async def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 9:
                enough.set()

        monkeypatch.setattr(envoy, "_run_once", dies)
        monkeypatch.setattr(supervisor.asyncio, "sleep", pause)
        keeper = asyncio.create_task(envoy._keep())
        await enough.wait()
        keeper.cancel()

    asyncio.run(run())
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert max(pauses) == LIMITS.restart_cap_s
