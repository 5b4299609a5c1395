"""Which world the workers of one server have brought about: what one was answered, the next request finds at any other.

A worker that registers an experiment has waited for the world that holds it; the next request of the same client may reach
another worker, which is told of that world a moment later, and would deny. So the number of the newest such world stands in a
file that they share.
"""

import fcntl
import os
from pathlib import Path


class Mark:
    """The number in the file.

    Args:
        path: The file; it is made when the first number is written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> int:
        """Return the number; 0: none."""
        try:
            return int(self._path.read_bytes() or b"0")
        except FileNotFoundError:
            return 0

    def lift(self, seq: int) -> None:
        """Write `seq`, unless a higher one stands there."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if seq > int(os.pread(descriptor, 32, 0) or b"0"):
                # Numbers only grow, so a reader beside us sees an old one, this one, or its first digits: an older one.
                os.pwrite(descriptor, str(seq).encode("ascii"), 0)
        finally:
            os.close(descriptor)
