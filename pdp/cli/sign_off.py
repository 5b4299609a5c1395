"""`pdp access sign-off`, `sign-offs`: that a review of access was looked at, by whom, and at which report."""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from pdp.change.signoff import SignOff
from pdp.cli.audit_filters import Place, placed
from pdp.cli.audit_replay import verified_entries
from pdp.cli.options import AsJson, Connection, connected, instant_text
from pdp.cli.output import write_json, write_line, write_table
from pdp.errors import BadRequestError, ConfigError, PortcullisError, Reason
from pdp.limits import MAX_REPORT_BYTES
from pdp.model import canonical
from pdp.model.names import counted
from pdp.service.sign_off import SIGN_OFF
from pdp.trust.entry import EntryHeader

_COLUMNS: Final = ("entry", "time", "by", "world", "uses since", "findings", "report", "message")
_SHOWN: Final = 16
"""Digits of a report's digest in the table; `--json` has them all."""
_Report = Annotated[Path, typer.Argument(metavar="REPORT", help="What `pdp access review --json` wrote.")]


@connected
def sign_off(
    report: _Report,
    *,
    message: Annotated[str, typer.Option("--message", "-m", metavar="TEXT", help="What came of it.")] = "",
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Say for the log that you looked at a review of access: its digest, its window and the number of its findings go with it.

    Keep the report: the log proves that exactly this file was signed off, and does not hold it. Exit code 3 if you may not.

    Example: `pdp access sign-off review.json -m "two grants narrowed in p17"`, where `pdp access review --json` wrote review.json
    """
    raw = _bytes(report)
    told = _told(report, raw)
    digest = hashlib.sha256(raw).hexdigest()
    with connection.admin() as admin:
        entry = admin.sign_off(digest, message=message, **told)
    if as_json:
        write_json({"entry": entry, "report": digest})
    else:
        write_line(f"{report} is signed off in entry {entry}: {counted(told['findings'], 'finding')}, sha256 {digest}")


@placed
def sign_offs(
    *,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Only those of this report; exit code 7 if none is.")
    ] = None,
    as_json: AsJson = False,
    place: Place,
) -> None:
    """List which reviews of access were signed off, when, by whom. Needs no server: it reads and verifies the PDP's own log.

    Example: `pdp access sign-offs --report review.json --state-dir state`
    """
    wanted = hashlib.sha256(_bytes(report)).hexdigest() if report else ""
    found = [
        (header, signed) for header, signed in asyncio.run(_entries(place)) if not wanted or signed.report == wanted
    ]
    if report and not found:
        raise PortcullisError(Reason.NOT_FOUND, f"nobody signed off {report}", advice="`pdp access sign-off`")
    if as_json:
        write_json([{"entry": header.seq, "time_ms": header.time_ms, **asdict(signed)} for header, signed in found])
        return
    write_table(_COLUMNS, [_row(header, signed) for header, signed in found])


def _row(header: EntryHeader, signed: SignOff) -> tuple[object, ...]:
    return (
        header.seq,
        instant_text(header.time_ms),
        " for ".join(reversed(signed.by)),
        signed.world_seq,
        instant_text(signed.since_ms),
        signed.findings,
        signed.report[:_SHOWN],
        signed.message,
    )


def _bytes(report: Path) -> bytes:
    try:
        with report.open("rb") as opened:
            raw = opened.read(MAX_REPORT_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {report}: {error.strerror}", advice="name the report") from error
    if len(raw) > MAX_REPORT_BYTES:
        raise BadRequestError(f"{report} has over {MAX_REPORT_BYTES >> 20} MiB: it is no report")
    return raw


def _told(report: Path, raw: bytes) -> dict[str, Any]:
    """Return what the log says of a report beside its digest."""
    try:
        value = json.loads(raw)
        return {
            "world_seq": value["world_seq"],
            "since_ms": max(value["since_ms"], 0),
            "findings": len(value["found"]),
        }
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"{report} is not what `pdp access review --json` writes"
        raise BadRequestError(message) from error


async def _entries(place: Place) -> Sequence[tuple[EntryHeader, SignOff]]:
    entries = [(EntryHeader.decode(entry.header), entry.payload) for entry in await verified_entries(place.settings())]
    return [(head, SignOff.from_json(canonical.loads(raw))) for head, raw in entries if head.kind == SIGN_OFF]
