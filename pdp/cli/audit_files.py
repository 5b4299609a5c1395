"""Reading the decision log where it lies, for commands that need no server: chains in a directory, a segment, JSON lines."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pdp.adapters.audit_file import folders
from pdp.adapters.audit_prune import Tombstones, tombstones
from pdp.adapters.audit_reader import acknowledged, read_segments
from pdp.audit.chain import Link, Report, Verdict, frames, unseal
from pdp.audit.checkpoint import BadNote, VerifierKey, notes_in, origin_of
from pdp.audit.verify import Known, Reading, Stop
from pdp.audit.verify import verify as verify_chain
from pdp.errors import BadRequestError, ConfigError
from pdp.limits import MAX_KEY_FILE_BYTES
from pdp.model import canonical


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A chain as it lies there: name and bytes of each segment, and what says why the oldest are gone."""

    segments: list[tuple[str, bytes]]
    tombstones: Tombstones = ()


Chains = Mapping[str, Held]
_HOLDS: Final = (Verdict.OK, Verdict.PRUNED)

_CHECKPOINT: Final = re.compile(r"(?:(?P<chain>[a-z0-9-]{1,128})=)?(?P<n>\d{1,15}):(?P<digest>[0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """What whoever verifies knows from elsewhere: records by chain (empty: the only one), checkpoints, keys."""

    links: Mapping[str, Link]
    notes: tuple[str, ...] = ()
    keys: tuple[VerifierKey, ...] = ()

    @classmethod
    def of(cls, checkpoints: Sequence[str], keys: Sequence[Path]) -> "Witness":
        """Return what options name: `[CHAIN=]N:DIGEST`, or a file of signed checkpoints; files of keys.

        Raises:
            BadRequestError: a checkpoint is none.
            ConfigError: a file cannot be read, or holds something else.
        """
        links: dict[str, Link] = {}
        notes: list[str] = []
        for text in checkpoints:
            if Path(text).is_file():
                notes += notes_in(_text(Path(text)))
            else:
                links |= checkpoint_of(text)
        return cls(links=links, notes=tuple(notes), keys=keys_of(keys))


def keys_of(paths: Sequence[Path]) -> tuple[VerifierKey, ...]:
    """Return the keys in files, one a line.

    Raises:
        ConfigError: a file cannot be read, or holds something else.
    """
    try:
        return tuple(VerifierKey.parse(line) for path in paths for line in _text(path).splitlines())
    except BadNote as error:
        raise ConfigError(str(error), advice="give the `audit.pub` of the process that wrote the log") from error


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(MAX_KEY_FILE_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error


def verify_all(path: Path, witness: Witness) -> dict[str, Report]:
    """Verify each chain by itself; what cannot be read is a verdict too, and never a success (FAILURE.md S7)."""
    try:
        chains = read_chains(path)
    except OSError as error:
        return {str(path): _unreadable(f"cannot read {error.filename or path}: {error.strerror}")}
    if not chains:
        return {str(path): _unreadable("there is no chain here")}
    known = _placed(witness.links, chains)
    origins = {name: _origin(held) for name, held in chains.items()}
    reports = {}
    for name, held in chains.items():
        notes = tuple(note for note in witness.notes if origins[name] and note.split("\n", 1)[0] == origins[name])
        knows = Known(link=known.get(name), notes=notes, keys=witness.keys, tombstones=held.tombstones)
        reports[name] = verify_chain(held.segments, known=knows)
    named = [*(name for name in known if name not in chains), *_homeless(witness.notes, origins.values())]
    return reports | {name: _unreadable("the chain of the checkpoint is not here") for name in named}


def _homeless(notes: Sequence[str], origins: Iterable[str]) -> list[str]:
    """Return the origins of checkpoints whose chain is not here."""
    return sorted({note.split("\n", 1)[0] for note in notes} - set(origins))


def _origin(held: Held) -> str:
    """Return the origin of the checkpoints in a chain, as its first record names it; empty if it does not."""
    try:
        record, _ = unseal(next(frames(held.segments[0][1]))[1])
        return origin_of(VerifierKey.parse(str(record["key"])), str(record["chain"]))
    except (ValueError, KeyError, IndexError, StopIteration):
        return ""


def reading_of(name: str, held: Held) -> Reading:
    """Return a chain as it was read and verified, to make proofs from.

    Raises:
        ConfigError: it does not verify.
    """
    reading = Reading(Known(tombstones=held.tombstones))
    try:
        for segment, data in held.segments:
            reading.segment(segment, data)
        reading.end()
    except Stop as stop:
        message = f"chain {name} does not verify: {stop.where or name}: {stop}"
        raise ConfigError(message, advice="`pdp audit verify` tells more") from stop
    return reading


def worst(reports: Mapping[str, Report]) -> Verdict:
    """Return the gravest verdict: a broken chain before an unreadable one, before one that is short."""
    bad = [report.verdict for report in reports.values() if report.verdict is not Verdict.OK]
    return min(bad, default=Verdict.OK)


def checkpoint_of(text: str) -> dict[str, Link]:
    """Return a checkpoint by the name of its chain, empty if it names none.

    Raises:
        BadRequestError: it is not one.
    """
    match = _CHECKPOINT.fullmatch(text)
    if match is None:
        raise BadRequestError("a checkpoint is a file of signed ones, or [CHAIN=]N:DIGEST, the digest in 64 hex digits")
    return {match["chain"] or "": Link(n=int(match["n"]), digest=match["digest"])}


def whole_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (chain, record) of everything in `path`, chain by chain, each chain verified first.

    Args:
        path: a directory of chains, a segment, or a file of JSON lines as `pdp audit tail --json` prints them: of those
            each record is verified by its own digest alone.

    Raises:
        ConfigError: something does not verify.
    """
    if path.is_file() and path.suffix != ".log":
        yield from _lines(path)
        return
    try:
        chains = read_chains(path)
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename or path}: {error.strerror}") from error
    if not chains:
        raise ConfigError(f"there is no chain in {path}", advice="name the `audit` directory of a PDP, or a copy of it")
    for name, held in chains.items():
        report = verify_chain(held.segments, known=Known(tombstones=held.tombstones))
        if report.verdict not in _HOLDS:
            raise ConfigError(f"chain {name} does not verify: {report}", advice="`pdp audit verify` tells more")
        for content in acknowledged(held.segments):
            yield name, json.loads(content)


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        try:
            record, _ = unseal(canonical.dumps(json.loads(line)))
        except ValueError as error:
            raise ConfigError(f"{path}:{number}: not a whole record: {error}") from error
        yield path.name, record


