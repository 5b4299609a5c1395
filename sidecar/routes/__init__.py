"""Route tables: a request becomes the parts of a question, or it is *unmapped* and denied.

A table is an allow-list of rows. Envoy's routes are generated from the same rows, and the agent maps every request again
by itself: Envoy and agent must agree on the row, or the answer is a deny. The path decides most rows; where the body names
the model, `bodies` and `messages` read it whole and `RouteTable.named` maps what it says.

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
    """Which door decides a row."""

    EXT_AUTHZ = "ext_authz"  # once, before the request goes on
    EXT_PROC = "ext_proc"  # at the start, and again while the response runs
    ASGI = "asgi"  # as ext_proc, inside the model server's own process: every row but gRPC's


class Scope(Enum):
    """What a row asks about."""

    SERVED = "served"  # the served name in the path
    BODY = "body"  # the served name in the body, or in each message
    SERVER = "server"  # the model server as a whole
    LIST = "list"  # every served name; the reply shows those that the caller may see
    RESULT = "result"  # the served name that made the answer in the path, for who was given its id alone
    FIXED = "fixed"  # the resource that the row itself names
    LOOKED_UP = "looked_up"  # what query and body name, and what the server says that is: inside the server only
    NEVER = "never"  # a deliberate deny: no grant opens it


class Body(Enum):
    """What must be read of a request's body before it is decided."""

    UNREAD = "unread"  # the path decides
    JSON = "json"  # an object; its `model` decides where the scope is BODY
    MULTIPART = "multipart"  # a form whose `model` field decides
    GRPC = "grpc"  # every message names its model
    MESSAGES = "messages"  # a WebSocket's messages, the first of which names the model


class Dialect(Enum):
    """Whose reply and error shapes a row speaks."""

    PLAIN = "plain"
    OIP = "oip"
    OPENAI = "openai"
    MLFLOW = "mlflow"


NO_TOKENS = ""
"""`Row.limit` of a row that generates no tokens: any bound on them holds."""

