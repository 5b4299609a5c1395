"""A file whose access is decided while it is open."""

import io
import time
from collections.abc import Callable
from typing import Any, Self


class DecidedFile(io.IOBase):
    """An open file that is decided again when its decision has run out: reading a large one may take hours."""

    def __init__(self, file: Any, again: Callable[[], float], until_s: float) -> None:
        self._file = file
        self._again = again
        self._until_s = until_s

    def _decided(self) -> Any:
        if time.monotonic() >= self._until_s:
            self._until_s = self._again()
        return self._file

    def read(self, size: int = -1) -> Any:
        """Read."""
        if time.monotonic() >= self._until_s:
            self._until_s = self._again()
        return self._file.read(size)

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer."""
        count: int = self._decided().readinto(buffer)
        return count

    def readline(self, size: int | None = -1) -> Any:
        """Read a line."""
        return self._decided().readline(-1 if size is None else size)

    def write(self, data: Any) -> int:
        """Write."""
        count: int = self._decided().write(data)
        return count

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a position."""
        position: int = self._file.seek(offset, whence)
        return position

    def tell(self) -> int:
        """Return the position."""
        position: int = self._file.tell()
        return position

    def flush(self) -> None:
        """Write what is buffered."""
        if not self._file.closed:
            self._file.flush()

    def close(self) -> None:
        """Close."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def closed(self) -> bool:
        """True once closed."""
        return bool(self._file.closed)

    @property
    def size(self) -> Any:
        """The size in bytes, where the inner file tells it."""
        return getattr(self._file, "size", None)

    def readable(self) -> bool:
        """Tell whether it was opened for reading."""
        return bool(self._file.readable())

    def writable(self) -> bool:
        """Tell whether it was opened for writing."""
        return bool(self._file.writable())

    def seekable(self) -> bool:
        """Tell whether `seek` works."""
        return bool(self._file.seekable())
