"""Locks: setting one, removing it, and learning who enforces it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pdp.errors import BadRequestError, PortcullisError, Reason
from pdp.limits import MAX_LOCKS, MAX_SAFE_INTEGER
from pdp.model.names import Resource, ResourcePattern, printable
from pdp.ports import Clock
from pdp.replica import Replica
from pdp.service.replicate import Publisher, Receipt, Subscribers
from pdp.signals.locks import Lock, LockTarget
from pdp.world import World

LOCK: Final = "lock"
UNLOCK: Final = "unlock"
_LOCKS: Final = Resource.parse("lock/all")
"""What the right to remove a lock is on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """A lock that is in force, and who holds it."""

    lock: Lock
    receipt: Receipt


class Locks:
    """Adds, removes and lists locks."""

    def __init__(
        self,
        *,
        replica: Replica,
        publisher: Publisher,
        subscribers: Subscribers,
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        self._replica = replica
        self._publisher = publisher
        self._subscribers = subscribers
        self._clock = clock
        self._new_id = new_id

    async def add(self, target: LockTarget, *, reason: str, author: str, end_ms: int, wait_s: float) -> Locked:
        """Lock `target`, from now until `end_ms` (0: until removed).

        With `wait_s` above zero, return once every connected enforcement point holds the lock, or after so many seconds
        with those that do not yet; the lock is in force either way.

        Raises:
            BadRequestError: an end that has passed, a lock that could never be removed, or too many locks.
        """
        now_ms = self._replica.now_ms(self._clock.now_ms())
        if end_ms and not now_ms < end_ms <= MAX_SAFE_INTEGER:
            raise BadRequestError("a lock ends in the future, or not at all")
        if target.resource and ResourcePattern.parse(target.resource).matches(_LOCKS):
            # It would beat the right to remove it, for everybody: there would be no way back.
            raise BadRequestError(f"a lock on `{_LOCKS}` could never be removed")
        if sum(1 for _ in self._replica.world.locks) >= MAX_LOCKS:
            raise BadRequestError(f"there are {MAX_LOCKS} locks already: remove those that have ended")
        payload = {
            "id": self._new_id(),
            "target": target.to_json(),
            "reason": reason,
            "source": author,
            "start_ms": now_ms,
            "end_ms": end_ms,
        }
        seq = await self._publisher.publish_behind(LOCK, payload, author=author)
        receipt = await self._subscribers.wait_all(seq, timeout_s=wait_s)
        return Locked(lock=Lock.from_json({**payload, "world_seq": seq}), receipt=receipt)

    async def remove(self, lock_id: str, *, author: str) -> int:
        """Remove a lock and return the number of the world without it.

        Raises:
            PortcullisError: `not_found`.
        """
        if all(lock.id != lock_id for lock in self._replica.world.locks):
            message = f"there is no lock `{printable(lock_id)}`"
            raise PortcullisError(Reason.NOT_FOUND, message, advice="pdp lock list")
        return await self._publisher.publish_behind(UNLOCK, {"id": lock_id}, author=author)

    def all(self) -> tuple[list[Lock], World]:
        """Return every lock in the order of its start, and the world they are in."""
        world = self._replica.world
        return sorted(world.locks, key=lambda lock: (lock.start_ms, lock.id)), world