WEBSOCKET = "WEBSOCKET"
"""The method of a row that is a WebSocket; no HTTP request has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One route.

    `path` holds `{m}` for a served name, `{v}` for a version, `{id}` for any name, `{rest}` for whatever follows, and `[...]`
    for an optional part.

    Attributes:
        grpc: It is a gRPC method: HTTP/2 to the model, and trailers.
        stream: The answer lasts by nature.
        limit: The body's key that bounds the tokens generated (`max_tokens`); None: no bound can be set.
        resource: What a row of scope FIXED asks about.
        stores: Its replies give an id, by which rows of scope RESULT find what was answered.
        query: A query may come along, which whoever decides the row reads to its end.
    """

    name: str
    method: str
    path: str
    action: str
    scope: Scope = Scope.SERVED
    placement: Placement = Placement.EXT_AUTHZ
    body: Body = Body.UNREAD
    dialect: Dialect = Dialect.PLAIN
    grpc: bool = False
    stream: bool = False
    limit: str | None = None
    resource: str = ""
    stores: bool = False
    query: bool = False

    @property
    def regex(self) -> str:
        """The row's path as an expression that Envoy's RE2 and Python read alike."""
        pattern = re.escape(self.path)
        for meta, meaning in (
            (r"\[", "(?:"),
            (r"\]", ")?"),
            (r"\{m\}", f"({_ID})"),
            (r"\{v\}", f"({_ID})"),
            (r"\{rest\}", "(.+)"),
        ):
            pattern = pattern.replace(meta, meaning)
        return pattern.replace(r"\{id\}", _ID)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a served name stands for.

    Attributes:
        resource: The endpoint that is asked about.
        model: The model version behind it; empty: unknown.
        upstream: The name under which the server knows it, sent on in place of an alias; empty: the served name.
        pinned: The version is written into what is sent on, where the protocol has a place for it.
    """

    resource: str
    model: str
    upstream: str = ""
    pinned: bool = False

    @property
    def version(self) -> str:
        """The one version that is served under this name; empty: the server chooses."""
        return self.model.partition("@")[2]

    @property
    def rewrites(self) -> bool:
        """Whether what is sent on differs from what the caller wrote."""
        return bool(self.upstream) or self.pinned


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """The parts of the question that a request stands for.

    Attributes:
        row: The row.
        resource: What is asked about; empty: the body will say.
        model: The model version behind it; empty: unknown.
        name: The served name that the request wrote (an answer's id, where that is what it names); empty: none.
        version: The version that the request wrote; empty: none.
        served: What that name stands for.
        found: What stood in the path's places, for rows that are looked up.
    """

    row: Row
    resource: str
    model: str = ""
    name: str = ""
    version: str = ""
    served: Served | None = None
    found: tuple[str, ...] = ()


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
class Registry:
    """How an MLflow server's experiments and models are called in the inventory.

    Attributes:
        name: `experiment/<name>/<id>`, `run/<name>/<experiment id>` and `artifact/<name>/<experiment id>` are of this server.
        new: The attributes (`environment`, `segment`, ...) under which what is made through the server is registered; empty: an
            administrator registers it, and until then nobody has access to it.
        plain_aliases: Aliases that are no promotion: setting one is `model.tag`, setting any other is `model.promote`.
    """

    name: str = "mlflow"
    new: Mapping[str, str] = field(default_factory=dict)
    plain_aliases: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteTable:
    """The rows of one server, with the names it serves.

    Attributes:
        rows: The allow-list.
        served: Served name to what it stands for, matched exactly.
        server: The resource that server-wide rows ask about; empty: those rows are unmapped.
        registry: How the objects of an MLflow server are called; None: it is none.
    """

    rows: tuple[Row, ...]
    served: Mapping[str, Served]
    server: str = ""
    registry: Registry | None = None
    _by_method: Mapping[str, tuple[tuple[re.Pattern[str], Row], ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile the rows once, by method."""
        names = [row.name for row in self.rows]
        if len(names) != len(set(names)):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"two rows have one name, `{twice}`")
        compiled: dict[str, list[tuple[re.Pattern[str], Row]]] = {}
        for row in self.rows:
            compiled.setdefault(row.method, []).append((re.compile(row.regex), row))
        by_method = MappingProxyType({method: tuple(rows) for method, rows in compiled.items()})
        object.__setattr__(self, "_by_method", by_method)

    @property
    def grpc(self) -> bool:
        """Whether a row speaks gRPC."""
        return any(row.grpc for row in self.rows)

    def map(self, method: str, target: Target) -> Mapped | Unmapped:
        """Return what the request asks, or why no row speaks for it."""
        for pattern, row in self._by_method.get(method, ()):
            found = pattern.fullmatch(target.path)
            if found and target.query and not row.query:
                # A server that reads it would see a parameter nobody decided on.
                return Unmapped(why="query")
            if found:
                return self._ask(row, found.groups())
        return Unmapped(why="no row")

    def knows(self, method: str, template: str) -> bool:
        """Whether a row speaks for a route that a server describes with `{names}`; a deliberate deny is one, too."""
        path = re.sub(r"\{[^}]*\}", "x", template)
        return any(pattern.fullmatch(path) for pattern, _ in self._by_method.get(method, ()))

    def named(self, row: Row, name: str, version: str = "") -> Mapped | Unmapped:
        """Return what a request of `row` asks whose path or body names a model; an empty version is any."""
        served = self.served.get(name)
        if served is None:
            return Unmapped(why="unknown served name", row=row)
        if version and version != served.version:
            return Unmapped(why="another version than the one served", row=row)
        return Mapped(row=row, resource=served.resource, model=served.model, name=name, version=version, served=served)

    def _ask(self, row: Row, found: Iterable[str | None]) -> Mapped | Unmapped:
        match row.scope:
            case Scope.NEVER:
                return Unmapped(why="never allowed")
            case Scope.SERVER if not self.server:
                return Unmapped(why="no server resource configured")
            case Scope.SERVER:
                return Mapped(row=row, resource=self.server)
            case Scope.FIXED:
                return Mapped(row=row, resource=row.resource)
            case Scope.BODY | Scope.LIST | Scope.RESULT | Scope.LOOKED_UP:
                places = tuple(one or "" for one in found)
                return Mapped(row=row, resource="", name=(*places, "")[0], found=places)
            case Scope.SERVED:
                name, version = (*found, None)[:2]
                return self.named(row, name or "", version or "")
