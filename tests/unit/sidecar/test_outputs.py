"""Stripping a model's confidence from replies: every shape it hides in, and no reply that cannot be read."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.duties import Strip
from sidecar.outputs import Lister, StripError, Stripper


def stripped(strip: str, value: Any) -> Any:
    return json.loads(Stripper(Strip.parse(strip)).whole(json.dumps(value).encode()))


CHAT = {
    "choices": [
        {
            "message": {"content": "a"},
            "logprobs": {
                "content": [
                    {
                        "token": "a",
                        "logprob": -0.1234,
                        "top_logprobs": [{"token": "a", "logprob": -0.1234}, {"token": "b", "logprob": -2.5}],
                    }
                ]
            },
        }
    ]
}
COMPLETION = {
    "choices": [{"text": "a", "logprobs": {"token_logprobs": [-0.1234], "top_logprobs": [{"a": -0.1, "b": -2}]}}]
}


def test_log_probabilities_go() -> None:
    assert stripped("logprobs", CHAT)["choices"][0]["logprobs"] is None
    assert stripped("probabilities", COMPLETION)["choices"][0]["logprobs"] is None
    assert stripped("logprobs", {"prompt_logprobs": [{"a": -1}]}) == {"prompt_logprobs": None}


def test_only_the_likeliest_stays() -> None:
    kept = stripped("all-but-top-1", CHAT)["choices"][0]["logprobs"]["content"][0]
    assert kept["top_logprobs"] == [{"token": "a", "logprob": -0.1234}]
    assert stripped("all-but-top-1", COMPLETION)["choices"][0]["logprobs"]["top_logprobs"] == [{"a": -0.1}]


def test_numbers_are_rounded_wherever_they_stand() -> None:
    kept = stripped("round:1", CHAT)["choices"][0]["logprobs"]["content"][0]
    assert kept["logprob"] == -0.1
    assert kept["top_logprobs"][0]["logprob"] == -0.1
    assert stripped("round:1", COMPLETION)["choices"][0]["logprobs"]["token_logprobs"] == [-0.1]


@pytest.mark.parametrize("name", ["probabilities", "predict_proba", "Scores", "class_confidence", "logits"])
def test_outputs_that_tell_confidence_go_by_name(name: str) -> None:
    outputs = [{"name": name, "datatype": "FP32", "shape": [1], "data": [0.5]}]
    assert stripped("probabilities", {"outputs": outputs}) == {"outputs": []}


@pytest.mark.parametrize(
    "output",
    [
        {"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}},
        {"name": "y", "datatype": "FP32", "data": [0.1]},
        {"name": "y", "datatype": "FP32", "shape": [2], "data": ["a"]},
        "y",
    ],
)
def test_an_output_that_cannot_be_read_is_not_passed_on(output: Any) -> None:
    with pytest.raises(StripError):
        stripped("round:2", {"outputs": [output]})


@pytest.mark.parametrize("body", [b"", b"[1]", b'{"a":1,"a":2}', b"0.5"])
def test_a_reply_that_cannot_be_read_is_not_passed_on(body: bytes) -> None:
    with pytest.raises(StripError):
        Stripper(Strip.parse("logprobs")).whole(body)


EVENTS = b'event: x\ndata: {"logprobs":1,"i":0}\n\n: a comment\r\n\r\ndata: {"i":1}\n\ndata: [DONE]\n\n'


@given(cuts=st.lists(st.integers(0, len(EVENTS)), max_size=8))
def test_however_a_stream_is_cut_into_chunks_the_same_goes_on(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(EVENTS)]
    stripper = Stripper(Strip.parse("logprobs"))
    out = b"".join(stripper.events(EVENTS[start:end], last=False) for start, end in itertools.pairwise(edges))
    out += stripper.events(b"", last=True)
    assert out == (b'event: x\ndata: {"logprobs":null,"i":0}\n\n: a comment\r\n\r\ndata: {"i":1}\n\ndata: [DONE]\n\n')


def test_half_an_event_at_the_end_is_not_passed_on() -> None:
    stripper = Stripper(Strip.parse("logprobs"))
    assert stripper.events(b'data: {"logprobs', last=False) == b""
    with pytest.raises(StripError):
        stripper.events(b"", last=True)


@pytest.mark.parametrize(
    ("listed", "shown"),
    [
        ({"data": [{"id": "a"}, {"id": "b"}], "object": "list"}, {"data": [{"id": "a"}], "object": "list"}),
        ({"models": ["b", "a"]}, {"models": ["a"]}),
        ([{"name": "a", "state": "READY"}, {"name": "b"}], [{"name": "a", "state": "READY"}]),
        ({"models": []}, {"models": []}),
    ],
)
def test_a_list_keeps_what_may_be_seen(listed: Any, shown: Any) -> None:
    assert json.loads(Lister(frozenset({"a"})).whole(json.dumps(listed).encode())) == shown


@pytest.mark.parametrize("listed", [{}, {"models": "a"}, {"data": [1]}, {"data": [{}]}, "a", 1])
def test_a_list_of_no_known_shape_is_not_passed_on(listed: Any) -> None:
    with pytest.raises(StripError):
        Lister(frozenset({"a"})).whole(json.dumps(listed).encode())
