"""The asyncio client: the twin of `client.py`, method for method."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from pdp.limits import WATCH_PAUSE_S, WATCH_RENEW_S
from pdp.sdk._core import BATCH, EXPLAIN, WATCH, Core, Watching
from pdp.sdk._flights import Desk
from pdp.sdk._lists import Paging
from pdp.sdk._loop import LoopBatcher
from pdp.sdk._settings import Settings
from pdp.sdk._transport import AsyncTransport
from pdp.sdk.errors import AccessDenied, Conflict, PdpError
from pdp.sdk.lease import AsyncLease
from pdp.sdk.values import Circumstances, Decision, Listing, Question, Subject, Terms


class AsyncClient:
    """Asks a PDP from asyncio. Belongs to the event loop of its first call; not for the child of a fork.

    Args:
        server: `host:port`; None: environment variable `PDP_SERVER`.
        token: our credential: the token, a `Path` to a file that may rotate, or a function. None: `PDP_TOKEN_FILE`.
        ca: PEM file of the authorities we accept. None: `PDP_CA`.
        cert: PEM file of our certificate, which names our workload. None: `PDP_CERT`.
        key: PEM file of its key. None: `PDP_KEY`.
        timeout_s: deadline of each call in seconds, at most 30; 5 by default.
        cache_s: how long an allow is kept and given again, in seconds, at most 15; 2 by default, 0: not at all. A lock
            reaches this client within that time; an answer from a newer world empties the cache at once.

    Raises:
        ConfigError: an argument, file or environment variable that cannot be used.

    Example:
        >>> async with AsyncClient("pdp.example:8181", token=Path("/var/run/secrets/pdp/token")) as client:
        ...     await client.require("dataset.read", "dataset/finance/transactions")
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        token: str | Path | Callable[[], str] | None = None,
        ca: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        timeout_s: float | None = None,
        cache_s: float | None = None,
    ) -> None:
        settings = Settings.resolve(
            server, token=token, ca=ca, cert=cert, key=key, timeout_s=timeout_s, cache_s=cache_s
        )
        self._core = Core(settings)
        self._transport = AsyncTransport(self._core)
        self._checks = LoopBatcher(Desk(self._core, mono_s=time.monotonic), self._transport)

    async def check(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> Decision:
        """Return the decision; a deny is an answer, not an error. Concurrent checks travel together by themselves.

        Args:
            action: `<type>.<verb>`, such as `dataset.read`.
            resource: `<type>/<path>[@<version>]`, such as `model/fraud@7`.
            **circumstances: `subject`, `workload`, `serves`, `attributes`, `supports`, as in `Question`.

        Raises:
            PdpError: the question could not be asked or answered; treat the access as denied.
        """
        return await self._checks.ask(Question(action=action, resource=resource, **circumstances))

    async def require(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> Decision:
        """Return the decision if it is an allow. Arguments as in `check`.

        Raises:
            AccessDenied: it is a deny; the error holds the decision, its reason and its id.
            PdpError: the question could not be asked or answered.
        """
        decision = await self.check(action, resource, **circumstances)
        if not decision.allowed:
            raise AccessDenied(decision, action=action, resource=resource)
        return decision

    async def check_many(self, questions: Sequence[Question | tuple[str, str]]) -> tuple[Decision, ...]:
        """Return the decisions to at most 1,000 questions, in order, all on one world.

        Args:
            questions: each a `Question`, or just `(action, resource)`.

        Raises:
            PdpError: the questions could not be asked or answered; treat every access as denied.
        """
        self._core.check_usable()
        asked = [Question.of(question) for question in questions]
        if not asked:
            return ()
        request = self._core.ask_many(asked)
        return self._core.answers(asked, request.at_least, await self._transport.unary(BATCH, request))

    async def explain(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> Decision:
        """Return the decision with its role path and, for a deny, the rule that came closest. As `check` otherwise."""
        question = Question(action=action, resource=resource, **circumstances)
        self._core.check_usable()
        request = self._core.ask(question)
        response = await self._transport.unary(EXPLAIN, request)
        return self._core.answer(question, request.at_least, response.decision)

    def watch(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> AsyncIterator[Decision]:
        """Yield the current decision, then every change, until the watched access has ended. Arguments as in `check`.

        The watch renews itself, so that a PDP that hangs is noticed: within 15 seconds the iterator raises. Close the
        iterator to stop.

        Raises:
            PdpError: the access can no longer be decided; cut it.
        """
        watching = Watching(self._core, Question(action=action, resource=resource, **circumstances))
        return self._watch(watching)

    def lease(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> AsyncLease:
        """Return a lease to enter by `async with`: granted while the block runs. Arguments as in `check`.

        Entering raises `AccessDenied` or `PdpError`; when access ends the task is cancelled, and the block raises
        `AccessEnded`.
        """
        watching = Watching(self._core, Question(action=action, resource=resource, **circumstances))
        return AsyncLease(self._watch(watching), action=action, resource=resource, check_usable=self._core.check_usable)

    async def who_can(self, action: str, resource: str, **terms: Unpack[Terms]) -> Listing:
        """Return everyone who can do `action` to `resource`: principals, groups and workload patterns of the policy.

        Needs the right `policy.read`.

        Args:
            action: `<type>.<verb>`, such as `dataset.read`.
            resource: `<type>/<path>[@<version>]`, such as `model/fraud@7`.
            **terms: `workload`, `attributes`, as in `Terms`.

        Raises:
            PdpError: the list could not be had whole; there is no partial one.
        """
        return await self._list(Paging.who_can(self._core, action, resource, terms))

    async def what_can(self, subject: Subject = None, **terms: Unpack[Terms]) -> Listing:
        """Return all that `subject` (None: we ourselves) can do to registered assets. Terms and errors as in `who_can`."""
        return await self._list(Paging.what_can(self._core, subject, terms))

    async def actions(self, resource: str, subject: Subject = None, **terms: Unpack[Terms]) -> Listing:
        """Return what `subject` (None: we ourselves) can do to `resource`. Terms and errors as in `who_can`."""
        return await self._list(Paging.actions(self._core, resource, subject, terms))

    @property
    def world_seq(self) -> int:
        """The highest world that any answer came from; every question asks for at least this one."""
        return self._core.world_seq

    @property
    def one_identity(self) -> bool:
        """True if every question is asked by the same credential; a token function may answer each caller otherwise."""
        return not callable(self._core.settings.token)

    async def close(self) -> None:
        """Close the connection. A closed client refuses further calls."""
        self._checks.close()
        await self._transport.close()

    async def __aenter__(self) -> Self:
        self._core.check_usable()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _list(self, paging: Paging[Any]) -> Listing:
        self._core.check_usable()
        while not paging.done:
            try:
                paging.take(await self._transport.unary(paging.rpc, paging.message()))
            except Conflict as error:
                paging.again(error)
        return paging.listing()

    async def _watch(self, watching: Watching) -> AsyncGenerator[Decision]:
        while not watching.ended:
            if watching.pause:
                await asyncio.sleep(WATCH_PAUSE_S)
            call = self._transport.stream(WATCH, watching.open(), timeout_s=WATCH_RENEW_S, patient=watching.begun)
            try:
                async with aclosing(call):
                    async for response in call:
                        decision = watching.hear(response)
                        if decision is not None:
                            yield decision
            except PdpError as error:
                watching.closed(error)
            else:
                watching.closed()
