"""Keys and the root file: which key may sign what, for how long, and how many of them it takes.

The root file is the one thing that a replica is told out of band (by its SHA-256): it names every key and gives it to roles.
*root* keys are offline and sign the file itself; *publish* keys sign entries and snapshots; *timestamp* keys sign
heartbeats. A stolen timestamp key can keep an old world fresh but changes nothing; a stolen publish key writes, but cannot
vouch for what it wrote; rotation is a new root file, version N+1, that the roots of N have signed too.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from pdp.errors import BadRequestError, ConfigError
from pdp.limits import MAX_ROOT_FILE_BYTES, MAX_ROOT_KEYS, MAX_SAFE_INTEGER
from pdp.model import canonical
from pdp.trust.entry import Signature

_ROOT: Final = "portcullis/root/1"
_PUBLIC_BYTES: Final = 32


class Role(StrEnum):
    """What a key may sign."""

    ROOT = "root"
    PUBLISH = "publish"
    TIMESTAMP = "timestamp"


class SigningKey:
    """An Ed25519 private key; its id is the SHA-256 of the public one, so that two ids are two keys."""

    __slots__ = ("_private", "key_id", "public")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey(public=private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
        self.key_id = self.public.key_id

    @classmethod
    def generate(cls) -> Self:
        """Make a new key from the system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """Return the key in `pem` (PKCS 8, not encrypted).

        Raises:
            ConfigError: not such a key.
        """
        try:
            private = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError) as error:
            raise ConfigError("not an unencrypted PKCS 8 private key in PEM") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise ConfigError("not an Ed25519 key")
        return cls(private)

    def to_pem(self) -> bytes:
        """Return the private key as PEM; the caller stores it with mode 0600."""
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, message: bytes) -> Signature:
        """Sign `message`, which begins with the domain tag of what it is."""
        return Signature(key_id=self.key_id, signature=self._private.sign(message))

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id[:16]})"  # never the key itself, whoever prints it


@dataclass(frozen=True, slots=True, kw_only=True)
class PdpKeys:
    """The two online keys of a PDP."""

    publish: SigningKey
    timestamp: SigningKey


