"""`pdp audit trace`: what happened around a principal, a model version or a dataset snapshot."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from pdp.adapters.audit_index import AuditIndex, Hit
from pdp.adapters.log_sqlite import SqliteWorldLog
from pdp.audit.query import Wanted
from pdp.cli.audit_filters import Place, moment, placed
from pdp.cli.audit_replay import read_entries, worlds_of
from pdp.cli.options import AsJson, instant_text
from pdp.cli.output import write_json, write_line, write_table
from pdp.errors import ConfigError
from pdp.limits import TRACE_RECORDS
from pdp.model.names import counted
from pdp.server.stores import WORLD_FILE
from pdp.service.history import History, Revision
from pdp.service.trace import Access, Chronicle, Trace, principal_of, trace

_TIMELINE: Final = ("time", "effect", "subject", "through", "action", "resource", "reason", "world")
_WHY: Final = ("row", "text", "brought by", "at", "approved by", "message")
_LINEAGE: Final = ("asset", "comes from", "registered", "by", "entry")
_REACH: Final = ("subject", "world", "resource", "actions")


@placed
def trace_name(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="`user:…`, or an asset: `model/fraud@7`, `dataset/people@2026-11-01`.")
    ],
    *,
    since: Annotated[str, typer.Option(metavar="WHEN", help="`7d`, or an instant; not before this.")] = "",
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, metavar="N", help="The newest so many decisions.")
    ] = TRACE_RECORDS,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page with a timeline; it loads nothing.")
    ] = None,
    as_json: AsJson = False,
    place: Place,
) -> None:
    """Tell what happened around a principal, a model version or a dataset snapshot, and why it was allowed.

    Its accesses on a timeline; by which rows each was allowed, who brought them and who approved them; what the asset comes
    from and what came of it (`derived_from` in the inventory); and what else was within reach. Needs no server: run it on a
    copy of the state directory. For an asset, accesses to all that it comes from and that came of it are told, too.

    Exit code 0; 1 if a record that was found is no longer what was indexed.

    Example: `pdp audit trace model/fraud@7 --html fraud.html`
    """
    told, changed = asyncio.run(_trace(name, place, since_ms=moment(since), limit=limit))
    if html is not None:
        # Imported where it is wanted: nobody else needs the page.
        from pdp.cli.trace_html import page  # noqa: PLC0415

        html.write_text(page(told), encoding="utf-8")
    if as_json:
        write_json(asdict(told) | {"changed": changed})
    elif html is not None:
        write_line(f"{html}: {counted(len(told.accesses), 'access', 'accesses')} of or to {name}")
    else:
        _tell(told)
    for hit in changed:
        typer.echo(f"{hit} is no longer what was indexed: `pdp audit verify`", err=True)
    raise typer.Exit(1 if changed else 0)


async def _trace(name: str, place: Place, *, since_ms: int, limit: int) -> tuple[Trace, list[str]]:
    settings = place.settings()
    log = SqliteWorldLog(settings.state_dir / WORLD_FILE)
    try:
        worlds = worlds_of(settings, log)
        if await worlds.at((await log.head()).seq) is None:
            raise ConfigError(f"{settings.state_dir} holds no world", advice="name a PDP's state directory, or a copy")
        chronicle = await Chronicle.read(History(log), await read_entries(log))
        with place.index() as index:
            hits = _found(index, name, chronicle, since_ms)
            shown = hits[-limit:]
            whole = [(hit.chain, hit.record) for hit in shown if hit.record is not None]
            events = index.events(shown)
        streams = [(hit.chain, hit.record) for hit in events if hit.record is not None]
        told = await trace(name, whole, chronicle, worlds, not_shown=len(hits) - len(shown), streams=streams)
        return told, [f"record {hit.n} of chain {hit.chain}" for hit in (*shown, *events) if hit.record is None]
    finally:
        await log.close()


def _found(index: AuditIndex, name: str, chronicle: Chronicle, since_ms: int) -> list[Hit]:
    """Return the decisions about `name`, oldest first: of a principal, or through it; of an asset and its family."""
    principal = principal_of(name)
    if principal:
        asked = [Wanted(subject=principal, since_ms=since_ms), Wanted(actor=principal, since_ms=since_ms)]
    else:
        asked = [Wanted(resource=one, since_ms=since_ms) for one in sorted(chronicle.family([name]))]
    hits = {(hit.chain, hit.n): hit for wanted in asked for hit in index.find(wanted, limit=0)}
    return sorted(hits.values(), key=lambda hit: (hit.record or {}).get("time_ms", 0))


def _tell(told: Trace) -> None:
    if told.not_shown:
        write_line(f"{counted(told.not_shown, 'older decision is', 'older decisions are')} left out; --limit")
    write_table(_TIMELINE, timeline_rows(told.accesses))
    why = reasons(told.accesses)
    if why:
        _title("why")
        write_table(_WHY, why)
    if told.lineage:
        _title("lineage")
        write_table(
            _LINEAGE,
            [(a.name, a.told, instant_text(a.time_ms), a.author, a.seq) for a in told.lineage],
        )
    reach = reach_rows(told)
    if reach:
        _title("within reach, and not in this trace")
        write_table(_REACH, reach)
    write_line()
    write_line(f"{counted(len(told.accesses), 'access', 'accesses')} of or to {told.name}")


def _title(text: str) -> None:
    write_line()
    write_line(text)
    write_line()


def timeline_rows(accesses: Sequence[Access]) -> list[tuple[str, ...]]:
    """Return all accesses as the timeline shows them, and what was noted of their streams, oldest first."""
    rows = [(one.record["time_ms"], timeline_row(one)) for one in accesses]
    rows += [(event["time_ms"], event_row(one, event)) for one in accesses for event in one.events]
    return [row for _, row in sorted(rows, key=lambda timed: timed[0])]


def event_row(one: Access, event: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what was noted of a stream as the timeline shows it: `cut` or `ended`, why, and how much had gone through."""
    told = [str(event.get("reason", ""))]
    told += [f"{name}={event[name]}" for name in ("messages", "size_bytes") if name in event]
    _, _, *who, _, _ = timeline_row(one)
    return (
        instant_text(event["time_ms"]),
        str(event.get("event", "")),
        *who,
        " ".join(filter(None, told)),
        str(event.get("world_seq", "")),
    )


