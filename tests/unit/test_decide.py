"""`decide`: the stages in their order, each with what it refuses, on worlds folded from signed entries."""

from dataclasses import replace

import pytest

from pdp.decide import CLOCK_OFF, bounded, decide, explain, max_staleness_s
from pdp.errors import Reason
from pdp.inventory import Retired
from pdp.model.decision import Effect
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import CredentialFacts, Party, Question
from pdp.world import World, empty_world
from tests.support.worlds import START_MS, TENANT, Scribe, make_world

POLICY = """\
g, user:dana@x, role:data-scientist, dev
g, group:app-team, role:app, prod
g, user:tim@x, role:temp, prod, 2026-01-01T00:00:00Z, 2030-01-01T00:00:00Z
g, agent:bot, role:app, prod
g3, workload:spiffe://t/ns/apps/**, segment:apps
g3, workload:spiffe://t/ns/nb/**, segment:notebooks
p, role:data-scientist, dataset.read|list, dataset/**, dev, , , allow
p, role:data-scientist, dataset.read, collection:pii, *, "request.purpose != 'fraud'", , deny
p, role:app, endpoint.invoke, endpoint/**, prod, , recheck_after=10s, allow
p, role:temp, endpoint.invoke, endpoint/**, prod, , , allow
g2, dataset/hr/people, collection:pii
p2, segment:apps, endpoint.invoke, segment:serving, , allow
p2, segment:notebooks, dataset.*, segment:data, , allow
p2, segment:notebooks, endpoint.*, segment:serving, , deny
p2, segment:none, dataset.read, segment:none, "resource.environment == 'dev'", allow
"""
ASSETS = {
    "endpoint/digits": {"environment": "prod", "segment": "segment:serving", "sensitivity": "high"},
    "model/digits@1": {"environment": "prod", "segment": "segment:serving"},
    "dataset/vision/digits": {"environment": "dev", "segment": "segment:data"},
    "dataset/hr/people": {"environment": "dev", "segment": "segment:data"},
    "dataset/loose": {"environment": "dev"},
    "dataset/live": {"environment": "prod", "segment": "segment:data"},
}
APPS = Principal.parse("workload:spiffe://t/ns/apps/sa/web")
NOTEBOOK = Principal.parse("workload:spiffe://t/ns/nb/sa/jupyter")


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(POLICY, ASSETS)


def party(text: str, *groups: str) -> Party:
    return Party(principal=Principal.parse(text), groups=frozenset(groups))


def ask(subject: str, action: str, resource: str, *, groups: tuple[str, ...] = (), **more: object) -> Question:
    return Question(
        subject=party(subject, *groups),
        action=Action.parse(action),
        resource=Resource.parse(resource),
        **more,  # type: ignore[arg-type]
    )


def invoke(**more: object) -> Question:
    return ask(
        "user:sam@x", "endpoint.invoke", "endpoint/digits", groups=("group:app-team",), **{"workload": APPS, **more}
    )


def test_an_access_that_both_questions_allow_is_granted(world: World) -> None:
    decision = decide(world, invoke(), START_MS)
    assert (decision.effect, decision.reason, decision.world_seq) == (Effect.ALLOW, Reason.GRANTED, world.seq)
    assert "test.csv:9" in decision.determining
    assert [str(item) for item in decision.obligations] == ["recheck_after=10s"]
    assert decision.recheck_after_s == 10
    assert decision.role_path[-1] == "role:app"


@pytest.mark.holds("P1")
def test_default_deny(world: World) -> None:
    question = ask("user:stranger@x", "dataset.read", "dataset/vision/digits", workload=NOTEBOOK)
    assert decide(world, question, START_MS).reason is Reason.NO_GRANT


@pytest.mark.holds("P1", "P2")
def test_an_empty_world_allows_nothing() -> None:
    assert decide(empty_world(TENANT), invoke(), START_MS).effect is Effect.DENY


def test_an_unregistered_asset_is_refused_whoever_asks(world: World) -> None:
    assert (
        decide(world, ask("user:dana@x", "dataset.read", "dataset/shadow"), START_MS).reason
        is Reason.ASSET_UNREGISTERED
    )


