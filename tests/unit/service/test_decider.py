"""Deciding as a use case: record before answer, one world per call, and watching until the access ends."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from pdp.audit.record import Circumstances, DecisionRecord
from pdp.errors import PortcullisError, Reason
from pdp.model import canonical
from pdp.model.decision import Answer
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import CredentialFacts, Party, Question
from pdp.replica import Replica
from pdp.service import watch as watching
from pdp.service.decide import Decider, Moment
from pdp.service.watch import watch
from pdp.service.watch_index import Watches
from pdp.trust.entry import seal_heartbeat
from pdp.trust.verifier import Refused
from pdp.world import World, empty_world
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


@pytest.mark.holds("P8", "S1")
async def test_an_allow_leaves_only_after_its_durable_record(scene: Scene) -> None:
    answer = await scene.decider.answer(question())
    assert answer.decision.allowed
    assert scene.trail.durable == [True]
    (record,) = scene.trail.records
    assert (record["decision_id"], record["effect"], record["world_seq"]) == (answer.decision_id, "allow", 2)


@pytest.mark.holds("P2", "S1")
async def test_an_allow_that_cannot_be_recorded_is_a_deny(scene: Scene) -> None:
    scene.trail.failing = True
    decision = (await scene.decider.answer(question())).decision
    assert (decision.allowed, decision.reason) == (False, Reason.AUDIT_UNAVAILABLE)


@pytest.mark.holds("S1")
async def test_a_deny_is_recorded_and_does_not_wait(scene: Scene) -> None:
    scene.trail.failing = True
    decision = (await scene.decider.answer(question("user:stranger@x"))).decision
    assert decision.reason is Reason.NO_GRANT
    assert scene.trail.durable == [False]


async def test_a_question_that_is_kept_is_about_the_asset_of_the_world_in_force(scene: Scene) -> None:
    """Also where nothing but the asset is another: what was settled is forgotten with its world."""
    kept = question()
    answers = [await scene.decider.answer(kept) for _ in range(2)]
    scene.scribe.assets(**{"endpoint/digits": {**ASSETS["endpoint/digits"], "environment": "dev"}})
    scene.take()
    answers += [await scene.decider.answer(kept) for _ in range(2)]
    assert [(answer.decision.allowed, answer.decision.world_seq) for answer in answers] == [
        (True, 2), (True, 2), (False, 3), (False, 3)
    ]  # fmt: skip


async def test_a_question_that_is_kept_is_looked_at_again_when_its_credential_ends(scene: Scene) -> None:
    facts = CredentialFacts(issuer="https://i", jti="j", expires_at_s=START_MS // 1000 + 7)
    kept = question(credential=facts)
    first = await scene.decider.answer(kept)
    scene.clock.wall_ms += 3_000
    later = await scene.decider.answer(kept)
    assert (first.decision.recheck_after_s, later.decision.recheck_after_s) == (7.0, 4.0)
    assert kept.settled is not None
    assert kept.settled.decision.recheck_after_s is None
    one, two = scene.trail.records
    assert {**one, **dict.fromkeys(("decision_id", "now_ms", "time_ms", "staleness_ms"))} == {
        **two, **dict.fromkeys(("decision_id", "now_ms", "time_ms", "staleness_ms"))
    }  # fmt: skip


@pytest.mark.holds("P4", "S1")
async def test_a_batch_is_one_world_and_one_group_of_records(scene: Scene) -> None:
    answers = await scene.decider.answer_many([question(), question("user:stranger@x"), question()])
    assert [answer.decision.allowed for answer in answers] == [True, False, True]
    assert {answer.decision.world_seq for answer in answers} == {2}
    assert scene.trail.durable == [True]
    assert len({answer.decision_id for answer in answers}) == 3


async def test_an_empty_batch_is_an_empty_answer(scene: Scene) -> None:
    assert await scene.decider.answer_many([]) == []


@pytest.mark.holds("P5")
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


@pytest.mark.holds("P6")
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
    answers = watch(scene.decider, Watches(scene.replica), scene.clock, asked, **more)
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


@pytest.mark.holds("F12")
async def test_a_clock_behind_signed_time_makes_no_busy_loop_of_a_watch(scene: Scene) -> None:
    """For policy the credential has ended, by the wall clock it has not: the next look is due now, again and again."""
    scene.clock.wall_ms -= 60_000
    facts = CredentialFacts(issuer="https://i", jti="j", expires_at_s=START_MS // 1000 - 30)
    looks, moment = [], scene.decider.moment

    def counted() -> Moment:
        looks.append(moment())
        return looks[-1]

    scene.decider.moment = counted  # type: ignore[method-assign]
    task, seen = start(scene, question(credential=facts))
    assert await next_reason(seen) is Reason.GRANTED
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(looks) < 10
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


RICH = """\
g, group:team, role:app, prod
g, user:temp@x, role:app, prod, _, 2026-09-21T14:13:21Z
g, agent:bot, role:app, prod
p, role:app, endpoint.invoke, endpoint/**, prod, "subject.acr == 'gold'", max_tokens=7, allow
p, role:app, endpoint.invoke, endpoint/**, prod, "request.n > 3 || 'x' in request.outputs", recheck_after=10s, allow
p, role:app, endpoint.invoke, endpoint/**, prod, now > timestamp('2040-01-01T00:00:00Z'), , deny
p2, segment:apps, endpoint.invoke, segment:serving, , allow
g3, workload:spiffe://t/**, segment:apps
"""


def replayed(record: Mapping[str, Any], world: World) -> dict[str, Any]:
    """Decide again from nothing but a record and its world, and write the record anew."""
    asked = Question(
        subject=Party(principal=Principal.parse(record["principal"]), groups=frozenset(record["groups"])),
        actors=tuple(
            Party(principal=Principal.parse(actor["principal"]), groups=frozenset(actor["groups"]))
            for actor in record["actors"]
        ),
        action=Action.parse(record["action"]),
        resource=Resource.parse(record["resource"]),
        workload=Principal.parse(record["workload"]) if record["workload"] else None,
        serves=Resource.parse(record["serves"]) if record["serves"] else None,
        attributes=as_attributes(record["attributes"]),
        claims=as_attributes(record["claims"]),
        credential=CredentialFacts(**record["credential"]),
        supports=None if record["supports"] is None else frozenset(record["supports"]),
    )
    moment = Moment(
        world=world,
        now_ms=record["now_ms"],
        staleness_ms=record["staleness_ms"],
        clock_off=record["clock_off"],
    )
    around = Circumstances(
        now_ms=moment.now_ms,
        staleness_ms=moment.staleness_ms,
        clock_off=moment.clock_off,
        door=record["door"],
        caller=record["caller"],
        time_ms=record["time_ms"],
    )
    decision, digest = moment.decide(asked), record["resource_digest"]
    return DecisionRecord(
        decision_id=record["decision_id"], decision=decision, question=asked, digest=digest, around=around
    ).plain()


def as_attributes(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}


def rich_questions() -> Iterator[Question]:
    """Yield questions that differ in each thing that a decision reads."""
    web = Principal.parse("workload:spiffe://t/web")
    facts = CredentialFacts(issuer="https://i", jti="j", session="s", issued_at_s=5, expires_at_s=START_MS // 1000 + 60)
    team = Party(principal=Principal.parse("user:sam@x"), groups=frozenset({"group:team"}))
    plain = Question(
        subject=team,
        action=Action.parse("endpoint.invoke"),
        resource=Resource.parse("endpoint/digits"),
        workload=web,
        claims={"subject.acr": "gold", "subject.amr": ("pwd", "otp")},
        attributes={"request.n": 2, "request.outputs": ("x", "y"), "request.stream": True},
        credential=facts,
    )
    yield plain
    yield replace(plain, claims={"subject.acr": "silver"})
    yield replace(plain, claims={}, attributes={})
    yield replace(plain, attributes={"request.n": 4})
    yield replace(plain, attributes={"request.unheard_of": 4})
    yield replace(plain, subject=Party(principal=team.principal))
    yield replace(plain, subject=Party(principal=Principal.parse("user:temp@x")))
    yield replace(plain, actors=(Party(principal=Principal.parse("agent:bot")), Party(principal=web)))
    yield replace(plain, actors=(Party(principal=Principal.parse("agent:other")),))
    yield replace(plain, workload=None)
    yield replace(plain, supports=frozenset({"recheck_after"}))
    yield replace(plain, supports=frozenset())
    yield replace(plain, serves=Resource.parse("model/digits@1"))
    yield replace(plain, serves=Resource.parse("model/shadow@1"))
    yield replace(plain, credential=replace(facts, jti="locked"))
    yield replace(plain, resource=Resource.parse("endpoint/shadow"))
    yield replace(plain, action=Action.parse("endpoint.scale"))


async def test_a_record_replays_its_decision_bit_for_bit(scene: Scene) -> None:
    """ARCHITECTURE section 7, Audit: nothing that the decision read is missing from its record."""
    scene.scribe.policy(RICH)
    scene.scribe.assets(**{"model/digits@1": {"environment": "prod", "digest": "sha256:" + "a" * 64}})
    world = scene.scribe.lock("l", {"kind": "jti", "issuer": "https://i", "value": "locked"})
    scene.take()
    for seconds, skew_ms in ((0.0, 0), (0.0005, 0), (14.9999, 0), (0.0002, 0), (0.0, 300_000)):
        scene.clock.advance(seconds)
        scene.clock.wall_ms += skew_ms
        await scene.decider.answer_many(list(rich_questions()), caller="user:gate", door="grpc")
        await scene.decider.answer_many(list(rich_questions()), explain=True)
    reasons = {record["reason"] for record in scene.trail.records}
    assert {"granted", "no_grant", "locked", "world_stale", "asset_unregistered", "delegation_denied"} <= reasons
    for record in scene.trail.records:
        kept = canonical.loads(canonical.dumps(record))
        assert canonical.dumps(replayed(kept, world)) == canonical.dumps(record)


@pytest.mark.holds("F12")
async def test_a_clock_that_is_off_denies_what_a_timed_role_allows(scene: Scene) -> None:
    scene.scribe.policy(POLICY + "g, user:temp@x, role:app, prod, _, 2030-01-01T00:00:00Z\n")
    scene.take()
    for skew_ms, allowed in ((-120_000, True), (-1, False), (120_001, True), (120_000, True), (1, False)):
        scene.clock.wall_ms += skew_ms
        answer = await scene.decider.answer(question("user:temp@x"))
        assert answer.decision.allowed is allowed
        assert scene.trail.records[-1]["clock_off"] is not allowed
        assert (await scene.decider.answer(question())).decision.allowed


async def test_a_watch_tells_of_a_role_that_starts(scene: Scene) -> None:
    scene.scribe.policy(POLICY + "g, user:temp@x, role:app, prod, 2026-09-21T14:13:20.005Z, _\n")
    scene.take()
    task, seen = start(scene, question("user:temp@x"))
    assert await next_reason(seen) is Reason.NO_GRANT
    scene.clock.advance(0.006)
    assert await next_reason(seen) is Reason.GRANTED
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_watch_tells_of_a_decision_log_that_is_written_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "AUDIT_RETRY_S", 0.0)
    scene.trail.failing = True
    task, seen = start(scene, question())
    assert await next_reason(seen) is Reason.AUDIT_UNAVAILABLE
    scene.trail.failing = False
    assert await next_reason(seen) is Reason.GRANTED
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_slow_reader_does_not_lengthen_what_a_watched_decision_may_stand(scene: Scene) -> None:
    scene.scribe.policy(POLICY + "g, user:temp@x, role:app, prod, _, 2026-09-21T14:14:20Z\n")
    scene.take()
    answers = watch(scene.decider, Watches(scene.replica), scene.clock, question("user:temp@x"))
    assert (await anext(answers)).decision.allowed
    scene.clock.advance(60)  # while the reader was busy, the role ended
    scene.beat()
    later = await asyncio.wait_for(anext(answers), 10)
    assert later.decision.reason is Reason.NO_GRANT
    await answers.aclose()  # type: ignore[attr-defined]
