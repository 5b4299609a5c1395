"""The world log in Redis: one stream whose explicit ids are the sequence numbers.

An entry is `XADD <stream> NOMKSTREAM <N>-0`: Redis itself refuses a number that is not above its last, and never makes a stream
that is gone. That the number is the *next* one, on the digest that the writer knows, is a WATCH of the stream around the
look and the write, so the compare-and-set needs no script. `WAIT` follows on the same connection. What is read is
verified by the caller: Redis is a carrier, and whoever writes to it can stop the log, never change it.

Keys, all below `pdp:{<tenant>}:` - `log` (the stream), `snapshot`, `positions` (enforcement points, by PDP), `fork`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError, WatchError

from pdp.adapters.redis_clients import cancellable, clients, shown
from pdp.errors import ConflictError, PortcullisError, Reason
from pdp.limits import LOG_READ_ENTRIES, MAX_BOARD_BYTES, REDIS_BLOCK_S, REDIS_WAIT_S
from pdp.trust.columns import pack_signatures, unpack_signatures
from pdp.trust.entry import EMPTY, Head, SignedEntry, SignedSnapshot

T = TypeVar("T")
_Row = tuple[bytes, Mapping[bytes, bytes]]


class RedisWorldLog:
    """A `WorldLog`, and a `Board`, in one Redis or behind its Sentinels.

    Args:
        url: `redis://[user@]host:port[/db]`, `rediss://…` with TLS, or `redis+sentinel://host:port,host:port/service`.
        tenant: whose log it is.
        password: file with the password; a URL never holds one.
        ca: authorities that the server's certificate must chain to; the system's if None.
        min_replicas: copies that must have a write before it counts.
        create: let the first entry make the stream; only `pdp init` does.
    """

    def __init__(
        self,
        url: str,
        *,
        tenant: str,
        password: Path | None = None,
        ca: Path | None = None,
        min_replicas: int = 0,
        create: bool = False,
    ) -> None:
        make, watchers = clients(url, password=password, ca=ca)
        # One connection each: WAIT speaks of the writes of its own connection, and a blocking read holds up no other.
        self._writer, self._reader, self._follower = make(1), make(4), make(2)
        self._clients = (self._writer, self._reader, self._follower, *watchers)
        self._place = shown(url)
        prefix = f"pdp:{{{tenant}}}:"
        self._stream, self._snapshot = f"{prefix}log", f"{prefix}snapshot"
        self._positions, self._fork = f"{prefix}positions", f"{prefix}fork"
        self._min_replicas = min_replicas
        self._create = create
        self._writing = asyncio.Lock()
        self._closed = False

    async def head(self) -> Head:
        """Return number and digest of the newest entry, read from Redis now."""
        rows: list[_Row] = await self._asked(lambda: self._reader.xrevrange(self._stream, count=1))
        return _head(rows)

    async def append(self, entry: SignedEntry, *, seq: int, prev: bytes) -> None:
        """Append and wait for the copies, if the head is still (`seq` - 1, `prev`).

        Raises:
            ConflictError: another entry won.
            PortcullisError: `store_unavailable`; after a lost answer the entry may or may not be there.
        """
        async with self._writing:
            await self._asked(lambda: self._append(entry, seq, prev))

    async def _append(self, entry: SignedEntry, seq: int, prev: bytes) -> None:
        fields = {"h": entry.header, "p": entry.payload, "s": pack_signatures(entry.signatures)}
        async with self._writer.pipeline(transaction=True) as pipe:
            await pipe.watch(self._stream)
            head = _head(await pipe.xrevrange(self._stream, count=1))
            if head != Head(seq=seq - 1, digest=prev):
                raise ConflictError(head.seq)
            pipe.multi()
            create = self._create and seq == 1
            pipe.xadd(self._stream, fields, id=f"{seq}-0", nomkstream=not create)
            try:
                (made,) = await pipe.execute()
            except (WatchError, ResponseError) as error:
                if isinstance(error, ResponseError) and "equal or smaller" not in str(error):
                    raise
                raise ConflictError((await self.head()).seq) from error
        if made is None:
            advice = "a PDP that holds the log puts it back: `pdp log restore`"
            raise PortcullisError(Reason.STORE_UNAVAILABLE, f"{self._place} holds no log", advice=advice)
        await self._copied(seq)

    async def _copied(self, seq: int) -> None:
        if not self._min_replicas:
            return
        copies = await self._writer.wait(self._min_replicas, int(REDIS_WAIT_S * 1000))
        if copies < self._min_replicas:
            told = f"entry {seq} has {copies} of {self._min_replicas} copies"
            raise PortcullisError(Reason.STORE_UNAVAILABLE, told, advice="look at Redis' replication")

    async def read(self, *, after: int, limit: int) -> Sequence[SignedEntry]:
        """Return at most `limit` entries after number `after`, in order."""
        rows: list[_Row] = await self._asked(
            lambda: self._reader.xrange(self._stream, min=f"{after + 1}-0", count=limit)
        )
        return [_entry(fields) for _, fields in rows]

    async def follow(self, *, after: int) -> AsyncIterator[SignedEntry]:
        """Yield entries after number `after`, then each new one as it is appended, by whatever process."""
        place = f"{after}-0"
        while True:
            for row_id, fields in await self._asked(lambda place=place: self._next(place)):  # type: ignore[misc]
                yield _entry(fields)
                place = row_id.decode(errors="replace")

    async def _next(self, place: str) -> list[_Row]:
        found: Any = await self._follower.xread(
            {self._stream: place}, count=LOG_READ_ENTRIES, block=int(REDIS_BLOCK_S * 1000)
        )
        return found[0][1] if found else []

    async def save_snapshot(self, snapshot: SignedSnapshot, *, seq: int) -> None:
        """Keep the newest snapshot, and drop the entries that the one before it covers: every PDP has them in its file."""

        async def work() -> None:
            async with self._reader.pipeline(transaction=True) as pipe:
                await pipe.watch(self._snapshot)
                before = _number(await pipe.hget(self._snapshot, "seq"))
                if before >= seq:
                    return
                pipe.multi()
                signatures = pack_signatures(snapshot.signatures)
                fields = {"seq": str(seq), "h": snapshot.header, "state": snapshot.state, "s": signatures}
                pipe.hset(self._snapshot, mapping=fields)
                pipe.xtrim(self._stream, minid=f"{before + 1}-0", approximate=False)
                with contextlib.suppress(WatchError):  # another PDP's came first, and does as well
                    await pipe.execute()

        await self._asked(work)

    async def snapshot(self) -> SignedSnapshot | None:
        """Return the newest snapshot, if there is one."""
        found: dict[bytes, bytes] = await self._asked(lambda: self._reader.hgetall(self._snapshot))
        if not found:
            return None
        return SignedSnapshot(
            header=found.get(b"h", b""), state=found.get(b"state", b""), signatures=unpack_signatures(found.get(b"s"))
        )

    async def refill(self, entries: AsyncIterator[tuple[int, SignedEntry]], snapshot: SignedSnapshot | None) -> int:
        """Put a whole log in the place of what Redis holds; returns how many entries. Only an operator's command does."""
        await self._asked(lambda: self._writer.delete(self._stream, self._snapshot))
        number = 0
        async for seq, entry in entries:
            fields = {"h": entry.header, "p": entry.payload, "s": pack_signatures(entry.signatures)}
            await self._asked(lambda fields=fields, seq=seq: self._writer.xadd(self._stream, fields, id=f"{seq}-0"))  # type: ignore[misc]
            number += 1
        if snapshot is not None and number:
            await self.save_snapshot(snapshot, seq=1)
        return number

    async def post(self, name: str, raw: bytes) -> None:
        """Show `raw` under `name` to every process over this store."""
        await self._asked(lambda: self._reader.hset(self._positions, name, raw))

    async def posted(self) -> Mapping[str, bytes]:
        """Return what every process shows; nothing in it is believed before its signature is checked."""
        found: dict[bytes, bytes] = await self._asked(lambda: self._reader.hgetall(self._positions))
        return {name.decode(errors="replace"): raw for name, raw in found.items() if len(raw) <= MAX_BOARD_BYTES}

    async def forked(self) -> bytes:
        """Return what stops every writer, or nothing."""
        return bytes(await self._asked(lambda: self._reader.get(self._fork)) or b"")

    async def mark_fork(self, told: bytes) -> None:
        """Stop every writer; empty lets them go on."""
        if told:
            await self._asked(lambda: self._reader.set(self._fork, told, nx=True))
        else:
            await self._asked(lambda: self._reader.delete(self._fork))

    async def close(self) -> None:
        """Close the connections; whoever follows ends with `store_unavailable`."""
        self._closed = True
        for client in self._clients:
            with contextlib.suppress(RedisError, OSError):
                await client.aclose()
                await client.connection_pool.disconnect()

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask Redis; whatever keeps it from answering is one typed error that names the place and no secret."""
        if self._closed:
            raise PortcullisError(Reason.STORE_UNAVAILABLE, f"{self._place} is closed")
        try:
            return await cancellable(ask())
        except (AuthenticationError, NoPermissionError) as error:
            advice = "check store.url's user, store.password_file and the ACL file"
            raise PortcullisError(
                Reason.STORE_UNAVAILABLE, f"{self._place} refuses us: {type(error).__name__}", advice=advice
            ) from error
        except (RedisError, OSError, TimeoutError) as error:
            told = f"{self._place}: {type(error).__name__}"
            raise PortcullisError(Reason.STORE_UNAVAILABLE, told, advice="is Redis up, and reachable?") from error


def _entry(fields: Mapping[bytes, bytes]) -> SignedEntry:
    """Return the entry in a row; a field that is missing is empty, and the verifier refuses the entry."""
    return SignedEntry(
        header=fields.get(b"h", b""), payload=fields.get(b"p", b""), signatures=unpack_signatures(fields.get(b"s"))
    )


def _head(rows: Sequence[_Row]) -> Head:
    if not rows:
        return EMPTY
    row_id, fields = rows[0]
    return Head(seq=_number(row_id.partition(b"-")[0]), digest=_entry(fields).digest)


def _number(raw: bytes | None) -> int:
    return int(raw) if raw and raw.isdigit() else 0
