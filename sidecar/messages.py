"""gRPC messages on the way to a model: cut out of the byte stream, read by a real parser, and held until they are checked.

A message is a byte for its compression, four for its length, and its protobuf. Protobuf takes the *last* of a repeated
singular field, so a byte scan for a name would see another model than the server does. A compressed message is refused: it
would have to be undone to be read, and a bomb undone is a bomb.

Source: ENFORCEMENT.md 3.1, 3.5, 4 (every message is checked); gRPC over HTTP/2, Length-Prefixed-Message.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError

from sidecar.bodies import BadBody, Content
from sidecar.limits import LIMITS
from sidecar.routes import Row
from sidecar.v1 import oip_pb2

_PREFIX = 5
_INFERS = frozenset({"oip_grpc.ModelInfer", "oip_grpc.ModelStreamInfer"})
_LOADS = frozenset(
    f"oip_grpc.{service}RepositoryModel{verb}" for service in ("", "repository.") for verb in ("Load", "Unload")
)


class BadMessageError(ValueError):
    """Bytes that are no message we may pass on."""


class Framer:
    """Cuts messages out of the chunks of one direction; what is not yet whole is held."""

    def __init__(self) -> None:
        self._held = bytearray()

    @property
    def partial(self) -> bool:
        """Whether a message has begun that has not ended."""
        return bool(self._held)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield each message that `chunk` completes, without its prefix.

        Raises:
            BadMessageError: A compressed message, or one that is too long to hold.
        """
        self._held += chunk
        while len(self._held) >= _PREFIX:
            if self._held[0] != 0:
                raise BadMessageError("a compressed message")
            size = int.from_bytes(self._held[1:_PREFIX], "big")
            if size > LIMITS.body_bytes:
                raise BadMessageError("a message above the limit")
            if len(self._held) < _PREFIX + size:
                return
            message = bytes(self._held[_PREFIX : _PREFIX + size])
            del self._held[: _PREFIX + size]
            yield message


class Counter:
    """Counts the messages of the other direction, which nobody reads."""

    def __init__(self) -> None:
        self._prefix = bytearray()
        self._skip = 0

    def feed(self, chunk: bytes) -> int:
        """Return how many messages begin in `chunk`."""
        begun, at = 0, 0
        while at < len(chunk):
            if self._skip:
                step = min(self._skip, len(chunk) - at)
                self._skip -= step
                at += step
                continue
            taken = chunk[at : at + _PREFIX - len(self._prefix)]
            self._prefix += taken
            at += len(taken)
            if len(self._prefix) == _PREFIX:
                self._skip = int.from_bytes(self._prefix[1:], "big")
                self._prefix.clear()
                begun += 1
        return begun


def framed(message: bytes) -> bytes:
    """Return `message` with its prefix."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def read(row: Row, message: bytes) -> Content | BadBody:
    """Return what one message of a gRPC row says."""
    try:
        if row.name in _INFERS:
            return _infer(message)
        if row.name in _LOADS:
            return _repository(row, message)
        asked = oip_pb2.ModelRequest.FromString(message)
        return Content(name=asked.name, version=asked.version)
    except DecodeError:
        return BadBody(why="not a message of this method")


def pinned(row: Row, message: bytes, *, name: str, version: str) -> bytes:
    """Return `message` with the model that was decided on; what we do not know of it stays as it came."""
    kind: Any = oip_pb2.InferRequest if row.name in _INFERS else oip_pb2.ModelRequest
    parsed = kind.FromString(message)
    if row.name in _INFERS:
        parsed.model_name, parsed.model_version = name, version
    else:
        parsed.name, parsed.version = name, version
    return bytes(parsed.SerializeToString())


def can_pin(row: Row) -> bool:
    """Whether this method's messages have a place for a version."""
    return row.name not in _LOADS


def _infer(message: bytes) -> Content:
    asked = oip_pb2.InferRequest.FromString(message)
    attributes: dict[str, Any] = {"request.bytes": len(message)}
    if asked.outputs:
        attributes["request.outputs"] = tuple(output.name for output in asked.outputs)
    return Content(name=asked.model_name, version=asked.model_version, attributes=attributes)


def _repository(row: Row, message: bytes) -> Content | BadBody:
    asked = oip_pb2.RepositoryRequest.FromString(message)
    if asked.repository_name:
        return BadBody(why="a repository other than the server's own")
    loads = row.name.endswith("Load") and not row.name.endswith("Unload")
    # A configuration or a file in the parameters is code that the server will run.
    overrides = loads and bool(asked.parameters)
    return Content(name=asked.model_name, action="endpoint.load_override" if overrides else "")
