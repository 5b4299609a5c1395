"""`pdp log`: the world log of this PDP, and the two repairs that no machine may decide by itself."""

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from pdp.adapters.keys_files import load_key, succeed_root
from pdp.adapters.log_sqlite import SqliteWorldLog
from pdp.adapters.replica_store import FILE_NAME, SqliteReplicaStore
from pdp.cli.backup import make_backup, put_back
from pdp.cli.keys import RootKeys, held, next_root
from pdp.cli.options import AsJson, noun
from pdp.cli.output import write_json, write_line
from pdp.cli.settings import ConfigFile, StateDir, StoreUrl, configuration
from pdp.config import Config
from pdp.errors import BadRequestError, ConfigError
from pdp.model.names import counted
from pdp.ports import SharedLog
from pdp.replica import Prepared, Replica
from pdp.server.stores import WORLD_FILE, open_shared
from pdp.service.cluster import archived, refill, restore_store
from pdp.trust.entry import Head, SignedEntry, SignedSnapshot, peek_seq
from pdp.trust.keys import Role, Ruling
from pdp.trust.verifier import TrustVerifier
from pdp.world import empty_world

app = noun("The world log: where it stands, and how a lost or split one is repaired.")


@app.command()
def show(
    *, state_dir: StateDir = None, store: StoreUrl = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Show the head of this PDP's own file and of the store, whether writes are stopped, and what takes how much room.

    `own file` is the archive of every change and grows for ever; `replica` files hold a snapshot and what came after it.

    Example: `pdp log show --store redis://127.0.0.1:6379`
    """
    settings = configuration(config, {("state_dir",): state_dir, ("store", "url"): store})
    told = asyncio.run(_show(settings))
    if as_json:
        write_json(told)
        return
    for name, value in told.items():
        write_line(f"{name}: {value}")


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory for this backup.")],
    *,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Back up log and root files; the PDP may go on running. The copy is verified entry by entry.

    Keys are secrets and not in it: copy `keys/` to where secrets lie. Files of the decision log only grow: copy `audit/`
    with any tool, and `pdp audit verify` the copy.

    Example: `pdp log backup /backup/pdp-2026-11-29`
    """
    head = make_backup(configuration(config, {("state_dir",): state_dir}), target)
    if as_json:
        write_json({"seq": head.seq, "digest": head.digest.hex(), "directory": str(target)})
        return
    write_line(f"{target} holds the log up to entry {head.seq}, digest {head.digest.hex()}")


@app.command()
def restore(
    *,
    source: Annotated[
        Path | None,
        typer.Option("--backup", metavar="DIR", help="Put this backup in place of this PDP's own file instead."),
    ] = None,
    state_dir: StateDir = None,
    store: StoreUrl = None,
    config: ConfigFile = None,
) -> None:
    """Fill an emptied store from this PDP's own file; or, with --backup, this PDP's own file from a backup.

    Exit code 6 if the store is not empty, or the file in place is newer: nothing is ever overwritten.

    The store: run it where the newest file is (`pdp log show` on each PDP); the others then put back what they hold beyond
    it. The file: stop the PDP first; what its own replica still holds beyond the backup is added, each entry verified.

    Examples:
    `pdp log restore --store redis://127.0.0.1:6379`

    `pdp log restore --backup /backup/pdp-2026-11-29`
    """
    settings = configuration(config, {("state_dir",): state_dir, ("store", "url"): store})
    if source is None:
        write_line(f"the store holds {counted(asyncio.run(_restore(settings)), 'entry', 'entries')} again")
    else:
        _tell_put_back(settings, source)


def _tell_put_back(settings: Config, source: Path) -> None:
    head, mark = put_back(settings, source)
    write_line(f"the log stands at {head.seq} again")
    stands = head.seq
    own = settings.state_dir / "replica"
    if mark > head.seq:
        _, stands = asyncio.run(_recover(settings, own))
        write_line(f"this PDP's own replica held more: the log stands at {stands}")
    if mark > stands:
        write_line(
            f"this PDP has held entry {mark}, and so may have its enforcement points: none of them goes back. Run"
            " `pdp log recover DIR` with the `replica` directory of one that is ahead, or read `A backup older than"
            " what replicas hold` in docs/operations.md"
        )


@app.command()
def recover(
    source: Annotated[
        Path, typer.Argument(metavar="DIR", help="The `replica` directory of a sidecar, or a copy of it.")
    ],
    *,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Add to a log that was restored from an old backup the entries that an enforcement point still holds.

    Each is verified against the root file before it is written. Where the source was compacted beyond the end of this log, the
    log goes on at its snapshot, and the changes between stay unknown. Stop the PDP first.

    Example: `pdp log recover /tmp/edge-1/replica`
    """
    settings = configuration(config, {("state_dir",): state_dir})
    before, after = asyncio.run(_recover(settings, source))
    write_line(f"the log stood at {before} and stands at {after}")


@app.command()
def adopt(
    entry: Annotated[str, typer.Argument(metavar="NUMBER:DIGEST", help="Which of the two entries counts.")],
    *,
    root_key: RootKeys,
    state_dir: StateDir = None,
    store: StoreUrl = None,
    config: ConfigFile = None,
) -> None:
    """Decide between two entries under one number, with the root key; whatever stands on the other one is given up.

    Run it on a PDP that holds the entry that shall count, or whose store does. The next root file says so; running PDPs
    take it within seconds, and their replicas begin again from the log that counts. It is also how newer entries that are
    lost for good are given up after a restore from an old backup.

    Example: `pdp log adopt 1043:9c5d…e1 --root-key /media/root.pem`
    """
    settings = configuration(config, {("state_dir",): state_dir, ("store", "url"): store})
    ruling = parse_ruling(entry)
    root = held(settings.state_dir)
    roles = {role: list(root.holders(role)) for role in Role}
    following = next_root(root, roles=roles, signing=[load_key(path) for path in root_key], ruling=ruling)
    told = asyncio.run(_adopt(settings, ruling))
    succeed_root(settings.state_dir, following)
    write_line(told)
    write_line(f"root file {following.version}, digest {following.digest}")


def parse_ruling(text: str) -> Ruling:
    """Return what `NUMBER:DIGEST` names.

    Raises:
        BadRequestError: not that.
    """
    number, _, digest = text.partition(":")
    try:
        return Ruling(seq=int(number), digest=digest)
    except ValueError as error:
        raise BadRequestError(f"`{text}` is not NUMBER:DIGEST, with 64 hex digits") from error


def _shared(settings: Config) -> SharedLog:
    shared = open_shared(settings)
    if shared is None:
        raise ConfigError("this PDP has no shared store", advice="name it with --store or in pdp.yaml")
    return shared


async def _show(settings: Config) -> dict[str, str]:
    archive, shared = SqliteWorldLog(settings.state_dir / WORLD_FILE), open_shared(settings)
    try:
        told = {"own file": _told(await archive.head()), **_sizes(settings.state_dir)}
        if shared is not None:
            told["store"] = _told(await shared.head())
            told["writes"] = (await shared.forked()).decode(errors="replace") or "open"
        return told
    finally:
        await archive.close()
        if shared is not None:
            await shared.close()


def _sizes(state_dir: Path) -> dict[str, str]:
    """Return what the world log takes on this machine."""
    files = {"own file size": state_dir.glob(f"{WORLD_FILE}*"), "replica files size": state_dir.glob("replica*/*")}
    return {name: _size(sum(path.stat().st_size for path in found)) for name, found in files.items()}


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1_000_000:.1f} MB"


def _told(head: Head) -> str:
    return f"{head.seq} {head.digest.hex()}".strip()


async def _restore(settings: Config) -> int:
    archive, shared = SqliteWorldLog(settings.state_dir / WORLD_FILE), _shared(settings)
    try:
        return await restore_store(shared, archive)
    finally:
        await archive.close()
        await shared.close()


async def _adopt(settings: Config, ruling: Ruling) -> str:
    archive, shared = SqliteWorldLog(settings.state_dir / WORLD_FILE), open_shared(settings)
    try:
        if shared is not None and await _holds(await shared.read(after=ruling.seq - 1, limit=1), ruling):
            await shared.mark_fork(b"")
            return "the store holds the entry that counts; PDPs that hold another give theirs up"
        if await _holds(await archive.read(after=ruling.seq - 1, limit=1), ruling):
            if shared is None:
                return "this PDP's log holds the entry that counts; enforcement points that hold another give theirs up"
            return f"the store now holds this PDP's log: {counted(await refill(shared, archive), 'entry', 'entries')}"
        raise ConfigError(
            f"neither the store nor this PDP holds entry {ruling.seq} with that digest",
            advice="run it on the PDP that does: `pdp log show`",
        )
    finally:
        await archive.close()
        if shared is not None:
            await shared.close()


async def _holds(entries: object, ruling: Ruling) -> bool:
    found = list(entries) if isinstance(entries, list | tuple) else []
    return bool(found) and peek_seq(found[0]) == ruling.seq and found[0].digest.hex() == ruling.digest


async def _recover(settings: Config, source: Path) -> tuple[int, int]:
    if not (source / FILE_NAME).exists():
        raise ConfigError(f"{source} holds no {FILE_NAME}", advice="name the `replica` directory of a sidecar")
    archive, replica_store = SqliteWorldLog(settings.state_dir / WORLD_FILE), SqliteReplicaStore(source)
    replica = Replica(
        verifier=TrustVerifier(held(settings.state_dir), settings.tenant), world=empty_world(settings.tenant)
    )
    now_ms = time.time_ns() // 1_000_000
    try:
        before = (await archive.head()).seq
        for entry in await archive.read(after=0, limit=before + 1):
            _take(replica, entry, now_ms)
        snapshot, tail, _, _ = await replica_store.load()
        if snapshot is not None and not any(peek_seq(entry) == replica.world.seq + 1 for entry in tail):
            await _bridge(replica, archive, snapshot, now_ms)
        for entry in tail:
            if peek_seq(entry) == replica.world.seq + 1 and _take(replica, entry, now_ms):
                await archived(archive, entry, replica.world.seq)
        return before, (await archive.head()).seq
    finally:
        await replica_store.close()
        await archive.close()


async def _bridge(replica: Replica, archive: SqliteWorldLog, snapshot: SignedSnapshot, now_ms: int) -> None:
    """Let the log go on at a snapshot: the source was compacted, and no longer holds what comes next here."""
    prepared = replica.prepare_snapshot(snapshot, now_ms=now_ms)
    if isinstance(prepared, Prepared) and prepared.seq > replica.world.seq:
        await archive.save_snapshot(snapshot, seq=prepared.seq)
        replica.commit(prepared)


def _take(replica: Replica, entry: SignedEntry, now_ms: int) -> bool:
    prepared = replica.prepare(entry, now_ms=now_ms)
    if isinstance(prepared, Prepared):
        replica.commit(prepared)
        return True
    raise ConfigError(f"an entry does not verify: {prepared}", advice="nothing after it was written")
