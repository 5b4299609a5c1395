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
from typing import Any

from pdp.engine.plan import Term

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

    def advance(self, levels: list[Any], values: tuple[str, ...], standing: Standing) -> list[Any]:  # noqa: ARG002 - as each step
        """Return what follows the keys of this step."""
        keys = self._keys(values[self._field])
        return [value for level in levels for key in keys if (value := level.get(key)) is not None]


class RoleStep:
    """A step whose keys are all that a name stands for in a role graph: often many, so the smaller side is walked."""

    __slots__ = ("_term",)

    def __init__(self, term: Term) -> None:
        self._term = term

    def advance(self, levels: list[Any], values: tuple[str, ...], standing: Standing) -> list[Any]:  # noqa: ARG002 - as each step
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

    def advance(self, levels: list[Any], values: tuple[str, ...], standing: Standing) -> list[Any]:
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


Step = ExactStep | RoleStep | MixedStep


def insert(root: Any, path: Sequence[tuple[Step, Sequence[tuple[str, bool]]]], rule: Any) -> None:
    """Enter `rule` under every combination of keys in `path`: for each step, the keys, and whether each is a pattern."""
    levels = [root]
    for number, (_, keys) in enumerate(path):
        following = path[number + 1][0] if number + 1 < len(path) else None
        make = list if following is None else level_of(following)
        levels = [_next(level, key, make, pattern=pattern) for level in levels for key, pattern in keys]
    for rules in levels:
        rules.append(rule)


def level_of(step: Step) -> type[Level | PatternLevel]:
    """Return what kind of level a step searches."""
    return PatternLevel if isinstance(step, MixedStep) else dict


def _next(level: Any, key: str, make: Callable[[], Any], *, pattern: bool) -> Any:
    values = level
    if isinstance(level, PatternLevel):
        values, key = level.patterns.slot(key) if pattern else (level.exact, key)
    following = values.get(key)
    if following is None:
        following = values[key] = make()
    return following


def split_version(name: str) -> tuple[str, str]:
    """Return a resource's name without its version, and the version; any other name has none.

    Only resources have versions: `user:bob@example.com` is one name, and never the same as `user:bob`.
    """
    base, at, version = name.partition("@")
    return (base, version) if at and "/" in base and ":" not in base else (name, "")


def is_pattern(text: str) -> bool:
    """Tell whether a name in a row is a pattern: whether a whole segment of it is a wildcard."""
    return "*" in text and any(segment in {"*", "**"} for segment in split_version(text)[0].split("/"))
