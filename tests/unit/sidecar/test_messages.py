"""gRPC messages cut out of a byte stream: however it is chopped, and never one that was not whole."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.limits import LIMITS
from sidecar.messages import BadMessageError, Counter, Framer, framed

MESSAGES = st.lists(st.binary(max_size=40), max_size=6)


def chopped(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(messages=MESSAGES, cuts=st.lists(st.integers(0, 400), max_size=10))
def test_messages_come_whole_and_in_order(messages: list[bytes], cuts: list[int]) -> None:
    framer, counter = Framer(), Counter()
    chunks = chopped(b"".join(framed(one) for one in messages), cuts)
    assert [one for chunk in chunks for one in framer.feed(chunk)] == messages
    assert not framer.partial
    assert sum(counter.feed(chunk) for chunk in chunks) == len(messages)


def test_half_a_message_is_held() -> None:
    framer = Framer()
    assert list(framer.feed(framed(b"whole") + framed(b"half")[:-1])) == [b"whole"]
    assert framer.partial


@pytest.mark.parametrize("flag", [1, 2, 255])
def test_a_compressed_message_is_refused(flag: int) -> None:
    with pytest.raises(BadMessageError):
        list(Framer().feed(bytes([flag]) + framed(b"x")[1:]))


def test_a_message_that_is_too_long_to_hold_is_refused_by_its_prefix() -> None:
    with pytest.raises(BadMessageError):
        list(Framer().feed(b"\0" + (LIMITS.body_bytes + 1).to_bytes(4, "big")))
