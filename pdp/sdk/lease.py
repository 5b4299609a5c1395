"""Leases: an access that stays granted while a block runs, and ends with it, or before.

    with client.lease("dataset.read", "dataset/finance/transactions") as lease:
        for batch in lease.iterate(scanner):
            train(batch)

A lease is a Watch in the background. When access ends (a grant revoked, a lock, the credential's end, obligations that
changed, a PDP that can no longer say), blocking code gets `AccessEnded` at its next `check()` or at the next item of
`iterate`, and asyncio code is cancelled, with `AccessEnded` raised by the block. An ended lease stays ended.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from pdp.errors import PortcullisError, Reason
from pdp.limits import GOODBYE_S
from pdp.model.decision import Obligation
from pdp.sdk.errors import AccessDenied, AccessEnded
from pdp.sdk.values import Decision

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Batches(Protocol[T_co]):
    """What is read batch by batch: an Arrow scanner, dataset or table."""

    def to_batches(self) -> Iterable[T_co]:
        """Return the batches."""
        ...


class _Held:
    """What is known of one lease: the decision it stands on, and why it ended. Sans I/O."""

    def __init__(self, action: str, resource: str) -> None:
        self.action = action
        self.resource = resource
        self.decision: Decision | None = None
        self.ended: AccessEnded | None = None
        self.refusal: PortcullisError | None = None

    def hear(self, decision: Decision) -> None:
        """Take a decision of the watch."""
        if self.decision is None:
            self.decision = decision
            if not decision.allowed:
                self.refusal = AccessDenied(decision, action=self.action, resource=self.resource)
        elif not decision.allowed:
            self._end(decision.reason, decision)
        elif decision.obligations != self.decision.obligations:
            # What is being read was opened under the old ones, and cannot be narrowed in its midst.
            self._end(Reason.OBLIGATION_UNSUPPORTED, decision, detail=_changed(decision.obligations))

    def closed(self, error: PortcullisError | None = None) -> None:
        """Take the end of the watch: nobody can say any more that access is granted."""
        if self.decision is None:
            told = "the watch ended before it began"
            self.refusal = error or PortcullisError(Reason.PDP_UNREACHABLE, told, advice="treat it as denied")
        elif error is not None:
            self._end(error.reason, None, detail=error.message, cause=error)
        else:
            self._end(Reason.PDP_UNREACHABLE, None, detail="the watch ended")

    def left(self) -> None:
        """Take the end of the block."""
        self._end(Reason.BAD_REQUEST, None, detail="its block was left; open a new lease")

    def _end(
        self, reason: Reason, decision: Decision | None, *, detail: str = "", cause: PortcullisError | None = None
    ) -> None:
        if self.ended is None:
            self.ended = AccessEnded(
                reason, action=self.action, resource=self.resource, decision=decision, detail=detail
            )
            self.ended.__cause__ = cause

    @property
    def over(self) -> bool:
        """True if there is nothing more to follow."""
        return self.ended is not None or self.refusal is not None

    def entered(self) -> None:
        """Return if the lease is granted, else raise why not."""
        if self.refusal is not None:
            raise self.refusal

    def check(self) -> None:
        """Return if the lease still holds, else raise why not."""
        if self.ended is not None:
            raise self.ended.again()
        if self.decision is None:
            raise AccessEnded(Reason.BAD_REQUEST, action=self.action, resource=self.resource, detail="not entered")


class Watched(Protocol):
    """A watch that another thread may stop."""

    def __iter__(self) -> Iterator[Decision]:
        """Yield the current decision and every change."""
        ...

    def stop(self) -> None:
        """End the iteration, from whatever thread."""
        ...


class Lease:
    """A granted access that lasts as long as the block, from `Client.lease`; one block only. Safe for threads."""

    def __init__(self, watched: Watched, *, action: str, resource: str, check_usable: Callable[[], None]) -> None:
        self._watched = watched
        self._held = _Held(action, resource)
        self._check_usable = check_usable
        self._known = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"lease {resource}", daemon=True)

    @property
    def decision(self) -> Decision:
        """The decision that the lease stands on: its obligations are to be carried out."""
        self._held.check()
        if self._held.decision is None:
            raise AssertionError("checked above")
        return self._held.decision

    def check(self) -> None:
        """Return if access is still granted; costs no call.

        Raises:
            AccessEnded: it is not; stop what you do.
            ClientUnusable: this is the child of a fork, which no news reaches.
        """
        self._check_usable()
        self._held.check()

    def iterate(self, source: Iterable[T] | Batches[T]) -> Iterator[T]:
        """Yield the items of `source` while access is granted: an Arrow scanner's batches, a file's lines, a loader's items.

        Raises:
            AccessEnded: before an item that may no longer be seen, even if it was read already.
        """
        items = iter(source.to_batches() if hasattr(source, "to_batches") else source)
        while True:
            self.check()
            try:
                item = next(items)
            except StopIteration:
                return
            self.check()
            yield item

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._known.wait()
            self._held.entered()
        except BaseException:
            self._watched.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.left()
        self._watched.stop()
        self._thread.join(GOODBYE_S)

    def _follow(self) -> None:
        failure: PortcullisError | None = None
        try:
            for decision in self._watched:
                self._held.hear(decision)
                if self._held.over:
                    break
                self._known.set()
        except PortcullisError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - the outermost boundary of this thread: unforeseen is ended, never held
            failure = PortcullisError(Reason.INTERNAL_ERROR, f"the watch failed: {type(error).__name__}")
        if not self._held.over:
            self._held.closed(failure)
        self._known.set()


class AsyncLease:
    """The same for asyncio, from `AsyncClient.lease`: when access ends, the task that entered the block is cancelled."""

    def __init__(
        self, watch: AsyncGenerator[Decision], *, action: str, resource: str, check_usable: Callable[[], None]
    ) -> None:
        self._watch = watch
        self._held = _Held(action, resource)
        self._check_usable = check_usable
        self._known = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._owner: asyncio.Task[Any] | None = None
        self._inside = False
        self._cut = False
        self._cancels = 0
        self.cancels = True
        """False: the end of access cancels nothing, for code that waits for `ended` itself, such as a generator."""

    @property
    def decision(self) -> Decision:
        """The decision that the lease stands on: its obligations are to be carried out."""
        self._held.check()
        if self._held.decision is None:
            raise AssertionError("checked above")
        return self._held.decision

    def check(self) -> None:
        """Return if access is still granted, as `Lease.check`; needed only where code never awaits."""
        self._check_usable()
        self._held.check()

    async def ended(self) -> None:
        """Wait until access has ended, or the block was left."""
        if self._following is not None:
            await asyncio.wait({self._following})

    async def iterate(self, source: AsyncIterable[T] | Iterable[T] | Batches[T]) -> AsyncIterator[T]:
        """Yield the items of `source` while access is granted, and let the event loop run between two of them."""
        if isinstance(source, AsyncIterable):
            async for item in source:
                self.check()
                yield item
            return
        for item in source.to_batches() if hasattr(source, "to_batches") else source:
            await asyncio.sleep(0)
            self.check()
            yield item

    async def __aenter__(self) -> Self:
        self._owner = asyncio.current_task()
        self._following = asyncio.create_task(self._follow())
        try:
            await self._known.wait()
            self._held.entered()
            self._held.check()
        except BaseException:
            self._following.cancel()
            raise
        self._cancels = self._owner.cancelling() if self._owner is not None else 0
        self._inside = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside = False
        if self._following is not None:
            self._following.cancel()
        ended = self._held.ended
        if not self._cut:
            self._held.left()
            return
        others = self._owner.uncancel() > self._cancels if self._owner is not None else False
        if kind is None:
            await _swallow_cancellation()
        if ended is not None and not others and (kind is None or issubclass(kind, asyncio.CancelledError)):
            raise ended.again() from error

    async def _follow(self) -> None:
        failure: PortcullisError | None = None
        try:
            async with aclosing(self._watch) as decisions:
                async for decision in decisions:
                    self._held.hear(decision)
                    if self._held.over:
                        break
                    self._known.set()
        except PortcullisError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - the outermost boundary of this task: unforeseen is ended, never held
            failure = PortcullisError(Reason.INTERNAL_ERROR, f"the watch failed: {type(error).__name__}")
        if not self._held.over:
            self._held.closed(failure)
        self._known.set()
        if self._inside and self._owner is not None and self.cancels:
            self._cut = True
            self._owner.cancel()


async def _swallow_cancellation() -> None:
    """Take the cancellation that was ordered and not delivered, or the next await of the task would get it."""
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        return


def _changed(obligations: tuple[Obligation, ...]) -> str:
    duties = ", ".join(map(str, obligations)) or "none"
    return f"its obligations changed to {duties}: open it again under these"
