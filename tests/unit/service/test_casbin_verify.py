"""pycasbin as a witness: the shipped pack and generated ones show no difference, and no difference goes unseen."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from pdp.audit.record import Circumstances, DecisionRecord
from pdp.decide import decide
from pdp.engine.casbin_text import Row, parse_model, parse_rows
from pdp.engine.compiler import Snapshot, compile_policy
from pdp.engine.pack import Pack, load_pack
from pdp.model.decision import Effect
from pdp.service import casbin_verify
from pdp.service.casbin_verify import Verification, verify_pack
from pdp.service.policy_tests import questions_of
from tests.spec.generators.models import NO_WORDS, CasbinWorld, casbin_worlds
from tests.spec.generators.worlds import NOW_MS, VOCABULARY, VOCABULARY_TEXT, GeneratedWorld, worlds
from tests.unit.casbin_compat.families import FAMILIES

ROOT = Path(__file__).parents[3]
SHIPPED = (ROOT / "policies/model.conf").read_text(encoding="utf-8")
FILES = {
    str(path.relative_to(ROOT / "policies")): path.read_bytes()
    for path in sorted((ROOT / "policies").rglob("*"))
    if path.is_file()
}


@pytest.fixture(scope="module")
def pack() -> Pack:
    loaded = load_pack(FILES)
    assert isinstance(loaded, Pack), loaded
    return loaded


def verified(snapshot: Snapshot, model_text: str = SHIPPED) -> Verification:
    bare = Pack(
        model_text=model_text, vocabulary_text=VOCABULARY_TEXT, rows=snapshot.rows, assets=(), tests=(), warnings=(),
        snapshot=snapshot,
    )  # fmt: skip
    return verify_pack(bare, snapshot, now_ms=NOW_MS)


def compiled(*rows: tuple[str, ...], text: str = SHIPPED) -> Snapshot:
    model, found = parse_model(text, file="model.conf")
    assert model is not None, found
    numbered = [Row(section, tuple(fields), "rows.csv", line) for line, (section, *fields) in enumerate(rows, start=1)]
    snapshot = compile_policy(model, VOCABULARY, numbered)
    assert isinstance(snapshot, Snapshot), [str(one) for one in snapshot]
    return snapshot


def test_the_shipped_pack_is_answered_alike(pack: Pack) -> None:
    found = verify_pack(pack, pack.snapshot, now_ms=NOW_MS)
    assert found.asked > len(pack.tests)
    assert found.differences == ()


def test_logged_decisions_are_asked_again_and_what_the_pack_does_not_know_is_counted(pack: Pack) -> None:
    asked = next(one for one in questions_of(pack, pack.snapshot) if one.world.asset(one.question.resource))
    seeded = pack.assets[0].name if pack.assets else str(asked.question.resource)
    decision = decide(asked.world, asked.question, asked.now_ms)
    around = Circumstances(
        now_ms=asked.now_ms, staleness_ms=0, clock_off=False, door="test", caller="test", time_ms=asked.now_ms
    )
    record = DecisionRecord(
        decision_id="d1", decision=decision, question=asked.question, digest="", around=around
    ).plain()
    kind = seeded.partition("/")[0]
    known = record | {"resource": seeded, "action": f"{kind}.{min(pack.snapshot.vocabulary.types[kind].verbs)}"}
    without = verify_pack(pack, pack.snapshot, now_ms=NOW_MS).asked
    found = verify_pack(pack, pack.snapshot, now_ms=NOW_MS, records=(known, {"kind": "decision"}))
    assert (found.asked > without, found.skipped) == (bool(pack.assets), 1 + (not pack.assets))


def test_a_difference_that_no_entry_explains_is_unlisted(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    real = casbin_verify.evaluate

    def wrong(*arguments: Any) -> Any:
        outcome = real(*arguments)
        return outcome._replace(effect=Effect(1 - outcome.effect.value))

    monkeypatch.setattr(casbin_verify, "evaluate", wrong)
    found = verify_pack(pack, pack.snapshot, now_ms=NOW_MS)
    assert len(found.differences) == found.asked
    assert found.unlisted


def test_an_attribute_that_is_not_there_is_d24() -> None:
    text = """[request_definition]
