"""Lookup structures: how a decision finds the rows that match without looking at those that do not.

Theory of operation. The compiler turns a matcher into a sequence of *steps*, one for each column of the policy that the
matcher constrains. Each step searches one level of the index, which maps what a row says in that column to the next level;
behind the last level stand the rules. A lookup carries a small list of levels from step to step:

    step 1  environment   keys {prod, *}                               -> at most 2
    step 2  action        keys {endpoint.invoke, endpoint.*, *}        -> at most 6
    step 3  object        keys {name, name without version, its collections}, and patterns from a trie of segments
    step 4  role          the subject's roles, intersected with the roles that stand there

Every key of a step is computed from the request alone, so the cost depends on the question (roles of the subject, segments
of the name, patterns that really cover it) and not on the number of rules. What a step finds must be exactly what the
functions of the matcher accept (`functions.py`); a property test holds the two together.

Most levels near the end hold one key, and most ends one rule. Such a level is a `Lone` and not a dictionary, such an end
the rule itself and not a list: a third of the memory of a policy, and with it the cache misses of a decision.

INVARIANT: levels are written by the compiler, before the snapshot that holds them is shared, and never again.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import takewhile
from operator import itemgetter
from typing import Any, NamedTuple

from pdp.engine.functions import attribute
from pdp.engine.plan import Term
from pdp.engine.tables import Trie, split_version, table_of
from pdp.limits import WORDS_KEPT

Values = Sequence[Any]
"""The values of a request: canonical names, or in a general model whatever the caller gave."""

Standing = Callable[[Term], set[str]]
"""What the request's name in a role test stands for; asked only by the steps that need it."""

Level = Any
"""What a step searches: `Lone | dict | PatternLevel | TableLevel`; behind the last step, a rule or a list of rules."""


class Lone:
    """A level of one key. Never changed: a second key makes it a dictionary."""

    __slots__ = ("key", "value")

    def __init__(self, key: str, value: Any) -> None:
        self.key = key
        self.value = value


class PatternLevel:
    """A level of names and patterns of names: exact keys in a dictionary, patterns in a trie."""

    __slots__ = ("exact", "patterns")

    def __init__(self) -> None:
        self.exact: dict[str, Level] = {}
        self.patterns = Trie()


class TableLevel:
    """A level of a column that Casbin's functions test: exact keys in a dictionary, and a table for each function."""

    __slots__ = ("exact", "tables")

    def __init__(self, kinds: Sequence[str]) -> None:
        self.exact: dict[str, Level] = {}
        self.tables = {kind: table_of(kind) for kind in kinds}


class _PlainStep:
    """A step that searches a level of texts: a `Lone`, or a dictionary."""

    __slots__ = ()

    def empty(self) -> Level:
        """Return the level that no row has entered: the first one makes it a `Lone`."""
        return None

    def get(self, level: Level, entry: "Entry") -> Level:
        """Return what follows an entry of a level, or None."""
        if type(level) is Lone:
            return level.value if level.key == entry.key else None
        return None if level is None else level.get(entry.key)

    def put(self, level: Level, entry: "Entry", value: Level) -> Level:
        """Set what follows an entry, or take the entry away if that is None; return the level for one with it."""
        if level is None or (type(level) is Lone and level.key == entry.key):
            return None if value is None else Lone(entry.key, value)
        if type(level) is Lone:
            return level if value is None else {level.key: level.value, entry.key: value}
        _set(level, entry.key, value)
        return level


class ExactStep(_PlainStep):
    """A step whose keys follow from one value of the request: equality, an environment, an action."""

    __slots__ = ("_keys", "field", "of_words")

    def __init__(self, field: int, keys: Callable[[str], tuple[str, ...]], *, of_words: bool) -> None:
        self.field = field
        self.of_words = of_words
        self._keys = keys

    def advance(self, levels: Sequence[Level], values: Values, standing: Standing) -> list[Level]:  # noqa: ARG002 - as each step
        """Return what follows the keys of this step."""
        keys = self._keys(values[self.field])
        found = []
        for level in levels:
            if type(level) is Lone:
                if level.key in keys:
                    found.append(level.value)
                continue
            for key in keys:
                value = level.get(key)
                if value is not None:
                    found.append(value)
        return found


