"""The pytest plug-in: a fixture `pdp_world`, by which a user's own code is tested against a user's own pack.

    # pyproject.toml:  [tool.pytest.ini_options]  pdp_pack = "policies"

    def test_ann_reads_sales(pdp_world):
        world = pdp_world(rows="g, user:ann, role:viewer, dev", assets={"dataset/sales": {"environment": "dev"}})
        assert world.client("user:ann").check("dataset.list", "dataset/sales").allowed

It imports nothing of Portcullis until a test asks for it. Needs the extra `server`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pdp.sdk.testing import PackWorld


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare where the pack is."""
    parser.addini("pdp_pack", "directory of the policy pack that `pdp_world` takes where a test names none", default="")


@pytest.fixture
def pdp_world(request: pytest.FixtureRequest) -> "Callable[..., PackWorld]":
    """Return a function that makes a world: `pdp_world(pack=None, *, rows="", assets={}, now=None)`."""

    def make(pack: str | Path | None = None, **options: Any) -> "PackWorld":
        from pdp.sdk.testing import PackWorld  # noqa: PLC0415 - only where it is used: every pytest run loads this file

        configured = request.config.getini("pdp_pack")
        if pack is None and not configured:
            raise pytest.UsageError("pdp_world: name a pack, or set `pdp_pack` in pytest's configuration")
        return PackWorld(request.config.rootpath / (pack or configured), **options)

    return make
