"""Reading the decision log where it lies, for commands that need no server: chains in a directory, a segment, JSON lines."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pdp.adapters.audit_file import acknowledged, read_segments
from pdp.audit.chain import Link, Report, Verdict, unseal
from pdp.audit.chain import verify as verify_chain
from pdp.errors import BadRequestError, ConfigError
from pdp.model import canonical

Chains = Mapping[str, list[tuple[str, bytes]]]

_CHECKPOINT: Final = re.compile(r"(?:(?P<chain>[a-z0-9-]{1,128})=)?(?P<n>\d{1,15}):(?P<digest>[0-9a-f]{64})")


def verify_all(path: Path, known: Mapping[str, Link]) -> dict[str, Report]:
    """Verify each chain by itself; what cannot be read is a verdict too, and never a success (FAILURE.md S7)."""
    try:
        chains = read_chains(path)
    except OSError as error:
        return {str(path): _unreadable(f"cannot read {error.filename or path}: {error.strerror}")}
    if not chains:
        return {str(path): _unreadable("there is no chain here")}
    known = _placed(known, chains)
    reports = {name: verify_chain(segments, checkpoint=known.get(name)) for name, segments in chains.items()}
    missing = {name: _unreadable("the chain of the checkpoint is not here") for name in known if name not in chains}
    return reports | missing


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
        raise BadRequestError("a checkpoint is [CHAIN=]N:DIGEST, the digest in 64 hex digits")
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
    for name, segments in chains.items():
        report = verify_chain(segments)
        if report.verdict is not Verdict.OK:
            raise ConfigError(f"chain {name} does not verify: {report}", advice="`pdp audit verify` tells more")
        for content in acknowledged(segments):
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
    """Return the segments of every chain in or below `path`, or of the chain that the file `path` belongs to.

    Raises:
        OSError: something cannot be read.
    """
    if path.is_file():
        return _read_file(path)
    if not path.is_dir():
        raise FileNotFoundError(2, "no such file or directory", str(path))
    chains: dict[str, list[tuple[str, bytes]]] = {}
    for directory in sorted({file.parent for file in path.rglob("*.log")}):
        below = directory.relative_to(path)
        found = read_segments(directory)
        chains |= {str(below / name): segments for name, segments in found.items()}
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
    return {name: before or [(path.name, path.read_bytes())]}


def _strangers(directory: Path, below: Path, found: Chains) -> Chains:
    """Return the files that look like a segment and are not named like one: they count as chains that do not verify."""
    read = {name for segments in found.values() for name, _ in segments}
    return {str(below / file.name): [(file.name, b"")] for file in directory.glob("*.log") if file.name not in read}


def _unreadable(detail: str) -> Report:
    return Report(verdict=Verdict.UNREADABLE, records=0, head=Link(n=0, digest=""), detail=detail)
