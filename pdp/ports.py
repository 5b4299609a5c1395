"""What the use cases need from outside, as Protocols. Adapters implement them; nothing here does anything."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from pdp.identity.issuers import Issuer
from pdp.identity.keyset import KeySet
from pdp.identity.types import Refusal
from pdp.identity.verifier import LiveAnswer
from pdp.trust.entry import Head, SignedEntry, SignedHeartbeat, SignedSnapshot
from pdp.trust.feed import Ack, FeedItem, Hello


class Clock(Protocol):
    """Wall and monotonic time."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds since the epoch."""
        ...

    def mono_s(self) -> float:
        """Monotonic clock in seconds, for staleness and deadlines."""
        ...


class WorldLog(Protocol):
    """The ordered log of signed entries: a carrier, never trusted; what is read from it is verified."""

    async def head(self) -> Head:
        """Return number and digest of the newest entry, read from the store now; (0, b"") when empty."""
        ...

    async def append(self, entry: SignedEntry, *, seq: int, prev: bytes) -> None:
        """Append durably, if the head is still (`seq` - 1, `prev`).

        Raises:
            PortcullisError: `conflict` if another entry won, `store_unavailable` if the store did not answer.
        """
        ...

    async def read(self, *, after: int, limit: int) -> Sequence[SignedEntry]:
        """Return at most `limit` entries after number `after`, in order."""
        ...

    def follow(self, *, after: int) -> AsyncIterator[SignedEntry]:
        """Yield entries after number `after`, then each new one as it is appended, until closed."""
        ...

    async def save_snapshot(self, snapshot: SignedSnapshot, *, seq: int) -> None:
        """Keep a snapshot of the world at `seq`; older ones may be dropped."""
        ...

    async def snapshot(self) -> SignedSnapshot | None:
        """Return the newest snapshot, if there is one."""
        ...

    async def close(self) -> None:
        """Release the store."""
        ...


class Board(Protocol):
    """Where the PDP processes over one store show each other what each alone knows: never believed unsigned."""

    async def post(self, name: str, raw: bytes) -> None:
        """Show `raw` under `name`, in the place of what stood there."""
        ...

    async def posted(self) -> Mapping[str, bytes]:
        """Return what everybody shows, by name."""
        ...


class SharedLog(WorldLog, Board, Protocol):
    """A log that several PDPs write: besides the port, what only such a store needs."""

    async def forked(self) -> bytes:
        """Return the mark that stops every writer, or nothing."""
        ...

    async def mark_fork(self, told: bytes) -> None:
        """Set the mark, if there is none; empty removes it."""
        ...

    async def refill(self, entries: AsyncIterator[tuple[int, SignedEntry]], snapshot: SignedSnapshot | None) -> int:
        """Replace the whole log; returns the number of entries."""
        ...


class Archive(WorldLog, Protocol):
    """A PDP's own copy of the log."""

    async def truncate(self, *, after: int) -> None:
        """Forget the entries and snapshots above number `after`."""
        ...


class ReplicaStore(Protocol):
    """Where a replica keeps what it has verified, so that it can start without its PDP. Every call is durable on return."""

    async def save(self, entry: SignedEntry, *, seq: int) -> None:
        """Keep an entry that follows the stored world, and raise the high-water mark to `seq`."""
        ...

    async def save_snapshot(self, snapshot: SignedSnapshot, *, seq: int) -> None:
        """Replace the stored world and drop the entries up to `seq`."""
        ...

    async def save_heartbeat(self, heartbeat: SignedHeartbeat) -> None:
        """Keep the newest heartbeat."""
        ...

    async def load(self) -> tuple[SignedSnapshot | None, Sequence[SignedEntry], SignedHeartbeat | None, int]:
        """Return snapshot, tail, last heartbeat and high-water mark as stored, unverified."""
        ...

    async def save_root(self, raw: bytes, *, version: int) -> None:
        """Keep a root file that has been accepted."""
        ...

    async def roots(self) -> Sequence[bytes]:
        """Return the root files kept, oldest first, unverified."""
        ...

    async def reset(self, *, after: int) -> None:
        """Forget world, tail, heartbeat and mark: a root file has said that what follows `after` does not count."""
        ...


class Feed(Protocol):
    """One subscription to a PDP: iterate what comes down, send acknowledgements up."""

    def __aiter__(self) -> AsyncIterator[FeedItem]:
        """Yield what the PDP sends; ends when the PDP ends the feed.

        Raises:
            PortcullisError: `pdp_unreachable` if the connection breaks or falls silent, a credential reason if refused.
        """
        ...

    async def acknowledge(self, ack: Ack) -> None:
        """Tell the PDP what this replica enforces."""
        ...

    async def renew(self) -> bool:
        """Send a credential that has been exchanged since the last look; False if that takes a new subscription.

        Raises:
            PortcullisError: `pdp_unreachable` or a credential reason, as for `acknowledge`.
        """
        ...

    async def close(self) -> None:
        """End the subscription."""
        ...


class FeedSource(Protocol):
    """Where a replica follows the log."""

    def open(self, hello: Hello) -> Feed:
        """Begin a subscription from the position in `hello`."""
        ...


class AuditTrail(Protocol):
    """The decision log of this process."""

    async def record(self, records: Sequence[Mapping[str, Any]], *, durable: bool) -> None:
        """Append one group of records to the chain; with `durable`, return only once they are on disk.

        Raises:
            PortcullisError: `audit_unavailable` if a durable group could not be written in time.
        """
        ...

    @property
    def head(self) -> bytes:
        """Digest of the last record of the chain."""
        ...


class KeyStore(Protocol):
    """The verification keys of the configured issuers, however they are published."""

    async def key_set(self, issuer: Issuer, *, kid: str | None) -> KeySet | Refusal:
        """Return the usable keys of `issuer`, fetched again if they are old or lack `kid`; `keys_unavailable` if none."""
        ...


class LiveCheck(Protocol):
    """Asks an issuer whether a token still counts (IDENTITY.md KU-6, IS-5)."""

    async def review(self, issuer: Issuer, token: bytes) -> LiveAnswer | Refusal:
        """Return what the issuer says of `token`; `live_check_unavailable` if it does not answer."""
        ...


class ReplayMemory(Protocol):
    """Which one-time credentials were used. INVARIANT: of two calls with one key within its time, at most one gets None.

    `scope` says who shares it, in words.
    """

    @property
    def scope(self) -> str:
        """Who knows a used credential again."""
        ...

    async def use(self, key: bytes, *, ttl_s: float) -> Refusal | None:
        """Note the use of `key` for `ttl_s` seconds; `token_replayed` if it was noted, `replay_store_unavailable` if unknown."""
        ...

    async def close(self) -> None:
        """Release the store."""
        ...
