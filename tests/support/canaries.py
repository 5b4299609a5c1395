"""S9 over the whole run of the tests: every private key that a test put on the disk is a canary that nothing it said may hold."""

from collections.abc import Iterator
from pathlib import Path

_SHORTEST = 24
"""Characters of a line of a key; a shorter last line may stand in anything by chance."""


def canaries(directory: Path) -> set[bytes]:
    """Return the lines of every private key below `directory`."""
    texts = (path.read_bytes() for path in directory.rglob("*.pem") if path.is_file())
    keys = [text for text in texts if b"PRIVATE KEY-----" in text]
    return {line for text in keys for line in _secret_lines(text) if len(line) >= _SHORTEST}


def leaks(directory: Path, said: str) -> list[str]:
    """Return where a private key of `directory` shows: in what the test and its commands said, or in a log (decisions too)."""
    planted = canaries(directory)
    if not planted:
        return []
    logs = (path for path in directory.rglob("*.log") if path.is_file())
    outputs = [("output", said.encode(errors="replace")), *((str(path), path.read_bytes()) for path in logs)]
    return [where for where, text in outputs if any(canary in text for canary in planted)]


def _secret_lines(text: bytes) -> Iterator[bytes]:
    secret = False
    for line in text.splitlines():
        if line.startswith(b"-----"):
            secret = b"BEGIN" in line and b"PRIVATE KEY" in line
        elif secret:
            yield line
