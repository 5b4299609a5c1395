"""`pdp policy`: lint and test a pack without a server, apply it to a PDP, show the live one."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from pdp.adapters.pack_files import read_pack, write_starter
from pdp.cli import changes, policy_check, trials
from pdp.cli.casbin import FromCasbin, lint_from_casbin, register
from pdp.cli.options import AsJson, Connection, connected, noun
from pdp.cli.output import write_json, write_line
from pdp.engine.casbin_text import print_row
from pdp.engine.compiler import Snapshot
from pdp.engine.findings import Finding, PackRefused, errors, in_order
from pdp.engine.format import format_rows
from pdp.engine.pack import load_pack
from pdp.errors import MEANINGS, BadRequestError, Reason
from pdp.model.attributes import instant_ms
from pdp.model.names import counted

app = noun("Lint, test and apply a policy pack; show the live one.")
register(app)
changes.register(app)
trials.register(app)
app.command("check")(policy_check.check_pack)

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The pack: a directory with `model.conf` and rows.")]
DirectoryOrNone = Annotated[
    Path | None, typer.Argument(metavar="DIR", help="The pack: a directory with `model.conf` and rows.")
]

_REFUSED = MEANINGS[Reason.POLICY_REFUSED].exit_code


@app.command()
def new(directory: Annotated[Path, typer.Argument(metavar="DIR", help="A directory that is not there yet.")]) -> None:
    """Write the starter pack to a new directory, to edit it before a PDP begins with it. Needs no server.

    Example: `pdp policy new policies`
    """
    write_starter(directory)
    write_line(f"wrote the starter pack to {directory}; it is yours to edit")


@app.command()
def lint(
    directory: DirectoryOrNone = None,
    *,
    from_casbin: FromCasbin = None,
    used: Annotated[
        Path | None,
        typer.Option(
            "--used", metavar="FILE", help="Decisions, one JSON record a line: report grants wider than their use."
        ),
    ] = None,
    at: Annotated[str, typer.Option("--at", metavar="INSTANT", help="Look as of then, instead of now.")] = "",
    as_json: AsJson = False,
) -> None:
    """Check a pack whole and print every finding as `file:line:column: PCnnn name: message`. Needs no server.

    Exit code 0 if there is no error (warnings do not count), 2 if the pack would be refused. A warning that is meant is
    answered by a comment in its file, `# lint: PC603 because …`, and then only counted; docs/lint.md has each with its fix.

    Example: `pdp policy lint policies`, or `pdp policy lint --from-casbin model.conf policy.csv`
    """
    if (directory is None) is (from_casbin is None):
        raise BadRequestError("give either a pack or `--from-casbin MODEL POLICY`")
    if directory is None:
        raise typer.Exit(lint_from_casbin(*(from_casbin or ()), as_json=as_json))
    files = read_pack(directory)
    pack = load_pack(files)
    # Imported here: only this command needs it.
    from pdp.cli.lints import lint_pack  # noqa: PLC0415

    answered = 0
    findings = pack if isinstance(pack, tuple) else pack.warnings
    if not isinstance(pack, tuple):
        more, answered = lint_pack(pack, files, used=used, now_ms=_instant(at))
        findings = in_order((*findings, *more))
    refused = bool(errors(findings)) or isinstance(pack, tuple)
    if as_json:
        told = [_finding_json(found) for found in findings]
        write_json({"refused": refused, "findings": told, "justified": answered})
    else:
        _tell_findings(findings, refused=refused)
        if answered:
            write_line(f"{answered} justified in their files")
    raise typer.Exit(_REFUSED if refused else 0)


@app.command("test")
def run_pack_tests(
    directory: Directory,
    *,
    coverage: Annotated[bool, typer.Option("--coverage", help="Report the rules that decide in no test.")] = False,
    fail_under: Annotated[
        float, typer.Option("--fail-under", metavar="PERCENT", min=0, max=100, help="Least coverage that passes.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Run the pack's own tests against its own policy. Needs no server.

    Exit code 0 if all pass (and, with `--fail-under`, enough rules decide in one of them), else 2.

    Example: `pdp policy test policies --coverage --fail-under 80`
    """
    pack = load_pack(read_pack(directory))
    if isinstance(pack, tuple):
        raise PackRefused(pack)
    # Imported here: it brings the whole of deciding, which no other command of this noun needs.
    from pdp.service.policy_tests import run_tests, uncovered  # noqa: PLC0415

    results = run_tests(pack, pack.snapshot)
    failed = [result for result in results if not result.passed]
    missed = uncovered(pack.snapshot, results)
    rules = sum(len(context.rules) for context in pack.snapshot.contexts.values())
    percent = 100 * (rules - len(missed)) / rules
    if as_json and coverage:
        told = [{"rule": row.id, "row": print_row(row)} for row in missed]
        write_json({"tests": [asdict(result) for result in results], "coverage_percent": percent, "uncovered": told})
    elif as_json:
        write_json([asdict(result) for result in results])
    else:
        for result in failed:
            write_line(f"{result.file}:{result.line}: {result.name}")
            write_line(f"    wanted {result.expected}")
            write_line(f"    got    {result.actual}")
        write_line(f"{len(results) - len(failed)} of {counted(len(results), 'test')} passed")
        for row in missed if coverage else ():
            write_line(f"{row.id}: decides in no test: {print_row(row)}")
        if coverage or fail_under:
            write_line(f"{rules - len(missed)} of {rules} rules decide in a test: {percent:.1f} %")
    raise typer.Exit(_REFUSED if failed or percent < fail_under else 0)


