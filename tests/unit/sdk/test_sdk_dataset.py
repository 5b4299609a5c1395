"""Obligations on Arrow: no denied value leaves, masks come after filters, null stays null, the unknown is refused."""

import datetime as dt
import hashlib
import json
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import feather

from pdp.errors import Reason
from pdp.model.decision import Obligation
from pdp.sdk import AccessDenied, AccessEnded, open_dataset
from pdp.sdk.dataset import SUPPORTS, RestrictedDataset
from tests.support.granting import Granting

SALES = "dataset/sales"
URI = f"pdp://{SALES}"
ROWS: list[dict[str, Any]] = [
    {"id": 1, "country": "DE", "email": "ann.1@example.com", "born": dt.date(1980, 5, 17), "pay": 10.0},
    {"id": 2, "country": "FR", "email": "bob22@example.com", "born": dt.date(1991, 1, 2), "pay": None},
    {"id": 3, "country": None, "email": None, "born": None, "pay": 30.0},
    {"id": 4, "country": "DE", "email": "dee", "born": dt.date(2001, 12, 31), "pay": 40.0},
]
TABLE = pa.Table.from_pylist(ROWS)


def duties(**values: Any) -> tuple[Obligation, ...]:
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    return tuple(Obligation(name=name, value=text) for name, text in texts.items())


def opened(directory: Path, table: pa.Table = TABLE, **obligations: Any) -> RestrictedDataset:
    pq.write_table(table, directory / "part.parquet", row_group_size=2)
    client = Granting(["dataset.read"], obligations=duties(**obligations))
    return open_dataset(URI, client=client, mounts={SALES: str(directory)})


def eq(column: str, value: Any) -> dict[str, Any]:
    return {"type": "eq", "term": column, "value": value}


# What each obligation does.


def test_without_obligations_everything_comes(tmp_path: Path) -> None:
    assert opened(tmp_path).to_table().to_pylist() == ROWS


def test_a_row_filter_drops_false_and_null(tmp_path: Path) -> None:
    assert opened(tmp_path, row_filter=eq("country", "DE")).to_table()["id"].to_pylist() == [1, 4]
    not_german = {"type": "not", "child": eq("country", "DE")}
    assert opened(tmp_path, row_filter=not_german).to_table()["id"].to_pylist() == [2]
    assert opened(tmp_path, row_filter={"type": "not-eq", "term": "country", "value": "DE"}).count_rows() == 1
    among = {"type": "not-in", "term": "country", "values": ["DE", "ES"]}
    assert opened(tmp_path, row_filter=among).to_table()["id"].to_pylist() == [2]


def test_the_row_filter_reads_original_values_and_the_callers_reads_masked_ones(tmp_path: Path) -> None:
    dataset = opened(
        tmp_path,
        row_filter=eq("email", "bob22@example.com"),
        column_masks={"email": "mask-alphanum"},
        deny_columns="country",
    )
    assert dataset.to_table(["id", "email"]).to_pylist() == [{"id": 2, "email": "xxxnn@xxxxxxx.xxx"}]
    assert dataset.to_table(filter=pc.field("email") == "bob22@example.com").num_rows == 0
    assert dataset.to_table(filter=pc.field("email") == "xxxnn@xxxxxxx.xxx").num_rows == 1


def test_a_row_filter_may_read_a_column_that_is_denied(tmp_path: Path) -> None:
    dataset = opened(tmp_path, row_filter=eq("country", "DE"), deny_columns="country")
    assert dataset.to_table().column_names == ["id", "email", "born", "pay"]
    assert dataset.to_table()["id"].to_pylist() == [1, 4]


def test_a_denied_column_can_neither_be_named_nor_filtered_by(tmp_path: Path) -> None:
    dataset = opened(tmp_path, deny_columns="country,pay")
    assert dataset.schema.names == ["id", "email", "born"]
    with pytest.raises(AccessDenied, match="`pay`"):
        dataset.to_table(["pay"])
    with pytest.raises(pa.ArrowInvalid, match="country"):
        dataset.to_table(filter=pc.field("country") == "DE")
    for special in ("__filename", "__fragment_index"):
        with pytest.raises(AccessDenied):
            dataset.to_table([special])


