"""Attributes enter with exactly the declared type, or not at all."""

import pytest

from pdp.errors import BadRequestError
from pdp.model.attributes import AttributeType, check_value, instant_ms


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (AttributeType.BOOL, True),
        (AttributeType.INT, -5),
        (AttributeType.DOUBLE, 0.5),
        (AttributeType.STRING, "fraud-detection"),
        (AttributeType.LIST, ("a", "b")),
        (AttributeType.TIMESTAMP, "2026-11-20T08:00:00Z"),
    ],
)
def test_a_value_of_the_declared_type_enters(kind: AttributeType, value: object) -> None:
    check_value("request.x", value, kind)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (AttributeType.INT, True),
        (AttributeType.BOOL, 1),
        (AttributeType.DOUBLE, 1),
        (AttributeType.STRING, 1),
        (AttributeType.LIST, ["a"]),
        (AttributeType.LIST, ("a", 1)),
        (AttributeType.INT, 2**53),
        (AttributeType.DOUBLE, float("inf")),
        (AttributeType.DOUBLE, float("nan")),
        (AttributeType.STRING, "a\nb"),
        (AttributeType.STRING, "x" * 5_000),
        (AttributeType.LIST, ("x",) * 257),
        (AttributeType.TIMESTAMP, "2026-11-20T08:00:00"),
        (AttributeType.TIMESTAMP, "2026-11-20T08:00:00+02:00"),
        (AttributeType.TIMESTAMP, "yesterdayZ"),
    ],
)
def test_nothing_is_converted(kind: AttributeType, value: object) -> None:
    with pytest.raises(BadRequestError) as refused:
        check_value("request.x", value, kind)
    assert "request.x" in refused.value.message or kind is AttributeType.TIMESTAMP


def test_instants_are_utc() -> None:
    assert instant_ms("1970-01-01T00:00:01Z") == 1_000


@pytest.mark.parametrize(
    "text",
    [
        "20261120T080000Z", "2026-W47-5T08:00:00Z", "2026-11-20T08Z", "2026-11-20 08:00:00Z", "2026-11-20x08:00:00Z",
        "2026-11-20T08:00:00,5Z", "2026-11-20Z", "2026-11-20T08:00:00z", "2026-11-20T08:00:00+00:00", "2026-02-30T08:00:00Z",
        "2026-11-20T08:00:00Z\n", "\N{ARABIC-INDIC DIGIT TWO}026-11-20T08:00:00Z",
    ],
)  # fmt: skip
def test_an_instant_has_one_spelling(text: str) -> None:
    with pytest.raises(BadRequestError):
        instant_ms(text)


def test_an_instant_may_have_a_fraction() -> None:
    assert instant_ms("1970-01-01T00:00:01.250Z") == 1_250
