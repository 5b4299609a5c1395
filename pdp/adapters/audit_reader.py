"""Reading chains from disk: by record number, following what is written, or whole."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from pdp.adapters.audit_file import Segment, segments
from pdp.audit.chain import frame, frames

_FRAME_PREFIX: Final = len(frame(b"")) - 1  # what stands on a line before the content


class ChainReader:
    """Reads a chain by record number; remembers where it stopped, so that following costs nothing."""

    def __init__(self, directory: Path, chain: str) -> None:
        self._directory = directory
        self._chain = chain
        self._next = (1, Path(), 0)  # number of the next record, its segment and offset

    def read(self, *, after: int, until: int, limit: int, limit_bytes: int) -> list[bytes]:
        """Return the contents of records `after` + 1 to `until`, at most `limit` of them and about `limit_bytes`."""
        contents: list[bytes] = []
        size = 0
        for content in self._from(after + 1, until):
            contents.append(content)
            size += len(content)
            if len(contents) >= limit or size >= limit_bytes:
                break
        return contents

    def skip(self, before_ms: int) -> None:
        """Pass over the files that were last written before `before_ms`, milliseconds since the epoch.

        For whoever counts: the time of a file is no evidence, and one that was copied is read again for nothing.
        """
        for segment in segments(self._directory, self._chain):
            self._next = (segment.first, segment.path, 0)
            if segment.path.stat().st_mtime * 1000 >= before_ms:
                return

    def rest(self, *, until: int) -> Iterator[bytes]:
        """Yield the records that were not read before, to number `until`; what is still being written waits."""
        yield from self._from(self._next[0], until)

    def _from(self, wanted: int, until: int) -> Iterator[bytes]:
        known = segments(self._directory, self._chain)
        for position, segment in enumerate(known):
            # What stands behind the next segment's start was never acknowledged, so it is not part of the chain.
            end = min(until, known[position + 1].first - 1) if position + 1 < len(known) else until
            if wanted <= end:
                yield from self._lines(segment, wanted, end)
                wanted = end + 1

    def _lines(self, segment: Segment, wanted: int, end: int) -> Iterator[bytes]:
        n, path, offset = self._next
        if path != segment.path or n > wanted:
            n, offset = segment.first, 0
        with segment.path.open("rb") as file:
            file.seek(offset)
            while n <= end:
                line = file.readline()
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                n += 1
                if n > wanted:
                    self._next = (n, segment.path, offset)
                    yield line[_FRAME_PREFIX:-1]


def read_segments(directory: Path) -> dict[str, list[tuple[str, bytes]]]:
    """Return name and bytes of every segment in `directory`, by chain: what `chain.verify` takes.

    Raises:
        OSError: something cannot be read.
    """
    chains: dict[str, list[tuple[str, bytes]]] = {}
    for segment in segments(directory):
        chains.setdefault(segment.chain, []).append((segment.path.name, segment.path.read_bytes()))
    return chains


def acknowledged(held: Sequence[tuple[str, bytes]]) -> Iterator[bytes]:
    """Yield the records of a chain that were acknowledged, from its segments; what stands behind a failed write was not.

    Raises:
        Malformed: a segment ends in a torn write.
    """
    firsts = [int(name.split(".")[1]) for name, _ in held]
    for position, (_, data) in enumerate(held):
        end = firsts[position + 1] - firsts[position] if position + 1 < len(held) else len(data)
        for _, content in islice(frames(data), end):
            yield content
