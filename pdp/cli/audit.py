"""`pdp audit`: verify the decision log where it lies, and read it from a PDP."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from pdp.adapters.audit_file import read_segments
from pdp.audit.chain import Link, Report, Verdict
from pdp.audit.chain import verify as verify_chain
from pdp.cli.options import AsJson, Connection, connected, instant_text, noun
from pdp.cli.output import write_json, write_json_line, write_line, write_table
from pdp.errors import BadRequestError

app = noun("Verify the decision log, and read it.")

DEFAULT_DIRECTORY: Final = Path("state/audit")
_CHECKPOINT: Final = re.compile(r"(?:(?P<chain>[a-z0-9-]{1,128})=)?(?P<n>\d{1,15}):(?P<digest>[0-9a-f]{64})")
_TELLING: Final = {
    Verdict.OK: "ok",
    Verdict.BROKEN: "broken",
    Verdict.UNREADABLE: "unreadable",
    Verdict.SHORT: "short",
}

Chains = Mapping[str, list[tuple[str, bytes]]]


@app.command()
def verify(
    path: Annotated[
        Path,
        typer.Argument(metavar="[DIR]", help="Directory with chains, also in folders below; or one file of a chain."),
    ] = DEFAULT_DIRECTORY,
    *,
    checkpoint: Annotated[
        str,
        typer.Option(metavar="[CHAIN=]N:DIGEST", help="A record known from elsewhere, which the chain must reach."),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Verify every chain of the decision log: each record's digest, number and predecessor. Needs no server.

    Exit code 0 only if all was read and holds; 1 a chain is broken, 2 unreadable, malformed or empty, 3 it ends before
    the checkpoint.

    Example: `pdp audit verify state/audit`
    """
    known = _checkpoint(checkpoint) if checkpoint else {}
    reports = _verify(path, known)
    if as_json:
        write_json({"ok": _worst(reports) is Verdict.OK, "chains": [_report_json(*item) for item in reports.items()]})
    else:
        _tell(reports)
    raise typer.Exit(int(_worst(reports)))


@app.command()
@connected
def tail(
    *,
    last: Annotated[int, typer.Option("--last", "-n", min=1, metavar="N", help="How many of the newest records.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new records until Ctrl-C.")] = False,
    chain: Annotated[str, typer.Option(metavar="CHAIN", help="One chain only.")] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print records as they are, one JSON object per line.")
    ] = False,
    connection: Connection,
) -> None:
    """Print the newest records of the decision log that a PDP holds, its enforcement points' included.

    Example: `pdp audit tail -f --json | jq 'select(.effect == "deny")'`
    """
    with connection.admin() as admin:
        for told in admin.audit_records(chain=chain, last=last, follow=follow):
            record = _decoded(told.record)
            if as_json:
                write_json_line(record)
            else:
                write_line(record_line(record))


def _verify(path: Path, known: Mapping[str, Link]) -> dict[str, Report]:
    """Verify each chain by itself; what cannot be read is a verdict too, and never a success (FAILURE.md S7)."""
    try:
        chains = _read(path)
    except OSError as error:
        return {str(path): _unreadable(f"cannot read {error.filename or path}: {error.strerror}")}
    if not chains:
        return {str(path): _unreadable("there is no chain here")}
    known = _placed(known, chains)
    reports = {name: verify_chain(segments, checkpoint=known.get(name)) for name, segments in chains.items()}
    missing = {name: _unreadable("the chain of the checkpoint is not here") for name in known if name not in chains}
    return reports | missing


def _placed(known: Mapping[str, Link], chains: Chains) -> dict[str, Link]:
    """Return checkpoints by the names that the chains have here, folder included."""
    if "" in known and len(chains) > 1:
        raise BadRequestError("there are several chains here: give the checkpoint as CHAIN=N:DIGEST")
    names = {Path(name).name: name for name in chains}
    return {names.get(name, name) or next(iter(chains)): link for name, link in known.items()}


def _read(path: Path) -> Chains:
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


def _read_file(path: Path) -> Chains:
    """Return the chain that `path` is a segment of, up to it: no segment can be verified without those before."""
    name = path.name.split(".")[0]
    before = [segment for segment in read_segments(path.parent).get(name, []) if segment[0] <= path.name]
    return {name: before or [(path.name, path.read_bytes())]}


def _strangers(directory: Path, below: Path, found: Chains) -> Chains:
    """Return the files that look like a segment and are not named like one: they count as chains that do not verify."""
    read = {name for segments in found.values() for name, _ in segments}
    return {str(below / file.name): [(file.name, b"")] for file in directory.glob("*.log") if file.name not in read}


def _checkpoint(text: str) -> dict[str, Link]:
    match = _CHECKPOINT.fullmatch(text)
    if match is None:
        raise BadRequestError("a checkpoint is [CHAIN=]N:DIGEST, the digest in 64 hex digits")
    return {match["chain"] or "": Link(n=int(match["n"]), digest=match["digest"])}


def _unreadable(detail: str) -> Report:
    return Report(verdict=Verdict.UNREADABLE, records=0, head=Link(n=0, digest=""), detail=detail)


def _worst(reports: Mapping[str, Report]) -> Verdict:
    """Return the gravest verdict: a broken chain before an unreadable one, before one that is short."""
    bad = [report.verdict for report in reports.values() if report.verdict is not Verdict.OK]
    return min(bad, default=Verdict.OK)


def _report_json(name: str, report: Report) -> dict[str, Any]:
    return {
        "chain": name,
        "verdict": _TELLING[report.verdict],
        "records": report.records,
        "head": {"n": report.head.n, "digest": report.head.digest},
        "where": report.where,
        "detail": report.detail,
    }


def _tell(reports: Mapping[str, Report]) -> None:
    rows = [(name, _TELLING[report.verdict], report.records, str(report)) for name, report in reports.items()]
    write_table(("chain", "verdict", "records", "detail"), rows)


def _decoded(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return {"kind": "unreadable", "bytes": len(content)}


def record_line(record: Mapping[str, Any]) -> str:
    """Return a record as one line for people: when, what, who, on what, and why."""
    return "  ".join(part for part in _parts(record) if part)


def _parts(record: Mapping[str, Any]) -> Iterable[str]:
    time_ms = record.get("time_ms", 0)
    yield instant_text(time_ms if isinstance(time_ms, int) else 0)
    kind = str(record.get("kind", ""))
    yield (
        str(record.get("effect", "")).upper()
        if kind == "decision"
        else f"[{kind} {record.get('event', '')}".rstrip() + "]"
    )
    for name in ("principal", "action", "resource", "reason"):
        yield str(record.get(name, ""))
    if record.get("determining"):
        yield "by " + ", ".join(map(str, record["determining"]))
    for name in ("world_seq", "decision_id", "door", "chain", "count", "bytes"):
        if record.get(name):
            yield f"{name}={record[name]}"
