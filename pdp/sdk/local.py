"""Local mode: a verified replica in the process decides without the network. Same calls, same answers, same audit path.

    from pdp.sdk import LocalClient

    with LocalClient("pdp.example:8181", root_digest="9f…", trust="trust.yaml", state_dir="/var/lib/pdp-sdk") as client:
        client.require("dataset.read", "dataset/finance/transactions")

It follows the PDP as a sidecar does, so its credential needs `replica.subscribe` and `audit.append` beside `decision.ask`
(the shipped roles `enforcement-point` and `member`). It goes on deciding while the PDP is away, for as long as an asset's
sensitivity allows (`world_stale` after that). Every check is decided anew on the world of now; an allow leaves after its
record is durable in `state_dir`, from where records are shipped to the PDP; the same allow again within `cache_s` in the
same world is the same access and leaves no second record. Needs the extra `server`.
"""

import asyncio
import queue
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack

from pdp.ask import NOWHERE
from pdp.ask import Terms as EngineTerms
from pdp.errors import PortcullisError, Reason
from pdp.identity.types import Refusal
from pdp.limits import LOCAL_TOKEN_READ_S, MAX_BATCH, WATCH_RENEW_S
from pdp.model import decision as model
from pdp.model.decision import Answer
from pdp.model.listed import Listed
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party
from pdp.sdk._core import Core, same_access
from pdp.sdk._local_questions import DOOR, Admitted, Prepared, Reader, refused, told
from pdp.sdk._machine import LocalSettings, Machine
from pdp.sdk._settings import Settings
from pdp.sdk.errors import AccessDenied, BadQuestion, typed
from pdp.sdk.lease import Lease
from pdp.sdk.values import Circumstances, Decision, Listing, Question, Subject, Terms
from pdp.service.lists import Page, PageRequest
from pdp.service.watch import watch

T = TypeVar("T")
_STARTS: Final = 3
"""How often a list is begun anew when the world moves on between two pages, as in the remote client."""


