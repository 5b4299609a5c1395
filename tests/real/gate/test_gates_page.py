"""`docs/gates.md`, pasted into a shell from top to bottom: real KServe, BentoML and Envoy, and what it says they answer."""

import os
import re
import sys
from pathlib import Path

import pytest

from pdp.demo.child import Child
from sidecar.supervisor import binary
from tests.support.model_servers import PROGRAMS, ROOT, free_ports

pytestmark = [pytest.mark.real_server, pytest.mark.timeout(240)]
PAGE = (ROOT / "docs/gates.md").read_text("utf-8")
PORTS = ("8181", "8183", "8080", "8081", "9081", "9082", "9084", "10000", "3000", "8000")
PATIENCE_S = 180.0
# BentoML's workers are in sessions of their own: only who asks BentoML to end ends them. dash's `$(jobs -p)` is empty.
ENDING = """trap 'trap "" TERM; jobs -p > jobs; kill $(cat jobs); wait' EXIT; trap 'exit 1' TERM"""


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def on_ports(text: str, ports: dict[str, str]) -> str:
    return re.sub(r"(127\.0\.0\.1:|_port |--port )(\d+)", lambda found: found[1] + ports[found[2]], text)


def prepared(directory: Path) -> dict[str, str]:
    """Lay out what the page has its reader install; return the environment of the reader's shell."""
    for server, place in (("kserve", "kserve"), ("bentoml", "bento")):
        if not (ROOT / f".venv-real-{server}").exists():
            pytest.skip(f"{server} is not installed here: `make test-real` does that")
        (directory / place).symlink_to(ROOT / f".venv-real-{server}")
    for place, text in (
        ("vllm/bin/vllm", f'exec {sys.executable} {PROGRAMS / "vllm_stand_in.py"} "$@"'),
        ("bin/envoy", f'exec {binary()} "$@"'),
    ):
        (directory / place).parent.mkdir(parents=True)
        (directory / place).write_text(f"#!/bin/sh\n{text}\n")
        (directory / place).chmod(0o755)
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PDP_")}
    path = f"{directory / 'bin'}:{Path(sys.executable).parent}:{ours['PATH']}"
    return ours | {"PATH": path, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


def test_the_page_can_be_pasted(tmp_path: Path) -> None:
    environment = prepared(tmp_path)
    ports = dict(zip(PORTS, (str(port) for port in free_ports(len(PORTS))), strict=True))
    script = on_ports("\n".join([ENDING, *blocks("sh"), "echo the end"]), ports)
    log = tmp_path / "reader.log"
    reader = Child.start("reader", ["/bin/sh", "-ec", script], log=log, environment=environment)
    try:
        reader.wait_for(r"^the end$", PATIENCE_S)
    finally:
        reader.stop()
    said = log.read_text("utf-8")
    shown = [line for block in blocks("text") for line in block.splitlines()]
    for line in shown:  # in the order of the page
        found = re.search(re.escape(line).replace("…", ".*?"), said)
        assert found is not None, (line, said)
        said = said[found.end() :]
    assert len(shown) > 8
    assert '"model":"meta-llama/Llama-3.1-8B-Instruct"' in (tmp_path / "answer.json").read_text()
    assert "endpoint/fraud-dev" in said  # the audit log, at the end
