"""`pdp policy shadow|canary`: a proposal tried on live traffic, for nobody, or for some."""

from dataclasses import asdict
from typing import Annotated, Final

import typer

from pdp.cli.changes import ProposalId
from pdp.cli.options import AsJson, Connection, connected, instant_text, noun, parse_duration_ms
from pdp.cli.output import write_fields, write_json, write_line, write_table
from pdp.errors import PortcullisError, Reason
from pdp.sdk.admin import AdminClient, Canary, Mode, Tally, Trial

shadow = noun(
    "Let a proposal decide beside the live policy, for nobody, and count what differs.\n\n"
    "Example: `pdp policy shadow start p17 --for 1h`"
)
canary = noun(
    "Let a proposal answer for some, with a condition that rolls it back by itself.\n\n"
    "Example: `pdp policy canary start p17 --share 5 --for 2h`"
)

_MAX_LOSES: Final = 10
_DIFFERENCES: Final = ("change", "decisions", "subject", "action", "resource", "by", "instead of", "first")
_For = Annotated[str, typer.Option("--for", metavar="DURATION", help="How long, such as `1h`: it ends by itself.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `pdp policy`."""
    app.add_typer(shadow, name="shadow")
    app.add_typer(canary, name="canary")


# --- shadow --------------------------------------------------------------------------------------------------------------


@shadow.command("start")
@connected
def start_shadow(proposal_id: ProposalId, *, lasts: _For, as_json: AsJson = False, connection: Connection) -> None:
    """Let a proposal decide beside the live policy from now on. No answer depends on it, and none waits for it.

    Decisions are compared as the decision log of the PDP holds them: its own, and those of the enforcement points that ship
    theirs to it. Whoever may propose may. Exit code 2 if it is tried already, 7 if no such proposal is open.

    Example: `pdp policy shadow start p17 --for 1h`
    """
    with connection.admin() as admin:
        seq = admin.start_trial(proposal_id, duration_s=parse_duration_ms(lasts) // 1000)
    _tell_begun(proposal_id, Mode.SHADOW, seq, as_json=as_json)


@shadow.command("stop")
@connected
def stop_shadow(proposal_id: ProposalId, *, connection: Connection) -> None:
    """End a shadow before its time: as whoever began it, or may reject proposals. `pdp policy log` keeps what it has counted.

    Example: `pdp policy shadow stop p17`
    """
    _stop(connection, proposal_id, Mode.SHADOW)


@shadow.command("show")
@connected
def show_shadow(proposal_id: ProposalId, *, as_json: AsJson = False, connection: Connection) -> None:
    """Show what would have been answered otherwise so far, by rule, subject and resource. Needs `audit.read`.

    Exit code 7 if it does not run as a shadow.

    Example: `pdp policy shadow show p17`
    """
    _show(connection, proposal_id, Mode.SHADOW, as_json=as_json)


# --- canary --------------------------------------------------------------------------------------------------------------


@canary.command("start")
@connected
def start_canary(
    proposal_id: ProposalId,
    *,
    lasts: _For,
    share: Annotated[
        int, typer.Option("--share", metavar="PERCENT", min=0, max=100, help="Answer for so many of all subjects.")
    ] = 0,
    point: Annotated[
        list[str] | None,
        typer.Option("--at", metavar="POINT", help="Answer at the enforcement points of this name; may be repeated."),
    ] = None,
    max_loses: Annotated[
        int,
        typer.Option(
            "--max-loses",
            metavar="PERCENT",
            min=0,
            max=100,
            help="Roll it back once more of its answers deny what the live policy allows.",
        ),
    ] = _MAX_LOSES,
    no_gains: Annotated[
        bool,
        typer.Option("--no-gains", help="Roll it back at the first answer that allows what the live policy denies."),
    ] = False,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Let a proposal answer for a share of subjects, or at named enforcement points. It needs what making it live needs.

    Never about administration. It ends at its time, is rolled back by itself (also at the first error of its own conditions,
    or if it cannot be watched), and ends when anything else becomes live.

    Exit code 8 if approvals are missing, 3 if you may not, 6 if it no longer fits, 2 if another canary runs.

    Example: `pdp policy canary start p17 --share 5 --for 2h --max-loses 2`
    """
    asked = Canary(share=share, points=tuple(point or ()), max_loses=max_loses, no_gains=no_gains)
    with connection.admin() as admin:
        seq = admin.start_trial(proposal_id, duration_s=parse_duration_ms(lasts) // 1000, canary=asked)
    _tell_begun(proposal_id, Mode.CANARY, seq, as_json=as_json)


@canary.command("stop")
@connected
def stop_canary(proposal_id: ProposalId, *, connection: Connection) -> None:
    """End a canary before its time: the live policy answers for all again. The proposal waits as before.

    Example: `pdp policy canary stop p17`
    """
    _stop(connection, proposal_id, Mode.CANARY)


@canary.command("show")
@connected
def show_canary(proposal_id: ProposalId, *, as_json: AsJson = False, connection: Connection) -> None:
    """Show how its answers differ from those of the live policy, by rule, subject and resource. Needs `audit.read`.

    Exit code 7 if it does not run as a canary.

    Example: `pdp policy canary show p17`
    """
    _show(connection, proposal_id, Mode.CANARY, as_json=as_json)


@canary.command("promote")
@connected
def promote(proposal_id: ProposalId, *, as_json: AsJson = False, connection: Connection) -> None:
    """Make the proposal of a canary live for all, under the same rules as `pdp policy activate`; the canary ends with that.

    Exit code 7 if it does not run as a canary.

    Example: `pdp policy canary promote p17`
    """
    with connection.admin() as admin:
        _running(admin, proposal_id, Mode.CANARY)
        activation = admin.activate(proposal_id)
    if as_json:
        write_json(asdict(activation))
    else:
        write_line(f"live in world {activation.world_seq}; revision {activation.revision}")


# --- both ----------------------------------------------------------------------------------------------------------------


def in_words(trial: Trial) -> tuple[str, ...]:
    """Return a trial as a row of `pdp policy status`."""
    scope = f"{trial.share} % of subjects" if trial.share else ", ".join(trial.points) or "nobody"
    return trial.proposal_id, trial.mode.value, scope, trial.by[0], instant_text(trial.end_ms), counted(trial.tally)


COLUMNS: Final = ("tried", "as", "answers for", "by", "ends", "so far")


def counted(tally: Tally | None) -> str:
    """Return what has been counted, in a few words."""
    if tally is None:
        return "not looked at yet"
    errors = "error" if tally.errors == 1 else "errors"
    parts = {"gains": tally.gains, "loses": tally.loses, "obliged otherwise": tally.obliged, errors: tally.errors}
    found = ", ".join(f"{count} {name}" for name, count in parts.items() if count) or "no difference"
    skipped = f", {tally.skipped} skipped" if tally.skipped else ""
    stuck = f"; {tally.trouble}" if tally.trouble else ""
    return f"{tally.compared} compared: {found}{skipped}{stuck}"


def _tell_begun(proposal_id: str, mode: Mode, seq: int, *, as_json: bool) -> None:
    if as_json:
        write_json({"proposal_id": proposal_id, "mode": mode.value, "world_seq": seq})
    else:
        write_line(f"{proposal_id} runs as a {mode} since world {seq}; `pdp policy {mode} show {proposal_id}`")


def _stop(connection: Connection, proposal_id: str, mode: Mode) -> None:
    with connection.admin() as admin:
        seq = admin.end_trial(proposal_id, mode)
    write_line(f"{proposal_id} runs as a {mode} no longer, since world {seq}")


def _running(admin: AdminClient, proposal_id: str, mode: Mode, *, differences: bool = False) -> Trial:
    found = admin.trials(differences=differences)
    trial = next((one for one in found if (one.proposal_id, one.mode) == (proposal_id, mode)), None)
    if trial is None:
        message = f"`{proposal_id}` does not run as a {mode}"
        raise PortcullisError(Reason.NOT_FOUND, message, advice="`pdp policy status` lists what does")
    return trial


def _show(connection: Connection, proposal_id: str, mode: Mode, *, as_json: bool) -> None:
    with connection.admin() as admin:
        trial = _running(admin, proposal_id, mode, differences=True)
    from pdp.cli.flips import GROUPS, by, grouped, tell_groups  # noqa: PLC0415 - it brings the whole of deciding

    differences = sorted(trial.tally.differences if trial.tally else (), key=lambda one: -one.count)
    counts = [(one, one.count) for one in differences]
    if as_json:
        write_json(asdict(trial) | {f"by_{name}": dict(grouped(counts, name).most_common()) for name in GROUPS})
        return
    facts = dict(zip(COLUMNS[2:], in_words(trial)[2:], strict=True))
    if trial.tally is not None:
        facts["log read to"] = instant_text(trial.tally.newest_ms)
    write_fields(f"{proposal_id} as a {mode}", facts)
    if differences:
        write_line()
        rows = [
            (one.change, count, one.subject, one.action, one.resource, by(one.after), by(one.before), one.decision_id)
            for one, count in counts
        ]
        write_table(_DIFFERENCES, rows)
        tell_groups(counts)
    if trial.tally is not None and trial.tally.others:
        write_line(f"{trial.tally.others} more differ in other ways")
