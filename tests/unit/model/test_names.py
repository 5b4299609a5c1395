"""Names: what the grammar accepts, what it refuses, and which patterns name which resources."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.errors import BadNameError, Reason
from pdp.model.names import (
    _FORBIDDEN_IN_ID,
    _PLAIN_ID,
    Action,
    Principal,
    Resource,
    ResourcePattern,
    SpiffeId,
    check_grouping_name,
    printable,
)

SEGMENTS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,8}", fullmatch=True)
PATHS = st.lists(SEGMENTS, min_size=1, max_size=5).map("/".join)


@pytest.mark.parametrize(
    "text",
    ["user:alice@example.com", "workload:spiffe://prod.example/ns/ml/sa/scorer", "agent:etl-bot",
     "workload:cluster-a/system:serviceaccount:ml:x"],
)  # fmt: skip
def test_a_principal_is_spelt_in_one_way(text: str) -> None:
    assert str(Principal.parse(text)) == text


@pytest.mark.holds("N1", "adv_identifier", "adv_collation")
@pytest.mark.parametrize(
    "text",
    ["", "alice", "user:", "role:admin", "group:x", "User:alice", "user:a b", "user:a,b", "user:a@b@c", "user:a\nb",
     "user:a\u200bb", "user:\u0430lice", "user:a*", "user:a%2fb", "user:" + "x" * 256, "user:\ud800",
     "workload:spiffe://prod.example", "workload:spiffe://Prod.example/x", "workload:spiffe://prod.example/a/../b",
     "workload:spiffe://prod.example/a/", "workload:spiffe://u@prod.example/a", "workload:spiffe://prod.example:1/a",
     "workload:Spiffe://prod.example/a?x"],
)  # fmt: skip
def test_a_principal_that_could_be_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(BadNameError) as refused:
        Principal.parse(text)
    assert refused.value.reason is Reason.BAD_NAME


def test_spiffe_ids_have_a_trust_domain_and_a_path() -> None:
    spiffe = SpiffeId.parse("spiffe://prod.example/ns/ml/sa/scorer")
    assert (spiffe.trust_domain, spiffe.path) == ("prod.example", "ns/ml/sa/scorer")


@given(path=PATHS, version=st.sampled_from(["", "@7", "@2026-11-01", "@sha256:" + "a" * 64]))
def test_a_resource_reads_back_as_it_was_written(path: str, version: str) -> None:
    assert str(Resource.parse(f"dataset/{path}{version}")) == f"dataset/{path}{version}"


@pytest.mark.holds("N1")
@pytest.mark.parametrize(
    "text",
    ["", "dataset", "dataset/", "/x", "dataset//x", "dataset/./x", "dataset/../x", "dataset/x/", "Dataset/x",
     "dataset/x@", "dataset/x@1@2", "dataset/.hidden", "dataset/a b", "dataset/a*", "dataset/*", "dataset/a?b",
     "dataset/a%2fb", "dataset/\u00e9", "dataset/x@sha256:abc", "dataset/" + "x" * 600, "dataset/x\n"],
)  # fmt: skip
def test_a_malformed_resource_is_refused(text: str) -> None:
    with pytest.raises(BadNameError):
        Resource.parse(text)


@pytest.mark.holds("adv_identifier")
@pytest.mark.parametrize(
    ("pattern", "resource", "expected"),
    [
        ("dataset/finance/*", "dataset/finance/x", True),
        ("dataset/finance/*", "dataset/finance/x/y", False),
        ("dataset/finance/*", "dataset/finance", False),
        ("dataset/finance/**", "dataset/finance/x/y", True),
        ("dataset/finance/**", "dataset/finance", False),
        ("dataset/finance/**", "dataset/finances/x", False),
        ("dataset/*/raw", "dataset/finance/raw", True),
        ("dataset/*/raw", "dataset/finance/clean", False),
        ("dataset/**", "dataset/x", True),
        ("dataset/**", "model/x", False),
        ("model/fraud", "model/fraud@7", True),
        ("model/fraud@7", "model/fraud@7", True),
        ("model/fraud@7", "model/fraud@8", False),
        ("model/fraud@7", "model/fraud", False),
        ("model/a.b", "model/axb", False),
    ],
)
def test_a_star_is_a_whole_segment_and_a_dot_is_a_dot(pattern: str, resource: str, expected: bool) -> None:  # noqa: FBT001
    assert ResourcePattern.parse(pattern).matches(Resource.parse(resource)) is expected


@pytest.mark.parametrize("text", ["dataset/a*", "dataset/**/x", "dataset/***", "dataset/", "*", "*/x", "dataset/*x"])
def test_a_star_inside_a_segment_is_refused(text: str) -> None:
    with pytest.raises(BadNameError):
        ResourcePattern.parse(text)


@given(path=PATHS)
def test_every_resource_is_named_by_itself_and_by_its_types_catch_all(path: str) -> None:
    resource = Resource.parse(f"model/{path}")
    assert ResourcePattern.parse(f"model/{path}").matches(resource)
    assert ResourcePattern.parse("model/**").matches(resource)


@pytest.mark.parametrize(
    "text", ["read", "dataset.", ".read", "dataset.read.all", "Dataset.read", "dataset.*", "a b.c"]
)
def test_an_action_is_a_type_and_a_verb(text: str) -> None:
    with pytest.raises(BadNameError):
        Action.parse(text)


@pytest.mark.parametrize("text", ["user:x", "role:", "role: x", "Role:x", "role:a,b", "segment:a\n"])
def test_grouping_names_have_their_own_prefixes(text: str) -> None:
    with pytest.raises(BadNameError):
        check_grouping_name(text)


@pytest.mark.holds("N8")
@given(st.text(max_size=300))
def test_what_we_print_of_a_hostile_name_is_one_line_of_ascii(text: str) -> None:
    shown = printable(text)
    assert shown.isascii()
    assert "\n" not in shown
    assert "\x1b" not in shown


@given(st.text(st.characters(max_codepoint=0x180), max_size=12))
def test_the_short_way_of_an_identifier_is_the_long_way(text: str) -> None:
    """The pattern of the usual case admits exactly what the rules of NA-4 admit."""
    plain = (
        bool(text) and text.isascii() and text.isprintable() and _FORBIDDEN_IN_ID.isdisjoint(text) and text.count("@") <= 1
    )  # fmt: skip
    # An `@` in front is taken the long way.
    assert (_PLAIN_ID.fullmatch(text) is not None) == (plain and not text.startswith("@"))
