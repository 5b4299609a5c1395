from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class QuestionsAsBytes(_message.Message):
    __slots__ = ("questions", "at_least")
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    questions: _containers.RepeatedScalarFieldContainer[bytes]
    at_least: int
    def __init__(self, questions: _Optional[_Iterable[bytes]] = ..., at_least: _Optional[int] = ...) -> None: ...

class DecisionsAsBytes(_message.Message):
    __slots__ = ("decisions",)
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    decisions: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, decisions: _Optional[_Iterable[bytes]] = ...) -> None: ...
