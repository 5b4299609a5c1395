from pdp.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Access(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACCESS_UNSPECIFIED: _ClassVar[Access]
    ACCESS_CONDITIONAL: _ClassVar[Access]
    ACCESS_ALLOW: _ClassVar[Access]
ACCESS_UNSPECIFIED: Access
ACCESS_CONDITIONAL: Access
ACCESS_ALLOW: Access

class Subject(_message.Message):
    __slots__ = ("credential", "asserted", "request")
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    ASSERTED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    credential: str
    asserted: AssertedSubject
    request: BoundRequest
    def __init__(self, credential: _Optional[str] = ..., asserted: _Optional[_Union[AssertedSubject, _Mapping]] = ..., request: _Optional[_Union[BoundRequest, _Mapping]] = ...) -> None: ...

class BoundRequest(_message.Message):
    __slots__ = ("proof", "method", "url")
    PROOF_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    proof: str
    method: str
    url: str
    def __init__(self, proof: _Optional[str] = ..., method: _Optional[str] = ..., url: _Optional[str] = ...) -> None: ...

class AssertedSubject(_message.Message):
    __slots__ = ("principal", "groups", "actors")
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    ACTORS_FIELD_NUMBER: _ClassVar[int]
    principal: str
    groups: _containers.RepeatedScalarFieldContainer[str]
    actors: _containers.RepeatedCompositeFieldContainer[AssertedActor]
    def __init__(self, principal: _Optional[str] = ..., groups: _Optional[_Iterable[str]] = ..., actors: _Optional[_Iterable[_Union[AssertedActor, _Mapping]]] = ...) -> None: ...

class AssertedActor(_message.Message):
    __slots__ = ("principal", "groups")
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    principal: str
    groups: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, principal: _Optional[str] = ..., groups: _Optional[_Iterable[str]] = ...) -> None: ...

