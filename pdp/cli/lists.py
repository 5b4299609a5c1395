"""`pdp who-can`, `pdp what-can`, `pdp actions`: lists that agree with every decision."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from pdp.cli.options import AsJson, Connection, connected, noun, parse_pairs
from pdp.cli.output import write_json, write_line, write_table
from pdp.errors import BadRequestError
from pdp.model.listed import Access, Listed
from pdp.sdk import Asserted, Listing
from pdp.sdk.values import Terms

app = noun("Ask for lists.")

Action = Annotated[str, typer.Argument(metavar="ACTION", help="`<type>.<verb>`, such as `dataset.read`.")]
Resource = Annotated[
    str, typer.Argument(metavar="RESOURCE", help="`<type>/<path>[@<version>]`, such as `model/fraud@7`.")
]
OptionalPrincipal = Annotated[
    str, typer.Argument(metavar="[PRINCIPAL]", help="Such as `user:bob@example.com`; `me`, or none: we ourselves.")
]
Group = Annotated[
    list[str], typer.Option("--group", metavar="GROUP", help="A `group:` that the principal holds; may be repeated.")
]
Workload = Annotated[
    str, typer.Option("--workload", metavar="WORKLOAD", help="Only from this workload; `none`: from no workload.")
]
Given = Annotated[
    list[str],
    typer.Option("--env-attr", metavar="NAME=VALUE", help="A `request.` attribute that is given; may be repeated."),
]

_MARKS = {Access.ALLOW: "allow", Access.CONDITIONAL: "if", Access.DENY: "deny"}
_NONE: list[str] = []


@app.command("who-can")
@connected
def who_can(
    action: Action,
    resource: Resource,
    *,
    workload: Workload = "",
    env_attr: Given = _NONE,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """List everyone who can do an action to a resource; exit code 0, also if nobody can.

    A group stands for whoever holds it and nothing else, a pattern such as `keyMatch(user:ml-*)` for whomever it matches and
    nothing narrower here does, `*` for everyone else. `if` says that it depends on what the question brings. Needs the right
    `policy.read`.

    Example: `pdp who-can model.promote model/fraud@7`
    """
    with connection.client() as client:
        listing = client.who_can(action, resource, **_terms(workload, env_attr))
    _tell(listing, ("subject",), f"can {action} {resource}", as_json=as_json)


@app.command("what-can")
@connected
def what_can(
    principal: OptionalPrincipal = "",
    *,
    group: Group = _NONE,
    workload: Workload = "",
    env_attr: Given = _NONE,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """List everything that a principal can do, to every registered asset.

    Somebody else's list needs the right `decision.assert`.

    Example: `pdp what-can user:bob@example.com --group group:fraud-team`
    """
    with connection.client() as client:
        listing = client.what_can(_subject("" if principal == "me" else principal, group), **_terms(workload, env_attr))
    _tell(listing, ("resource", "action"), f"{principal or 'we'} can", as_json=as_json)


@app.command("actions")
@connected
def actions(
    principal: Annotated[str, typer.Argument(metavar="PRINCIPAL", help="Such as `user:bob@example.com`, or `me`.")],
    resource: Resource,
    *,
    group: Group = _NONE,
    workload: Workload = "",
    env_attr: Given = _NONE,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """List what a principal can do to one resource; somebody else's list needs the right `decision.assert`.

    Example: `pdp actions me endpoint/fraud-prod`
    """
    named = "" if principal == "me" else principal
    with connection.client() as client:
        listing = client.actions(resource, _subject(named, group), **_terms(workload, env_attr))
    _tell(listing, ("action",), f"{principal} can, to {resource}", as_json=as_json)


def _subject(principal: str, groups: list[str]) -> Asserted | None:
    if principal:
        return Asserted(principal=principal, groups=groups)
    if groups:
        raise BadRequestError("`--group` goes with a PRINCIPAL; our own groups stand in our token")
    return None


def _terms(workload: str, given: list[str]) -> Terms:
    attributes = {
        name if name.startswith("request.") else f"request.{name}": value for name, value in parse_pairs(given).items()
    }
    return Terms(workload=workload, attributes=attributes)


def _tell(listing: Listing, columns: Sequence[str], title: str, *, as_json: bool) -> None:
    if as_json:
        entries = [entry_json(entry) for entry in listing.entries]
        write_json({"world_seq": listing.world_seq, "entries": entries})
        return
    rows = [
        (*(getattr(entry, column) for column in columns), _MARKS[entry.access], _on(entry), _by(entry))
        for entry in listing.entries
    ]
    if rows:
        write_table((*columns, "access", "if", "by"), rows)
    allowed = sum(entry.access is Access.ALLOW for entry in listing.entries)
    write_line(f"{title}: {allowed} allowed, {len(rows) - allowed} conditional, in world {listing.world_seq}")


def _on(entry: Listed) -> str:
    """Return what an entry depends on."""
    sources = f"from {', '.join(entry.sources)}" if entry.sources else ""
    return "; ".join((*entry.depends_on, *((sources,) if sources else ())))


def _by(entry: Listed) -> str:
    """Return why: the role path, or else the rows."""
    path = " -> ".join(entry.role_path)
    return f"{', '.join(entry.rules)}" + (f" ({path})" if path else "")


def entry_json(entry: Listed) -> dict[str, Any]:
    """Return an entry as `--json` prints it."""
    return {
        "subject": entry.subject,
        "action": entry.action,
        "resource": entry.resource,
        "access": entry.access.value,
        "depends_on": entry.depends_on,
        "sources": entry.sources,
        "rules": entry.rules,
        "role_path": entry.role_path,
        "obligations": [{"name": duty.name, "value": duty.value} for duty in entry.obligations],
    }
