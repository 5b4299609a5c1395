"""OpenAI-compatible chat, the JSON of `/v1/chat/completions`, with one skill: it reads digits.

The last message names held-out images by number, one or a range: "Which digit is on image 17?", "… on images 0 to 99?". The
answer is one token for each image. It stands for vLLM and its kin: the body names the model, and the answer may be a stream.

Source: OpenAI's API reference, "Chat completion object" and "Chat completion chunk object".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from pdp.demo.limits import LIMITS
from pdp.demo.oip import BadRequestError, Json, json_object, mapping, whole_number

if TYPE_CHECKING:
    from pdp.demo.classifier import DigitClassifier

PATH: Final = "/v1/chat/completions"
DONE: Final = b"data: [DONE]\n\n"
"""The last event of a complete stream; a cut one has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One checked chat: which images, at most how many answers, and whether as a stream."""

    model: str
    images: range
    most: int
    stream: bool


def question(first: int, last: int | None = None) -> str:
    """Return the words that ask for one image, or for a range."""
    return f"Which digit is on image {first}?" if last is None else f"Which digits are on images {first} to {last}?"


def chat_body(model: str, content: str, *, stream: bool = False) -> Json:
    """Return the body of a chat with one message."""
    return {"model": model, "messages": [{"role": "user", "content": content}], "stream": stream}


def parse_chat(body: bytes) -> ChatRequest:
    """Read a chat body.

    Raises:
        BadRequestError: anything missing, of the wrong type, or no image named.

    """
    request = json_object(body)
    model, stream = request.get("model"), request.get("stream", False)
    if not isinstance(model, str) or not isinstance(stream, bool):
        raise BadRequestError("`model` must be a string, `stream` true or false")
    most = request.get("max_completion_tokens", request.get("max_tokens", LIMITS.stream_events))
    return ChatRequest(
        model=model,
        images=_images(request.get("messages")),
        most=whole_number(most, "max_tokens", 1, LIMITS.stream_events),
        stream=stream,
    )


def _images(messages: object) -> range:
    if not isinstance(messages, list) or not messages:
        raise BadRequestError("`messages` must be a list with one message at least")
    content = mapping(messages[-1], "a message").get("content")
    numbers = [int(number) for number in re.findall(r"[0-9]{1,6}", content)] if isinstance(content, str) else []
    if not 1 <= len(numbers) <= 2:  # noqa: PLR2004 - an image, or a range of them
        raise BadRequestError("name a held-out image by its number, or two that are the ends of a range")
    return range(numbers[0], min(numbers[-1] + 1, numbers[0] + LIMITS.stream_events))


def completion(classifier: DigitClassifier, asked: ChatRequest) -> Json:
    """Return the whole answer at once."""
    words = [word for word, _ in _words(classifier, asked)]
    message = {"role": "assistant", "content": " ".join(words)}
    choice = {"index": 0, "message": message, "finish_reason": _reason(asked)}
    usage = {"prompt_tokens": len(asked.images), "completion_tokens": len(words)}
    return {
        "id": "chatcmpl-digits",
        "object": "chat.completion",
        "model": asked.model,
        "choices": [choice],
        "usage": usage,
    }


def chunks(classifier: DigitClassifier, asked: ChatRequest) -> Iterator[Json]:
    """Yield the answer token by token."""
    for word, last in _words(classifier, asked):
        delta = {"content": word if last else f"{word} "}
        yield _chunk(asked, {"index": 0, "delta": delta, "finish_reason": None})
    yield _chunk(asked, {"index": 0, "delta": {}, "finish_reason": _reason(asked)})


def _chunk(asked: ChatRequest, choice: Json) -> Json:
    return {"id": "chatcmpl-digits", "object": "chat.completion.chunk", "model": asked.model, "choices": [choice]}


def _words(classifier: DigitClassifier, asked: ChatRequest) -> Iterator[tuple[str, bool]]:
    wanted = asked.images[: asked.most]
    for image in wanted:
        held_out = classifier.held_out.images
        at = image % len(held_out)
        yield str(int(classifier.predict(held_out[at : at + 1]).digits[0])), image == wanted[-1]


def _reason(asked: ChatRequest) -> str:
    return "length" if len(asked.images) > asked.most else "stop"


def content_of(answer: Json) -> str:
    """Return the text of a whole answer."""
    choice = cast("list[Json]", answer["choices"])[0]
    return str(cast("Json", choice["message"])["content"])