def timeline_row(one: Access) -> tuple[str, ...]:
    """Return an access as the timeline shows it."""
    record = one.record
    through = ", ".join(actor["principal"] for actor in record["actors"])
    return (
        instant_text(record["time_ms"]), record["effect"], record["principal"], through, record["action"],
        record["resource"], record["reason"], str(record["world_seq"]),
    )  # fmt: skip


def reasons(accesses: Sequence[Access]) -> list[tuple[str, ...]]:
    """Return each row that an access stood on, once, with the change that brought it."""
    rows: dict[tuple[str, ...], None] = {}
    for access in accesses:
        for one in access.because:
            rows[one.row, one.text, *_brought(one.revision)] = None
    return list(rows)


def _brought(revision: Revision | None) -> tuple[str, str, str, str]:
    if revision is None:
        return "", "", "", ""
    approved = ", ".join(chain[0] for chain in revision.approvals)
    at = f"{instant_text(revision.time_ms)} (entry {revision.seq})"
    return ", ".join(revision.authors), at, approved, revision.message


def reach_rows(told: Trace) -> list[tuple[str, ...]]:
    """Return what was within reach and does not stand in the trace, one line for each resource."""
    rows: list[tuple[str, ...]] = []
    for one in told.reach:
        by_resource: dict[str, list[str]] = {}
        for resource, action in one.unused:
            by_resource.setdefault(resource, []).append(action.partition(".")[2])
        rows += [(one.subject, str(one.world_seq), name, ", ".join(verbs)) for name, verbs in by_resource.items()]
    return rows