def test_max_rows_is_counted_before_the_callers_filter(tmp_path: Path) -> None:
    dataset = opened(tmp_path, max_rows="2")
    assert dataset.to_table()["id"].to_pylist() == [1, 2]
    assert dataset.to_table(filter=pc.field("id") == 4).num_rows == 0, "asking otherwise shows no further rows"
    assert dataset.head(9)["id"].to_pylist() == [1, 2]
    assert opened(tmp_path, max_rows="0").to_table().num_rows == 0


@pytest.mark.parametrize(
    ("mask", "column", "told"),
    [
        ("mask-alphanum", "email", ["xxx.n@xxxxxxx.xxx", "xxxnn@xxxxxxx.xxx", None, "xxx"]),
        ("show-first-4", "email", ["ann.n@xxxxxxx.xxx", "bob2n@xxxxxxx.xxx", None, "xxx"]),
        ("show-last-4", "email", ["xxx.n@xxxxxxx.com", "xxxnn@xxxxxxx.com", None, "xxx"]),
        ("replace-with-null", "pay", [None] * 4),
        ("truncate-to-year", "born", [dt.date(1980, 1, 1), dt.date(1991, 1, 1), None, dt.date(2001, 1, 1)]),
        ("truncate-to-month", "born", [dt.date(1980, 5, 1), dt.date(1991, 1, 1), None, dt.date(2001, 12, 1)]),
    ],
)
def test_masks(tmp_path: Path, mask: str, column: str, told: list[Any]) -> None:
    masked = opened(tmp_path, column_masks={column: mask}).to_table()
    assert masked[column].to_pylist() == told
    assert masked.schema.field(column).type == TABLE.schema.field(column).type


def test_hashes_are_of_the_value_or_of_this_dataset_alone(tmp_path: Path) -> None:
    by_all = opened(tmp_path, column_masks={"email": "sha-256-global"}).to_table()["email"].to_pylist()
    assert by_all[0] == hashlib.sha256(b"ann.1@example.com").hexdigest()
    assert by_all[2] is None
    local = opened(tmp_path, column_masks={"email": "sha-256-query-local"})
    first, again = (local.to_table()["email"].to_pylist() for _ in range(2))
    other = opened(tmp_path, column_masks={"email": "sha-256-query-local"}).to_table()["email"].to_pylist()
    assert first == again
    assert first[0] not in {by_all[0], other[0]}


def test_letters_of_other_scripts_are_masked_too(tmp_path: Path) -> None:
    table = pa.table({"name": ["Łukasz Ж٣-é 漢字", "a\u0301\u200b"]})
    masked = opened(tmp_path, table, column_masks={"name": "mask-alphanum"}).to_table()
    assert masked["name"].to_pylist() == ["xxxxxx xn-x xx", "xxx"]


# What cannot be carried out is refused.

BAD_FILTERS: list[Any] = [
    {"type": "like", "term": "email", "value": "a%"},
    {"type": "eq", "term": "email"},
    {"type": "eq", "term": "email", "value": "x", "more": 1},
    {"type": "eq", "term": {"type": "transform", "transform": "bucket[4]", "term": "id"}, "value": 1},
    eq("nothing", 1),
    eq("id", "1"),
    eq("id", 1.5),
    {"type": "eq", "term": "id", "value": True},
    eq("id", 2**70),
    eq("id", None),
    eq("born", "not a date"),
    {"type": "in", "term": "id", "values": []},
    {"type": "and", "left": eq("id", 1), "right": "true"},
    {"type": "starts-with", "term": "id", "value": "1"},
]


@pytest.mark.parametrize("bad", BAD_FILTERS, ids=str)
def test_a_filter_not_understood_in_every_part_is_refused(tmp_path: Path, bad: Any) -> None:
    with pytest.raises(AccessDenied) as denied:
        opened(tmp_path, row_filter=bad)
    assert denied.value.reason is Reason.OBLIGATION_UNSUPPORTED
    assert "row_filter" in str(denied.value)


