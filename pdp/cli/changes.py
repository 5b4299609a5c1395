"""`pdp policy propose|status|show|approve|reject|activate|rollback|log|blame`: changes under a second pair of eyes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pdp.adapters.pack_files import read_pack
from pdp.cli.diffs import cell_json, live_snapshot, row_of, tell
from pdp.cli.options import AsJson, Connection, connected, instant_text
from pdp.cli.output import write_fields, write_json, write_line, write_table
from pdp.engine.casbin_text import Row, print_row
from pdp.engine.compiler import Snapshot, compile_texts
from pdp.engine.diff import diff
from pdp.engine.findings import PackRefused
from pdp.errors import MEANINGS, Reason
from pdp.model.names import counted
from pdp.sdk.admin import AdminClient, Policy, PolicyRow, Proposal, Proposed, Revision, TrialEvent

WAITS: int = MEANINGS[Reason.APPROVAL_MISSING].exit_code
Message = Annotated[str, typer.Option("--message", "-m", metavar="TEXT", help="Why, for the log and for reviewers.")]
ProposalId = Annotated[str, typer.Argument(metavar="PROPOSAL", help="As `pdp policy status` shows it, such as `p17`.")]
_Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The pack: a directory with `model.conf` and rows.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `pdp policy`."""
    for command in (apply, propose, status, show, approve, reject, activate, rollback, log, blame):
        app.command()(command)


@connected
def apply(directory: _Directory, *, message: Message = "", as_json: AsJson = False, connection: Connection) -> None:
    """Make a pack the live policy: the PDP checks it whole, runs its tests, signs and distributes it.

    Where the live policy demands approvals of such a change it becomes a proposal, and waits.

    Exit code 0 if it is live, 8 if it waits for approvals, 2 if it is refused (with every finding), 3 if you may not make
    such a change live.

    Example: `pdp policy apply policies -m "bob releases this week"`
    """
    files = read_pack(directory)
    land(connection, lambda admin: admin.propose(files, message=message, activate=True), as_json=as_json)


@connected
def propose(directory: _Directory, *, message: Message = "", as_json: AsJson = False, connection: Connection) -> None:
    """Put a pack before others, as a proposal that waits: for seven days, or until it is activated or rejected.

    Exit code 0 if it waits, 2 if it is refused (with every finding).

    Example: `pdp policy propose policies -m "auditors may read signals"`
    """
    files = read_pack(directory)
    with connection.admin() as admin:
        proposed = admin.propose(files, message=message)
    tell_proposed(proposed, as_json=as_json)


def land(connection: Connection, change: Callable[[AdminClient], Proposed], *, as_json: bool) -> None:
    """Make a change through `connection`, tell what became of it, and exit with 8 if it waits."""
    with connection.admin() as admin:
        proposed = change(admin)
    tell_proposed(proposed, as_json=as_json)
    if not proposed.world_seq:
        raise typer.Exit(WAITS)


def tell_proposed(proposed: Proposed, *, as_json: bool) -> None:
    """Print what became of a change."""
    if as_json:
        write_json(asdict(proposed))
        return
    for warning in proposed.warnings:
        write_line(warning)
    rows = f"{counted(proposed.rows_added, 'row')} added, {proposed.rows_removed} removed"
    if proposed.world_seq:
        write_line(f"live in world {proposed.world_seq}: {rows}; revision {proposed.revision}")
        return
    needed = proposed.approvals_needed
    write_line(f"proposal {proposed.proposal_id} waits for {counted(needed, 'approval')}: {rows}")
    write_line(f"others look at it with `pdp policy show {proposed.proposal_id}`")


@connected
def status(*, as_json: AsJson = False, connection: Connection) -> None:
    """Show the live revision, the proposals that wait, and those that are tried: in the shadow, or as a canary.

    Example: `pdp policy status`
    """
    with connection.admin() as admin:
        policy, proposals, tried = admin.policy(), admin.proposals(), admin.trials()
    if as_json:
        told = {"revision": policy.revision, "world_seq": policy.world_seq}
        write_json(told | {"proposals": [asdict(one) for one in proposals], "trials": [asdict(one) for one in tried]})
        return
    write_line(f"revision {policy.revision}, world {policy.world_seq}")
    if proposals:
        columns = ("proposal", "by", "rows", "approved by", "ends", "message")
        write_table(columns, [_waiting(one) for one in proposals])
    else:
        write_line("no proposal waits")
    if tried:
        # Imported here: it stands on this module.
        from pdp.cli.trials import COLUMNS, in_words  # noqa: PLC0415

        write_line()
        write_table(COLUMNS, [in_words(one) for one in tried])


