"""`pdp audit query` and `export`: find decisions in the log, and hand them to other systems."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from pdp.adapters.audit_index import Hit
from pdp.adapters.mask_key import mask_key as key_of
from pdp.audit.chain import Broken, Malformed, unseal
from pdp.audit.export import Mask, masked, ocsf
from pdp.audit.query import Wanted
from pdp.cli.audit_filters import Place, filtered, placed
from pdp.cli.audit_lines import record_line
from pdp.cli.options import AsJson, Connection, connected
from pdp.cli.output import write_json_line, write_line
from pdp.limits import AUDIT_QUERY_LIMIT, MAX_AUDIT_PAGE
from pdp.model.names import counted
from pdp.sdk.admin import AdminClient, FoundRecord

_CHANGED: Final = 1


class Form(StrEnum):
    """What records are written as."""

    JSON = "json"
    OCSF = "ocsf"


@filtered
@placed
@connected
def query(
    *,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, metavar="N", help="The newest so many; 0: all.")
    ] = AUDIT_QUERY_LIMIT,
    events: Annotated[
        bool, typer.Option("--events", help="Also what became of the streams that these decisions opened.")
    ] = False,
    as_json: AsJson = False,
    wanted: Wanted,
    place: Place,
    connection: Connection,
) -> None:
    """Find decisions in the log where it lies, oldest first; with `--server`, in that of a running PDP (right `audit.read`).

    `--json` prints records as they are, one a line. An index (`index.db`, beside the chains) finds them; each is then read
    back from its chain and checked by its own digest, so the index is never what is believed. That nothing was taken out of
    the chains, `pdp audit verify` tells. With `--audit`, `--state-dir` or `--config` no server is asked.

    Exit code 0, also if nothing was found; 1 if a record that was found is no longer what it was.

    Example: `pdp audit query --subject user:bob@example.com --resource 'dataset/pii/*' --since 7d`
    """
    hits, streams = _found(wanted, place, connection, limit=limit, events=events)
    for hit in sorted([*hits, *streams], key=lambda hit: hit.time_ms):
        _tell(hit, as_json=as_json)
    if not as_json:
        more = " (the newest; --limit for more)" if limit and len(hits) == limit else ""
        write_line(f"{counted(len(hits), 'decision')}{more}")
    raise typer.Exit(_CHANGED if any(hit.record is None for hit in (*hits, *streams)) else 0)


def _found(
    wanted: Wanted, place: Place, connection: Connection, *, limit: int, events: bool
) -> tuple[list[Hit], list[Hit]]:
    """Return (decisions, records of their streams), oldest first: as a PDP tells them, or as they lie in a named place."""
    if connection.server and not place.named:
        with connection.admin() as admin:
            return _asked(admin, wanted, limit, events=events)
    with place.index() as index:
        hits = index.find(wanted, limit=limit)
        return hits, index.events(hits) if events else []


def _asked(admin: AdminClient, wanted: Wanted, limit: int, *, events: bool) -> tuple[list[Hit], list[Hit]]:
    """Return (decisions, records of their streams) that a PDP finds, oldest first, page by page."""
    hits: list[Hit] = []
    streams: list[Hit] = []
    cursor = ""
    while not limit or len(hits) < limit:
        size = min(limit - len(hits), MAX_AUDIT_PAGE) if limit else MAX_AUDIT_PAGE
        told = admin.audit_query(wanted, page_size=size, cursor=cursor, events=events)
        hits += map(_hit, told.records)
        streams += map(_hit, told.events)
        cursor = told.next_cursor
        if not cursor:
            break
    return hits[::-1], streams


def _hit(told: FoundRecord) -> Hit:
    """Return a record as a server told it, checked by its own digest as one that was read from a file is."""
    try:
        record = unseal(told.record)[0] if told.record else None
    except (Malformed, Broken):
        record = None
    time_ms = record.get("time_ms") if record else 0
    return Hit(chain=told.chain, n=told.n, time_ms=time_ms if isinstance(time_ms, int) else 0, record=record)


@filtered
@placed
@connected
def export(
    *,
    form: Annotated[Form, typer.Option("--as", help="JSON lines as they stand, or OCSF 1.6 API Activity events.")],
    mask: Annotated[
        list[Mask], typer.Option("--mask", help="Hide names, or what questions brought along; may be repeated.")
    ] = [],  # noqa: B006 - typer copies it
    mask_key: Annotated[
        Path | None,
        typer.Option(
            "--mask-key", metavar="FILE", help="Names become the same pseudonyms whenever this file is given."
        ),
    ] = None,
    wanted: Wanted,
    place: Place,
    connection: Connection,
) -> None:
    """Write decisions for other systems, one JSON object a line, oldest first; found as `pdp audit query` finds them.

    `--as ocsf` writes events of class 6003 (API Activity) with the profile `security_control`. With `--mask principals`, each
    name becomes a pseudonym, the same one wherever it stands; without a key of yours, those of two exports have nothing in
    common. A masked record no longer matches its own digest, which stays in it and names the original.

    Exit code 0, 1 if a record is no longer what was indexed: it is left out and told on standard error.

    Example: `pdp audit export --as ocsf --since 1d --mask principals`
    """
    secret = key_of(mask_key)
    hits, _ = _found(wanted, place, connection, limit=0, events=False)
    changed = [hit for hit in hits if hit.record is None]
    for hit in hits:
        if hit.record is not None:
            record = masked(hit.record, frozenset(mask), secret)
            write_json_line(ocsf(record, hit.chain) if form is Form.OCSF else record)
    for hit in changed:
        typer.echo(_changed(hit), err=True)
    raise typer.Exit(_CHANGED if changed else 0)


def _tell(hit: Hit, *, as_json: bool) -> None:
    record: dict[str, Any] = hit.record or {"kind": "changed", "chain": hit.chain, "n": hit.n}
    if as_json:
        write_json_line(record)
    else:
        write_line(record_line(record) if hit.record else _changed(hit))


def _changed(hit: Hit) -> str:
    return f"record {hit.n} of chain {hit.chain} is no longer what was indexed: `pdp audit verify`"
