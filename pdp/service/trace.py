"""A trace: everything that the decision log and the world log say about a principal, a model version or a dataset snapshot.

Who reached what and when; which rows of the policy allowed it, who brought those rows and who approved them; what the asset
comes from and what came of it; and what else was within reach at the time. Made of records that were read back from their
chains and of entries that were verified one by one; nothing is guessed, and what cannot be found is left out or said.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pdp.ask import what_can
from pdp.audit.replay import Logged, logged
from pdp.engine.casbin_text import Row, print_row
from pdp.limits import TRACE_SUBJECTS
from pdp.model import canonical
from pdp.model.listed import Access as How
from pdp.model.names import Principal
from pdp.model.request import Party
from pdp.service.history import History, Revision
from pdp.service.redecide import Worlds, decided
from pdp.trust.entry import EntryHeader, SignedEntry
from pdp.world import World

DERIVED: Final = "derived_from"
_ASSETS: Final = "assets"
_RETIRE: Final = "retire"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """An asset as the log has it: when, by whom, and what it is said to come from; or why it was `retired`."""

    name: str
    seq: int
    time_ms: int
    author: str
    derived_from: tuple[str, ...]
    attributes: Mapping[str, Any]
    retired: str = ""

    @property
    def told(self) -> str:
        """What it comes from, or that it went."""
        return f"retired: {self.retired}" if self.retired else ", ".join(self.derived_from)


@dataclass(frozen=True, slots=True, kw_only=True)
class Because:
    """A row that an answer stood on, and the change that brought it."""

    row: str
    text: str
    revision: Revision | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One decision: the record as its chain holds it, why it was as it was, and what was noted of the stream it opened."""

    chain: str
    record: Mapping[str, Any]
    because: tuple[Because, ...]
    events: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """What a principal could do in a world, and did not: resource and action."""

    subject: str
    world_seq: int
    unused: tuple[tuple[str, str], ...]
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """All of it, oldest first."""

    name: str
    accesses: tuple[Access, ...]
    lineage: tuple[Registered, ...]
    reach: tuple[Within, ...]
    not_shown: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chronicle:
    """What a world log says beside the worlds it makes: who brought which row, and who registered which asset."""

    revisions: tuple[Revision, ...]
    registered: tuple[Registered, ...]

    @classmethod
    async def read(cls, history: History, entries: Iterable[SignedEntry]) -> "Chronicle":
        """Read it all; the entries have been verified by whoever folds them."""
        return cls(
            revisions=tuple([revision async for revision in history.revisions()]),
            registered=tuple(one for entry in entries for one in registrations(entry)),
        )

    def family(self, names: Iterable[str]) -> set[str]:
        """Return `names`, all that they come from, and all that came of them or of that: what a leak could have reached."""
        up: dict[str, set[str]] = {}
        down: dict[str, set[str]] = {}
        for one in self.registered:
            for origin in one.derived_from:
                up.setdefault(one.name, set()).add(origin)
                down.setdefault(origin, set()).add(one.name)
        start = set(names)
        return start | _closure(start, up) | _closure(start, down)

    def brought(self, row: Row, seq: int) -> Revision | None:
        """Return the newest change up to entry `seq` that brought a row of this content."""
        for revision in reversed(self.revisions):
            if revision.seq <= seq and any((row.section, row.fields) == (a.section, a.fields) for a in revision.added):
                return revision
        return None