def test_an_endpoint_that_serves_an_unregistered_model_is_refused(world: World) -> None:
    assert decide(world, invoke(serves=Resource.parse("model/digits@1")), START_MS).allowed
    decision = decide(world, invoke(serves=Resource.parse("model/digits@2")), START_MS)
    assert decision.reason is Reason.ASSET_UNREGISTERED
    assert "model/digits@2" in decision.detail


def test_a_retired_asset_is_refused_in_its_own_words(world: World) -> None:
    question = ask("user:dana@x", "dataset.read", "dataset/vision/digits", workload=NOTEBOOK)
    assert decide(world, question, START_MS).allowed
    gone = Retired(seq=9, by="user:ada@x", reason="superseded")
    left = {name: asset for name, asset in world.assets.items() if name != "dataset/vision/digits"}
    decision = decide(replace(world, assets=left, retired={"dataset/vision/digits": gone}), question, START_MS)
    assert (decision.effect, decision.reason) == (Effect.DENY, Reason.ASSET_RETIRED)
    assert "entry 9: superseded" in decision.detail


def test_a_version_that_was_not_registered_is_not_covered_by_its_base(world: World) -> None:
    question = ask("user:dana@x", "dataset.read", "dataset/vision/digits@2026-01-01", workload=NOTEBOOK)
    assert decide(world, question, START_MS).reason is Reason.ASSET_UNREGISTERED


def test_a_notebook_does_not_reach_the_serving_segment(world: World) -> None:
    decision = decide(world, invoke(workload=NOTEBOOK), START_MS)
    assert decision.reason is Reason.SEGMENT_DENIED
    assert decision.determining == ("test.csv:14",)


def test_a_caller_without_a_workload_is_in_no_segment(world: World) -> None:
    assert decide(world, invoke(workload=None), START_MS).reason is Reason.SEGMENT_DENIED
    assert decide(world, ask("user:dana@x", "dataset.read", "dataset/loose"), START_MS).allowed


def test_an_acting_workload_is_the_source_where_no_other_was_verified(world: World) -> None:
    actor = party(str(NOTEBOOK))
    decision = decide(world, invoke(workload=None, actors=(actor,)), START_MS)
    assert decision.reason is Reason.SEGMENT_DENIED
    assert decision.determining == ("test.csv:14",)


def test_a_role_held_in_dev_grants_nothing_in_prod(world: World) -> None:
    decision = explain(world, ask("user:dana@x", "dataset.read", "dataset/live", workload=NOTEBOOK), START_MS)
    assert decision.reason is Reason.NO_GRANT
    assert decision.nearest_miss is not None
    assert decision.nearest_miss.rule == "test.csv:7"
    assert "prod" in decision.nearest_miss.text


@pytest.mark.holds("P1", "P2")
def test_deny_beats_allow_and_an_erring_deny_denies(world: World) -> None:
    def read(**attributes: str) -> Reason:
        question = ask(
            "user:dana@x", "dataset.read", "dataset/hr/people", workload=NOTEBOOK,
            attributes={f"request.{name}": value for name, value in attributes.items()},
        )  # fmt: skip
        return decide(world, question, START_MS).reason

    assert read(purpose="fraud") is Reason.GRANTED
    assert read(purpose="curiosity") is Reason.DENIED_BY_RULE
    assert read() is Reason.CONDITION_ERROR


