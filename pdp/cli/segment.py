"""`pdp segment`: which workload reaches what; editing it, asking over several hops, drawing it."""

import sys
import time
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pdp.cli import segment_map
from pdp.cli.changes import Message
from pdp.cli.diffs import live_snapshot
from pdp.cli.edits import DryRun, as_dicts, change_rows, live_rows
from pdp.cli.options import AsJson, Connection, connected, noun
from pdp.cli.output import write_json, write_line, write_table
from pdp.errors import ConfigError
from pdp.model.names import Resource, counted
from pdp.reach import Path as Way
from pdp.reach import Terrain

app = noun("Which workload reaches what: edit it, ask over several hops, draw it.")

_From = Annotated[str, typer.Argument(metavar="FROM", help="`segment:…`, or a workload that a rule names.")]
_To = Annotated[str, typer.Argument(metavar="TO", help="`segment:…`")]
_Action = Annotated[
    str, typer.Argument(metavar="ACTION", help="`endpoint.invoke`, `dataset.read|list`, `model.*` or `*`.")
]
_When = Annotated[
    str, typer.Option("--when", metavar="CEL", help="Only if this holds, such as `resource.environment == 'dev'`.")
]
_RULES = ("row", "from", "action", "to", "when", "effect")
_MEMBERS = ("row", "what", "segment")
_HOPS = 16


class Form(StrEnum):
    """What a map is written as."""

    SVG = "svg"
    DOT = "dot"


@app.command()
@connected
def assign(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="`workload:spiffe://…/**`, or an asset.")],
    segment: _To,
    *,
    remove: Annotated[bool, typer.Option("--remove", help="Take it out of the segment instead.")] = False,
    message: Message = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Place a workload or an asset in a segment, and show what that changes. Exit code 8 if it waits for approvals.

    Example: `pdp segment assign 'workload:spiffe://prod.example/ns/web/**' segment:apps -m "the shop"`
    """
    _change(connection, ("g3", what, segment), remove, message, dry_run, as_json)


@app.command()
@connected
def allow(
    source: _From,
    action: _Action,
    target: _To,
    *,
    when: _When = "",
    remove: Annotated[bool, typer.Option("--remove", help="Take this rule away instead.")] = False,
    message: Message = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Let workloads of one segment reach assets of another. Exit code 8 if it waits for approvals.

    Example: `pdp segment allow segment:training dataset.read segment:data -m "nightly training"`
    """
    _change(connection, ("p2", source, action, target, when, "allow"), remove, message, dry_run, as_json)


@app.command()
@connected
def deny(
    source: _From,
    action: _Action,
    target: _To,
    *,
    when: _When = "",
    remove: Annotated[bool, typer.Option("--remove", help="Take this rule away instead.")] = False,
    message: Message = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Keep workloads of one segment from assets of another, whatever else allows it. Exit code 8 if it waits for approvals.

    Example: `pdp segment deny segment:apps '*' segment:data -m "applications read no data"`
    """
    _change(connection, ("p2", source, action, target, when, "deny"), remove, message, dry_run, as_json)


def _change(
    connection: Connection, row: tuple[str, ...], remove: bool, message: str, dry_run: bool, as_json: bool
) -> None:
    """Add a row, its section first, or take it away."""
    rows = [row]
    change_rows(
        connection,
        add=() if remove else rows,
        remove=rows if remove else (),
        message=message,
        dry_run=dry_run,
        as_json=as_json,
    )


@app.command("list")
@connected
def list_segments(*, as_json: AsJson = False, connection: Connection) -> None:
    """List the rules between segments, who stands where, and what is probably not meant.

    Example: `pdp segment list`
    """
    terrain = _terrain(connection)
    rules = [(place, *fields) for place, fields in live_rows(connection, "p2")]
    members = [(place, *fields) for place, fields in live_rows(connection, "g3")]
    members += [("inventory", name, each) for name, where in terrain.placed.items() for each in where]
    odd = list(terrain.oddities())
    if as_json:
        write_json({"rules": as_dicts(_RULES, rules), "members": as_dicts(_MEMBERS, members), "oddities": odd})
        return
    write_table(_RULES, rules)
    write_line()
    write_table(_MEMBERS, members)
    for line in odd:
        write_line(f"note: {line}")


@app.command()
@connected
def reach(
    start: Annotated[str, typer.Argument(metavar="FROM", help="`segment:…` or `workload:…`")],
    *,
    to: Annotated[str, typer.Option("--to", metavar="ASSET", help="An asset, a pattern, or `collection:…`.")],
    hops: Annotated[int, typer.Option("--hops", metavar="N", min=1, max=_HOPS, help="The most steps of a way.")] = 2,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Ask whether something can be reached from somewhere, also through servers: who uses an endpoint uses its server's reach.

    Each way is told with its rules; one that depends on conditions names them. Exit code 0 if there is a way, 3 if none.

    Example: `pdp segment reach segment:notebooks --to collection:pii --hops 2`
    """
    found = list(_terrain(connection).reach(start, to, hops=hops))
    if as_json:
        write_json([{"certain": way.certain, "hops": [asdict(hop) for hop in way.hops]} for way in found])
    else:
        _tell(found, start=start, to=to, hops=hops)
    raise typer.Exit(0 if found else 3)


def _tell(found: list[Way], *, start: str, to: str, hops: int) -> None:
    for way in found:
        told = f"{way.hops[-1].asset}: {counted(len(way.hops), 'hop')}"
        write_line(told if way.certain else f"{told}, under conditions")
        for hop in way.hops:
            write_line(f"  {hop.source} -> {hop.asset} ({hop.to}): {segment_map.summary([hop])[0]}")
            write_line(f"    by {', '.join(hop.rules)}")
            for condition in hop.depends_on:
                write_line(f"    if {condition}")
    if not found:
        write_line(f"nothing in {start} reaches `{to}` in {counted(hops, 'hop')}")


@app.command("map")
@connected
def draw(
    *,
    form: Annotated[Form, typer.Option("--as", help="`svg` to look at, `dot` for Graphviz.")] = Form.SVG,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write there instead of printing.")] = None,
    connection: Connection,
) -> None:
    """Draw which segment reaches which.

    Example: `pdp segment map --out segments.svg`
    """
    terrain = _terrain(connection)
    text = segment_map.svg(terrain) if form is Form.SVG else segment_map.dot(terrain)
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror or error}") from error
    write_line(f"{out}: {counted(len(terrain.segments), 'segment')}")


def _terrain(connection: Connection) -> Terrain:
    with connection.admin() as admin:
        snapshot = live_snapshot(admin.policy())
        assets = {
            str(Resource.parse(one.name)): {f"resource.{key}": value for key, value in one.attributes.items()}
            for one in admin.assets().assets
        }
    return Terrain(snapshot, assets, time.time_ns() // 1_000_000)
