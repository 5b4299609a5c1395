"""The key of the pseudonyms in copies of the decision log, from its file."""

import secrets
from pathlib import Path

from pdp.errors import ConfigError
from pdp.limits import MIN_MASK_KEY_BYTES


def mask_key(path: Path | None) -> bytes:
    """Return the key that makes pseudonyms; without a file, one of this process alone.

    Raises:
        ConfigError: it cannot be read, or is too short.
    """
    if path is None:
        return secrets.token_bytes(MIN_MASK_KEY_BYTES)
    try:
        key = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if len(key) < MIN_MASK_KEY_BYTES:
        advice = f"make it with `head -c {MIN_MASK_KEY_BYTES} /dev/urandom`"
        raise ConfigError(f"{path} is too short", advice=advice)
    return key
