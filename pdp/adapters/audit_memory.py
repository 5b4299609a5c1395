"""What a process remembers of the last checkpoint that it signed, beside its key and away from its decision log.

When it starts again it looks whether the log still holds what was signed. A log that was cut back, written anew or taken away
while nobody wrote it is then found out by its own writer, with no checkpoint kept elsewhere; unless the same hand reached this
file too.
"""

from contextlib import suppress
from dataclasses import dataclass
from json import dumps, loads
from pathlib import Path
from typing import Final, Protocol

from pdp.adapters.keys_files import write_durably
from pdp.audit.chain import Tail
from pdp.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """The tree of the first `size` records of `chain` had this root (hex); 0: nothing is known of the chain yet."""

    chain: str
    size: int
    root: str

    def missed(self, chain: str, tail: Tail | None) -> str:
        """Return what of it the newest chain in the log does not hold, in words for the operator; empty: nothing."""
        if self.size == 0:
            return ""
        if tail is None or chain != self.chain:
            return f"the decision log is gone: chain {self.chain}, of which {self.size} records were signed, is not its newest"
        if tail.head.n < self.size or not tail.holds(self.size, self.root):
            return f"the decision log was changed while nobody wrote it: chain {self.chain} lacks what was signed of it"
        return ""


NOTHING: Final = Signed(chain="", size=0, root="")


class Memory(Protocol):
    """Where it is kept."""

    def last(self) -> Signed:
        """Return what was signed last."""
        ...

    def keep(self, signed: Signed) -> None:
        """Remember it."""
        ...


class MemoryFile:
    """In a file; what cannot be written is not remembered, and what was before still holds."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def last(self) -> Signed:
        """Return what was signed last."""
        try:
            held = loads(self._path.read_bytes())
            return Signed(chain=str(held["chain"]), size=int(held["size"]), root=str(held["root"]))
        except (OSError, ValueError, KeyError, TypeError):
            return NOTHING

    def keep(self, signed: Signed) -> None:
        """Remember it."""
        text = dumps({"chain": signed.chain, "size": signed.size, "root": signed.root})
        with suppress(ConfigError):
            write_durably(self._path, text.encode(), mode=0o600)


class NoMemory:
    """Of a chain that nobody signs, or whose signer keeps nothing."""

    def last(self) -> Signed:
        """Return nothing."""
        return NOTHING

    def keep(self, signed: Signed) -> None:
        """Forget it."""
