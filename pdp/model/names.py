"""Names: one grammar, one canonical form, checked when a value is made and never later.

Principals, roles, groups, segments and collections are told apart by their prefix, so that a token's subject can never be
read as a role. Resources are `<type>/<path>[@<version>]`. Source: POLICY.md section 1, IDENTITY.md section 6.
"""

import re
import unicodedata
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Final, Self

from pdp.errors import BadNameError
from pdp.limits import MAX_NAME_BYTES, MAX_SPIFFE_BYTES, MAX_SUBJECT_BYTES


class Kind(StrEnum):
    """What kind of thing acts."""

    USER = "user"
    WORKLOAD = "workload"
    AGENT = "agent"


ENVIRONMENTS: Final = ("dev", "test", "staging", "prod")
GROUPING_PREFIXES: Final = ("role:", "group:", "segment:", "collection:")
NO_SEGMENT: Final = "segment:none"

_TYPE: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]*")
_VERSION: Final = re.compile(r"sha256:[0-9a-f]{64}|[A-Za-z0-9][A-Za-z0-9._~-]*")
_ACTION: Final = re.compile(r"([a-z][a-z0-9_]{0,62})\.([a-z][a-z0-9_]{0,62})")
_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~/:@+-]*")
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
_SPIFFE_SEGMENT: Final = re.compile(r"[A-Za-z0-9._-]+")
_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9._~+/=:$!&()|^\[\]-]+(@[A-Za-z0-9._~+/=:$!&()|^\[\]-]*)?")
_FORBIDDEN_IN_ID: Final = frozenset(", \"'\\`*?%#;<>{}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpiffeId:
    """A SPIFFE ID: trust domain and path, exactly as SPIFFE spells them (IDENTITY.md SP-1)."""

    trust_domain: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the id, or raise `BadNameError`; a path is required, since only workloads are named here."""
        if not text.startswith("spiffe://") or len(text.encode()) > MAX_SPIFFE_BYTES:
            raise BadNameError("a SPIFFE ID is `spiffe://<trust domain>/<path>`, 2048 bytes at most")
        trust_domain, slash, path = text.removeprefix("spiffe://").partition("/")
        segments = path.split("/")
        if not slash or not _TRUST_DOMAIN.fullmatch(trust_domain):
            raise BadNameError("a SPIFFE ID needs a lower-case trust domain and a path")
        if any(not _SPIFFE_SEGMENT.fullmatch(segment) or segment in {".", ".."} for segment in segments):
            raise BadNameError("a SPIFFE path has only segments of letters, digits, `.`, `_` and `-`")
        return cls(trust_domain=trust_domain, path=path)

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/{self.path}"


def check_identifier(text: str, *, max_bytes: int = MAX_SUBJECT_BYTES) -> None:
    """Refuse an identifier that could be read in two ways (IDENTITY.md NA-4, NA-5).

    Raises:
        BadNameError: empty, too long, not ASCII printable, or holding a character with a meaning elsewhere.
    """
    if len(text) <= max_bytes and _PLAIN_ID.fullmatch(text):
        return  # the usual case; what follows says what is wrong with the others
    if not text or len(text.encode(errors="surrogatepass")) > max_bytes:
        raise BadNameError(f"an identifier has 1 to {max_bytes} bytes")
    if not text.isascii() or not text.isprintable() or not unicodedata.is_normalized("NFC", text):
        raise BadNameError("an identifier is printable ASCII")
    if not _FORBIDDEN_IN_ID.isdisjoint(text) or text.count("@") > 1:
        raise BadNameError("an identifier holds no blank, quote, wildcard or separator and at most one `@`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who acts: `user:alice@example.com`, `workload:spiffe://prod.example/ns/ml/sa/scorer`, `agent:etl-bot`."""

    kind: Kind
    id: str
    text: str = field(init=False, repr=False, compare=False)
    """What `str` returns, made once: a decision looks a name up in several places, and a new text would be hashed each time."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", f"{self.kind.value}:{self.id}")
        if self.id.startswith("spiffe:"):
            SpiffeId.parse(self.id)
        else:
            check_identifier(self.id)

    @classmethod
    def parse(cls, text: str) -> "Principal":
        """Return the principal that `text` names, or raise `BadNameError`."""
        return _parse_principal(text)

    @classmethod
    def read(cls, text: str) -> "Principal":
        """As `parse`, and kept nowhere: the names in rows are read once, and must not push out those that are asked for."""
        return _read_principal(text)

    def __str__(self) -> str:
        return self.text


def _read_principal(text: str) -> Principal:
    kind, colon, rest = text.partition(":")
    if not colon or kind not in Kind._value2member_map_:
        raise BadNameError("a principal is `user:<id>`, `workload:<id>` or `agent:<id>`")
    return Principal(kind=Kind(kind), id=rest)


_parse_principal: Final = lru_cache(maxsize=65_536)(_read_principal)


def check_grouping_name(text: str) -> None:
    """Refuse anything but a well-formed `role:`, `group:`, `segment:` or `collection:` name."""
    prefix, colon, rest = text.partition(":")
    if prefix + colon not in GROUPING_PREFIXES or not _LABEL.fullmatch(rest) or len(text) > MAX_SUBJECT_BYTES:
        raise BadNameError(f"`{printable(text)}` is not a `role:`, `group:`, `segment:` or `collection:` name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What is done: `<type>.<verb>`."""

    type: str
    verb: str
    text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", f"{self.type}.{self.verb}")

    @classmethod
    def parse(cls, text: str) -> "Action":
        """Return the action that `text` names, or raise `BadNameError`."""
        return _parse_action(text)

    def __str__(self) -> str:
        return self.text


@lru_cache(maxsize=4_096)
def _parse_action(text: str) -> Action:
    match = _ACTION.fullmatch(text)
    if match is None:
        raise BadNameError("an action is `<type>.<verb>` in lower case, such as `dataset.read`")
    return Action(type=match[1], verb=match[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What is accessed: a type, a path of one or more segments and, where there is one, a version."""

    type: str
    path: str
    version: str = ""
    text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", f"{self.base}@{self.version}" if self.version else self.base)

    @classmethod
    def parse(cls, text: str) -> "Resource":
        """Return the resource that `text` names, or raise `BadNameError`."""
        return _parse_resource(text)

    @property
    def base(self) -> str:
        """The name without its version."""
        return f"{self.type}/{self.path}"

    @property
    def segments(self) -> tuple[str, ...]:
        """The segments of the path."""
        return tuple(self.path.split("/"))

    def at(self, version: str) -> "Resource":
        """Return this resource in `version`."""
        return _parse_resource(f"{self.base}@{version}")

    def __str__(self) -> str:
        return self.text


@lru_cache(maxsize=65_536)
def _parse_resource(text: str) -> Resource:
    kind, path, version = _split(text)
    if not all(_SEGMENT.fullmatch(segment) for segment in path.split("/")):
        raise BadNameError(f"`{printable(text)}`: path segments are letters, digits, `.`, `_`, `~`, `-`")
    return Resource(type=kind, path=path, version=version)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourcePattern:
    """A resource in a row: `*` stands for one whole segment, a last `**` for one or more; no version means every one."""

    type: str
    segments: tuple[str, ...]
    version: str = ""

    @classmethod
    def parse(cls, text: str) -> "ResourcePattern":
        """Return the pattern that `text` writes, or raise `BadNameError`."""
        return _parse_pattern(text)

    @classmethod
    def read(cls, text: str) -> "ResourcePattern":
        """As `parse`, and kept nowhere (`Principal.read`)."""
        return _read_pattern(text)

    def matches(self, resource: Resource) -> bool:
        """Tell whether `resource` is one of those the pattern names."""
        if resource.type != self.type or (self.version and resource.version != self.version):
            return False
        names, wanted = resource.segments, self.segments
        if wanted[-1] == "**":
            wanted = wanted[:-1]
            if len(names) <= len(wanted):
                return False
        elif len(names) != len(wanted):
            return False
        return all(want in ("*", name) for name, want in zip(names, wanted, strict=False))

    def __str__(self) -> str:
        base = f"{self.type}/{'/'.join(self.segments)}"
        return f"{base}@{self.version}" if self.version else base


def _read_pattern(text: str) -> ResourcePattern:
    kind, path, version = _split(text)
    segments = tuple(path.split("/"))
    for position, segment in enumerate(segments):
        last = position == len(segments) - 1
        if segment == "*" or (segment == "**" and last):
            continue
        if not _SEGMENT.fullmatch(segment):
            raise BadNameError(
                f"`{printable(text)}`: `*` is a whole segment and `**` the last; nothing else is special"
            )
    return ResourcePattern(type=kind, segments=segments, version=version)


_parse_pattern: Final = lru_cache(maxsize=65_536)(_read_pattern)


def _split(text: str) -> tuple[str, str, str]:
    """Split `<type>/<path>[@<version>]`, checking type, version and length."""
    if len(text.encode(errors="surrogatepass")) > MAX_NAME_BYTES:
        raise BadNameError(f"a resource name has at most {MAX_NAME_BYTES} bytes")
    base, at, version = text.partition("@")
    kind, slash, path = base.partition("/")
    if not slash or not _TYPE.fullmatch(kind):
        raise BadNameError(f"`{printable(text)}` is not `<type>/<path>[@<version>]`")
    if at and not _VERSION.fullmatch(version):
        raise BadNameError(f"`{printable(text)}`: a version is a number, `sha256:<digest>` or a snapshot id")
    return kind, path, version


def counted(number: int, one: str, more: str = "") -> str:
    """Return `1 row` or `2 rows`: how many there are of `one`, in a grammar that holds; `more` is its plural if not with an s."""
    return f"{number} {one if number == 1 else more or one + 's'}"


def printable(text: str) -> str:
    """Return `text` shortened and with every unprintable character escaped: fit for a message or a log line."""
    shown = text if len(text) <= 80 else text[:77] + "..."  # noqa: PLR2004 - one line of a terminal
    return shown.encode("unicode_escape").decode("ascii")
