"""Locks: revocations and kill switches. A lock beats every allow (IDENTITY.md section 4, RV-1 to RV-3).

A `LockSet` is immutable and indexed by what a lock names, so that matching costs as much as the question has subjects,
and not as much as there are locks: a few dictionary look-ups for each party, one for each *shape* of resource pattern in use.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from types import MappingProxyType
from typing import Any, ClassVar, Final, Self

from pdp.errors import BadRequestError
from pdp.limits import MAX_ATTRIBUTE_BYTES, MAX_CLOCK_SKEW_S, MAX_NAME_BYTES, MAX_SAFE_INTEGER
from pdp.model.attributes import instant_ms
from pdp.model.names import Kind, Principal, Resource, ResourcePattern, SpiffeId
from pdp.model.request import CredentialFacts, Question

_FINGERPRINT_CHARS: Final = 64
_BELOW: Final = "/**"
_EVERY_ACCOUNT: Final = ":*"
_ACCOUNTS: Final = re.compile(r"workload:([a-z0-9-]{1,63}/)?system:serviceaccount:[a-z0-9-]{1,63}:\*")
"""Every service account of one namespace in one cluster."""
_SERIAL_DIGITS: Final = len(str(2**160))
"""A serial number has at most 20 octets (RFC 5280 section 4.1.2.2)."""

Key = tuple[str, ...]
Shape = tuple[int, tuple[int, ...], bool, bool]
"""How a resource pattern looks: number of segments, positions of `*`, whether it ends in `**`, whether it has a version."""


class LockKind(StrEnum):
    """What a lock can match."""

    PRINCIPAL = "principal"
    RESOURCE = "resource"
    JTI = "jti"
    SESSION = "session"
    ISSUED_BEFORE = "issued_before"
    CERTIFICATE = "certificate"
    SERIAL = "serial"
    ACCOUNT_UID = "account_uid"
    POD_UID = "pod_uid"

    @property
    def word(self) -> str:
        """How a person writes it."""
        return self.value.replace("_", "-")


SCOPED: Final = frozenset({LockKind.JTI, LockKind.SESSION, LockKind.SERIAL, LockKind.ACCOUNT_UID, LockKind.POD_UID})
"""The kinds that name a value of one issuer: of tokens or, for a serial number, of certificates."""


_SCOPED_WORDS: Final = {kind.word: kind for kind in SCOPED}


@dataclass(frozen=True, slots=True, kw_only=True)
class LockTarget:
    """What a lock matches, valid once made.

    `principal` names a subject, actor or workload; a workload may end in `/**`: every SPIFFE ID below it, by whole
    segments; `workload:CLUSTER/system:serviceaccount:NAMESPACE:*` is every account there. `resource` is a pattern; `issuer`
    with `value` a token id, session or uid; `issuer` with `time_s` (and `principal`) every token issued up to then; `value`
    alone the SHA-256 of a certificate in lower-case hex. The issuer of a serial number is the distinguished name of the
    authority as RFC 4514 writes it, and the number is decimal.
    """

    kind: LockKind
    principal: str = ""
    resource: str = ""
    issuer: str = ""
    value: str = ""
    time_s: int = 0

    def __post_init__(self) -> None:
        needed, allowed = _FIELDS[self.kind]
        for name in ("principal", "resource", "issuer", "value", "time_s"):
            given = bool(getattr(self, name))
            if given is not (name in needed) and name not in allowed:
                raise BadRequestError(f"a lock on `{self.kind.value}` {'has no' if given else 'needs'} `{name}`")
        _check_texts(self.issuer, self.value)
        if type(self.time_s) is not int or not 0 <= self.time_s <= MAX_SAFE_INTEGER:
            raise BadRequestError("a time is in whole seconds since the epoch")
        if self.principal:
            _check_principal(self.principal)
        if self.resource:
            ResourcePattern.parse(self.resource)
        if self.kind is LockKind.CERTIFICATE:
            _check_fingerprint(self.value)
        if self.kind is LockKind.SERIAL:
            _check_serial(self.value)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the target that a person wrote.

        `user:…`, `agent:…`, `workload:…`, `resource:PATTERN`, `jti:ISS#ID`, `session:ISS#ID`, `certificate:HEX`,
        `serial:NAME#NUMBER` with NUMBER decimal, or hex with colons, `account-uid:ISS#UID`, `pod-uid:ISS#UID`,
        `issued-before:ISS#TIME[#PRINCIPAL]` with TIME in RFC 3339 or seconds.

        Raises:
            BadRequestError, BadNameError: anything else.
        """
        word, _, rest = text.partition(":")
        if word in Kind._value2member_map_:
            return cls(kind=LockKind.PRINCIPAL, principal=text)
        if word == "resource":
            return cls(kind=LockKind.RESOURCE, resource=rest)
        if word in _SCOPED_WORDS:
            # A distinguished name may hold `#`; a value never does.
            issuer, _, value = rest.rpartition("#")
            kind = _SCOPED_WORDS[word]
            return cls(kind=kind, issuer=issuer, value=_decimal(value) if kind is LockKind.SERIAL else value)
        if word == "certificate":
            return cls(kind=LockKind.CERTIFICATE, value=rest.lower().replace(":", ""))
        if word == "issued-before":
            issuer, _, tail = rest.partition("#")
            time, _, principal = tail.partition("#")
            return cls(kind=LockKind.ISSUED_BEFORE, issuer=issuer, time_s=_seconds(time), principal=principal)
        raise BadRequestError(
            "a lock's target is `user:…`, `agent:…`, `workload:…`, `resource:…`, `jti:ISS#ID`, `session:ISS#ID`, "
            "`certificate:HEX`, `serial:NAME#NUMBER`, `account-uid:ISS#UID`, `pod-uid:ISS#UID` or "
            "`issued-before:ISS#TIME[#PRINCIPAL]`"
        )

    def __str__(self) -> str:
        if self.kind is LockKind.PRINCIPAL:
            return self.principal
        if self.kind is LockKind.RESOURCE:
            return f"resource:{self.resource}"
        if self.kind is LockKind.CERTIFICATE:
            return f"certificate:{self.value}"
        if self.kind is LockKind.ISSUED_BEFORE:
            tail = f"#{self.principal}" if self.principal else ""
            return f"issued-before:{self.issuer}#{self.time_s}{tail}"
        return f"{self.kind.word}:{self.issuer}#{self.value}"

    def to_json(self) -> dict[str, Any]:
        """Return the fields that this kind has."""
        fields = {name: getattr(self, name) for name in ("principal", "resource", "issuer", "value", "time_s")}
        return {"kind": self.kind.value, **{name: value for name, value in fields.items() if value}}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; unknown fields are refused."""
        try:
            return cls(**{**raw, "kind": LockKind(raw["kind"])})
        except (KeyError, TypeError, ValueError) as error:
            raise BadRequestError(f"not a lock's target: {error}") from error


_NO_FIELDS: Final[frozenset[str]] = frozenset()
_FIELDS: Final[Mapping[LockKind, tuple[frozenset[str], frozenset[str]]]] = MappingProxyType(
    {
        LockKind.PRINCIPAL: (frozenset({"principal"}), _NO_FIELDS),
        LockKind.RESOURCE: (frozenset({"resource"}), _NO_FIELDS),
        **{kind: (frozenset({"issuer", "value"}), _NO_FIELDS) for kind in SCOPED},
        LockKind.ISSUED_BEFORE: (frozenset({"issuer", "time_s"}), frozenset({"principal"})),
        LockKind.CERTIFICATE: (frozenset({"value"}), _NO_FIELDS),
    }
)
"""For each kind the fields that it must have, and those that it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """A lock in force from `start_ms` until `end_ms` (milliseconds since the epoch; end 0 = until removed).

    `source` says who set it; `world_seq` is the number of the entry that did.
    """

    id: str
    target: LockTarget
    reason: str
    source: str
    world_seq: int = 0
    start_ms: int = 0
    end_ms: int = 0

    def __post_init__(self) -> None:
        _check_texts(self.id, self.reason, self.source)
        if not self.id:
            raise BadRequestError("a lock has an id")
        for number in (self.world_seq, self.start_ms, self.end_ms):
            if type(number) is not int or not 0 <= number <= MAX_SAFE_INTEGER:
                raise BadRequestError("a number of a lock is an integer from 0 to 2^53 - 1")
        if self.end_ms and self.end_ms <= self.start_ms:
            raise BadRequestError("a lock ends after it starts")
        if self.target.time_s * 1000 > self.start_ms + MAX_CLOCK_SKEW_S * 1000:
            # `issued_before` only moves forward: a time in the future would win for ever, over every honest one.
            raise BadRequestError("`issued_before` lies in the future")

    def active(self, now_ms: int) -> bool:
        """Tell whether the lock is in force at `now_ms`."""
        return self.start_ms <= now_ms and (not self.end_ms or now_ms < self.end_ms)

    def to_json(self) -> dict[str, Any]:
        """Return the lock as a snapshot of the world holds it."""
        return {
            "id": self.id,
            "target": self.target.to_json(),
            "reason": self.reason,
            "source": self.source,
            "world_seq": self.world_seq,
            "start_ms": self.start_ms,
            "end_ms": self.end_ms,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote, or the payload of a `lock` entry; unknown fields are refused."""
        try:
            return cls(**{**raw, "target": LockTarget.from_json(raw["target"])})
        except (KeyError, TypeError) as error:
            raise BadRequestError(f"not a lock: {error}") from error


class LockSet:
    """All locks of a world: immutable, each change returns another set and shares what it did not touch."""

    __slots__ = ("_by_id", "_index", "_shapes")

    EMPTY: ClassVar["LockSet"]

    def __init__(
        self, by_id: Mapping[str, Lock], index: Mapping[Key, tuple[Lock, ...]], shapes: Mapping[Shape, int]
    ) -> None:
        self._by_id = by_id
        self._index = index
        self._shapes = shapes

    def added(self, lock: Lock) -> "LockSet":
        """Return this set with `lock`.

        Raises:
            BadRequestError: another lock has its id; a lock is never replaced, only removed.
        """
        if lock.id in self._by_id:
            raise BadRequestError(f"there is a lock `{lock.id}` already")
        key, shape = _key(lock.target)
        index = {**self._index, key: (*self._index.get(key, ()), lock)}
        shapes = self._shapes if shape is None else {**self._shapes, shape: self._shapes.get(shape, 0) + 1}
        return LockSet({**self._by_id, lock.id: lock}, index, shapes)

    def removed(self, lock_id: str) -> "LockSet":
        """Return this set without the lock of that id; one that is not there changes nothing.

        Raises:
            BadRequestError: the lock is an `issued_before`, which only moves forward (RV-1).
        """
        _check_texts(lock_id)
        lock = self._by_id.get(lock_id)
        if lock is None:
            return self
        if lock.target.kind is LockKind.ISSUED_BEFORE:
            raise BadRequestError("`issued_before` only moves forward: it ends by time and cannot be removed")
        key, shape = _key(lock.target)
        index = {**self._index, key: tuple(item for item in self._index[key] if item.id != lock_id)}
        if not index[key]:
            del index[key]
        return LockSet({name: item for name, item in self._by_id.items() if name != lock_id}, index, self._fewer(shape))

    def _fewer(self, shape: Shape | None) -> Mapping[Shape, int]:
        if shape is None:
            return self._shapes
        return {name: count - (name == shape) for name, count in self._shapes.items() if count - (name == shape)}

    def match(self, question: Question, now_ms: int) -> Lock | None:
        """Return a lock in force at `now_ms` that `question` meets, or None."""
        return self._first(self._keys(question), question.credential, now_ms) if self._by_id else None

    def meets(self, question: Question) -> bool:
        """Tell whether `question` meets a lock that is in force, was, or will be."""
        return bool(self._by_id) and any(self._index.get(key) for key in self._keys(question))

    def _keys(self, question: Question) -> Iterator[Key]:
        """Yield every key under which a lock that `question` meets can stand."""
        principals = [question.subject.principal, *(actor.principal for actor in question.actors)]
        if question.workload is not None:
            principals.append(question.workload)
        yield from _credential_keys(principals, question.credential)
        yield from _target_keys(question, self._shapes)

    def match_credential(
        self, *, principals: Iterable[Principal], credential: CredentialFacts, now_ms: int
    ) -> Lock | None:
        """Return a lock that meets a credential whatever it is used for: the check at intake (RV-2)."""
        return self._first(_credential_keys(tuple(principals), credential), credential, now_ms) if self._by_id else None

    def _first(self, keys: Iterable[Key], credential: CredentialFacts, now_ms: int) -> Lock | None:
        for key in keys:
            for lock in self._index.get(key, ()):
                if lock.active(now_ms) and _covers(lock.target, credential):
                    return lock
        return None

    def get(self, lock_id: str) -> Lock | None:
        """Return the lock of that id, expired ones included."""
        return self._by_id.get(lock_id)

    def __iter__(self) -> Iterator[Lock]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)


LockSet.EMPTY = LockSet(MappingProxyType({}), MappingProxyType({}), MappingProxyType({}))


def _covers(target: LockTarget, credential: CredentialFacts) -> bool:
    """A token that does not say when it was issued counts as issued before (RV-1); other kinds matched by key."""
    return target.kind is not LockKind.ISSUED_BEFORE or credential.issued_at_s <= target.time_s


def _key(target: LockTarget) -> tuple[Key, Shape | None]:
    """Return where the index keeps a lock, and its shape if it is on a resource pattern."""
    if target.kind is LockKind.RESOURCE:
        pattern = ResourcePattern.parse(target.resource)
        stars = tuple(place for place, segment in enumerate(pattern.segments) if segment == "*")
        deep = pattern.segments[-1] == "**"
        shape = (len(pattern.segments) - deep, stars, deep, bool(pattern.version))
        return ("resource", pattern.type, *pattern.segments, "@", pattern.version), shape
    if target.kind is LockKind.PRINCIPAL:
        return ("principal", target.principal), None
    if target.kind is LockKind.ISSUED_BEFORE:
        return ("issued_before", target.issuer, target.principal), None
    return (target.kind.value, target.issuer, target.value), None


def _credential_keys(principals: Sequence[Principal], credential: CredentialFacts) -> Iterator[Key]:
    """Yield every key under which a lock on these principals or this credential can stand."""
    for principal in principals:
        yield from (("principal", name) for name in _principal_names(principal))
    if credential.fingerprint:
        yield ("certificate", "", credential.fingerprint)
    if credential.serial:
        yield ("serial", credential.certificate_issuer, credential.serial)
    if credential.issuer:
        yield ("jti", credential.issuer, credential.jti)
        yield ("session", credential.issuer, credential.session)
        if credential.account_uid:
            yield ("account_uid", credential.issuer, credential.account_uid)
            yield ("pod_uid", credential.issuer, credential.pod_uid)
        yield ("issued_before", credential.issuer, "")
        for principal in principals:
            yield from (("issued_before", credential.issuer, name) for name in _principal_names(principal))


def _target_keys(question: Question, shapes: Mapping[Shape, int]) -> Iterator[Key]:
    """Yield every key under which a lock on what is accessed can stand: the resource, and the model behind an endpoint."""
    for resource in (question.resource, question.serves):
        if resource is not None:
            yield from chain.from_iterable(_resource_keys(resource, shape) for shape in shapes)


def _principal_names(principal: Principal) -> Iterator[str]:
    """Yield a principal's own name and those of the groups of workloads that it is in.

    For a SPIFFE ID, every whole-segment prefix; for a service account, its namespace in its cluster.
    """
    yield str(principal)
    if principal.kind is not Kind.WORKLOAD:
        return
    if not principal.id.startswith("spiffe://"):
        namespace, colon, _ = str(principal).rpartition(":")
        if colon and _ACCOUNTS.fullmatch(namespace + _EVERY_ACCOUNT):
            yield namespace + _EVERY_ACCOUNT
        return
    spiffe = SpiffeId.parse(principal.id)
    prefix = f"{Kind.WORKLOAD.value}:spiffe://{spiffe.trust_domain}"
    yield prefix + _BELOW
    for segment in spiffe.path.split("/")[:-1]:
        prefix = f"{prefix}/{segment}"
        yield prefix + _BELOW


def _resource_keys(resource: Resource, shape: Shape) -> Iterator[Key]:
    """Yield the key of the pattern of that shape that covers `resource`, if there can be one."""
    length, stars, deep, versioned = shape
    segments = resource.segments
    if (len(segments) <= length if deep else len(segments) != length) or (versioned and not resource.version):
        return
    masked = ("*" if place in stars else segment for place, segment in enumerate(segments[:length]))
    tail = ("**",) if deep else ()
    yield ("resource", resource.type, *masked, *tail, "@", resource.version if versioned else "")


def _check_principal(text: str) -> None:
    """Refuse what names no principal; the patterns of workloads are those of `_principal_names`."""
    if _ACCOUNTS.fullmatch(text):
        return
    prefix = f"{Kind.WORKLOAD.value}:spiffe://"
    if text.startswith(prefix) and text.endswith(_BELOW):
        SpiffeId.parse("spiffe://" + text.removeprefix(prefix).removesuffix(_BELOW) + "/x")
    else:
        Principal.parse(text)


def _check_fingerprint(text: str) -> None:
    if len(text) != _FINGERPRINT_CHARS or not set(text) <= set("0123456789abcdef"):
        raise BadRequestError("a certificate is named by its SHA-256: 64 lower-case hex digits")


def _decimal(text: str) -> str:
    """Return a serial number as decimals: tools print it as such, or as pairs of hex digits."""
    digits = text.replace(":", "")
    try:
        return str(int(digits, 16) if ":" in text else int(digits))
    except ValueError as error:
        raise BadRequestError("a serial number is decimal, or pairs of hex digits with colons") from error


def _check_serial(text: str) -> None:
    if len(text) > _SERIAL_DIGITS or not text.isascii() or not text.isdecimal() or (text[0] == "0" and text != "0"):
        raise BadRequestError("a serial number is decimal, without leading zeros, and has at most 20 octets")


def _check_texts(*texts: object) -> None:
    for text in texts:
        if type(text) is not str or len(text.encode(errors="surrogatepass")) > MAX_ATTRIBUTE_BYTES:
            raise BadRequestError(f"a text of a lock has at most {MAX_ATTRIBUTE_BYTES} bytes")
        if not text.isprintable():
            raise BadRequestError("a text of a lock is printable")


def _seconds(text: str) -> int:
    """Read seconds since the epoch, or an instant in RFC 3339; the instant's whole second is covered."""
    if text.isascii() and text.isdigit() and len(text) < MAX_NAME_BYTES:
        return int(text)
    return -(-instant_ms(text) // 1000)
