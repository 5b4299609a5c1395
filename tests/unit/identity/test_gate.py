"""The gate's own rules, where the table of bad tokens cannot reach: other callers, exact limits, one spelling."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.errors import Reason
from pdp.identity.gate import Credential, decode_base64url, parse, present, read_object, single_value
from pdp.identity.types import Refusal
from pdp.limits import MAX_JSON_DEPTH, MAX_SAFE_INTEGER, MAX_TOKEN_BYTES
from tests.support.tokens import b64, good_token


@given(st.binary(max_size=40))
def test_bytes_have_one_spelling_and_it_is_read_back(raw: bytes) -> None:
    assert decode_base64url(b64(raw).encode()) == raw


@given(st.text(alphabet="AQgwBZaz09-_=+/ .\n", max_size=9))
def test_whatever_decodes_is_what_its_bytes_spell(text: str) -> None:
    found = decode_base64url(text.encode())
    assert found is None or b64(found) == text


@pytest.mark.parametrize(
    "segment", [b"A", b"AAAAA", b"AA==", b"AB", b"AAB", b"A+AA", b"A/AA", b"AA A", b"AAA\n", b"\xff\xff"]
)
def test_no_second_spelling_decodes(segment: bytes) -> None:
    assert decode_base64url(segment) is None


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize("wide", [0, 40])
def test_the_limit_of_nesting_is_exact_however_wide_the_object_is(wide: int) -> None:
    more = b"," + b",".join(b'"w%d":{}' % number for number in range(wide)) if wide else b""
    at, over = nested(MAX_JSON_DEPTH)[:-1] + more + b"}", nested(MAX_JSON_DEPTH + 1)[:-1] + more + b"}"
    assert isinstance(read_object(at, duplicate=Reason.DUPLICATE_CLAIM), dict)
    refusal = read_object(over, duplicate=Reason.DUPLICATE_CLAIM)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.TOKEN_TOO_DEEP


def test_braces_within_a_string_nest_nothing() -> None:
    text = {"a": "{[" * 40, "b": '\\"{[' * 40}
    assert read_object(json.dumps(text).encode(), duplicate=Reason.DUPLICATE_CLAIM) == text


@pytest.mark.parametrize(("number", "good"), [(MAX_SAFE_INTEGER, True), (MAX_SAFE_INTEGER + 1, False)])
@pytest.mark.parametrize("sign", ["", "-"])
def test_the_limit_of_numbers_is_exact(number: int, sign: str, *, good: bool) -> None:
    found = read_object(f'{{"a": {sign}{number}}}'.encode(), duplicate=Reason.DUPLICATE_CLAIM)
    assert isinstance(found, dict) == good
    if isinstance(found, Refusal):
        assert found.reason is Reason.NUMBER_INVALID


@pytest.mark.parametrize("extra", [0, 1])
def test_the_limit_of_a_token_is_exact_in_both_places(extra: int) -> None:
    text = "a" * (MAX_TOKEN_BYTES + extra)
    shown, parsed = present(f"Bearer {text}"), parse(text.encode())
    assert isinstance(shown, Credential) == (extra == 0)
    assert isinstance(parsed, Refusal)
    assert parsed.reason is (Reason.TOKEN_TOO_LARGE if extra else Reason.TOKEN_MALFORMED)


@pytest.mark.parametrize(
    ("values", "joined"),
    [([], None), (["Bearer a"], "Bearer a"), (["Bearer a", "Bearer b"], "Bearer a, Bearer b"), ([""], None)],
)
def test_several_values_of_a_header_stay_several(values: list[str], joined: str | None) -> None:
    assert single_value(values) == joined


def test_a_header_that_is_remembered_cannot_be_written_to() -> None:
    parsed = parse(good_token().encode())
    assert not isinstance(parsed, Refusal)
    with pytest.raises(TypeError):
        parsed.header["alg"] = "none"  # type: ignore[index]


def test_neither_a_credential_nor_a_token_is_printed() -> None:
    compact = good_token()
    shown, parsed = present(f"Bearer {compact}"), parse(compact.encode())
    for part in compact.split("."):
        assert part not in repr(shown)
        assert part not in repr(parsed)
    assert base64.b64encode(b"alice").decode() not in repr(parsed)
