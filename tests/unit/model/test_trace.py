"""A trace id is exactly one, or none: what a caller writes there goes into records and logs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.model.trace import trace_id

ID = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    "text",
    [f"00-{ID}-00f067aa0ba902b7-01", f"00-{ID}-00f067aa0ba902b7-00", f"cc-{ID}-00f067aa0ba902b7-01-what-comes-later"],
)
def test_the_id_of_a_trace_is_read(text: str) -> None:
    assert trace_id(text) == ID


@pytest.mark.holds("adv_log_injection")
@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        ID,
        f"ff-{ID}-00f067aa0ba902b7-01",
        f"00-{ID.upper()}-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{ID}-{'0' * 16}-01",
        f"00-{ID}-00f067aa0ba902b7-01-more",
        f"00-{ID}-00f067aa0ba902b7-01,00-{ID}-00f067aa0ba902b7-01",
        f"00-{ID}-00f067aa0ba902b7-01\n",
        f'00-{ID[:-1]}"-00f067aa0ba902b7-01',
    ],
)
def test_what_is_no_trace_is_left_out(text: str | None) -> None:
    assert trace_id(text) == ""


@given(st.text(max_size=80))
def test_nothing_but_hexadecimal_digits_comes_out(text: str) -> None:
    assert set(trace_id(text)) <= set("0123456789abcdef")