@pytest.mark.parametrize(
    ("action", "resource", "reason"),
    [
        ("dataset.devour", "dataset/vision/digits", Reason.UNKNOWN_ACTION),
        ("endpoint.invoke", "dataset/vision/digits", Reason.BAD_REQUEST),
        ("model.download", "model/digits", Reason.BAD_REQUEST),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(world: World, action: str, resource: str, reason: Reason) -> None:
    assert decide(world, ask("user:dana@x", action, resource), START_MS).reason is reason


@pytest.mark.parametrize(
    "attributes", [{"request.unheard_of": "x"}, {"resource.environment": "dev"}, {"request.purpose": 1}]
)
def test_a_caller_cannot_assert_what_the_vocabulary_does_not_let_it(
    world: World, attributes: dict[str, object]
) -> None:
    question = ask("user:dana@x", "dataset.read", "dataset/live", attributes=attributes)
    assert decide(world, question, START_MS).reason is Reason.BAD_REQUEST


def test_a_role_ends_by_itself_and_says_when(world: World) -> None:
    question = ask("user:tim@x", "endpoint.invoke", "endpoint/digits", workload=APPS)
    ends_ms = 1_893_456_000_000  # 2030-01-01
    before = decide(world, question, ends_ms - 5_000)
    assert (before.allowed, before.recheck_after_s) == (True, 5.0)
    assert decide(world, question, ends_ms).reason is Reason.NO_GRANT


def test_a_deny_says_when_time_alone_may_turn_it_around(world: World) -> None:
    starts_ms = 1_767_225_600_000  # 2026-01-01
    question = ask("user:tim@x", "endpoint.invoke", "endpoint/digits", workload=APPS)
    early = decide(world, question, starts_ms - 5_000)
    assert (early.reason, early.recheck_after_s) == (Reason.NO_GRANT, 5.001)
    scribe = Scribe()
    scribe.policy(POLICY)
    scribe.assets(**ASSETS)
    locked = scribe.lock("l1", {"kind": "principal", "principal": "user:sam@x"}, end_ms=START_MS + 7_000)
    held = decide(locked, invoke(), START_MS)
    assert (held.reason, held.recheck_after_s) == (Reason.LOCKED, 7.0)


TIMED_DENY = """\
g, user:sam@x, role:app, prod
g, user:sam@x, role:barred, prod, 2026-01-01T00:00:00Z, 2026-02-01T00:00:00Z
g, agent:bot, role:app, prod
g, agent:late, role:barred, prod, 2030-01-01T00:00:00Z, _
p, role:app, decision.ask, decision/main, prod, , , allow
p, role:barred, decision.ask, decision/main, prod, , , deny
"""
AFTER_THE_BAR_MS = 1_770_000_000_000  # 2026-02-02


def test_an_access_is_looked_at_again_when_a_nested_actor_may_become_barred() -> None:
    world = make_world(TIMED_DENY, {})
    actors = (party("agent:bot"), party("agent:late"))
    question = ask("user:sam@x", "decision.ask", "decision/main", actors=actors)
    decision = decide(world, question, 1_893_456_000_000 - 5_000)
    assert (decision.allowed, decision.recheck_after_s) == (True, 5.001)
    assert decide(world, question, 1_893_456_000_001).reason is Reason.DELEGATION_DENIED


@pytest.mark.holds("F12")
def test_a_clock_that_is_off_gives_nothing_by_a_timed_role_and_lifts_no_timed_deny(world: World) -> None:
    timed = ask("user:tim@x", "endpoint.invoke", "endpoint/digits", workload=APPS)
    assert decide(world, timed, START_MS).allowed
    refused = decide(world, timed, START_MS, clock_off=True)
    assert (refused.reason, refused.detail) == (Reason.NO_GRANT, CLOCK_OFF)
    lasting = decide(world, invoke(), START_MS, clock_off=True)
    assert (lasting.allowed, lasting.recheck_after_s) == (True, 10.0)
    barred = make_world(TIMED_DENY, {})
    question = ask("user:sam@x", "decision.ask", "decision/main")
    assert decide(barred, question, AFTER_THE_BAR_MS).allowed
    assert decide(barred, question, AFTER_THE_BAR_MS, clock_off=True).reason is Reason.DENIED_BY_RULE


@pytest.mark.holds("F12")
def test_whatever_the_time_is_a_clock_that_is_off_allows_no_more(world: World) -> None:
    """Law: allowed with the clock off implies allowed at every time."""
    questions = [
        ask(subject, action, resource, workload=workload)
        for subject in ("user:tim@x", "user:dana@x", "user:sam@x")
        for action, resource in (("endpoint.invoke", "endpoint/digits"), ("dataset.read", "dataset/vision/digits"))
        for workload in (APPS, NOTEBOOK, None)
    ]
    for question in (*questions, invoke()):
        if decide(world, question, START_MS, clock_off=True).allowed:
            times = (0, 1_767_225_600_001, START_MS, 1_893_456_000_000)
            assert all(decide(world, question, now_ms).allowed for now_ms in times)


def test_an_endpoint_bears_no_more_staleness_than_the_model_behind_it() -> None:
    scribe = Scribe()
    scribe.policy(POLICY)
    secret = {"model/digits@1": {"environment": "prod", "sensitivity": "high"}}
    plain = {"endpoint/digits": {"environment": "prod", "segment": "segment:serving", "sensitivity": "low"}}
    made = scribe.assets(**plain, **secret)
    assert max_staleness_s(made, invoke()) == 300
    assert max_staleness_s(made, invoke(serves=Resource.parse("model/digits@1"))) == 15


def test_an_access_is_looked_at_again_when_its_credential_expires(world: World) -> None:
    facts = CredentialFacts(issuer="https://i", jti="j", expires_at_s=START_MS // 1000 + 3)
    assert decide(world, invoke(credential=facts), START_MS).recheck_after_s == 3.0


def test_delegation_is_an_intersection(world: World) -> None:
    assert decide(world, invoke(actors=(party("agent:bot"),)), START_MS).allowed
    decision = decide(world, invoke(actors=(party("agent:other"),)), START_MS)
    assert decision.reason is Reason.DELEGATION_DENIED
    nobody = ask("user:nobody@x", "endpoint.invoke", "endpoint/digits", workload=APPS, actors=(party("agent:bot"),))
    assert decide(world, nobody, START_MS).reason is Reason.NO_GRANT


def test_a_nested_actor_needs_no_grant_and_can_only_tighten(world: World) -> None:
    assert decide(world, invoke(actors=(party("agent:bot"), party("agent:other"))), START_MS).allowed


@pytest.mark.holds("adv_stale_claims")
@pytest.mark.parametrize(
    "target",
    [
        {"kind": "principal", "principal": "user:sam@x"},
        {"kind": "principal", "principal": "agent:bot"},
        {"kind": "principal", "principal": str(APPS)},
        {"kind": "resource", "resource": "endpoint/**"},
        {"kind": "resource", "resource": "model/digits@1"},
        {"kind": "jti", "issuer": "https://i", "value": "j"},
    ],
)
def test_a_lock_beats_every_allow(target: dict[str, str]) -> None:
    scribe = Scribe()
    scribe.policy(POLICY)
    free = scribe.assets(**ASSETS)
    question = invoke(
        actors=(party("agent:bot"),),
        serves=Resource.parse("model/digits@1"),
        credential=CredentialFacts(issuer="https://i", jti="j"),
    )
    assert decide(free, question, START_MS).allowed
    locked = scribe.lock("l1", target)
    assert decide(locked, question, START_MS).reason is Reason.LOCKED
    assert decide(free, question, START_MS).allowed  # the old world is untouched
    assert decide(scribe.write("unlock", {"id": "l1"}), question, START_MS).allowed


def test_an_obligation_that_cannot_be_carried_out_denies(world: World) -> None:
    assert decide(world, invoke(supports=frozenset()), START_MS).reason is Reason.OBLIGATION_UNSUPPORTED
    assert decide(world, invoke(supports=frozenset({"recheck_after"})), START_MS).allowed


@pytest.mark.holds("P6")
def test_a_stale_world_bears_as_much_as_the_asset_is_sensitive(world: World) -> None:
    question = invoke()
    decision = decide(world, question, START_MS)
    limit = max_staleness_s(world, question)
    assert limit == 15
    assert bounded(decision, world, question, limit).allowed
    stale = bounded(decision, world, question, limit + 0.001)
    assert (stale.effect, stale.reason, stale.obligations) == (Effect.DENY, Reason.WORLD_STALE, ())


def test_deciding_again_gives_the_same_answer_bit_for_bit(world: World) -> None:
    assert decide(world, invoke(), START_MS) == decide(world, invoke(), START_MS)
