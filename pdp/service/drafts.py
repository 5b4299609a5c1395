"""Three ways to write a change: a whole pack, single rows, or what the policy was before."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pdp.engine.casbin_text import Row, parse_model, parse_rows, print_row
from pdp.engine.findings import PackRefused, errors
from pdp.errors import BadRequestError, PortcullisError, Reason
from pdp.limits import MAX_EDIT_ROWS
from pdp.service.history import Held
from pdp.service.packs import EDITS_FILE, change_to, checked, difference
from pdp.service.policy import Draft
from pdp.world import Policy, World


async def from_pack(files: Mapping[str, bytes], *, message: str) -> Draft:
    """Return the draft that makes the live policy what a pack says.

    Raises:
        PackRefused, TestsFailed: with every finding.
        BadRequestError: too many files, or one too large.
    """
    pack = await asyncio.to_thread(checked, files)
    return Draft(
        make=lambda world: difference(world.policy, pack, files.keys()),
        message=message,
        warnings=tuple(map(str, pack.warnings)),
    )


def from_rows(add: Sequence[str], remove: Sequence[str], *, message: str) -> Draft:
    """Return the draft that adds and removes single rows, each written as a line of CSV.

    What is there already is not added again; a row to remove is named by what it says, wherever it stands.

    Raises:
        BadRequestError: none, or too many.
    """
    if not 0 < len(add) + len(remove) <= MAX_EDIT_ROWS:
        raise BadRequestError(f"an edit has 1 to {MAX_EDIT_ROWS} rows", reason=Reason.BAD_REQUEST)
    return Draft(make=lambda world: _edited(world, add, remove), message=message)


def from_history(held: Held, *, message: str) -> Draft:
    """Return the draft that makes the policy what it was: a new change with an old content."""
    return Draft(
        make=lambda world: change_to(world.policy, model=held.model, vocabulary=held.vocabulary, rows=held.rows),
        message=message,
    )


def _edited(world: World, add: Sequence[str], remove: Sequence[str]) -> dict[str, Any]:
    policy = world.policy
    if policy is None:
        raise PortcullisError(Reason.NOT_FOUND, "no policy is held yet", advice="run `pdp init`")
    live = policy.snapshot.rows
    unwanted = {(row.section, row.fields) for row in _parsed(policy, remove)}
    gone = [row for row in live if (row.section, row.fields) in unwanted]
    missing = unwanted - {(row.section, row.fields) for row in gone}
    if missing:
        section, fields = min(missing)
        raise PortcullisError(
            Reason.NOT_FOUND, f"no row `{print_row(Row(section, fields, '', 0))}` is live", advice="`pdp policy show`"
        )
    there = {(row.section, row.fields) for row in live} - unwanted
    last = max((row.line for row in (*live, *_waiting(world)) if row.file == EDITS_FILE), default=0)
    wanted = dict.fromkeys((row.section, row.fields) for row in _parsed(policy, add))
    new = [Row(section, fields, EDITS_FILE, 0) for section, fields in wanted if (section, fields) not in there]
    return {
        "model": None,
        "vocabulary": None,
        "added": [replace(row, line=last + number).to_json() for number, row in enumerate(new, start=1)],
        "removed": [row.to_json() for row in gone],
        "rows_digest": "",
    }


def _waiting(world: World) -> Iterator[Row]:
    """Yield the rows that open proposals add: their places are taken, or the second of two edits never fitted again."""
    for proposal in world.proposals:
        yield from (Row.from_json(raw) for raw in proposal.change.get("added", ()))


def _parsed(policy: Policy, lines: Sequence[str]) -> tuple[Row, ...]:
    """Read rows as a pack's rows are read.

    Raises:
        PackRefused: with every finding.
        BadRequestError: a line that is more than one.
    """
    if any(len(line.splitlines()) != 1 for line in lines):
        raise BadRequestError("each row is one line")
    model, _ = parse_model(policy.model_text, file="model.conf")
    if model is None or not lines:
        return ()
    rows, findings = parse_rows("\n".join(lines) + "\n", file=EDITS_FILE, model=model)
    if errors(findings):
        raise PackRefused(findings)
    if len(rows) != len(lines):
        raise BadRequestError("each line is one row; comments have no place here")
    return tuple(rows)
