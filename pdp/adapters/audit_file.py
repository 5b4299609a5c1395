"""The audit chain on disk: segments that only grow, one fdatasync per group, torn tails cut and recorded.

Theory of operation. A chain lies in files `<chain>.<number of its first record>.log`, so that a reader finds any record by
its number without an index. Segments appear by write, fsync, rename, fsync of the directory, with their `open` record in
place (FAILURE.md S4): a segment without a valid first record is damage, never a crash. A group is one `write` and one
`fdatasync`. If the write fails, the file is cut back to what was durable; if that fails, or the fdatasync did, what the
file holds is *unknown*: it is never written again and a new segment goes on from the last durable record (F10). On a full
disk the reserve becomes the next segment (S2); while it lasts, the chain tries to lay up another, and that succeeds once
there is room again. Nothing here knows a loop or a queue: one thread at a time calls it.
"""

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol, Self

from pdp.adapters.audit_memory import NOTHING, Memory, NoMemory, Signed
from pdp.adapters.audit_reserve import FULL, lay_up, release
from pdp.audit.chain import START, Link, Tail, framed, scan, seal
from pdp.audit.checkpoint import Checkpoint, NoteSigner, origin_of, signed_note
from pdp.audit.merkle import Frontier, spelled
from pdp.audit.record import checkpoint_record, cut_record, opened_record
from pdp.errors import ConfigError
from pdp.limits import (
    AUDIT_CHECKPOINT_RECORDS,
    AUDIT_CHECKPOINT_S,
    AUDIT_RESERVE_BYTES,
    AUDIT_RETRY_S,
    AUDIT_SEGMENT_BYTES,
)

