"""Lookup structures: how a decision finds the rows that match without looking at those that do not.

Theory of operation. The compiler turns a matcher into a sequence of *steps*, one for each column of the policy that the
matcher constrains. Each step searches one level of the index, which maps what a row says in that column to the next level;
the last level holds the rules. A lookup carries a small list of levels from step to step:

    step 1  environment   keys {prod, *}                               -> at most 2
    step 2  action        keys {endpoint.invoke, endpoint.*, *}        -> at most 6
    step 3  object        keys {name, name without version, its collections}, and patterns from a trie of segments
    step 4  role          the subject's roles, intersected with the roles that stand there

Every key of a step is computed from the request alone, so the cost depends on the question (roles of the subject, segments
of the name, patterns that really cover it) and not on the number of rules. What a step finds must be exactly what the
functions of the matcher accept (`functions.py`); a property test holds the two together.

INVARIANT: levels are written by the compiler, before the snapshot that holds them is shared, and never again.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from pdp.engine.functions import attribute
from pdp.engine.patterns import Pattern, Verify, parse_address, read_pattern
from pdp.engine.plan import Term

Values = Sequence[Any]
"""The values of a request: canonical names, or in a general model whatever the caller gave."""

Standing = Callable[[Term], set[str]]
"""What the request's name in a role test stands for; asked only by the steps that need it."""


class Trie:
    """Patterns by segments: `*` is any one segment, a last `**` one or more. Values stand by version ("" = every one)."""

    __slots__ = ("below", "children", "end", "star")

    def __init__(self) -> None:
        self.children: dict[str, Trie] = {}
        self.star: Trie | None = None
        self.end: dict[str, Any] = {}
        self.below: dict[str, Any] = {}

    @property
    def empty(self) -> bool:
        """Whether no pattern stands here or below."""
        return not (self.children or self.star or self.end or self.below)

    def copied(self) -> "Trie":
        """Return a copy that shares what is below it."""
        copy = Trie()
        copy.children, copy.star = dict(self.children), self.star
        copy.end, copy.below = dict(self.end), dict(self.below)
        return copy

    def slot(self, pattern: str) -> tuple[dict[str, Any], str]:
        """Return the place for the value of `pattern`: a dictionary, and the key in it."""
        base, version = split_version(pattern)
        node, segments = self, base.split("/")
        deep = segments[-1] == "**"
        for segment in segments[:-1] if deep else segments:
            if segment == "*":
                node.star = node.star or Trie()
                node = node.star
            else:
                node = node.children.setdefault(segment, Trie())
        return (node.below if deep else node.end), version

    def find(self, segments: list[str], version: str, found: list[Any]) -> None:
        """Append to `found` the value of every pattern that covers the name."""
        nodes = [self]
        for segment in segments:
            following = []
            for node in nodes:
                if node.below:
                    _take(node.below, version, found)
                child = node.children.get(segment)
                if child is not None:
                    following.append(child)
                if node.star is not None:
                    following.append(node.star)
            if not following:
                return
            nodes = following
        for node in nodes:
            if node.end:
                _take(node.end, version, found)


def _take(values: dict[str, Any], version: str, found: list[Any]) -> None:
    value = values.get("")
    if value is not None:
        found.append(value)
    if version:
        value = values.get(version)
        if value is not None:
            found.append(value)


Level = dict[str, Any]
"""What follows each key: the next level, or the list of rules."""


class PatternLevel:
    """A level of names and patterns of names: exact keys in a dictionary, patterns in a trie."""

    __slots__ = ("exact", "patterns")

    def __init__(self) -> None:
        self.exact: Level = {}
        self.patterns = Trie()


class ExactStep:
    """A step whose keys follow from one value of the request: equality, an environment, an action."""

    __slots__ = ("_field", "_keys")

    def __init__(self, field: int, keys: Callable[[str], tuple[str, ...]]) -> None:
        self._field = field
        self._keys = keys

    def advance(self, levels: list[Any], values: Values, standing: Standing) -> list[Any]:  # noqa: ARG002 - as each step
        """Return what follows the keys of this step."""
        keys = self._keys(values[self._field])
        return [value for level in levels for key in keys if (value := level.get(key)) is not None]


class RoleStep:
    """A step whose keys are all that a name stands for in a role graph: often many, so the smaller side is walked."""

    __slots__ = ("_term",)

    def __init__(self, term: Term) -> None:
        self._term = term

    def advance(self, levels: list[Any], values: Values, standing: Standing) -> list[Any]:  # noqa: ARG002 - as each step
        """Return what follows the names of this step."""
        names = standing(self._term)
        if len(levels) == 1:
            (level,) = levels
            return [level[name] for name in level.keys() & names]
        return [level[name] for level in levels for name in level.keys() & names]


