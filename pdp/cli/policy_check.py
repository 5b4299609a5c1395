"""`pdp policy check DIR --against live`: everything that is known of a change before anybody is asked, for a checkout and CI."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from pdp.adapters.pack_files import read_pack
from pdp.cli.audit_replay import newest_world
from pdp.cli.diffs import live_policy
from pdp.cli.lints import lint_pack
from pdp.cli.options import AsJson, Connection, connected
from pdp.cli.output import write_json
from pdp.cli.policy_checked import Checked
from pdp.cli.settings import configuration
from pdp.engine.findings import Finding, errors, in_order
from pdp.engine.pack import Pack, load_pack
from pdp.errors import BadRequestError, ConfigError
from pdp.limits import MAX_PACK_RPC_BYTES
from pdp.model.names import Principal
from pdp.model.request import Party
from pdp.sdk.admin import Policy, PolicyRow
from pdp.server.stores import WORLD_FILE
from pdp.service.foresee import foresee
from pdp.service.packs import difference
from pdp.service.policy_tests import TestResult, run_tests
from pdp.world import World, empty_world, policy_after

LIVE: Final = "live"


@connected
def check_pack(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The pack: a directory with `model.conf` and rows.")],
    *,
    against: Annotated[
        str,
        typer.Option(
            "--against",
            metavar="WHAT",
            help="`live`: the PDP that is reached. Or a (copy of a) state directory, a pack's directory, or a file that "
            "`pdp policy show --json` wrote: these ask no PDP.",
        ),
    ] = LIVE,
    author: Annotated[
        str, typer.Option("--author", metavar="PRINCIPAL", help="Who would propose it; else anybody who may.")
    ] = "",
    group: Annotated[
        list[str] | None,
        typer.Option("--group", metavar="GROUP", help="A group of the author, as their issuer says; may be repeated."),
    ] = None,
    github: Annotated[
        bool, typer.Option("--github", help="Print annotations as GitHub Actions reads them: `::error file=…`.")
    ] = False,
    as_json: AsJson = False,
    connection: Connection,
) -> None:
    """Check a pack as far as it can be without asking anybody: findings, its own tests, what it changes, whose yes it needs.

    Nothing is sent and nothing changes; against `live` it needs no right but `policy.read`.

    Exit code 0 if it is good and nobody else has to say yes (or nothing would change), 2 if it would be refused (with every
    finding, and each test that fails), 3 if nobody, or not the author, may make such a change live, 8 if it is good and waits
    for approvals.

    Example: `pdp policy check policies --against live --github`
    """
    if group and not author:
        raise BadRequestError("`--group` is of the author: name them with `--author`")
    by = Party(principal=Principal.parse(author), groups=frozenset(group or ())) if author else None
    files = read_pack(directory)
    now_ms = time.time_ns() // 1_000_000
    pack, findings, tests = _looked_at(files, now_ms)
    good = pack is not None and not errors(findings) and all(test.passed for test in tests)
    foreseen = foresee(_world(against, connection), pack, files, now_ms, author=by) if good and pack else None
    told = Checked(directory=directory, findings=findings, tests=tests, foreseen=foreseen)
    if as_json:
        write_json(told.plain())
    else:
        told.tell(github=github)
    raise typer.Exit(told.exit_code)


def _looked_at(
    files: Mapping[str, bytes], now_ms: int
) -> tuple[Pack | None, tuple[Finding, ...], tuple[TestResult, ...]]:
    """Return the pack if it compiles, every finding, and what became of its tests."""
    pack = load_pack(files)
    if not isinstance(pack, Pack):
        return None, in_order(pack), ()
    more, _ = lint_pack(pack, files, used=None, now_ms=now_ms)
    return pack, in_order((*pack.warnings, *more)), run_tests(pack, pack.snapshot)


def _world(against: str, connection: Connection) -> World:
    """Return the world that a pack is held against.

    Raises:
        PortcullisError: it cannot be had.
    """
    path = Path(against)
    if against == LIVE:
        with connection.admin() as admin:
            return _of(admin.policy())
    if (path / WORLD_FILE).is_file():
        return asyncio.run(newest_world(configuration(None, {("state_dir",): path})))
    if path.is_dir():
        return _of_pack(read_pack(path))
    if path.is_file():
        return _of(_written(path))
    raise ConfigError(f"{against} does not exist", advice="`live`, a state directory, a pack, or a file")


def _of(policy: Policy) -> World:
    return replace(empty_world(""), policy=live_policy(policy))


def _of_pack(files: Mapping[str, bytes]) -> World:
    pack = load_pack(files)
    if not isinstance(pack, Pack):
        raise ConfigError(f"the pack to compare with is refused: {pack[0]}", advice="`pdp policy lint` has it all")
    return replace(empty_world(""), policy=policy_after(None, difference(None, pack, files.keys())))


def _written(path: Path) -> Policy:
    """Read what `pdp policy show --json` wrote."""
    with path.open("rb") as file:
        raw = file.read(MAX_PACK_RPC_BYTES + 1)
    try:
        held: dict[str, Any] = json.loads(raw)
        rows = tuple(
            PolicyRow(id=row["id"], section=row["section"], fields=tuple(row["fields"])) for row in held["rows"]
        )
        return Policy(
            revision=held["revision"],
            world_seq=held["world_seq"],
            model=held["model"],
            vocabulary=held["vocabulary"],
            rows=rows,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BadRequestError(f"{path} is not what `pdp policy show --json` writes") from error