def _waiting(one: Proposal) -> tuple[str, ...]:
    rows = f"+{one.rows_added} -{one.rows_removed}"
    return one.id, _chain(one.authors), rows, ", ".join(one.approved_by), instant_text(one.expires_ms), one.message


def _chain(names: Sequence[str]) -> str:
    """Return who, and through whom: an agent acts for the person before it."""
    return " through ".join(names)


@connected
def show(
    proposal_id: Annotated[
        str, typer.Argument(metavar="[PROPOSAL]", help="A proposal; without it, the live policy.")
    ] = "",
    *,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Show the live policy, or a proposal: its rows, and every cell that would change, the worst first.

    Exit code 7 if no such proposal is open.

    Example: `pdp policy show p17`
    """
    with connection.admin() as admin:
        policy = admin.policy()
        proposal = admin.proposal(proposal_id) if proposal_id else None
    if proposal is not None:
        _show_proposal(policy, proposal, as_json=as_json)
    elif as_json:
        write_json(asdict(policy))
    else:
        write_line(f"revision {policy.revision}, world {policy.world_seq}")
        write_table(("id", "row"), [(row.id, _text(row)) for row in policy.rows])


def _show_proposal(policy: Policy, proposal: Proposal, *, as_json: bool) -> None:
    before, after = live_snapshot(policy), _after(policy, proposal)
    cells = diff(before, after, time.time_ns() // 1_000_000)
    if as_json:
        fields = {suffix: one.context.request for both in (before, after) for suffix, one in both.contexts.items()}
        write_json(asdict(proposal) | {"cells": [cell_json(cell, fields[cell.context]) for cell in cells]})
        return
    facts = {
        "by": _chain(proposal.authors),
        "why": proposal.message,
        "made": instant_text(proposal.time_ms),
        "ends": instant_text(proposal.expires_ms),
        "approved by": ", ".join(proposal.approved_by) or "nobody yet",
        "compared with": "" if proposal.current else "an older policy; shown as it would be carried over",
        "model": "changes" if proposal.model is not None else "",
        "vocabulary": "changes" if proposal.vocabulary is not None else "",
        "digest": proposal.digest,
    }
    write_fields(f"proposal {proposal.id}", facts)
    for sign, rows in (("-", proposal.removed), ("+", proposal.added)):
        for row in rows:
            write_line(f"{sign} {row.id}: {_text(row)}")
    write_line()
    tell(cells, (before, after))


def _text(row: PolicyRow) -> str:
    return print_row(Row(row.section, row.fields, "", 0))


def _after(policy: Policy, proposal: Proposal) -> Snapshot:
    """Return what the live policy would become, compiled here.

    Raises:
        PackRefused: it does not compile any more, or not in this version.
    """
    gone = {(row.id, row.section, row.fields) for row in proposal.removed}
    kept = [row for row in policy.rows if (row.id, row.section, row.fields) not in gone]
    rows = [row_of(row) for row in (*kept, *proposal.added)]
    rows.sort(key=lambda row: (row.file, row.line))
    model = policy.model if proposal.model is None else proposal.model
    vocabulary = policy.vocabulary if proposal.vocabulary is None else proposal.vocabulary
    compiled = compile_texts(model, vocabulary, tuple(rows))
    if not isinstance(compiled, Snapshot):
        raise PackRefused(compiled)
    return compiled


@connected
def approve(
    proposal_id: ProposalId,
    *,
    digest: Annotated[
        str, typer.Option("--digest", metavar="HEX", help="Of the change you looked at; else of the one that is there.")
    ] = "",
    message: Message = "",
    connection: Connection,
) -> None:
    """Say yes to a proposal, exactly as it is. Its author never may, nor an agent that acts for them.

    Exit code 3 if you may not, 6 if `--digest` names another change, 7 if no such proposal is open.

    Example: `pdp policy approve p17 -m "as agreed in CHG-1042"`
    """
    with connection.admin() as admin:
        approval = admin.approve(proposal_id, digest=digest or admin.proposal(proposal_id).digest, message=message)
    follows = "it is live" if approval.live else f"`pdp policy activate {proposal_id}` makes it live"
    write_line(f"{proposal_id} is approved by {', '.join(approval.approved_by)}; {follows}")


@connected
def reject(proposal_id: ProposalId, *, message: Message = "", connection: Connection) -> None:
    """End a proposal: as a reviewer, or as its author who withdraws it.

    Example: `pdp policy reject p17 -m "too wide"`
    """
    with connection.admin() as admin:
        admin.reject(proposal_id, message=message)
    write_line(f"{proposal_id} is rejected")


@connected
def activate(proposal_id: ProposalId, *, as_json: AsJson = False, connection: Connection) -> None:
    """Make a proposal the live policy. One that was compared with an older policy is carried over if its rows still fit.

    Exit code 8 if approvals are missing, 6 if it no longer fits (the rows are named), 3 if you may not.

    Example: `pdp policy activate p17`
    """
    with connection.admin() as admin:
        activation = admin.activate(proposal_id)
    if as_json:
        write_json(asdict(activation))
    else:
        write_line(f"live in world {activation.world_seq}; revision {activation.revision}")


@connected
def rollback(
    seq: Annotated[int, typer.Argument(metavar="ENTRY", min=1, help="A number that `pdp policy log` shows.")],
    *,
    message: Message = "",
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Bring back the policy that was live at an entry: a new change with an old content, under the same rules as any.

    Exit code 8 if it waits for approvals, 7 if there was none then.

    Example: `pdp policy rollback 41 -m "p43 let notebooks into prod"`
    """
    told = message or f"back to entry {seq}"
    land(connection, lambda admin: admin.restore(seq, message=told), as_json=as_json)


@connected
def log(
    *,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=10_000, help="The newest so many.")] = 20,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Show the changes that became live, newest first: when, who proposed, who approved, why; and what was tried.

    Example: `pdp policy log`
    """
    with connection.admin() as admin:
        revisions, tried = admin.revisions(limit), admin.trial_events(limit)
    if as_json:
        entries: list[Revision | TrialEvent] = [*revisions, *tried]
        write_json([asdict(one) for one in sorted(entries, key=lambda one: -one.seq)[:limit]])
    else:
        columns = ("entry", "when", "by", "approved by", "rows", "message")
        rows = [*((one.seq, _past(one)) for one in revisions), *((one.seq, _tried(one)) for one in tried)]
        write_table(columns, [row for _, row in sorted(rows, reverse=True)[:limit]])


def _tried(one: TrialEvent) -> tuple[str, ...]:
    told = f"{one.proposal_id} as a {one.mode}: {one.why}" + (f" ({one.detail})" if one.detail else "")
    return str(one.seq), instant_text(one.time_ms), one.author, "", "", told


def _past(one: Revision) -> tuple[str, ...]:
    rows = f"+{one.rows_added} -{one.rows_removed}" + (" and its words" if one.language else "")
    when = instant_text(one.time_ms)
    return str(one.seq), when, _chain(one.authors), ", ".join(one.approved_by), rows, one.message


@connected
def blame(
    text: Annotated[
        str, typer.Argument(metavar="[TEXT]", help="Only rows that hold this text: a name, a file, `grants.csv:6`.")
    ] = "",
    *,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Show for each live row which change brought it, by whom, approved by whom, and why.

    Example: `pdp policy blame role:release-manager`
    """
    with connection.admin() as admin:
        blamed = [(row, one) for row, one in admin.blame() if text in f"{row.id}: {_text(row)}"]
    if as_json:
        write_json([{"id": row.id, "row": _text(row), "revision": asdict(one)} for row, one in blamed])
    else:
        columns = ("id", "row", "entry", "by", "approved by", "message")
        rows = [
            (row.id, _text(row), one.seq, _chain(one.authors), ", ".join(one.approved_by), one.message)
            for row, one in blamed
        ]
        write_table(columns, rows)
