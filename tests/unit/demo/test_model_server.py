"""The demonstration's model server, driven through its ASGI application."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from pdp.demo.classifier import DigitClassifier, held_out_images, train
from pdp.demo.model_server import Serving, StreamCounts, build_app

Message = MutableMapping[str, Any]


@pytest.fixture(scope="module")
def classifier() -> DigitClassifier:
    return train()


@pytest.fixture
def serving(classifier: DigitClassifier) -> Serving:
    return Serving(classifier=classifier, models=frozenset({"digits"}), version="1", streams=StreamCounts())


@pytest.fixture
def app(serving: Serving) -> Starlette:
    return build_app(serving)


def call(app: Starlette, method: str, path: str, **options: Any) -> httpx.Response:
    async def once() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://model") as client:
            return await client.request(method, path, **options)

    return asyncio.run(once())


def tensor(rows: int = 1, **changed: object) -> dict[str, object]:
    data = held_out_images().images[:rows].ravel().tolist()
    return {"name": "image", "shape": [rows, 64], "datatype": "FP64", "data": data} | changed


def test_the_classifier_is_right_about_images_it_never_saw(classifier: DigitClassifier) -> None:
    assert classifier.accuracy > 0.95


def test_the_held_out_images_are_the_same_in_every_process() -> None:
    program = "from pdp.demo.classifier import held_out_images as h; print(h().digits[:20].tolist())"
    # Fixed program and interpreter; nothing of it comes from outside.
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert json.loads(output) == held_out_images().digits[:20].tolist()


def test_infer_tells_the_true_digit_of_a_held_out_image(app: Starlette) -> None:
    answer = call(app, "POST", "/v2/models/digits/infer", json={"id": "a7", "inputs": [tensor(3)]})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["model_name"], body["model_version"], body["id"]) == ("digits", "1", "a7")
    digit, probabilities = body["outputs"]
    assert digit == {"name": "digit", "datatype": "INT64", "shape": [3], "data": held_out_images().digits[:3].tolist()}
    assert probabilities["shape"] == [3, 10]
    assert sum(probabilities["data"]) == pytest.approx(3)


def test_infer_returns_only_the_outputs_asked_for(app: Starlette) -> None:
    body = {"inputs": [tensor()], "outputs": [{"name": "digit"}]}
    answer = call(app, "POST", "/v2/models/digits/infer", json=body).json()
    assert [output["name"] for output in answer["outputs"]] == ["digit"]


def test_infer_takes_nested_data_as_the_protocol_says(app: Starlette) -> None:
    nested = held_out_images().images[:2].tolist()
    answer = call(app, "POST", "/v2/models/digits/infer", json={"inputs": [tensor(2, data=nested)]})
    assert answer.json()["outputs"][0]["data"] == held_out_images().digits[:2].tolist()


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "must be an object"),
        (b"{}", "exactly one tensor"),
        (json.dumps({"id": 7, "inputs": [tensor()]}), "`id` must be a string"),
        (json.dumps({"inputs": [tensor(), tensor()]}), "exactly one tensor"),
        (json.dumps({"inputs": [tensor(name="picture")]}), "must be named `image`"),
        (json.dumps({"inputs": [tensor(datatype="BYTES")]}), "datatype `FP64`"),
        (json.dumps({"inputs": [tensor(shape=[64])]}), "`shape` must be [n, 64]"),
        (json.dumps({"inputs": [tensor(shape=[True, 64])]}), "whole number"),
        (json.dumps({"inputs": [tensor(shape=[0, 64])]}), "whole number"),
        (json.dumps({"inputs": [tensor(shape=[2, 64])]}), "128 numbers"),
        (json.dumps({"inputs": [tensor(data=[17.0] * 64)]}), "numbers from 0 to 16"),
        (json.dumps({"inputs": [tensor(data=[True] * 64)]}), "numbers from 0 to 16"),
        (json.dumps({"inputs": [tensor(data=[float("nan")] * 64)]}), "numbers from 0 to 16"),
        (json.dumps({"inputs": [tensor(data=["1"] * 64)]}), "numbers from 0 to 16"),
        (json.dumps({"inputs": [tensor(data=[10**400] * 64)]}), "numbers from 0 to 16"),
        (json.dumps({"inputs": [tensor()], "outputs": [{"name": "soul"}]}), "unknown output `soul`"),
        (json.dumps({"inputs": [tensor()], "outputs": [{"name": ["digit"]}]}), "unknown output"),
        (b" " * ((1 << 20) + 1), "larger than"),
    ],
)
def test_a_bad_infer_body_is_refused_with_one_readable_sentence(app: Starlette, body: bytes | str, fault: str) -> None:
    answer = call(app, "POST", "/v2/models/digits/infer", content=body)
    assert answer.status_code == 400
    assert fault in answer.json()["error"]


@pytest.mark.parametrize("parameters", [{"count": 0}, {"count": "3"}, {"interval_ms": -1}, {"interval_ms": 0.5}, []])
def test_bad_stream_parameters_are_refused(app: Starlette, parameters: object) -> None:
    answer = call(app, "POST", "/v2/models/digits/generate_stream", json={"parameters": parameters})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/models/fraud"),
        ("GET", "/v2/models/fraud/ready"),
        ("POST", "/v2/models/fraud/infer"),
        ("POST", "/v2/models/fraud/generate_stream"),
    ],
)
def test_an_unknown_model_is_not_found(app: Starlette, method: str, path: str) -> None:
    answer = call(app, method, path)
    assert answer.status_code == 404
    assert answer.json() == {"error": "unknown model `fraud`"}


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/digits/ready", {"name": "digits", "ready": True}),
    ],
)
def test_health_and_readiness(app: Starlette, path: str, answer: dict[str, object]) -> None:
    assert call(app, "GET", path).json() == answer


def test_the_metadata_describes_the_tensors_that_infer_takes_and_gives(app: Starlette) -> None:
    metadata = call(app, "GET", "/v2/models/digits").json()
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP64", "shape": [-1, 64]}]
    assert [output["name"] for output in metadata["outputs"]] == ["digit", "probabilities"]
    assert call(app, "GET", "/v2").json()["extensions"] == ["generate_stream"]


def test_a_stream_classifies_one_image_per_event_and_ends_as_finished(app: Starlette, serving: Serving) -> None:
    body = {"parameters": {"count": 3, "interval_ms": 0}}
    answer = call(app, "POST", "/v2/models/digits/generate_stream", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(block.removeprefix("data: ")) for block in answer.text.split("\n\n") if block]
    assert [event["index"] for event in events] == [0, 1, 2]
    assert [event["digit"] for event in events] == held_out_images().digits[:3].tolist()
    assert serving.streams == StreamCounts(started=1, finished=1, cancelled=0, events=3)
    assert call(app, "GET", "/demo/streams").json() == {"started": 1, "finished": 1, "cancelled": 0, "events": 3}


def test_a_caller_that_leaves_between_two_events_cancels_the_stream_at_once(app: Starlette, serving: Serving) -> None:
    asyncio.run(_leave_after_first_event(app))
    assert serving.streams == StreamCounts(started=1, finished=0, cancelled=1, events=1)


async def _leave_after_first_event(app: Callable[..., Awaitable[None]]) -> None:
    """Ask for a pause of a minute, leave inside it, and wait for the application to return by itself."""
    body = json.dumps({"parameters": {"count": 9, "interval_ms": 60_000}}).encode()
    spoken = asyncio.Event()
    asked: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if asked:
            return asked.pop()
        await spoken.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message.get("body"):
            spoken.set()

    path = "/v2/models/digits/generate_stream"
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "headers": [],
        "query_string": b"",
    }
    await app(scope, receive, send)


def chat(content: str, **changed: object) -> dict[str, object]:
    return {"model": "digits", "messages": [{"role": "user", "content": content}]} | changed


def test_a_chat_says_what_digit_an_image_shows(app: Starlette, classifier: DigitClassifier) -> None:
    answer = call(app, "POST", "/v1/chat/completions", json=chat("Which digits are on images 0 to 9?")).json()
    said = [int(word) for word in answer["choices"][0]["message"]["content"].split()]
    assert said == classifier.predict(held_out_images().images[:10]).digits.tolist()
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_a_chat_keeps_to_its_tokens(app: Starlette) -> None:
    answer = call(app, "POST", "/v1/chat/completions", json=chat("images 0 to 9", max_tokens=3)).json()
    assert len(answer["choices"][0]["message"]["content"].split()) == 3
    assert answer["choices"][0]["finish_reason"] == "length"


def test_a_chat_may_be_a_stream(app: Starlette) -> None:
    text = call(app, "POST", "/v1/chat/completions", json=chat("images 0 to 2", stream=True)).text
    events = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event)["choices"][0] for event in events[:-1]]
    assert "".join(chunk["delta"].get("content", "") for chunk in chunks).count(" ") == 2
    assert chunks[-1]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"model": 1, "messages": []},
        {"model": "digits", "messages": []},
        {"model": "digits", "messages": [{"content": "no number"}]},
        {"model": "digits", "messages": [{"content": "1 2 3"}]},
        {"model": "digits", "messages": [{"content": "1"}], "max_tokens": 0},
        {"model": "digits", "messages": [{"content": "1"}], "stream": "yes"},
    ],
)
def test_a_chat_that_cannot_be_read_is_refused_in_words(app: Starlette, body: dict[str, object]) -> None:
    answer = call(app, "POST", "/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_a_chat_with_a_model_that_is_not_served_is_404(app: Starlette) -> None:
    assert call(app, "POST", "/v1/chat/completions", json=chat("1", model="other")).status_code == 404
