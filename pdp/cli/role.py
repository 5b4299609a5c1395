"""`pdp role`: who holds which role, where and until when; granting and taking away without editing a file."""

import time
from typing import Annotated

import typer

from pdp.cli.changes import Message
from pdp.cli.edits import (
    DryRun,
    Environment,
    For,
    From,
    Until,
    as_dicts,
    change_rows,
    live_rows,
    matching,
    told_window,
    window,
)
from pdp.cli.options import AsJson, Connection, connected, noun
from pdp.cli.output import write_json, write_table
from pdp.errors import PortcullisError, Reason

app = noun("Who holds which role, where, and until when.")

Who = Annotated[
    str, typer.Argument(metavar="WHO", help="`user:…`, `agent:…`, `workload:…`, `group:…` or another role.")
]
Role = Annotated[str, typer.Argument(metavar="ROLE", help="Such as `role:app`.")]
_COLUMNS = ("row", "who", "role", "environment", "when")


@app.command()
@connected
def grant(
    who: Who,
    role: Role,
    *,
    env: Environment,
    start: From = "",
    until: Until = "",
    duration: For = "",
    message: Message = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Give a role, and show what that changes. What is granted for a time ends by itself, running streams included.

    Exit code 0 if it is live, 8 if it waits for approvals, 3 if you may not.

    Example: `pdp role grant user:bob@example.com role:release-manager --env prod --for 8h -m "release 2.4"`
    """
    row = ("g", who, role, env, *window(start, until, duration))
    change_rows(connection, add=[row], message=message, dry_run=dry_run, as_json=as_json)


@app.command()
@connected
def revoke(
    who: Who,
    role: Role,
    *,
    env: Annotated[str, typer.Option("--env", metavar="ENV", help="Only there; else everywhere.")] = "",
    message: Message = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Take a role away, in every environment where it is held or in one, whatever its time.

    Exit code 7 if it is not held. What is inherited through a group or another role is not touched: `pdp explain` says how.

    Example: `pdp role revoke user:bob@example.com role:release-manager -m "moved to another team"`
    """
    rows = matching(live_rows(connection, "g"), (who, role, env or None))
    if not rows:
        raise PortcullisError(
            Reason.NOT_FOUND, f"no row gives `{who}` the role `{role}`", advice=f"pdp role list {who}"
        )
    change_rows(
        connection, remove=[("g", *fields) for fields in rows], message=message, dry_run=dry_run, as_json=as_json
    )


@app.command("list")
@connected
def list_roles(
    who: Annotated[str, typer.Argument(metavar="[WHO]", help="Only what this one holds.")] = "",
    *,
    role: Annotated[str, typer.Option("--role", metavar="ROLE", help="Only who holds this one.")] = "",
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """List the assignments, as they are written; `pdp who-can` and `pdp what-can` say what follows from them.

    Example: `pdp role list --role role:policy-admin`
    """
    now_ms = time.time_ns() // 1_000_000
    rows = [
        (place, *fields[:3], told_window(fields[3:], now_ms))
        for place, fields in live_rows(connection, "g")
        if (not who or fields[0] == who) and (not role or fields[1] == role)
    ]
    if as_json:
        write_json(as_dicts(_COLUMNS, rows))
    else:
        write_table(_COLUMNS, rows)
