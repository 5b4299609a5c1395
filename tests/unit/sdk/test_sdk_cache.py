"""K1-K6 of FAILURE.md section 6, as far as they are the SDK's."""

import asyncio
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_pdp import ScriptedPdp, denial, evaluated

from pdp.errors import ConfigError, Reason
from pdp.sdk import Actor, Asserted, AsyncClient, Bearer, Client, Decision, Effect, Question
from pdp.sdk._cache import DecisionCache, question_digest
from pdp.v1 import decision_pb2

EVALUATE = "DecisionService/Evaluate"
READ = ("dataset.read", "dataset/finance/transactions")
BASE = Question(action=READ[0], resource=READ[1])
ALLOW = Decision(effect=Effect.ALLOW, reason=Reason.GRANTED, world_seq=7, decision_id="d-1")


def key(question: Question = BASE, *, world_seq: int = 7, by: str = "a.b.c", server: str = "pdp:1") -> Any:
    return world_seq, question_digest(server, by, question)


# K1-K3: what is a key.

AWKWARD = [
    BASE,
    replace(BASE, resource="dataset/finance"),
    replace(BASE, action="dataset.write"),
    replace(BASE, workload="workload:spiffe://a/b"),
    replace(BASE, serves="model/m@1"),
    replace(BASE, subject="user:a"),
    replace(BASE, subject=Asserted(principal="user:a", groups=["group:a,b"])),
    replace(BASE, subject=Asserted(principal="user:a", groups=["group:a", "group:b"])),
    replace(BASE, subject=Asserted(principal="user:a", actors=[Actor(principal="user:b")])),
    replace(BASE, subject=Asserted(principal="user:a", actors=[Actor(principal="user:b", groups=["group:a"])])),
    replace(BASE, subject=Bearer("user:a")),
    replace(BASE, subject=Bearer("x.y.z")),
    replace(BASE, supports=None),
    replace(BASE, supports=["max_rows"]),
    replace(BASE, supports=["max_rows,row_filter"]),
    replace(BASE, supports=["max_rows", "row_filter"]),
    replace(BASE, attributes={"request.n": 1}),
    replace(BASE, attributes={"request.n": 1.0}),
    replace(BASE, attributes={"request.n": "1"}),
    replace(BASE, attributes={"request.n": True}),
    replace(BASE, attributes={"request.n": "true"}),
    replace(BASE, attributes={"request.n": ()}),
    replace(BASE, attributes={"request.n": ("a,b",)}),
    replace(BASE, attributes={"request.n": ("a", "b")}),
    replace(BASE, attributes={"request.n": ""}),
    replace(BASE, attributes={"request.m": 1}),
    replace(BASE, attributes={"request.n": datetime(2026, 1, 1, tzinfo=UTC)}),
    replace(BASE, attributes={"request.n": "2026-01-01T00:00:00+00:00"}),
]


@pytest.mark.holds("K3")
def test_k3_what_differs_anywhere_has_another_key() -> None:
    assert len({key(question) for question in AWKWARD}) == len(AWKWARD)


@pytest.mark.holds("K2")
def test_k2_world_credential_and_server_are_part_of_the_key() -> None:
    assert len({key(), key(world_seq=8), key(by="a.b.d"), key(server="pdp:2")}) == 4


@pytest.mark.holds("K1")
def test_k1_what_means_the_same_has_the_same_key() -> None:
    east = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    same = [
        (replace(BASE, supports=["b", "a"]), replace(BASE, supports=("a", "b"))),
        (replace(BASE, subject="user:a"), replace(BASE, subject=Asserted(principal="user:a"))),
        (replace(BASE, attributes={"request.n": ["a"]}), replace(BASE, attributes={"request.n": ("a",)})),
        (
            replace(BASE, attributes={"request.n": east}),
            replace(BASE, attributes={"request.n": datetime(2026, 1, 1, tzinfo=UTC)}),
        ),
    ]
    assert all(key(one) == key(other) for one, other in same)


texts = st.text(st.sampled_from('a,"[]{}:\\/|\x00\n'), max_size=6)
values = st.one_of(st.booleans(), st.integers(-3, 3), st.sampled_from([0.0, 1.0]), texts, st.tuples(texts, texts))
questions = st.builds(
    Question,
    action=texts,
    resource=texts,
    workload=texts,
    serves=texts,
    attributes=st.dictionaries(texts, values, max_size=2),
    supports=st.one_of(st.none(), st.tuples(texts)),
)


def _shape(question: Question) -> Any:
    attributes = {name: (type(value), value) for name, value in question.attributes.items()}
    return question.action, question.resource, question.workload, question.serves, attributes, question.supports


@pytest.mark.holds("K2")
@settings(max_examples=300, deadline=None)
@given(questions, questions)
def test_k2_random_pairs_share_a_key_only_if_they_are_equal(one: Question, other: Question) -> None:
    assert (key(one) == key(other)) is (_shape(one) == _shape(other))


# K4, K5: what is kept, and how long.


