"""`pdp lock`: take access away, now and everywhere, running streams included. A lock beats every allow."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer

from pdp.cli.options import AsJson, Connection, connected, instant_text, noun, parse_duration_ms
from pdp.cli.output import write_fields, write_json, write_line, write_table
from pdp.errors import MEANINGS, BadRequestError, Reason
from pdp.model.names import counted
from pdp.sdk.admin import Locked, LockTarget, Receipt

app = noun("Lock out a principal, token or resource, now and everywhere.")


@app.command()
@connected
def add(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="`user:…`, `agent:…`, `workload:…`, `resource:PATTERN`, `jti:ISS#ID`, `session:ISS#ID`, "
            "`certificate:HEX`, `serial:NAME#NUMBER`, "
            "`account-uid:ISS#UID`, `pod-uid:ISS#UID` or `issued-before:ISS#TIME[#PRINCIPAL]`.",
        ),
    ],
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; people will read it.")],
    wait: Annotated[
        str, typer.Option(metavar="all", help="`all`: return when every connected enforcement point holds the lock.")
    ] = "",
    duration: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="`90s`, `15m`, `1h`, `7d`; else open.")
    ] = "",
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Lock something out, and say who enforces it: the receipt of a revocation.

    Exit code 5 if `--wait all` ended before everybody acknowledged; the lock stands all the same.

    Example: `pdp lock add user:mallory@example.com --reason "laptop stolen" --wait all`
    """
    if wait not in {"", "all"}:
        raise BadRequestError(f"`--wait {wait}` is unknown; `--wait all` is the only kind")
    parsed = LockTarget.parse(target)
    end_ms = time.time_ns() // 1_000_000 + parse_duration_ms(duration) if duration else 0
    with connection.admin() as admin:
        locked = admin.lock(parsed, reason=reason, end_ms=end_ms, wait_all=wait == "all")
    if as_json:
        write_json(locked_json(locked))
    else:
        _tell(locked)
    if wait and locked.receipt.missing:
        # The lock stands, and what was asked for has not happened: a script must not go on as if it had.
        raise typer.Exit(MEANINGS[Reason.DEADLINE_EXCEEDED].exit_code)


@app.command()
@connected
def remove(
    lock_id: Annotated[str, typer.Argument(metavar="ID", help="As `pdp lock list` shows it.")],
    *,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Remove a lock. Exit code 7 if there is none of that id.

    Example: `pdp lock remove 01JD…`
    """
    with connection.admin() as admin:
        world_seq = admin.unlock(lock_id)
    if as_json:
        write_json({"id": lock_id, "world_seq": world_seq})
    else:
        write_line(f"lock {lock_id} is removed in world {world_seq}")


@app.command("list")
@connected
def list_(*, as_json: AsJson = False, connection: Connection) -> None:
    """List the locks.

    Example: `pdp lock list --json | jq '.[].target'`
    """
    with connection.admin() as admin:
        locks = admin.locks().locks
    if as_json:
        write_json([lock.to_json() for lock in locks])
        return
    rows = [
        (lock.id, str(lock.target), lock.reason, lock.source, instant_text(lock.start_ms), instant_text(lock.end_ms))
        for lock in locks
    ]
    write_table(("id", "target", "reason", "set by", "since", "until"), rows)


def locked_json(locked: Locked) -> Mapping[str, Any]:
    """Return a lock and its receipt as `--json` prints them."""
    return {"lock": locked.lock.to_json(), "receipt": asdict(locked.receipt)}


def _tell(locked: Locked) -> None:
    lock = locked.lock
    write_fields(
        f"LOCKED {lock.target}",
        {
            "id": lock.id,
            "reason": lock.reason,
            "until": instant_text(lock.end_ms) or f"removed by `pdp lock remove {lock.id}`",
            "world": str(locked.receipt.world_seq or lock.world_seq),
            "held by": _holders(locked.receipt),
            "missing": ", ".join(locked.receipt.missing),
        },
    )


def _holders(receipt: Receipt) -> str:
    slowest = f", the slowest after {receipt.slowest_ms:.0f} ms" if receipt.holding else ""
    return f"{receipt.holding} of {counted(receipt.connected, 'connected enforcement point')}{slowest}"
