"""The bridge reads as pycasbin reads; projected, pycasbin answers about our own model as our engine does."""

from dataclasses import replace
from pathlib import Path

import casbin
import pytest
from hypothesis import HealthCheck, given, settings

from pdp.adapters.casbin_bridge import Oracle, project_model, project_rows, read
from pdp.engine.casbin_text import Model, Row, parse_model
from pdp.engine.compiler import Snapshot, compile_policy
from pdp.engine.evaluate import EngineRequest, evaluate
from pdp.errors import ConfigError
from pdp.model.decision import Effect
from tests.spec.generators.worlds import NOW_MS, VOCABULARY, GeneratedWorld, numbered, worlds

ROOT = Path(__file__).parents[3]
SHIPPED = (ROOT / "policies/model.conf").read_text(encoding="utf-8")
BASIC = """[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.sub == p.sub && r.obj == p.obj && r.act == p.act
"""


def shipped() -> Model:
    model, found = parse_model(SHIPPED, file="model.conf")
    assert model is not None, found
    return model


def oracle(rows: tuple[Row, ...], now_ms: int = NOW_MS) -> Oracle:
    return Oracle(model_text=SHIPPED, model=shipped(), vocabulary=VOCABULARY, rows=rows, now_ms=now_ms)


def ask(values: tuple[str, ...], groups: tuple[str, ...] = ()) -> EngineRequest:
    return EngineRequest(context="", values=values, memberships={"sub": groups}, attributes={})


def test_files_and_adapters_are_read_as_pycasbin_reads_them(tmp_path: Path) -> None:
    model, policy = tmp_path / "model.conf", tmp_path / "policy.csv"
    model.write_text(BASIC, encoding="utf-8")
    policy.write_text("p, alice, data1, read\npp, lost, x, y\np, bob, data2, write\n", encoding="utf-8")
    expected = [("p", ("alice", "data1", "read")), ("p", ("bob", "data2", "write"))]
    assert [(row.section, row.fields) for row in read(model, policy)] == expected
    adapter = casbin.persist.adapters.string_adapter.StringAdapter("p, alice, data1, read\np, bob, data2, write")
    assert [(row.section, row.fields) for row in read(model, adapter)] == expected


def test_what_pycasbin_cannot_read_is_told_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pycasbin cannot read"):
        read(tmp_path / "none.conf", tmp_path / "none.csv")


def test_projection_drops_condition_columns_and_links_outside_their_window() -> None:
    assert "g = _, _, _\n" in project_model("g = _, _, _, (_, _)\ng2 = _, _\n")
    assert "e2 = some(where (p.eft == allow))" in project_model("e2 = some(where(p2.eft==allow))")
    rows = numbered(
        [
            ("g", ("user:u1", "role:r1", "dev")),
            ("g", ("user:u1", "role:r2", "dev", "_", "2026-01-01T00:00:00Z")),
            ("g", ("user:u1", "role:r3", "dev", "2027-01-01T00:00:00Z", "_")),
            ("g", ("user:u1", "role:r4", "dev", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z")),
        ]
    )
    assert list(project_rows(rows, shipped(), NOW_MS)) == [
        ("g", ("user:u1", "role:r1", "dev")),
        ("g", ("user:u1", "role:r4", "dev")),
    ]


def test_the_oracle_sees_roles_groups_patterns_and_collections() -> None:
    rows = numbered(
        [
            ("p", ("role:r1", "dataset.read", "collection:c1", "*", "", "", "allow")),
            ("p", ("role:r1", "dataset.read", "dataset/a/b", "*", "", "", "deny")),
            ("g", ("group:g1", "role:r1", "*")),
            ("g2", ("dataset/a/**", "collection:c1")),
        ]
    )
    witness = oracle(rows)
    assert witness.ask(ask(("user:u1", "dataset.read", "dataset/a/c@2", "dev"), ("group:g1",))).allowed is True
    assert witness.ask(ask(("user:u1", "dataset.read", "dataset/a/b@2", "dev"), ("group:g1",))).allowed is False
    assert witness.ask(ask(("user:u1", "dataset.read", "dataset/a/c", "dev"))).allowed is False
    assert witness.ask(ask(("user:u1", "dataset.read"))).error == "RuntimeError: invalid request size"


def test_without_projection_pycasbin_is_blind_on_our_own_pack() -> None:
    """D-41: one conditional `g` turns the plain `g2` into name equality. This is why the bridge projects."""
    enforcer = casbin.Enforcer(casbin.Enforcer.new_model(text=SHIPPED))
    for name in ("actionMatch", "envMatch", "when"):
        enforcer.add_function(name, lambda *_: True)
    enforcer.add_function("resourceMatch", lambda *_: False)
    fields = ("role:r1", "dataset.read", "collection:c1", "*", "", "", "allow")
    links = [["user:u1", "role:r1", "dev"]]
    enforcer.model.model["p"]["p"].policy = [list(fields)]
    enforcer.model.model["g"]["g"].policy = links
    enforcer.model.model["g"]["g2"].policy = [["dataset/a", "collection:c1"]]
    enforcer.build_role_links()
    question = ("user:u1", "dataset.read", "dataset/a", "dev")
    assert enforcer.enforce(*question) is False
    rows = numbered([("p", fields), ("g", tuple(links[0])), ("g2", ("dataset/a", "collection:c1"))])
    assert oracle(rows).ask(ask(question)).allowed is True


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(world=worlds())
def test_on_generated_packs_of_the_shipped_model_pycasbin_answers_as_we_do(world: GeneratedWorld) -> None:
    world = replace(world, model=shipped())
    snapshot = compile_policy(world.model, VOCABULARY, world.rows)
    assert isinstance(snapshot, Snapshot)
    witness = oracle(world.rows)
    sections = {row.section for row in world.rows}
    for question in world.questions:
        if f"p{question.context}" in sections:  # D-02: without rows pycasbin asks the matcher about blanks
            ours = evaluate(snapshot, question, NOW_MS).effect is Effect.ALLOW
            assert witness.ask(question).allowed is ours, question
