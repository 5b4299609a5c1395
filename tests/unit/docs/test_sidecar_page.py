"""What docs/sidecar.md shows can be pasted: its files are read, and its table of obligations is the code's."""

import re
from pathlib import Path

import pytest
import yaml

from pdp.engine.obligations import OBLIGATIONS
from sidecar.asgi_door import _File
from sidecar.config import load_routes
from sidecar.duties import supported
from sidecar.routes import WEBSOCKET, Placement, Scope
from sidecar.routes.assembly import PROTOCOLS

PAGE = (Path(__file__).parents[3] / "docs/sidecar.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_its_routes_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(BLOCKS[0])
    table = load_routes(file)
    assert table.served["latest"].pinned
    assert [row.name for row in table.rows if row.name.startswith("own.")] == [
        *("own.rank", "own.ask", "own.docs", "own.admin", "own.live")
    ]


def test_its_websockets_are_read(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text("protocols: [openai]\n" + next(block for block in BLOCKS if "realtime" in block))
    rows = [row for row in load_routes(file).rows if row.method == WEBSOCKET]
    assert [(row.name, row.placement) for row in rows] == [
        ("own.live", Placement.EXT_PROC),
        ("own.realtime", Placement.EXT_PROC),  # in place of the protocol's own, which only the middleware has
    ]


def test_it_names_every_protocol() -> None:
    line = next(line for line in BLOCKS[0].splitlines() if line.startswith("protocols:"))
    assert set(PROTOCOLS) <= set(re.findall(r"[a-z][a-z0-9-]+", line))


def test_the_middlewares_file_is_read() -> None:
    assert _File.model_validate(yaml.safe_load(BLOCKS[1])).pdp.address == "pdp.internal:8181"


def test_its_obligations_are_those_that_a_row_supports() -> None:
    section = PAGE.partition("## Obligations")[2].partition("## ")[0]
    shown = set(re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\| (.*?) \|", section, re.MULTILINE))))
    rows = [row for rows in PROTOCOLS.values() for row in rows if row.scope is not Scope.NEVER]
    doors = {name for row in rows for placement in Placement for name in supported(row, placement)}
    assert shown == doors
    assert doors <= set(OBLIGATIONS)


@pytest.mark.parametrize("command", ["run", "serve", "config", "routes", "doctor"])
def test_it_shows_every_command(command: str) -> None:
    assert f"pdp-sidecar {command}" in PAGE or f"config --{command}" in PAGE
