"""Formatting rows: nothing is lost, nothing moves, and once is enough."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.engine.casbin_text import Model, parse_model, parse_rows
from pdp.engine.format import format_rows
from tests.spec.generators.worlds import GeneratedWorld, worlds
from tests.spec.test_reference import QUICK

BLANKS = st.sampled_from(("", " ", "  ", "\t"))
POLICIES = Path(__file__).parents[2] / "policies"


@pytest.mark.holds("adv_printing")
@QUICK
@given(world=worlds(), data=st.data())
def test_reading_what_was_formatted_gives_the_same_rows_in_the_same_places(
    world: GeneratedWorld, data: st.DataObject
) -> None:
    lines = []
    for row in world.rows:
        cells = [_written(value, data) for value in (row.section, *row.fields)]
        lines.append(",".join(data.draw(BLANKS) + cell + data.draw(BLANKS) for cell in cells))
        if not data.draw(st.integers(0, 5)):
            lines.append(data.draw(st.sampled_from(("", "  # a remark, with commas  ", "\t"))))
    text = "\n".join(lines)
    before, found = parse_rows(text, file="rows.csv", model=world.model)
    formatted = format_rows(text, file="rows.csv", model=world.model)
    after, found_after = parse_rows(formatted, file="rows.csv", model=world.model)
    assert not found
    assert not found_after
    assert after == before
    assert format_rows(formatted, file="rows.csv", model=world.model) == formatted


def _written(value: str, data: st.DataObject) -> str:
    needed = "," in value or '"' in value
    return '"' + value.replace('"', '""') + '"' if needed or (value and data.draw(st.booleans())) else value


def model() -> Model:
    found, problems = parse_model((POLICIES / "model.conf").read_text(), file="model.conf")
    assert found is not None, problems
    return found


def test_a_line_is_written_one_way() -> None:
    text = '  # why\np,role:a , dataset.read,"dataset/a",dev,"size(resource.tags)>1,x",,  allow\n\n\n'
    wanted = '# why\np, role:a, dataset.read, dataset/a, dev, "size(resource.tags)>1,x", , allow\n'
    assert format_rows(text, file="rows.csv", model=model()) == wanted
    assert format_rows("g, user:a, role:a, dev, _, _", file="rows.csv", model=model()) == "g, user:a, role:a, dev\n"


def test_what_does_not_parse_is_left_alone() -> None:
    text = 'p, "role:a\nq,  x'
    assert format_rows(text, file="rows.csv", model=model()) == text
    assert format_rows("", file="rows.csv", model=model()) == ""


def test_the_shipped_pack_is_formatted() -> None:
    for path in POLICIES.glob("*.csv"):
        assert format_rows(path.read_text(), file=path.name, model=model()) == path.read_text()