class MixedStep:
    """A step of several tests, any of which is enough, or of one that knows patterns."""

    __slots__ = ("_exact", "_pattern", "_roles")

    def __init__(
        self,
        *,
        exact: Sequence[tuple[int, Callable[[str], tuple[str, ...]]]],
        pattern: int | None,
        roles: Sequence[Term],
    ) -> None:
        self._exact = tuple(exact)
        self._pattern = pattern
        self._roles = tuple(roles)

    def advance(self, levels: list[Any], values: Values, standing: Standing) -> list[Any]:
        """Return what follows the keys of this step, and the patterns that cover its name."""
        keys: set[str] = set()
        for term in self._roles:
            # `standing` returns a set of its own for each call: the first is taken over as it is.
            keys = keys | standing(term) if keys else standing(term)
        for field, keys_of in self._exact:
            keys.update(keys_of(values[field]))
        found: list[Any] = [value for level in levels for key in keys if (value := level.exact.get(key)) is not None]
        if self._pattern is not None:
            base, version = split_version(values[self._pattern])
            segments = base.split("/")
            for level in levels:
                level.patterns.find(segments, version, found)
        return found


# --- patterns of Casbin's functions ----------------------------------------------------------------------------------


class Bucket:
    """Patterns that are found at the same place: by text, what follows each, and what is left to be checked."""

    __slots__ = ("checks", "values")

    def __init__(self) -> None:
        self.values: Level = {}
        self.checks: dict[str, Verify] = {}

    def place(self, text: str, pattern: Pattern) -> tuple[Level, str]:
        """Return the place for the value of `text`."""
        if pattern.verify is not None:
            self.checks[text] = pattern.verify
        return self.values, text

    def find(self, value: str, found: list[Any]) -> None:
        """Append what follows each pattern here that matches `value`."""
        checks = self.checks
        for text, following in self.values.items():
            check = checks.get(text)
            if check is None or check(value):
                found.append(following)


class PrefixTable:
    """Patterns by the characters that each match begins with (`keyMatch`, `regexMatch`): one look-up for each length."""

    __slots__ = ("_kind", "buckets", "lengths")

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.buckets: dict[str, Bucket] = {}
        self.lengths: dict[int, int] = {}

    def slot(self, text: str) -> tuple[Level, str]:
        """Return the place for the value of the pattern `text`."""
        pattern = read_pattern(self._kind, text)
        if pattern.prefix not in self.buckets:
            self.buckets[pattern.prefix] = Bucket()
            self.lengths[len(pattern.prefix)] = self.lengths.get(len(pattern.prefix), 0) + 1
        return self.buckets[pattern.prefix].place(text, pattern)

    def find(self, value: str, found: list[Any]) -> None:
        """Append what follows each pattern that matches `value`."""
        for length in self.lengths:
            bucket = self.buckets.get(value[:length]) if length <= len(value) else None
            if bucket is not None:
                bucket.find(value, found)


class _Node:
    __slots__ = ("children", "end", "open", "star")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.star: _Node | None = None
        self.end: Bucket | None = None
        self.open: Bucket | None = None


class SegmentTable:
    """Patterns by their leading segments (`keyMatch2` to `5`, `globMatch`), those that end there apart from the others."""

    __slots__ = ("_kind", "root")

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.root = _Node()

    def slot(self, text: str) -> tuple[Level, str]:
        """Return the place for the value of the pattern `text`."""
        pattern = read_pattern(self._kind, text)
        node = self.root
        for step in pattern.steps:
            if step is None:
                node.star = node.star or _Node()
                node = node.star
            else:
                node = node.children.setdefault(step, _Node())
        if pattern.whole:
            node.end = node.end or Bucket()
            return node.end.place(text, pattern)
        node.open = node.open or Bucket()
        return node.open.place(text, pattern)

    def find(self, value: str, found: list[Any]) -> None:
        """Append what follows each pattern that matches `value`."""
        nodes = [self.root]
        for segment in value.split("/"):
            following = []
            for node in nodes:
                if node.open is not None:
                    node.open.find(value, found)
                child = node.children.get(segment)
                if child is not None:
                    following.append(child)
                if node.star is not None and segment:
                    following.append(node.star)
            nodes = following
        for node in nodes:
            for bucket in (node.end, node.open):
                if bucket is not None:
                    bucket.find(value, found)


class NetworkTable:
    """Networks by version, length of prefix and address (`ipMatch`): one look-up for each length that occurs."""

    __slots__ = ("_kind", "buckets", "lengths")

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.buckets: dict[tuple[int, int, int], Bucket] = {}
        self.lengths: dict[tuple[int, int], int] = {}

    def slot(self, text: str) -> tuple[Level, str]:
        """Return the place for the value of the network `text`."""
        pattern = read_pattern(self._kind, text)
        network = pattern.network
        shift = network.max_prefixlen - network.prefixlen
        key = (network.version, shift, int(network.network_address) >> shift)
        if key not in self.buckets:
            self.buckets[key] = Bucket()
            self.lengths[key[:2]] = self.lengths.get(key[:2], 0) + 1
        return self.buckets[key].place(text, pattern)

    def find(self, value: str, found: list[Any]) -> None:
        """Append what follows each network that holds the address `value`."""
        address = parse_address(value)
        if address is None:
            return
        number = int(address)
        for version, shift in self.lengths:
            bucket = self.buckets.get((version, shift, number >> shift)) if version == address.version else None
            if bucket is not None:
                bucket.find(value, found)


