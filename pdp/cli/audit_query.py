"""`pdp audit query`: find decisions in the log, by who, what, when and why."""

import time
from pathlib import Path
from typing import Annotated, Final

import typer

from pdp.adapters.audit_index import AuditIndex, Hit
from pdp.audit.query import Wanted
from pdp.cli.audit_lines import record_line
from pdp.cli.options import AsJson, parse_duration_ms
from pdp.cli.output import write_json_line, write_line
from pdp.cli.serve import ConfigFile, StateDir, configuration
from pdp.errors import BadRequestError
from pdp.limits import AUDIT_QUERY_LIMIT
from pdp.model.attributes import instant_ms

_CHANGED: Final = 1
_EFFECTS: Final = ("", "allow", "deny")

Where = Annotated[
    Path | None,
    typer.Argument(metavar="[DIR]", help="Chains, also in folders below; without it, those of the state directory."),
]


Subject = Annotated[str, typer.Option(metavar="PATTERN", help="Who, such as `user:bob@example.com` or `agent:*`.")]
Actor = Annotated[str, typer.Option(metavar="PATTERN", help="Who acted for them; one of several.")]
Workload = Annotated[str, typer.Option(metavar="PATTERN", help="From which workload.")]
ActionOf = Annotated[str, typer.Option("--action", metavar="PATTERN", help="Such as `dataset.read` or `model.*`.")]
ResourceOf = Annotated[
    str, typer.Option("--resource", metavar="PATTERN", help="Such as `dataset/pii/*`; without `@`, every version.")
]
Version = Annotated[str, typer.Option(metavar="PATTERN", help="The version alone.")]
Rule = Annotated[
    str, typer.Option(metavar="PATTERN", help="A rule that determined it: `grants.csv:6`, `grants.csv:*`.")
]
ReasonOf = Annotated[str, typer.Option("--reason", metavar="PATTERN", help="Such as `no_grant`; docs/reason-codes.md.")]
EffectOf = Annotated[str, typer.Option("--effect", metavar="allow|deny", help="Only these.")]
WorldOf = Annotated[int, typer.Option("--world", metavar="N", min=0, help="Decided in this world; 0: in any.")]
Since = Annotated[str, typer.Option(metavar="WHEN", help="`7d`, or an instant such as `2026-11-20T08:00:00Z`.")]
Until = Annotated[str, typer.Option(metavar="WHEN", help="As --since: not after this.")]
Rebuild = Annotated[bool, typer.Option("--rebuild", help="Make the index anew first: for whoever doubts it.")]


def query(
    directory: Where = None,
    *,
    subject: Subject = "",
    actor: Actor = "",
    workload: Workload = "",
    action: ActionOf = "",
    resource: ResourceOf = "",
    version: Version = "",
    rule: Rule = "",
    reason: ReasonOf = "",
    effect: EffectOf = "",
    world: WorldOf = 0,
    since: Since = "",
    until: Until = "",
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, metavar="N", help="The newest so many; 0: all.")
    ] = AUDIT_QUERY_LIMIT,
    rebuild: Rebuild = False,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Find decisions in the log where it lies, oldest first. Needs no server; `--json` prints records as they are, one a line.

    In a pattern `*` stands for any text, slashes included; all that is given must fit. An index (`index.db`, beside the chains)
    finds them; each is then read back from its chain and checked by its own digest, so the index is never what is believed.
    That nothing was taken out of the chains, `pdp audit verify` tells.

    Exit code 0, also if nothing was found; 1 if a record that was found is no longer what it was.

    Example: `pdp audit query --subject user:bob@example.com --resource 'dataset/pii/*' --since 7d`
    """
    wanted = Wanted(
        subject=subject, actor=actor, workload=workload, action=action, resource=resource, version=version, rule=rule,
        reason=reason, effect=_effect(effect), world_seq=world, since_ms=moment(since), until_ms=moment(until),
    )  # fmt: skip
    place = directory or configuration(config, {("state_dir",): state_dir}).audit_dir
    with AuditIndex.open(place, rebuild=rebuild) as index:
        hits = index.find(wanted, limit=limit)
    for hit in hits:
        _tell(hit, as_json=as_json)
    if not as_json:
        write_line(f"{len(hits)} decisions{' (the newest; --limit for more)' if limit and len(hits) == limit else ''}")
    raise typer.Exit(_CHANGED if any(hit.record is None for hit in hits) else 0)


def moment(text: str) -> int:
    """Return the instant that `7d` (before now) or an RFC 3339 text names, in milliseconds; 0 for nothing.

    Raises:
        BadRequestError: it is neither.
    """
    if not text:
        return 0
    if text[-1:] in "smhd" and text[:-1].isdigit():
        return time.time_ns() // 1_000_000 - parse_duration_ms(text)
    return instant_ms(text)


def _effect(text: str) -> str:
    if text not in _EFFECTS:
        raise BadRequestError("`--effect` is `allow` or `deny`")
    return text


def _tell(hit: Hit, *, as_json: bool) -> None:
    if hit.record is None:
        changed = f"record {hit.n} of chain {hit.chain} is no longer what was indexed: `pdp audit verify`"
        if as_json:
            write_json_line({"kind": "changed", "chain": hit.chain, "n": hit.n})
        else:
            write_line(changed)
    elif as_json:
        write_json_line(hit.record)
    else:
        write_line(record_line(hit.record))
