"""`pdp asset import`, `history`, `shadow`: many assets at once, what the log says of one, and what nobody registered."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from pdp.audit.query import Wanted
from pdp.cli.audit_filters import Place, moment, placed
from pdp.cli.audit_replay import verified_entries
from pdp.cli.options import AsJson, Connection, connected, instant_text
from pdp.cli.output import write_json, write_line, write_table
from pdp.errors import BadRequestError, ConfigError, PortcullisError, Reason
from pdp.limits import MAX_BATCH, MAX_PACK_FILE_BYTES
from pdp.model.names import Resource, counted
from pdp.service.trace import Registered, registrations
from pdp.yaml_text import read_yaml

_HISTORY: Final = ("entry", "time", "by", "comes from", "attributes")
_SHADOW: Final = ("resource", "subject", "action", "times", "last asked")


def register(app: typer.Typer) -> None:
    """Add the commands to `pdp asset`."""
    app.command("import")(import_assets)
    app.command()(history)
    app.command()(shadow)


@connected
def import_assets(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="YAML as `assets.yaml` of a pack: name, then attributes.")
    ],
    *,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Register every asset in a file, or change its attributes; what is registered exactly so already stays as it is.

    Lineage comes along as the attribute `derived_from`, a list of names: what a model version was trained on, which version an
    endpoint serves.

    Example: `pdp asset import policies/assets.yaml`
    """
    assets = _read(file)
    world_seq = 0
    with connection.admin() as admin:
        rest = iter(assets.items())
        while some := dict(islice(rest, MAX_BATCH)):
            world_seq = admin.register_all(some)
    if as_json:
        write_json({"assets": len(assets), "world_seq": world_seq})
    else:
        write_line(f"{counted(len(assets), 'asset is', 'assets are')} registered in world {world_seq}")


@placed
def history(
    name: Annotated[str, typer.Argument(metavar="NAME", help="`<type>/<path>[@<version>]`.")],
    *,
    as_json: AsJson = False,
    place: Place,
) -> None:
    """Show each entry of the log that registered an asset, changed or retired it: when, by whom, with which attributes.

    Needs no server: it reads the PDP's own log, or a copy of it, and verifies each entry. Exit code 7 if it never was registered.

    Example: `pdp asset history model/fraud@7 --state-dir state`
    """
    wanted = str(Resource.parse(name))
    found = [one for one in asyncio.run(_registrations(place)) if one.name == wanted]
    if not found:
        raise PortcullisError(Reason.NOT_FOUND, f"`{wanted}` never was registered", advice="`pdp asset list`")
    if as_json:
        write_json([asdict(one) for one in found])
        return
    rows = [(one.seq, instant_text(one.time_ms), one.author, ", ".join(one.derived_from), _said(one)) for one in found]
    write_table(_HISTORY, rows)


@placed
def shadow(
    *,
    since: Annotated[str, typer.Option(metavar="WHEN", help="The window: `30d`, or an instant.")] = "30d",
    as_json: AsJson = False,
    place: Place,
) -> None:
    """List what was asked for and is in no inventory: by whom, how often, the most frequent first. Each was refused.

    The shadow list: data, models and endpoints that are used around the house without anybody answering for them. Needs no
    server: it reads the decision log through its index.

    Example: `pdp asset shadow --since 30d --state-dir state`
    """
    wanted = Wanted(reason=Reason.ASSET_UNREGISTERED.value, since_ms=moment(since))
    with place.index() as index:
        found = index.count(wanted, ["resource", "subject", "action"])
    if as_json:
        keys = ("resource", "subject", "action", "times", "last_ms")
        write_json([dict(zip(keys, (*names, times, last_ms), strict=True)) for names, times, last_ms in found])
        return
    write_table(_SHADOW, [(*names, times, instant_text(last_ms)) for names, times, last_ms in found])
    resources = {names[0] for names, _, _ in found}
    asked = sum(times for _, times, _ in found)
    told = counted(len(resources), "unregistered resource was", "unregistered resources were")
    write_line(f"{told} asked for {counted(asked, 'time')}")


def _read(file: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return the assets in a file by name.

    Raises:
        ConfigError, BadRequestError: it cannot be read, or is no such file.
    """
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_PACK_FILE_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {file}", advice="give a YAML file in UTF-8") from error
    value = read_yaml(text, file=str(file)).value
    if not isinstance(value, dict) or not all(isinstance(one, dict) for one in value.values()):
        raise BadRequestError(f"{file}: each asset is a name with a mapping of attributes")
    return value


async def _registrations(place: Place) -> Sequence[Registered]:
    return [one for entry in await verified_entries(place.settings()) for one in registrations(entry)]


def _said(one: Registered) -> str:
    if one.retired:
        return f"retired: {one.retired}"
    return "; ".join(f"{name}={value}" for name, value in sorted(one.attributes.items()) if name != "derived_from")