@pytest.mark.parametrize(
    "obligations",
    [
        {"column_masks": {"email": "mask-like-iceberg-of-next-year"}},
        {"column_masks": {"id": "mask-alphanum"}},
        {"column_masks": {"email": "truncate-to-year"}},
        {"pin_snapshot": "s1"},
        {"purpose": "billing"},
        {"max_bytes": "10"},
        {"an_obligation_of_next_year": "1"},
        {"deny_columns": "EMAIL"},
        {"column_masks": {"Email": "replace-with-null"}},
        {"deny_columns": "email.host"},
    ],
    ids=str,
)
def test_an_obligation_that_cannot_be_carried_out_is_refused(tmp_path: Path, obligations: Any) -> None:
    with pytest.raises(AccessDenied) as denied:
        opened(tmp_path, **obligations).to_table()
    assert denied.value.reason is Reason.OBLIGATION_UNSUPPORTED


def test_columns_elsewhere_are_no_reason_to_refuse(tmp_path: Path) -> None:
    dataset = opened(tmp_path, deny_columns="ssn", column_masks={"phone": "show-last-4"})
    assert dataset.to_table().to_pylist() == ROWS


def test_a_dictionary_inside_a_column_is_refused(tmp_path: Path) -> None:
    inner = pa.array([["a"], ["b"]], pa.list_(pa.string())).cast(pa.list_(pa.dictionary(pa.int32(), pa.string())))
    feather.write_feather(pa.table({"tags": inner}), tmp_path / "x.feather")
    client = Granting(["dataset.read"])
    with pytest.raises(AccessDenied, match="dictionary inside"):
        open_dataset(URI, client=client, mounts={SALES: str(tmp_path)})


def test_a_denied_dataset_is_not_opened(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "part.parquet")
    with pytest.raises(AccessDenied, match="no_grant"):
        open_dataset(URI, client=Granting([]), mounts={SALES: str(tmp_path)})


def test_the_purpose_is_asked_and_must_be_the_one_allowed(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "part.parquet")
    client = Granting(["dataset.read"], obligations=duties(purpose="training"))
    dataset = open_dataset(URI, purpose="training", client=client, mounts={SALES: str(tmp_path)})
    assert dataset.count_rows() == 4
    assert client.asked[0].attributes == {"request.purpose": "training"}
    assert client.asked[0].supports == SUPPORTS


def test_a_pinned_snapshot_is_the_one_that_is_read(tmp_path: Path) -> None:
    for name, rows in (("s1", ROWS[:1]), ("s2", ROWS)):
        (tmp_path / name).mkdir()
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name / "part.parquet")
    mounts = {SALES: f"{tmp_path}/{{snapshot}}"}
    client = Granting(["dataset.read"], obligations=duties(pin_snapshot="s1"))
    assert open_dataset(URI, client=client, mounts=mounts).count_rows() == 1
    with pytest.raises(AccessDenied, match="`s1` alone"):
        open_dataset(URI, client=client, mounts=mounts, snapshot="s2")
    assert open_dataset(URI, client=Granting(["dataset.read"]), mounts=mounts, snapshot="s2").count_rows() == 4


def test_access_that_ends_while_it_is_read_stops_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pq.write_table(TABLE, tmp_path / "part.parquet", row_group_size=1)
    client = Granting(["dataset.read"], recheck_after_s=5)
    dataset = open_dataset(URI, client=client, mounts={SALES: str(tmp_path)})
    batches = dataset.to_batches()
    assert next(batches).num_rows == 1
    now = 106.0
    assert next(batches).num_rows == 1
    now, client.granted = 112.0, []
    with pytest.raises(AccessEnded):
        next(batches)


# No denied value ever leaves.

SECRET = re.compile(rb"SECRET-\d+")
texts = st.one_of(st.none(), st.sampled_from(["a", "ab", "abcd", "abcde", ""]))
numbers = st.one_of(st.none(), st.integers(-3, 3))
rows = st.lists(st.fixed_dictionaries({"n": numbers, "t": texts}), min_size=1, max_size=30)


