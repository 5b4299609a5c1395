"""`pdp asset`: the inventory. What is not registered is not accessible."""

import time
from dataclasses import asdict
from typing import Annotated

import typer

from pdp.cli import asset_facts
from pdp.cli.options import AsJson, Connection, connected, noun, parse_pairs
from pdp.cli.output import write_json, write_line, write_table
from pdp.errors import BadRequestError
from pdp.inventory import REVIEW_DATE
from pdp.model.attributes import Attributes, has_come
from pdp.model.names import ENVIRONMENTS, counted

app = noun("Register assets, list them, see where they come from and who asked for what is none.")
asset_facts.register(app)

_COLUMNS = ("environment", "segment", "sensitivity")


@app.command()
@connected
def register(
    name: Annotated[str, typer.Argument(metavar="NAME", help="`<type>/<path>[@<version>]`, such as `model/fraud@7`.")],
    *,
    environment: Annotated[str, typer.Option(metavar="ENV", help="dev, test, staging or prod.")],
    segment: Annotated[str, typer.Option(metavar="SEGMENT", help="Where it lives, such as `segment:serving`.")] = "",
    sensitivity: Annotated[
        str, typer.Option(metavar="LEVEL", help="low, normal or high: how stale a world may be.")
    ] = "",
    attributes: Annotated[
        list[str], typer.Option("--set", metavar="NAME=VALUE", help="Another attribute; may be repeated.")
    ] = [],  # noqa: B006 - typer copies it
    revive: Annotated[bool, typer.Option("--revive", help="Bring it back into use if it was retired.")] = False,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Register an asset, or change its attributes. Exit code 6 if it was retired.

    Example: `pdp asset register model/fraud@7 --environment prod --segment segment:serving --set signature_verified=true`
    """
    if environment not in ENVIRONMENTS:
        raise BadRequestError(f"`{environment}` is not an environment: {', '.join(ENVIRONMENTS)}")
    own = {"environment": environment, "segment": segment, "sensitivity": sensitivity}
    values = parse_pairs(attributes)
    if not own.keys().isdisjoint(values):
        raise BadRequestError("environment, segment and sensitivity have options of their own")
    with connection.admin() as admin:
        given = {key: value for key, value in own.items() if value} | values
        world_seq = admin.register(name, given, revive=revive)
    if as_json:
        write_json({"name": name, "world_seq": world_seq})
    else:
        write_line(f"{name} is registered in world {world_seq}")


@app.command()
@connected
def retire(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="`<type>/<path>[@<version>]`; all or none.")],
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; whoever may know the asset is told.")],
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Take assets out of use: every access is refused with `asset_retired`, and what runs on them is cut.

    The log keeps them: `pdp asset history` and `pdp audit trace` go on telling where they came from. Nothing brings one back but
    `pdp asset register … --revive`. Exit code 7 if one is not registered.

    Example: `pdp asset retire model/fraud@6 --reason "superseded by model/fraud@7"`
    """
    with connection.admin() as admin:
        world_seq = admin.retire(names, reason=reason)
    if as_json:
        write_json({"names": names, "world_seq": world_seq})
    else:
        write_line(f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} retired in world {world_seq}")


@app.command()
@connected
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="`<type>/<path>[@<version>]`.")],
    *,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Show one asset with all its attributes. Exit code 7 if it is not registered, or was retired.

    Example: `pdp asset show model/fraud@7`
    """
    with connection.admin() as admin:
        asset = admin.asset(name)
    if as_json:
        write_json(asdict(asset))
        return
    write_line(asset.name)
    write_table(("attribute", "value"), [(key, _text(value)) for key, value in sorted(asset.attributes.items())])


@app.command("list")
@connected
def list_(
    pattern: Annotated[str, typer.Argument(metavar="[PATTERN]", help="Such as `model/**`; without it, all.")] = "",
    *,
    due: Annotated[bool, typer.Option("--due", help="Only those whose review is due.")] = False,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """List the registered assets, and say which are due for review: their `review_date` has come.

    Example: `pdp asset list 'endpoint/**'`, or `pdp asset list --due`
    """
    with connection.admin() as admin:
        listed = admin.assets(pattern).assets
    now_ms = time.time_ns() // 1_000_000
    dated = [(asset, asset.attributes[REVIEW_DATE]) for asset in listed if REVIEW_DATE in asset.attributes]
    overdue = [asset for asset, date in dated if has_come(date, now_ms)]
    shown = overdue if due else listed
    if as_json:
        write_json([asdict(asset) for asset in shown])
        return
    rows = [
        (asset.name, *(asset.attributes.get(column, "") for column in _COLUMNS), _others(asset.attributes))
        for asset in shown
    ]
    write_table(("name", *_COLUMNS, "further attributes"), rows)
    if overdue:
        write_line(f"{counted(len(overdue), 'asset is', 'assets are')} due for review: `pdp asset list --due`")


def _others(attributes: Attributes) -> str:
    return "; ".join(f"{name}={_text(value)}" for name, value in attributes.items() if name not in _COLUMNS)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else str(value)
