"""`docs/tutorial-admin.md` from its first command to its last: a change proposed, misused, found, traced and rolled back.

Each command of the page is pasted into a shell, and must print what stands under it; `…` there stands for anything.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pdp.demo.child import Child
from tests.support.pages import ROOT

pytestmark = pytest.mark.timeout(300)

PAGE = ROOT / "docs/tutorial-admin.md"
READY = r"ready grpc=(?P<grpc>\S+) probes=\S+ world_seq=\d+"
FREE_PORTS = " --listen 127.0.0.1:0 --probes 127.0.0.1:0"
MARK = "@@ command"


class Step(NamedTuple):
    """A command of the page, and what it prints."""

    command: str
    wanted: str


def steps() -> Iterator[Step]:
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, wanted = step.partition("\n")
            yield Step(command, wanted)


def as_printed(wanted: str) -> re.Pattern[str]:
    """Return what matches a text of the page: columns may be wider, `…` is anything."""
    words = [".*?".join(map(re.escape, word.split("…"))) for word in wanted.split()]
    return re.compile(
        r"\s*" + r"\s+".join(words).replace(r".*?\s+", r".*?\s*").replace(r"\s+.*?", r"\s*.*?") + r"\s*", re.DOTALL
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tutorial")


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PDP_")}
    path = f"{Path(sys.executable).parent}:{ours['PATH']}"
    return ours | {"PATH": path, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"}


def pasted(commands: list[str], place: Path, environment: dict[str, str]) -> list[str]:
    """Paste commands into one shell, and return what each printed, errors included."""
    script = "\n".join(f"echo '{MARK}'\n{command}" for command in commands)
    words = ["/bin/bash", "-c", f"exec 2>&1\n{script}\n"]
    ended = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=280)
    return [part.removeprefix("\n") for part in ended.stdout.split(MARK)[1:]]


@pytest.fixture(scope="module")
def told(place: Path, environment: dict[str, str]) -> list[tuple[Step, str]]:
    every = list(steps())
    (at,) = [number for number, step in enumerate(every) if step.command.startswith("pdp serve")]
    first = pasted([step.command for step in every[:at]], place, environment)
    serve = f"exec {every[at].command.removesuffix(' &')}{FREE_PORTS}"
    child = Child.start("pdp", ["/bin/bash", "-c", serve], log=place / "pdp.log", environment=environment)
    try:
        server = child.wait_for(READY)["grpc"]
        commands = [step.command.replace("127.0.0.1:8181", server) for step in every[at + 1 :]]
        then = pasted(commands, place, environment)
    finally:
        child.stop()
    return list(zip([*every[:at], *every[at + 1 :]], [*first, *then], strict=True))


def test_the_story_goes_as_the_page_tells_it(told: list[tuple[Step, str]], place: Path) -> None:
    for step, printed in told:
        assert as_printed(step.wanted).fullmatch(printed), f"$ {step.command}\n{printed}"
    assert "user:ivan@example.com" in (place / "ivan.html").read_text("utf-8")
