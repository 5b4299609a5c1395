import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.engine.casbin_text import Row
from pdp.engine.compiler import Snapshot, compile_policy
from pdp.engine.evaluate import EngineRequest, evaluate
from pdp.engine.functions import action_match, env_match, member_match, resource_match
from pdp.engine.tables import Trie, split_version
from pdp.model.decision import Effect
from tests.spec.generators.worlds import patterns, resources
from tests.unit.engine.conftest import Workbench


@pytest.mark.parametrize(
    ("action", "pattern", "matches"),
    [
        ("dataset.read", "dataset.read", True),
        ("dataset.read", "dataset.list|read", True),
        ("dataset.read", "dataset.*", True),
        ("dataset.read", "*", True),
        ("dataset.read", "dataset.list", False),
        ("dataset.read", "data.*", False),
        ("dataset.read", "dataset.rea", False),
        ("dataset.read", "*.read", False),
        ("dataset.read", "", False),
    ],
)
def test_actions(action: str, pattern: str, matches: bool) -> None:  # noqa: FBT001
    assert action_match(action, pattern) is matches


def test_environments() -> None:
    assert env_match("dev", "dev")
    assert env_match("dev", "*")
    assert not env_match("dev", "prod")
    assert not env_match("*", "dev")


@pytest.mark.parametrize(
    ("name", "pattern", "matches"),
    [
        ("user:a", "user:a", True),
        ("user:a@x", "user:a", False),
        ("workload:spiffe://d/a/b", "workload:spiffe://d/a/**", True),
        ("workload:spiffe://d/a", "workload:spiffe://d/a/**", False),
        ("workload:spiffe://d/ab/c", "workload:spiffe://d/a/**", False),
        ("workload:spiffe://d.evil/a/b", "workload:spiffe://d/**", False),
        ("model/a@1", "model/a", True),
        ("model/a", "model/a@1", False),
        ("role:x", "role:*", False),
    ],
)
def test_left_sides_of_role_rows(name: str, pattern: str, matches: bool) -> None:  # noqa: FBT001
    assert member_match(name, pattern) is matches


@pytest.mark.parametrize(
    "text", ["", "/", "a", "a/", "dataset/..", "collection:x", "\ud800/a", "dataset/a@", "x" * 2000]
)
def test_functions_answer_for_any_text(text: str) -> None:
    for function in (action_match, resource_match, env_match, member_match):
        assert function(text, "dataset/b") is False
        assert function("dataset/b", text) is False


@given(written=st.lists(patterns(), min_size=1, max_size=12, unique=True), name=resources())
def test_a_trie_finds_exactly_the_patterns_that_match(written: list[str], name: str) -> None:
    trie = Trie()
    for pattern in written:
        trie.put(pattern, pattern)
    base, version = split_version(name)
    found: list[str] = []
    trie.find(base.split("/"), version, found)
    assert sorted(found) == sorted(pattern for pattern in written if resource_match(name, pattern))


@given(pattern=patterns(), name=resources())
def test_a_grant_reaches_exactly_what_its_pattern_matches(bench: Workbench, pattern: str, name: str) -> None:
    kind = pattern.partition("/")[0]
    if kind == "data" or name.startswith("data/"):
        return
    rows = [Row("p", ("user:a", "*", pattern, "dev", "", "", "allow"), "g.csv", 1)]
    snapshot = compile_policy(bench.model, bench.vocabulary, rows)
    assert isinstance(snapshot, Snapshot)
    request = EngineRequest(context="", values=("user:a", "model.read", name, "dev"), memberships={}, attributes={})
    assert (evaluate(snapshot, request, 0).effect is Effect.ALLOW) is resource_match(name, pattern)
