"""`docs/casbin.md` is complete: it has every divergence and every code of the specification, under the same names."""

import re
from pathlib import Path

import pytest

from pdp.engine.casbin_codes import CODES, NARROWER, WIDER, divergence_of
from pdp.engine.findings import NAMES, WARNINGS

ROOT = Path(__file__).parents[3]
DESIGN = (ROOT / "docs/design/CASBIN.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs/casbin.md").read_text(encoding="utf-8")

ROWS = {row[1]: row[0] for row in re.finditer(r"^\| (D-\d\d) \|.*$", DESIGN, re.MULTILINE)}
ENTRIES = {part[:4]: part for part in PAGE.split("\n### ")[1:]}


def codes(text: str) -> set[str]:
    return set(re.findall(r"PC\d{3}", text))


def test_the_page_has_the_entries_of_the_specification_in_their_order() -> None:
    assert list(ENTRIES) == list(ROWS) == [f"D-{number:02}" for number in range(1, 54)]


@pytest.mark.parametrize("entry", sorted(ROWS))
def test_each_entry_says_what_either_does_and_how_to_fix_the_file(entry: str) -> None:
    assert re.search(r"^- pycasbin: .+\n- Portcullis: .+\n- Fix: .+", ENTRIES[entry], re.MULTILINE)


@pytest.mark.parametrize("entry", sorted(ROWS))
def test_each_entry_has_the_codes_names_and_marks_of_the_specification(entry: str) -> None:
    row, text = ROWS[entry], ENTRIES[entry]
    assert codes(row) <= codes(text)
    for code, name in re.findall(r"(PC\d{3}) ([a-z_0-9]+)", row):
        assert f"{code} `{name}`" in text
    for mark in (*re.findall(r"deny:[a-z_]+", row), *re.findall(r"\*\*\([NA]\)\*\*", row)):
        assert mark in text


def test_every_code_of_the_specification_stands_on_the_page() -> None:
    assert codes(DESIGN) <= codes(PAGE)


def test_the_table_that_commands_read_is_that_of_the_specification() -> None:
    for entry, row in ROWS.items():
        for code, name in re.findall(r"(PC\d{3}) ([a-z_0-9]+)", row):
            assert (CODES[code], NAMES[code]) == (entry, name)
        for code in re.findall(r"(PC\d{3}) \(W\)", row):
            assert code in WARNINGS
            assert divergence_of(code) == entry
    assert {entry for entry, row in ROWS.items() if "**(N)**" in row} == NARROWER
    assert {entry for entry, row in ROWS.items() if "**(A)**" in row} == WIDER
    assert not divergence_of("PC999")
