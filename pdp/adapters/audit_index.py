"""An index over the chains of the decision log: SQLite, beside them, made anew at will, and never evidence.

It says where a record lies (segment, offset, size) and by what it can be found. Whatever it finds is read back from its chain,
checked by its own digest, and matched once more: an index that lies can hide a record, and never make one. Who has reason
to doubt it removes the file, or asks with `rebuild`.

Names are kept once each, so that a pattern is matched against names and not against records. A segment only grows, so it is
read on from where the index stopped; one whose last indexed record is no longer there is read again from its beginning.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from json import dumps, loads
from pathlib import Path
from typing import Any, Final, Self

from pdp.adapters.audit_file import Segment, folders, segments
from pdp.adapters.audit_prune import removed_until
from pdp.audit.chain import Malformed, frames, unseal
from pdp.audit.query import NAMED, WILD, Wanted, fits, parts
from pdp.errors import ConfigError
from pdp.limits import AUDIT_INDEX_NAMES, STORE_BUSY_S

FILE_NAME: Final = "index.db"
_VERSION: Final = 2
_KEPT: Final = tuple(part for part in NAMED if part != "version")  # a resource's name holds its version
_SCHEMA: Final = f"""
CREATE TABLE name (id INTEGER PRIMARY KEY, part TEXT NOT NULL, text TEXT NOT NULL, UNIQUE (part, text));
CREATE TABLE segment (
  id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, chain TEXT NOT NULL, first INTEGER NOT NULL,
  until INTEGER NOT NULL, last_offset INTEGER NOT NULL, last_digest TEXT NOT NULL);
CREATE TABLE record (
  id INTEGER PRIMARY KEY, segment INTEGER NOT NULL, at INTEGER NOT NULL, size INTEGER NOT NULL, n INTEGER NOT NULL,
  time_ms INTEGER NOT NULL, world_seq INTEGER NOT NULL, effect TEXT NOT NULL,
  {", ".join(f"{part} INTEGER NOT NULL" for part in _KEPT)});
CREATE INDEX record_time ON record (time_ms);
CREATE INDEX record_subject ON record (subject, time_ms);
CREATE INDEX record_resource ON record (resource, time_ms);
CREATE INDEX record_rule ON record (rule, time_ms);
CREATE INDEX record_segment ON record (segment, n);
CREATE TABLE event (
  segment INTEGER NOT NULL, at INTEGER NOT NULL, size INTEGER NOT NULL, n INTEGER NOT NULL, time_ms INTEGER NOT NULL,
  decision_id TEXT NOT NULL);
CREATE INDEX event_decision ON event (decision_id);
CREATE INDEX event_segment ON event (segment, n);
PRAGMA user_version = {_VERSION};
"""
_INSERT: Final = f"INSERT INTO record VALUES (NULL, {', '.join('?' * (7 + len(_KEPT)))})"  # noqa: S608 - no input in it
_LAST_CHARACTER: Final = "\U0010ffff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A record that was found: its chain, number and time, and its content, None if it is no longer what was indexed."""

    chain: str
    n: int
    time_ms: int
    record: dict[str, Any] | None


