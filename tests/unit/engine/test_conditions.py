import pytest

from pdp.engine.conditions import ConditionError, Conditions
from tests.unit.engine.conftest import Workbench

NOW_MS = 1_780_000_000_000


@pytest.fixture(scope="module")
def conditions(bench: Workbench) -> Conditions:
    return Conditions(bench.vocabulary)


def test_a_condition_holds_fails_or_cannot_be_said(conditions: Conditions) -> None:
    condition = conditions.compiled("resource.signature_verified && size(resource.approvals) >= 2")
    good = {"resource.signature_verified": True, "resource.approvals": ("a", "b")}
    assert condition.holds(good, NOW_MS) is True
    assert condition.holds({**good, "resource.approvals": ("a",)}, NOW_MS) is False
    assert condition.holds({"resource.signature_verified": True}, NOW_MS) is None
    assert condition.reads_now is False


def test_or_does_not_need_what_it_does_not_need(conditions: Conditions) -> None:
    condition = conditions.compiled("request.purpose == 'x' || resource.registered")
    assert condition.holds({"resource.registered": True}, NOW_MS) is True
    assert condition.holds({"resource.registered": False}, NOW_MS) is None


@pytest.mark.parametrize(
    ("text", "attributes"),
    [
        ("signal.drift_level < 2", {"signal.drift_level": True}),
        ("signal.drift_level < 2", {"signal.drift_level": 1.0}),
        ("signal.drift_level < 2", {"signal.drift_level": 2**80}),
        ("signal.drift_p < 2.0", {"signal.drift_p": 1}),
        ("resource.registered", {"resource.registered": 1}),
        ("request.purpose == 'x'", {"request.purpose": ("x",)}),
        ("request.purpose != 'x'", {"request.purpose": "\ud800"}),
        ("size(resource.approvals) < 9", {"resource.approvals": "ab"}),
        ("1 / signal.drift_level == 1", {"signal.drift_level": 0}),
        ("request.purpose.matches('(')", {"request.purpose": "x"}),
    ],
)
def test_a_value_of_another_type_or_an_error_never_holds(
    conditions: Conditions, text: str, attributes: dict[str, object]
) -> None:
    assert conditions.compiled(text).holds(attributes, NOW_MS) is None  # type: ignore[arg-type]


def test_now_is_the_time_that_is_passed_in(conditions: Conditions) -> None:
    condition = conditions.compiled("now > timestamp('2026-01-01T00:00:00Z')")
    assert condition.reads_now
    assert condition.holds({}, NOW_MS) is True
    assert condition.holds({}, 0) is False
    assert condition.holds({}, 10**18) is None


@pytest.mark.holds("adv_closed_functions")
@pytest.mark.parametrize(
    ("text", "code", "at"),
    [
        ("request.purpos == 'x'", "PC203", 7),
        ("request.purpose == 3", "PC206", 16),
        ("request.purpose = 'x'", "PC211", 16),
        ("size(request.purpose)", "PC205", 0),
        ("true", "PC210", 0),
        ("1 == 1", "PC210", 0),
        ("'request.purpose' == 'x'", "PC210", 0),
        ("has(request.purpose)", "PC213", 0),
        ("request.purpose == 'x' || has  (request.purpose)", "PC213", 26),
        ("r'\\' == request.purpose || has(request.purpose)", "PC213", 27),
        ("(" * 40 + "resource.registered" + ")" * 40, "PC211", 0),
        ("resource.registered && " * 400 + "resource.registered", "PC211", 0),
        ("\ud800 == request.purpose", "PC115", 0),
        ("request.purpose == 'x' // '\n || has(request.purpose) //'", "PC115", 0),
        (".has(request.purpose)", "PC203", 4),
        (
            "resource.tags.all(a, resource.tags.all(b, resource.tags.all(c, a == b && b == c)))",
            "PC211",
            59,
        ),
    ],
)
def test_what_is_no_condition_is_refused_at_its_column(conditions: Conditions, text: str, code: str, at: int) -> None:
    with pytest.raises(ConditionError) as refused:
        conditions.compiled(text)
    assert refused.value.problems[0][0] == code
    assert refused.value.problems[0][2] == at


def test_has_within_a_string_is_text(conditions: Conditions) -> None:
    assert conditions.compiled("request.purpose == 'has(x)'").holds({"request.purpose": "has(x)"}, NOW_MS) is True


def test_two_loops_side_by_side_are_fine(conditions: Conditions) -> None:
    text = "resource.tags.all(a, a != '') && resource.approvals.exists(b, resource.tags.exists(c, b == c))"
    attributes = {"resource.tags": ("x",), "resource.approvals": ("x",)}
    assert conditions.compiled(text).holds(attributes, NOW_MS) is True
