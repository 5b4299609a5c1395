import pytest

from pdp.engine.cursor import Cursor, read_cursor, write_cursor
from pdp.errors import BadRequestError

SECRET = b"s" * 32
QUERY = {"list": "who-can", "action": "dataset.read", "resource": "dataset/a"}
CURSOR = Cursor(offset=20, world_seq=7, now_ms=1_790_000_000_000)


def test_a_cursor_comes_back_as_it_was_written() -> None:
    text = write_cursor(CURSOR, query=QUERY, secret=SECRET)
    assert read_cursor(text, query=QUERY, secret=SECRET) == CURSOR


@pytest.mark.holds("S11", "adv_cursor")
@pytest.mark.parametrize(
    ("query", "secret"),
    [({**QUERY, "resource": "dataset/b"}, SECRET), ({**QUERY, "more": ""}, SECRET), (QUERY, b"t" * 32)],
)
def test_a_cursor_is_good_for_its_own_query_and_pdp_only(query: dict[str, str], secret: bytes) -> None:
    text = write_cursor(CURSOR, query=QUERY, secret=SECRET)
    with pytest.raises(BadRequestError, match="another query"):
        read_cursor(text, query=query, secret=secret)


@pytest.mark.holds("S11", "adv_cursor")
def test_a_cursor_that_was_touched_is_refused() -> None:
    text = write_cursor(CURSOR, query=QUERY, secret=SECRET)
    for at in range(len(text)):
        other = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        with pytest.raises(BadRequestError):
            read_cursor(other, query=QUERY, secret=SECRET)
    for other in ("", "x", "é", text[:-4], text + text, "A" * 10_000):
        with pytest.raises(BadRequestError):
            read_cursor(other, query=QUERY, secret=SECRET)
