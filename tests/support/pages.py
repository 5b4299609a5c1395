"""Code blocks of a page of documentation, to be run as they stand there."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.pdp import BOB
from tests.support.pdp_thread import ThreadedPdp, threaded_pdp

ROOT = Path(__file__).parents[2]
SDK_PAGE = ROOT / "docs/sdk.md"
_BLOCK = re.compile(r"^```python ?(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Block:
    """One block: what it needs (the word after `python`), its text, and the line it starts on."""

    needs: str
    text: str
    line: int

    def run(self, namespace: dict[str, Any]) -> None:
        padding = "\n" * self.line  # so that a traceback names the line of the page
        exec(compile(padding + self.text, str(SDK_PAGE), "exec"), namespace)  # noqa: S102 - our own page


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(needs=found[1], text=found[2], line=text.count("\n", 0, found.start(2)))
        for found in _BLOCK.finditer(text)
    ]


@contextmanager
def reader_of_the_page(directory: Path, monkeypatch: pytest.MonkeyPatch, write: Any) -> Iterator[ThreadedPdp]:
    """Give a reader what the page asks for: a PDP, a token, mounts; `write(path)` makes the data of `dataset/sales`."""
    (directory / "sales").mkdir()
    write(directory / "sales" / "a.parquet")
    (directory / "mounts.json").write_text(json.dumps({"dataset/sales": str(directory / "sales")}))
    with threaded_pdp(directory / "pdp") as pdp:
        (directory / "token").write_text(pdp.token(BOB))
        monkeypatch.setenv("PDP_SERVER", pdp.server)
        monkeypatch.setenv("PDP_TOKEN_FILE", str(directory / "token"))
        monkeypatch.setenv("PDP_MOUNTS", str(directory / "mounts.json"))
        yield pdp