class ResourceTable:
    """Patterns of our own resources, beside tests that only this kind of level knows."""

    __slots__ = ("_kind", "trie")

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.trie = Trie()

    def slot(self, text: str) -> tuple[Level, str]:
        """Return the place for the value of the pattern `text`."""
        return self.trie.slot(text)

    def find(self, value: str, found: list[Any]) -> None:
        """Append what follows each pattern that covers the name `value`."""
        base, version = split_version(value)
        self.trie.find(base.split("/"), version, found)


Table = PrefixTable | SegmentTable | NetworkTable | ResourceTable
_TABLES: Final[dict[str, type[Table]]] = {
    "keyMatch": PrefixTable,
    "regexMatch": PrefixTable,
    "ipMatch": NetworkTable,
    "resourceMatch": ResourceTable,
}


def table_of(kind: str) -> Table:
    """Return an empty table for the patterns of function `kind`."""
    return _TABLES.get(kind, SegmentTable)(kind)


class TableLevel:
    """A level of a column that Casbin's functions test: exact keys in a dictionary, and a table for each function."""

    __slots__ = ("exact", "tables")

    def __init__(self, kinds: Sequence[str]) -> None:
        self.exact: Level = {}
        self.tables = {kind: table_of(kind) for kind in kinds}


class TableStep:
    """A step of any tests of one column, some of which are Casbin's functions, attributes or written texts."""

    __slots__ = ("_exact", "_patterns", "_roles", "_texts", "kinds")

    def __init__(
        self,
        *,
        exact: Sequence[tuple[Term, Callable[[str], tuple[str, ...]]]],
        patterns: Sequence[Term],
        roles: Sequence[Term],
        texts: Sequence[str],
    ) -> None:
        self._exact = tuple(exact)
        self._patterns = tuple(patterns)
        self._roles = tuple(roles)
        self._texts = frozenset(texts)
        self.kinds = tuple(dict.fromkeys(term.kind for term in patterns))

    def advance(self, levels: list[Any], values: Values, standing: Standing) -> list[Any]:
        """Return what follows the keys of this step, and the patterns that match."""
        keys = set(self._texts)
        for term in self._roles:
            keys |= standing(term)
        for term, keys_of in self._exact:
            keys.update(keys_of(asked(term, values)))
        found: list[Any] = [level.exact[key] for level in levels for key in level.exact.keys() & keys]
        for term in self._patterns:
            value = asked(term, values)
            for level in levels:
                level.tables[term.kind].find(value, found)
        return found


def asked(term: Term, values: Values) -> Any:
    """Return the value of the request that a term tests; None if it is absent."""
    value = values[term.field]
    return attribute(value, term.path) if term.path else value


Step = ExactStep | RoleStep | MixedStep | TableStep


class Entry(NamedTuple):
    """Where a row stands in one step: a key, and the kind of pattern that it is there; empty for an exact one."""

    key: str
    pattern: str = ""


def insert(root: Any, path: Sequence[tuple[Step, Sequence[Entry]]], rule: Any) -> None:
    """Enter `rule` under every combination of keys in `path`: for each step, the entries of the row."""
    levels = [root]
    for number, (_, entries) in enumerate(path):
        following = path[number + 1][0] if number + 1 < len(path) else None
        levels = [_next(level, entry, following) for level in levels for entry in entries]
    for rules in levels:
        rules.append(rule)


def level_of(step: Step | None) -> Any:
    """Return an empty level of the kind that a step searches; behind the last step, a list of rules."""
    if step is None:
        return []
    if isinstance(step, TableStep):
        return TableLevel(step.kinds)
    return PatternLevel() if isinstance(step, MixedStep) else {}


def slot(level: Any, entry: Entry) -> tuple[Level, str]:
    """Return the place of an entry in a level: a dictionary, and the key in it."""
    if isinstance(level, TableLevel):
        return level.tables[entry.pattern].slot(entry.key) if entry.pattern else (level.exact, entry.key)
    if isinstance(level, PatternLevel):
        return level.patterns.slot(entry.key) if entry.pattern else (level.exact, entry.key)
    return level, entry.key


def _next(level: Any, entry: Entry, following: Step | None) -> Any:
    values, key = slot(level, entry)
    found = values.get(key)
    if found is None:
        found = values[key] = level_of(following)
    return found


def split_version(name: str) -> tuple[str, str]:
    """Return a resource's name without its version, and the version; any other name has none.

    Only resources have versions: `user:bob@example.com` is one name, and never the same as `user:bob`.
    """
    base, at, version = name.partition("@")
    return (base, version) if at and "/" in base and ":" not in base else (name, "")


def is_pattern(text: str) -> bool:
    """Tell whether a name in a row is a pattern: whether a whole segment of it is a wildcard."""
    return "*" in text and any(segment in {"*", "**"} for segment in split_version(text)[0].split("/"))
