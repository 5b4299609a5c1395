"""The key with which a process signs checkpoints of its decision log: `keys/audit.pem`, and its public line in `audit.pub`.

It is a key of its own, made at the first start: whoever steals it can sign a false log of this one process, and nothing else; the
keys of the world log are not touched. It protects what was signed against whoever gets at the log later or elsewhere. It does
not protect against the process itself or an account that can read its keys: that is what checkpoints kept elsewhere are for.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from pdp.adapters.audit_memory import Memory, MemoryFile, NoMemory
from pdp.adapters.keys_files import load_key, write_durably, write_key
from pdp.audit.checkpoint import VerifierKey
from pdp.trust.keys import SigningKey

PUBLIC_FILE: Final = "audit.pub"
_PRIVATE_FILE: Final = "audit.pem"


class AuditSigner:
    """Signs notes with the audit key of a state directory."""

    def __init__(self, key: SigningKey, directory: Path | None = None) -> None:
        """Prepare; what was signed last is remembered in files in `directory`, if there is one."""
        self._private = key
        self._directory = directory
        self.key = VerifierKey.of(key.public.public)

    def sign(self, text: str) -> bytes:
        """Return the signature over `text`."""
        return self._private.sign(text.encode()).signature

    def memory(self, name: str) -> Memory:
        """Return what remembers the last checkpoint of the chains of `name`."""
        return NoMemory() if self._directory is None else MemoryFile(self._directory / f"audit-{name}.json")


def audit_signer(state_dir: Path) -> AuditSigner:
    """Return the signer of the process whose state is in `state_dir`, its key made first if there is none.

    Raises:
        ConfigError: it cannot be made or read, or others may read it.
    """
    path = state_dir / "keys" / _PRIVATE_FILE
    if not path.exists():
        _make(path)
    signer = AuditSigner(load_key(path), path.parent)
    public = f"{signer.key}\n".encode()
    shown = state_dir / PUBLIC_FILE
    if not shown.exists() or shown.read_bytes() != public:
        write_durably(shown, public, mode=0o644)
    return signer


def _make(path: Path) -> None:
    """Make the key; of several workers that start at once, one does."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    write_key(draft, SigningKey.generate())
    with suppress(FileExistsError):
        path.hardlink_to(draft)
    draft.unlink()
