"""What a policy remembers of its own answers: never another answer than it would give anew."""

import gc
from dataclasses import replace
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any, Final, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp import decide as decisions
from pdp.decide import SEGMENTATION, decide
from pdp.engine.compiler import Snapshot
from pdp.engine.evaluate import EngineRequest
from pdp.engine.memory import Kept, Memory
from pdp.engine.recall import recall
from pdp.errors import Reason
from pdp.limits import RECALL_ENTRIES
from pdp.model.attributes import Value
from pdp.model.decision import Effect, Settled
from pdp.model.names import NO_SEGMENT, Action, Principal, Resource
from pdp.model.request import CredentialFacts, Party, Question
from pdp.world import Policy, World
from tests.support.worlds import START_MS, Scribe

POLICY = """\
g, group:team, role:app, prod
g, user:sam@x, role:app, dev
g, user:temp@x, role:app, prod, 2026-09-21T14:13:20.010Z, 2026-09-21T14:13:20.030Z
g, user:temp@x, role:barred, prod, 2026-09-21T14:13:20.020Z, _
g, agent:bot, role:app, prod
p, role:app, endpoint.invoke, endpoint/**, dev, , , allow
p, role:app, endpoint.invoke, endpoint/**, prod, "subject.acr == 'gold'", max_tokens=7, allow
p, role:app, endpoint.invoke, endpoint/**, prod, "request.n > 3", recheck_after=10s, allow
p, role:app, endpoint.invoke, endpoint/**, prod, resource.sensitivity == 'low', , allow
p, role:app, endpoint.invoke, endpoint/**, prod, "subject.id in resource.approvals", , deny
p, role:app, endpoint.invoke, endpoint/night, prod, now > timestamp('2026-09-21T14:13:20.025Z'), , allow
p, role:barred, endpoint.invoke, endpoint/**, prod, , , deny
p2, segment:apps, endpoint.invoke, segment:serving, , allow
p2, segment:none, endpoint.invoke, segment:none, resource.environment == 'dev', allow
p2, segment:apps, endpoint.invoke, segment:none, request.n == 4, allow
g3, workload:spiffe://t/**, segment:apps
"""
SERVED: Final[dict[str, Any]] = {"environment": "prod", "segment": "segment:serving", "approvals": ["user:ana@x"]}
UNPLACED: Final = {"environment": "dev", "approvals": ["user:ana@x"]}
NAMES: Final = ("workload:spiffe://t/web", "endpoint.invoke", "endpoint/a")
TEAM = frozenset({"group:team"})
PARTIES = st.builds(
    Party,
    principal=st.sampled_from(["user:sam@x", "user:temp@x", "agent:bot", "workload:spiffe://t/web"]).map(
        Principal.parse
    ),
    groups=st.sampled_from([frozenset(), TEAM]),
)
QUESTIONS = st.builds(
    Question,
    subject=PARTIES,
    action=st.just(Action.parse("endpoint.invoke")),
    resource=st.sampled_from(["endpoint/a", "endpoint/night"]).map(Resource.parse),
    actors=st.lists(PARTIES, max_size=2).map(tuple),
    workload=st.none() | st.just(Principal.parse("workload:spiffe://t/web")),
    attributes=st.sampled_from([{}, {"request.n": 3}, {"request.n": 4}]),
    claims=st.sampled_from([{}, {"subject.acr": "gold"}, {"subject.acr": "silver"}, {"resource.sensitivity": "low"}]),
    credential=st.sampled_from(
        [CredentialFacts(), CredentialFacts(issuer="https://i", expires_at_s=START_MS // 1000 + 9)]
    ),
    supports=st.sampled_from([None, frozenset(), frozenset({"max_tokens", "recheck_after"})]),
)
TIMES = st.sampled_from([-5, 5, 15, 22, 27, 35])
"""Between the instants at which something in `POLICY` starts or ends."""
ASKED = st.tuples(
    st.integers(0, 4),
    st.integers(0, 1),
    st.lists(TIMES, min_size=1, max_size=3),
    st.integers(0, 9).map(lambda n: n == 0),
)


@cache
def worlds() -> tuple[World, ...]:
    """Return worlds that hold one snapshot, with assets that differ, and one of another policy."""
    scribe = Scribe()
    scribe.policy(POLICY)
    first = scribe.assets(**{"endpoint/a": SERVED, "endpoint/night": SERVED})
    low = scribe.assets(**{"endpoint/a": SERVED | {"sensitivity": "low", "approvals": ["user:sam@x"]}})
    dev = scribe.assets(**{"endpoint/a": UNPLACED, "endpoint/night": UNPLACED})
    barred = scribe.policy(POLICY + "p, role:app, endpoint.invoke, endpoint/a, prod, , , deny\n")
    scribe.policy(POLICY)
    scribe.assets(**{"endpoint/a": SERVED, "endpoint/night": SERVED})
    locked = scribe.lock("l1", {"kind": "principal", "principal": "user:sam@x"}, end_ms=START_MS + 20)
    return first, low, dev, barred, locked


def forgetful(world: World, like: World | None = None) -> World:
    """Return the same world with a policy that has not said anything yet, or with the one that `like` holds."""
    assert world.policy is not None
    if like is not None and like.policy is not None and like.revision == world.revision:
        return replace(world, policy=like.policy)
    return replace(world, policy=replace(world.policy, snapshot=replace(world.policy.snapshot)))


@given(questions=st.tuples(QUESTIONS, QUESTIONS), asked=st.lists(ASKED, min_size=2, max_size=8))
def test_a_remembered_answer_is_the_answer(
    questions: tuple[Question, Question], asked: list[tuple[int, int, list[int], bool]]
) -> None:
    """Whatever was asked before: of other assets, policies and attributes, and at times before and after."""
    first = forgetful(worlds()[0])
    remembering = [forgetful(world, first) for world in worlds()]
    for world, number, times, clock_off in asked:
        for now_ms in (START_MS + after_ms for after_ms in times):
            # Of a copy: on the question itself, this answer would take the place of what is settled.
            anew = decide(forgetful(worlds()[world]), replace(questions[number]), now_ms, clock_off=clock_off)
            assert decide(remembering[world], questions[number], now_ms, clock_off=clock_off) == anew


def question(**more: Any) -> Question:
    subject = Party(principal=Principal.parse("user:sam@x"), groups=TEAM)
    web = Principal.parse("workload:spiffe://t/web")
    action, resource = Action.parse("endpoint.invoke"), Resource.parse("endpoint/a")
    return Question(subject=subject, action=action, resource=resource, workload=web, **more)


def test_the_same_question_is_not_evaluated_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    world = forgetful(worlds()[0])
    asked = question(attributes={"request.n": 4})
    first = decide(world, asked, START_MS)
    assert first.allowed
    monkeypatch.setattr(decisions, "grant_request", None)
    monkeypatch.setattr(decisions, "segmentation_request", None)
    assert decide(world, asked, START_MS + 1) == first


def test_the_same_outcomes_make_the_same_decision_once() -> None:
    world = forgetful(worlds()[0])
    asked = question(attributes={"request.n": 4})
    first = decide(world, asked, START_MS)
    assert decide(world, asked, START_MS + 1) is first
    later = replace(world, seq=world.seq + 1)
    assert decide(later, asked, START_MS) == replace(first, world_seq=later.seq)
    unable = decide(world, replace(asked, supports=frozenset()), START_MS)
    assert unable.reason is Reason.OBLIGATION_UNSUPPORTED
    assert decide(world, asked, START_MS) == first


@pytest.mark.parametrize("first", [4, 4.0])
def test_another_type_of_the_same_value_is_another_question(first: float) -> None:
    """`4 == 4.0` in Python: an attribute that a condition refuses must not find what another one was told."""
    snapshot = forgetful(worlds()[0]).snapshot
    assert snapshot is not None

    def said(n: float) -> Effect:
        request = EngineRequest(SEGMENTATION, NAMES, {"dst": (NO_SEGMENT,)}, {"request.n": n})
        kept = recall(
            snapshot, SEGMENTATION, START_MS, said=NAMES, given=frozenset(), asset=None,
            brought=request.attributes, attributes=request.attributes,
            request=lambda: request,
        )  # fmt: skip
        return Effect(kept.outcome.effect)

    said(first)
    assert (said(4), said(4.0)) == (Effect.ALLOW, Effect.DENY)


def test_the_two_noughts_are_two_questions() -> None:
    scribe = Scribe()
    snapshot = scribe.policy(POLICY.replace("resource.environment == 'dev'", "1.0 / signal.drift_p > 0.0")).snapshot
    assert snapshot is not None
    names = (NO_SEGMENT, "endpoint.invoke", NO_SEGMENT)

    def said(nought: float) -> Effect:
        request = EngineRequest(SEGMENTATION, names, {}, {"signal.drift_p": nought})
        kept = recall(
            snapshot, SEGMENTATION, START_MS, said=names, given=frozenset(), asset=None, brought={},
            attributes=request.attributes, request=lambda: request,
        )  # fmt: skip
        return Effect(kept.outcome.effect)

    assert [said(nought) for nought in (0.0, -0.0, 0.0)] == [Effect.ALLOW, Effect.DENY, Effect.ALLOW]


def test_nobody_fills_a_memory_with_long_texts() -> None:
    scribe = Scribe()
    scribe.policy(
        "g, user:sam@x, role:app, prod\np, role:app, dataset.read, dataset/a, prod, request.purpose != '', , allow\n"
        "p2, segment:none, dataset.read, segment:none, , allow\n"
    )
    world = scribe.assets(**{"dataset/a": {"environment": "prod"}})
    assert world.snapshot is not None
    memory = world.snapshot.memory

    def kept(purpose: str) -> int:
        asked = Question(
            subject=Party(principal=Principal.parse("user:sam@x")),
            action=Action.parse("dataset.read"),
            resource=Resource.parse("dataset/a"),
            attributes={"request.purpose": purpose},
        )
        before = len(memory)
        decide(world, asked, START_MS)
        return len(memory) - before

    assert kept("audit") > 0
    assert [kept(f"{number}" + "x" * 4_000) for number in range(9)] == [0] * 9


def test_a_role_that_starts_and_ends_is_looked_at_anew() -> None:
    world = forgetful(worlds()[0])
    temp = Party(principal=Principal.parse("user:temp@x"))
    asked = replace(question(attributes={"request.n": 4}), subject=temp)
    times = (5, 15, 22, 35, 5, 15)
    reasons = [decide(world, asked, START_MS + after_ms).reason.value for after_ms in times]
    assert reasons == ["no_grant", "granted", "denied_by_rule", "denied_by_rule", "no_grant", "granted"]


def test_a_link_that_only_shortens_the_way_is_looked_at_anew() -> None:
    """The outcome does not change by it; the role path does."""
    scribe = Scribe()
    longer = "g, user:way@x, role:a, prod\ng, role:a, role:app, prod\n"
    scribe.policy(
        POLICY + longer + "g, user:way@x, role:app, prod, 2026-09-21T14:13:20.010Z, 2026-09-21T14:13:20.020Z\n"
    )
    world = scribe.assets(**{"endpoint/a": SERVED})
    asked = replace(question(attributes={"request.n": 4}), subject=Party(principal=Principal.parse("user:way@x")))
    lengths = [len(decide(world, asked, START_MS + after_ms).role_path) for after_ms in (5, 15, 25)]
    assert lengths == [3, 2, 3]


def asserted(name: str = "user:sam@x", **more: Any) -> Question:
    """Return a question that no credential bounds, which is asked again as it is."""
    return replace(question(**more), subject=Party(principal=Principal.parse(name), groups=TEAM))


def test_what_neither_time_nor_a_lock_can_change_stands_as_long_as_the_world() -> None:
    world = forgetful(worlds()[0])
    asked = asserted(attributes={"request.n": 4})
    first = decide(world, asked, START_MS)
    assert asked.settled is not None
    assert asked.settled.decision is first
    assert decide(world, asked, START_MS + 35) is first
    for other in (forgetful(worlds()[2]), forgetful(worlds()[3])):
        assert decide(other, asked, START_MS) == decide(other, replace(asked), START_MS) != first
    assert decide(world, asked, START_MS) == first


def test_a_question_keeps_no_world_alive() -> None:
    asked = asserted(attributes={"request.n": 4})
    decide(forgetful(worlds()[0]), asked, START_MS)
    found: list[Any] = [asked.settled]
    for item in found:
        found.extend(
            other for other in gc.get_referents(item) if not isinstance(other, type | ModuleType) and other not in found
        )
    assert Settled in map(type, found)
    assert not any(isinstance(item, World | Policy | Snapshot) for item in found)


@pytest.mark.parametrize(
    "unsettled",
    [
        asserted("user:temp@x", attributes={"request.n": 4}),
        replace(asserted(), resource=Resource.parse("endpoint/night")),
    ],
    ids=["a role that starts", "a condition on the time"],
)
def test_what_time_can_change_is_not_settled(unsettled: Question) -> None:
    world = forgetful(worlds()[0])
    decide(world, unsettled, START_MS)
    decide(world, unsettled, START_MS + 1)
    assert unsettled.settled is None


def test_of_what_is_settled_a_credential_that_ends_brings_the_next_look_forward_each_time() -> None:
    world, facts = forgetful(worlds()[0]), CredentialFacts(issuer="i", expires_at_s=START_MS // 1000 + 12)
    asked = asserted(attributes={"request.n": 4}, credential=facts)
    looks = []
    for after_ms in (0, 1_000, 5_000, 13_000, 1_000):
        decision = decide(world, asked, START_MS + after_ms)
        assert asked.settled is not None
        assert decision == decide(world, replace(asked), START_MS + after_ms)
        assert asked.settled.says(decision)
        looks.append(decision.recheck_after_s)
    assert looks == [10.0, 10.0, 7.0, 0.0, 10.0]  # the rule's obligation is 10 s


def test_a_lock_that_ends_is_looked_at_each_time() -> None:
    world, asked = forgetful(worlds()[4]), asserted(attributes={"request.n": 4})
    reasons = [decide(world, asked, START_MS + after_ms).reason for after_ms in (5, 25, 5, 25)]
    assert reasons == [Reason.LOCKED, Reason.GRANTED] * 2
    assert asked.settled is None
    spared = asserted("agent:bot", attributes={"request.n": 4})
    decide(world, spared, START_MS)
    assert spared.settled is not None


def test_while_a_canary_runs_nothing_is_settled() -> None:
    """Whom it is for, and until when, is looked at for each question."""
    live = forgetful(worlds()[0])
    canary = SimpleNamespace(covers=lambda _principal, _point, now_ms: now_ms < START_MS + 10, end_ms=START_MS + 10)
    tried = replace(live, candidate=worlds()[3].policy, trials=cast("Any", SimpleNamespace(canary=canary)))
    asked = asserted(attributes={"request.n": 4})
    reasons = [decide(tried, asked, START_MS + after_ms).reason for after_ms in (20, 5, 20)]
    assert reasons == [Reason.GRANTED, Reason.DENIED_BY_RULE, Reason.GRANTED]
    assert asked.settled is None


def test_while_the_clock_is_off_nothing_settled_counts() -> None:
    world = forgetful(worlds()[0])
    asked = asserted("user:temp@x", attributes={"request.n": 4})
    object.__setattr__(asked, "settled", Settled(world.mark, decide(world, asked, START_MS + 15)))
    assert decide(world, asked, START_MS + 15).allowed
    assert not decide(world, asked, START_MS + 15, clock_off=True).allowed


def test_what_was_said_of_a_policy_is_not_remembered_by_the_next() -> None:
    before, _, _, after, _ = worlds()
    assert before.snapshot is not None
    assert after.snapshot is not None
    assert before.snapshot.memory is not after.snapshot.memory
    assert replace(before.snapshot).memory is not before.snapshot.memory


def test_a_memory_is_bounded_and_keeps_the_newer_half() -> None:
    memory = Memory()
    for number in range(RECALL_ENTRIES * 2):
        memory.keep((number,), Kept(number, None))
    held = [number for number in range(RECALL_ENTRIES * 2) if memory.find((number,)) is not None]
    assert RECALL_ENTRIES // 2 <= len(held) <= RECALL_ENTRIES
    assert held[-1] == RECALL_ENTRIES * 2 - 1


def test_what_read_the_clock_is_asked_anew() -> None:
    world = forgetful(worlds()[0])
    asked = replace(question(), resource=Resource.parse("endpoint/night"))
    assert [decide(world, asked, START_MS + after_ms).allowed for after_ms in (22, 27, 22)] == [False, True, False]


def test_what_the_issuer_claims_is_part_of_the_question() -> None:
    world = forgetful(worlds()[0])
    claims: list[dict[str, Value]] = [{"subject.acr": "gold"}, {"subject.acr": "silver"}, {}, {"subject.acr": "gold"}]
    assert [decide(world, question(claims=said), START_MS).allowed for said in claims] == [True, False, False, True]
