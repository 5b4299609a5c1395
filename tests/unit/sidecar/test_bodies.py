"""Bodies that two servers would read differently, or that ask for more than they say."""

import json
from typing import Any

import pytest

from pdp.errors import Reason
from sidecar.asked import Verdict
from sidecar.bodies import BadBody, Content, read, strict_json
from sidecar.duties import Duties
from sidecar.rewrite import sent_on
from sidecar.routes import Mapped, Row
from sidecar.routes.openai import ROWS

BY_NAME = {row.name: row for row in ROWS}
CHAT = BY_NAME["openai.chat"]


def said(row: Row = CHAT, /, **keys: Any) -> Content | BadBody:
    body = json.dumps({"model": "llama", **keys}).encode()
    return read(row, body, {"content-type": "application/json"})


@pytest.mark.parametrize(
    "keys",
    [
        {"max_tokens": -1},  # llama.cpp and others: until the context is full
        {"max_completion_tokens": -1},
        {"max_completion_tokens": 0},  # `max_completion_tokens or max_tokens`: nought counts as not said
        {"max_output_tokens": 0},
        {"n": 0},
        {"n": -4},
        {"best_of": -1},
        {"best_of": True},
        {"best_of": "8"},
        {"bestOf": 8},
    ],
)
def test_a_number_that_bounds_nothing_is_refused(keys: dict[str, Any]) -> None:
    assert isinstance(said(**keys), BadBody)


def test_a_number_that_means_itself_is_read() -> None:
    content = said(max_tokens=0)
    assert isinstance(content, Content)
    assert content.attributes["request.max_tokens"] == 0


@pytest.mark.parametrize("model", [{}, {"model": None}, {"model": ""}])
def test_a_name_that_the_server_does_not_read_decides_nothing(model: dict[str, Any]) -> None:
    """vLLM takes a missing or empty `model` for its default, and does not look at `model_name`."""
    body = json.dumps({**model, "model_name": "adapter"}).encode()
    assert isinstance(read(CHAT, body, {"content-type": "application/json"}), BadBody)


@pytest.mark.parametrize(("keys", "n"), [({"n": 2}, 2), ({"best_of": 8}, 8), ({"n": 2, "best_of": 8}, 8)])
def test_answers_that_are_computed_and_thrown_away_count(keys: dict[str, Any], n: int) -> None:
    content = said(**keys)
    assert isinstance(content, Content)
    assert content.attributes["request.n"] == n


@pytest.mark.parametrize("text", [rb'"\ud800"', rb'{"a":["x\uDFFFy"]}', rb'{"\ud83dx":1}'])
def test_half_a_character_is_refused(text: bytes) -> None:
    assert isinstance(strict_json(text), BadBody)


def test_a_character_in_two_halves_is_read() -> None:
    assert strict_json(rb'"\ud83d\ude00"') == "\U0001f600"


@pytest.mark.parametrize(
    ("route", "asked", "sent"),
    [
        ("responses", {"max_tokens": 5}, {"max_tokens": 5, "max_output_tokens": 10}),
        ("chat", {"max_output_tokens": 5}, {"max_output_tokens": 5, "max_completion_tokens": 10}),
        ("chat", {"max_tokens": 50}, {"max_tokens": 10}),
        ("completions", {"max_completion_tokens": 50}, {"max_completion_tokens": 10, "max_tokens": 10}),
        ("messages", {"max_output_tokens": 5}, {"max_output_tokens": 5, "max_tokens": 10}),
    ],
)
def test_a_bound_that_the_route_does_not_read_is_none(route: str, asked: dict[str, int], sent: dict[str, int]) -> None:
    row = BY_NAME[f"openai.{route}"]
    content = said(row, **asked)
    assert isinstance(content, Content)
    assert ("request.max_tokens" in content.attributes) is (sent.keys() == asked.keys())
    mapped = Mapped(row=row, resource="endpoint/llama", name="llama")
    verdict = Verdict(allowed=True, reason=Reason.GRANTED, mapped=mapped, duties=Duties(max_tokens=10))
    body = sent_on(verdict, content).body
    assert body is not None
    assert json.loads(body) == {"model": "llama", **sent}
