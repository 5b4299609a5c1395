"""`pdp audit`: verify the decision log where it lies, and read it from a PDP."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from pdp.audit.chain import Report, Verdict
from pdp.cli import audit_prove, audit_prune, audit_query, audit_replay, audit_trace
from pdp.cli.audit_files import Witness, verify_all, worst
from pdp.cli.audit_lines import record_line
from pdp.cli.options import AsJson, Connection, connected, noun
from pdp.cli.output import write_json, write_json_line, write_line, write_table

app = noun("Verify the decision log, read it, and find out what happened.")
audit_replay.register(app)
app.command()(audit_query.query)
app.command()(audit_query.export)
app.command("trace")(audit_trace.trace_name)
app.command()(audit_prove.checkpoint)
app.command()(audit_prove.prove)
app.command("check-proof")(audit_prove.check_proof)
app.command("prune")(audit_prune.prune_command)

_TELLING: Final = {
    Verdict.OK: "ok",
    Verdict.BROKEN: "broken",
    Verdict.UNREADABLE: "unreadable",
    Verdict.SHORT: "short",
    Verdict.PRUNED: "pruned",
}


@app.command()
def verify(
    path: Annotated[
        Path,
        typer.Argument(metavar="[DIR]", help="Directory with chains, also in folders below; or one file of a chain."),
    ] = audit_prove.DEFAULT_DIRECTORY,
    *,
    checkpoint: Annotated[
        list[str],
        typer.Option(
            metavar="FILE|[CHAIN=]N:DIGEST",
            help="What the chain must agree with and reach: signed checkpoints, or a record. May be repeated.",
        ),
    ] = [],  # noqa: B006 - typer copies it
    key: audit_prove.Keys = [],  # noqa: B006 - as above
    as_json: AsJson = False,
) -> None:
    """Verify every chain of the decision log: each record's digest, number and predecessor, each checkpoint. Needs no server.

    Exit code 0 only if all was read and holds; 1 a chain is broken or forked, 2 unreadable, malformed or empty, 3 it ends before
    a checkpoint that you brought, 4 what is there holds, and a signed tombstone says what was removed by policy.

    A writer signs checkpoints into its chain. Who that is, the chain says itself unless `--key` names whose signature counts;
    what was cut off behind the last checkpoint shows only against one that was kept elsewhere (`pdp audit checkpoint`).

    Example: `pdp audit verify state/audit --key audit.pub --checkpoint checkpoints-yesterday`
    """
    reports = verify_all(path, Witness.of(checkpoint, key))
    if as_json:
        write_json({"ok": worst(reports) is Verdict.OK, "chains": [_report_json(*item) for item in reports.items()]})
    else:
        _tell(reports)
    raise typer.Exit(int(worst(reports)))


@app.command()
@connected
def tail(
    *,
    last: Annotated[int, typer.Option("--last", "-n", min=1, metavar="N", help="How many of the newest records.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new records until Ctrl-C.")] = False,
    chain: Annotated[str, typer.Option(metavar="CHAIN", help="One chain only.")] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print records as they are, one JSON object per line.")
    ] = False,
    connection: Connection,
) -> None:
    """Print the newest records of the decision log that a PDP holds, its enforcement points' included.

    Example: `pdp audit tail -f --json | jq 'select(.effect == "deny")'`
    """
    with connection.admin() as admin:
        for told in admin.audit_records(chain=chain, last=last, follow=follow):
            record = _decoded(told.record)
            if as_json:
                write_json_line(record)
            else:
                write_line(record_line(record))


def _report_json(name: str, report: Report) -> dict[str, Any]:
    return {
        "chain": name,
        "verdict": _TELLING[report.verdict],
        "records": report.records,
        "head": {"n": report.head.n, "digest": report.head.digest},
        "where": report.where,
        "detail": report.detail,
        "signed": report.signed,
        "key": report.key,
        "removed": list(report.gaps),
    }


def _tell(reports: Mapping[str, Report]) -> None:
    rows = [(name, _TELLING[report.verdict], report.records, str(report)) for name, report in reports.items()]
    write_table(("chain", "verdict", "records", "detail"), rows)


def _decoded(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return {"kind": "unreadable", "bytes": len(content)}
