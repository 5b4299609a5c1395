"""A process of the stage: its lines are waited for, its end is noticed, and nothing of it is left behind."""

import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import psutil
import pytest

from pdp.demo.child import Child, StageError
from pdp.demo.commands import base_environment


class Starter(Protocol):
    def __call__(self, program: str) -> Child: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    children: list[Child] = []

    def begin(program: str) -> Child:
        command = [sys.executable, "-u", "-c", program]
        children.append(Child.start("actor", command, log=tmp_path / "actor.log", environment=os.environ))
        return children[-1]

    yield begin
    for child in children:
        child.stop()


def test_a_line_is_waited_for_and_its_groups_are_returned(start: Starter) -> None:
    child = start("import signal; print('noise'); print('listening on :4711'); signal.pause()")
    assert child.wait_for(r"listening on :(\d+)")[1] == "4711"
    assert child.running


def test_a_process_that_dies_before_it_is_ready_is_an_error_with_its_last_words(start: Starter) -> None:
    child = start("raise SystemExit('the port is taken')")
    with pytest.raises(StageError, match="actor: ended before it was ready") as refused:
        child.wait_for("ready")
    assert refused.value.last_words == ("the port is taken",)


def test_a_process_that_says_nothing_in_time_is_an_error(start: Starter) -> None:
    child = start("import signal; signal.pause()")
    with pytest.raises(StageError, match=r"not ready after 0\.01 s"):
        child.wait_for("ready", timeout_s=0.01)


def test_a_program_that_does_not_exist_is_an_error_without_a_traceback(tmp_path: Path) -> None:
    child = Child.start("actor", ["/no/such/program"], log=tmp_path / "log", environment={})
    with pytest.raises(StageError) as refused:
        child.wait_for("ready")
    child.stop()
    assert refused.value.last_words == ("cannot start `/no/such/program`: No such file or directory",)


def test_a_process_that_ended_unnoticed_is_not_waited_for_in_vain(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    notice = threading.Event()
    waitid = os.waitid
    monkeypatch.setattr(os, "waitid", lambda *asked: (notice.wait(60), waitid(*asked))[1])
    child = start("print('bye')")
    process = os.pidfd_open(child.pid)
    select.select([process], [], [], 60)
    os.close(process)
    threading.Timer(0.05, notice.set).start()
    child.stop()
    assert not child.running


STAGE = """
import os, signal, sys
from pathlib import Path
from pdp.demo.child import Child
program = "import os, signal; print('up', os.getpid(), flush=True); signal.pause()"
child = Child.start("actor", [sys.executable, "-c", program], log=Path(sys.argv[1]), environment=os.environ)
print(child.wait_for(r"up (\\d+)")[1], flush=True)
signal.pause()
"""


def test_a_process_ends_with_a_stage_that_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STAGE, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=base_environment()) as stage:
        assert stage.stdout is not None
        actor = os.pidfd_open(int(stage.stdout.readline()))
        stage.kill()
    ended, _, _ = select.select([actor], [], [], 10)
    os.close(actor)
    assert ended


def test_the_output_is_kept_in_the_log(start: Starter) -> None:
    child = start("print('first'); print('second')")
    child.wait_for("second")
    child.stop()
    assert child.log.read_text(encoding="utf-8") == "first\nsecond\n"


def test_stop_ends_the_process_and_may_be_called_twice(start: Starter) -> None:
    child = start("import signal; print('up'); signal.pause()")
    child.wait_for("up")
    child.stop()
    child.stop()
    assert not psutil.pid_exists(child.pid)


def test_a_process_deaf_to_sigterm_is_killed(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdp.demo.child.LIMITS", type("Short", (), {"stop_s": 0.05, "start_s": 60}))
    child = start(
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up')\nwhile True: signal.pause()"
    )
    child.wait_for("up")
    child.stop()
    assert not psutil.pid_exists(child.pid)


def test_a_grandchild_that_outlives_its_parent_is_killed_too(start: Starter) -> None:
    program = (
        "import subprocess, sys; held = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']);"
        "print('grandchild', held.pid); import signal; signal.pause()"
    )
    child = start(program)
    grandchild = os.pidfd_open(int(child.wait_for(r"grandchild (\d+)")[1]))
    child.stop()
    # Readable once the process has ended, whether or not its new parent has reaped it yet.
    ended, _, _ = select.select([grandchild], [], [], 10)
    os.close(grandchild)
    assert ended
