"""Deciding as a use case: record before answer, one world per call, and watching until the access ends."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from pdp.errors import PortcullisError, Reason
from pdp.model.decision import Answer, Decision
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import CredentialFacts, Party, Question
from pdp.replica import Replica
from pdp.service.decide import Decider
from pdp.service.watch import watch
from pdp.trust.entry import seal_heartbeat
from pdp.trust.verifier import Refused
from pdp.world import empty_world
from tests.support.logs import HandClock
from tests.support.worlds import START_MS, TENANT, Scribe, keys, verifier, verifier_head

POLICY = """\
g, user:sam@x, role:app, prod
p, role:app, endpoint.invoke, endpoint/**, prod, , , allow
p2, segment:none, endpoint.invoke, segment:serving, , allow
"""
ASSETS = {"endpoint/digits": {"environment": "prod", "segment": "segment:serving", "sensitivity": "high"}}
pytestmark = pytest.mark.anyio
LOCK = {"kind": "principal", "principal": "user:sam@x"}


@dataclass
class Trail:
    """A decision log that can be made to fail: the real one cannot, on command."""

    records: list[dict[str, Any]] = field(default_factory=list)
    durable: list[bool] = field(default_factory=list)
    failing: bool = False
    head: bytes = b""

    async def record(self, records: Sequence[Mapping[str, Any]], *, durable: bool) -> None:
        if self.failing and durable:
            raise PortcullisError(Reason.AUDIT_UNAVAILABLE, "the disk is full")
        self.records += [dict(record) for record in records]
        self.durable.append(durable)


@dataclass
class Scene:
    scribe: Scribe
    replica: Replica
    decider: Decider
    trail: Trail
    clock: HandClock

    def take(self) -> None:
        """Put every entry of the log in force."""
        for entry in self.scribe.entries[self.replica.world.seq :]:
            prepared = self.replica.prepare(entry, now_ms=self.clock.now_ms())
            assert not isinstance(prepared, Refused), prepared
            self.replica.commit(prepared)

    def beat(self) -> None:
        beat = seal_heartbeat(
            tenant=TENANT, head=verifier_head(self.scribe.world), time_ms=self.clock.now_ms(), key=keys().timestamp
        )
        assert self.replica.heard(beat, now_ms=self.clock.now_ms(), mono_s=self.clock.mono_s()) is True


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def scene() -> Scene:
    scribe = Scribe()
    scribe.policy(POLICY)
    scribe.assets(**ASSETS)
    replica, trail, clock = Replica(verifier=verifier(), world=empty_world(TENANT)), Trail(), HandClock(START_MS)
    numbers = itertools.count()
    decider = Decider(replica=replica, audit=trail, clock=clock, new_id=lambda: f"d{next(numbers)}")
    made = Scene(scribe=scribe, replica=replica, decider=decider, trail=trail, clock=clock)
    made.take()
    made.beat()
    return made


def question(subject: str = "user:sam@x", **more: Any) -> Question:
    return Question(
        subject=Party(principal=Principal.parse(subject)),
        action=Action.parse("endpoint.invoke"),
        resource=Resource.parse("endpoint/digits"),
        **more,
    )


async def test_an_allow_leaves_only_after_its_durable_record(scene: Scene) -> None:
    answer = await scene.decider.answer(question())
    assert answer.decision.allowed
    assert scene.trail.durable == [True]
    (record,) = scene.trail.records
    assert (record["decision_id"], record["effect"], record["world_seq"]) == (answer.decision_id, "allow", 2)


async def test_an_allow_that_cannot_be_recorded_is_a_deny(scene: Scene) -> None:
    scene.trail.failing = True
    decision = (await scene.decider.answer(question())).decision
    assert (decision.allowed, decision.reason) == (False, Reason.AUDIT_UNAVAILABLE)


async def test_a_deny_is_recorded_and_does_not_wait(scene: Scene) -> None:
    scene.trail.failing = True
    decision = (await scene.decider.answer(question("user:stranger@x"))).decision
    assert decision.reason is Reason.NO_GRANT
    assert scene.trail.durable == [False]


async def test_a_batch_is_one_world_and_one_group_of_records(scene: Scene) -> None:
    answers = await scene.decider.answer_many([question(), question("user:stranger@x"), question()])
    assert [answer.decision.allowed for answer in answers] == [True, False, True]
    assert {answer.decision.world_seq for answer in answers} == {2}
    assert scene.trail.durable == [True]
    assert len({answer.decision_id for answer in answers}) == 3


async def test_an_empty_batch_is_an_empty_answer(scene: Scene) -> None:
    assert await scene.decider.answer_many([]) == ()


async def test_a_world_that_does_not_come_is_world_behind(scene: Scene) -> None:
    with pytest.raises(PortcullisError) as refused:
        await scene.decider.answer(question(), at_least=9, wait_s=0.0)
    assert refused.value.reason is Reason.WORLD_BEHIND
    assert scene.trail.records == []


async def test_an_answer_waits_for_the_world_it_needs(scene: Scene) -> None:
    scene.scribe.lock("l", LOCK)
    waiting = asyncio.create_task(scene.decider.answer(question(), at_least=3, wait_s=10.0))
    await asyncio.sleep(0)
    assert not waiting.done()
    scene.take()
    assert (await waiting).decision.reason is Reason.LOCKED


async def test_past_the_bound_of_the_asset_an_allow_is_a_deny(scene: Scene) -> None:
    scene.clock.advance(15)
    assert (await scene.decider.answer(question())).decision.allowed
    scene.clock.advance(0.001)
    assert (await scene.decider.answer(question())).decision.reason is Reason.WORLD_STALE
    scene.beat()
    assert (await scene.decider.answer(question())).decision.allowed


async def test_a_refusal_before_a_question_is_recorded(scene: Scene) -> None:
    answer = await scene.decider.refuse(Reason.TOKEN_EXPIRED, detail="over", door="ext_authz", resource="endpoint/x")
    assert not answer.decision.allowed
    assert scene.trail.records[0]["reason"] == "token_expired"


async def collect(answers: AsyncIterator[Answer], into: asyncio.Queue[Answer | None]) -> None:
    async for answer in answers:
        into.put_nowait(answer)
    into.put_nowait(None)


def start(scene: Scene, asked: Question, **more: Any) -> tuple[asyncio.Task[None], asyncio.Queue[Answer | None]]:
    seen: asyncio.Queue[Answer | None] = asyncio.Queue()
    answers = watch(scene.decider, scene.replica, scene.clock, asked, **more)
    return asyncio.create_task(collect(answers, seen)), seen


async def next_reason(seen: "asyncio.Queue[Answer | None]") -> Reason | None:
    answer = await asyncio.wait_for(seen.get(), 10)
    return answer.decision.reason if answer else None


async def test_a_watch_tells_each_change_once(scene: Scene) -> None:
    task, seen = start(scene, question())
    assert await next_reason(seen) is Reason.GRANTED
    scene.scribe.assets(**{"endpoint/other": ASSETS["endpoint/digits"]})
    scene.take()  # a new world that changes nothing for this question
    scene.scribe.lock("l", LOCK)
    scene.take()
    assert await next_reason(seen) is Reason.LOCKED
    scene.scribe.write("unlock", {"id": "l"})
    scene.take()
    assert await next_reason(seen) is Reason.GRANTED
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [record["reason"] for record in scene.trail.records] == ["granted", "locked", "granted"]


async def test_a_watch_ends_when_the_watched_credential_does(scene: Scene) -> None:
    facts = CredentialFacts(issuer="https://i", jti="j", expires_at_s=START_MS // 1000 + 5)
    task, seen = start(scene, question(credential=facts))
    assert await next_reason(seen) is Reason.GRANTED
    scene.clock.advance(5)
    scene.scribe.assets(**{"endpoint/other": ASSETS["endpoint/digits"]})
    scene.take()  # the look that a new world causes finds the credential over
    assert await next_reason(seen) is Reason.TOKEN_EXPIRED
    assert await next_reason(seen) is None
    await task


async def test_a_watch_ends_quietly_when_the_callers_credential_does(scene: Scene) -> None:
    task, seen = start(scene, question(), caller_expires_at_s=START_MS // 1000)
    assert await next_reason(seen) is Reason.GRANTED
    assert await next_reason(seen) is None
    await task


async def test_a_clock_behind_signed_time_makes_no_busy_loop_of_a_watch(scene: Scene) -> None:
    """For policy the credential has ended, by the wall clock it has not: the next look is due now, again and again."""
    scene.clock.wall_ms -= 60_000
    facts = CredentialFacts(issuer="https://i", jti="j", expires_at_s=START_MS // 1000 - 30)
    looks, recheck = [], scene.decider.recheck

    def counted(asked: Question) -> Decision:
        looks.append(asked)
        return recheck(asked)

    scene.decider.recheck = counted  # type: ignore[method-assign]
    task, seen = start(scene, question(credential=facts))
    assert await next_reason(seen) is Reason.GRANTED
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(looks) < 10
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
