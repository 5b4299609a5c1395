"""Local mode in asyncio: the twin of `LocalClient`, with the calls of `AsyncClient`.

    async with AsyncLocalClient(LocalClient(...)) as client:
        await client.require("dataset.read", "dataset/finance/transactions")

An allow that stands recorded is decided at once, in the event loop. Whatever waits (a record on its way to the disk, a token
to verify) waits in a thread, and the loop goes on.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from pdp.sdk.errors import AccessDenied
from pdp.sdk.lease import AsyncLease
from pdp.sdk.local import LocalClient
from pdp.sdk.values import Circumstances, Decision, Listing, Question, Subject, Terms

T = TypeVar("T")


class AsyncLocalClient:
    """Decides in this process, for asyncio code; closes the `LocalClient` that it is made of."""

    def __init__(self, client: LocalClient) -> None:
        self._client = client

    async def check(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> Decision:
        """Return the decision, as `LocalClient.check`."""
        if not circumstances:
            decision = self._client.at_once(action, resource)
            if decision is not None:
                return decision
        return await _thread(self._client.check, action, resource, **circumstances)

    async def require(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> Decision:
        """Return the decision if it is an allow, as `LocalClient.require`."""
        decision = await self.check(action, resource, **circumstances)
        if not decision.allowed:
            raise AccessDenied(decision, action=action, resource=resource)
        return decision

    async def check_many(self, questions: Sequence[Question | tuple[str, str]]) -> tuple[Decision, ...]:
        """Return the decisions in order, as `LocalClient.check_many`."""
        return await _thread(self._client.check_many, questions)

    async def explain(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> Decision:
        """Return the decision with the nearest miss, as `LocalClient.explain`."""
        return await _thread(self._client.explain, action, resource, **circumstances)

    def watch(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> AsyncIterator[Decision]:
        """Yield the decision and every change of it, as `LocalClient.watch`."""
        return self._watch(Question(action=action, resource=resource, **circumstances))

    def lease(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> AsyncLease:
        """Return a lease to enter by `async with`, as `AsyncClient.lease`."""
        watch = self._watch(Question(action=action, resource=resource, **circumstances))
        return AsyncLease(watch, action=action, resource=resource, check_usable=self._client.check_usable)

    async def who_can(self, action: str, resource: str, **terms: Unpack[Terms]) -> Listing:
        """Return everyone who can, as `LocalClient.who_can`."""
        return await _thread(self._client.who_can, action, resource, **terms)

    async def what_can(self, subject: Subject = None, **terms: Unpack[Terms]) -> Listing:
        """Return what a subject can, as `LocalClient.what_can`."""
        return await _thread(self._client.what_can, subject, **terms)

    async def actions(self, resource: str, subject: Subject = None, **terms: Unpack[Terms]) -> Listing:
        """Return what a subject can do to one resource, as `LocalClient.actions`."""
        return await _thread(self._client.actions, resource, subject, **terms)

    @property
    def world_seq(self) -> int:
        """The number of the world held."""
        return self._client.world_seq

    @property
    def one_identity(self) -> bool:
        """True if every question is asked by the same credential."""
        return self._client.one_identity

    async def close(self) -> None:
        """Ship what is recorded and stop."""
        await asyncio.to_thread(self._client.close)

    async def __aenter__(self) -> Self:
        self._client.check_usable()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _watch(self, question: Question) -> AsyncGenerator[Decision]:
        watched = self._client.watched(question)
        decisions = iter(watched)
        try:
            while (decision := await _thread(next, decisions, None)) is not None:
                yield decision
        finally:
            watched.stop()


async def _thread(work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    return await asyncio.to_thread(work, *args, **kwargs)