class RoleStep(_PlainStep):
    """A step whose keys are all that a name stands for in a role graph: often many, so the smaller side is walked."""

    __slots__ = ("_term",)

    def __init__(self, term: Term) -> None:
        self._term = term

    def advance(self, levels: Sequence[Level], values: Values, standing: Standing) -> list[Level]:  # noqa: ARG002 - as each step
        """Return what follows the names of this step."""
        names = standing(self._term)
        found = []
        for level in levels:
            if type(level) is Lone:
                if level.key in names:
                    found.append(level.value)
                continue
            for name in level.keys() & names:
                found.append(level[name])  # noqa: PERF401 - a comprehension is a call
        return found


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

    def advance(self, levels: Sequence[Level], values: Values, standing: Standing) -> list[Level]:
        """Return what follows the keys of this step, and the patterns that cover its name."""
        found: list[Level] = []
        keys: set[str] | None = None
        for level in levels:
            if level.exact:
                # What the name stands for is asked only where it could be found: a third of a decision that finds a pattern.
                keys = self._keys(values, standing) if keys is None else keys
                for key in keys:
                    value = level.exact.get(key)
                    if value is not None:
                        found.append(value)
        if self._pattern is not None:
            base, version = split_version(values[self._pattern])
            segments = base.split("/")
            for level in levels:
                level.patterns.find(segments, version, found)
        return found

    def _keys(self, values: Values, standing: Standing) -> set[str]:
        keys: set[str] = set()
        for term in self._roles:
            # `standing` returns a set of its own for each call: the first is taken over as it is.
            keys = keys | standing(term) if keys else standing(term)
        for field, keys_of in self._exact:
            keys.update(keys_of(values[field]))
        return keys

    def empty(self) -> Level:
        """Return a level that no row has entered."""
        return PatternLevel()

    def get(self, level: Level, entry: "Entry") -> Level:
        """Return what follows an entry of a level, or None."""
        return level.patterns.get(entry.key) if entry.pattern else level.exact.get(entry.key)

    def put(self, level: Level, entry: "Entry", value: Level) -> Level:
        """Set what follows an entry, or take the entry away if that is None."""
        if entry.pattern:
            level.patterns.put(entry.key, value)
        else:
            _set(level.exact, entry.key, value)
        return level


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

    def advance(self, levels: Sequence[Level], values: Values, standing: Standing) -> list[Level]:
        """Return what follows the keys of this step, and the patterns that match."""
        keys = set(self._texts)
        for term in self._roles:
            keys |= standing(term)
        for term, keys_of in self._exact:
            keys.update(keys_of(asked(term, values)))
        found: list[Level] = [level.exact[key] for level in levels for key in level.exact.keys() & keys]
        for term in self._patterns:
            value = asked(term, values)
            for level in levels:
                level.tables[term.kind].find(value, found)
        return found

    def empty(self) -> Level:
        """Return a level that no row has entered."""
        return TableLevel(self.kinds)

    def get(self, level: Level, entry: "Entry") -> Level:
        """Return what follows an entry of a level, or None."""
        return level.tables[entry.pattern].get(entry.key) if entry.pattern else level.exact.get(entry.key)

    def put(self, level: Level, entry: "Entry", value: Level) -> Level:
        """Set what follows an entry; such a level is compiled whole, and nothing is taken out of it."""
        if entry.pattern:
            level.tables[entry.pattern].put(entry.key, value)
        else:
            level.exact[entry.key] = value
        return level


def asked(term: Term, values: Values) -> Any:
    """Return the value of the request that a term tests; None if it is absent."""
    value = values[term.field]
    return attribute(value, term.path) if term.path else value


Step = ExactStep | RoleStep | MixedStep | TableStep


class Search:
    """The look-up of one branch of a matcher: its steps, from the root of its index.

    The first steps ask for words of the vocabulary, an action and an environment, of which there are few: what follows them
    is remembered by these words, which is a tenth of a decision. The index never changes, so that nothing makes it untrue.
    """

    __slots__ = ("_first", "_steps", "_words")

    def __init__(self, root: Level, steps: Sequence[Step]) -> None:
        words = list(takewhile(lambda step: isinstance(step, ExactStep) and step.of_words, steps))
        self._steps = tuple(steps[len(words) :])
        fields = [step.field for step in words if isinstance(step, ExactStep)]
        self._words = itemgetter(*fields) if fields else _no_words
        self._first = lru_cache(WORDS_KEPT)(partial(_first, root, words, fields))

    def rules(self, values: Values, standing: Standing) -> list[Any]:
        """Return the rules whose every indexed conjunct holds for the values of a request, each once."""
        found: Sequence[Level] = self._first(self._words(values))
        for step in self._steps:
            if not found:
                return []
            found = step.advance(found, values, standing)
        if len(found) == 1:
            return list(rules_at(found[0]))
        # A row may be found by two of its keys (`dataset.read|*`): once is enough.
        return list(dict.fromkeys(rule for end in found for rule in rules_at(end)))


def _no_words(_values: Values) -> str:
    return ""


def _first(root: Level, steps: Sequence[Step], fields: Sequence[int], words: Any) -> tuple[Level, ...]:
    """Return what follows the steps that ask for words."""
    found: Sequence[Level] = () if root is None else (root,)
    values: Any = dict(zip(fields, words if len(fields) > 1 else (words,), strict=False))
    for step in steps:
        found = step.advance(found, values, _stands_for_nothing)
    return tuple(found)


def _stands_for_nothing(_term: Term) -> set[str]:
    return set()


def rules_at(end: Any) -> Sequence[Any]:
    """Return the rules that stand at an end of the index: a lone one stands there by itself."""
    return end if type(end) is list else (end,)


# --- writing ---------------------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """Where a row stands in one step: a key, and the kind of pattern that it is there; empty for an exact one."""

    key: str
    pattern: str = ""


Path = Sequence[tuple[Step, Sequence[Entry]]]
"""Where a row stands: for each step, its entries."""


def insert(level: Level, path: Path, rule: Any, depth: int = 0) -> Level:
    """Enter `rule` under every combination of keys in `path`; return the level, which may have become another."""
    if depth == len(path):
        if type(level) is list:
            level.append(rule)
            return level
        return rule if level is None else [level, rule]
    step, entries = path[depth]
    if level is None:
        level = step.empty()
    for entry in entries:
        below = step.get(level, entry)
        after = insert(below, path, rule, depth + 1)
        if after is not below:
            level = step.put(level, entry, after)
    return level


def _set(values: dict[str, Level], key: str, value: Level) -> None:
    if value is None:
        values.pop(key, None)
    else:
        values[key] = value