RECEIVED: Final = "received"
"""The folder below the decision log in which the chains of enforcement points are kept."""
_NAME: Final = re.compile(r"(?P<chain>[a-z0-9-]{1,128})\.(?P<first>\d{12})\.log")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One file of a chain and the number of its first record."""

    chain: str
    first: int
    path: Path


def segments(directory: Path, chain: str = "") -> list[Segment]:
    """Return the segments in `directory` in the order of their records; of one chain, or of all by chain."""
    found = []
    for path in directory.glob("*.log"):
        match = _NAME.fullmatch(path.name)
        if match and chain in ("", match["chain"]):
            found.append(Segment(chain=match["chain"], first=int(match["first"]), path=path))
    return sorted(found, key=lambda segment: (segment.chain, segment.first))


def folders(directory: Path) -> list[Path]:
    """Return `directory` and those below that hold segments."""
    return sorted({file.parent for file in directory.rglob("*.log")})


class AuditFile:
    """One segment, open for appending."""

    def __init__(self, path: Path, *, size_bytes: int) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.unknown = False
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    @classmethod
    def create(cls, path: Path, contents: Sequence[bytes], *, region: Path | None = None) -> Self:
        """Make a segment that holds `contents`, durable before it can be seen; of `region`, if one was laid up."""
        data = framed(contents)
        draft = region or path.with_suffix(".tmp")
        keep = 0 if region else os.O_TRUNC  # cutting a region, even to the length it has, gives its blocks back
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | keep | os.O_CLOEXEC, 0o600)
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        draft.rename(path)
        sync_directory(path.parent)
        return cls(path, size_bytes=len(data))

    def append_group(self, contents: Sequence[bytes]) -> None:
        """Append records durably, all or none.

        Raises:
            OSError: they are not; `unknown` says whether the file may still be used.
        """
        data = framed(contents)
        try:
            _write_all(self._descriptor, data)
        except OSError:
            self._cut_back()
            raise
        try:
            os.fdatasync(self._descriptor)
        except OSError:
            self.unknown = True  # after a failed fsync the kernel may have dropped the pages: never retried (F10)
            raise
        self.size_bytes += len(data)

    def truncate(self, size_bytes: int) -> None:
        """Cut the file to `size_bytes`, durably."""
        os.ftruncate(self._descriptor, size_bytes)
        os.fdatasync(self._descriptor)
        self.size_bytes = size_bytes

    def close(self) -> None:
        """Release the file."""
        os.close(self._descriptor)

    def _cut_back(self) -> None:
        try:
            self.truncate(self.size_bytes)
        except OSError:
            self.unknown = True


class ChainSigner(NoteSigner, Protocol):
    """What signs the checkpoints of a chain, and remembers the last one."""

    def memory(self, name: str) -> Memory:
        """Return what remembers the last checkpoint of the chains of `name`."""
        ...


class AuditChain:
    """The chain that this process writes; `open` it, `append` groups, `close` it. One thread at a time."""

    def __init__(
        self,
        directory: Path,
        *,
        who: Callable[[], Mapping[str, Any]],
        now_ms: Callable[[], int],
        reserve_bytes: int = AUDIT_RESERVE_BYTES,
        signer: ChainSigner | None = None,
    ) -> None:
        self.directory = directory
        self.name = ""
        self.head = START
        self.tree = Frontier()
        self.segment_bytes = AUDIT_SEGMENT_BYTES
        self.degraded = ""
        """What of the writing is weaker than it could be, in words for the operator."""
        self._reserve: Path | None = None
        self._reserve_bytes = reserve_bytes
        self._tried_ms = 0
        self._who = who
        self._now_ms = now_ms
        self._file: AuditFile | None = None
        self._roll_reason = "start"
        self._lock = -1
        self._signer = signer
        self._memory: Memory = NoMemory()
        self._finding = ""
        self._signed_n = 0  # the number of the last checkpoint
        self._signed_ms = now_ms()

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        name: str,
        who: Callable[[], Mapping[str, Any]],
        now_ms: Callable[[], int],
        reserve_bytes: int = AUDIT_RESERVE_BYTES,
        signer: ChainSigner | None = None,
    ) -> Self:
        """Continue the chain of `name` in `directory`, or start one; a torn tail is cut and the cut recorded.

        Args:
            directory: belongs to this process alone while it runs.
            name: what writes it: `pdp`, `sidecar`; lower-case letters, digits and `-`.
            who: what every `open` record says of the process: identity, version, `world_seq`.
            now_ms: the clock.
            reserve_bytes: how much of the disk to lay up for the time when it is full.
            signer: signs checkpoints; a chain of another key is left as it is, and a new one started. None: nobody does.

        Raises:
            ConfigError: the directory or a segment cannot be used.
        """
        chain = cls(directory, who=who, now_ms=now_ms, reserve_bytes=reserve_bytes, signer=signer)
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            chain._take_lock()
            chain._memory = signer.memory(name) if signer else chain._memory
            chain._resume(name)
        except OSError as error:
            chain.close()
            message = f"cannot write the audit directory {directory}: {error.strerror or error}"
            raise ConfigError(message, advice="make it writable, or name another with `audit.dir`") from error
        chain._lay_up()
        return chain

    def append(self, records: Sequence[Mapping[str, Any]]) -> Link:
        """Append one group and return the new head; with a checkpoint before it, if one is due.

        Raises:
            OSError: nothing of the group is durable.
            Malformed: a record cannot be written at all; nothing was.
        """
        if self._reserve is None and self._due():
            self._lay_up()
        try:
            return self._append_group(records)
        except OSError as error:
            if error.errno not in FULL or self._reserve is None:
                raise
            self._use_reserve()
            return self._append_group(records)

    def _append_group(self, records: Sequence[Mapping[str, Any]]) -> Link:
        if self._file is None or self._file.size_bytes >= self.segment_bytes:
            # Sealed before anything is written: a record that can never be does not even start a segment.
            _seal_all(records, self.head)
            self._roll()
        checkpoint = self._checkpoint() if self._checkpoint_due() else None
        self._write(records if checkpoint is None else [checkpoint, *records])
        if checkpoint is not None:
            self._signed(self.head.n - len(records), checkpoint)
        return self.head

    def _write(self, records: Sequence[Mapping[str, Any]]) -> None:
        if records:
            self._append(*_seal_all(records, self.head))

    def _checkpoint_due(self) -> bool:
        if self._signer is None or self.head.n <= self._signed_n:
            return False
        waited_ms = abs(self._now_ms() - self._signed_ms)  # either way round, as in `_due`
        return self.head.n - self._signed_n >= AUDIT_CHECKPOINT_RECORDS or waited_ms >= AUDIT_CHECKPOINT_S * 1000

    def _checkpoint(self) -> dict[str, Any] | None:
        """Return a checkpoint over all that is durable."""
        if self._signer is None:
            return None
        origin = origin_of(self._signer.key, self.name)
        held = Checkpoint(origin=origin, size=self.tree.size, root=self.tree.root())
        note = signed_note(held, self._signer)
        return checkpoint_record(time_ms=self._now_ms(), size=held.size, root=held.root.hex(), note=note)

    def _signed(self, n: int, record: Mapping[str, Any]) -> None:
        self._signed_n, self._signed_ms = n, self._now_ms()
        self._memory.keep(Signed(chain=self.name, size=record["size"], root=record["root"]))

    def _sign_off(self) -> None:
        """End a segment with a checkpoint, if there is anything new to sign and the file takes it."""
        file = self._file
        if file is None or file.unknown or self.head.n <= self._signed_n:
            return
        checkpoint = self._checkpoint()
        if checkpoint is not None:
            with contextlib.suppress(OSError):  # the next one covers these records, too
                self._write([checkpoint])
                self._signed(self.head.n, checkpoint)

    def close(self) -> None:
        """Sign what was written; release files, region and lock."""
        self._sign_off()
        self._drop_file()
        if self._reserve is not None:
            release(self._reserve)
            self._reserve = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _append(self, contents: Sequence[bytes], links: Sequence[Link]) -> None:
        file = self._file
        if file is None:
            raise OSError("no segment is open")
        try:
            file.append_group(contents)
        except OSError:
            if file.unknown:
                self._roll_reason = "failure"
                self._drop_file()
            raise
        self._grow(links)

    def _grow(self, links: Sequence[Link]) -> None:
        self.tree.extend(bytes.fromhex(link.digest) for link in links)
        self.head = links[-1]

    def _due(self) -> bool:
        # Either way round: after a step of the clock the next attempt is due as well.
        return abs(self._now_ms() - self._tried_ms) >= AUDIT_RETRY_S * 1000

    def _lay_up(self) -> None:
        """Allocate the reserve; where that fails, say so and try again later: a full disk is full for a while."""
        try:
            self._reserve = lay_up(self.directory, self._reserve_bytes)
            self.degraded = self._finding
        except OSError as error:
            self._tried_ms = self._now_ms()
            self.degraded = (
                self.degraded or self._finding or f"the decision log has no reserve: {error.strerror or error}"
            )

    def _use_reserve(self) -> None:
        """Go on in the region that was laid up, as a segment like any other."""
        region, self._reserve = self._reserve, None
        if self._roll_reason == "size":
            self._roll_reason = "reserve"
        self._roll(region)
        self._tried_ms = self._now_ms()
        self.degraded = "the disk of the decision log is full: its reserve is in use, then every allow is refused"

    def _roll(self, region: Path | None = None) -> None:
        """Start a new segment that continues from the last durable record."""
        if region is None:
            self._sign_off()
        reason, self._roll_reason = self._roll_reason, "size"
        try:
            content, head = seal(self._opened(reason, starts=True), self.head)
            path = self.directory / f"{self.name}.{head.n:012d}.log"
            file = AuditFile.create(path, [content], region=region)
        except OSError:
            self._roll_reason = reason
            raise
        self._drop_file()
        self._file = file
        self._grow([head])

    def _resume(self, name: str) -> None:
        known = [item for item in segments(self.directory) if re.fullmatch(rf"{re.escape(name)}-\d+", item.chain)]
        newest = max((item.chain for item in known), key=_started_ms, default="")
        behind: list[Segment] = []
        for segment in reversed([item for item in known if item.chain == newest]):
            tail = scan(segment.path.read_bytes())
            if tail is not None and not self._goes_on(newest, tail):
                break  # of an earlier version, signed by a key that is gone, or not what was signed: it ends where it does
            if tail is not None and tail.tree is not None:
                self.name, self.head, self.tree = segment.chain, tail.head, tail.tree
                self._set_aside(behind)
                self._continue(segment, tail.valid_bytes, clean=(tail.whole or tail.torn) and not behind)
                return
            behind.append(segment)
        else:
            self._finding = self._memory.last().missed(newest, None)
        self.name = f"{name}-{max(self._now_ms(), _started_ms(newest) + 1)}"
        self._memory.keep(replace(NOTHING, chain=self.name))
        self._roll()

    def _goes_on(self, chain: str, tail: Tail) -> bool:
        """Tell whether a chain is ours to continue: of our key, and with all in it that was signed last."""
        self._finding = self._memory.last().missed(chain, tail)
        return tail.tree is not None and tail.key == self._key and not self._finding

    def _set_aside(self, damaged: Sequence[Segment]) -> None:
        """Rename segments whose first record does not hold: they are evidence, and the next segment may bear their name."""
        for segment in damaged:
            segment.path.rename(segment.path.with_name(f"{segment.path.name}.{self._now_ms()}.damaged"))
        if damaged:
            sync_directory(self.directory)

    def _continue(self, segment: Segment, valid_bytes: int, *, clean: bool) -> None:
        """Go on in `segment`, or behind it if it is damaged other than by a torn write."""
        if not clean:
            self._roll_reason = "broken"
            self._roll()
            return
        size_bytes = segment.path.stat().st_size
        self._file = AuditFile(segment.path, size_bytes=size_bytes)
        records = [self._opened("start")]
        if valid_bytes < size_bytes:
            records.insert(0, self._cut(segment.path, valid_bytes))
            self._file.truncate(valid_bytes)
        self._append(*_seal_all(records, self.head))
        self._roll_reason = "size"

    def _cut(self, path: Path, valid_bytes: int) -> dict[str, Any]:
        torn = path.read_bytes()[valid_bytes:]
        digest = hashlib.sha256(torn).hexdigest()
        return cut_record(time_ms=self._now_ms(), size_bytes=len(torn), cut_digest=digest)

    @property
    def _key(self) -> str:
        return "" if self._signer is None else str(self._signer.key)

    def _opened(self, reason: str, *, starts: bool = False) -> dict[str, Any]:
        return opened_record(
            chain=self.name,
            reason=reason,
            time_ms=self._now_ms(),
            who={**self._who(), **({"finding": self._finding} if self._finding and self.head == START else {})},
            key=self._key,
            tree=spelled(self.tree) if starts else None,
        )

    def _take_lock(self) -> None:
        """Refuse a second writer: two processes on one chain would break it for both."""
        self._lock = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            message = f"another process writes the audit directory {self.directory}"
            raise ConfigError(message, advice="stop it, or name another with `audit.dir`") from error

    def _drop_file(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # the group it belongs to has been answered already
                self._file.close()
            self._file = None


def sync_directory(directory: Path) -> None:
    """Make names in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _seal_all(records: Sequence[Mapping[str, Any]], head: Link) -> tuple[list[bytes], list[Link]]:
    contents, links = [], []
    for record in records:
        content, head = seal(record, head)
        contents.append(content)
        links.append(head)
    return contents, links


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _started_ms(chain: str) -> int:
    return int(chain.rpartition("-")[2] or 0)
