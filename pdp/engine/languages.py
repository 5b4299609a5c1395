"""Which names patterns tell apart: regular languages, and for each way in which they overlap a name that shows it.

Theory of operation. What a pattern matches is a regular language. A language is kept as a tree whose *derivative* by a
character is what may follow that character (Brzozowski 1964); trees are made in a normal form and numbered, so only
finitely many derivatives come about. All patterns of a field are walked together from the first character on: a state is
what may still follow for each of them, and each state is visited once. Where a name may end, the patterns that it has met
are one *class*; the walk ends having found every class that there is, and for each a name of it. Characters that no tree in
a state tells apart are taken together, so it does not matter that there are a million of them.

`^` and `$` are trees too: `$` is passed only at the end of a name, and `^` is gone after the first character.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from itertools import product
from typing import Final, TypeVar

from pdp.limits import MAX_CLASS_STEPS, MAX_CLASS_WORDS

Key = TypeVar("Key", bound=Hashable)
Tree = int
"""The number of a language in its `Trees`."""
Ranges = tuple[tuple[int, int], ...]
"""Characters by their code points: ranges in order, both ends included."""

NONE: Final[Tree] = 0
"""No name at all."""
EMPTY: Final[Tree] = 1
"""The empty name alone."""
ALL: Final[Tree] = 2
"""Every name."""
START: Final[Tree] = 3
END: Final[Tree] = 4

_LAST: Final = 0x10FFFF
_SURROGATES: Final = (0xD800, 0xDFFF)
ANY_CHARACTER: Final[Ranges] = ((0, _LAST),)


class TooManyClassesError(Exception):
    """Telling the classes of these patterns apart takes too many steps."""


def but(ranges: Ranges) -> Ranges:
    """Return all other characters."""
    found, at = [], 0
    for low, high in merged(ranges):
        if low > at:
            found.append((at, low - 1))
        at = high + 1
    return (*found, *(((at, _LAST),) if at <= _LAST else ()))


def merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return ranges in order, those that touch as one."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Made:
    """A tree: its sort, its parts, and whether it may be passed without a character: within a name, and at its end."""

    sort: str
    parts: tuple[Tree, ...]
    ranges: Ranges
    within: bool
    at_end: bool
    starts: bool
    """Whether a `^` is left in it."""


class Trees:
    """Languages, each made once."""

    def __init__(self) -> None:
        self._made: list[_Made] = [
            _Made("characters", (), (), False, False, False),  # noqa: FBT003 - NONE
            _Made("empty", (), (), True, True, False),  # noqa: FBT003 - EMPTY
            _Made("not", (NONE,), (), True, True, False),  # noqa: FBT003 - ALL
            _Made("start", (), (), True, True, True),  # noqa: FBT003 - START
            _Made("end", (), (), False, True, False),  # noqa: FBT003 - END
        ]
        self._numbers = {(one.sort, one.parts, one.ranges): number for number, one in enumerate(self._made)}
        self._derived: dict[tuple[Tree, int], Tree] = {}
        self._edges: dict[Tree, frozenset[int]] = {}
        self._later: dict[Tree, Tree] = {}

    # --- making them -------------------------------------------------------------------------------------------------

    def _tree(self, sort: str, parts: tuple[Tree, ...], ranges: Ranges = ()) -> Tree:
        number = self._numbers.get((sort, parts, ranges))
        if number is None:
            if len(self._made) > MAX_CLASS_STEPS:
                raise TooManyClassesError
            below = [self._made[part] for part in parts]
            within, at_end = _passed(sort, [one.within for one in below]), _passed(sort, [one.at_end for one in below])
            number = self._numbers[sort, parts, ranges] = len(self._made)
            self._made.append(_Made(sort, parts, ranges, within, at_end, any(one.starts for one in below)))
        return number

    def one_of(self, ranges: Ranges) -> Tree:
        """Return the names of one character out of `ranges`."""
        return self._tree("characters", (), merged(ranges)) if ranges else NONE

    def text(self, text: str) -> Tree:
        """Return the one name `text`."""
        return self.then(*(self.one_of(((ord(character), ord(character)),)) for character in text))

    def then(self, *trees: Tree) -> Tree:
        """Return one after the other."""
        return reduce(lambda after, tree: self._pair(tree, after), reversed(trees), EMPTY)

    def _pair(self, first: Tree, second: Tree) -> Tree:
        heads = []
        while (made := self._made[first]).sort == "then":
            heads.append(made.parts[0])
            first = made.parts[1]
        for head in (first, *reversed(heads)):
            second = self._before(head, second)
        return second

    def _before(self, head: Tree, rest: Tree) -> Tree:
        """Return `head`, which is no sequence itself, and then `rest`."""
        made = self._made[head]
        if not made.within and not made.starts:
            rest = self._without_start(rest)  # here, where it is near: a long text is a deep tree
        if NONE in (head, rest):
            return NONE
        if head == END:
            return END if self._made[rest].at_end else NONE
        if head == EMPTY or (head == rest == ALL):
            return rest
        return head if rest == EMPTY else self._tree("then", (head, rest))

    def either(self, *trees: Tree) -> Tree:
        """Return the names of any of them."""
        return self._joined("or", trees, neutral=NONE, strong=ALL)

    def both(self, *trees: Tree) -> Tree:
        """Return the names that are in each of them."""
        return self._joined("and", trees, neutral=ALL, strong=NONE)

    def _joined(self, sort: str, trees: Iterable[Tree], *, neutral: Tree, strong: Tree) -> Tree:
        parts: set[Tree] = set()
        for tree in trees:
            made = self._made[tree]
            parts.update(made.parts if made.sort == sort else (tree,))
        parts.discard(neutral)
        if strong in parts:
            return strong
        if len(parts) < 2:  # noqa: PLR2004 - one alone needs no joining
            return parts.pop() if parts else neutral
        return self._tree(sort, tuple(sorted(parts)))

    def other_than(self, tree: Tree) -> Tree:
        """Return every name that is not in it."""
        made = self._made[tree]
        return made.parts[0] if made.sort == "not" else self._tree("not", (tree,))

    def repeated(self, tree: Tree, least: int = 0, most: int | None = None) -> Tree:
        """Return `least` to `most` of it, one after the other."""
        if most is None:
            endless = self._endless(tree)
            return self.then(*[tree] * least, endless)
        optional = EMPTY
        for _ in range(most - least):
            optional = self.either(EMPTY, self.then(tree, optional))
        return self.then(*[tree] * least, optional)

    def beginning(self, tree: Tree) -> Tree:
        """Return the names that begin with one of `tree`: one that ends in `$` is all of the name."""
        heads = []
        while (made := self._made[tree]).sort == "then":
            heads.append(made.parts[0])
            tree = made.parts[1]
        if made.sort == "or":
            return self.then(*heads, self.either(*map(self.beginning, made.parts)))
        return self.then(*heads, tree, ALL)

    def _endless(self, tree: Tree) -> Tree:
        made = self._made[tree]
        if tree in (NONE, EMPTY) or made.sort == "star":
            return EMPTY if tree in (NONE, EMPTY) else tree
        return ALL if made.ranges == ANY_CHARACTER else self._tree("star", (tree,))

    # --- what follows ------------------------------------------------------------------------------------------------

    def ends(self, tree: Tree) -> bool:
        """Tell whether a name may end here."""
        return self._made[tree].at_end

    def edges(self, tree: Tree) -> frozenset[int]:
        """Return the code points from which on the next character may mean something else."""
        found = self._edges.get(tree)
        if found is None:
            made = self._made[tree]
            parts = made.parts if made.sort != "then" or self._made[made.parts[0]].within else made.parts[:1]
            found = frozenset(edge for low, high in made.ranges for edge in (low, high + 1)).union(
                *(self.edges(part) for part in parts)
            )
            self._edges[tree] = found
        return found

    def after(self, tree: Tree, character: int) -> Tree:
        """Return what may follow `character`."""
        key = (tree, character)
        if key not in self._derived:
            self._derived[key] = self._after(self._made[tree], character)
        return self._derived[key]

    def _after(self, made: _Made, character: int) -> Tree:  # noqa: PLR0911 - one line for each sort of tree
        match made.sort:
            case "characters":
                return EMPTY if any(low <= character <= high for low, high in made.ranges) else NONE
            case "then":
                first, second = made.parts
                rest = self.then(self.after(first, character), self._without_start(second))
                return self.either(rest, self.after(second, character)) if self._made[first].within else rest
            case "star":
                (tree,) = made.parts
                return self.then(self.after(tree, character), self._without_start(self._tree("star", made.parts)))
            case "or":
                return self.either(*(self.after(part, character) for part in made.parts))
            case "and":
                return self.both(*(self.after(part, character) for part in made.parts))
            case "not":
                return self.other_than(self.after(made.parts[0], character))
            case _:
                return NONE

    def _without_start(self, tree: Tree) -> Tree:
        """Return a tree as it is behind the first character: no `^` can be passed any more."""
        if not self._made[tree].starts:
            return tree
        if tree not in self._later:
            made = self._made[tree]
            parts = tuple(map(self._without_start, made.parts))
            make: Mapping[str, Callable[..., Tree]] = {
                "then": self.then,
                "or": self.either,
                "and": self.both,
                "not": self.other_than,
                "star": self._endless,
            }
            self._later[tree] = make[made.sort](*parts) if parts else NONE
        return self._later[tree]

    def words(self, tree: Tree) -> frozenset[str] | None:
        """Return all names of a language, and perhaps others; None if there are endlessly many, or too many for a class each."""
        found: frozenset[str] = frozenset({""})
        while (made := self._made[tree]).sort == "then":
            head, tree = made.parts
            found = _spelled_out(found, self._heads(head))
            if not 0 < len(found) <= MAX_CLASS_WORDS:
                return None
        found = _spelled_out(found, self._heads(tree))
        return found if 0 < len(found) <= MAX_CLASS_WORDS else None

    def _heads(self, tree: Tree) -> frozenset[str]:
        """Return the names of a language that is no sequence; none if they are too many."""
        made = self._made[tree]
        if tree in (EMPTY, START, END):
            return frozenset({""})
        if made.sort == "characters" and sum(high - low + 1 for low, high in made.ranges) <= MAX_CLASS_WORDS:
            return frozenset(chr(point) for low, high in made.ranges for point in range(low, high + 1))
        if made.sort != "or":
            return frozenset()
        sets = [self.words(part) for part in made.parts]
        return frozenset[str]().union(*(each for each in sets if each)) if all(sets) else frozenset()


def _spelled_out(words: frozenset[str], following: frozenset[str]) -> frozenset[str]:
    if len(words) * len(following) > MAX_CLASS_WORDS:
        return frozenset()
    return frozenset(map("".join, product(words, following)))


def _passed(sort: str, below: list[bool]) -> bool:
    if sort == "not":
        return not below[0]
    if sort in {"star", "empty"}:
        return True
    return any(below) if sort == "or" else all(below) and sort != "characters"


@dataclass(slots=True)
class _Node:
    """Names that are taken, by their characters."""

    ends: bool = False
    below: dict[int, "_Node"] = field(default_factory=dict)


def _spelled(names: Iterable[str]) -> _Node:
    root = _Node()
    for name in names:
        node = root
        for character in name:
            node = node.below.setdefault(ord(character), _Node())
        node.ends = True
    return root


_State = tuple[tuple[int, Tree], ...]
"""What may still follow: of the names that are looked for, at 0, and of each pattern that is not out of question, from 1 on."""


def classes_of(
    trees: Trees, patterns: Mapping[Key, Tree], names: Tree, taken: Iterable[str] = ()
) -> dict[frozenset[Key], str]:
    """Return for each set of patterns that some of `names` meets, and no others, such a name that is none of `taken`.

    Raises:
        TooManyClassesError: there are more than can be told apart.
    """
    found: dict[frozenset[Key], str] = {}
    keys = tuple(patterns)
    start = tuple((at, tree) for at, tree in enumerate((names, *patterns.values())) if tree != NONE)
    for word, state in _Walk(trees).from_(start, _spelled(taken)):
        met = frozenset(keys[at - 1] for at, tree in state if at and trees.ends(tree))
        found.setdefault(met, word)
    return found


class _Walk:
    """All states that lead on from the first, each once.

    A state that is reached by spelling no taken name leads to all that it leads to while one is spelled: such come first,
    and the others are passed over where one has been.
    """

    def __init__(self, trees: Trees) -> None:
        self._trees = trees
        self._free: deque[tuple[str, _State]] = deque()
        self._spelling: deque[tuple[str, _State, _Node]] = deque()
        self._seen: set[object] = set()
        self._steps = 0

    def from_(self, start: _State, taken: _Node) -> Iterator[tuple[str, _State]]:
        """Yield each state in which a name may end that is not taken, and such a name."""
        self._spelling.append(("", start, taken))
        node: _Node | None
        while self._free or self._spelling:
            if self._free:
                (word, state), node = self._free.popleft(), None
            else:
                word, state, node = self._spelling.popleft()
            key: object = state if node is None else (state, id(node))
            if not self._seen.isdisjoint((state, key)) or state[:1] == () or state[0][0] != 0:
                continue
            self._seen.add(key)
            if self._trees.ends(state[0][1]) and not (node and node.ends):
                yield word, state
            self._lead_on(word, state, node)

    def _lead_on(self, word: str, state: _State, node: _Node | None) -> None:
        below = node.below if node else {}
        edges = {*below, *(point + 1 for point in below)}.union(*(self._trees.edges(tree) for _, tree in state))
        for character in _one_of_each(edges):
            self._steps += len(state)
            if self._steps > MAX_CLASS_STEPS:
                raise TooManyClassesError
            each = ((at, self._trees.after(tree, character)) for at, tree in state)
            following = tuple((at, tree) for at, tree in each if tree != NONE)
            if character in below:
                self._spelling.append((word + chr(character), following, below[character]))
            else:
                self._free.append((word + chr(character), following))


_READABLE: Final = tuple(map(ord, "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_./"))


def _one_of_each(edges: Iterable[int]) -> list[int]:
    """Return one character of each range that begins at an edge, one that can be read if there is any; these come first."""
    starts = sorted({0, _SURROGATES[1] + 1, *edges} - {_LAST + 1})
    ranges = zip(starts, (*starts[1:], _LAST + 1), strict=True)
    found = {next((one for one in _READABLE if low <= one < end), low) for low, end in ranges}
    sound = {one for one in found if not _SURROGATES[0] <= one <= _SURROGATES[1]}
    return sorted(sound, key=lambda one: (_READABLE.index(one) if one in _READABLE else len(_READABLE), one))