r = sub, obj
[policy_definition]
p = sub, obj
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.sub.age > 18 && r.obj == p.obj
"""
    (one,) = verified(compiled(("p", "x", "data1"), text=text), text).differences
    assert (one.ours, one.divergence) == ("deny condition_error", "D-24")


def test_ten_links_are_d39() -> None:
    links = [("g", f"role:r{level}", f"role:r{level + 1}", "*") for level in range(11)]
    found = verified(compiled(("p", "role:r11", "dataset.read", "dataset/a", "dev", "", "", "allow"), *links))
    assert found.differences == ()  # holders are asked one link below
    far = compiled(
        ("p", "role:r11", "dataset.read", "dataset/a", "dev", "", "", "allow"), ("g", "user:u", "role:r0", "*"), *links
    )
    request = casbin_verify.EngineRequest(
        context="", values=("user:u", "dataset.read", "dataset/a", "dev"), memberships={}, attributes={}
    )
    judge = casbin_verify._Judge(SHIPPED)
    judge.hear(casbin_verify._Put(where="here", snapshot=far, request=request, now_ms=NOW_MS))
    assert [(one.ours, one.theirs, one.divergence) for one in judge.differences] == [("allow granted", "deny", "D-39")]


def test_the_effect_of_a_numbered_set_is_d05() -> None:
    text = SHIPPED.replace(
        "e2 = some(where (p.eft == allow)) && !some(where (p.eft == deny))", "e2 = some(where (p.eft == allow))"
    )
    rows = (
        ("p", "role:a", "dataset.read", "dataset/a", "dev", "", "", "allow"),
        ("p2", "segment:a", "*", "segment:b", "", "allow"),
        ("p2", "segment:a", "*", "segment:b", "", "deny"),
    )
    found = verified(compiled(*rows, text=text), text)
    assert {(one.where, one.divergence) for one in found.differences} == {
        ("rows.csv:2", "D-05"),
        ("rows.csv:3", "D-05"),
    }


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_of_casbins_documentation_is_answered_alike(name: str) -> None:
    family = FAMILIES[name]
    rows = [tuple(line.split(", ")) for line in family.policy.splitlines()]
    found = verified(compiled(*rows, text=family.model), family.model)
    assert found.asked >= 2
    # A row about a role is asked about that role's name, which is denied here; a network is no address.
    assert {one.divergence for one in found.differences} <= {"D-44", "D-36"}


def test_patterns_and_domains_of_roles_and_links_with_local_times() -> None:
    text = """[request_definition]
r = sub, dom, obj
[policy_definition]
p = sub, dom, obj
[role_definition]
g = _, _, _, (_, _)
g2 = _, _
[role_matching]
g_domain = keyMatch
g2 = keyMatch2
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = g(r.sub, p.sub, r.dom) && keyMatch(r.dom, p.dom) && g2(r.obj, p.obj)
"""
    snapshot = compiled(
        ("p", "admin", "*", "books"),
        ("p", "admin", "*", "/book/7"),
        ("g", "alice", "admin", "*", "2026-01-01 00:00:00", "2027-01-01 00:00:00"),
        ("g", "bob", "admin", "*", "2027-01-01 00:00:00", "_"),
        ("g2", "/book/:id", "books"),
        text=text,
    )
    judge = casbin_verify._Judge(text)
    for who, what in (("alice", "/book/7"), ("alice", "/pen/7"), ("bob", "/book/7"), ("alice", "books")):
        request = casbin_verify.EngineRequest(context="", values=(who, "d1", what), memberships={}, attributes={})
        judge.hear(casbin_verify._Put(where=who, snapshot=snapshot, request=request, now_ms=NOW_MS))
    assert (judge.asked, judge.differences) == (4, [])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(world=worlds())
def test_on_generated_packs_no_difference_is_unlisted(world: GeneratedWorld) -> None:
    rows = [(row.section, *row.fields) for row in world.rows]
    assert verified(compiled(*rows)).unlisted == ()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(world=casbin_worlds())
def test_on_generated_worlds_of_any_model_no_difference_is_unlisted(world: CasbinWorld) -> None:
    model, _ = parse_model(world.text, file="model.conf")
    if model is None:  # deny-override, which is not served
        return
    rows, _ = parse_rows(world.csv, file="rows.csv", model=model)
    snapshot = compile_policy(model, NO_WORDS, rows)
    assert isinstance(snapshot, Snapshot)
    assert verified(snapshot, world.text).unlisted == ()