class AuditIndex:
    """The index of all chains in and below a directory; `open` brings it up to date."""

    def __init__(self, directory: Path, database: sqlite3.Connection) -> None:
        self.directory = directory
        self._db = database
        self._names: dict[tuple[str, str], int] = {}

    @classmethod
    def open(cls, directory: Path, *, rebuild: bool = False) -> Self:
        """Open or make the index of `directory`, in memory where nothing may be written, and read what is new.

        Raises:
            ConfigError: there is no chain, or one cannot be read.
        """
        path = directory / FILE_NAME
        if rebuild:
            _remove(path)
        try:
            return cls._opened(directory, path)
        except sqlite3.DatabaseError:
            _remove(path)  # damaged, or of another kind: nothing is lost with it
            return cls._opened(directory, path)

    @classmethod
    def _opened(cls, directory: Path, path: Path) -> Self:
        database = _connect(path if os.access(directory, os.W_OK) else Path(":memory:"))
        index = cls(directory, database)
        try:
            index._refresh()
        except BaseException:
            database.close()
            raise
        return index

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- asking ------------------------------------------------------------------------------------------------------

    def find(self, wanted: Wanted, *, limit: int, skip: int = 0) -> list[Hit]:
        """Return the newest `limit` records that are wanted (0: all) but for `skip`, oldest first, read back from their chains.

        Raises:
            ConfigError: the index is damaged.
        """
        try:
            return self._found(wanted, limit, skip)
        except sqlite3.DatabaseError as error:
            raise self._damaged() from error

    def events(self, decisions: Iterable[Hit]) -> list[Hit]:
        """Return the records of streams that these decisions opened: cut, ended, and what else was noted; oldest first.

        Only those of a decision's own chain: another process has no say about its streams.

        Raises:
            ConfigError: the index is damaged.
        """
        opened = {(hit.chain, str(hit.record.get("decision_id", ""))) for hit in decisions if hit.record}
        question = (
            "SELECT chain, path, at, size, n, time_ms, decision_id FROM event JOIN segment ON segment.id = event.segment"
            " WHERE decision_id IN (SELECT value FROM json_each(?)) ORDER BY time_ms, segment.id, n"
        )
        try:
            rows = self._db.execute(question, (dumps(sorted(name for _, name in opened)),)).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._damaged() from error
        return [
            Hit(chain=chain, n=n, time_ms=time_ms, record=_read_back(self.directory / path, at, size))
            for chain, path, at, size, n, time_ms, name in rows
            if (chain, name) in opened
        ]

    def _damaged(self) -> ConfigError:
        return ConfigError(f"the index of {self.directory} is damaged", advice="make it anew: --rebuild")

    def _found(self, wanted: Wanted, limit: int, skip: int) -> list[Hit]:
        found: list[Hit] = []
        for chain, path, at, size, n, time_ms in self._candidates(wanted):
            record = _read_back(self.directory / path, at, size)
            if record is not None and not wanted.matches(record):
                continue
            if skip:
                skip -= 1
            else:
                found.append(Hit(chain=chain, n=n, time_ms=time_ms, record=record))
            if limit and len(found) == limit:
                break
        found.reverse()
        return found

    def count(self, wanted: Wanted, by: Sequence[str]) -> list[tuple[tuple[str, ...], int, int]]:
        """Return (names, how many, newest in ms) of the wanted decisions by `by`, such as `subject`: an overview, no evidence."""
        where, values = self._where(wanted)
        texts = ", ".join(f"(SELECT text FROM name WHERE id = {part})" for part in by)  # noqa: S608 - of `_KEPT`
        grouped = ", ".join(by)
        question = f"SELECT {texts}, count(*), max(time_ms) FROM record WHERE {where} GROUP BY {grouped} ORDER BY count(*) DESC"  # noqa: S608
        return [(tuple(row[:-2]), row[-2], row[-1]) for row in self._db.execute(question, values)]

    def _candidates(self, wanted: Wanted) -> Iterator[tuple[str, str, int, int, int, int]]:
        where, values = self._where(wanted)
        question = (
            "SELECT chain, path, at, size, n, time_ms FROM record JOIN segment ON segment.id = record.segment"  # noqa: S608 - as below
            f" WHERE {where} ORDER BY time_ms DESC, record.id DESC"
        )
        return iter(self._db.execute(question, values))

    def _where(self, wanted: Wanted) -> tuple[str, list[Any]]:
        """Return the condition on `record`, of fixed words alone, and the values for its question marks."""
        terms: list[str] = ["time_ms >= ?"]
        values: list[Any] = [wanted.since_ms]
        if wanted.until_ms:
            terms.append("time_ms <= ?")
            values.append(wanted.until_ms)
        if wanted.world_seq:
            terms.append("world_seq = ?")
            values.append(wanted.world_seq)
        if wanted.effect:
            terms.append("effect = ?")
            values.append(wanted.effect)
        for part, pattern in wanted.patterns.items():
            ids = self._ids(part, pattern)
            terms.append(_among("resource" if part == "version" else part, ids))
            values.append(ids[0] if len(ids) == 1 else str(ids))
        return " AND ".join(terms), values

    def _ids(self, part: str, pattern: str) -> list[int]:
        """Return the names of `part` that `pattern` matches."""
        if part == "version":  # it is the end of a resource's name
            rows = self._db.execute("SELECT id, text FROM name WHERE part = 'resource' AND text LIKE '%@%'")
            return [number for number, text in rows if fits(part, pattern, text.partition("@")[2])]
        start = "" if part in ("actor", "rule") else pattern.partition(WILD)[0]  # those hold several names each
        bounds = (part, start, start + _LAST_CHARACTER)
        rows = self._db.execute("SELECT id, text FROM name WHERE part = ? AND text BETWEEN ? AND ?", bounds)
        return [number for number, text in rows if fits(part, pattern, text)]

    # --- reading -----------------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        found = [item for below in folders(self.directory) for item in segments(below)]
        if not found:
            raise ConfigError(
                f"there is no chain in {self.directory}", advice="name the `audit` directory of a PDP, or a copy of it"
            )
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for segment in found:
                try:
                    self._read_on(segment)
                except OSError as error:
                    raise ConfigError(f"cannot read {segment.path}: {error.strerror}") from error
            self._forget_unacknowledged()
            self._forget_removed()

    def _read_on(self, segment: Segment) -> None:
        path = str(segment.path.relative_to(self.directory))
        chain = str(segment.path.relative_to(self.directory).with_name(segment.chain))
        row = self._db.execute(
            "SELECT id, until, last_offset, last_digest FROM segment WHERE path = ?", (path,)
        ).fetchone()
        number, until, last, digest = row or (None, 0, 0, "")
        if number is None or not _still_holds(segment.path, last, until, digest):
            self._drop(number)
            made = self._db.execute(
                "INSERT OR REPLACE INTO segment VALUES (?, ?, ?, ?, 0, 0, '')", (number, path, chain, segment.first)
            )
            number, until, last, digest = made.lastrowid, 0, 0, ""
        with segment.path.open("rb") as file:
            file.seek(until)
            data = file.read()
        place = [until, last, digest]
        events: list[tuple[Any, ...]] = []
        self._db.executemany(_INSERT, self._rows(number, data, place, events))
        self._db.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?)", events)
        self._db.execute(
            "UPDATE segment SET until = ?, last_offset = ?, last_digest = ? WHERE id = ?", (*place, number)
        )

    def _drop(self, number: int | None) -> None:
        for table in ("record", "event"):
            self._db.execute(f"DELETE FROM {table} WHERE segment = ?", (number,))  # noqa: S608 - of these two

    def _rows(
        self, number: int | None, data: bytes, place: list[Any], events: list[tuple[Any, ...]]
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of the decisions in `data`, add those of streams to `events`; `place` moves behind each whole record."""
        base = start = place[0]
        with suppress(Malformed):  # a write that is not whole yet, or damage: `pdp audit verify` tells which
            for end, content in frames(data):
                at, start = start, base + end
                record = _parsed(content)
                place[:] = start, at, str(record.get("digest", ""))
                if record.get("kind") == "decision":
                    row = self._row(number, at, start - at, record)
                    if row is not None:
                        yield row
                elif record.get("kind") == "stream":
                    events.append((number, at, start - at, *_of_stream(record)))

    def _row(self, number: int | None, at: int, size: int, record: dict[str, Any]) -> tuple[Any, ...] | None:
        try:
            said = parts(record)
            ids = [self._id(part, said[part]) for part in _KEPT]
            return (number, at, size, record["n"], record["time_ms"], record["world_seq"], record["effect"], *ids)
        except (AttributeError, KeyError, TypeError):
            return None  # no decision of ours; that such a line is in a chain, `pdp audit verify` and `replay` tell

    def _id(self, part: str, text: str) -> int:
        known = self._names.get((part, text))
        if known is not None:
            return known
        self._db.execute("INSERT OR IGNORE INTO name VALUES (NULL, ?, ?)", (part, text))
        (number,) = self._db.execute("SELECT id FROM name WHERE part = ? AND text = ?", (part, text)).fetchone()
        if len(self._names) >= AUDIT_INDEX_NAMES:
            self._names.clear()
        self._names[part, text] = int(number)
        return int(number)

    def _forget_unacknowledged(self) -> None:
        """Drop what stands behind the start of the next segment: its writing had failed (see `audit_file`)."""
        for table in ("record", "event"):
            self._db.execute(
                f"DELETE FROM {table} WHERE n >= (SELECT min(later.first) FROM segment JOIN segment AS later"  # noqa: S608
                f" ON later.chain = segment.chain AND later.first > segment.first WHERE segment.id = {table}.segment)"
            )

    def _forget_removed(self) -> None:
        """Drop segments that a tombstone says were removed by policy; any other that is gone stays, and is told as changed."""
        for number, path, until in self._db.execute("SELECT id, path, until FROM segment").fetchall():
            place = self.directory / path
            chain, first, _ = place.name.split(".", 2)
            if until and not place.exists() and int(first) <= removed_until(place.parent, chain):
                self._drop(number)
                self._db.execute("DELETE FROM segment WHERE id = ?", (number,))


def _of_stream(record: dict[str, Any]) -> tuple[int, int, str]:
    numbers = (record.get(name) for name in ("n", "time_ms"))
    n, time_ms = (number if isinstance(number, int) else 0 for number in numbers)
    return n, time_ms, str(record.get("decision_id", ""))


def _among(part: str, ids: Sequence[int]) -> str:
    """Return the condition that `part` is one of `ids`; one alone leaves the order to the index, and nothing is sorted."""
    return f"{part} = ?" if len(ids) == 1 else f"{part} IN (SELECT value FROM json_each(?))"  # noqa: S608 - of `_KEPT`


def _connect(path: Path) -> sqlite3.Connection:
    if str(path) != ":memory:":
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    database = sqlite3.connect(path, timeout=STORE_BUSY_S, isolation_level=None)
    try:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError("an index of another version")
        database.execute("PRAGMA synchronous = OFF")  # what is lost is made again
        if version == 0:
            database.executescript(_SCHEMA)
    except BaseException:
        database.close()
        raise
    return database


def _remove(path: Path) -> None:
    for part in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + part).unlink(missing_ok=True)


def _still_holds(path: Path, at: int, until: int, digest: str) -> bool:
    """Tell whether the last record that was indexed is where it was."""
    if not until:
        return True
    record = _read_back(path, at, until - at)
    return record is not None and record["digest"] == digest


def _read_back(path: Path, at: int, size: int) -> dict[str, Any] | None:
    """Return the record at a place, checked by its own digest; None if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(at)
            ((_, content),) = frames(file.read(size))
        return unseal(content)[0]
    except (OSError, ValueError):
        return None


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        record = loads(content)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
