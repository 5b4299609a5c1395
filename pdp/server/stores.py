"""Where a PDP keeps the log and what it has verified, as the configuration says: SQLite alone, or Redis and SQLite."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from pdp.adapters.board_sqlite import SqliteBoard
from pdp.adapters.keys_files import load_pdp_keys, load_root, load_roots, succeed_root
from pdp.adapters.log_sqlite import SqliteWorldLog
from pdp.adapters.replica_store import SqliteReplicaStore
from pdp.config import Config
from pdp.errors import BadRequestError, ConfigError
from pdp.ports import Board, ReplicaStore, SharedLog, WorldLog
from pdp.replica import Replica
from pdp.server.place import Place
from pdp.service.cluster import ArchivingStore, MirroredLog
from pdp.service.replicate import NextRoot
from pdp.trust.keys import RootFile

WORLD_FILE: Final = "world.db"
_ROOT: Final = "root:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """An open log, the replica's own store, and the board of a cluster (None without one)."""

    log: WorldLog
    store: ReplicaStore
    board: Board | None
    close: Callable[[], Awaitable[None]]


def open_stores(config: Config, *, create: bool = False, place: Place | None = None) -> Stores:
    """Open what `config` names, for the process at `place`; nothing is connected before it is used.

    Raises:
        ConfigError: the store's URL or password file is wrong.
    """
    here = place or Place()
    archive = _archive(config, here)
    own = SqliteReplicaStore(config.state_dir / f"replica{here.suffix}")
    shared = open_shared(config, create=create)
    if shared is not None:
        log = MirroredLog(shared, archive)
        return Stores(log=log, store=ArchivingStore(own, archive), board=shared, close=lambda: _close(own, log))
    if here.workers == 1:
        return Stores(log=archive, store=own, board=None, close=lambda: _close(own, archive))
    board = SqliteBoard(config.state_dir)
    return Stores(log=archive, store=own, board=board, close=lambda: _close(own, archive, board))


def _archive(config: Config, place: Place) -> SqliteWorldLog:
    """Open this PDP's own file; where it is the log of several workers, each append wakes the others."""
    if place.nudges is None or config.store.url:
        return SqliteWorldLog(config.state_dir / WORLD_FILE)
    log = SqliteWorldLog(config.state_dir / WORLD_FILE, appended=place.nudges.send)
    place.nudges.listen(log.wake)
    return log


async def _close(*stores: "_Closes") -> None:
    for store in stores:
        await store.close()


class _Closes(Protocol):
    async def close(self) -> None: ...


def open_shared(config: Config, *, create: bool = False) -> SharedLog | None:
    """Return the store that PDPs share, or None if this one stands alone."""
    settings = config.store
    if not settings.url:
        return None
    try:
        # Here and not above: `redis` comes with an extra, and a PDP on SQLite does without.
        from pdp.adapters.log_redis import RedisWorldLog  # noqa: PLC0415
    except ModuleNotFoundError as error:
        advice = "install it with `pip install 'portcullis[redis]'`"
        raise ConfigError("store.url (--store) needs `redis`", advice=advice) from error
    return RedisWorldLog(
        settings.url,
        tenant=config.tenant,
        password=settings.password_file,
        ca=settings.ca,
        min_replicas=settings.min_replicas,
        create=create,
    )


def local_store(config: Config) -> bool:
    """Tell whether the store is on this machine."""
    return urlsplit(config.store.url).hostname in {"127.0.0.1", "::1", "localhost"}


class RootWatch:
    """Looks whether a newer root file has been put into the state directory, or shown by another PDP of the cluster.

    What is shown is taken only if the roots of the file in force have signed it: the board is not trusted with it.
    """

    def __init__(self, state_dir: Path, replica: Replica, board: Board | None) -> None:
        self._state_dir = state_dir
        self._replica = replica
        self._board = board
        self._shown = 0

    async def look(self) -> NextRoot | None:
        """Return the next root file with this PDP's keys under it, or None."""
        held = self._replica.verifier.root
        found = await asyncio.to_thread(self._next, held)
        if self._board is not None:
            if found is None:
                found = await self._offered(self._board, held)
            if self._shown < held.version and held.version > 1:
                await self._board.post(f"{_ROOT}{held.version}", held.raw)
                self._shown = held.version
        if found is None:
            return None
        keys = await asyncio.to_thread(load_pdp_keys, self._state_dir)
        files = await asyncio.to_thread(load_roots, self._state_dir)
        upto = files.index(found.raw) + 1 if found.raw in files else len(files)
        return NextRoot(root=found, keys=keys, files=files[:upto])

    def _next(self, held: RootFile) -> RootFile | None:
        current = load_root(self._state_dir)
        if current is None or current.version <= held.version:
            return None
        for raw in load_roots(self._state_dir):
            root = RootFile.parse(raw)
            if root.version == held.version + 1:
                return root
        return None

    async def _offered(self, board: Board, held: RootFile) -> RootFile | None:
        raw = (await board.posted()).get(f"{_ROOT}{held.version + 1}")
        if raw is None:
            return None
        try:
            root = RootFile.parse(raw)
        except BadRequestError:
            return None
        if not root.succeeds(held):
            return None
        await asyncio.to_thread(succeed_root, self._state_dir, root)
        return root