def _closure(names: set[str], edges: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        for following in edges.get(waiting.pop(), ()):
            if following not in found:  # whoever registers a circle is not followed for ever
                found.add(following)
                waiting.append(following)
    return found


def registrations(entry: SignedEntry) -> Iterable[Registered]:
    """Yield the assets that an entry registers, changes or retires."""
    header = EntryHeader.decode(entry.header)
    if header.kind == _RETIRE:
        payload = canonical.loads(entry.payload)
        yield from (_registered(name, header, {}, retired=payload["reason"]) for name in payload["names"])
    if header.kind == _ASSETS:
        for asset in canonical.loads(entry.payload)["assets"]:
            yield _registered(asset["name"], header, asset["attributes"])


def _registered(name: str, header: EntryHeader, attributes: Mapping[str, Any], retired: str = "") -> Registered:
    origins = attributes.get(DERIVED, ())
    return Registered(
        name=name,
        seq=header.seq,
        time_ms=header.time_ms,
        author=header.author,
        derived_from=tuple(origins) if isinstance(origins, list | tuple) else (),
        attributes=attributes,
        retired=retired,
    )


async def trace(
    name: str,
    found: Sequence[tuple[str, Mapping[str, Any]]],
    chronicle: Chronicle,
    worlds: Worlds,
    *,
    not_shown: int,
    streams: Sequence[tuple[str, Mapping[str, Any]]] = (),
) -> Trace:
    """Return the trace of `name`.

    Args:
        name: a principal or a resource.
        found: (chain, record) of the decisions about it, oldest first.
        chronicle: what the log says of rows and assets.
        worlds: the worlds that the decisions name.
        not_shown: how many older decisions were left out.
        streams: (chain, record) of the streams that they opened, oldest first.
    """
    accesses = []
    last: dict[str, tuple[World, Party]] = {}
    for chain, record in found:
        one = logged(record)
        world = await worlds.at(one.world_seq) if isinstance(one, Logged) else None
        because: tuple[Because, ...] = ()
        if isinstance(one, Logged) and world is not None:
            because = tuple(_because(one, world, chronicle))
            if one.said.effect == "allow":
                last[str(one.question.subject.principal)] = (world, one.question.subject)
        opened = (chain, record["decision_id"])
        events = tuple(event for held, event in streams if (held, event.get("decision_id")) == opened)
        accesses.append(Access(chain=chain, record=record, because=because, events=events))
    touched = {str(record["resource"]) for _, record in found} if _is_principal(name) else {name}
    family = chronicle.family(touched)
    return Trace(
        name=name,
        accesses=tuple(accesses),
        lineage=tuple(one for one in chronicle.registered if one.name in family),
        reach=tuple(_within(*item, accesses) for item in list(last.values())[:TRACE_SUBJECTS]),
        not_shown=not_shown,
    )


def _because(one: Logged, world: World, chronicle: Chronicle) -> Iterable[Because]:
    """Yield the rows that determined a decision, then the role rows by which the subject came under them."""
    policy = world.candidate if one.said.candidate else world.policy
    rows = policy.snapshot.rows if policy else ()
    named = {row.id: row for row in rows}
    for rule in one.said.determining:
        if rule in named:
            yield _of(named[rule], one.world_seq, chronicle)
    decision = decided(world, one)
    links = set(zip(decision.role_path, decision.role_path[1:], strict=False))
    for row in rows:
        if row.section.startswith("g") and row.fields[:2] in links:
            yield _of(row, one.world_seq, chronicle)


def _of(row: Row, seq: int, chronicle: Chronicle) -> Because:
    return Because(row=row.id, text=print_row(row), revision=chronicle.brought(row, seq))


def _within(world: World, party: Party, accesses: Sequence[Access]) -> Within:
    name = str(party.principal)
    used = {
        (str(one.record["resource"]), str(one.record["action"])) for one in accesses if one.record["principal"] == name
    }
    possible = {
        (one.resource, one.action)
        for one in what_can(world, party, world.signed_ms)
        if one is not None and one.access is not How.DENY
    }
    return Within(subject=name, world_seq=world.seq, unused=tuple(sorted(possible - used)), used=len(possible & used))


def _is_principal(name: str) -> bool:
    return ":" in name.partition("/")[0]


def principal_of(name: str) -> str:
    """Return `name` if it is a principal's, checked; empty if it is a resource's.

    Raises:
        BadNameError: it looks like a principal's and is none.
    """
    return str(Principal.parse(name)) if _is_principal(name) else ""