@app.command("fmt")
def format_pack(
    directory: Directory,
    *,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit code 2 if something would be.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the rows of a pack in the one way there is; lines stay where they are, and mean what they meant.

    A pack with errors is left alone. Exit code 0.

    Example: `pdp policy fmt policies --check`
    """
    files = read_pack(directory)
    pack = load_pack(files)
    if isinstance(pack, tuple):
        raise PackRefused(pack)
    texts = {name: raw.decode() for name, raw in files.items() if name.endswith(".csv")}
    model = pack.snapshot.model
    written = {name: format_rows(text, file=name, model=model) for name, text in texts.items()}
    changed = [name for name, text in sorted(written.items()) if text != texts[name]]
    for name in () if check else changed:
        # Written beside it first: whoever reads meanwhile sees the old file or the new one, never half of it.
        beside = directory / f"{name}.fmt~"
        beside.write_text(written[name], encoding="utf-8", newline="\n")
        beside.replace(directory / name)
    if as_json:
        write_json({"changed": changed})
    else:
        for name in changed:
            write_line(f"{name}: {'would change' if check else 'formatted'}")
        write_line(f"{len(changed)} of {counted(len(texts), 'file')} {'would change' if check else 'changed'}")
    raise typer.Exit(_REFUSED if check and changed else 0)


@app.command("diff")
@connected
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A pack; without B, what the live policy would become.")],
    second: Annotated[Path | None, typer.Argument(metavar="[B]", help="The pack that A would become.")] = None,
    *,
    at: Annotated[str, typer.Option("--at", metavar="INSTANT", help="Compare as of then, instead of now.")] = "",
    replay: Annotated[
        str, typer.Option("--replay", metavar="DURATION", help="Decide the logged decisions of this long again: `7d`.")
    ] = "",
    state_dir: Annotated[
        Path | None,
        typer.Option(
            "--state-dir", metavar="DIR", help="With --replay: read a (copy of a) PDP's state directory, ask no PDP."
        ),
    ] = None,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Show who gains and who loses what: every cell that changes, enumerated, the worst first. Exit code 0.

    With two packs it needs no server; with one, it is compared with the live policy. A line may stand for many cells; a
    change that depends on the question shows an example.

    With `--replay`, what the pack would have done to real traffic instead: each decision that was logged is decided under
    the live policy and under the pack, at its own time, and those that flip are counted by rule, subject and resource.

    Example: `pdp policy diff policies-live policies`, or `pdp policy diff policies --replay 7d`
    """
    if replay:
        if second is not None:
            raise BadRequestError("`--replay` compares one pack with the live policy")
        from pdp.cli import flips  # noqa: PLC0415 - it brings the whole of deciding

        told = flips.flips_of(connection, first, window=replay, state_dir=state_dir)
        flips.tell(told, as_json=as_json)
        return
    from pdp.cli.diffs import become, cell_json, live_policy, tell  # noqa: PLC0415 - as below: only this command needs it
    from pdp.engine.diff import diff  # noqa: PLC0415

    if second is None:
        with connection.admin() as admin:
            live = live_policy(admin.policy())
        before, after = live.snapshot, become(live, first)
    else:
        before, after = _compiled(first), _compiled(second)
    cells = diff(before, after, _instant(at))
    if as_json:
        fields = {suffix: one.context.request for both in (before, after) for suffix, one in both.contexts.items()}
        write_json([cell_json(cell, fields[cell.context]) for cell in cells])
    else:
        tell(cells, (before, after))


def _instant(text: str) -> int:
    return instant_ms(text) if text else time.time_ns() // 1_000_000


def _compiled(directory: Path) -> Snapshot:
    pack = load_pack(read_pack(directory))
    if isinstance(pack, tuple):
        raise PackRefused(pack)
    return pack.snapshot


def _tell_findings(findings: Sequence[Finding], *, refused: bool) -> None:
    for found in findings:
        write_line(f"{found} ({found.severity})" if found.severity != "error" else str(found))
    wrong = len(errors(findings))
    doubtful = len(findings) - wrong
    write_line(f"{counted(wrong, 'error')}, {counted(doubtful, 'warning')}: {'refused' if refused else 'good'}")


def _finding_json(found: Finding) -> dict[str, Any]:
    return asdict(found) | {"severity": found.severity.value}
