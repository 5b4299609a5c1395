import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from scripted_pdp import ScriptedPdp

from pdp.cli.main import run


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Pdp = Callable[..., Ended]


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PDP_SERVER", "PDP_TOKEN_FILE", "PDP_CA", "PDP_CERT", "PDP_KEY", "PDP_DEBUG", "PDP_PROBES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedPdp]:
    """Return a scripted PDP, to which commands are pointed by the environment."""
    with ScriptedPdp() as made:
        monkeypatch.setenv("PDP_SERVER", made.address)
        yield made


@pytest.fixture
def pdp(capsys: pytest.CaptureFixture[str]) -> Pdp:
    """Return what runs `pdp ARGUMENTS` in this process."""

    def command(*arguments: object) -> Ended:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Ended(code=code, out=out, err=err)

    return command
