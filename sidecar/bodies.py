"""Request bodies that decide: read whole, strictly, and only in the one way every server reads them.

A body that two parsers could read differently is refused: a key twice, another spelling of a key we decide on, a constant that
is no JSON, a byte order mark, an encoding we do not undo. What was read is what is sent on: the same bytes, or, where an
obligation or a pinned name changes it, what was parsed, written anew.

Source: ENFORCEMENT.md 3.2, 3.5, EX-14; FAILURE.md N4.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from types import MappingProxyType
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from pdp.model.attributes import NO_ATTRIBUTES, Attributes
from sidecar.routes import Body, Row, Scope

LIMIT_KEYS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""Every key by which a caller bounds the tokens of an answer."""

_ALSO_READ = {"max_completion_tokens": "max_tokens"}  # chat reads its older key, too; no other route reads another's
_COUNTS = {"n": 1, "best_of": 1, "max_tokens": 0, "max_completion_tokens": 1, "max_output_tokens": 1}
"""Numbers that say how much an answer costs, with the least that means itself: below it, one server refuses and another
knows no bound (llama.cpp: -1; vLLM's chat took 0 tokens of completion for none said). Nought of `max_tokens` scores a prompt."""
_DECIDING = (
    *("model", "stream", "logprobs", *_COUNTS, "model_name", "model_version"),
    *("previous_response_id", "conversation"),
)
_BY_FOLDED = {key.replace("_", ""): key for key in _DECIDING}
_CONTINUES = "previous_response_id"
# Keys that make a server continue an earlier exchange: whose it was, nobody here knows, so it would be a way to read it. A row
# that stores its answers knows whose they are; on it, a caller who chose the id of the next could write over another's.
_ANOTHERS = ("conversation", _CONTINUES)
_ANOTHERS_WHERE_STORED = ("conversation", "request_id")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_JSON = "application/json"
_FORM = "multipart/form-data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a body or a message says, as far as it decides.

    Attributes:
        name: The served name; empty: it names none.
        version: The version it asks for; empty: any.
        stream: It asks for an answer in pieces.
        attributes: `request.*` attributes.
        action: The action it amounts to, where that is another than its row's; empty: the row's.
        continues: The id of the stored answer that it goes on from; empty: none.
        parsed: The object, to be written anew where something must change; None: not an object.
    """

    name: str = ""
    version: str = ""
    stream: bool = False
    attributes: Attributes = field(default_factory=lambda: NO_ATTRIBUTES)
    action: str = ""
    continues: str = ""
    parsed: Mapping[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BadBody:
    """A body that is refused, and why (for the record, never for the caller)."""

    why: str


UNREAD = Content()
"""What is known of a body that nobody has to read."""


def read(row: Row, body: bytes, headers: Mapping[str, str]) -> Content | BadBody:
    """Return what `body` says.

    Args:
        row: The row it came by.
        body: All of it.
        headers: By lower-case name; of them, the content type and encoding are read.
    """
    if headers.get("content-encoding", "identity").lower() != "identity":
        return BadBody(why="an encoded body")
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if row.body is Body.MULTIPART:
        return _form(body, headers.get("content-type", "")) if media == _FORM else BadBody(why="not a form")
    # A server may read a body of any type as JSON (vLLM does), so the type must say what everyone will read.
    return _object(row, body) if media == _JSON else BadBody(why="not application/json")


def is_bounded(limit: str, parsed: Mapping[str, Any]) -> bool:
    """Tell whether a body bounds its tokens by a key that the server of a route with this `limit` reads."""
    return any(parsed.get(key) is not None for key in (limit, _ALSO_READ.get(limit, limit)))


def strict_object(text: bytes) -> dict[str, Any] | BadBody:
    """Return the JSON object in `text`, if every parser reads the same one."""
    value = strict_json(text)
    return value if isinstance(value, dict | BadBody) else BadBody(why="not a JSON object")


def strict_json(text: bytes) -> Any:
    """Return the JSON value in `text`, if every parser reads the same one; else a `BadBody`."""
    try:
        value = json.loads(
            text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
        if _SURROGATE.search(text):
            written(value)  # half a pair is no character: parsers differ on it, and nobody can write it anew
    except (ValueError, RecursionError) as fault:
        return BadBody(why=f"not one JSON value: {type(fault).__name__}")
    return value


def written(value: Mapping[str, Any] | list[Any]) -> bytes:
    """Return a parsed value as bytes."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"`{word}` is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):  # it would be written anew as `Infinity`, which is no JSON
        raise ValueError("a number beyond all")
    return number


