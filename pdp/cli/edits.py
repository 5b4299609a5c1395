"""Single rows without CSV: what `pdp role`, `pdp segment` and `pdp collection` share.

Each command shows what its rows change before it sends them, and lands at once only where the live policy lets one person do
that; else it leaves a proposal behind (exit code 8).
"""

import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from pdp.cli.changes import WAITS, tell_proposed
from pdp.cli.diffs import live_snapshot, row_of, tell
from pdp.cli.options import Connection, parse_duration_ms
from pdp.cli.output import write_json, write_line
from pdp.engine.casbin_text import OPEN, Row, parse_model, parse_rows, print_row
from pdp.engine.compiler import Snapshot, compile_texts
from pdp.engine.diff import diff
from pdp.engine.findings import PackRefused, errors
from pdp.errors import BadRequestError, ConfigError
from pdp.model.attributes import instant_ms, instant_of
from pdp.sdk.admin import AdminClient, Policy

Environment = Annotated[
    str, typer.Option("--env", metavar="ENV", help="`dev`, `test`, `staging`, `prod`, or `*` for every one.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what it would change.")]
From = Annotated[str, typer.Option("--from", metavar="INSTANT", help="Not before, such as `2026-12-01T08:00:00Z`.")]
Until = Annotated[str, typer.Option("--until", metavar="INSTANT", help="Ends by itself then.")]
For = Annotated[str, typer.Option("--for", metavar="DURATION", help="Ends by itself after `2h`, `7d`, …")]


def change_rows(
    connection: Connection,
    *,
    add: Sequence[Sequence[str]] = (),
    remove: Sequence[Sequence[str]] = (),
    message: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Show what rows change, send them, tell what became of them; each row is its section and its fields.

    Raises:
        PackRefused, PdpError: a row is not one, or the PDP refuses it.
    """
    added, removed = ([print_row(Row(row[0], tuple(row[1:]), "", 0)) for row in rows] for rows in (add, remove))
    with connection.admin() as admin:
        if dry_run or not as_json:
            _show_effect(admin, added, removed, as_json=as_json)
        if dry_run:
            return
        proposed = admin.edit(add=added, remove=removed, message=message)
    tell_proposed(proposed, as_json=as_json)
    if not proposed.world_seq:
        raise typer.Exit(WAITS)


def _show_effect(admin: AdminClient, added: Sequence[str], removed: Sequence[str], *, as_json: bool) -> None:
    policy = admin.policy()
    before = live_snapshot(policy)
    after = _edited(policy, added, removed)
    cells = diff(before, after, time.time_ns() // 1_000_000)
    if as_json:
        write_json({"added": added, "removed": removed, "cells": len(cells)})
        return
    for sign, rows in (("-", removed), ("+", added)):
        for row in rows:
            write_line(f"{sign} {row}")
    tell(cells, (before, after))


def _edited(policy: Policy, added: Sequence[str], removed: Sequence[str]) -> Snapshot:
    model, _ = parse_model(policy.model, file="model.conf")
    if model is None:
        raise ConfigError("this command cannot read the live model", advice="is it older than the PDP?")
    parsed: list[tuple[Row, ...]] = []
    for texts in (added, removed):
        rows, findings = parse_rows("".join(f"{text}\n" for text in texts), file="edits.csv", model=model)
        if errors(findings):
            raise PackRefused(findings)
        parsed.append(rows)
    plus, minus = parsed
    gone = {(row.section, row.fields) for row in minus}
    kept = [row for row in map(row_of, policy.rows) if (row.section, row.fields) not in gone]
    there = {(row.section, row.fields) for row in kept}
    compiled = compile_texts(
        policy.model, policy.vocabulary, (*kept, *(row for row in plus if (row.section, row.fields) not in there))
    )
    if not isinstance(compiled, Snapshot):
        raise PackRefused(compiled)
    return compiled


def window(start: str, until: str, duration: str) -> tuple[str, ...]:
    """Return the two time columns of a row: nothing where both bounds are open.

    Raises:
        BadRequestError: two ends, an instant that is none, or an end before the start.
    """
    if until and duration:
        raise BadRequestError("give `--until` or `--for`, not both")
    now_ms = time.time_ns() // 1_000_000
    start_ms = instant_ms(start) if start else now_ms
    if duration:
        until = instant_of(start_ms + parse_duration_ms(duration))
    if until and instant_ms(until) <= max(start_ms, now_ms):
        raise BadRequestError(f"`{until}` has passed, or is before the start")
    return (start or OPEN, until or OPEN) if start or until else ()


def live_rows(connection: Connection, section: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return id and fields of the live rows of a section."""
    with connection.admin() as admin:
        policy = admin.policy()
    return [(row.id, row.fields) for row in policy.rows if row.section == section]


def matching(rows: Sequence[tuple[str, tuple[str, ...]]], wanted: Sequence[str | None]) -> list[tuple[str, ...]]:
    """Return the fields of the rows that begin with `wanted`; None is anything."""
    return [
        fields
        for _, fields in rows
        if all(want is None or want == held for want, held in zip(wanted, fields, strict=False))
    ]


def told_window(fields: Sequence[str], now_ms: int) -> str:
    """Return for people when a link counts, from the two columns that may end a role row."""
    if not fields:
        return "always"
    start, end = fields
    if end != OPEN and instant_ms(end) <= now_ms:
        return f"ended {end}"
    parts = [f"from {start}" if start != OPEN else "", f"until {end}" if end != OPEN else ""]
    return " ".join(part for part in parts if part) or "always"


def as_dicts(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """Return a table as JSON tells it."""
    return [dict(zip(columns, row, strict=True)) for row in rows]
