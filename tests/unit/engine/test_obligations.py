import itertools

import pytest

from pdp.engine.obligations import OBLIGATIONS, ObligationError, merge, parse_then, recheck_after_s
from pdp.limits import MAX_EXPRESSION_DEPTH
from pdp.model.decision import Obligation


def written(text: str) -> list[str]:
    return [str(duty) for duty in parse_then(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("recheck_after=10s", ["recheck_after=10s"]),
        ("recheck_after=2m; strip_outputs=probabilities", ["recheck_after=120s", "strip_outputs=probabilities"]),
        ("max_tokens = 007", ["max_tokens=7"]),
        ("deny_columns=b, a", ["deny_columns=a,b"]),
        ('column_masks={"ssn": "show-last-4"}; max_rows=5', ['column_masks={"ssn":"show-last-4"}', "max_rows=5"]),
        ('row_filter={"type":"eq","term":"a;b","value":1}', ['row_filter={"term":"a;b","type":"eq","value":1}']),
        ("strip_outputs=round:3,round:1,logprobs", ["strip_outputs=logprobs,round:1"]),
    ],
)
def test_obligations_are_read_in_canonical_form(text: str, expected: list[str]) -> None:
    assert written(text) == expected


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("recheck_afer=10s", 0),
        ("recheck_after", 0),
        ("recheck_after=10", 14),
        ("recheck_after=0s", 14),
        ("max_rows=5; max_rows=6", 11),
        ("max_rows=-1", 9),
        ("max_rows=99999999999999999", 9),
        ("max_rows=5;", 10),
        ('column_masks={"a": "nothing"}', 13),
        ('column_masks={"a": "mask-alphanum", "a": "mask-alphanum"}', 13),
        ("column_masks=x", 13),
        ("row_filter=[1]", 11),
        ("require_digest=sha256:12", 15),
        ("audit_level=some", 12),
        ("strip_outputs=all", 14),
        ("notify=", 7),
    ],
)
def test_what_is_no_obligation_is_refused_at_its_place(text: str, at: int) -> None:
    with pytest.raises(ObligationError) as refused:
        parse_then(text)
    assert refused.value.at == at


def merged(*texts: str) -> list[str] | None:
    duties = merge(duty for text in texts for duty in parse_then(text))
    return None if duties is None else [str(duty) for duty in duties]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("recheck_after=10s", "recheck_after=1m"), ["recheck_after=10s"]),
        (("max_rows=5", "max_rows=40"), ["max_rows=5"]),
        (("deny_columns=a", "deny_columns=b,a"), ["deny_columns=a,b"]),
        (("pin_version=3", "pin_version=3"), ["pin_version=3"]),
        (("pin_version=3", "pin_version=4"), None),
        (("purpose=x", "purpose=y"), None),
        (("audit_level=normal", "audit_level=full"), ["audit_level=full"]),
        (("strip_outputs=round:3", "strip_outputs=round:1,logprobs"), ["strip_outputs=logprobs,round:1"]),
        (
            ('column_masks={"a":"mask-alphanum"}', 'column_masks={"a":"show-last-4","b":"show-last-4"}'),
            ['column_masks={"a":"replace-with-null","b":"show-last-4"}'],
        ),
        (
            ('row_filter={"type":"y"}', 'row_filter={"type":"x"}', 'row_filter={"type":"x"}'),
            ['row_filter={"left":{"type":"x"},"right":{"type":"y"},"type":"and"}'],
        ),
    ],
)
def test_conflicts_resolve_to_the_stricter_in_any_order(texts: tuple[str, ...], expected: list[str] | None) -> None:
    for order in itertools.permutations(texts):
        assert merged(*order) == expected


def nested(depth: int) -> str:
    return 'row_filter={"type":"x","child":' + "[" * (depth - 1) + "]" * (depth - 1) + "}"


def test_a_filter_that_only_the_compilers_stack_holds_is_refused() -> None:
    assert parse_then(nested(MAX_EXPRESSION_DEPTH))
    with pytest.raises(ObligationError, match="deep"):
        parse_then(nested(MAX_EXPRESSION_DEPTH + 1))


def test_filters_of_more_rules_than_the_stack_holds_frames_are_merged() -> None:
    texts = [f'row_filter={{"type":"t{n}"}}' for n in range(2_000)]
    (whole,) = merged(*texts) or []
    assert all(f'"t{n}"' in whole for n in range(2_000))


def test_recheck_after_is_read_in_seconds() -> None:
    assert recheck_after_s(parse_then("max_rows=1; recheck_after=2m")) == 120.0
    assert recheck_after_s((Obligation(name="max_rows", value="1"),)) is None


def test_the_list_is_that_of_the_design() -> None:
    assert {"row_filter", "column_masks", "pin_version", "recheck_after", "strip_outputs"} <= set(OBLIGATIONS)
    assert "budget_key" not in OBLIGATIONS
