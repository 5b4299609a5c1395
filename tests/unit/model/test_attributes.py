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
