"""Removing old segments of the decision log from disk, and the tombstones that stay in their place.

Theory of operation. The tombstones of a chain lie beside it in `<chain>.removed`, one JSON line each. The new one is durable
before the first segment goes: a crash between leaves segments that the tombstone already covers, and the next call takes them
first. Only whole segments go, the oldest first, never the last, and never one of a chain that does not verify: that is evidence.
A running writer is not in the way, for it only ever touches the last segment.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pdp.adapters.audit_file import Segment, segments, sync_directory
from pdp.adapters.keys_files import write_durably
from pdp.audit.chain import Broken, Malformed, Report, Verdict, frames, tree_before, unseal
from pdp.audit.checkpoint import NoteSigner
from pdp.audit.merkle import Frontier
from pdp.audit.prune import Gap, tombstone
from pdp.audit.verify import Known, verify
from pdp.errors import ConfigError

_SUFFIX: Final = ".removed"
_HOLDS: Final = (Verdict.OK, Verdict.PRUNED)
Tombstones = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """What is to be removed: everything whose newest record is from before `before_ms`; when, by whom and why."""

    before_ms: int
    at: str
    by: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """The first record of a segment: what is needed to remove what lies before it."""

    chain: str
    time_ms: int
    tree: Frontier | None


def tombstones(directory: Path, chain: str) -> Tombstones:
    """Return (key, note) of each tombstone of a chain, the oldest first.

    Raises:
        OSError: the file cannot be read.
    """
    path = directory / f"{chain}{_SUFFIX}"
    if not path.exists():
        return ()
    try:
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        return tuple((str(line["key"]), str(line["note"])) for line in lines)
    except (ValueError, TypeError, KeyError):
        return (("", ""),)  # no tombstone, and no silence either: it does not verify


def removed_until(directory: Path, chain: str) -> int:
    """Return the number of the last record that the tombstones of a chain say is gone; they are not verified here."""
    held = tombstones(directory, chain)
    size = held[-1][1].split("\n", 2)[1:2] if held else []
    return int(size[0]) if size and size[0].isdigit() and size[0].isascii() else 0


def prune(directory: Path, chain: str, pruning: Pruning, signer: NoteSigner, keep_from: int = 0) -> Gap | None:
    """Remove the oldest segments of a chain; returns what is gone by this call, None if nothing was old enough.

    Args:
        directory: where the chain lies.
        chain: its name there.
        pruning: what, by whom and why.
        signer: signs the tombstone.
        keep_from: the first record that somebody still has to read, such as a sink; 0: nobody.

    Raises:
        ConfigError: the chain does not verify, or cannot be pruned.
    """
    _finish(directory, chain)
    known = segments(directory, chain)
    report = _verified(directory, chain, known)
    starts = {segment.first: _start(segment) for segment in known}
    bound = keep_from or report.head.n + 1
    kept = [s for s in known[1:] if starts[s.first].time_ms <= pruning.before_ms and s.first <= bound]
    if not kept:
        return None
    start, tree = starts[kept[-1].first], starts[kept[-1].first].tree
    if tree is None:
        raise ConfigError(f"chain {chain} is of an earlier version: it holds no tree, so a gap in it cannot be proved")
    gap = Gap(first=removed_until(directory, chain) + 1, last=tree.size, at=pruning.at, by=pruning.by, why=pruning.why)
    _add(directory, chain, str(signer.key), tombstone(gap, start.chain, tree, signer))
    _finish(directory, chain)
    return gap


def _verified(directory: Path, chain: str, known: list[Segment]) -> Report:
    held = [(segment.path.name, segment.path.read_bytes()) for segment in known]
    report = verify(held, known=Known(tombstones=tombstones(directory, chain)))
    if report.verdict not in _HOLDS:
        raise ConfigError(f"chain {chain} does not verify: {report}", advice="keep it: it is evidence")
    return report


def _start(segment: Segment) -> _Start:
    try:
        _, content = next(frames(segment.path.read_bytes()))
        record, own = unseal(content)
        return _Start(chain=str(record.get("chain", "")), time_ms=int(record["time_ms"]), tree=tree_before(record, own))
    except (Malformed, Broken, StopIteration, KeyError, ValueError) as error:  # it has been verified a moment ago
        raise ConfigError(f"{segment.path} changed while it was read") from error


def _add(directory: Path, chain: str, key: str, note: str) -> None:
    lines = [*tombstones(directory, chain), (key, note)]
    text = "".join(json.dumps({"key": spelled, "note": held}) + "\n" for spelled, held in lines)
    write_durably(directory / f"{chain}{_SUFFIX}", text.encode(), mode=0o600)


def _finish(directory: Path, chain: str) -> None:
    """Remove what the last tombstone covers: whole segments before the one that goes on from it."""
    until = removed_until(directory, chain)
    known = segments(directory, chain)
    if not any(segment.first == until + 1 for segment in known):
        return  # not one of ours, then: nothing is removed on its word
    for segment in known:
        if segment.first <= until:
            segment.path.unlink()
    sync_directory(directory)
