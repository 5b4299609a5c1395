"""`pdp audit query` and `export`: find decisions in the log, and hand them to other systems."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from pdp.adapters.audit_index import Hit
from pdp.audit.export import Mask, masked, ocsf
from pdp.audit.query import Wanted
from pdp.cli.audit_filters import Place, filtered, placed
from pdp.cli.audit_lines import record_line
from pdp.cli.options import AsJson
from pdp.cli.output import write_json_line, write_line
from pdp.limits import AUDIT_QUERY_LIMIT
from pdp.server.sinks import mask_key as key_of

_CHANGED: Final = 1


class Form(StrEnum):
    """What records are written as."""

    JSON = "json"
    OCSF = "ocsf"


@filtered
@placed
def query(
    *,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, metavar="N", help="The newest so many; 0: all.")
    ] = AUDIT_QUERY_LIMIT,
    as_json: AsJson = False,
    wanted: Wanted,
    place: Place,
) -> None:
    """Find decisions in the log where it lies, oldest first. Needs no server; `--json` prints records as they are, one a line.

    An index (`index.db`, beside the chains) finds them; each is then read back from its chain and checked by its own digest,
    so the index is never what is believed. That nothing was taken out of the chains, `pdp audit verify` tells.

    Exit code 0, also if nothing was found; 1 if a record that was found is no longer what it was.

    Example: `pdp audit query --subject user:bob@example.com --resource 'dataset/pii/*' --since 7d`
    """
    with place.index() as index:
        hits = index.find(wanted, limit=limit)
    for hit in hits:
        _tell(hit, as_json=as_json)
    if not as_json:
        write_line(f"{len(hits)} decisions{' (the newest; --limit for more)' if limit and len(hits) == limit else ''}")
    raise typer.Exit(_CHANGED if any(hit.record is None for hit in hits) else 0)


@filtered
@placed
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
) -> None:
    """Write decisions for other systems, one JSON object a line, oldest first. Needs no server.

    `--as ocsf` writes events of class 6003 (API Activity) with the profile `security_control`. With `--mask principals`, each
    name becomes a pseudonym, the same one wherever it stands; without a key of yours, those of two exports have nothing in
    common. A masked record no longer matches its own digest, which stays in it and names the original.

    Exit code 0, 1 if a record is no longer what was indexed: it is left out and told on standard error.

    Example: `pdp audit export --as ocsf --since 1d --mask principals`
    """
    secret = key_of(mask_key)
    with place.index() as index:
        hits = index.find(wanted, limit=0)
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
