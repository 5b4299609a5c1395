"""Route tables: a request becomes the parts of a question, or it is *unmapped* and denied.

A table is an allow-list of rows. Envoy's routes are generated from the same rows, and the agent maps every request again
by itself: Envoy and agent must agree on the row, or the answer is a deny.

Source: ENFORCEMENT.md 3.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from sidecar.target import Target

_ID = "[A-Za-z0-9][A-Za-z0-9._~-]*"


class Placement(Enum):
    """Which Envoy filter decides a row."""

    EXT_AUTHZ = "ext_authz"  # once, before the request goes on
    EXT_PROC = "ext_proc"  # at the start, and again while the response runs


class Scope(Enum):
    """What a row asks about."""

    SERVED = "served"  # the served name in the path
    SERVER = "server"  # the model server as a whole
    NEVER = "never"  # a deliberate deny: no grant opens it


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One route: `path` holds `{m}` for a served name, `{v}` for a version, `[...]` for an optional part."""

    name: str
    method: str
    path: str
    action: str
    scope: Scope = Scope.SERVED
    placement: Placement = Placement.EXT_AUTHZ

    @property
    def regex(self) -> str:
        """The row's path as an expression that Envoy's RE2 and Python read alike."""
        pattern = re.escape(self.path)
        for meta, meaning in ((r"\[", "(?:"), (r"\]", ")?"), (r"\{m\}", f"({_ID})"), (r"\{v\}", f"({_ID})")):
            pattern = pattern.replace(meta, meaning)
        return pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a served name stands for: the endpoint that is asked about, and the model version behind it."""

    resource: str
    model: str

    @property
    def version(self) -> str:
        """The one version that is served under this name; empty: the server chooses."""
        return self.model.partition("@")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """The parts of the question that a request stands for."""

    row: Row
    resource: str
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmapped:
    """A request that no row speaks for: denied (`unmapped_route`).

    Attributes:
        why: For the record.
        row: The row it falls under but for the served name or version: what is served here is nobody's to learn without
            a credential, while the rows themselves are the protocol's.
    """

    why: str
    row: Row | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteTable:
    """The rows of one protocol, with the names this server serves.

    Attributes:
        rows: The allow-list.
        served: Served name to what it stands for, matched exactly.
        server: The resource that server-wide rows ask about; empty: those rows are unmapped.
    """

    rows: tuple[Row, ...]
    served: Mapping[str, Served]
    server: str = ""
    _by_method: Mapping[str, tuple[tuple[re.Pattern[str], Row], ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile the rows once, by method."""
        names = [row.name for row in self.rows]
        if len(names) != len(set(names)):
            raise ValueError("two rows have one name")
        compiled: dict[str, list[tuple[re.Pattern[str], Row]]] = {}
        for row in self.rows:
            compiled.setdefault(row.method, []).append((re.compile(row.regex), row))
        by_method = MappingProxyType({method: tuple(rows) for method, rows in compiled.items()})
        object.__setattr__(self, "_by_method", by_method)

    def map(self, method: str, target: Target) -> Mapped | Unmapped:
        """Return what the request asks, or why no row speaks for it."""
        if target.query:
            # No row of ours reads a query; a server that does would see a parameter nobody decided on.
            return Unmapped(why="query")
        for pattern, row in self._by_method.get(method, ()):
            found = pattern.fullmatch(target.path)
            if found:
                return self._ask(row, found.groups())
        return Unmapped(why="no row")

    def _ask(self, row: Row, found: Iterable[str | None]) -> Mapped | Unmapped:
        if row.scope is Scope.NEVER:
            return Unmapped(why="never allowed")
        if row.scope is Scope.SERVER:
            return (
                Mapped(row=row, resource=self.server) if self.server else Unmapped(why="no server resource configured")
            )
        name, version = (*found, None)[:2]
        served = self.served.get(name or "")
        if served is None:
            return Unmapped(why="unknown served name", row=row)
        if version is not None and version != served.version:
            return Unmapped(why="another version than the one served", row=row)
        return Mapped(row=row, resource=served.resource, model=served.model)