def read_chains(path: Path) -> Chains:
    """Return every chain in or below `path`, or the chain that the file `path` belongs to.

    Raises:
        OSError: something cannot be read.
    """
    if path.is_file():
        return _read_file(path)
    if not path.is_dir():
        raise FileNotFoundError(2, "no such file or directory", str(path))
    chains: dict[str, Held] = {}
    for directory in folders(path):
        below = directory.relative_to(path)
        found = read_segments(directory)
        chains |= {
            str(below / name): Held(segments=held, tombstones=tombstones(directory, name))
            for name, held in found.items()
        }
        chains |= _strangers(directory, below, found)
    return chains


def _placed(known: Mapping[str, Link], chains: Chains) -> dict[str, Link]:
    """Return checkpoints by the names that the chains have here, folder included."""
    if "" in known and len(chains) > 1:
        raise BadRequestError("there are several chains here: give the checkpoint as CHAIN=N:DIGEST")
    names = {Path(name).name: name for name in chains}
    return {names.get(name, name) or next(iter(chains)): link for name, link in known.items()}


def _read_file(path: Path) -> Chains:
    """Return the chain that `path` is a segment of, up to it: no segment can be verified without those before."""
    name = path.name.split(".")[0]
    before = [segment for segment in read_segments(path.parent).get(name, []) if segment[0] <= path.name]
    held = before or [(path.name, path.read_bytes())]
    return {name: Held(segments=held, tombstones=tombstones(path.parent, name))}


def _strangers(directory: Path, below: Path, found: Mapping[str, list[tuple[str, bytes]]]) -> Chains:
    """Return the files that look like a segment and are not named like one: they count as chains that do not verify."""
    read = {name for segments in found.values() for name, _ in segments}
    strangers = (file.name for file in directory.glob("*.log") if file.name not in read)
    return {str(below / name): Held(segments=[(name, b"")]) for name in strangers}


def _unreadable(detail: str) -> Report:
    return Report(verdict=Verdict.UNREADABLE, records=0, head=Link(n=0, digest=""), detail=detail)
