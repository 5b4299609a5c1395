"""Takes a model's confidence out of its replies: `strip_outputs`, for the Open Inference Protocol and OpenAI's shapes.

Confidence is what extraction and membership inference feed on. A reply that should be stripped and cannot be read is not
passed on.

Source: ENFORCEMENT.md 5.3, 7.
"""

import re
from typing import Any, Protocol

from sidecar.bodies import BadBody, strict_json, strict_object, written
from sidecar.duties import Strip
from sidecar.limits import LIMITS

_PROBABLE = re.compile(r"prob|score|confidence|logit", re.IGNORECASE)
_FLOATS = frozenset({"FP16", "BF16", "FP32", "FP64"})
_LINE_END = re.compile(rb"\r\n|\n|\r")

EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
"""Where a server-sent event ends."""


def event_data(event: bytes) -> bytes:
    """Return the data of one server-sent event; empty: it has none."""
    data = [line[5:].removeprefix(b" ") for line in _LINE_END.split(event) if line.startswith(b"data:")]
    return b"\n".join(data)


class StripError(ValueError):
    """A reply that cannot be read, and so cannot be stripped."""


class Whole(Protocol):
    """Changes a reply that came whole."""

    def whole(self, body: bytes) -> bytes:
        """Return what of it goes on.

        Raises:
            StripError: It cannot be read.
        """
        ...


class Lister:
    """Leaves in a list of models those that the caller may see.

    The shapes: OpenAI's `data` of objects with an `id`; KServe's `models` of names; Triton's index of objects with a `name`.

    Args:
        visible: Their names, as the server writes them.
    """

    def __init__(self, visible: frozenset[str]) -> None:
        self._visible = visible

    def whole(self, body: bytes) -> bytes:
        """Return the list without what must not be seen.

        Raises:
            StripError: It is no list of a shape we know.
        """
        parsed = strict_json(body)
        if isinstance(parsed, dict):
            key = "data" if "data" in parsed else "models"
            return written({**parsed, key: self._shown(parsed.get(key))})
        return written(self._shown(parsed))

    def _shown(self, listed: Any) -> list[Any]:
        if not isinstance(listed, list):
            raise StripError("not a list of models")
        return [one for one in listed if _name_of(one) in self._visible]


def _name_of(model: Any) -> str:
    named = model.get("id", model.get("name")) if isinstance(model, dict) else model
    if not isinstance(named, str):
        raise StripError("a model without a name")
    return named


