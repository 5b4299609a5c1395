from pdp.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Asset(_message.Message):
    __slots__ = ("name", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _types_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_types_pb2.Value, _Mapping]] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    attributes: _containers.MessageMap[str, _types_pb2.Value]
    def __init__(self, name: _Optional[str] = ..., attributes: _Optional[_Mapping[str, _types_pb2.Value]] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("assets", "revive")
    ASSETS_FIELD_NUMBER: _ClassVar[int]
    REVIVE_FIELD_NUMBER: _ClassVar[int]
    assets: _containers.RepeatedCompositeFieldContainer[Asset]
    revive: bool
    def __init__(self, assets: _Optional[_Iterable[_Union[Asset, _Mapping]]] = ..., revive: bool = ...) -> None: ...

class RegisterResponse(_message.Message):
    __slots__ = ("world_seq",)
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    world_seq: int
    def __init__(self, world_seq: _Optional[int] = ...) -> None: ...

class RetireRequest(_message.Message):
    __slots__ = ("names", "reason")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    def __init__(self, names: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ...) -> None: ...

class RetireResponse(_message.Message):
    __slots__ = ("world_seq",)
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    world_seq: int
    def __init__(self, world_seq: _Optional[int] = ...) -> None: ...

class GetAssetRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetAssetResponse(_message.Message):
    __slots__ = ("asset", "world_seq")
    ASSET_FIELD_NUMBER: _ClassVar[int]
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    asset: Asset
    world_seq: int
    def __init__(self, asset: _Optional[_Union[Asset, _Mapping]] = ..., world_seq: _Optional[int] = ...) -> None: ...

class ListAssetsRequest(_message.Message):
    __slots__ = ("pattern",)
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    pattern: str
    def __init__(self, pattern: _Optional[str] = ...) -> None: ...

class ListAssetsResponse(_message.Message):
    __slots__ = ("assets", "world_seq")
    ASSETS_FIELD_NUMBER: _ClassVar[int]
    WORLD_SEQ_FIELD_NUMBER: _ClassVar[int]
    assets: _containers.RepeatedCompositeFieldContainer[Asset]
    world_seq: int
    def __init__(self, assets: _Optional[_Iterable[_Union[Asset, _Mapping]]] = ..., world_seq: _Optional[int] = ...) -> None: ...