@pytest.mark.holds("K5")
def test_k5_a_new_world_empties_the_cache_and_an_old_answer_is_not_kept() -> None:
    cache = DecisionCache(life_s=2)
    cache.put(key(), ALLOW, sent_s=0)
    assert cache.get(key(), now_s=1) == ALLOW
    assert cache.get(key(world_seq=8), now_s=1) is None
    assert len(cache) == 0
    cache.put(key(), ALLOW, sent_s=1)  # computed on 7, filled in while 8 is known
    assert len(cache) == 0
    assert cache.get(key(), now_s=1) is None


def test_an_allow_ends_at_its_life_or_its_recheck_counted_from_the_sending() -> None:
    cache = DecisionCache(life_s=2)
    cache.put(key(), ALLOW, sent_s=10)
    assert cache.get(key(), now_s=11.9) == ALLOW
    assert cache.get(key(), now_s=12) is None
    cache.put(key(), replace(ALLOW, recheck_after_s=1.5), sent_s=10)
    kept = cache.get(key(), now_s=11)
    assert kept is not None
    assert kept.recheck_after_s == 0.5
    assert cache.get(key(), now_s=11.5) is None


@pytest.mark.holds("K4")
def test_k4_a_deny_is_never_kept() -> None:
    cache = DecisionCache(life_s=2)
    cache.put(key(), replace(ALLOW, effect=Effect.DENY, reason=Reason.NO_GRANT), sent_s=0)
    assert len(cache) == 0


def test_the_cache_is_bounded() -> None:
    cache = DecisionCache(life_s=2, entries=2)
    for question in AWKWARD[:3]:
        cache.put(key(question), ALLOW, sent_s=0)
    assert len(cache) == 2
    assert cache.get(key(AWKWARD[0]), now_s=0) is None


# Through the clients.


def test_an_allow_is_given_again_without_a_call_and_a_deny_is_not(pdp: ScriptedPdp) -> None:
    pdp.script(EVALUATE, evaluated(), decision_pb2.EvaluateResponse(decision=denial()))
    with Client(pdp.address, token="a.b.c") as client:
        assert client.check(*READ) == client.check(*READ)
        assert not client.check("dataset.write", READ[1]).allowed
        assert not client.check("dataset.write", READ[1]).allowed
    assert len(pdp.asked(EVALUATE)) == 3


def test_an_answer_from_a_newer_world_empties_the_cache_of_the_client(pdp: ScriptedPdp) -> None:
    pdp.script(EVALUATE, evaluated(world_seq=7), evaluated(world_seq=8), evaluated(world_seq=8))
    with Client(pdp.address, token="a.b.c") as client:
        client.check(*READ)
        client.check("dataset.list", READ[1])
        assert client.check(*READ).world_seq == 8
    assert len(pdp.asked(EVALUATE)) == 3


@pytest.mark.holds("K6")
def test_k6_another_credential_is_another_question(pdp: ScriptedPdp) -> None:
    pdp.script(EVALUATE, evaluated())
    tokens = iter(["a.b.c", "x.y.z", "x.y.z"])
    with Client(pdp.address, token=lambda: next(tokens)) as client:
        for _ in range(3):
            client.check(*READ)
    assert pdp.credentials == ["Bearer a.b.c", "Bearer x.y.z"]


@pytest.mark.holds("K4")
def test_k4_an_error_is_not_kept(pdp: ScriptedPdp) -> None:
    pdp.script(EVALUATE, decision_pb2.EvaluateResponse(), evaluated())
    with Client(pdp.address, token="a.b.c") as client:
        assert not client.check(*READ).allowed
        assert client.check(*READ).allowed


@pytest.mark.holds("K6")
def test_k6_explain_never_answers_from_the_cache(pdp: ScriptedPdp) -> None:
    pdp.script(EVALUATE, evaluated())
    pdp.script("DecisionService/Explain", evaluated(role_path=["role:reader"]))
    with Client(pdp.address, token="a.b.c") as client:
        client.check(*READ)
        assert client.explain(*READ).role_path == ("role:reader",)


def test_the_async_client_keeps_as_well(pdp: ScriptedPdp) -> None:
    pdp.script(EVALUATE, evaluated())

    async def ask() -> None:
        async with AsyncClient(pdp.address, token="a.b.c") as client:
            assert await client.check(*READ) == await client.check(*READ)

    asyncio.run(ask())
    assert len(pdp.asked(EVALUATE)) == 1


@pytest.mark.parametrize("cache_s", [-1, 16, float("nan")])
def test_a_life_out_of_bounds_is_refused(cache_s: float) -> None:
    with pytest.raises(ConfigError, match="cache_s"):
        Client("127.0.0.1:1", cache_s=cache_s)


def test_a_decision_has_what_a_pdp_told_and_nothing_of_how() -> None:
    told = {
        "effect",
        "reason",
        "world_seq",
        "obligations",
        "determining",
        "role_path",
        "recheck_after_s",
        "nearest_miss",
    }
    assert {one.name for one in fields(Decision)} == told | {"detail", "candidate", "decision_id", "dpop_nonce"}
