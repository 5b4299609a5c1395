"""One log over a shared store and this PDP's own file, so that neither losing it nor lying it can lose what was acknowledged.

Theory of operation. The *store* (Redis) orders writes of several PDPs; the *archive* (SQLite) is this PDP's whole log. A write
is acknowledged when the store has taken it, shows it, and the archive has it on disk. After a failover the store may
stand behind the archive: then its lost tail is put back under the original numbers before anything else is
accepted. Two different entries under one number cannot be reconciled by a machine: every PDP stops writing and signs no
heartbeat, service goes on inside `max_staleness`, and `pdp log adopt` with the root key says which of the two counts.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final, NoReturn

from pdp.errors import BadRequestError, ConflictError, PortcullisError, Reason
from pdp.limits import LOG_READ_ENTRIES
from pdp.model import canonical
from pdp.ports import Archive, Board, ReplicaStore, SharedLog
from pdp.trust.entry import EMPTY, Head, SignedEntry, SignedHeartbeat, SignedSnapshot, peek_seq

_ADVICE: Final = "decide which one counts: `pdp log adopt` with the root key"
_ATTEMPTS: Final = 3


class MirroredLog:
    """A `WorldLog`: `store` shared by all PDPs, `archive` of this one."""

    def __init__(self, store: SharedLog, archive: Archive) -> None:
        self._store = store
        self._archive = archive
        self._lock = asyncio.Lock()

    @property
    def board(self) -> Board:
        """Where PDPs show each other their enforcement points."""
        return self._store

    async def head(self) -> Head:
        """Return the head of the store, once it holds all that the archive does.

        Raises:
            PortcullisError: `store_unavailable`: no answer, an emptied store, or two entries under one number.
        """
        async with self._lock:
            for _ in range(_ATTEMPTS):
                try:
                    return await self._reconciled()
                except ConflictError:
                    continue  # another PDP puts the same tail back
            raise PortcullisError(Reason.STORE_UNAVAILABLE, "the store moves while its tail is put back")

    async def _reconciled(self) -> Head:
        store, own = await self._store.head(), await self._archive.head()
        marked = await self._store.forked()
        if marked:
            raise _forked(marked)
        if store.seq == 0 and own.seq:
            told = f"the store is empty, and this PDP holds entry {own.seq}"
            raise PortcullisError(Reason.STORE_UNAVAILABLE, told, advice="put the log back: `pdp log restore`")
        if store.seq >= own.seq:
            await self._compare(own, self._store)
            return store
        await self._compare(store, self._archive)
        return await self._put_back(store, own)

    async def _compare(self, head: Head, log: SharedLog | Archive) -> None:
        """Stop everything if `log` holds another entry under the number of `head`."""
        if head.seq == 0:
            return
        held = [entry for entry in await log.read(after=head.seq - 1, limit=1) if peek_seq(entry) == head.seq]
        if held and held[0].digest != head.digest:
            await self._stop(head.seq, head.digest, held[0].digest)

    async def _stop(self, seq: int, one: bytes, other: bytes) -> NoReturn:
        told = canonical.dumps({"seq": seq, "digests": sorted((one.hex(), other.hex()))})
        await self._store.mark_fork(told)
        raise _forked(told)

    async def _put_back(self, store: Head, own: Head) -> Head:
        """Append what the store has lost, under the numbers it had."""
        while store.seq < own.seq:
            for entry in await self._archive.read(after=store.seq, limit=LOG_READ_ENTRIES):
                await self._store.append(entry, seq=store.seq + 1, prev=store.digest)
                store = Head(seq=store.seq + 1, digest=entry.digest)
        return store

    async def append(self, entry: SignedEntry, *, seq: int, prev: bytes) -> None:
        """Append to the store, read back, and append to the archive; only then is it acknowledged.

        Raises:
            ConflictError: another entry won.
            PortcullisError: `store_unavailable`; it may or may not have been written.
        """
        await self.head()
        await self._store.append(entry, seq=seq, prev=prev)
        if list(await self._store.read(after=seq - 1, limit=1)) != [entry]:
            raise PortcullisError(Reason.STORE_UNAVAILABLE, f"the store does not show entry {seq} as it was written")
        await archived(self._archive, entry, seq)

    async def read(self, *, after: int, limit: int) -> Sequence[SignedEntry]:
        """Return entries after number `after`: from the archive as far as it reaches, else from the store."""
        own = await self._archive.read(after=after, limit=limit)
        if own and peek_seq(own[0]) == after + 1:
            return own
        return await self._store.read(after=after, limit=limit)

    def follow(self, *, after: int) -> AsyncIterator[SignedEntry]:
        """Yield entries of the store after number `after`, then each new one."""
        return self._store.follow(after=after)

    async def save_snapshot(self, snapshot: SignedSnapshot, *, seq: int) -> None:
        """Keep a snapshot in the archive and in the store, which then drops what it covers."""
        await self._archive.save_snapshot(snapshot, seq=seq)
        await self._store.save_snapshot(snapshot, seq=seq)

    async def snapshot(self) -> SignedSnapshot | None:
        """Return the newest snapshot of the store or, while it does not answer, of the archive."""
        try:
            return await self._store.snapshot()
        except PortcullisError:
            return await self._archive.snapshot()

    async def close(self) -> None:
        """Release both."""
        await self._store.close()
        await self._archive.close()


class ArchivingStore:
    """A `ReplicaStore` that keeps every verified entry in the archive too, before it comes into force."""

    def __init__(self, store: ReplicaStore, archive: Archive) -> None:
        self._store = store
        self._archive = archive

    async def save(self, entry: SignedEntry, *, seq: int) -> None:
        """Keep an entry in both."""
        await archived(self._archive, entry, seq)
        await self._store.save(entry, seq=seq)

    async def save_snapshot(self, snapshot: SignedSnapshot, *, seq: int) -> None:
        """Begin anew at a snapshot: the archive goes on after it."""
        await self._archive.save_snapshot(snapshot, seq=seq)
        await self._store.save_snapshot(snapshot, seq=seq)

    async def save_heartbeat(self, heartbeat: SignedHeartbeat) -> None:
        """Keep the newest heartbeat."""
        await self._store.save_heartbeat(heartbeat)

    async def load(self) -> tuple[SignedSnapshot | None, Sequence[SignedEntry], SignedHeartbeat | None, int]:
        """Return what the replica's store holds."""
        return await self._store.load()

    async def save_root(self, raw: bytes, *, version: int) -> None:
        """Keep a root file."""
        await self._store.save_root(raw, version=version)

    async def roots(self) -> Sequence[bytes]:
        """Return the root files kept."""
        return await self._store.roots()

    async def reset(self, *, after: int) -> None:
        """Forget the replica's world, and of the archive what follows `after`."""
        await self._archive.truncate(after=after)
        await self._store.reset(after=after)


