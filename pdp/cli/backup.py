"""Backing up a PDP's log while it runs, and putting a backup in place of a file that was lost or damaged.

A plain copy of `world.db` misses what still lies in `world.db-wal`, and one put back beside another file's `-wal` is damaged
by it: both traps are closed here. A backup is one whole file, verified entry by entry under its root file.
"""

import asyncio
import fcntl
import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from pdp.adapters.audit_file import sync_directory
from pdp.adapters.keys_files import load_root
from pdp.adapters.log_sqlite import SqliteWorldLog
from pdp.adapters.replica_store import FILE_NAME, SqliteReplicaStore
from pdp.config import Config
from pdp.errors import ConfigError, PortcullisError, Reason
from pdp.limits import LOG_READ_ENTRIES
from pdp.replica import Prepared, Replica
from pdp.server.stores import WORLD_FILE
from pdp.trust.entry import EMPTY, Head, peek_seq
from pdp.trust.keys import RootFile
from pdp.trust.verifier import Refused, TrustVerifier
from pdp.world import empty_world

_ROOTS: Final = ("root.json", "roots")
_PARTS: Final = ("", "-wal", "-shm")
_LOCK: Final = ".lock"


def make_backup(settings: Config, target: Path) -> Head:
    """Copy log and root files of a PDP that may be running to `target`; return where the copy stands.

    Raises:
        ConfigError: there is nothing to copy, `target` holds a backup already, or what was copied does not verify.
    """
    source, copy = settings.state_dir / WORLD_FILE, target / WORLD_FILE
    root = _root(settings.state_dir)
    if not source.exists():
        raise ConfigError(f"{source} does not exist", advice="name the state directory with --state-dir")
    if copy.exists():
        raise ConfigError(f"{target} holds a backup already", advice="name a new directory for each")
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = target / f"{WORLD_FILE}.tmp"
        _copy_database(source, draft)
        draft.rename(copy)
        _copy_roots(settings.state_dir, target)
        sync_directory(target)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(f"the backup failed: {error}", advice="is there room, and may we write there?") from error
    return asyncio.run(verified_head(copy, root, settings.tenant))


def put_back(settings: Config, backup: Path) -> tuple[Head, int]:
    """Put the log in `backup` in place of this PDP's; return where it stands, and the highest number this PDP has held.

    Raises:
        ConfigError: the PDP runs, or the backup is none or does not verify.
        PortcullisError: `conflict` if the file in place is newer: nothing is overwritten.
    """
    state = settings.state_dir
    if not (backup / WORLD_FILE).exists():
        raise ConfigError(f"{backup} holds no {WORLD_FILE}", advice="name a directory that `pdp log backup` made")
    _refuse_running(settings.audit_dir)
    root = load_root(state) or _root(backup)
    place = state / WORLD_FILE
    draft = place.with_name(f"{place.name}.tmp")
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(backup / WORLD_FILE, draft)  # the backup itself is only read: it may lie on a read-only disk
        draft.chmod(0o600)
        head = asyncio.run(verified_head(draft, root, settings.tenant))
        _refuse_older(place, head)
        if load_root(state) is None:
            _copy_roots(backup, state)
        _exchange(draft, place)
    except OSError as error:
        raise ConfigError(f"the backup could not be put back: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return head, asyncio.run(_mark(state / "replica"))


async def verified_head(path: Path, root: RootFile, tenant: str) -> Head:
    """Return where the log in `path` stands once every entry of it verifies, from its snapshot where it begins with one.

    Raises:
        ConfigError: something does not; it is named.
    """
    log, replica = SqliteWorldLog(path), Replica(verifier=TrustVerifier(root, tenant), world=empty_world(tenant))
    try:
        entries = await log.read(after=0, limit=LOG_READ_ENTRIES)
        if not entries or peek_seq(entries[0]) != 1:
            snapshot = await log.snapshot()
            if snapshot is None and entries:
                raise ConfigError(f"{path}: the log has no beginning")
            if snapshot is not None:
                _take(path, replica, replica.prepare_stored(snapshot, now_ms=_now_ms()))
        while entries := await log.read(after=replica.world.seq, limit=LOG_READ_ENTRIES):
            for entry in entries:
                _take(path, replica, replica.prepare(entry, now_ms=_now_ms()))
        return replica.head
    finally:
        await log.close()


def _take(path: Path, replica: Replica, prepared: Prepared | Refused) -> None:
    if isinstance(prepared, Refused):
        told = f"{path}: what follows entry {replica.world.seq} does not verify: {prepared}"
        raise ConfigError(told, advice="take another backup")
    replica.commit(prepared)


def _root(directory: Path) -> RootFile:
    root = load_root(directory)
    if root is None:
        raise ConfigError(f"{directory} holds no root.json", advice="it names the keys that sign the log: put it there")
    return root


def _copy_database(source: Path, target: Path) -> None:
    """Copy a database that others may be writing, as one file with nothing left in a journal beside it."""
    target.unlink(missing_ok=True)
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as origin,
        closing(sqlite3.connect(target)) as copy,
    ):
        origin.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
    _sync(target)


def _copy_roots(source: Path, target: Path) -> None:
    for name in _ROOTS:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)
        elif (source / name).exists():
            shutil.copy2(source / name, target / name)


def _refuse_running(audit_dir: Path) -> None:
    """A PDP holds the lock of its decision log as long as it runs."""
    try:
        with (audit_dir / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return
    except BlockingIOError as error:
        raise ConfigError("the PDP is running", advice="stop it first: it would go on writing the old file") from error


def _refuse_older(present: Path, head: Head) -> None:
    held = asyncio.run(_stands(present)) if present.exists() else EMPTY
    if held.seq > head.seq:
        told = f"{present} stands at {held.seq}, the backup at {head.seq}: nothing was changed"
        raise PortcullisError(Reason.CONFLICT, told, advice="move the file away first if it is really to be given up")


async def _stands(path: Path) -> Head:
    log = SqliteWorldLog(path)
    try:
        return await log.head()
    except PortcullisError:
        return EMPTY  # damaged: that is why somebody is here
    finally:
        await log.close()


def _exchange(draft: Path, place: Path) -> None:
    """Put `draft` in its place; what was there, journals and all, is kept beside it."""
    _sync(draft)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for part in _PARTS:
        old = place.with_name(place.name + part)
        if old.exists():
            old.rename(old.with_name(f"{old.name}.replaced-{stamp}"))
    draft.rename(place)
    sync_directory(place.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _mark(directory: Path) -> int:
    if not (directory / FILE_NAME).exists():
        return 0
    store = SqliteReplicaStore(directory)
    try:
        return (await store.load())[3]
    finally:
        await store.close()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
