"""`pdp collection`: which assets belong together, such as everything that is personal data."""

from typing import Annotated

import typer

from pdp.cli.changes import Message
from pdp.cli.edits import DryRun, as_dicts, change_rows, live_rows
from pdp.cli.options import AsJson, Connection, connected, noun
from pdp.cli.output import write_json, write_table

app = noun("Which assets belong together, such as `collection:pii`.")

_Resource = Annotated[str, typer.Argument(metavar="RESOURCE", help="A resource or a pattern: `dataset/customers/**`.")]
_Collection = Annotated[str, typer.Argument(metavar="COLLECTION", help="Such as `collection:pii`.")]
_COLUMNS = ("row", "resource", "collection")


@app.command()
@connected
def add(
    resource: _Resource,
    collection: _Collection,
    *,
    message: Message = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Put resources into a collection, and show what that changes. Exit code 8 if it waits for approvals.

    Example: `pdp collection add 'dataset/customers/**' collection:pii -m "names and addresses"`
    """
    change_rows(connection, add=[("g2", resource, collection)], message=message, dry_run=dry_run, as_json=as_json)


@app.command()
@connected
def remove(
    resource: _Resource,
    collection: _Collection,
    *,
    message: Message = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Take resources out of a collection. Exit code 7 if they are not in it, 8 if it waits for approvals.

    Example: `pdp collection remove dataset/customers/regions collection:pii -m "no names left"`
    """
    change_rows(connection, remove=[("g2", resource, collection)], message=message, dry_run=dry_run, as_json=as_json)


@app.command("list")
@connected
def list_members(
    collection: Annotated[str, typer.Argument(metavar="[COLLECTION]", help="Only this one.")] = "",
    *,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """List which resources are in which collection.

    Example: `pdp collection list collection:pii`
    """
    rows = [(place, *fields) for place, fields in live_rows(connection, "g2") if collection in {"", fields[1]}]
    if as_json:
        write_json(as_dicts(_COLUMNS, rows))
    else:
        write_table(_COLUMNS, rows)
