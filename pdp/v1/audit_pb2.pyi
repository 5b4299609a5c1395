from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class AppendRequest(_message.Message):
    __slots__ = ("chain", "records")
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    chain: str
    records: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, chain: _Optional[str] = ..., records: _Optional[_Iterable[bytes]] = ...) -> None: ...

class AppendResponse(_message.Message):
    __slots__ = ("head", "stored")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    head: bytes
    stored: int
    def __init__(self, head: _Optional[bytes] = ..., stored: _Optional[int] = ...) -> None: ...

class ReadRequest(_message.Message):
    __slots__ = ("chain", "since_ms", "follow", "last")
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    chain: str
    since_ms: int
    follow: bool
    last: int
    def __init__(self, chain: _Optional[str] = ..., since_ms: _Optional[int] = ..., follow: bool = ..., last: _Optional[int] = ...) -> None: ...

class ReadResponse(_message.Message):
    __slots__ = ("chain", "record")
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    chain: str
    record: bytes
    def __init__(self, chain: _Optional[str] = ..., record: _Optional[bytes] = ...) -> None: ...