class Question(_message.Message):
    __slots__ = ("subject", "action", "resource", "workload", "serves", "attributes", "supports", "supports_all")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _types_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_types_pb2.Value, _Mapping]] = ...) -> None: ...
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    SERVES_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    SUPPORTS_FIELD_NUMBER: _ClassVar[int]
    SUPPORTS_ALL_FIELD_NUMBER: _ClassVar[int]
    subject: Subject
    action: str
    resource: str
    workload: str
    serves: str
    attributes: _containers.MessageMap[str, _types_pb2.Value]
    supports: _containers.RepeatedScalarFieldContainer[str]
    supports_all: bool
    def __init__(self, subject: _Optional[_Union[Subject, _Mapping]] = ..., action: _Optional[str] = ..., resource: _Optional[str] = ..., workload: _Optional[str] = ..., serves: _Optional[str] = ..., attributes: _Optional[_Mapping[str, _types_pb2.Value]] = ..., supports: _Optional[_Iterable[str]] = ..., supports_all: bool = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("effect", "reason", "obligations", "world_seq", "decision_id", "recheck_after_ms", "determining", "role_path", "nearest_miss", "detail", "dpop_nonce", "candidate")
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    OBLIGATIONS_FIELD_NUMBER: _ClassVar[int]
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    RECHECK_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    DETERMINING_FIELD_NUMBER: _ClassVar[int]
    ROLE_PATH_FIELD_NUMBER: _ClassVar[int]
    NEAREST_MISS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    DPOP_NONCE_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    effect: _types_pb2.Effect
    reason: str
    obligations: _containers.RepeatedCompositeFieldContainer[_types_pb2.Obligation]
    world_seq: int
    decision_id: str
    recheck_after_ms: int
    determining: _containers.RepeatedScalarFieldContainer[str]
    role_path: _containers.RepeatedScalarFieldContainer[str]
    nearest_miss: _types_pb2.NearestMiss
    detail: str
    dpop_nonce: str
    candidate: str
    def __init__(self, effect: _Optional[_Union[_types_pb2.Effect, str]] = ..., reason: _Optional[str] = ..., obligations: _Optional[_Iterable[_Union[_types_pb2.Obligation, _Mapping]]] = ..., world_seq: _Optional[int] = ..., decision_id: _Optional[str] = ..., recheck_after_ms: _Optional[int] = ..., determining: _Optional[_Iterable[str]] = ..., role_path: _Optional[_Iterable[str]] = ..., nearest_miss: _Optional[_Union[_types_pb2.NearestMiss, _Mapping]] = ..., detail: _Optional[str] = ..., dpop_nonce: _Optional[str] = ..., candidate: _Optional[str] = ...) -> None: ...

class EvaluateRequest(_message.Message):
    __slots__ = ("question", "at_least")
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    question: Question
    at_least: int
    def __init__(self, question: _Optional[_Union[Question, _Mapping]] = ..., at_least: _Optional[int] = ...) -> None: ...

class EvaluateResponse(_message.Message):
    __slots__ = ("decision",)
    DECISION_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    def __init__(self, decision: _Optional[_Union[Decision, _Mapping]] = ...) -> None: ...

class EvaluateBatchRequest(_message.Message):
    __slots__ = ("questions", "at_least")
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    questions: _containers.RepeatedCompositeFieldContainer[Question]
    at_least: int
    def __init__(self, questions: _Optional[_Iterable[_Union[Question, _Mapping]]] = ..., at_least: _Optional[int] = ...) -> None: ...

class EvaluateBatchResponse(_message.Message):
    __slots__ = ("decisions",)
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    decisions: _containers.RepeatedCompositeFieldContainer[Decision]
    def __init__(self, decisions: _Optional[_Iterable[_Union[Decision, _Mapping]]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("question", "at_least")
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    question: Question
    at_least: int
    def __init__(self, question: _Optional[_Union[Question, _Mapping]] = ..., at_least: _Optional[int] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("decision", "ended")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    ended: bool
    def __init__(self, decision: _Optional[_Union[Decision, _Mapping]] = ..., ended: bool = ...) -> None: ...

class SearchTerms(_message.Message):
    __slots__ = ("attributes", "workload", "page_size", "cursor", "at_least")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _types_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_types_pb2.Value, _Mapping]] = ...) -> None: ...
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    attributes: _containers.MessageMap[str, _types_pb2.Value]
    workload: str
    page_size: int
    cursor: str
    at_least: int
    def __init__(self, attributes: _Optional[_Mapping[str, _types_pb2.Value]] = ..., workload: _Optional[str] = ..., page_size: _Optional[int] = ..., cursor: _Optional[str] = ..., at_least: _Optional[int] = ...) -> None: ...

class SearchSubjectsRequest(_message.Message):
    __slots__ = ("action", "resource", "terms")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    action: str
    resource: str
    terms: SearchTerms
    def __init__(self, action: _Optional[str] = ..., resource: _Optional[str] = ..., terms: _Optional[_Union[SearchTerms, _Mapping]] = ...) -> None: ...

class SearchResourcesRequest(_message.Message):
    __slots__ = ("subject", "terms")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    subject: Subject
    terms: SearchTerms
    def __init__(self, subject: _Optional[_Union[Subject, _Mapping]] = ..., terms: _Optional[_Union[SearchTerms, _Mapping]] = ...) -> None: ...

class SearchActionsRequest(_message.Message):
    __slots__ = ("subject", "resource", "terms")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    subject: Subject
    resource: str
    terms: SearchTerms
    def __init__(self, subject: _Optional[_Union[Subject, _Mapping]] = ..., resource: _Optional[str] = ..., terms: _Optional[_Union[SearchTerms, _Mapping]] = ...) -> None: ...

class SearchEntry(_message.Message):
    __slots__ = ("subject", "action", "resource", "access", "depends_on", "sources", "determining", "role_path", "obligations")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    DEPENDS_ON_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    DETERMINING_FIELD_NUMBER: _ClassVar[int]
    ROLE_PATH_FIELD_NUMBER: _ClassVar[int]
    OBLIGATIONS_FIELD_NUMBER: _ClassVar[int]
    subject: str
    action: str
    resource: str
    access: Access
    depends_on: _containers.RepeatedScalarFieldContainer[str]
    sources: _containers.RepeatedScalarFieldContainer[str]
    determining: _containers.RepeatedScalarFieldContainer[str]
    role_path: _containers.RepeatedScalarFieldContainer[str]
    obligations: _containers.RepeatedCompositeFieldContainer[_types_pb2.Obligation]
    def __init__(self, subject: _Optional[str] = ..., action: _Optional[str] = ..., resource: _Optional[str] = ..., access: _Optional[_Union[Access, str]] = ..., depends_on: _Optional[_Iterable[str]] = ..., sources: _Optional[_Iterable[str]] = ..., determining: _Optional[_Iterable[str]] = ..., role_path: _Optional[_Iterable[str]] = ..., obligations: _Optional[_Iterable[_Union[_types_pb2.Obligation, _Mapping]]] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("entries", "next_cursor", "world_seq", "total")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[SearchEntry]
    next_cursor: str
    world_seq: int
    total: int
    def __init__(self, entries: _Optional[_Iterable[_Union[SearchEntry, _Mapping]]] = ..., next_cursor: _Optional[str] = ..., world_seq: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...
