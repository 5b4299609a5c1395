"""`pdp audit replay`: every logged decision decided again, in the world that it names."""

import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from pdp.adapters.log_sqlite import SqliteWorldLog
from pdp.audit.replay import NO_QUESTION, Said
from pdp.cli.audit_files import whole_records
from pdp.cli.keys import held
from pdp.cli.options import AsJson
from pdp.cli.output import write_json, write_line, write_table
from pdp.cli.settings import ConfigFile, StateDir, configuration
from pdp.config import Config
from pdp.errors import ConfigError
from pdp.limits import LOG_READ_ENTRIES
from pdp.model.names import counted
from pdp.replica import Replica
from pdp.server.stores import WORLD_FILE
from pdp.service.redecide import Replayed, Worlds, replay
from pdp.trust.entry import SignedEntry
from pdp.trust.verifier import TrustVerifier
from pdp.world import World, empty_world

_DIFFERS: Final = 1
_NOT_ALL: Final = 3
_COLUMNS: Final = ("chain", "record", "world", "decision", "logged", "decided again")


def register(app: typer.Typer) -> None:
    """Add the command to `pdp audit`."""
    app.command("replay")(replay_log)


def replay_log(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE|DIR]",
            help="Chains in a directory, a segment, or JSON lines as `pdp audit tail --json` prints them; without it, "
            "the decision log in the state directory.",
        ),
    ] = None,
    *,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Decide every logged decision again, in the world that it names, and report each that is not the same answer.

    The same is: effect, reason, determining rules and obligations, bit for bit. Worlds are folded from the PDP's own log,
    each entry verified under its root file; chains are verified first. Needs no server: run it on a copy of the state
    directory, on another machine if you like.

    Exit code 0 if all are the same, 1 if one is not, 2 if something does not verify or cannot be read, 3 if some could not be
    decided again, such as those of a world that this log does not hold.

    Example: `pdp audit replay --state-dir /evidence/state`
    """
    settings = configuration(config, {("state_dir",): state_dir})
    told = asyncio.run(_replay(settings, path or settings.audit_dir))
    if as_json:
        write_json(_json(told))
    else:
        _tell(told)
    raise typer.Exit(_exit_code(told))


async def _replay(settings: Config, path: Path) -> Replayed:
    log = SqliteWorldLog(settings.state_dir / WORLD_FILE)
    try:
        return await replay(whole_records(path), worlds_of(settings, log))
    finally:
        await log.close()


def worlds_of(settings: Config, log: SqliteWorldLog) -> Worlds:
    """Return the worlds of the log in a state directory, verified under its root file.

    Raises:
        ConfigError: it is no state directory.
    """
    file = settings.state_dir / WORLD_FILE
    if not file.exists():
        raise ConfigError(f"{file} does not exist", advice="name a PDP's state directory, or a copy, with --state-dir")
    root = held(settings.state_dir)

    def fresh() -> Replica:
        return Replica(verifier=TrustVerifier(root, settings.tenant), world=empty_world(settings.tenant))

    return Worlds(log, fresh, now_ms=time.time_ns() // 1_000_000)


async def read_entries(log: SqliteWorldLog) -> list[SignedEntry]:
    """Return every entry of a log; whoever uses them folds them, too, and so verifies each."""
    entries: list[SignedEntry] = []
    while more := await log.read(after=len(entries), limit=LOG_READ_ENTRIES):
        entries += more
    return entries


async def verified_entries(settings: Config) -> list[SignedEntry]:
    """Return every entry of the log in a state directory, each verified on the way.

    Raises:
        ConfigError: it is no state directory.
    """
    log = SqliteWorldLog(settings.state_dir / WORLD_FILE)
    try:
        await worlds_of(settings, log).at((await log.head()).seq)
        return await read_entries(log)
    finally:
        await log.close()


async def newest_world(settings: Config) -> World:
    """Return the newest world of the log in a state directory.

    Raises:
        ConfigError: it holds none.
    """
    log = SqliteWorldLog(settings.state_dir / WORLD_FILE)
    try:
        worlds = worlds_of(settings, log)
        world = await worlds.at((await log.head()).seq)
    finally:
        await log.close()
    if world is None or world.policy is None:
        raise ConfigError(f"{settings.state_dir} holds no policy", advice="name a PDP's state directory, or a copy")
    return world


def _exit_code(told: Replayed) -> int:
    if told.differences:
        return _DIFFERS
    return _NOT_ALL if told.lost.keys() - {NO_QUESTION} else 0


def _json(told: Replayed) -> dict[str, Any]:
    differences = [
        asdict(one) | {"logged": one.logged._asdict(), "again": one.again._asdict()} for one in told.differences
    ]
    return {"same": told.same, "differences": differences, "not_decided_again": dict(told.lost)}


def _tell(told: Replayed) -> None:
    if told.differences:
        rows = [
            (one.chain, one.n, one.world_seq, one.decision_id, _answer(one.logged), _answer(one.again))
            for one in told.differences
        ]
        write_table(_COLUMNS, rows)
    write_line(
        f"{counted(told.same, 'decision is', 'decisions are')} the same answer again, {len(told.differences)} not"
    )
    for why, count in told.lost.most_common():
        write_line(f"{count} not decided again: {why}")


def _answer(said: Said) -> str:
    by = f" by {', '.join(said.determining)}" if said.determining else ""
    duties = f" with {'; '.join(said.obligations)}" if said.obligations else ""
    return f"{said.effect} {said.reason}{by}{duties}"
