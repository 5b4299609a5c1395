"""The fold and its snapshot: signed poison is refused and never crashes, and what is restored is what was held."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdp.decide import decide
from pdp.engine.pack import rows_digest
from pdp.inventory import BUILTIN_ASSETS
from pdp.model import canonical
from pdp.model.names import Action, Principal, Resource
from pdp.model.request import Party, Question
from pdp.world import FoldError, World, from_state, to_state
from tests.support.worlds import MODEL, START_MS, VOCABULARY, Scribe, rows

POLICY = "g, user:a@x, role:app, prod\np, role:app, decision.ask, decision/main, prod, , , allow\n"
ASSETS = {"dataset/a": {"environment": "prod", "license": "mit", "tags": ["x"], "signature_verified": True}}
LOCK = {
    "id": "l1", "target": {"kind": "issued_before", "issuer": "https://i", "time_s": 5}, "reason": "why",
    "source": "user:a@x", "start_ms": START_MS, "end_ms": 0,
}  # fmt: skip
PAYLOADS: dict[str, Any] = {
    "policy": {
        "model": MODEL,
        "vocabulary": VOCABULARY,
        "added": [row.to_json() for row in rows(POLICY)],
        "removed": [],
        "rows_digest": rows_digest(rows(POLICY)).hex(),
        "message": "test",
    },
    "assets": {"assets": [{"name": name, "attributes": values} for name, values in ASSETS.items()]},
    "retire": {"names": ["dataset/a"], "reason": "superseded"},
    "sign_off": {
        "by": ["user:a@x"],
        "report": "0" * 64,
        "world_seq": 1,
        "since_ms": 0,
        "findings": 3,
        "message": "seen",
    },
    "lock": LOCK,
    "unlock": {"id": "l1"},
}
POISON: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=3),
    st.sampled_from(([], {}, [[]], {"a": {}}, ["a"] * 64, "[" * 5_000, "{a: " * 5_000, "\ud800")),
)  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container in `value` with each key or index of it."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def fold_poisoned(kind: str, payload: Any) -> None:
    scribe = Scribe()
    if kind != "policy":
        scribe.policy(POLICY)
    if kind == "unlock":
        scribe.write("lock", LOCK)
    if kind == "retire":
        scribe.assets(**ASSETS)
    before = scribe.world
    try:
        scribe.write(kind, payload)
    except FoldError:
        assert scribe.world is before


@pytest.mark.holds("F19", "L9", "P11", "adv_malformed_peer")
@pytest.mark.parametrize("kind", sorted(PAYLOADS))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_signed_payload_of_any_shape_is_folded_or_refused_and_never_ends_a_follower(
    kind: str, data: st.DataObject
) -> None:
    payload = copy.deepcopy(PAYLOADS[kind])
    container, key = data.draw(st.sampled_from(list(places(payload))))
    container[key] = data.draw(POISON)
    fold_poisoned(kind, payload)


@pytest.mark.holds("L9", "F18", "adv_malformed_peer")
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_signed_state_of_any_shape_is_restored_or_refused(data: st.DataObject) -> None:
    state = to_state(full_world())
    container, key = data.draw(st.sampled_from(list(places(state))))
    container[key] = data.draw(POISON)
    try:
        restored = from_state(state)
    except FoldError:
        return
    assert max(restored.signed_ms, restored.seq) >= 0


def full_world() -> World:
    scribe = Scribe()
    scribe.policy(POLICY)
    scribe.assets(**ASSETS)
    scribe.assets(**{"dataset/old": {"environment": "dev"}})
    scribe.write("retire", {"names": ["dataset/old"], "reason": "superseded"})
    scribe.lock("l0", {"kind": "principal", "principal": "user:eve@x"}, end_ms=START_MS + 5)
    return scribe.write("lock", LOCK)


def without_licence(scribe: Scribe) -> World:
    """Make a revision live whose vocabulary no longer knows an attribute that a registered asset has."""
    words = VOCABULARY.replace("  resource.license: {type: string}\n", "")
    assert words != VOCABULARY
    payload = PAYLOADS["policy"] | {"model": None, "vocabulary": words, "added": []}
    return scribe.write("policy", payload)


def retyped(scribe: Scribe) -> World:
    words = VOCABULARY.replace("resource.license: {type: string}", "resource.license: {type: int}")
    payload = PAYLOADS["policy"] | {"model": None, "vocabulary": words, "added": []}
    return scribe.write("policy", payload)


def unlocked(scribe: Scribe) -> World:
    scribe.lock("l2", {"kind": "resource", "resource": "dataset/**"})
    scribe.lock("l3", {"kind": "resource", "resource": "dataset/**"})
    return scribe.write("unlock", {"id": "l2"})


@pytest.mark.parametrize("change", [lambda scribe: scribe.world, without_licence, retyped, unlocked])
def test_a_restored_world_is_the_one_that_was_written(change: Callable[[Scribe], World]) -> None:
    scribe = Scribe()
    scribe.policy(POLICY)
    scribe.assets(**ASSETS)
    world = change(scribe)
    state = canonical.dumps(to_state(world))
    restored = from_state(canonical.loads(state))
    assert canonical.dumps(to_state(restored)) == state
    assert (restored.revision, restored.assets, list(restored.locks)) == (
        world.revision, world.assets, list(world.locks),
    )  # fmt: skip
    question = Question(
        subject=Party(principal=Principal.parse("user:a@x")),
        action=Action.parse("decision.ask"),
        resource=Resource.parse("decision/main"),
    )
    assert decide(restored, question, START_MS) == decide(world, question, START_MS)


def test_a_snapshot_cannot_exchange_a_built_in_asset() -> None:
    state = to_state(full_world())
    state["assets"][next(iter(BUILTIN_ASSETS))] = {"environment": "dev"}
    with pytest.raises(FoldError, match="built in"):
        from_state(state)
