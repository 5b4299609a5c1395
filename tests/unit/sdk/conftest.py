import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from scripted_pdp import ScriptedPdp

from pdp.sdk import Client


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PDP_SERVER", "PDP_TOKEN_FILE", "PDP_CA", "PDP_CERT", "PDP_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def pdp() -> Iterator[ScriptedPdp]:
    with ScriptedPdp() as server:
        yield server


@pytest.fixture
def client(pdp: ScriptedPdp) -> Iterator[Client]:
    # Nothing kept: these tests are about what travels.
    with Client(pdp.address, token="a.b.c", cache_s=0) as made:
        yield made


@pytest.fixture
def nobody() -> Callable[[], str]:
    """Return an address on which nothing listens."""

    def address() -> str:
        with ScriptedPdp() as gone:
            return gone.address

    return address
