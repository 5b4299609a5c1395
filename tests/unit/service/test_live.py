"""Live checks: who is asked how often, what is remembered for how long, and that no trouble is a yes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from pdp.errors import Reason
from pdp.identity.introspection import Introspection
from pdp.identity.issuers import Issuer, IssuerTable
from pdp.identity.kubernetes import Review
from pdp.identity.types import Refusal, VerifiedIdentity
from pdp.identity.verifier import LiveAnswer
from pdp.service.authenticate import Authenticator
from pdp.service.live import LiveChecks
from pdp.signals.locks import LockSet
from tests.support import workloads
from tests.support.tokens import ALGS, ISS, NOW_S, entry, good_token, keys_of, reason_of, signer, table
from tests.unit.service.test_authenticate import Clock, Keys

YES = Review(
    authenticated=True,
    audiences=["portcullis"],
    username="system:serviceaccount:ml:scorer",
    uid=workloads.ACCOUNT_UID,
    pod_uid=workloads.POD_UID,
)
NO = Review(authenticated=False)
SILENCE = Refusal(reason=Reason.LIVE_CHECK_UNAVAILABLE)
INTROSPECTED = {"by": "introspection", "url": "https://login.example/introspect", "credential": "secret"}


class Place:
    """Where an issuer is asked: the test sets what it answers, and holds it back."""

    def __init__(self, answer: LiveAnswer | Refusal) -> None:
        self.answer = answer
        self.asked: list[bytes] = []
        self.began, self.open = asyncio.Event(), asyncio.Event()
        self.open.set()

    async def review(self, issuer: Issuer, token: bytes) -> LiveAnswer | Refusal:
        del issuer
        self.asked.append(token)
        self.began.set()
        await self.open.wait()
        if self.answer is BROKEN:
            raise RuntimeError
        return self.answer


BROKEN = Refusal(reason=Reason.INTERNAL_ERROR)


class Bench:
    def __init__(self, trust: IssuerTable, keys: Any, answer: LiveAnswer | Refusal, entries: int = 9) -> None:
        self.clock, self.place, held = Clock(), Place(answer), Keys()
        held.set = keys
        self.live = LiveChecks(source=self.place, clock=self.clock, entries=entries)
        self.door = Authenticator(issuers=trust, keys=held, clock=self.clock, live=self.live)

    async def enter(self, compact: str, action: str = "") -> Reason | None:
        outcome = await self.door.authenticate(f"Bearer {compact}", None, locks=LockSet.EMPTY, action=action)
        return reason_of(outcome)


def of_cluster(answer: LiveAnswer | Refusal, **changes: Any) -> Bench:
    entries = changes.pop("entries", 9)
    trust = workloads.workloads(live_check=workloads.REVIEWED | changes)
    return Bench(trust, workloads.cluster_keys(), answer, entries)


def of_login(answer: LiveAnswer | Refusal, **changes: Any) -> Bench:
    keys = keys_of(*(signer(alg) for alg in ALGS))
    return Bench(table(entry(live_check=INTROSPECTED | changes)), keys, answer)


def play(make: Callable[[], Bench], story: Callable[[Bench], Awaitable[None]]) -> None:
    async def inside() -> None:
        bench = make()
        try:
            await story(bench)
        finally:
            await bench.live.close()

    asyncio.run(inside())


def test_a_yes_serves_half_a_minute_and_a_no_five_seconds() -> None:
    async def story(bench: Bench) -> None:
        compact = workloads.account_token()
        assert await bench.enter(compact) is Reason.TOKEN_INACTIVE
        bench.place.answer = YES
        bench.clock.s = 4.9
        assert await bench.enter(compact) is Reason.TOKEN_INACTIVE
        assert len(bench.place.asked) == 1
        bench.clock.s = 5
        assert await bench.enter(compact) is None
        bench.place.answer = SILENCE
        bench.clock.s = 34.9
        assert await bench.enter(compact) is None
        bench.clock.s = 35
        assert await bench.enter(compact) is Reason.LIVE_CHECK_UNAVAILABLE
        assert bench.live.counters == {"asked": 3, "unanswered": 1}

    play(lambda: of_cluster(NO), story)


def test_no_answer_is_not_asked_for_again_within_a_second() -> None:
    async def story(bench: Bench) -> None:
        compact = workloads.account_token()
        for second, asked in ((0.0, 1), (0.9, 1), (1.0, 2)):
            bench.clock.s = second
            assert await bench.enter(compact) is Reason.LIVE_CHECK_UNAVAILABLE
            assert len(bench.place.asked) == asked

    play(lambda: of_cluster(SILENCE), story)


def test_a_fault_of_the_adapter_is_no_yes() -> None:
    async def story(bench: Bench) -> None:
        assert await bench.enter(workloads.account_token()) is Reason.LIVE_CHECK_UNAVAILABLE
        assert bench.live.counters["unanswered"] == 1

    play(lambda: of_cluster(BROKEN), story)


def test_without_a_place_to_ask_nobody_gets_in() -> None:
    async def story(bench: Bench) -> None:
        bench.door._live = None
        assert await bench.enter(workloads.account_token()) is Reason.LIVE_CHECK_UNAVAILABLE

    play(lambda: of_cluster(YES), story)


def test_all_who_hold_one_token_wait_for_one_question_and_none_ends_it() -> None:
    async def story(bench: Bench) -> None:
        bench.place.open.clear()
        compact = workloads.account_token()
        waiting = [asyncio.create_task(bench.enter(compact)) for _ in range(50)]
        await bench.place.began.wait()
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        bench.place.open.set()
        assert await asyncio.gather(*waiting[1:]) == [None] * 49
        assert len(bench.place.asked) == 1

    play(lambda: of_cluster(YES), story)


def test_a_door_with_less_patience_finds_the_answer_when_its_client_comes_back() -> None:
    async def story(bench: Bench) -> None:
        bench.place.open.clear()
        compact = workloads.account_token()
        first = asyncio.create_task(bench.enter(compact))
        await bench.place.began.wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        bench.place.open.set()
        assert await bench.enter(compact) is None
        assert len(bench.place.asked) == 1

    play(lambda: of_cluster(YES), story)


def test_each_token_has_an_answer_of_its_own_and_memory_is_bounded() -> None:
    async def story(bench: Bench) -> None:
        tokens = [workloads.account_token(jti=f"j{number}") for number in range(4)]
        for compact in tokens:
            assert await bench.enter(compact) is None
        assert bench.place.asked == [compact.encode() for compact in tokens]
        assert len(bench.live._known) == 3
        bench.place.answer = NO
        assert await bench.enter(tokens[3]) is None
        assert await bench.enter(tokens[0]) is Reason.TOKEN_INACTIVE

    play(lambda: of_cluster(YES, entries=3), story)


def test_a_token_that_does_not_hold_is_never_shown_to_the_issuer() -> None:
    async def story(bench: Bench) -> None:
        assert await bench.enter(workloads.account_token(exp=NOW_S - 31)) is Reason.TOKEN_EXPIRED
        good = workloads.account_token()
        assert await bench.enter(good[:-4] + "AAAA") is Reason.SIGNATURE_INVALID
        assert bench.place.asked == []

    play(lambda: of_cluster(YES), story)


def test_an_issuer_is_asked_before_the_actions_that_its_entry_names_and_before_unknown_ones() -> None:
    async def story(bench: Bench) -> None:
        compact = good_token()
        assert await bench.enter(compact, "dataset.read") is None
        assert bench.place.asked == []
        assert await bench.enter(compact, "model.promote") is Reason.TOKEN_INACTIVE
        assert await bench.enter(compact) is Reason.TOKEN_INACTIVE
        assert await bench.enter(compact, "dataset.read") is None

    play(lambda: of_login(Introspection(members={"active": False}), actions=["model.promote"]), story)


def test_a_yes_never_outlives_the_end_that_the_issuer_tells() -> None:
    """IS-5: an answer that is remembered is held against the clock of each use."""

    async def story(bench: Bench) -> None:
        compact = good_token()
        bench.clock.s = 28.9
        assert await bench.enter(compact) is None
        bench.clock.s = 29  # with a leeway of thirty seconds
        assert await bench.enter(compact) is Reason.TOKEN_INACTIVE
        assert len(bench.place.asked) == 1

    play(lambda: of_login(Introspection(members={"active": True, "exp": NOW_S - 1})), story)


def test_two_tokens_at_the_same_moment_never_get_each_others_answer() -> None:
    """Concurrency: each waiter gets the answer about its own bytes, whatever the order in which answers come."""

    class Turned(Place):
        async def review(self, issuer: Issuer, token: bytes) -> LiveAnswer | Refusal:
            del issuer
            self.asked.append(token)
            await asyncio.sleep(0)
            return Introspection(members={"active": token in self.good})

        good: frozenset[bytes] = frozenset()

    async def story(bench: Bench) -> None:
        tokens = [good_token(sub=f"u{number}@example.com", jti=f"{number}") for number in range(60)]
        place = Turned(SILENCE)
        place.good = frozenset(compact.encode() for compact in tokens[::2])
        bench.live._source = place
        asked = [
            bench.door.authenticate(f"Bearer {one}", None, locks=LockSet.EMPTY) for one in tokens for _ in range(3)
        ]
        for number, outcome in enumerate(await asyncio.gather(*asked)):
            whose = number // 3
            assert isinstance(outcome, VerifiedIdentity) is (whose % 2 == 0)
            if isinstance(outcome, VerifiedIdentity):
                assert outcome.party.principal.id == f"u{whose}@example.com"

    play(lambda: of_login(SILENCE), story)


def test_the_issuer_of_another_profile_cannot_answer() -> None:
    async def story(bench: Bench) -> None:
        assert await bench.enter(good_token()) is Reason.LIVE_CHECK_UNAVAILABLE
        assert bench.door.issuers.issuers[ISS].live_check is not None

    play(lambda: of_login(YES), story)
