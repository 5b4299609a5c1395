"""Chains that other processes wrote and ship to this PDP: checked record by record, stored unchanged.

The workers of a PDP share these files: whoever ships may reach another worker each time. Beside each chain lies a small file that
is locked while one of them works on it, and that says which record is its last; a worker that holds another, or finds the
file empty because one died at work, reads the chain again before it does anything.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pdp.adapters.audit_file import AuditFile, segments
from pdp.audit.chain import START, Broken, Link, Malformed, check_follows, examine, scan
from pdp.errors import PortcullisError, Reason


class _Checked(NamedTuple):
    """A record that continues the chain; `record` is None for a decision, whose bytes alone were looked at."""

    content: bytes
    record: Mapping[str, Any] | None
    own: Link


class ReceivedChain:
    """A chain that another process wrote and ships to us: checked, stored unchanged. One thread at a time."""

    def __init__(self, directory: Path, *, owner: str, chain: str) -> None:
        # The name of a stored file is a digest that we compute, never a name from input (FAILURE.md S6).
        self.name = hashlib.sha256(b"%d:%b%b" % (len(owner), owner.encode(), chain.encode())).hexdigest()[:32]
        self.head = START
        self._directory = directory
        self._file: AuditFile | None = None
        self._unknown: tuple[Path, int] | None = None
        """A file whose last write failed, and how many bytes of it are durable."""
        if segments(directory, self.name):
            with self._alone():
                self._resume()

    def append(self, contents: Sequence[bytes]) -> Link:
        """Store the records that are new to us and return the head.

        Raises:
            PortcullisError: `conflict` if they do not continue the chain, `bad_request` if they are no records,
                `store_unavailable` if they could not be written.
        """
        try:
            with self._alone() as place:
                self._caught_up(place)
                self._store(place, self._check(contents))
        except OSError as error:
            self.close()
            raise PortcullisError(Reason.STORE_UNAVAILABLE, "the records could not be stored") from error
        return self.head

    def _store(self, place: int, checked: Sequence[_Checked]) -> None:
        if not checked:
            return
        os.ftruncate(place, 0)  # whoever finds it so trusts nothing but the chain
        try:
            self._append(checked)
        except OSError:
            if self._file is not None:
                self._unknown = (self._file.path, self._file.size_bytes)
                with contextlib.suppress(
                    OSError
                ):  # another worker does not know what is unknown here: leave it nothing
                    os.truncate(self._file.path, self._file.size_bytes)
            raise
        os.pwrite(place, self._told(), 0)

    def close(self) -> None:
        """Release the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[int]:
        """Keep other workers away from this chain; yields the file that says which record is its last."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        place = os.open(self._directory / f".{self.name}.last", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(place, fcntl.LOCK_EX)
            yield place
        finally:
            os.close(place)

    def _caught_up(self, place: int) -> None:
        """Read the chain again if another worker has written it since."""
        told = self._told()
        if self._file is not None and os.pread(place, len(told) + 1, 0) == told:
            return
        self.close()
        self._resume()

    def _told(self) -> bytes:
        return f"{self.head.n}:{self.head.digest}".encode()

    def _check(self, contents: Sequence[bytes]) -> list[_Checked]:
        checked: list[_Checked] = []
        head = self.head
        try:
            for content in contents:
                record, prev, own = examine(content)
                if record is not None:
                    _check_placed(record)
                if own.n <= self.head.n:
                    continue  # sent again after an answer was lost
                check_follows(own, prev, head)
                head = own
                checked.append(_Checked(content, record, own))
        except Malformed as error:
            raise PortcullisError(Reason.BAD_REQUEST, f"not an audit record: {error}") from error
        except Broken as error:
            message = f"the records do not continue this chain: {error}"
            raise PortcullisError(Reason.CONFLICT, message, advice=f"send what follows record {self.head.n}") from error
        return checked

    def _append(self, checked: Sequence[_Checked]) -> None:
        """Write group by group: a record that opens a segment with its writer opens one here."""
        group: list[tuple[bytes, Link]] = []
        for content, record, own in checked:
            if record is not None and _starts_segment(record):
                self._flush(group)
                self._open_segment(content, own)
                group = []
            else:
                group.append((content, own))
        self._flush(group)

    def _open_segment(self, content: bytes, own: Link) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = AuditFile.create(self._directory / f"{self.name}.{own.n:012d}.log", [content])
        self.close()
        self._file, self.head = file, own

    def _flush(self, group: Sequence[tuple[bytes, Link]]) -> None:
        if not group:
            return
        if self._file is None:
            self._resume()
        if self._file is None:
            raise PortcullisError(Reason.BAD_REQUEST, "a chain starts with its `open` record")
        self._file.append_group([content for content, _ in group])
        self.head = group[-1][1]

    def _resume(self) -> None:
        """Find the stored head; a torn tail is cut silently, for its writer sends it again."""
        known = segments(self._directory, self.name)
        if not known:
            return
        path = known[-1].path
        data = path.read_bytes()
        if self._unknown is not None and self._unknown[0] == path:
            # Behind the last durable record stands what was never acknowledged. Its writer sends it again: kept, it would
            # stand twice; believed, it might be gone with the next power cut, for a failed fsync drops pages (F10).
            data = data[: self._unknown[1]]
        tail = scan(data)
        if tail is None or not (tail.whole or tail.torn):
            raise PortcullisError(Reason.STORE_UNAVAILABLE, f"the stored chain {path.name} is damaged")
        self._file = AuditFile(path, size_bytes=tail.valid_bytes)
        self._file.truncate(tail.valid_bytes)
        self._unknown = None
        self.head = tail.head


def _check_placed(record: Mapping[str, Any]) -> None:
    """Refuse a record that does not say when and what: whoever reads all chains orders them by time, and would see none.

    Raises:
        Malformed: it does not.
    """
    if type(record.get("time_ms")) is not int or type(record.get("kind")) is not str:
        raise Malformed("a record says when and what")


def _starts_segment(record: Mapping[str, Any]) -> bool:
    return record.get("kind") == "open" and (record["n"] == 1 or record.get("reason") != "start")
