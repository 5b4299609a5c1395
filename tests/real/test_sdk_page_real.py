"""The blocks of `docs/sdk.md` that need pandas, datasets or FastAPI run as they stand there."""

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real_server
pytest.importorskip("datasets", reason="needs the environment of `make test-real`")
pd = pytest.importorskip("pandas")

from tests.support.pages import SDK_PAGE, blocks, reader_of_the_page  # noqa: E402 - after the skips


def test_the_blocks_that_need_a_real_tool_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def write(path: Path) -> None:
        pd.DataFrame({"country": ["DE", "FR"], "amount": [1.5, 2.5]}).to_parquet(path)

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    with reader_of_the_page(tmp_path, monkeypatch, write):
        namespace: dict[str, Any] = {}
        for block in blocks(SDK_PAGE):
            if block.needs == "real":
                block.run(namespace)
    told = capsys.readouterr().out
    assert "{'country': 'DE', 'amount': 1.5}" in told
    assert "/models/{name}/{version}" in {route.path for route in namespace["app"].routes}
