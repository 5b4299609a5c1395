from pdp.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Subject(_message.Message):
    __slots__ = ("credential", "asserted")
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    ASSERTED_FIELD_NUMBER: _ClassVar[int]
    credential: str
    asserted: AssertedSubject
    def __init__(self, credential: _Optional[str] = ..., asserted: _Optional[_Union[AssertedSubject, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("effect", "reason", "obligations", "world_seq", "decision_id", "recheck_after_ms", "determining", "role_path", "nearest_miss", "detail")
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
    def __init__(self, effect: _Optional[_Union[_types_pb2.Effect, str]] = ..., reason: _Optional[str] = ..., obligations: _Optional[_Iterable[_Union[_types_pb2.Obligation, _Mapping]]] = ..., world_seq: _Optional[int] = ..., decision_id: _Optional[str] = ..., recheck_after_ms: _Optional[int] = ..., determining: _Optional[_Iterable[str]] = ..., role_path: _Optional[_Iterable[str]] = ..., nearest_miss: _Optional[_Union[_types_pb2.NearestMiss, _Mapping]] = ..., detail: _Optional[str] = ...) -> None: ...

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