class Stripper:
    """Strips one reply.

    Args:
        strip: What is taken out.
    """

    def __init__(self, strip: Strip) -> None:
        self._strip = strip
        self._held = b""

    def whole(self, body: bytes) -> bytes:
        """Return a JSON reply without what must not leave.

        Raises:
            StripError: It is no JSON object.
        """
        parsed = strict_object(body)
        if isinstance(parsed, BadBody):
            raise StripError(parsed.why)
        return self._written(parsed)

    def events(self, chunk: bytes, *, last: bool) -> bytes:
        """Return what of a server-sent stream may go on, once `chunk` has come; an event in part is held.

        Raises:
            StripError: An event is no JSON, or too long to hold.
        """
        self._held += chunk
        done = bytearray()
        while end := EVENT_END.search(self._held):
            done += self._event(self._held[: end.end()])
            self._held = self._held[end.end() :]
        if last and self._held.strip():
            raise StripError("the stream ends within an event")
        if len(self._held) > LIMITS.body_bytes:
            raise StripError("an event above the limit")
        return bytes(done)

    def _event(self, event: bytes) -> bytes:
        lines = _LINE_END.split(event)
        text = event_data(event)
        if text.strip() in {b"", b"[DONE]"}:
            return event
        parsed = strict_object(text)
        if isinstance(parsed, BadBody):
            raise StripError(parsed.why)
        others = [line for line in lines if line and not line.startswith(b"data:")]
        return b"\n".join([*others, b"data: " + self._written(parsed)]) + b"\n\n"

    def _written(self, parsed: dict[str, Any]) -> bytes:
        if "outputs" in parsed and isinstance(parsed["outputs"], list):
            parsed["outputs"] = [one for one in map(self._tensor, parsed["outputs"]) if one is not None]
        self._walk(parsed)
        return written(parsed)

    # -- Open Inference Protocol -------------------------------------------------------------------------------------

    def _tensor(self, tensor: Any) -> Any:
        if not isinstance(tensor, dict):
            raise StripError("an output that is no object")
        name, data = str(tensor.get("name", "")), tensor.get("data")
        if self._hides(name):
            return None
        if not self._touches_numbers or str(tensor.get("datatype")) not in _FLOATS:
            return tensor
        if not isinstance(data, list):  # binary data behind the JSON: numbers nobody could round
            raise StripError("an output without its data")
        width = _width(tensor)
        return {**tensor, "data": self._numbers(data, width)}

    def _hides(self, name: str) -> bool:
        return (self._strip.probabilities and bool(_PROBABLE.search(name))) or (
            self._strip.logprobs and "logprob" in name.lower()
        )

    @property
    def _touches_numbers(self) -> bool:
        return self._strip.only_top or self._strip.digits is not None

    def _numbers(self, data: list[Any], width: int) -> list[Any]:
        flat = _flat(data)
        if self._strip.only_top and width > 1:
            flat = [value for at in range(0, len(flat), width) for value in _only_top(flat[at : at + width])]
        digits = self._strip.digits
        return flat if digits is None else [round(value, digits) for value in flat]

    # -- OpenAI ------------------------------------------------------------------------------------------------------

    def _walk(self, value: Any) -> None:
        """Strip log probabilities wherever they stand: the chat, completion and response shapes nest them differently."""
        if isinstance(value, list):
            for one in value:
                self._walk(one)
        elif isinstance(value, dict):
            for key in [key for key in value if "logprob" in key.lower()]:
                self._logprobs(value, key)
            for one in value.values():
                self._walk(one)

    def _logprobs(self, holder: dict[str, Any], key: str) -> None:
        if self._strip.logprobs or self._strip.probabilities:
            holder[key] = None
            return
        value = holder[key]
        if self._strip.only_top and key.startswith("top_") and isinstance(value, list):
            value = _only_first(value)
        holder[key] = self._rounded(value)

    def _rounded(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._rounded(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self._rounded(one) for one in value]
        digits = self._strip.digits
        return round(value, digits) if isinstance(value, float) and digits is not None else value


def _only_first(alternatives: list[Any]) -> list[Any]:
    """Return only the likeliest: of a chat's list of tokens, or of each position's table in a completion."""
    if all(isinstance(one, dict) and "token" in one for one in alternatives):
        return alternatives[:1]
    return [_likeliest(one) for one in alternatives]


def _likeliest(table: Any) -> Any:
    if not isinstance(table, dict) or not table:
        return table
    top = max(table, key=lambda token: table[token])
    return {top: table[top]}


def _width(tensor: dict[str, Any]) -> int:
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise StripError("an output without its shape")
    return shape[-1] if shape else 1


def _flat(data: list[Any]) -> list[float]:
    """Return row-major numbers, from a flat or a nested list (the protocol allows both)."""
    found: list[float] = []
    level = list(reversed(data))
    while level:
        one = level.pop()
        if isinstance(one, list):
            level.extend(reversed(one))
        elif isinstance(one, int | float):
            found.append(one)
        else:
            raise StripError("an output that is no number")
    return found


def _only_top(row: list[float]) -> list[float]:
    top = max(row)
    at = row.index(top)
    return [top if index == at else 0.0 for index in range(len(row))]


def readable_media(content_type: str) -> str:
    """Return `json`, `events`, or nothing for a reply that cannot be stripped."""
    media = content_type.partition(";")[0].strip().lower()
    return {"application/json": "json", "text/event-stream": "events"}.get(media, "")
