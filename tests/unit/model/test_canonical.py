"""Canonical bytes: one value has one spelling, and two values never share one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.errors import BadRequestError
from pdp.model import canonical

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_a_value_reads_back_from_its_bytes(value: object) -> None:
    assert canonical.loads(canonical.dumps(value)) == value


@pytest.mark.holds("K3", "adv_cache_key")
@given(VALUES, VALUES)
def test_different_spellings_mean_different_values(one: object, other: object) -> None:
    if repr(one) != repr(other) and canonical.dumps(one) == canonical.dumps(other):
        assert one == other  # the same object with its keys in another order


@pytest.mark.holds("G8")
@pytest.mark.parametrize(
    "raw",
    [b'{"a":1,"a":2}', b'{"b":1,"a":2}', b'{ "a":1}', b'"\\u0061"', b"1.0e0", b"NaN", b"Infinity", b"01", b"1 ", b"",
     b"\xef\xbb\xbf1", b'"\xc3\xa9"', b"[" * 100_000],
)  # fmt: skip
def test_bytes_that_are_not_canonical_are_refused(raw: bytes) -> None:
    with pytest.raises(BadRequestError):
        canonical.loads(raw)


@pytest.mark.holds("G7", "G8")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: "a"}, {True: "a"}, b"bytes", {"a": object()}])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        canonical.dumps(value)


@pytest.mark.holds("K1", "adv_cache_key")
def test_parts_of_a_digest_cannot_be_shifted_into_each_other() -> None:
    assert canonical.digest("d", b"ab", b"c") != canonical.digest("d", b"a", b"bc")
    assert canonical.digest("d", b"a") != canonical.digest("e", b"a")
    assert canonical.digest("d", b"") != canonical.digest("d")
