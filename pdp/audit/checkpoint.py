"""Checkpoints: what the writer of a chain signs over it, so that nobody can rewrite what somebody else has seen signed.

A checkpoint says how many records a chain has and the root of the Merkle tree over them. It is a *signed note*, text that people
and other tools can read: an origin, a size, a root, perhaps more lines, then signatures by name of the key. A signature by a
name that the reader does not know is passed over, so that witnesses can add their own.

Source: C2SP signed-note and tlog-checkpoint, https://c2sp.org/tlog-checkpoint
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pdp.limits import MAX_NOTE_BYTES, MAX_SIGNATURES

_ED25519: Final = b"\x01"
_HINT_BYTES: Final = 4
_ROOT_BYTES: Final = 32
_SIGNED_BY: Final = "\u2014 "
_KEY: Final = re.compile(r"(?P<name>[!-*,-~]{1,256})\+(?P<hint>[0-9a-f]{8})\+(?P<key>[A-Za-z0-9+/]{44})")
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,14}")
_PREFIX: Final = "portcullis/"
_NAME_CHARS: Final = 16


class BadNote(ValueError):  # noqa: N818 - a finding about a text, not an error of ours
    """A text that is no note, no checkpoint, or not signed by the key that it should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierKey:
    """The public part of a key that signs checkpoints, spelled `name+hint+key`: one line, to be kept where the log is not."""

    name: str
    public: bytes
    _loaded: Ed25519PublicKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_loaded", Ed25519PublicKey.from_public_bytes(self.public))

    @classmethod
    def of(cls, public: bytes) -> Self:
        """Return the key of these 32 bytes under the name that a process of ours gives it."""
        return cls(name=_PREFIX + hashlib.sha256(public).hexdigest()[:_NAME_CHARS], public=public)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the key that `text` spells.

        Raises:
            BadNote: it spells none.
        """
        match = _KEY.fullmatch(text.strip())
        if match is None:
            raise BadNote("a verifier key is one line, NAME+HINT+KEY")
        raw = _unspelled(match["key"])
        if raw[:1] != _ED25519:
            raise BadNote("a verifier key is an Ed25519 key")
        key = cls(name=match["name"], public=raw[1:])
        if key.hint.hex() != match["hint"]:
            raise BadNote("the hint of the verifier key is not its own: it was changed or cut")
        return key

    @property
    def hint(self) -> bytes:
        """The first bytes of a signature: which key of this name is meant."""
        return hashlib.sha256(f"{self.name}\n".encode() + _ED25519 + self.public).digest()[:_HINT_BYTES]

    def __str__(self) -> str:
        return f"{self.name}+{self.hint.hex()}+{base64.b64encode(_ED25519 + self.public).decode('ascii')}"

    def signed(self, text: str, signature: bytes) -> bool:
        """Tell whether `signature`, hint included, is this key's over `text`."""
        if signature[:_HINT_BYTES] != self.hint:
            return False
        try:
            self._loaded.verify(signature[_HINT_BYTES:], text.encode())
        except InvalidSignature:
            return False
        return True


class NoteSigner(Protocol):
    """What signs notes: a private key that only its process can read."""

    @property
    def key(self) -> VerifierKey:
        """The public part."""
        ...

    def sign(self, text: str) -> bytes:
        """Return the signature over `text`, without a hint."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The state of one chain: `origin` says which, `size` how many records, `root` is over them, `lines` say more."""

    origin: str
    size: int
    root: bytes
    lines: tuple[str, ...] = ()

    def text(self) -> str:
        """Return what is signed."""
        root = base64.b64encode(self.root).decode("ascii")
        return "".join(f"{line}\n" for line in (self.origin, self.size, root, *self.lines))


def origin_of(key: VerifierKey, chain: str) -> str:
    """Return the origin of the checkpoints that `key` signs of `chain`: no two chains share one."""
    return f"{key.name}/{chain}"


def signed_note(checkpoint: Checkpoint, signer: NoteSigner) -> str:
    """Return `checkpoint` as a note that `signer` signed."""
    text = checkpoint.text()
    signature = base64.b64encode(signer.key.hint + signer.sign(text)).decode("ascii")
    return f"{text}\n{_SIGNED_BY}{signer.key.name} {signature}\n"


def opened_note(note: str, keys: Iterable[VerifierKey]) -> tuple[Checkpoint, VerifierKey]:
    """Return the checkpoint that `note` holds, and which of `keys` has signed it.

    Raises:
        BadNote: none has, or it is no checkpoint.
    """
    if len(note) > MAX_NOTE_BYTES:
        raise BadNote(f"a checkpoint has at most {MAX_NOTE_BYTES} characters")
    text, gap, signatures = note.rpartition("\n\n")
    text += "\n"
    if not gap or not signatures.endswith("\n"):
        raise BadNote("a checkpoint is lines, an empty one, and signatures")
    checkpoint = _read(text)
    by = _signer(text, signatures.splitlines(), list(keys))
    if by is None:
        raise BadNote(f"the checkpoint of {checkpoint.origin} is not signed by a key that is known here")
    return checkpoint, by


def notes_in(text: str) -> list[str]:
    """Return the notes that stand one after the other in a text, each from its first line to its last signature."""
    notes: list[str] = []
    signed = True
    for line in text.splitlines(keepends=True):
        signature = line.startswith(_SIGNED_BY)
        if signed and not signature and line.strip():
            notes.append("")
        if notes and (line.strip() or not signed):
            notes[-1] += line
        signed = signature or (signed and not line.strip())
    return notes


def _read(text: str) -> Checkpoint:
    origin, size, root, *lines = [*text[:-1].split("\n"), "", ""]
    if not origin or not _SIZE.fullmatch(size):
        raise BadNote("a checkpoint is its origin, its size and its root")
    found = Checkpoint(origin=origin, size=int(size), root=_unspelled(root), lines=tuple(lines[:-2]))
    # One spelling: what is signed is what was read, to the last character.
    if len(found.root) != _ROOT_BYTES or not all(found.lines) or found.text() != text:
        raise BadNote("a checkpoint is its origin, its size and its root")
    return found


def _signer(text: str, lines: list[str], keys: list[VerifierKey]) -> VerifierKey | None:
    if len(lines) > MAX_SIGNATURES:
        raise BadNote(f"a checkpoint has at most {MAX_SIGNATURES} signatures")
    for line in lines:
        name, _, signature = line.removeprefix(_SIGNED_BY).rpartition(" ")
        if not line.startswith(_SIGNED_BY) or not name:
            raise BadNote("a signature is a line: a dash, a name, a signature")
        raw = _unspelled(signature)
        for key in keys:
            if key.name == name and key.signed(text, raw):
                return key
    return None


def _unspelled(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadNote("not base64") from error
