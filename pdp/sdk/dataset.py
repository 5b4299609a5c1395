"""A dataset with its obligations carried out: what may not be seen never becomes an Arrow array that the caller holds.

    from pdp.sdk import open_dataset

    sales = open_dataset("pdp://dataset/finance/transactions", purpose="training")
    table = sales.to_table(columns=["amount", "country"], filter=pc.field("country") == "DE")

Order of things, for every batch: the policy's `row_filter` on the original values; the allowed columns alone; `max_rows`;
masks; and only then the caller's own filter and columns. So a caller cannot find out by filtering what it may not see, nor
raise `max_rows` by asking twice. Rows and dictionaries that were left out are not in the buffers either.

Honest limit: inside one process this guides and does not wall off (`pdp.sdk.filesystem`).
"""

import json
import secrets
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pad

from pdp.errors import Reason
from pdp.sdk._masks import mask
from pdp.sdk._row_filter import CannotApply, row_filter
from pdp.sdk.client import Client
from pdp.sdk.errors import AccessDenied, AccessEnded, BadQuestion
from pdp.sdk.mounts import Mounts, Place, clean_path
from pdp.sdk.protocols import Checks
from pdp.sdk.values import AttributeValue, Decision

ACTION: Final = "dataset.read"
SUPPORTS: Final = (
    "row_filter",
    "column_masks",
    "deny_columns",
    "pin_snapshot",
    "max_rows",
    "purpose",
    "recheck_after",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restrictions:
    """The obligations of one decision, read."""

    row_filter: str = ""
    masks: Mapping[str, str] = field(default_factory=dict)
    denied: frozenset[str] = frozenset()
    snapshot: str = ""
    max_rows: int | None = None
    purpose: str = ""

    @classmethod
    def of(cls, decision: Decision) -> "Restrictions":
        """Return what `decision` demands.

        Raises:
            CannotApply: an obligation that is not carried out here.
        """
        values = {duty.name: duty.value for duty in decision.obligations}
        unknown = sorted(values.keys() - set(SUPPORTS))
        if unknown:
            raise CannotApply(f"{', '.join(unknown)}: not carried out here")
        return cls(
            row_filter=values.get("row_filter", ""),
            masks=json.loads(values.get("column_masks", "{}")),
            denied=frozenset(filter(None, values.get("deny_columns", "").split(","))),
            snapshot=values.get("pin_snapshot", ""),
            max_rows=int(values["max_rows"]) if "max_rows" in values else None,
            purpose=values.get("purpose", ""),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Access:
    """One granted access: what was asked, and the decision it stands on."""

    client: Checks
    resource: str
    about: Mapping[str, AttributeValue]
    decision: Decision
    asked_s: float

    @classmethod
    def granted(cls, client: Checks, resource: str, about: Mapping[str, AttributeValue]) -> "_Access":
        asked_s = time.monotonic()
        decision = client.check(ACTION, resource, attributes=about, supports=SUPPORTS)
        if not decision.allowed:
            raise AccessDenied(decision, action=ACTION, resource=resource)
        return cls(client=client, resource=resource, about=about, decision=decision, asked_s=asked_s)

    def refused(self, why: str) -> AccessDenied:
        """Return the error of an allow that cannot be carried out."""
        denied = self.decision.refused(Reason.OBLIGATION_UNSUPPORTED, why)
        shown = denied if isinstance(denied, Decision) else self.decision
        return AccessDenied(shown, action=ACTION, resource=self.resource)

    def still(self) -> "_Access":
        """Return the access if it still holds, decided again if it is time to.

        Raises:
            AccessEnded: it does not, or under other obligations.
        """
        bound_s = self.decision.recheck_after_s
        if bound_s is None or time.monotonic() < self.asked_s + bound_s:
            return self
        try:
            again = _Access.granted(self.client, self.resource, self.about)
        except AccessDenied as denied:
            raise AccessEnded(
                denied.reason, action=ACTION, resource=self.resource, decision=denied.decision
            ) from denied
        if again.decision.obligations != self.decision.obligations:
            raise AccessEnded(
                Reason.OBLIGATION_UNSUPPORTED,
                action=ACTION,
                resource=self.resource,
                decision=again.decision,
                detail="its obligations changed: open it again",
            )
        return again


class RestrictedDataset:
    """A dataset of which only what is allowed can be read; from `open_dataset`."""

    def __init__(self, dataset: pad.Dataset, access: _Access, restrictions: Restrictions) -> None:
        self._dataset = dataset
        self._access = access
        self._restrictions = restrictions
        self._salt = secrets.token_bytes(32)
        self._filter = _filter_of(restrictions, dataset.schema)
        self._visible = _visible(dataset.schema, restrictions)

    @property
    def schema(self) -> pa.Schema:
        """The columns that may be seen, as they come out: without dictionaries, and without metadata of the whole."""
        fields = [pa.field(name, _plain(self._dataset.schema.field(name).type)) for name in self._visible]
        return pa.schema(fields)

    @property
    def decision(self) -> Decision:
        """The decision that this access stands on."""
        return self._access.decision

    def to_batches(
        self,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,  # noqa: A002 - pyarrow's name
    ) -> Iterator[pa.RecordBatch]:
        """Yield batches of what is allowed and wanted; access is decided again when it is time to.

        Args:
            columns: some of `schema`; None: all of it.
            filter: on what may be seen, masked as it is.

        Raises:
            AccessDenied: a column that may not be seen.
            AccessEnded: access ended while it was read.
        """
        wanted = self._wanted(columns)
        access, left = self._access, self._restrictions.max_rows
        scanner = self._dataset.scanner(columns=self._visible, filter=self._filter)
        for batch in scanner.to_batches():
            access = access.still()
            if left == 0:
                return
            shown = self._shown(batch, left)
            left = None if left is None else left - shown.num_rows
            if filter is not None:
                shown = pa.Table.from_batches([shown]).filter(filter).combine_chunks()
                yield from shown.select(wanted).to_batches()
            else:
                yield shown.select(wanted)

    def to_table(
        self,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,  # noqa: A002 - pyarrow's name
    ) -> pa.Table:
        """Return all of it as a table. Arguments and errors as in `to_batches`."""
        schema = pa.schema([self.schema.field(name) for name in self._wanted(columns)])
        return pa.Table.from_batches(self.to_batches(columns, filter), schema)

    def head(self, rows: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the first rows."""
        found: list[pa.RecordBatch] = []
        for batch in self.to_batches(columns):
            found.append(batch)
            if sum(one.num_rows for one in found) >= rows:
                break
        schema = pa.schema([self.schema.field(name) for name in self._wanted(columns)])
        return pa.Table.from_batches(found, schema).slice(0, rows)

    def count_rows(self) -> int:
        """Return how many rows may be seen."""
        return sum(batch.num_rows for batch in self.to_batches())

    def _wanted(self, columns: Sequence[str] | None) -> list[str]:
        if columns is None:
            return list(self._visible)
        for name in columns:
            if name not in self._visible:
                raise self._access.refused(f"column `{name}` is not there, or may not be seen")
        return list(columns)

    def _shown(self, batch: pa.RecordBatch, left: int | None) -> pa.RecordBatch:
        """Return a batch of the visible columns, cut to what may still be seen, masked, in buffers of its own."""
        rows = batch.num_rows if left is None else min(left, batch.num_rows)
        if self._filter is not None or left is not None:
            # Taken and not sliced: a slice shares the buffers in which the rows left out still lie.
            batch = batch.take(pa.array(range(rows), pa.int64()))
        arrays = []
        for name in self._visible:
            column = _decoded(batch.column(name))
            masked = self._restrictions.masks.get(name)
            arrays.append(column if masked is None else self._masked(masked, column))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _masked(self, name: str, column: pa.Array) -> pa.Array:
        try:
            return mask(name, column, self._salt)
        except CannotApply as error:
            raise self._access.refused(str(error)) from error


def open_dataset(
    uri: str,
    *,
    purpose: str = "",
    client: Checks | None = None,
    mounts: Mapping[str, Any] | Mounts | None = None,
    snapshot: str = "",
    format: str | None = None,  # noqa: A002 - pyarrow's name
) -> RestrictedDataset:
    """Return the dataset at a `pdp://` address, with its obligations carried out.

    Args:
        uri: `pdp://dataset/…`, a mount or a path inside one.
        purpose: `request.purpose` of the question; an obligation `purpose` must name the same.
        client: who asks; None: a `Client` by the environment.
        mounts: which storage each resource stands for, as in `pdp.sdk.mounts`; None: the file that `PDP_MOUNTS` names.
        snapshot: which snapshot, where the policy pins none and the mount is kept by snapshot.
        format: `parquet`, `csv`, `feather`, `json`; None: by the name of the files, `parquet` where they do not tell.

    Raises:
        AccessDenied: it may not be read, or an obligation cannot be carried out (`obligation_unsupported`).
        PdpError: nobody can say.
        FileNotFoundError: no mount holds it.
    """
    path = clean_path(uri)
    place = Mounts.resolve(mounts).find(path)
    if place is None:
        raise FileNotFoundError(f"pdp://{path}: no mount holds it; mounts are given, or named by PDP_MOUNTS")
    if not place.mount.resource.startswith("dataset/"):
        raise BadQuestion(Reason.BAD_REQUEST, f"`{place.mount.resource}` is no dataset")
    about: dict[str, AttributeValue] = {"request.purpose": purpose} if purpose else {}
    access = _Access.granted(client or Client(), place.mount.resource, about)
    try:
        restrictions = Restrictions.of(access.decision)
        _check_purpose(restrictions, purpose)
        dataset = _opened(place, _pinned(place, restrictions, snapshot), format)
        return RestrictedDataset(dataset, access, restrictions)
    except CannotApply as error:
        raise access.refused(str(error)) from error


def _check_purpose(restrictions: Restrictions, purpose: str) -> None:
    if restrictions.purpose and restrictions.purpose != purpose:
        raise CannotApply(f"purpose: allowed for `{restrictions.purpose}` alone")


def _pinned(place: Place, restrictions: Restrictions, snapshot: str) -> str:
    """Return the snapshot to read: the policy's, else the caller's."""
    if not restrictions.snapshot:
        return snapshot
    if not place.mount.pins:
        raise CannotApply("pin_snapshot: the mount is not kept by snapshot")
    if snapshot not in {"", restrictions.snapshot}:
        raise CannotApply(f"pin_snapshot: allowed for `{restrictions.snapshot}` alone")
    return restrictions.snapshot


def _opened(place: Place, snapshot: str, format_: str | None) -> pad.Dataset:
    filesystem, root = fsspec.core.url_to_fs(place.mount.at(snapshot), **place.mount.options)
    path = f"{root.rstrip('/')}/{place.rest}" if place.rest else root.rstrip("/")
    chosen = format_ or _format_of(path if filesystem.isfile(path) else next(iter(filesystem.find(path)), ""))
    dataset = pad.dataset(path, filesystem=filesystem, format=chosen, partitioning="hive")
    if len(set(dataset.schema.names)) != len(dataset.schema.names):
        raise CannotApply("two columns of one name")
    inner = [field.name for field in dataset.schema if any(map(_holds_dictionary, _children(field.type)))]
    if inner:
        raise CannotApply(f"`{inner[0]}` holds a dictionary inside, from which nothing can be left out")
    return dataset


def _format_of(path: str) -> str:
    ending = path.rpartition(".")[2]
    return {"csv": "csv", "feather": "feather", "arrow": "feather", "json": "json", "jsonl": "json"}.get(
        ending, "parquet"
    )


def _filter_of(restrictions: Restrictions, schema: pa.Schema) -> pc.Expression | None:
    return row_filter(restrictions.row_filter, schema) if restrictions.row_filter else None


def _visible(schema: pa.Schema, restrictions: Restrictions) -> list[str]:
    """Return the columns that may be seen.

    Raises:
        CannotApply: a denied or masked name that is nearly a column, or lies inside one: to ignore it could show it.
    """
    folded = {_folded(name): name for name in schema.names}
    for name in (*restrictions.denied, *restrictions.masks):
        near = folded.get(_folded(name))
        if name not in schema.names and (near is not None or name.partition(".")[0] in schema.names):
            raise CannotApply(f"`{name}` is no column, but `{near or name.partition('.')[0]}` is")
    return [name for name in schema.names if name not in restrictions.denied]


def _children(kind: pa.DataType) -> list[pa.DataType]:
    return [kind.field(position).type for position in range(kind.num_fields)]


def _holds_dictionary(kind: pa.DataType) -> bool:
    return pa.types.is_dictionary(kind) or any(map(_holds_dictionary, _children(kind)))


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _decoded(column: pa.Array) -> pa.Array:
    """Return a column without its dictionary, which would hold the values of rows left out."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