def key_id(public: bytes) -> str:
    """Return the id of a public key: SHA-256 of its 32 raw bytes in hex."""
    return hashlib.sha256(public).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A key as the root file names it.

    Signed times from `not_before_ms` to `not_after_ms` (0 = open) are inside its validity. `until_seq` (0 = open) ends a
    retired publish key at a number: what it signed stays valid, and a thief cannot date an entry back.
    """

    public: bytes
    name: str = ""
    not_before_ms: int = 0
    not_after_ms: int = 0
    until_seq: int = 0
    _loaded: Ed25519PublicKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.public) != _PUBLIC_BYTES or type(self.name) is not str:
            raise BadRequestError("a key of a root file has 32 public bytes and a name")
        for number in (self.not_before_ms, self.not_after_ms, self.until_seq):
            _check_number(number)
        object.__setattr__(self, "_loaded", Ed25519PublicKey.from_public_bytes(self.public))

    @property
    def key_id(self) -> str:
        """The id, computed from the key and not read from the file."""
        return key_id(self.public)

    def signed(self, message: bytes, signature: bytes) -> bool:
        """Tell whether `signature` is this key's over `message`."""
        try:
            self._loaded.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def valid(self, *, time_ms: int, seq: int) -> bool:
        """Tell whether this key may sign at `time_ms`, for number `seq`."""
        in_time = self.not_before_ms <= time_ms and (not self.not_after_ms or time_ms <= self.not_after_ms)
        return in_time and (not self.until_seq or seq <= self.until_seq)

    def to_json(self) -> dict[str, Any]:
        """Return the entry of this key in a root file."""
        return {
            "public": self.public.hex(),
            "name": self.name,
            "not_before_ms": self.not_before_ms,
            "not_after_ms": self.not_after_ms,
            "until_seq": self.until_seq,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Read such an entry; unknown fields are refused."""
        return cls(**{**raw, "public": bytes.fromhex(raw["public"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleKeys:
    """Who holds a role, by key id, and how many of them must sign."""

    threshold: int
    keys: frozenset[str]

    def __post_init__(self) -> None:
        # INVARIANT: a threshold is never 0, or nobody's signature would be enough (go-tuf GHSA-3633-5h82-39pq).
        if type(self.threshold) is not int or not 1 <= self.threshold <= len(self.keys):
            raise BadRequestError("a role's threshold is at least 1 and at most the number of its keys")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """Of two entries under number `seq`, the one with this digest (hex) counts: what `pdp log adopt` has signed."""

    seq: int
    digest: str

    def __post_init__(self) -> None:
        _check_number(self.seq)
        if self.seq < 1 or type(self.digest) is not str or len(bytes.fromhex(self.digest)) != _PUBLIC_BYTES:
            raise BadRequestError("a ruling names a number from 1 and a digest")


@dataclass(frozen=True, slots=True, kw_only=True)
class RootFile:
    """The root of trust of one tenant, checked: who may sign what. `raw` are the bytes whose SHA-256 replicas pin."""

    tenant: str
    version: int
    time_ms: int
    keys: Mapping[str, PublicKey]
    roles: Mapping[Role, RoleKeys]
    ruling: Ruling | None = None
    raw: bytes = field(repr=False)

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Return the root file in `raw`, signed by a threshold of its own root keys.

        A file that parses is consistent, not yet trusted: the caller compares `digest` with the pinned one, or
        checks `succeeds`.

        Raises:
            BadRequestError: malformed, or not signed by its own root keys.
        """
        if len(raw) > MAX_ROOT_FILE_BYTES:
            raise BadRequestError(f"a root file has at most {MAX_ROOT_FILE_BYTES} bytes")
        try:
            return cls._read(raw, canonical.loads(raw))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadRequestError(f"not a root file: {error}") from error

    @classmethod
    def _read(cls, raw: bytes, value: Any) -> Self:
        if set(value) != {"signed", "signatures"} or set(value["signed"]) - {"ruling"} != _SIGNED_FIELDS:
            raise BadRequestError("it has other fields than a root file")
        signed = value["signed"]
        root = cls(
            tenant=str(signed["tenant"]),
            version=signed["version"],
            time_ms=signed["time_ms"],
            keys={name: PublicKey.from_json(key) for name, key in signed["keys"].items()},
            roles={
                Role(name): RoleKeys(threshold=role["threshold"], keys=frozenset(role["keys"]))
                for name, role in signed["roles"].items()
            },
            ruling=Ruling(**signed["ruling"]) if "ruling" in signed else None,
            raw=raw,
        )
        signatures = _signatures(value["signatures"])
        if not root._signed_by(signatures, root):
            raise BadRequestError("it is not signed by enough of its own root keys")
        return root

    def __post_init__(self) -> None:
        _check_number(self.version)
        _check_number(self.time_ms)
        if not self.tenant or self.version < 1 or not 0 < len(self.keys) <= MAX_ROOT_KEYS:
            raise BadRequestError(f"a root file has a tenant, a version from 1 and 1 to {MAX_ROOT_KEYS} keys")
        # A name that is not the key's own digest could list one key twice and reach a threshold alone.
        if any(name != key.key_id for name, key in self.keys.items()):
            raise BadRequestError("a key is listed under another id than its own")
        self._check_roles()

    def _check_roles(self) -> None:
        if set(self.roles) != set(Role):
            raise BadRequestError("a root file gives the roles root, publish and timestamp")
        for role in self.roles.values():
            if not role.keys <= set(self.keys):
                raise BadRequestError("a role names a key that the file does not hold")
        # One key in two roles would make the theft of one the theft of both.
        if sum(len(role.keys) for role in self.roles.values()) != len(self.keys):
            raise BadRequestError("every key has exactly one role")
        if self.roles[Role.TIMESTAMP].threshold != 1:
            raise BadRequestError("a heartbeat bears one signature: the threshold of timestamp is 1")

    @property
    def digest(self) -> str:
        """SHA-256 of the file in hex, as `sha256sum` prints it: what a replica pins."""
        return hashlib.sha256(self.raw).hexdigest()

    def holders(self, role: Role) -> tuple[PublicKey, ...]:
        """Return the keys of `role`."""
        return tuple(self.keys[name] for name in self.roles[role].keys)

    def succeeds(self, old: "RootFile") -> bool:
        """Tell whether this file may replace `old`: the next version of its tenant, signed by the roots of both."""
        signatures = _signatures(canonical.loads(self.raw)["signatures"])
        return self.tenant == old.tenant and self.version == old.version + 1 and self._signed_by(signatures, old)

    def _signed_by(self, signatures: Iterable[Signature], root: "RootFile") -> bool:
        message = _root_message(canonical.loads(self.raw)["signed"])
        return enough(root, Role.ROOT, message, signatures, time_ms=self.time_ms, seq=0)


_SIGNED_FIELDS: Final = {"tenant", "version", "time_ms", "keys", "roles"}


def signers(root: RootFile, role: Role, message: bytes, signatures: Iterable[Signature]) -> frozenset[PublicKey]:
    """Return the keys of `role` that signed `message`: by distinct key material, however often each appears."""
    held = {name: root.keys[name] for name in root.roles[role].keys}
    return frozenset(
        held[item.key_id]
        for item in signatures
        if item.key_id in held and held[item.key_id].signed(message, item.signature)
    )


def enough(
    root: RootFile, role: Role, message: bytes, signatures: Iterable[Signature], *, time_ms: int, seq: int
) -> bool:
    """Tell whether a threshold of valid keys of `role` signed `message`."""
    found = signers(root, role, message, signatures)
    return sum(key.valid(time_ms=time_ms, seq=seq) for key in found) >= root.roles[role].threshold


def sign_root(
    *,
    tenant: str,
    version: int,
    time_ms: int,
    roles: Mapping[Role, Iterable[PublicKey]],
    signing: Iterable[SigningKey],
    thresholds: Mapping[Role, int] | None = None,
    ruling: Ruling | None = None,
) -> RootFile:
    """Return the root file that gives `roles` their keys, signed by `signing` (of old and new roots at a rotation)."""
    wanted = thresholds or {}
    members = {role: tuple(keys) for role, keys in roles.items()}
    signed: dict[str, Any] = {
        "tenant": tenant,
        "version": version,
        "time_ms": time_ms,
        "keys": {key.key_id: key.to_json() for keys in members.values() for key in keys},
        "roles": {
            role.value: {"threshold": wanted.get(role, 1), "keys": sorted(key.key_id for key in keys)}
            for role, keys in members.items()
        },
    }
    if ruling is not None:
        signed["ruling"] = {"seq": ruling.seq, "digest": ruling.digest}
    message = _root_message(signed)
    signatures = [[item.key_id, item.signature.hex()] for item in (key.sign(message) for key in signing)]
    return RootFile.parse(canonical.dumps({"signed": signed, "signatures": signatures}))


def _root_message(signed: Mapping[str, Any]) -> bytes:
    """Return what root keys sign; the file is canonical, so the object has exactly one spelling."""
    return _ROOT.encode() + b"\x00" + canonical.dumps(dict(signed))


def _signatures(raw: Iterable[Any]) -> tuple[Signature, ...]:
    return tuple(Signature(key_id=str(name), signature=bytes.fromhex(text)) for name, text in raw)


def _check_number(number: object) -> None:
    if type(number) is not int or not 0 <= number <= MAX_SAFE_INTEGER:
        raise BadRequestError("a number of a root file is an integer from 0 to 2^53 - 1")
