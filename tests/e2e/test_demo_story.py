"""The whole product as its newcomer meets it: `pdp demo`, with the real Envoy, in processes of its own.

Every process of a run inherits a mark in its environment, and a run's directory stands under its own `TMPDIR`: what is
left of either after the run is a leak.
"""

import json
import os
import re
import select
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pdp.demo.child import Child
from pdp.demo.commands import base_environment
from pdp.demo.story import STORY
from tests.support.canaries import canaries

pytestmark = pytest.mark.timeout(240)

MARK = "PORTCULLIS_TEST_RUN"
DEMO = (sys.executable, "-m", "pdp", "demo")


class Run:
    """The surroundings of one run: its mark and its temporary directory."""

    def __init__(self, directory: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.directory = directory
        self.environment = base_environment() | {MARK: self.mark, "TMPDIR": str(directory)}

    def left_behind(self) -> list[str]:
        """Processes and files of the run that still exist."""
        return [*self._processes(), *(str(path) for path in self.directory.iterdir())]

    def _processes(self) -> Iterator[str]:
        for process in psutil.process_iter():
            try:
                ours = process.environ().get(MARK) == self.mark
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    yield " ".join(process.cmdline())
            except psutil.Error:
                continue


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def ended(run: Run) -> subprocess.CompletedProcess[str]:
    command = [*DEMO, "--json"]
    # Fixed program; nothing of it comes from outside.
    return subprocess.run(command, capture_output=True, text=True, check=False, env=run.environment, timeout=200)


@pytest.fixture(scope="module")
def told(ended: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    try:
        return list(json.loads(ended.stdout)["steps"])
    except ValueError:
        pytest.fail(f"exit code {ended.returncode}\n{ended.stdout}\n{ended.stderr}")


@pytest.mark.parametrize("index", range(len(STORY)), ids=[step.name.replace(" ", "-") for step in STORY])
def test_the_step_goes_as_promised(told: list[dict[str, Any]], index: int) -> None:
    step = told[index]
    assert step["name"] == STORY[index].name
    assert step["actual"] == STORY[index].expected, step["detail"]


def test_the_exit_code_says_that_all_went_as_promised(ended: subprocess.CompletedProcess[str]) -> None:
    assert ended.returncode == 0


def test_the_cut_is_measured(told: list[dict[str, Any]]) -> None:
    measured = " ".join(step["measured"] for step in told)
    assert re.search(r"\d+ ms", measured)


def test_no_process_and_no_file_is_left(run: Run, ended: subprocess.CompletedProcess[str]) -> None:
    assert ended.returncode in {0, 1}
    assert run.left_behind() == []


# `pdp demo --keep`: the printed lines work as printed, and Ctrl-C clears everything away.


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def demo(kept: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    log = tmp_path_factory.mktemp("log") / "demo.log"
    demo = Child.start("demo", [*DEMO, "--keep"], log=log, environment=kept.environment)
    demo.wait_for("The stage stands until Ctrl-C", 200)
    yield demo
    demo.stop()


@pytest.fixture(scope="module")
def lines(demo: Child) -> dict[str, str]:
    """The printed lines by what stands above them."""
    return dict(re.findall(r"^# (.+)\n(.+)$", demo.log.read_text(encoding="utf-8"), re.MULTILINE))


def paste(kept: Run, lines: dict[str, str], purpose: str) -> subprocess.CompletedProcess[str]:
    script = f"{lines['where everything is']}\n{lines[purpose]}\n"
    # The line under test is pasted into a shell exactly as its reader would do it.
    return subprocess.run(
        ["/bin/bash", "-c", script], capture_output=True, text=True, check=False, env=kept.environment, timeout=60
    )


def test_the_model_answers_its_application(kept: Run, lines: dict[str, str]) -> None:
    answer = json.loads(paste(kept, lines, "sam asks the model").stdout)
    assert answer["model_name"] == "digits"


def test_the_model_is_closed_to_a_notebook(kept: Run, lines: dict[str, str]) -> None:
    answer = json.loads(paste(kept, lines, "the same from a notebook: forbidden").stdout)
    assert answer["decision_id"]
    assert "outputs" not in answer


@pytest.mark.parametrize(
    "purpose",
    [
        "may dana read the training data",
        "what happened",
        "which locks are there",
        "is the record whole",
        "does it tell the truth: each decision made again",
        "what sam did, and who let them",
    ],
)
def test_the_command_succeeds(kept: Run, lines: dict[str, str], purpose: str) -> None:
    ended = paste(kept, lines, purpose)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_printed_lock_cuts_the_printed_stream_and_the_printed_unlock_ends_it(
    kept: Run, lines: dict[str, str], tmp_path: Path
) -> None:
    script = f"{lines['where everything is']}\n{lines['a stream; leave it running']}\n"
    stream = Child.start("curl", ["/bin/bash", "-c", script], log=tmp_path / "log", environment=kept.environment)
    try:
        stream.wait_for('"digit"')
        assert paste(kept, lines, "… and cut it from a second terminal").returncode == 0
        stream.wait_for(r"curl: \(\d+\)")
    finally:
        stream.stop()
    assert paste(kept, lines, "… and give access back").returncode == 0
    assert "model_name" in paste(kept, lines, "sam asks the model").stdout


@pytest.mark.holds("S9", "adv_secret_leak")
def test_no_token_and_no_key_is_in_anything_that_the_whole_stage_said_or_wrote(kept: Run, demo: Child) -> None:
    """PDP, gate, Envoy, model server, auditor and the commands of the story: their logs, decision logs, stores and pages."""
    (stage,) = kept.directory.iterdir()
    files = {path: path.read_bytes() for path in stage.rglob("*") if path.is_file()}
    tokens = {text.strip() for path, text in files.items() if path.suffix == ".token"}
    assert len(tokens) > 5
    secrets = canaries(stage) | tokens | {token.rpartition(b".")[2] for token in tokens}
    said = {path: text for path, text in files.items() if path.suffix not in {".token", ".pem"}}
    said[demo.log] = demo.log.read_bytes()
    assert any(b"user:sam@demo.portcullis" in text for path, text in said.items() if "audit" in path.parts)
    assert sum(path.suffix == ".log" for path in said) > 3
    assert [str(path) for path, text in said.items() if any(secret in text for secret in secrets)] == []


def test_ctrl_c_clears_everything_away(kept: Run, demo: Child) -> None:
    process = os.pidfd_open(demo.pid)
    os.kill(demo.pid, signal.SIGINT)
    os.kill(demo.pid, signal.SIGTERM)  # as an impatient user does; the clearing away goes on
    ended, _, _ = select.select([process], [], [], 60)
    os.close(process)
    assert ended, demo.log.read_text(encoding="utf-8")
    assert kept.left_behind() == []
