"""A `row_filter`: an Iceberg expression in JSON, made an Arrow expression over one schema.

Three-valued as in SQL: where the filter is false or null, the row goes. Whatever is not understood in every part (an
operation, a term that is no plain column, a column the data does not have, a value that is none of the column's type) is
`CannotApply`, and the access is refused.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc


class CannotApply(Exception):  # noqa: N818 - a door's word: the obligation is refused, nothing failed
    """An obligation that cannot be carried out here; the text says why."""


def row_filter(text: str, schema: pa.Schema) -> pc.Expression:
    """Return the Arrow expression of an Iceberg one.

    Raises:
        CannotApply: it is not understood, or does not fit the schema.
    """
    return _expression(json.loads(text), schema)


def _expression(node: Any, schema: pa.Schema) -> pc.Expression:
    if not isinstance(node, dict) or not isinstance(node.get("type"), str):
        raise CannotApply("row_filter: a part of it is no expression")
    make = _KINDS.get(node["type"])
    if make is None:
        raise CannotApply(f"row_filter: unknown operation `{node['type']}`")
    wanted, build = make
    if set(node) != {"type", *wanted}:
        raise CannotApply(f"row_filter: `{node['type']}` has {', '.join(wanted) or 'nothing'} and nothing else")
    return build(node, schema)


def _column(node: Mapping[str, Any], schema: pa.Schema) -> tuple[pc.Expression, pa.DataType]:
    name = node["term"]
    if not isinstance(name, str):
        raise CannotApply("row_filter: a term that is no plain column")
    if schema.names.count(name) != 1:
        raise CannotApply(f"row_filter: the data has no column `{name}`")
    kind = schema.field(name).type
    if pa.types.is_dictionary(kind):
        # Compared by value: an index means nothing outside its dictionary.
        return pc.field(name).cast(kind.value_type), kind.value_type
    return pc.field(name), kind


def _literal(value: Any, kind: pa.DataType) -> pa.Scalar:
    """Return a value as one of the column's type; none is cut, rounded or wrapped to fit."""
    if value is None or isinstance(value, dict | list):
        raise CannotApply("row_filter: a value is missing or no scalar")
    if isinstance(value, bool) is not pa.types.is_boolean(kind):
        raise CannotApply(f"row_filter: `{value}` is not of the column's type {kind}")
    if isinstance(value, str) and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise CannotApply(f"row_filter: text for a column of type {kind}")
    try:
        return pc.cast(pa.scalar(value), kind, safe=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise CannotApply(f"row_filter: a value does not fit a column of type {kind}") from error


def _compare(operation: Callable[[pc.Expression, pa.Scalar], pc.Expression]) -> Any:
    def build(node: Mapping[str, Any], schema: pa.Schema) -> pc.Expression:
        column, kind = _column(node, schema)
        return operation(column, _literal(node["value"], kind))

    return ("term", "value"), build


def _either(operation: Callable[[pc.Expression, pc.Expression], pc.Expression]) -> Any:
    def build(node: Mapping[str, Any], schema: pa.Schema) -> pc.Expression:
        return operation(_expression(node["left"], schema), _expression(node["right"], schema))

    return ("left", "right"), build


def _about(operation: Callable[[pc.Expression], pc.Expression]) -> Any:
    return ("term",), lambda node, schema: operation(_column(node, schema)[0])


def _among(*, inside: bool) -> Any:
    def build(node: Mapping[str, Any], schema: pa.Schema) -> pc.Expression:
        column, kind = _column(node, schema)
        values = node["values"]
        if not isinstance(values, list) or not values:
            raise CannotApply("row_filter: `values` is a list of at least one")
        # Written out: `isin` finds a null in no list and says false, whose negation would let the row stay.
        found = [column == _literal(value, kind) for value in values]
        whole = found[0]
        for one in found[1:]:
            whole = whole | one
        return whole if inside else ~whole

    return ("term", "values"), build


def _starts(*, with_it: bool) -> Any:
    def build(node: Mapping[str, Any], schema: pa.Schema) -> pc.Expression:
        column, kind = _column(node, schema)
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)) or not isinstance(node["value"], str):
            raise CannotApply("row_filter: only text starts with text")
        found = pc.starts_with(column, pattern=node["value"])
        return found if with_it else ~found

    return ("term", "value"), build


_KINDS: Final[dict[str, Any]] = {
    "true": ((), lambda _node, _schema: pc.scalar(True)),  # noqa: FBT003 - a literal
    "false": ((), lambda _node, _schema: pc.scalar(False)),  # noqa: FBT003 - a literal
    "and": _either(lambda left, right: left & right),
    "or": _either(lambda left, right: left | right),
    "not": (("child",), lambda node, schema: ~_expression(node["child"], schema)),
    "eq": _compare(lambda column, value: column == value),
    "not-eq": _compare(lambda column, value: column != value),
    "lt": _compare(lambda column, value: column < value),
    "lt-eq": _compare(lambda column, value: column <= value),
    "gt": _compare(lambda column, value: column > value),
    "gt-eq": _compare(lambda column, value: column >= value),
    "is-null": _about(lambda column: column.is_null()),
    "not-null": _about(lambda column: ~column.is_null()),
    "is-nan": _about(pc.is_nan),
    "not-nan": _about(lambda column: ~pc.is_nan(column)),
    "in": _among(inside=True),
    "not-in": _among(inside=False),
    "starts-with": _starts(with_it=True),
    "not-starts-with": _starts(with_it=False),
}
