"""Reads the directory of a policy pack; what the bytes mean is the engine's."""

import shutil
from pathlib import Path
from typing import Final

import pdp
from pdp.errors import ConfigError
from pdp.limits import MAX_PACK_FILE_BYTES, MAX_PACK_FILES

STARTER: Final = Path(pdp.__file__).parent / "starter"
"""The pack that Portcullis ships: `policies/` in a checkout, and a part of every installation."""


def write_starter(directory: Path) -> None:
    """Write the starter pack to `directory`, which must not be there.

    Raises:
        ConfigError: it is there, or cannot be written.
    """
    try:
        # The bytes alone: an installation's files may be read-only, and these are to be edited.
        shutil.copytree(STARTER, directory, copy_function=shutil.copyfile)
    except OSError as error:
        message = f"cannot write the starter pack to {directory}: {error.strerror or error}"
        raise ConfigError(message, advice="name a directory that is not there yet, where you may write") from error


def read_pack(directory: Path) -> dict[str, bytes]:
    """Return the content of each file of the pack, by path relative to it; hidden files are no part of a pack.

    Raises:
        ConfigError: no directory, an unreadable or oversized file, or nothing that could be a pack; it is named.
    """
    if not directory.is_dir():
        raise ConfigError(f"{directory} is not a directory", advice="give the directory of a policy pack")
    try:
        home = directory.resolve()
        files = {
            path.relative_to(directory).as_posix(): _read(path, home)
            for path in sorted(directory.rglob("*"))
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(directory).parts)
        }
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename}: {error.strerror}") from error
    if len(files) > MAX_PACK_FILES:
        raise ConfigError(f"{directory} has more than {MAX_PACK_FILES} files", advice="is it really a policy pack?")
    if not files:
        raise ConfigError(f"{directory} is empty", advice="a pack has model.conf, vocabulary.yaml and *.csv")
    return files


def _read(path: Path, home: Path) -> bytes:
    # A link that leads out would show a file of ours to whoever wrote the pack (in findings) and to the PDP (in a proposal).
    # Inside it is harmless: a mounted ConfigMap is nothing but links.
    if not path.resolve().is_relative_to(home):
        raise ConfigError(f"{path} is a link that leads out of the pack", advice="put the file itself there")
    with path.open("rb") as file:
        raw = file.read(MAX_PACK_FILE_BYTES + 1)
    if len(raw) > MAX_PACK_FILE_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_PACK_FILE_BYTES} bytes")
    return raw
