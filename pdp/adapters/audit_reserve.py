"""A region of the disk allocated ahead for the decision log, so that a full disk does not turn every allow into a deny at once.

The region is an empty file whose blocks are allocated beyond its end (`fallocate` with FALLOC_FL_KEEP_SIZE, which Python's
own `posix_fallocate` does not offer): it grows into them like any file, and no reader ever sees a byte that nobody wrote.
When a segment cannot grow, this file becomes the next one (FAILURE.md S2).
"""

import contextlib
import ctypes
import errno
import os
from pathlib import Path
from typing import Final

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the kernel says of a disk, a quota or a file that has no room left."""
_FILE: Final = "reserve"
_KEEP_SIZE: Final = 1


def lay_up(directory: Path, size_bytes: int) -> Path:
    """Allocate the region in `directory` and return its file; one that was there before is replaced.

    Raises:
        OSError: there is no room for it, or this file system cannot allocate ahead.
    """
    path = directory / _FILE
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _allocate(descriptor, size_bytes)
        os.fsync(descriptor)
    except OSError:
        release(path)
        raise
    finally:
        os.close(descriptor)
    return path


def release(path: Path) -> None:
    """Give the region back: a process that is gone needs none."""
    with contextlib.suppress(OSError):
        path.unlink()


def _allocate(descriptor: int, size_bytes: int) -> None:
    system = ctypes.CDLL(None, use_errno=True)
    if not hasattr(system, "fallocate"):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    if system.fallocate(descriptor, _KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(size_bytes)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
