import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.engine.functions import resource_match
from pdp.engine.touched import Scope

SEGMENTS = st.lists(st.sampled_from(["a", "b", "ab", "*"]), min_size=1, max_size=4)
NAMES = SEGMENTS.map(lambda segments: "/".join(segments).replace("*", "c"))
PATTERNS = st.tuples(SEGMENTS, st.sampled_from(["", "/**", "@1"])).map(lambda made: "/".join(made[0]) + made[1])


@given(member=NAMES, seed=PATTERNS, pattern=PATTERNS)
def test_patterns_with_a_name_in_common_always_meet(member: str, seed: str, pattern: str) -> None:
    for version in ("", "@1", "@2"):
        if resource_match(member + version, seed) and resource_match(member + version, pattern):
            assert Scope([seed]).meets(pattern)
            assert Scope([pattern]).meets(seed)
            assert Scope([seed]).meets(member + version)


@pytest.mark.parametrize(
    ("seed", "name", "meets"),
    [
        ("dataset/a/**", "dataset/a/b", True),
        ("dataset/a/**", "dataset/b/**", False),
        ("dataset/a/**", "model/a", False),
        ("dataset/*/x", "dataset/b/x", True),
        ("dataset/*/x", "dataset/b/y", False),
        ("dataset/**", "dataset/b/y", True),
        ("user:bob", "user:eve", False),
        ("workload:spiffe://td/ns/**", "workload:spiffe://td/ns/app", True),
        ("workload:spiffe://td/ns/**", "workload:spiffe://td/other", False),
    ],
)
def test_names_of_which_no_seed_says_anything_are_passed_over(seed: str, name: str, meets: bool) -> None:  # noqa: FBT001
    assert Scope([seed]).meets(name) is meets
