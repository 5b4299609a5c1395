"""`pdp access review`: rights that nobody uses, that are wider than their use, or that should not be in one hand."""

import asyncio
import csv
import io
import time
from collections import Counter
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Annotated, Final

import typer

from pdp.adapters.audit_index import AuditIndex
from pdp.audit.query import Wanted
from pdp.cli import pages
from pdp.cli.audit_filters import Place, moment, placed
from pdp.cli.audit_replay import newest_world
from pdp.cli.options import AsJson, instant_text
from pdp.cli.output import safe, write_json, write_line, write_table
from pdp.errors import ConfigError
from pdp.model.names import counted
from pdp.service.review import Found, Usage, review, smaller_rows
from pdp.world import World

_COLUMNS: Final = ("finding", "who", "row", "text", "seen", "smaller row")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


@placed
def review_access(
    *,
    since: Annotated[str, typer.Option(metavar="WHEN", help="The window: `90d`, or an instant.")] = "90d",
    table: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write it as CSV, too.")] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write it as one page, too.")] = None,
    proposal: Annotated[
        Path | None,
        typer.Option("--proposal", metavar="DIR", help="Write the live policy with the smaller rows, to be proposed."),
    ] = None,
    as_json: AsJson = False,
    place: Place,
) -> None:
    """Review who may what against what the log says they did: for the periodic review, or before an auditor asks.

    Finds: principals with both sides of what should be apart (approve and promote); dormant ones; roles that somebody holds and
    does not use, or so seldom that `pdp access request` would do; grants that nothing used, or wider than their use, with the
    smallest row that would have covered it. Needs no server: run it on (a copy of) the state directory. The log of a window
    does not show what is needed once a year: nothing is changed, people decide.

    Exit code 0, whatever was found.

    Example: `pdp access review --since 90d --csv review.csv --proposal smaller`, then `pdp policy diff smaller`
    """
    since_ms = moment(since)
    world = asyncio.run(newest_world(place.settings()))
    with place.index() as index:
        usage = _usage(index, since_ms)
    found = review(world, usage, time.time_ns() // 1_000_000)
    if table is not None:
        table.write_text(_csv(found), encoding="utf-8")
    if html is not None:
        html.write_text(_page(found, world, since_ms), encoding="utf-8")
    if proposal is not None:
        _write_pack(proposal, world, found)
    if as_json:
        write_json({"world_seq": world.seq, "since_ms": since_ms, "found": [asdict(one) for one in found]})
        return
    write_table(_COLUMNS, [astuple(one) for one in found])
    counts = Counter(one.kind.value for one in found)
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    write_line(f"{counted(len(found), 'finding')} in world {world.seq}{f': {told}' if told else ''}")


def _usage(index: AuditIndex, since_ms: int) -> Usage:
    allowed: Counter[tuple[str, tuple[str, ...], str, str]] = Counter()
    wanted = Wanted(effect="allow", since_ms=since_ms)
    for (subject, rules, action, resource), count, _ in index.count(wanted, ["subject", "rule", "action", "resource"]):
        allowed[subject, tuple(rules.split("\n")), action, resource] += count
    seen = {names[0] for names, _, _ in index.count(Wanted(since_ms=since_ms), ["subject"])}
    acting = {
        name for names, _, _ in index.count(Wanted(since_ms=since_ms), ["actor"]) for name in names[0].split("\n")
    }
    return Usage(allowed=allowed, seen=frozenset(seen | acting))


def _csv(found: tuple[Found, ...]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([_cell(value) for value in astuple(one)] for one in found)
    return text.getvalue()


def _cell(value: str) -> str:
    """Return a text that no spreadsheet takes for a formula: what a row is called, others may have chosen."""
    shown = safe(str(value))
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def _page(found: tuple[Found, ...], world: World, since_ms: int) -> str:
    told = (
        f"World {world.seq}, uses since {instant_text(since_ms) or 'the beginning'}. {counted(len(found), 'finding')}."
    )
    rows = [[str(value) for value in astuple(one)] for one in found]
    signature = "<p>Reviewed by: ______________________ on: ______________</p>"
    return pages.document("Access review", [f"<p>{told}</p>", pages.table(_COLUMNS, rows), signature])


def _write_pack(directory: Path, world: World, found: tuple[Found, ...]) -> None:
    """Write a pack that `pdp policy diff`, `test` and `propose` take; a directory that is there is not touched."""
    if world.policy is None:
        return
    try:
        directory.mkdir(parents=True)
    except FileExistsError as error:
        raise ConfigError(f"{directory} is there already", advice="name a new directory") from error
    (directory / "model.conf").write_text(world.policy.model_text, encoding="utf-8")
    (directory / "vocabulary.yaml").write_text(world.policy.vocabulary_text, encoding="utf-8")
    for file, lines in smaller_rows(world.policy.snapshot.rows, found).items():
        (directory / file).parent.mkdir(parents=True, exist_ok=True)
        (directory / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
