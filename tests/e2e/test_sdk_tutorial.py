"""The commands of `docs/sdk.md`, pasted into a shell, lead to where its Python starts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pdp.demo.child import Child
from tests.support.pages import ROOT, SDK_PAGE, blocks

READY = r"ready grpc=(?P<grpc>\S+) probes=\S+ world_seq=\d+"
FREE_PORTS = " --listen 127.0.0.1:0 --probes 127.0.0.1:0"

# Two shells with a patience of 90 s each, and a PDP between them.
pytestmark = pytest.mark.timeout(300)


def test_the_commands_lead_to_the_first_question(tmp_path: Path) -> None:
    page = SDK_PAGE.read_text("utf-8")
    block = re.search(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert block is not None
    commands = [line.removeprefix("$ ") for line in block[1].splitlines()]
    (at,) = [number for number, line in enumerate(commands) if line.startswith("pdp serve")]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PDP_")}
    bin_directory = str(Path(sys.executable).parent)
    environment = ours | {"PATH": f"{bin_directory}:{ours['PATH']}", "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}

    def shell(script: str) -> str:
        words = ["/bin/sh", "-ec", script]
        ended = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=90
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    shell("\n".join(commands[:at]))
    serve = f"cd {tmp_path} && exec " + commands[at].removesuffix(" &") + FREE_PORTS
    child = Child.start("pdp", ["/bin/sh", "-c", serve], log=tmp_path / "pdp.log", environment=environment)
    try:
        server = child.wait_for(READY)["grpc"]
        first = next(iter(blocks(SDK_PAGE))).text
        then = [line.replace("127.0.0.1:8181", server) for line in commands[at + 1 :]]
        told = shell("\n".join([*then, f"python - <<'END'\n{first}END"]))
    finally:
        child.stop()
    assert "True granted" in told
