from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

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

class QueryRequest(_message.Message):
    __slots__ = ("subject", "actor", "workload", "action", "resource", "version", "rule", "reason", "effect", "world_seq", "since_ms", "until_ms", "page_size", "cursor", "events")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    subject: str
    actor: str
    workload: str
    action: str
    resource: str
    version: str
    rule: str
    reason: str
    effect: str
    world_seq: int
    since_ms: int
    until_ms: int
    page_size: int
    cursor: str
    events: bool
    def __init__(self, subject: _Optional[str] = ..., actor: _Optional[str] = ..., workload: _Optional[str] = ..., action: _Optional[str] = ..., resource: _Optional[str] = ..., version: _Optional[str] = ..., rule: _Optional[str] = ..., reason: _Optional[str] = ..., effect: _Optional[str] = ..., world_seq: _Optional[int] = ..., since_ms: _Optional[int] = ..., until_ms: _Optional[int] = ..., page_size: _Optional[int] = ..., cursor: _Optional[str] = ..., events: bool = ...) -> None: ...

class QueryResponse(_message.Message):
    __slots__ = ("records", "events", "next_cursor")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[FoundRecord]
    events: _containers.RepeatedCompositeFieldContainer[FoundRecord]
    next_cursor: str
    def __init__(self, records: _Optional[_Iterable[_Union[FoundRecord, _Mapping]]] = ..., events: _Optional[_Iterable[_Union[FoundRecord, _Mapping]]] = ..., next_cursor: _Optional[str] = ...) -> None: ...

class FoundRecord(_message.Message):
    __slots__ = ("chain", "n", "record")
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    chain: str
    n: int
    record: bytes
    def __init__(self, chain: _Optional[str] = ..., n: _Optional[int] = ..., record: _Optional[bytes] = ...) -> None: ...