class LocalClient:
    """Decides in this process. Safe for threads; not for the child of a fork.

    Args:
        server: `host:port` of the PDP to follow; None: environment variable `PDP_SERVER`.
        root_digest: SHA-256 of the PDP's `root.json` in hex: whom to believe is never learned from the network.
        trust: the issuer table `trust.yaml`, by which our own credential is verified.
        state_dir: a directory of this process alone, for world and records; made if it is not there.
        token: our credential, as in `Client`. A file is read again at least every second.
        ca: PEM file of the authorities we accept. None: `PDP_CA`.
        cert: PEM file of our certificate, which names our workload. None: `PDP_CERT`.
        key: PEM file of its key. None: `PDP_KEY`.
        tenant: whose log it is.
        timeout_s: deadline of each call in seconds, at most 30; 5 by default.
        cache_s: for how long the same allow is not recorded again, in seconds, at most 15; 2 by default.
        start_timeout_s: how long to wait for the first fresh world, in seconds.

    Raises:
        ConfigError: an argument or file that cannot be used, or a PDP with another root of trust.
        PdpUnavailable: no fresh world was had in time.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        root_digest: str,
        trust: str | Path,
        state_dir: str | Path,
        token: str | Path | Callable[[], str] | None = None,
        ca: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        tenant: str = "main",
        timeout_s: float | None = None,
        cache_s: float | None = None,
        start_timeout_s: float = 10.0,
    ) -> None:
        settings = Settings.resolve(
            server, token=token, ca=ca, cert=cert, key=key, timeout_s=timeout_s, cache_s=cache_s
        )
        local = LocalSettings(root_digest=root_digest, trust=Path(trust), state_dir=Path(state_dir), tenant=tenant)
        self._core = Core(settings)
        self._machine = Machine(settings, local)
        self._reader = Reader(self._machine)
        self._admitted: Admitted | None = None
        self._token = ("", 0.0)
        self._machine.start(start_timeout_s)

    def check(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> Decision:
        """Return the decision; a deny is an answer, not an error. As `Client.check`."""
        admitted = self._admit()
        name = (action, resource)
        prepared = None if circumstances else admitted.prepared.get(name)
        if prepared is None:
            question = Question(action=action, resource=resource, **circumstances)
            read = self._run(self._reader.read(question, admitted))
            if isinstance(read, Refusal):
                return self._refuse(read, question, admitted)
            prepared = Prepared(read)
            if not circumstances:
                admitted.remember(name, prepared)
        return self._decide(prepared, admitted)

    def at_once(self, action: str, resource: str) -> Decision | None:
        """Return the decision of `check` if it needs neither record nor verification, so that nothing waits; else None."""
        self._core.check_usable()
        now_s = time.monotonic()
        admitted = self._current(self._shown(now_s), now_s)
        prepared = admitted.prepared.get((action, resource)) if admitted is not None else None
        if prepared is None:
            return None
        return _recorded(prepared, self._machine.decider.recheck(prepared.question), now_s)

    def require(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> Decision:
        """Return the decision if it is an allow. As `Client.require`.

        Raises:
            AccessDenied: it is a deny.
        """
        decision = self.check(action, resource, **circumstances)
        if not decision.allowed:
            raise AccessDenied(decision, action=action, resource=resource)
        return decision

    def check_many(self, questions: Sequence[Question | tuple[str, str]]) -> tuple[Decision, ...]:
        """Return the decisions to at most 1,000 questions, in order, all on one world. As `Client.check_many`."""
        admitted = self._admit()
        asked = [Question.of(question) for question in questions]
        if len(asked) > MAX_BATCH:
            raise BadQuestion(Reason.BAD_REQUEST, f"at most {MAX_BATCH} questions are asked at once")
        return self._run(self._many(asked, admitted))

    def explain(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> Decision:
        """Return the decision with its role path and, for a deny, the rule that came closest. As `check` otherwise."""
        admitted = self._admit()
        question = Question(action=action, resource=resource, **circumstances)
        return self._run(self._many([question], admitted, explain=True))[0]

    def watch(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> Iterator[Decision]:
        """Yield the current decision, then every change, until the watched access has ended. As `Client.watch`."""
        return iter(self.watched(Question(action=action, resource=resource, **circumstances)))

    def lease(self, action: str, resource: str, **circumstances: Unpack[Circumstances]) -> Lease:
        """Return a lease to enter by `with`: granted while the block runs. As `Client.lease`."""
        watched = self.watched(Question(action=action, resource=resource, **circumstances))
        return Lease(watched, action=action, resource=resource, check_usable=self._core.check_usable)

    def who_can(self, action: str, resource: str, **terms: Unpack[Terms]) -> Listing:
        """Return everyone who can do `action` to `resource`. As `Client.who_can`; needs `policy.read`."""
        admitted = self._admit()

        async def page(wanted: PageRequest) -> Page:
            await self._reader.may_read_policy(admitted)
            asked, about = Action.parse(action), Resource.parse(resource)
            named = await self._terms(terms, admitted, own=False)
            return await self._machine.lists.who_can(asked, about, named, wanted)

        return self._list(page)

    def what_can(self, subject: Subject = None, **terms: Unpack[Terms]) -> Listing:
        """Return all that `subject` (None: we ourselves) can do to registered assets. As `Client.what_can`."""
        admitted = self._admit()

        async def page(wanted: PageRequest) -> Page:
            party = await self._party(subject, admitted)
            named = await self._terms(terms, admitted, own=subject is None)
            return await self._machine.lists.what_can(party, named, wanted)

        return self._list(page)

    def actions(self, resource: str, subject: Subject = None, **terms: Unpack[Terms]) -> Listing:
        """Return what `subject` (None: we ourselves) can do to `resource`. As `Client.actions`."""
        admitted = self._admit()

        async def page(wanted: PageRequest) -> Page:
            party = await self._party(subject, admitted)
            named = await self._terms(terms, admitted, own=subject is None)
            return await self._machine.lists.actions(party, Resource.parse(resource), named, wanted)

        return self._list(page)

    @property
    def world_seq(self) -> int:
        """The number of the world held."""
        return self._machine.replica.world.seq

    @property
    def staleness_s(self) -> float:
        """How old the newest proof is that the world held is the current one, in seconds."""
        return self._machine.staleness_s()

    @property
    def one_identity(self) -> bool:
        """True if every question is asked by the same credential; a token function may answer each caller otherwise."""
        return not callable(self._core.settings.token)

    def check_usable(self) -> None:
        """Return, or raise `ClientUnusable`: closed, or made before a fork."""
        self._core.check_usable()

    def close(self) -> None:
        """Ship what is recorded and stop. A closed client refuses further calls."""
        if self._core.close():
            self._machine.stop()

    def __enter__(self) -> Self:
        self._core.check_usable()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Who we are.

    def _admit(self) -> Admitted:
        self._core.check_usable()
        now_s = time.monotonic()
        token = self._shown(now_s)
        admitted = self._current(token, now_s)
        if admitted is None:
            admitted = self._admitted = self._run(self._reader.admit(token))
        return admitted

    def _current(self, token: str, now_s: float) -> Admitted | None:
        """Return who we are, if that still stands."""
        admitted = self._admitted
        if admitted is None or admitted.world is not self._machine.replica.world:
            return None
        return admitted if admitted.token == token and now_s < admitted.until_s else None

    def _shown(self, now_s: float) -> str:
        """Return our token. A file is read once a second: the read would cost more than the decision."""
        if not isinstance(self._core.settings.token, Path):
            return self._core.settings.read_token()
        token, until_s = self._token
        if now_s >= until_s:
            token = self._core.settings.read_token()
            self._token = (token, now_s + LOCAL_TOKEN_READ_S)
        return token

    # Deciding.

    def _decide(self, prepared: Prepared, admitted: Admitted) -> Decision:
        decider = self._machine.decider
        moment = decider.moment()
        decision = moment.decide(prepared.question)
        now_s = time.monotonic()
        again = _recorded(prepared, decision, now_s)
        if again is not None:
            return again
        confirmed = decider.confirm(prepared.question, decision, moment, caller=admitted.name, door=DOOR)
        answer = self._reader.seen(self._run(confirmed), prepared.question, admitted)
        outcome = told(answer.decision, answer.decision_id)
        if outcome.allowed:
            prepared.told = outcome
            prepared.until_s = now_s + self._core.settings.cache_s
        return outcome

    def _refuse(self, refusal: Refusal, question: Question, admitted: Admitted) -> Decision:
        return self._run(self._refusal(refusal, question, admitted))

    async def _refusal(self, refusal: Refusal, question: Question, admitted: Admitted) -> Decision:
        """Record a question whose credential does not hold; the caller learns the code, the record the detail."""
        answer = await self._machine.decider.refuse(
            refusal.reason,
            detail=refusal.detail,
            door=DOOR,
            action=question.action,
            resource=question.resource,
            caller=admitted.name,
        )
        return refused(refusal.reason, answer.decision.world_seq, answer.decision_id)

    async def _many(
        self, asked: Sequence[Question], admitted: Admitted, *, explain: bool = False
    ) -> tuple[Decision, ...]:
        read = [await self._reader.read(question, admitted) for question in asked]
        questions = [item for item in read if not isinstance(item, Refusal)]
        answers = iter(
            await self._machine.decider.answer_many(questions, explain=explain, caller=admitted.name, door=DOOR)
        )
        outcomes = []
        for item, question in zip(read, asked, strict=True):
            if isinstance(item, Refusal):
                outcomes.append(await self._refusal(item, question, admitted))
            else:
                answer = self._reader.seen(next(answers), item, admitted)
                outcomes.append(told(answer.decision, answer.decision_id))
        return tuple(outcomes)

    # Watching.

    def watched(self, question: Question) -> "_LocalWatch":
        """Return a watch that one thread iterates and any other may stop."""
        self._core.check_usable()
        return _LocalWatch(self._machine, lambda: self._follow(question))

    async def _follow(self, question: Question) -> AsyncGenerator[Decision]:
        """Yield decisions; as the remote watch, it begins anew every few seconds, with the credential of then."""
        last: Decision | None = None
        while True:
            admitted = await self._reader.admit(self._core.settings.read_token())
            read = await self._reader.read(question, admitted)
            if isinstance(read, Refusal):
                yield await self._refusal(read, question, admitted)
                return
            machine = self._machine
            answers = watch(
                machine.decider,
                machine.watches,
                machine.clock,
                read,
                caller=admitted.name,
                caller_expires_at_s=admitted.identity.expires_at_s,
            )
            async for answer in _for_a_while(answers):
                shown = self._reader.seen(answer, read, admitted)
                decision = told(shown.decision, shown.decision_id)
                if last is None or not same_access(decision, last):
                    last = decision
                    yield decision
                if decision.reason is Reason.TOKEN_EXPIRED:
                    return

    # Lists.

    async def _party(self, subject: Subject, admitted: Admitted) -> Party:
        who = await self._reader.who(subject, admitted)
        if isinstance(who, Refusal):
            raise PortcullisError(who.reason, "the credential in the question does not hold")
        return who.party

    async def _terms(self, terms: Terms, admitted: Admitted, *, own: bool) -> EngineTerms:
        """Return what is known of the questions: we ask from where we are, about others from anywhere."""
        attributes = await self._reader.attributes(terms.get("attributes", {}), admitted)
        workload, ours = terms.get("workload", ""), admitted.identity.workload
        if not workload:
            return EngineTerms(attributes=attributes, anywhere=not own, workload=ours if own else None)
        named = None if workload == NOWHERE else Principal.parse(workload)
        return EngineTerms(attributes=attributes, anywhere=False, workload=named)

    def _list(self, page: Callable[[PageRequest], Coroutine[Any, Any, Page]]) -> Listing:
        return self._run(_whole(page))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._machine.run(work, timeout_s=self._core.settings.timeout_s)


def _recorded(prepared: Prepared, decision: model.Decision, now_s: float) -> Decision | None:
    """Return the allow that stands recorded, if `decision` is the same one."""
    recorded = prepared.told
    if recorded is None or now_s >= prepared.until_s or not _same_allow(decision, recorded):
        return None
    soon_s = decision.recheck_after_s
    return recorded if soon_s == recorded.recheck_after_s else replace(recorded, recheck_after_s=soon_s)


def _same_allow(decision: model.Decision, recorded: Decision) -> bool:
    """Tell whether an allow is the one that stands recorded: of the same world, by the same rules, with the same duties."""
    return (
        decision.allowed
        and decision.world_seq == recorded.world_seq
        and decision.determining == recorded.determining
        and decision.obligations == recorded.obligations
    )


async def _whole(page: Callable[[PageRequest], Coroutine[Any, Any, Page]]) -> Listing:
    """Return all pages of a list, begun anew if the world moves on meanwhile, at most three times."""
    for start in range(_STARTS):
        entries: list[Listed] = []
        cursor = ""
        try:
            while True:
                part = await page(PageRequest(cursor=cursor))
                entries.extend(part.entries)
                cursor = part.next_cursor
                if not cursor:
                    return Listing(entries=tuple(entries), world_seq=part.world_seq)
        except PortcullisError as error:
            if error.reason is not Reason.CONFLICT or start == _STARTS - 1:
                raise
    raise AssertionError("the last start returns or raises")


async def _for_a_while(answers: AsyncGenerator[Answer]) -> AsyncGenerator[Answer]:
    """Yield what `answers` tells until it ends or it is time to look at our credential again."""
    async with aclosing(answers):
        end_s = time.monotonic() + WATCH_RENEW_S
        waiting = asyncio.ensure_future(anext(answers, None))
        try:
            while True:
                await asyncio.wait({waiting}, timeout=max(0.0, end_s - time.monotonic()))
                answer = waiting.result() if waiting.done() else None
                if answer is None:
                    return
                yield answer
                waiting = asyncio.ensure_future(anext(answers, None))
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


class _LocalWatch:
    """A watch on the machine's loop, iterated by one thread and stopped by any."""

    def __init__(self, machine: Machine, decisions: Callable[[], AsyncGenerator[Decision]]) -> None:
        self._machine = machine
        self._decisions = decisions
        self._told: queue.SimpleQueue[Decision | PortcullisError | None] = queue.SimpleQueue()
        self._task: asyncio.Task[None] | None = None

    def __iter__(self) -> Iterator[Decision]:
        self._task = self._machine.soon(self._follow())
        try:
            while (item := self._told.get()) is not None:
                if isinstance(item, PortcullisError):
                    raise typed(item)
                yield item
        finally:
            self.stop()

    def stop(self) -> None:
        """End the iteration."""
        if self._task is not None:
            self._machine.end(self._task)
        self._told.put(None)

    async def _follow(self) -> None:
        try:
            async with aclosing(self._decisions()) as decisions:
                async for decision in decisions:
                    self._told.put(decision)
        except PortcullisError as error:
            self._told.put(error)
        finally:
            self._told.put(None)
