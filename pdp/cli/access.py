"""`pdp access`: a role for a time, asked for by whoever needs it and approved by somebody else."""

from dataclasses import asdict
from typing import Annotated

import typer

from pdp.cli import access_review, sign_off
from pdp.cli.edits import Environment
from pdp.cli.options import AsJson, Connection, connected, instant_text, noun, parse_duration_ms
from pdp.cli.output import write_json, write_line, write_table
from pdp.model.names import counted

app = noun("A role for a time: ask for it, approve it, see who has what; review who uses what they hold.")
app.command("review")(access_review.review_access)
app.command("sign-off")(sign_off.sign_off)
app.command("sign-offs")(sign_off.sign_offs)

_Request = Annotated[str, typer.Argument(metavar="REQUEST", help="As `pdp access list` shows it, such as `p17`.")]
_Why = Annotated[str, typer.Option("--message", "-m", metavar="TEXT", help="Why, for the log and for who asked.")]
_WAITING = ("request", "who", "role", "environment", "for", "approved by", "reason")
_LIVE = ("who", "role", "environment", "until")


@app.command()
@connected
def request(
    role: Annotated[str, typer.Argument(metavar="ROLE", help="Such as `role:release-manager`.")],
    *,
    env: Environment,
    duration: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="`30m`, `2h`; it counts from the approval.")
    ],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; who approves it reads this.")],
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Ask for a role for yourself. Somebody else says yes; then it holds for the time, and ends by itself.

    Exit code 3 if the policy does not let you ask for this one.

    Example: `pdp access request role:release-manager --env prod --for 2h --reason "hotfix CHG-1042"`
    """
    duration_s = parse_duration_ms(duration) // 1000
    with connection.admin() as admin:
        proposal_id, needed = admin.request_access(role, environment=env, duration_s=duration_s, reason=reason)
    if as_json:
        write_json({"request": proposal_id, "approvals_needed": needed})
    else:
        write_line(f"request {proposal_id} waits for {counted(needed, 'approval')}")
        write_line(f"others say yes with `pdp access approve {proposal_id}`")


@app.command()
@connected
def approve(request_id: _Request, *, message: _Why = "", connection: Connection) -> None:
    """Say yes to a request; the last yes that is wanted makes it live. Nobody approves their own.

    Exit code 3 if you may not, 7 if no such request waits.

    Example: `pdp access approve p17 -m "seen the ticket"`
    """
    with connection.admin() as admin:
        approval = admin.approve(request_id, digest=admin.proposal(request_id).digest, message=message)
    by = ", ".join(approval.approved_by)
    write_line(f"{request_id} is approved by {by}; {'it is live' if approval.live else 'it waits for more'}")


@app.command()
@connected
def deny(request_id: _Request, *, message: _Why = "", connection: Connection) -> None:
    """Say no to a request, or withdraw your own.

    Example: `pdp access deny p17 -m "ask the release team instead"`
    """
    with connection.admin() as admin:
        admin.reject(request_id, message=message)
    write_line(f"{request_id} is denied")


@app.command("list")
@connected
def list_access(
    *,
    everybody: Annotated[bool, typer.Option("--all", help="Everybody's, not only yours; needs policy.read.")] = False,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """List what you asked for and what you hold for a time.

    Example: `pdp access list --all`
    """
    with connection.admin() as admin:
        told = admin.access(everybody=everybody)
    if as_json:
        write_json(asdict(told))
        return
    waiting = [
        (
            one.id,
            one.access.who,
            one.access.role,
            one.access.environment,
            f"{one.access.duration_s // 60} min",
            f"{len(one.approved_by)} of {one.access.approvals_needed}",
            one.message,
        )
        for one in told.requests
        if one.access is not None
    ]
    write_table(_WAITING, waiting)
    write_line()
    write_table(_LIVE, [(one.who, one.role, one.environment, instant_text(one.end_ms)) for one in told.live])