def _object(row: Row, body: bytes) -> Content | BadBody:
    parsed = strict_object(body)
    if isinstance(parsed, BadBody):
        return parsed
    for key in parsed:
        meant = _BY_FOLDED.get(key.casefold().replace("_", ""), key)
        if meant != key:  # a server that folds case, or knows both spellings, would take the other one
            return BadBody(why=f"another spelling of `{meant}`")
    foreign = [key for key in (_ANOTHERS_WHERE_STORED if row.stores else _ANOTHERS) if parsed.get(key) is not None]
    if foreign:
        return BadBody(why=f"`{foreign[0]}` names what somebody else may have made")
    if row.scope is Scope.BODY and parsed.get("model_name") is not None:
        # A server that takes its model from `model` alone would serve its default, and not the one that was decided.
        return BadBody(why="`model_name` where `model` names the model")
    wrong = _wrong_type(parsed)
    if wrong:
        return BadBody(why=f"`{wrong}` has a value that the protocol does not know")
    return Content(
        name=parsed.get("model") or parsed.get("model_name") or "",
        version=parsed.get("model_version") or "",
        stream=parsed.get("stream") or False,
        continues=parsed.get(_CONTINUES) or "",
        attributes=_attributes(row, parsed, len(body)),
        parsed=MappingProxyType(parsed),
    )


def _wrong_type(parsed: Mapping[str, Any]) -> str:
    wanted: dict[str, tuple[type, ...]] = {
        **dict.fromkeys(("model", "model_name", "model_version", _CONTINUES), (str,)),
        "stream": (bool,),
        **dict.fromkeys(_COUNTS, (int,)),
        "logprobs": (bool, int),
    }
    for key, kinds in wanted.items():
        value = parsed.get(key)
        # `type`, not `isinstance`: True is an int in Python, and 1 no flag in JSON.
        if value is not None and (type(value) not in kinds or (key in _COUNTS and value < _COUNTS[key])):
            return key
    if parsed.get("model") is not None and parsed.get("model_name") is not None:
        return "model_name"
    return ""


def _attributes(row: Row, parsed: Mapping[str, Any], size: int) -> Attributes:
    found: dict[str, str | bool | int] = {"request.bytes": size}
    bounds = [parsed[key] for key in LIMIT_KEYS if parsed.get(key) is not None]
    if bounds and (not row.limit or is_bounded(row.limit, parsed)):
        found["request.max_tokens"] = max(bounds)
    # What is computed is what costs: the best of eight are eight answers, of which one comes back.
    answers = [parsed[key] for key in ("n", "best_of") if parsed.get(key) is not None]
    if answers:
        found["request.n"] = max(answers)
    if parsed.get("logprobs") is not None:
        found["request.logprobs"] = parsed["logprobs"] is not False
    return found


# -- forms -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Fields:
    """Collects a form's fields; what no parser may read in two ways is a fault."""

    fault: str = ""
    models: list[bytes] = field(default_factory=list)
    ended: bool = False
    _name: bytes = b""
    _value: bytes = b""
    _header: dict[bytes, bytes] = field(default_factory=dict)
    _field: bytes = b""
    _text: bytearray = field(default_factory=bytearray)

    def callbacks(self) -> Any:
        """Return what the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finished,
        }

    def _begin(self) -> None:
        self._header, self._field, self._text = {}, b"", bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        name = self._name.lower()
        if name in self._header:
            self.fault = "a part's header twice"
        self._header[name] = self._value
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        disposition = self._header.get(b"content-disposition", b"")
        kind, options = parse_options_header(disposition)
        self._field = options.get(b"name", b"")
        # `name*=` is a second spelling of the name, and so is one twice: which of them wins is each parser's own affair.
        if kind != b"form-data" or disposition.lower().count(b"name") - disposition.lower().count(b"filename") != 1:
            self.fault = "a part without one plain name"
        if self._field == b"model" and (b"filename" in options or b"content-transfer-encoding" in self._header):
            self.fault = "`model` is no plain field"

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._field == b"model":
            self._text += data[start:end]

    def _end(self) -> None:
        if self._field == b"model":
            self.models.append(bytes(self._text))

    def _finished(self) -> None:
        self.ended = True


def _form(body: bytes, content_type: str) -> Content | BadBody:
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not boundary or content_type.lower().count("boundary") != 1:
        return BadBody(why="no boundary")
    fields = _Fields()
    try:
        parser = MultipartParser(boundary, fields.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError:
        return BadBody(why="not a form")
    if fields.fault or not fields.ended:
        return BadBody(why=fields.fault or "the form does not end")
    if len(fields.models) != 1:
        return BadBody(why=f"`model` stands {len(fields.models)} times")
    name = fields.models[0].decode("ascii", "replace")
    return Content(name=name, attributes={"request.bytes": len(body)})
