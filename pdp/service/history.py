"""What the policy was, who changed it, and why: read from this PDP's own log, entry by entry.

The log is the only memory there is: nothing here is kept beside it, so nothing can disagree with it.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pdp.engine.casbin_text import Row
from pdp.errors import PortcullisError, Reason
from pdp.limits import LOG_READ_ENTRIES
from pdp.model import canonical
from pdp.ports import WorldLog
from pdp.service.desk import TRIAL, TRIAL_END
from pdp.trust.entry import EntryHeader

_POLICY: Final = "policy"
_STARTED: Final = "started"
_Key = tuple[str, str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One change of the policy that became live. `approvals` are the chains of who said yes, subject first."""

    seq: int
    time_ms: int
    author: str
    authors: tuple[str, ...]
    approvals: tuple[tuple[str, ...], ...]
    proposal: str
    message: str
    added: tuple[Row, ...]
    removed: tuple[Row, ...]
    model: str | None
    vocabulary: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A policy as the log held it at some number, not compiled."""

    model: str
    vocabulary: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A trial that began, or ended by an entry of its own: `why` is `started`, `stopped`, `time` or `rollback`.

    `detail` says of an end which condition was met, and what the trial has shown.
    """

    seq: int
    time_ms: int
    author: str
    proposal: str
    mode: str
    why: str
    detail: str


class History:
    """Reads the log."""

    def __init__(self, log: WorldLog) -> None:
        self._log = log

    async def revisions(self, *, up_to: int | None = None) -> AsyncIterator[Revision]:
        """Yield every change of the policy up to entry `up_to`, oldest first.

        Raises:
            PortcullisError: `not_found` if the log here does not reach back to its beginning.
        """
        async for header, payload in self._entries(_POLICY):
            if up_to is not None and header.seq > up_to:
                return
            yield _revision(header, canonical.loads(payload))

    async def trials(self) -> AsyncIterator[Tried]:
        """Yield every begin of a trial, and every end that is an entry of its own, oldest first.

        Raises:
            PortcullisError: as `revisions`.
        """
        modes: dict[int, str] = {}
        async for header, payload in self._entries(TRIAL, TRIAL_END):
            said = canonical.loads(payload)
            begins = header.kind == TRIAL
            seq = header.seq if begins else said["trial"]
            modes[seq] = said["mode"] if begins else modes.get(seq, "")
            yield Tried(
                seq=header.seq,
                time_ms=header.time_ms,
                author=header.author,
                proposal=said["proposal"],
                mode=modes[seq],
                why=_STARTED if begins else said["why"],
                detail=_shown(said),
            )

    async def _entries(self, *kinds: str) -> AsyncIterator[tuple[EntryHeader, bytes]]:
        after = 0
        while entries := await self._log.read(after=after, limit=LOG_READ_ENTRIES):
            for entry in entries:
                header = EntryHeader.decode(entry.header)
                if header.seq != after + 1:
                    message = f"the log here begins with entry {header.seq}"
                    raise PortcullisError(Reason.NOT_FOUND, message, advice="ask a PDP that keeps the whole log")
                after = header.seq
                if header.kind in kinds:
                    yield header, entry.payload

    async def at(self, seq: int) -> Held:
        """Return the policy that was live at entry `seq`.

        Raises:
            PortcullisError: `not_found` if there was none.
        """
        model = vocabulary = None
        rows: dict[_Key, Row] = {}
        async for revision in self.revisions(up_to=seq):
            model = revision.model if revision.model is not None else model
            vocabulary = revision.vocabulary if revision.vocabulary is not None else vocabulary
            _advance(rows, revision)
        if model is None or vocabulary is None:
            raise PortcullisError(Reason.NOT_FOUND, f"no policy was live at entry {seq}", advice="`pdp policy log`")
        return Held(model=model, vocabulary=vocabulary, rows=tuple(rows.values()))

    async def blame(self) -> tuple[tuple[Row, Revision], ...]:
        """Return each live row with the change that brought it: a row that only moved keeps its own."""
        rows: dict[_Key, Row] = {}
        brought: dict[tuple[str, tuple[str, ...]], Revision] = {}
        async for revision in self.revisions():
            before = {(row.section, row.fields) for row in rows.values()}
            _advance(rows, revision)
            for row in revision.added:
                key = (row.section, row.fields)
                if key not in before or key not in brought:
                    brought[key] = revision
        ordered = sorted(rows.values(), key=lambda row: (row.file, row.line))
        return tuple((row, brought[row.section, row.fields]) for row in ordered)


def _shown(said: Mapping[str, Any]) -> str:
    counts = said.get("shown")
    counted = f"{counts['compared']} compared: {counts['gains']} gains, {counts['loses']} loses" if counts else ""
    return "; ".join(part for part in (said.get("detail", ""), counted) if part)


def _advance(rows: dict[_Key, Row], revision: Revision) -> None:
    for row in revision.removed:
        rows.pop((row.id, row.section, row.fields), None)
    for row in revision.added:
        rows[row.id, row.section, row.fields] = row


def _revision(header: EntryHeader, payload: Mapping[str, Any]) -> Revision:
    return Revision(
        seq=header.seq,
        time_ms=header.time_ms,
        author=header.author,
        authors=tuple(payload.get("authors", (header.author,))),
        approvals=tuple(tuple(one["by"]) for one in payload.get("approvals", ())),
        proposal=payload.get("proposal", ""),
        message=payload.get("message", ""),
        added=tuple(map(Row.from_json, payload["added"])),
        removed=tuple(map(Row.from_json, payload["removed"])),
        model=payload["model"],
        vocabulary=payload["vocabulary"],
    )
