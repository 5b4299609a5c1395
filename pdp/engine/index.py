"""Lookup structures: how a decision finds the rows that match without looking at those that do not.

Theory of operation. The compiler turns a matcher into a sequence of *steps*, one for each column of the policy that the
matcher constrains. A `Table` is one level of the index: it maps what a row says in that column to the next level; the last
level holds the rules. A lookup carries a small set of tables from step to step:

    step 1  environment   keys {prod, *}                     1 table   -> at most 2
    step 2  action        keys {endpoint.invoke, endpoint.*, *}        -> at most 6
    step 3  object        keys {name, name without version, its collections}, and patterns from a trie of segments
    step 4  role          the subject's roles, intersected with the roles that stand there

Every key of a step is computed from the request alone, so the cost depends on the question (roles of the subject, segments
of the name, patterns that really cover it) and not on the number of rules. What a step finds must be exactly what the
functions of the matcher accept (`functions.py`); a property test holds the two together.

INVARIANT: tables are written by the compiler, before the snapshot that holds them is shared, and never again.
"""

from collections.abc import Iterable
from typing import Any


class Trie:
    """Patterns by segments: `*` is any one segment, a last `**` one or more. Values stand by version ("" = every one)."""

    __slots__ = ("below", "children", "end", "star")

    def __init__(self) -> None:
        self.children: dict[str, Trie] = {}
        self.star: Trie | None = None
        self.end: dict[str, Any] = {}
        self.below: dict[str, Any] = {}

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


class Table:
    """One level of the index: exact keys, and patterns where the step has any. Leads to tables, or to lists of rules."""

    __slots__ = ("exact", "patterns")

    def __init__(self) -> None:
        self.exact: dict[str, Any] = {}
        self.patterns: Trie | None = None

    def slot(self, key: str, *, pattern: bool) -> tuple[dict[str, Any], str]:
        """Return the place for what follows `key`: a dictionary, and the key in it."""
        if not pattern:
            return self.exact, key
        self.patterns = self.patterns or Trie()
        return self.patterns.slot(key)


def insert(table: Table, path: list[list[tuple[str, bool]]], rule: Any) -> None:
    """Enter `rule` under every combination of the keys in `path`: for each step, keys and whether each is a pattern."""
    *steps, last = path
    tables = [table]
    for keys in steps:
        tables = [_next(one, key, pattern=pattern) for one in tables for key, pattern in keys]
    for one in tables:
        for key, pattern in last:
            values, place = one.slot(key, pattern=pattern)
            values.setdefault(place, []).append(rule)


def _next(table: Table, key: str, *, pattern: bool) -> Table:
    values, place = table.slot(key, pattern=pattern)
    following: Table = values.setdefault(place, Table())
    return following


def look_up(tables: list[Any], keys: Iterable[str], name: str | None) -> list[Any]:
    """Return what follows `keys` in any of the tables, and the patterns that cover `name`, if that is given."""
    found: list[Any] = []
    for table in tables:
        exact = table.exact
        for key in keys:
            value = exact.get(key)
            if value is not None:
                found.append(value)
        if name is not None and table.patterns is not None:
            base, version = split_version(name)
            table.patterns.find(base.split("/"), version, found)
    return found


def look_up_set(tables: list[Any], keys: set[str]) -> list[Any]:
    """As `look_up`, for a set of keys that may be large: the smaller side is walked."""
    found: list[Any] = []
    for table in tables:
        exact = table.exact
        found.extend(exact[key] for key in exact.keys() & keys)
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
