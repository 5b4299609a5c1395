"""`fold == compile`: a snapshot after a delta is the snapshot of the rows after it, digest for digest (ARCHITECTURE 2)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.engine.casbin_text import Row
from pdp.engine.compiler import Rule, Snapshot, compile_policy
from pdp.engine.delta import apply_delta
from pdp.engine.evaluate import evaluate
from pdp.engine.index import Lone, PatternLevel
from pdp.engine.tables import Trie
from tests.spec.generators.worlds import NOW_MS, VOCABULARY, GeneratedWorld, worlds
from tests.spec.profiles import tries

QUICK = tries(60)


def shape(level: Any) -> Any:
    """Return an index as plain values, so that two can be compared."""
    level = {level.key: level.value} if isinstance(level, Lone) else level
    match level:
        case Rule():
            return [level.row.id]
        case list():
            return sorted(rule.row.id for rule in level)
        case dict():
            return {key: shape(value) for key, value in level.items()}
        case PatternLevel():
            return shape(level.exact), shape(level.patterns)
        case Trie():
            parts = level.children, level.star, level.end, level.below, level.versions
            return tuple(shape(part) for part in parts)
        case _:
            return level


def facts(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "digest": snapshot.digest,
        "rows": snapshot.rows,
        "roles": snapshot.role_names,
        "index": {suffix: shape(compiled.root) for suffix, compiled in snapshot.contexts.items()},
        "rules": {suffix: [rule.row for rule in one.rules] for suffix, one in snapshot.contexts.items()},
        "reaches": {
            name: {domain: dict(each) for domain, each in graph.reaches.items() if each}
            for name, graph in snapshot.graphs.items()
        },
        "links": {
            name: {key: sorted(map(repr, each)) for key, each in graph.links.items()}
            for name, graph in snapshot.graphs.items()
        },
        "patterns": {name: graph.patterns and shape(graph.patterns) for name, graph in snapshot.graphs.items()},
        "named": {name: graph.named_resources for name, graph in snapshot.graphs.items()},
    }


@QUICK
@given(world=worlds(), more=worlds(), data=st.data())
def test_a_folded_policy_is_the_compiled_one_and_the_old_one_stays(
    world: GeneratedWorld, more: GeneratedWorld, data: st.DataObject
) -> None:
    before = compile_policy(world.model, VOCABULARY, world.rows)
    assert isinstance(before, Snapshot)
    old = facts(before)
    removed = data.draw(st.lists(st.sampled_from(world.rows[1:]), unique=True, max_size=4))
    added = tuple(Row(row.section, row.fields, "zz.csv", row.line) for row in more.rows[: data.draw(st.integers(0, 4))])
    after = sorted((set(world.rows) - set(removed)) | set(added), key=lambda row: (row.file, row.line))
    folded, whole = apply_delta(before, added, removed), compile_policy(world.model, VOCABULARY, after)
    assert facts(before) == old
    if not isinstance(whole, Snapshot):
        assert folded == whole
        return
    assert isinstance(folded, Snapshot)
    assert facts(folded) == facts(whole)
    for question in (*world.questions, *more.questions):
        assert evaluate(folded, question, NOW_MS) == evaluate(whole, question, NOW_MS)


@QUICK
@given(world=worlds())
def test_taking_out_what_was_put_in_gives_the_same_policy(world: GeneratedWorld) -> None:
    before = compile_policy(world.model, VOCABULARY, world.rows[: len(world.rows) // 2])
    assert isinstance(before, Snapshot)
    extra = world.rows[len(world.rows) // 2 :]
    between = apply_delta(before, extra, ())
    assert isinstance(between, Snapshot)
    after = apply_delta(between, (), extra)
    assert isinstance(after, Snapshot)
    assert facts(after) == facts(before)


@QUICK
@given(world=worlds())
def test_rules_that_a_delta_does_not_touch_are_shared(world: GeneratedWorld) -> None:
    before = compile_policy(world.model, VOCABULARY, world.rows)
    assert isinstance(before, Snapshot)
    after = apply_delta(before, [Row("p", world.rows[0].fields, "zz.csv", 1)], ())
    assert isinstance(after, Snapshot)
    if not before.contexts[""].direct:
        return  # what the index alone does not answer is compiled again, as a whole
    kept: set[Rule] = set(after.contexts[""].rules)
    assert set(before.contexts[""].rules) <= kept
    assert after.contexts["2"] is before.contexts["2"]


@given(world=worlds())
@tries(5)
def test_a_row_that_is_not_there_cannot_be_removed_nor_one_that_is_be_added(world: GeneratedWorld) -> None:
    before = compile_policy(world.model, VOCABULARY, world.rows)
    assert isinstance(before, Snapshot)
    for added, removed in (((world.rows[0],), ()), ((), (Row("p", world.rows[0].fields, "other.csv", 1),))):
        with pytest.raises(KeyError):
            apply_delta(before, added, removed)
