from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LockTarget(_message.Message):
    __slots__ = ("principal", "resource", "jti", "session", "issued_before", "certificate", "serial", "account_uid", "pod_uid")
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    JTI_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ISSUED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_UID_FIELD_NUMBER: _ClassVar[int]
    POD_UID_FIELD_NUMBER: _ClassVar[int]
    principal: str
    resource: str
    jti: IssuerScoped
    session: IssuerScoped
    issued_before: IssuedBefore
    certificate: str
    serial: IssuerScoped
    account_uid: IssuerScoped
    pod_uid: IssuerScoped
    def __init__(self, principal: _Optional[str] = ..., resource: _Optional[str] = ..., jti: _Optional[_Union[IssuerScoped, _Mapping]] = ..., session: _Optional[_Union[IssuerScoped, _Mapping]] = ..., issued_before: _Optional[_Union[IssuedBefore, _Mapping]] = ..., certificate: _Optional[str] = ..., serial: _Optional[_Union[IssuerScoped, _Mapping]] = ..., account_uid: _Optional[_Union[IssuerScoped, _Mapping]] = ..., pod_uid: _Optional[_Union[IssuerScoped, _Mapping]] = ...) -> None: ...

class IssuerScoped(_message.Message):
    __slots__ = ("issuer", "id")
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    issuer: str
    id: str
    def __init__(self, issuer: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class IssuedBefore(_message.Message):
    __slots__ = ("issuer", "time_s", "principal")
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    issuer: str
    time_s: int
    principal: str
    def __init__(self, issuer: _Optional[str] = ..., time_s: _Optional[int] = ..., principal: _Optional[str] = ...) -> None: ...

class Lock(_message.Message):
    __slots__ = ("id", "target", "reason", "source", "world_seq", "start_ms", "end_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    START_MS_FIELD_NUMBER: _ClassVar[int]
    END_MS_FIELD_NUMBER: _ClassVar[int]
    id: str
    target: LockTarget
    reason: str
    source: str
    world_seq: int
    start_ms: int
    end_ms: int
    def __init__(self, id: _Optional[str] = ..., target: _Optional[_Union[LockTarget, _Mapping]] = ..., reason: _Optional[str] = ..., source: _Optional[str] = ..., world_seq: _Optional[int] = ..., start_ms: _Optional[int] = ..., end_ms: _Optional[int] = ...) -> None: ...

class LockRequest(_message.Message):
    __slots__ = ("target", "reason", "end_ms", "wait_all")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    END_MS_FIELD_NUMBER: _ClassVar[int]
    WAIT_ALL_FIELD_NUMBER: _ClassVar[int]
    target: LockTarget
    reason: str
    end_ms: int
    wait_all: bool
    def __init__(self, target: _Optional[_Union[LockTarget, _Mapping]] = ..., reason: _Optional[str] = ..., end_ms: _Optional[int] = ..., wait_all: bool = ...) -> None: ...

class LockResponse(_message.Message):
    __slots__ = ("lock", "receipt")
    LOCK_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    lock: Lock
    receipt: Receipt
    def __init__(self, lock: _Optional[_Union[Lock, _Mapping]] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("world_seq", "connected", "holding", "missing", "slowest_ms")
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    HOLDING_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    SLOWEST_MS_FIELD_NUMBER: _ClassVar[int]
    world_seq: int
    connected: int
    holding: int
    missing: _containers.RepeatedScalarFieldContainer[str]
    slowest_ms: float
    def __init__(self, world_seq: _Optional[int] = ..., connected: _Optional[int] = ..., holding: _Optional[int] = ..., missing: _Optional[_Iterable[str]] = ..., slowest_ms: _Optional[float] = ...) -> None: ...

class UnlockRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class UnlockResponse(_message.Message):
    __slots__ = ("world_seq",)
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    world_seq: int
    def __init__(self, world_seq: _Optional[int] = ...) -> None: ...

class ListLocksRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListLocksResponse(_message.Message):
    __slots__ = ("locks", "world_seq")
    LOCKS_FIELD_NUMBER: _ClassVar[int]
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    locks: _containers.RepeatedCompositeFieldContainer[Lock]
    world_seq: int
    def __init__(self, locks: _Optional[_Iterable[_Union[Lock, _Mapping]]] = ..., world_seq: _Optional[int] = ...) -> None: ...
