"""What docs/failure-behaviour.md says that an operator sees is what the software says."""

import re
from pathlib import Path

import pytest

from pdp.errors import Reason

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/failure-behaviour.md").read_text()
SOURCE = "\n".join(path.read_text() for top in ("pdp", "sidecar") for path in (ROOT / top).rglob("*.py"))
_TOLD = re.compile(r"`([^`\n]+)`")
_FRAME = re.compile(r"\d+|: |[NMDIR…{}]{1,3}\b|…")


def cells() -> list[str]:
    """Return what the tables quote in their column of what is seen."""
    found = []
    for line in PAGE.splitlines():
        columns = line.split(" | ")
        if line.startswith("| ") and len(columns) == 4:
            found += [text for text in _TOLD.findall(columns[2]) if not text.startswith(("pdp ", "/"))]
    return found


@pytest.mark.parametrize("text", sorted(set(cells())))
def test_what_an_operator_sees_is_written_somewhere_in_the_software(text: str) -> None:
    pieces = [piece.strip(" ,") for piece in _FRAME.split(text) if len(piece.strip(" ,")) > 3]
    assert pieces
    assert all(piece in SOURCE for piece in pieces), pieces


def test_the_reasons_that_the_page_names_are_reasons() -> None:
    words = {text for text in _TOLD.findall(PAGE) if re.fullmatch(r"[a-z]+_[a-z_]+", text)}
    known = {reason.value for reason in Reason}
    others = {text for text in words - known if text not in SOURCE}
    assert others == set()
