"""Merging obligations: a law for each, on values drawn at random. What is merged is never looser than what it came from."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pdp.engine.obligations import MASKS, OBLIGATIONS, merge, parse_then
from pdp.model.decision import Obligation
from tests.spec.profiles import tries

WORDS = st.sampled_from(("a", "b", "c", "d"))
COUNTS = st.integers(0, 1000).map(str)
TIMES = st.integers(1, 1000).map(lambda number: f"{number}s")
NAMES = st.sets(WORDS, min_size=1).map(lambda names: ",".join(sorted(names)))
OUTPUTS = st.sets(
    st.sampled_from(("probabilities", "logprobs", "all-but-top-1", "round:1", "round:4")), min_size=1
).map(lambda names: ",".join(sorted(names)))
MASK_MAPS = st.dictionaries(WORDS, st.sampled_from(sorted(MASKS)), min_size=1).map(json.dumps)
FILTERS = WORDS.map(lambda word: json.dumps({"type": "eq", "term": word, "value": 1}))
VALUES = {
    "row_filter": FILTERS,
    "column_masks": MASK_MAPS,
    "deny_columns": NAMES,
    "pin_snapshot": WORDS,
    "pin_version": WORDS,
    "require_digest": st.sampled_from(("sha256:" + "a" * 64, "sha256:" + "b" * 64)),
    "purpose": WORDS,
    "credential_ttl": TIMES,
    "max_rows": COUNTS,
    "max_bytes": COUNTS,
    "max_tokens": COUNTS,
    "max_messages": COUNTS,
    "recheck_after": TIMES,
    "recheck_messages": COUNTS,
    "recheck_tokens": COUNTS,
    "strip_outputs": OUTPUTS,
    "audit_level": st.sampled_from(("normal", "full")),
    "notify": NAMES,
    "approvals": COUNTS,
}
Duties = tuple[Obligation, ...]


@st.composite
def duties(draw: st.DrawFn) -> Duties:
    names = draw(st.sets(st.sampled_from(sorted(VALUES)), max_size=5))
    return parse_then("; ".join(f"{name}={draw(VALUES[name])}" for name in sorted(names)))


def both(one: Duties | None, other: Duties | None) -> Duties | None:
    return None if one is None or other is None else merge((*one, *other))


def meaning(found: Duties | None) -> dict[str, Any] | None:
    """Return obligations by name; a filter by what it demands, in whatever order it says so."""
    if found is None:
        return None
    return {
        duty.name: frozenset(leaves(json.loads(duty.value))) if duty.name == "row_filter" else duty.value
        for duty in found
    }


def leaves(filter_: Any) -> list[str]:
    if filter_["type"] == "and":
        return [*leaves(filter_["left"]), *leaves(filter_["right"])]
    return [json.dumps(filter_, sort_keys=True)]


def stricter(name: str, merged: str, one: str) -> bool:  # noqa: PLR0911 - one answer for each form
    """Tell whether `merged` lets through nothing that `one` does not."""
    kind = VALUES[name]
    if name == "approvals":
        return int(merged) >= int(one)
    if kind in (COUNTS, TIMES):
        return int(merged.removesuffix("s")) <= int(one.removesuffix("s"))
    if kind is NAMES:
        return set(one.split(",")) <= set(merged.split(","))
    if name == "strip_outputs":
        rounding = [part for part in merged.split(",") if part.startswith("round:")]
        return all(
            part in merged.split(",") or (part.startswith("round:") and rounding[0] <= part) for part in one.split(",")
        )
    if name == "row_filter":
        return set(leaves(json.loads(one))) <= set(leaves(json.loads(merged)))
    if name == "column_masks":
        masks = json.loads(merged)
        return all(masks[column] in (mask, "replace-with-null") for column, mask in json.loads(one).items())
    if name == "audit_level":
        return merged in ("full", one)
    return merged == one


LAWS = tries(300)


@LAWS
@given(one=duties(), other=duties())
def test_merging_is_commutative(one: Duties, other: Duties) -> None:
    assert both(one, other) == both(other, one)


@LAWS
@given(one=duties(), other=duties(), third=duties())
def test_merging_is_associative(one: Duties, other: Duties, third: Duties) -> None:
    left, right = both(both(one, other), third), both(one, both(other, third))
    assert meaning(left) == meaning(right) == meaning(merge((*one, *other, *third)))


@LAWS
@given(one=duties())
def test_merging_is_idempotent_and_nothing_is_neutral(one: Duties) -> None:
    assert both(one, one) == one
    assert both(one, ()) == one


@LAWS
@given(one=duties(), other=duties())
def test_what_is_merged_is_never_looser(one: Duties, other: Duties) -> None:
    merged = both(one, other)
    if merged is None:
        return  # they contradict each other, and the access is denied
    values = {duty.name: duty.value for duty in merged}
    for duty in (*one, *other):
        assert stricter(duty.name, values[duty.name], duty.value), (duty, values)


def test_every_obligation_of_the_closed_list_is_under_these_laws() -> None:
    assert set(VALUES) == set(OBLIGATIONS)
