"""Keys and root file on disk: `keys/{root,publish,timestamp}.pem` with mode 0600, and `root.json`.

A file appears by write, fsync, rename, fsync of the directory: after a crash it is there whole, or not at all.
"""

import os
import stat
from pathlib import Path
from typing import Final

from pdp.errors import BadRequestError, ConfigError
from pdp.limits import MAX_ROOT_FILE_BYTES
from pdp.trust.keys import PdpKeys, Role, RootFile, SigningKey

ROOT_FILE: Final = "root.json"
ROOTS: Final = "roots"
_PRIVATE: Final = 0o600
_PUBLIC: Final = 0o644


def key_path(state_dir: Path, role: Role) -> Path:
    """Return where the private key of `role` is kept."""
    return state_dir / "keys" / f"{role.value}.pem"


def load_key(path: Path) -> SigningKey:
    """Return the private key in `path`.

    Raises:
        ConfigError: missing, unreadable, not an Ed25519 key, or open to others.
    """
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigError(f"others may read the private key `{path}`", advice=f"chmod 600 {path}")
        return SigningKey.from_pem(path.read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(f"no key `{path}`", advice="run `pdp init`, or name the right --state-dir") from error
    except OSError as error:
        raise ConfigError(f"`{path}`: {error.strerror}") from error


def load_pdp_keys(state_dir: Path) -> PdpKeys:
    """Return the two online keys of the PDP whose state is in `state_dir`."""
    return PdpKeys(
        publish=load_key(key_path(state_dir, Role.PUBLISH)), timestamp=load_key(key_path(state_dir, Role.TIMESTAMP))
    )


def ensure_key(state_dir: Path, role: Role) -> SigningKey:
    """Return the key of `role`, made and stored first if there is none."""
    path = key_path(state_dir, role)
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_durably(path, SigningKey.generate().to_pem(), mode=_PRIVATE)
    return load_key(path)


def new_key(state_dir: Path, role: Role, key: SigningKey) -> None:
    """Put `key` in the place of the key of `role`, if there was one."""
    path = key_path(state_dir, role)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_key(path, key)


def write_key(path: Path, key: SigningKey) -> None:
    """Write a private key, readable by its owner alone.

    Raises:
        ConfigError: it cannot be written there.
    """
    try:
        write_durably(path, key.to_pem(), mode=_PRIVATE)
    except OSError as error:
        raise ConfigError(f"cannot write `{path}`: {error.strerror or error}") from error


def load_root(state_dir: Path) -> RootFile | None:
    """Return the root file in `state_dir`, or None if there is none yet.

    Raises:
        ConfigError: it is there and damaged.
    """
    path = state_dir / ROOT_FILE
    try:
        with path.open("rb") as file:
            return RootFile.parse(file.read(MAX_ROOT_FILE_BYTES + 1))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"`{path}`: {error.strerror}") from error
    except BadRequestError as error:
        raise ConfigError(f"`{path}`: {error.message}", advice="restore it from a backup") from error


def load_roots(state_dir: Path) -> tuple[bytes, ...]:
    """Return the signed root files kept in `state_dir`, oldest first, the one in force last."""
    earlier = sorted((state_dir / ROOTS).glob("*.json"), key=lambda path: int(path.stem) if path.stem.isdigit() else 0)
    current = load_root(state_dir)
    files = [path.read_bytes() for path in earlier]
    return tuple(raw for raw in files if current is None or raw != current.raw) + ((current.raw,) if current else ())


def succeed_root(state_dir: Path, root: RootFile) -> None:
    """Store the next root file; the one before stays under `roots`, for replicas that are pinned to it."""
    held = load_root(state_dir)
    if held is not None and held.raw != root.raw:
        (state_dir / ROOTS).mkdir(mode=0o700, exist_ok=True)
        write_durably(state_dir / ROOTS / f"{held.version}.json", held.raw, mode=_PUBLIC)
    save_root(state_dir, root)


def save_root(state_dir: Path, root: RootFile) -> None:
    """Store the root file."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_durably(state_dir / ROOT_FILE, root.raw, mode=_PUBLIC)


def write_durably(path: Path, content: bytes, *, mode: int) -> None:
    """Make `path` hold `content` with `mode`, wholly or not at all.

    Raises:
        ConfigError: the directory cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise ConfigError(f"`{path}`: {error.strerror}", advice="is the state directory writable?") from error
