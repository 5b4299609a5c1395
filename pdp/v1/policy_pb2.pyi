from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PackFile(_message.Message):
    __slots__ = ("path", "content")
    PATH_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    path: str
    content: bytes
    def __init__(self, path: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class ProposeRequest(_message.Message):
    __slots__ = ("files", "message")
    FILES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[PackFile]
    message: str
    def __init__(self, files: _Optional[_Iterable[_Union[PackFile, _Mapping]]] = ..., message: _Optional[str] = ...) -> None: ...

class ProposeResponse(_message.Message):
    __slots__ = ("proposal_id", "warnings", "rows_added", "rows_removed", "base_seq")
    PROPOSAL_ID_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    ROWS_ADDED_FIELD_NUMBER: _ClassVar[int]
    ROWS_REMOVED_FIELD_NUMBER: _ClassVar[int]
    BASE_SEQ_FIELD_NUMBER: _ClassVar[int]
    proposal_id: str
    warnings: _containers.RepeatedScalarFieldContainer[str]
    rows_added: int
    rows_removed: int
    base_seq: int
    def __init__(self, proposal_id: _Optional[str] = ..., warnings: _Optional[_Iterable[str]] = ..., rows_added: _Optional[int] = ..., rows_removed: _Optional[int] = ..., base_seq: _Optional[int] = ...) -> None: ...

class ActivateRequest(_message.Message):
    __slots__ = ("proposal_id",)
    PROPOSAL_ID_FIELD_NUMBER: _ClassVar[int]
    proposal_id: str
    def __init__(self, proposal_id: _Optional[str] = ...) -> None: ...

class ActivateResponse(_message.Message):
    __slots__ = ("world_seq", "revision")
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    world_seq: int
    revision: str
    def __init__(self, world_seq: _Optional[int] = ..., revision: _Optional[str] = ...) -> None: ...

class GetPolicyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PolicyRow(_message.Message):
    __slots__ = ("id", "section", "fields")
    ID_FIELD_NUMBER: _ClassVar[int]
    SECTION_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    id: str
    section: str
    fields: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., section: _Optional[str] = ..., fields: _Optional[_Iterable[str]] = ...) -> None: ...

class GetPolicyResponse(_message.Message):
    __slots__ = ("revision", "world_seq", "model", "vocabulary", "rows")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    revision: str
    world_seq: int
    model: str
    vocabulary: str
    rows: _containers.RepeatedCompositeFieldContainer[PolicyRow]
    def __init__(self, revision: _Optional[str] = ..., world_seq: _Optional[int] = ..., model: _Optional[str] = ..., vocabulary: _Optional[str] = ..., rows: _Optional[_Iterable[_Union[PolicyRow, _Mapping]]] = ...) -> None: ...