async def archived(archive: Archive, entry: SignedEntry, seq: int) -> None:
    """Append to the archive unless it is there already: put there before, or just now by another worker of this PDP.

    Raises:
        ConflictError: the archive holds another entry under that number, or does not reach so far.
    """
    head = await archive.head()
    if head.seq >= seq:
        return
    try:
        await archive.append(entry, seq=seq, prev=head.digest)
    except ConflictError:
        if [item.digest for item in await archive.read(after=seq - 1, limit=1)] != [entry.digest]:
            raise


def _forked(told: bytes) -> PortcullisError:
    try:
        value = canonical.loads(told)
        text = f"two entries under number {value['seq']}: {' and '.join(value['digests'])}"
    except (BadRequestError, KeyError, TypeError):
        text = "two entries under one number"
    return PortcullisError(Reason.STORE_UNAVAILABLE, f"writes are stopped: {text}", advice=_ADVICE)


async def restore_store(store: SharedLog, archive: Archive) -> int:
    """Fill an emptied store from this PDP's own file; returns how many entries.

    Raises:
        ConflictError: the store is not empty.
    """
    head = await store.head()
    if head != EMPTY:
        raise ConflictError(head.seq)
    return await refill(store, archive)


async def refill(store: SharedLog, archive: Archive) -> int:
    """Replace what the store holds by this PDP's own file, and let writers go on."""
    number = await store.refill(_all(archive), await archive.snapshot())
    await store.mark_fork(b"")
    return number


async def _all(archive: Archive) -> AsyncIterator[tuple[int, SignedEntry]]:
    after = 0
    while entries := await archive.read(after=after, limit=LOG_READ_ENTRIES):
        for entry in entries:
            after = peek_seq(entry)
            yield after, entry