def filters(depth: int = 2) -> st.SearchStrategy[dict[str, Any]]:
    leaf = st.one_of(
        st.builds(
            lambda op, value: {"type": op, "term": "n", "value": value},
            st.sampled_from(["eq", "not-eq", "lt", "lt-eq", "gt", "gt-eq"]),
            st.integers(-3, 3),
        ),
        st.builds(
            lambda op, values: {"type": op, "term": "n", "values": values},
            st.sampled_from(["in", "not-in"]),
            st.lists(st.integers(-3, 3), min_size=1, max_size=3),
        ),
        st.builds(
            lambda op: {"type": op, "term": "t"},
            st.sampled_from(["is-null", "not-null"]),
        ),
        st.builds(
            lambda op, value: {"type": op, "term": "t", "value": value},
            st.sampled_from(["starts-with", "not-starts-with"]),
            st.sampled_from(["a", "ab", ""]),
        ),
        st.sampled_from([{"type": "true"}, {"type": "false"}]),
    )
    if not depth:
        return leaf
    inner = filters(depth - 1)
    return st.one_of(
        leaf,
        st.builds(
            lambda op, one, two: {"type": op, "left": one, "right": two}, st.sampled_from(["and", "or"]), inner, inner
        ),
        st.builds(lambda one: {"type": "not", "child": one}, inner),
    )


COMPARE = {
    "eq": lambda a, b: a == b,
    "not-eq": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "lt-eq": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "gt-eq": lambda a, b: a >= b,
    "in": lambda a, b: a in b,
    "not-in": lambda a, b: a not in b,
    "starts-with": lambda a, b: a.startswith(b),
    "not-starts-with": lambda a, b: not a.startswith(b),
}


def holds(node: dict[str, Any], row: dict[str, Any]) -> bool | None:
    """Say what a filter means for a row, by the three values of SQL."""
    kind = node["type"]
    if kind in {"true", "false"}:
        return kind == "true"
    if kind == "not":
        inner = holds(node["child"], row)
        return None if inner is None else not inner
    if kind in {"and", "or"}:
        sides = [holds(node["left"], row), holds(node["right"], row)]
        decisive = kind == "or"
        return decisive if decisive in sides else None if None in sides else not decisive
    value = row[node["term"]]
    if kind in {"is-null", "not-null"}:
        return (value is None) is (kind == "is-null")
    return None if value is None else COMPARE[kind](value, node.get("value", node.get("values")))


def every_buffer(batches: Iterator[pa.RecordBatch]) -> bytes:
    found = b""
    for batch in batches:
        for column in batch.columns:
            found += b"".join(buffer.to_pybytes() for buffer in column.buffers() if buffer is not None)
    return found


@settings(max_examples=120, deadline=None)
@given(data=rows, node=filters(), cap=st.one_of(st.none(), st.integers(0, 10)), dictionary=st.booleans())
def test_what_comes_is_what_the_filter_means_and_no_denied_value_is_in_any_buffer(
    data: list[dict[str, Any]],
    node: dict[str, Any],
    cap: int | None,
    dictionary: bool,  # noqa: FBT001 - hypothesis
) -> None:
    marked = [{**row, "secret": f"SECRET-{at:04}", "hidden": f"SECRET-9{at:04}"} for at, row in enumerate(data)]
    table = pa.Table.from_pylist(
        marked, pa.schema([("n", pa.int64()), ("t", pa.string()), ("secret", pa.string()), ("hidden", pa.string())])
    )
    if dictionary:
        table = table.set_column(2, "secret", table["secret"].dictionary_encode())
        table = table.set_column(1, "t", table["t"].dictionary_encode())
    allowed = [row for row in marked if holds(node, row) is True][:cap]
    obligations: dict[str, Any] = {"row_filter": node, "deny_columns": "hidden", "column_masks": {"t": "mask-alphanum"}}
    if cap is not None:
        obligations["max_rows"] = str(cap)
    with tempfile.TemporaryDirectory() as directory:
        dataset = opened(Path(directory), table, **obligations)
        told = dataset.to_table()
        assert told["secret"].to_pylist() == [row["secret"] for row in allowed]
        assert told["n"].to_pylist() == [row["n"] for row in allowed]
        assert told["t"].to_pylist() == [row["t"] and "x" * len(row["t"]) for row in allowed]
        seen = set(SECRET.findall(every_buffer(dataset.to_batches())))
        assert seen <= {row["secret"].encode() for row in allowed}
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, told.schema) as writer:
            writer.write_table(told)
        assert set(SECRET.findall(sink.getvalue().to_pybytes())) <= {row["secret"].encode() for row in allowed}
